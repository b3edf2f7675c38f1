//! The Hub, spoken to over loopback: what is fetched, how it lies in the cache, and what is said when it cannot be had.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use digrap_bench::data::fetching::{self, FetchEvent, FileState, Folders};
use digrap_bench::data::{DATASETS, Packing, Part, SourceFile, find_dataset};
use digrap_bench::error::Error;
use digrap_bench::hub::{Event, Hub, Lock, Repository, Settings, Snapshot, Token};
use serde_json::{Value, json};

use crate::hub_server::{COMMIT, Fault, HubRepository, HubServer, STRANGER, TOKEN, fingerprint, sha256};
use crate::support::{fixture, program_at};

const CONFIG: &[u8] = b"{\"model_type\": \"tiny\"}";
const TOKENIZER: &[u8] = b"{}";
const IMAGES: &[u8] = b"{\"size\": 8}";

/// Bytes that are not all alike.
fn weights(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 31 % 251) as u8).collect()
}

/// A model as far as files go.
fn tiny() -> HubRepository {
    HubRepository::model("org/tiny").with(&[
        ("README.md", b"a model"),
        ("config.json", CONFIG),
        ("tokenizer.json", TOKENIZER),
        ("preprocessor_config.json", IMAGES),
        ("model.safetensors", &weights(100_000)),
        ("pytorch_model.bin", b"not read"),
    ])
}

/// Its files that are needed.
const NEEDED: [&str; 4] = ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"];

fn hub_at(server: &HubServer, cache: &Path) -> Hub {
    hub(server, cache, None, false)
}

fn hub(server: &HubServer, cache: &Path, token: Option<&str>, offline: bool) -> Hub {
    let token = token.and_then(|token| Token::new(token).unwrap());
    Hub::new(Settings { cache: cache.to_owned(), endpoint: Some(server.endpoint()), token, offline }).unwrap()
}

fn get(hub: &Hub, name: &str) -> Result<Snapshot, Error> {
    hub.snapshot(&name.parse().unwrap(), &mut |_| ())
}

/// Whether the folder of the snapshot has these bytes.
#[track_caller]
fn assert_holds(snapshot: &Snapshot, repository: &HubRepository, names: &[&str]) {
    let found: Vec<&str> = snapshot.lock.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(found, names);
    for file in &snapshot.lock.files {
        let expected = &repository.files[&file.path];
        assert!(fs::read(snapshot.folder.join(&file.path)).unwrap() == *expected, "{}", file.path);
        assert_eq!((file.size, &file.sha256), (expected.len() as u64, &sha256(expected)), "{}", file.path);
    }
}

#[test]
fn the_cache_is_laid_out_as_that_of_huggingface_hub() {
    let (server, cache) = (HubServer::start(&[tiny()]), tempfile::tempdir().unwrap());
    let snapshot = get(&hub_at(&server, cache.path()), "org/tiny").unwrap();
    let folder = cache.path().join("models--org--tiny");
    assert_eq!(snapshot.folder, folder.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    assert_holds(&snapshot, &tiny(), &NEEDED);
    let lock = &snapshot.lock;
    assert_eq!((lock.repository.as_str(), lock.revision.as_str(), lock.commit.as_str()), ("org/tiny", "main", COMMIT));
    for name in NEEDED {
        let blob = fingerprint(name, &tiny().files[name]);
        assert_eq!(fs::read_link(snapshot.folder.join(name)).unwrap(), Path::new("../../blobs").join(&blob));
    }
    let count = |folder: PathBuf| fs::read_dir(folder).unwrap().count();
    assert_eq!((count(folder.join("blobs")), count(snapshot.folder)), (4, 4));
}

#[test]
fn a_commit_in_the_cache_costs_no_request_and_a_branch_one() {
    let (server, cache) = (HubServer::start(&[tiny()]), tempfile::tempdir().unwrap());
    let hub = hub_at(&server, cache.path());
    let first = get(&hub, "org/tiny").unwrap();
    assert_eq!(server.requests().iter().filter(|request| request.path.starts_with("/api/models/")).count(), 1);
    let pinned = get(&hub, &format!("org/tiny@{COMMIT}")).unwrap();
    assert_eq!(server.requests().len(), 0);
    assert_eq!((&pinned.folder, &pinned.lock.files), (&first.folder, &first.lock.files));
    get(&hub, "org/tiny").unwrap();
    let requests: Vec<String> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(requests, ["/api/models/org/tiny/revision/main?blobs=true"]);
    // Without one of its files, the commit is asked for again, and only that file fetched.
    fs::remove_file(first.folder.join("tokenizer.json").canonicalize().unwrap()).unwrap();
    let again = get(&hub, &format!("org/tiny@{COMMIT}")).unwrap();
    assert_holds(&again, &tiny(), &NEEDED);
    assert_eq!(server.count("/resolve/"), 1);
}

#[test]
fn branches_with_slashes_and_dataset_repositories_are_found() {
    let mut model = tiny();
    model.revisions.push("refs/pr/7");
    let mut dataset =
        HubRepository::model("org/questions").with(&[("data/test 0.parquet", b"rows"), ("README.md", b"!")]);
    dataset.kind = "datasets";
    let (server, cache) = (HubServer::start(&[model, dataset.clone()]), tempfile::tempdir().unwrap());
    let hub = hub_at(&server, cache.path());
    assert_holds(&get(&hub, "org/tiny@refs/pr/7").unwrap(), &tiny(), &NEEDED);
    assert!(cache.path().join("models--org--tiny/refs/refs/pr/7").is_file());
    let repository: Repository = "org/questions".parse().unwrap();
    let snapshot = hub.snapshot(&repository.dataset(), &mut |_| ()).unwrap();
    assert_holds(&snapshot, &dataset, &["README.md", "data/test 0.parquet"]);
    assert!(snapshot.folder.starts_with(cache.path().join("datasets--org--questions")));
}

#[test]
fn of_a_sharded_model_all_shards_are_fetched_and_nothing_else() {
    let index = json!({"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}});
    let mut model = HubRepository::model("org/large").with(&[
        ("config.json", CONFIG),
        ("model.safetensors.index.json", index.to_string().as_bytes()),
        ("model-1.safetensors", &weights(3000)),
        ("model-2.safetensors", &weights(2000)),
        ("consolidated.safetensors", &weights(5000)),
        ("model.gguf", b"other"),
    ]);
    let (server, cache) = (HubServer::start(std::slice::from_ref(&model)), tempfile::tempdir().unwrap());
    let hub = hub_at(&server, cache.path());
    let needed = ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"];
    assert_holds(&get(&hub, "org/large").unwrap(), &model, &needed);
    assert_eq!(server.count("/resolve/"), 4);
    assert_eq!(server.count("consolidated") + server.count("gguf"), 0);

    model.files.remove("model-2.safetensors");
    server.change(|repositories| repositories[0] = model);
    let error = get(&hub_at(&server, tempfile::tempdir().unwrap().path()), "org/large").unwrap_err();
    assert!(error.to_string().contains("names `model-2.safetensors`, which is not in the repository"), "{error}");
}

#[test]
fn only_the_hub_sees_the_token_and_the_storage_does_not() {
    let mut model = tiny();
    model.gated = true;
    model.private = true;
    let (server, cache) = (HubServer::start(&[model]), tempfile::tempdir().unwrap());
    let hub = hub(&server, cache.path(), Some(&format!(" {TOKEN}\n")), false);
    assert_holds(&get(&hub, "org/tiny").unwrap(), &tiny(), &NEEDED);
    let requests = server.requests();
    let with_token = |path: &str| {
        let found = requests.iter().filter(|request| request.path.contains(path));
        found.map(|request| request.headers.contains_key("authorization")).collect::<Vec<_>>()
    };
    assert_eq!(with_token("/revision/"), [true]);
    assert_eq!(with_token("/resolve/"), [true; 4]);
    assert_eq!(with_token("/resolve-cache/"), [true; 3]);
    assert_eq!(with_token("/storage/"), [false]);
    assert!(requests.iter().all(|request| request.headers["user-agent"].contains("digrap-bench/")));
}

#[test]
fn a_renamed_repository_is_followed() {
    let mut old = HubRepository::model("former/name");
    old.renamed = Some("org/tiny");
    let (server, cache) = (HubServer::start(&[old, tiny()]), tempfile::tempdir().unwrap());
    assert_holds(&get(&hub_at(&server, cache.path()), "former/name").unwrap(), &tiny(), &NEEDED);
}

#[test]
fn broken_downloads_go_on_where_they_ended() {
    let (server, cache) = (HubServer::start(&[tiny()]), tempfile::tempdir().unwrap());
    server.fail("/storage/", 1, Fault::Truncated(30_000));
    server.fail("/storage/", 1, Fault::Truncated(20_000));
    let mut received = Vec::new();
    let mut waited = 0;
    let snapshot = hub_at(&server, cache.path())
        .snapshot(&"org/tiny".parse().unwrap(), &mut |event| match event {
            Event::Received { done, total, .. } => received.push((done, total)),
            Event::Waiting { .. } => waited += 1,
            Event::Checked { .. } => {}
        })
        .unwrap();
    assert_holds(&snapshot, &tiny(), &NEEDED);
    let ranges = |path: &str| {
        let requests = server.requests().into_iter().filter(|request| request.path.contains(path));
        requests.map(|request| request.headers.get("range").cloned()).collect::<Vec<_>>()
    };
    assert_eq!(ranges("/storage/"), [None, Some("bytes=30000-".to_owned()), Some("bytes=50000-".to_owned())]);
    assert_eq!(waited, 2);
    let all: u64 = NEEDED.iter().map(|name| tiny().files[*name].len() as u64).sum();
    assert_eq!(received.last(), Some(&(all, Some(all))));
    assert!(received.is_sorted());
}

#[test]
fn a_server_that_cannot_go_on_begins_anew() {
    let (server, cache) = (HubServer::start(&[tiny()]), tempfile::tempdir().unwrap());
    let blob = cache.path().join("models--org--tiny/blobs").join(sha256(&weights(100_000)));
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    let part = PathBuf::from(format!("{}.incomplete", blob.display()));
    fs::write(&part, &weights(100_000)[..40_000]).unwrap();
    server.fail("/storage/", 1, Fault::Whole);
    assert_holds(&get(&hub_at(&server, cache.path()), "org/tiny").unwrap(), &tiny(), &NEEDED);
    // What is longer than the file cannot be a part of it.
    fs::remove_file(&blob).unwrap();
    fs::write(&part, weights(200_000)).unwrap();
    assert_holds(&get(&hub_at(&server, cache.path()), "org/tiny").unwrap(), &tiny(), &NEEDED);
    // All bytes had come when the process was killed.
    fs::remove_file(&blob).unwrap();
    fs::write(&part, weights(100_000)).unwrap();
    server.requests();
    assert_holds(&get(&hub_at(&server, cache.path()), "org/tiny").unwrap(), &tiny(), &NEEDED);
    assert_eq!((server.count("/storage/"), part.exists()), (0, false));
}

#[test]
fn failures_that_may_pass_are_tried_again() {
    let (server, cache) = (HubServer::start(&[tiny()]), tempfile::tempdir().unwrap());
    server.fail("/revision/", 2, Fault::Status(429, &[("Retry-After", "0")]));
    server.fail("/resolve/", 1, Fault::Status(503, &[("Retry-After", "0")]));
    server.fail("/storage/", 4, Fault::Status(429, &[("RateLimit", "\"resolvers\";r=0;t=0")]));
    let mut reasons = Vec::new();
    let snapshot = hub_at(&server, cache.path()).snapshot(&"org/tiny".parse().unwrap(), &mut |event| {
        if let Event::Waiting { reason, seconds } = event {
            reasons.push((reason.to_owned(), seconds));
        }
    });
    assert_holds(&snapshot.unwrap(), &tiny(), &NEEDED);
    let told = |status: u16| (format!("the server answers with status {status}"), 0);
    assert_eq!(reasons, [429, 429, 503, 429, 429, 429, 429].map(told));
    // The fifth attempt is the last one.
    server.fail("/revision/", 9, Fault::Status(503, &[("Retry-After", "0")]));
    server.requests();
    let error = get(&hub_at(&server, cache.path()), "org/tiny").unwrap_err();
    assert!(error.to_string().contains("the Hub fails with status 503"), "{error}");
    assert_eq!(server.count("/revision/"), 5);
}

#[test]
fn files_that_another_program_has_fetched_are_used() {
    let (server, cache) = (HubServer::start(&[tiny()]), tempfile::tempdir().unwrap());
    let blobs = cache.path().join("models--org--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(sha256(&weights(100_000))), weights(100_000)).unwrap();
    // A small file that was damaged on the disk is fetched again.
    fs::write(blobs.join(fingerprint("config.json", CONFIG)), vec![b'x'; CONFIG.len()]).unwrap();
    assert_holds(&get(&hub_at(&server, cache.path()), "org/tiny").unwrap(), &tiny(), &NEEDED);
    assert_eq!((server.count("/storage/"), server.count("/resolve/")), (0, 3));
}

#[test]
fn processes_that_fetch_the_same_model_share_the_work() {
    let (server, cache) = (HubServer::start(&[tiny()]), tempfile::tempdir().unwrap());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_holds(&get(&hub_at(&server, cache.path()), "org/tiny").unwrap(), &tiny(), &NEEDED));
        }
    });
    assert_eq!(server.count("/storage/"), 1);
    assert_eq!(server.count("/resolve/"), 4);
}

#[test]
fn offline_a_branch_is_what_it_was_last() {
    let (server, cache) = (HubServer::start(&[tiny()]), tempfile::tempdir().unwrap());
    let first = get(&hub_at(&server, cache.path()), "org/tiny").unwrap();
    server.requests();
    let offline = hub(&server, cache.path(), None, true);
    for name in ["org/tiny".to_owned(), format!("org/tiny@{COMMIT}")] {
        let again = get(&offline, &name).unwrap();
        assert_eq!((again.folder, again.lock.files), (first.folder.clone(), first.lock.files.clone()));
    }
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_lock_finds_every_change() {
    let (server, cache) = (HubServer::start(&[tiny()]), tempfile::tempdir().unwrap());
    let hub = hub_at(&server, cache.path());
    let Snapshot { lock, folder } = get(&hub, "org/tiny").unwrap();
    let verify = |lock: &Lock| hub.verify(lock, &mut |_| ()).map_err(|error| error.to_string());
    let mut checked = 0;
    hub.verify(&lock, &mut |event| {
        if let Event::Checked { done, total, .. } = event {
            assert!(done > checked && done <= total);
            checked = done;
        }
    })
    .unwrap();
    assert_eq!(checked, lock.files.iter().map(|file| file.size).sum::<u64>());
    let blob = folder.join("model.safetensors").canonicalize().unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[77] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    assert!(verify(&lock).unwrap_err().contains("was not the file that was used"));
    assert!(!blob.exists());
    assert!(verify(&lock).unwrap_err().contains("is not in the cache"));
    get(&hub, &format!("org/tiny@{COMMIT}")).unwrap();
    assert_eq!(verify(&lock), Ok(()));
    let mut outside = lock.clone();
    outside.files[0].path = "../../refs/main".to_owned();
    assert!(verify(&outside).unwrap_err().contains("which is outside of it"));
}

#[test]
fn a_server_cannot_place_files_outside_of_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    for path in ["../tokenizer.json", "/tmp/tokenizer.json", "tokenizer/../../tokenizer.json"] {
        let server = HubServer::start(&[tiny().with(&[(path, b"{}")])]);
        let error = get(&hub_at(&server, cache.path()), "org/tiny").unwrap_err();
        assert!(error.to_string().contains(&format!("the file `{path}`")), "{error}");
    }
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
}

#[test]
fn a_token_is_never_shown() {
    let token = Token::new(TOKEN).unwrap().unwrap();
    assert_eq!(format!("{token:?}"), "Token");
    assert!(Token::new(" \n").unwrap().is_none());
    let error = Token::new("hf_Secret\nhf_Second").unwrap_err();
    assert!(!format!("{error:?} {}", error.next_step().unwrap()).contains("Secret"));
}

// ---- the program

/// The program at a home of its own, which knows this server as the Hub.
fn program(home: &Path, server: &HubServer) -> Command {
    let mut command = program_at(home);
    for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env("HF_HOME", home.join("hf")).env("HF_ENDPOINT", server.endpoint());
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn succeeded(output: Output) -> Output {
    assert!(output.status.success(), "{}", text(&output.stderr));
    output
}

fn published() -> HubRepository {
    HubRepository::model("org/tiny").with_folder(&fixture("models/paligemma-tiny-a"))
}

/// Three questions about two images, and the arguments that ask them.
fn questions(home: &Path) -> Vec<String> {
    let record = |(id, image, text): (i64, i64, &str)| json!({"question_id": id, "image_id": image, "question": text});
    let all = [(1, 1, "what is it?"), (2, 1, "is it red?"), (3, 2, "what colour?")].map(record);
    fs::write(home.join("questions.json"), json!({"questions": all}).to_string()).unwrap();
    let images = home.join("images");
    fs::create_dir_all(&images).unwrap();
    fs::copy(fixture("images/exact_56.png"), images.join("1.png")).unwrap();
    fs::copy(fixture("images/palette.png"), images.join("2.png")).unwrap();
    let arguments =
        ["vqa", "--questions=questions.json", "--images=images", "--image-name={image_id}.png", "--threads=1"];
    arguments.map(str::to_owned).to_vec()
}

fn results(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("custom.results.json")).unwrap()).unwrap()
}

#[test]
fn a_model_on_the_hub_answers_as_its_folder_does() {
    let (server, home) = (HubServer::start(&[published()]), tempfile::tempdir().unwrap());
    let home = home.path();
    let arguments = questions(home);
    let folder = fixture("models/paligemma-tiny-a");
    let vqa = |model: &str, output: &str| {
        let mut command = program(home, &server);
        succeeded(command.args(&arguments).args(["--model", model, "--output", output]).output().unwrap())
    };
    vqa(folder.to_str().unwrap(), "local");
    assert_eq!(server.requests().len(), 0);
    let output = vqa("org/tiny@main", "hub");
    assert!(text(&output.stdout).contains("tiny@main"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("fetching org/tiny@main"), "{}", text(&output.stderr));
    assert_eq!(results(&home.join("hub")), results(&home.join("local")));
    assert!(!home.join("local/hub.lock.json").exists());

    let lock = home.join("hub/hub.lock.json");
    let document: Value = serde_json::from_slice(&fs::read(&lock).unwrap()).unwrap();
    let [repository] = document["repositories"].as_array().unwrap().as_slice() else { panic!("{document}") };
    assert_eq!(
        [&repository["repository"], &repository["revision"], &repository["commit"]],
        ["org/tiny", "main", COMMIT]
    );
    let locked: Vec<&str> =
        repository["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    let expected: Vec<&str> = published().files.keys().map(|path| path.as_str().to_owned().leak() as &str).collect();
    assert_eq!(locked, expected);

    let verify = || program(home, &server).args(["fetch", "--verify", "hub/hub.lock.json"]).output().unwrap();
    assert_eq!(text(&succeeded(verify()).stdout), format!("org/tiny@{COMMIT}: all {} files are right\n", locked.len()));
    let weights = home.join("hf/hub/models--org--tiny/snapshots").join(COMMIT).join("model.safetensors");
    fs::write(weights.canonicalize().unwrap(), "other").unwrap();
    let output = verify();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let hint = format!("it was removed from the cache; `digrap-bench fetch model org/tiny@{COMMIT}` fetches it");
    assert!(text(&output.stderr).contains(&hint), "{}", text(&output.stderr));
    succeeded(program(home, &server).args(["fetch", "model", &format!("org/tiny@{COMMIT}")]).output().unwrap());
    succeeded(verify());
}

#[test]
fn training_and_export_start_from_the_hub_and_adapters_find_their_base_there() {
    let (server, home) = (HubServer::start(&[published()]), tempfile::tempdir().unwrap());
    let home = home.path();
    let mut arguments = questions(home);
    let record = |(id, image)| {
        let answers: Vec<Value> = (1..=10).map(|number| json!({"answer": "red", "answer_id": number})).collect();
        json!({"question_id": id, "image_id": image, "answers": answers})
    };
    let annotations = json!({"annotations": json!([(1, 1), (2, 1), (3, 2)].map(record))});
    fs::write(home.join("annotations.json"), annotations.to_string()).unwrap();
    arguments[0] = "train".to_owned();
    let more = ["--annotations=annotations.json", "--model=org/tiny", "--validation=none", "--max-steps=1"];
    let lora = ["--lora=r=2,targets=q_proj", "--output=adapter", "--batch-size=1"];
    succeeded(program(home, &server).args(&arguments).args(more).args(lora).output().unwrap());
    let lock: Value = serde_json::from_slice(&fs::read(home.join("adapter/hub.lock.json")).unwrap()).unwrap();
    assert_eq!(lock["repositories"][0]["commit"], COMMIT);
    let export = |model: &str, output: &str| {
        succeeded(program(home, &server).args(["export", "--model", model, "--output", output]).output().unwrap());
        fs::read(home.join(output).join("onnx/weights.bin")).unwrap()
    };
    let local = export(fixture("models/paligemma-tiny-a").to_str().unwrap(), "exported-local");
    assert!(export("org/tiny", "exported-hub") == local);

    // The adapter on the Hub names its base model there.
    let settings = home.join("adapter/adapter_config.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&settings).unwrap()).unwrap();
    value["base_model_name_or_path"] = json!("org/tiny");
    fs::write(&settings, value.to_string()).unwrap();
    let adapter = ["adapter_config.json", "adapter_model.safetensors"];
    let files = adapter.map(|name| (name, fs::read(home.join("adapter").join(name)).unwrap()));
    let files = files.each_ref().map(|(name, bytes)| (*name, bytes.as_slice()));
    server.change(|repositories| repositories.push(HubRepository::model("org/adapter").with(&files)));
    arguments[0] = "vqa".to_owned();
    for (model, locks) in [("org/adapter", 2), ("adapter", 1)] {
        let output = format!("answers-{locks}");
        let more = ["--model", model, "--output", &output];
        succeeded(program(home, &server).args(&arguments).args(more).output().unwrap());
        let lock: Value = serde_json::from_slice(&fs::read(home.join(&output).join("hub.lock.json")).unwrap()).unwrap();
        assert_eq!(lock["repositories"].as_array().unwrap().len(), locks);
    }
    assert_eq!(results(&home.join("answers-1")), results(&home.join("answers-2")));
}

#[test]
fn a_download_that_was_killed_goes_on() {
    let (server, home) = (HubServer::start(&[published()]), tempfile::tempdir().unwrap());
    let weights = &published().files["model.safetensors"];
    let half = weights.len() / 2;
    server.fail("/storage/", 1, Fault::Stalled(half));
    let fetch = || {
        let mut command = program(home.path(), &server);
        command.args(["fetch", "org/tiny"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut child = fetch().spawn().unwrap();
    let blobs = home.path().join("hf/hub/models--org--tiny/blobs");
    let part = blobs.join(format!("{}.incomplete", sha256(weights)));
    while fs::metadata(&part).map_or(0, |found| found.len()) < half as u64 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    server.requests();
    let output = succeeded(fetch().output().unwrap());
    let requests = server.requests();
    let ranges: Vec<_> = requests.iter().filter(|request| request.path.contains("/storage/")).collect();
    assert_eq!(ranges.len(), 1);
    assert_eq!(ranges[0].headers["range"], format!("bytes={half}-"));
    assert!(fs::read(blobs.join(sha256(weights))).unwrap() == *weights);
    assert!(!part.exists());
    assert!(text(&output.stdout).starts_with(&format!("org/tiny@{COMMIT}: ")), "{}", text(&output.stdout));
}

/// What the program says where something cannot be had, by name. `HUB` stands for the address of the server, `DIR` for
/// the user's home.
const EXPECTED: &str = include_str!("hub.txt");

/// A case: its name, its arguments, and what is arranged before.
type Case = (&'static str, &'static [&'static str], fn(&HubServer, &Path, &mut Command));

const NOTHING: fn(&HubServer, &Path, &mut Command) = |_, _, _| ();

/// The path of the weights' bytes in the cache.
fn blob_of_weights(home: &Path) -> PathBuf {
    home.join("hf/hub/models--org--tiny/blobs").join(sha256(&weights(100_000)))
}

fn one_question(home: &Path) {
    let (question, answer) = (json!({"question_id": 1, "image_id": 1, "question": "why?"}), json!({"answer": "red"}));
    fs::write(home.join("q.json"), json!({"questions": [question]}).to_string()).unwrap();
    let annotation = json!({"question_id": 1, "image_id": 1, "answers": [answer]});
    fs::write(home.join("a.json"), json!({"annotations": [annotation]}).to_string()).unwrap();
}

const CASES: &[Case] = &[
    ("gated, without a token", &["fetch", "model", "org/gated"], NOTHING),
    ("gated, with the token of somebody else", &["fetch", "model", "org/gated"], |_, _, command| {
        command.env("HF_TOKEN", STRANGER);
    }),
    ("a token that is not known", &["fetch", "model", "org/tiny"], |_, _, command| {
        command.env("HF_TOKEN", "hf_Unknown");
    }),
    ("a token that is none", &["fetch", "model", "org/tiny"], |_, home, _| {
        fs::create_dir(home.join("hf")).unwrap();
        fs::write(home.join("hf/token"), "hf_Very\nSecret").unwrap();
    }),
    ("a token without the right to read", &["fetch", "model", "org/tiny"], |server, _, command| {
        command.env("HF_TOKEN", TOKEN);
        server.fail("/revision/", 1, Fault::Status(403, &[]));
    }),
    ("a refusal without a token", &["fetch", "model", "org/tiny"], |server, _, _| {
        server.fail("/revision/", 1, Fault::Status(403, &[]));
    }),
    ("unknown repository", &["fetch", "model", "org/tyni"], NOTHING),
    ("private repository of somebody else", &["fetch", "model", "org/private@v2"], |_, _, command| {
        command.env("HF_TOKEN", STRANGER);
    }),
    ("unknown dataset repository", &["fetch", "dataset", "org/tiny"], NOTHING),
    ("unknown revision", &["fetch", "model", "org/tiny@v2"], NOTHING),
    ("unknown file", &["fetch", "model", "org/tiny"], |server, _, _| {
        server.fail("/tokenizer.json", 1, Fault::Status(404, &[("X-Error-Code", "EntryNotFound")]));
    }),
    ("no weights that can be read", &["fetch", "model", "org/old"], NOTHING),
    ("too many requests", &["fetch", "model", "org/tiny"], |server, _, _| {
        server.fail("/revision/", 1, Fault::Status(429, &[("Retry-After", "300")]));
    }),
    ("too many requests for a file, with a token", &["fetch", "model", "org/tiny"], |server, _, command| {
        command.env("HF_TOKEN", TOKEN);
        server.fail("/storage/", 1, Fault::Status(429, &[("RateLimit", "\"resolvers\";r=0;t=299")]));
    }),
    ("the Hub fails", &["fetch", "model", "org/tiny"], |server, _, _| {
        server.fail("/revision/", 5, Fault::Status(503, &[("Retry-After", "0")]));
    }),
    ("an odd status", &["fetch", "model", "org/tiny"], |server, _, _| {
        server.fail("/revision/", 1, Fault::Status(418, &[]));
    }),
    ("no connection", &["fetch", "model", "org/tiny"], |_, _, command| {
        // Nothing listens at a port that was given back.
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        command.env("HF_ENDPOINT", format!("http://127.0.0.1:{port}"));
    }),
    ("no Hub", &["fetch", "model", "org/tiny"], |server, _, _| {
        server.fail("/revision/", 1, Fault::Text("<html>log in to the airport's network</html>"));
    }),
    ("a Hub that tells no hashes", &["fetch", "model", "org/tiny"], |server, _, _| {
        let listing =
            r#"{"sha": "0123456789abcdef0123456789abcdef01234567", "siblings": [{"rfilename": "config.json"}]}"#;
        server.fail("/revision/", 1, Fault::Text(listing));
    }),
    ("no address", &["fetch", "model", "org/tiny"], |_, _, command| {
        command.env("HF_ENDPOINT", "hub.example");
    }),
    ("offline and never fetched", &["fetch", "model", "org/tiny@v1", "--offline"], NOTHING),
    (
        "offline and half fetched",
        &["vqa", "--questions=q.json", "--images=.", "--model=org/tiny"],
        |server, home, command| {
            get(&hub_at(server, &home.join("hf/hub")), "org/tiny").unwrap();
            fs::remove_file(blob_of_weights(home)).unwrap();
            fs::write(home.join("q.json"), r#"{"questions": [{"question_id": 1, "image_id": 1, "question": "why?"}]}"#)
                .unwrap();
            command.env("HF_HUB_OFFLINE", "1");
        },
    ),
    ("offline and damaged", &["fetch", "org/tiny", "--offline"], |server, home, _| {
        let snapshot = get(&hub_at(server, &home.join("hf/hub")), "org/tiny").unwrap();
        fs::write(snapshot.folder.join("config.json"), "{}").unwrap();
    }),
    ("other bytes", &["fetch", "model", "org/tiny"], |server, _, _| {
        server.fail("/storage/", 1, Fault::Damaged);
    }),
    ("other size", &["fetch", "model", "org/tiny"], |server, _, _| {
        server.put(&format!("/storage/{}", sha256(&weights(100_000))), weights(99_999));
    }),
    ("cache that cannot be written", &["fetch", "model", "org/tiny"], |_, home, command| {
        fs::write(home.join("file"), "").unwrap();
        command.env("HF_HUB_CACHE", home.join("file/hub"));
    }),
    ("neither folder nor name of vqa", &["vqa", "--questions=q.json", "--images=.", "--model=runs/x"], |_, home, _| {
        one_question(home);
    }),
    (
        "neither folder nor name of train",
        &["train", "--questions=q.json", "--annotations=a.json", "--images=.", "--model=runs/x", "--output=y"],
        |_, home, _| one_question(home),
    ),
    ("neither folder nor name of export", &["export", "--model=runs/x", "--output=y"], NOTHING),
    ("no name", &["fetch", "model", "tiny"], NOTHING),
    ("no name at all", &["fetch", "dataset"], NOTHING),
    ("a folder for a model", &["fetch", "model", "org/tiny", "--root=x"], NOTHING),
    ("no lock", &["fetch", "--verify=hub.lock.json"], NOTHING),
    ("damaged lock", &["fetch", "--verify=hub.lock.json"], |_, home, _| {
        fs::write(home.join("hub.lock.json"), "{\"repositories\": [{}]}").unwrap();
    }),
    ("lock of what is not here", &["fetch", "--verify=hub.lock.json"], |_, home, _| {
        let file = json!({"path": "config.json", "size": 2, "sha256": sha256(b"{}")});
        let lock =
            json!({"kind": "model", "repository": "org/tiny", "revision": "main", "commit": COMMIT, "files": [file]});
        fs::write(home.join("hub.lock.json"), json!({"repositories": [lock]}).to_string()).unwrap();
    }),
];

#[test]
fn what_cannot_be_had_is_told_with_what_to_do() {
    let mut told = String::new();
    for (name, arguments, arrange) in CASES {
        let mut gated = HubRepository { id: "org/gated", ..tiny() };
        gated.gated = true;
        let private = HubRepository { id: "org/private", private: true, ..tiny() };
        let old = HubRepository::model("org/old").with(&[("config.json", CONFIG), ("pytorch_model.bin", b"x")]);
        let (server, home) = (HubServer::start(&[tiny(), gated, private, old]), tempfile::tempdir().unwrap());
        let mut command = program(home.path(), &server);
        arrange(&server, home.path(), &mut command);
        let output = command.args(*arguments).output().unwrap();
        let errors = text(&output.stderr);
        for secret in [TOKEN, STRANGER, "hf_Unknown", "Secret"] {
            assert!(!errors.contains(secret), "{name}: {errors}");
        }
        let endpoint = command.get_envs().find(|(key, _)| *key == "HF_ENDPOINT").unwrap().1.unwrap().to_str().unwrap();
        let errors = errors.replace(&server.endpoint(), "HUB").replace(endpoint, "HUB");
        let errors = errors.replace(home.path().to_str().unwrap(), "DIR");
        // How far a download was is told in lines of their own.
        let begins = |line: &&str| ["error: ", "caused by: ", "hint: "].iter().any(|start| line.starts_with(start));
        let lines = errors.lines().filter(begins).map(|line| line.split(" (os error ").next().unwrap());
        let lines: Vec<&str> = lines.collect();
        told += &format!("\n== {name}: exit code {}\n{}\n", output.status.code().unwrap(), lines.join("\n"));
    }
    let expected = EXPECTED.split_once("\n\n").unwrap().1;
    assert_eq!(told.trim_start(), expected, "{told}");
}

/// A file that is always full stands for the part that has come.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_with_what_to_do() {
    let (server, home) = (HubServer::start(&[tiny()]), tempfile::tempdir().unwrap());
    let part = format!("{}.incomplete", blob_of_weights(home.path()).display());
    fs::create_dir_all(Path::new(&part).parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let output = program(home.path(), &server).args(["fetch", "model", "org/tiny"]).output().unwrap();
    let errors = text(&output.stderr);
    let expected = format!(
        "error: cannot write `{part}`\ncaused by: No space left on device (os error 28)\n\
         hint: make room or set HF_HUB_CACHE to a folder elsewhere; the same command goes on with what has come\n"
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.ends_with(&expected), "{errors}");
}

/// Without a name server there is no network either.
#[test]
fn a_name_that_no_server_knows_is_no_network() {
    let (server, home) = (HubServer::start(&[]), tempfile::tempdir().unwrap());
    let mut command = program(home.path(), &server);
    let output =
        command.env("HF_ENDPOINT", "http://hub.invalid").args(["fetch", "model", "org/tiny"]).output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.starts_with("error: cannot get the list of files of `org/tiny` from `http://hub.invalid`\ncaused by: "),
        "{errors}"
    );
    assert!(errors.contains("hint: check the network, HTTPS_PROXY and HF_ENDPOINT"), "{errors}");
}

/// Runs the program so that the kernel kills it at the first call of `socket`.
#[cfg(target_os = "linux")]
fn without_sockets(mut command: Command) -> Output {
    use seccompiler::{SeccompAction, SeccompFilter, apply_filter};
    let rules =
        [(libc::SYS_socket, Vec::new()), (libc::SYS_socketpair, Vec::new()), (libc::SYS_io_uring_setup, Vec::new())];
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter =
        SeccompFilter::new(rules.into(), SeccompAction::Allow, SeccompAction::KillProcess, architecture).unwrap();
    let filter: seccompiler::BpfProgram = filter.try_into().unwrap();
    // The filter is for this thread and for the processes that it starts.
    let run = move || {
        apply_filter(&filter).unwrap();
        command.output().unwrap()
    };
    std::thread::spawn(run).join().unwrap()
}

/// No system call that could open a socket is survived, so what ends well has opened none. That calls are seen is shown
/// by the same commands without `--offline`.
#[cfg(target_os = "linux")]
#[test]
fn offline_no_socket_is_opened() {
    use std::os::unix::process::ExitStatusExt;
    let (server, home) = (HubServer::start(&[published()]), tempfile::tempdir().unwrap());
    let home = home.path();
    succeeded(program(home, &server).args(["fetch", "org/tiny"]).output().unwrap());
    let vqa = questions(home);
    let vqa: Vec<&str> = vqa.iter().map(String::as_str).chain(["--model=org/tiny"]).collect();
    let record =
        |(id, image)| json!({"question_id": id, "image_id": image, "answers": [{"answer": "red", "answer_id": 1}]});
    let annotations = json!({"annotations": json!([(1, 1), (2, 1), (3, 2)].map(record))});
    fs::write(home.join("annotations.json"), annotations.to_string()).unwrap();
    let more = ["--annotations=annotations.json", "--validation=none", "--max-steps=1", "--output=run"];
    let train: Vec<&str> = ["train"].into_iter().chain(vqa[1..].iter().copied()).chain(more).collect();
    let commands: [&[&str]; 4] =
        [&vqa, &train, &["export", "--model=org/tiny", "--output=exported"], &["fetch", "model", "org/tiny"]];
    server.requests();
    for arguments in commands {
        let started = |offline: &[&str]| {
            let mut command = program(home, &server);
            command.args(arguments).args(offline);
            without_sockets(command)
        };
        succeeded(started(&["--offline"]));
        let killed = started(&[]);
        assert_eq!(killed.status.signal(), Some(libc::SIGSYS), "{arguments:?}: {}", text(&killed.stderr));
    }
    let mut command = program(home, &server);
    command.args(&vqa).env("HF_HUB_OFFLINE", "1");
    succeeded(without_sockets(command));
    // What is not here is told without a connection as well.
    let missing: [(&[&str], &str); 2] = [
        (&["fetch", "ok-vqa", "--from-hub"], "error: offline, and `lmms-lab/OK-VQA` is not in the cache `"),
        (&["fetch", "advqa"], "error: offline, and `"),
    ];
    for (arguments, expected) in missing {
        let started = |offline: &[&str]| {
            let mut command = program(home, &server);
            command.args(arguments).args(offline);
            without_sockets(command)
        };
        let refused = started(&["--offline"]);
        let errors = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(
            errors.starts_with(expected)
                && errors.contains("without --offline") | errors.contains("leave out --offline"),
            "{errors}"
        );
        assert_eq!(started(&[]).status.signal(), Some(libc::SIGSYS), "{arguments:?}");
    }
    assert_eq!(server.requests().len(), 0);
}

// ---- files of datasets

fn source(path: &'static str, url: Option<String>, packing: Packing) -> SourceFile {
    SourceFile { path, part: Part::Both, url: url.map(|url| &*url.leak()), packing }
}

/// The states of the files below one folder.
fn fetch(
    files: &[SourceFile],
    root: &Path,
    hub: &Hub,
    show: &mut dyn FnMut(FetchEvent),
) -> Result<Vec<FileState>, Error> {
    let files: Vec<&SourceFile> = files.iter().collect();
    let fetched = fetching::fetch(&files, Folders { own: root, all: None }, hub, show)?;
    Ok(fetched.into_iter().map(|(_, state)| state).collect())
}

fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn tarred(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // As an archive may have it, `..` included.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Names of everything below a folder.
fn names_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            names.extend(names_below(&entry));
        } else {
            names.push(entry.to_str().unwrap().to_owned());
        }
    }
    names.sort();
    names
}

#[test]
fn files_of_a_dataset_are_fetched_and_unpacked_and_the_rest_is_told() {
    let (server, home) = (HubServer::start(&[]), tempfile::tempdir().unwrap());
    let root = home.path().join("data");
    let hub = hub_at(&server, &home.path().join("cache"));
    let annotations = weights(50_000);
    server.put("/files/annotations.json", annotations.clone());
    let questions: &[(&str, &[u8])] =
        &[("v2/val.json", b"[1]"), ("__MACOSX/v2/val.json", b"?"), ("v2/train.json", b"[2]"), ("v2/more.json", b"[3]")];
    server.put("/files/questions.zip", zipped(questions));
    let images: &[(&str, &[u8])] =
        &[("a/b/val2014/1.jpg", b"one"), ("a/b/val2014/x/2.jpg", b"two"), ("a/readme", b"-")];
    server.put("/files/images.tar.gz", tarred(images));
    let address = |name: &str| Some(format!("{}/files/{name}", server.endpoint()));
    let files = [
        source("annotations.json", address("annotations.json"), Packing::Plain),
        source("questions/val.json", address("questions.zip"), Packing::Zip),
        source("questions/train.json", address("questions.zip"), Packing::Zip),
        source("images/val2014", address("images.tar.gz?download=1"), Packing::TarGz),
        source("images/extra", None, Packing::Plain),
    ];
    server.fail("annotations", 1, Fault::Truncated(20_000));
    let mut unpacked = 0;
    let states = fetch(&files, &root, &hub, &mut |event| {
        unpacked += usize::from(matches!(event, FetchEvent::Unpacked { .. }));
    });
    use FileState::{ByHand, Fetched, Present};
    assert_eq!(states.unwrap(), [Fetched, Fetched, Fetched, Fetched, ByHand]);
    assert!(unpacked >= 7);
    let expected = [
        "annotations.json",
        "images/val2014/1.jpg",
        "images/val2014/x/2.jpg",
        "questions/train.json",
        "questions/val.json",
    ];
    assert_eq!(names_below(&root), expected.map(|name| root.join(name).to_str().unwrap().to_owned()));
    assert!(fs::read(root.join("annotations.json")).unwrap() == annotations);
    assert_eq!(fs::read(root.join("questions/val.json")).unwrap(), b"[1]");
    assert_eq!(fs::read(root.join("images/val2014/x/2.jpg")).unwrap(), b"two");
    let requests = server.requests();
    let ranges: Vec<_> = requests.iter().filter_map(|request| request.headers.get("range")).collect();
    assert_eq!(ranges, ["bytes=20000-"]);
    assert_eq!(requests.len(), 4);
    assert_eq!(fetch(&files, &root, &hub, &mut |_| ()).unwrap(), [Present, Present, Present, Present, ByHand]);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_known_dataset_without_an_address_is_told_file_by_file() {
    let (server, home) = (HubServer::start(&[]), tempfile::tempdir().unwrap());
    let rows: Vec<_> = DATASETS
        .iter()
        .filter(|row| !row.files.is_empty() && row.files.iter().all(|file| file.url.is_none()))
        .collect();
    assert!(!rows.is_empty());
    for row in rows {
        let output = program(home.path(), &server).args(["fetch", row.name, "--root=data"]).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{errors}");
        assert!(errors.starts_with("error: ") && errors.contains(row.obtain), "{errors}");
        let listed = row.files.iter().map(|file| format!("  missing  data/{}\n", file.path)).collect::<String>();
        assert_eq!(text(&output.stdout), format!("{}:\n{listed}", row.name));
    }
}

/// Images of COCO serve several datasets, and are fetched once.
#[test]
fn files_of_several_datasets_go_to_a_folder_of_their_own() {
    let (server, home) = (HubServer::start(&[]), tempfile::tempdir().unwrap());
    let online = hub_at(&server, home.path());
    let url = "http://images.cocodataset.org/zips/val2014.zip";
    let file = SourceFile { path: "val2014", part: Part::Both, url: Some(url), packing: Packing::Zip };
    let images = home.path().join("coco/val2014");
    fs::create_dir_all(&images).unwrap();
    for name in ["vqav2", "advqa"] {
        let own = home.path().join(name);
        let folders = Folders { own: &own, all: Some(home.path()) };
        let states = fetching::fetch(&[&file], folders, &online, &mut |_| ()).unwrap();
        assert_eq!(states, [(images.clone(), FileState::Present)]);
    }
    fs::remove_dir(&images).unwrap();
    let offline = hub(&server, home.path(), None, true);
    for (all, place) in [(Some(home.path()), "coco"), (None, "vqav2")] {
        let own = home.path().join("vqav2");
        let error = fetching::fetch(&[&file], Folders { own: &own, all }, &offline, &mut |_| ()).unwrap_err();
        let place = home.path().join(place).join(".val2014.zip");
        assert_eq!(error.to_string(), format!("offline, and `{}` is not here", place.display()));
    }
}

#[test]
fn the_copy_of_a_dataset_on_the_hub_is_linked_into_its_folder() {
    let parquet = fs::read_dir(fixture("datasets/hub/ok-vqa/data")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<(String, Vec<u8>)> = parquet
        .map(|path| (format!("data/{}", path.file_name().unwrap().to_str().unwrap()), fs::read(path).unwrap()))
        .collect();
    let mut copy = HubRepository::model("lmms-lab/OK-VQA").with(&[("README.md", b"not fetched")]);
    copy.kind = "datasets";
    copy.files.extend(files);
    let (server, home) = (HubServer::start(&[copy]), tempfile::tempdir().unwrap());
    let fetch = || {
        let mut command = program(home.path(), &server);
        command
            .args(["--json", "fetch", "ok-vqa", "--from-hub", "--part=evaluation", "--root=ok-vqa"])
            .output()
            .unwrap()
    };
    let document: Value = serde_json::from_slice(&succeeded(fetch()).stdout).unwrap();
    assert_eq!(document[0]["repositories"][0]["repository"], "lmms-lab/OK-VQA");
    assert_eq!(document[0]["files"], json!([]));
    assert_eq!(server.count("README"), 0);
    let root = home.path().join("ok-vqa");
    let row = find_dataset("ok-vqa").unwrap();
    assert_eq!(row.presence(&root).unwrap().missing, []);
    assert!(!(row.load)(&root).unwrap().questions.is_empty());
    succeeded(fetch());
    // Offline the copy has to be whole in the cache.
    let offline = || {
        let mut command = program(home.path(), &server);
        command.args(["fetch", "ok-vqa", "--from-hub", "--part=evaluation", "--root=ok-vqa", "--offline"]);
        command.output().unwrap()
    };
    server.requests();
    succeeded(offline());
    let mut shards = names_below(&root.join("lmms-lab--OK-VQA"));
    shards.retain(|path| path.contains("val2014-"));
    let names = shards.iter().map(|path| path.rsplit('/').next().unwrap()).collect::<Vec<_>>();
    assert_eq!(names.len(), 2);
    fs::remove_file(&shards[1]).unwrap();
    let expected = format!(
        "error: offline, and `{}` of `lmms-lab/OK-VQA` is not in the cache of the Hub\nhint: where there is a network, the \
         same command gets it without --offline and HF_HUB_OFFLINE\n",
        names[1]
    );
    assert_eq!((text(&offline().stderr), server.requests().len()), (&*expected, 0));
    fs::remove_file(&shards[0]).unwrap();
    let errors = offline().stderr;
    assert!(
        text(&errors).starts_with("error: offline, and no file that is wanted of `lmms-lab/OK-VQA` is in the cache")
    );
}

/// Whoever unpacks by hand may stop halfway.
#[test]
fn a_folder_with_too_few_images_is_not_taken_for_whole() {
    let (server, home) = (HubServer::start(&[]), tempfile::tempdir().unwrap());
    let row = find_dataset("ok-vqa").unwrap();
    let root = home.path().join("data");
    for file in row.files.iter().filter(|file| file.part != Part::Training) {
        let path = root.join(file.path);
        fs::create_dir_all(if path.extension().is_none() { path.as_path() } else { path.parent().unwrap() }).unwrap();
        if path.extension().is_some() {
            fs::write(&path, "{}").unwrap();
        }
    }
    fs::write(root.join("val2014/COCO_val2014_000000000042.jpg"), "").unwrap();
    let mut command = program(home.path(), &server);
    command.args(["fetch", "ok-vqa", "--part=evaluation", "--root=data", "--offline"]);
    let output = command.output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(text(&output.stdout).contains("  incomplete  data/val2014\n"), "{}", text(&output.stdout));
    assert!(
        errors.ends_with("has less images than belong there\nhint: remove or complete `data/val2014`\n"),
        "{errors}"
    );
}

#[test]
fn processes_that_fetch_the_same_archive_share_the_work() {
    let (server, home) = (HubServer::start(&[]), tempfile::tempdir().unwrap());
    let root = home.path().join("data");
    let bytes = weights(300_000);
    server.put("/x.zip", zipped(&[("v2/val.json", &bytes), ("v2/train.json", b"[2]")]));
    server.put("/plain.json", bytes.clone());
    let url = |name: &str| Some(format!("{}/{name}", server.endpoint()));
    let files = [
        source("val.json", url("x.zip"), Packing::Zip),
        source("train.json", url("x.zip"), Packing::Zip),
        source("plain.json", url("plain.json"), Packing::Plain),
    ];
    let fetched = std::thread::scope(|scope| {
        let fetch = || fetch(&files, &root, &hub_at(&server, home.path()), &mut |_| ()).unwrap();
        let started: Vec<_> = (0..6).map(|_| scope.spawn(fetch)).collect();
        started
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .filter(|state| *state == FileState::Fetched)
            .count()
    });
    assert_eq!((server.count("/x.zip"), server.count("/plain.json"), fetched), (1, 1, 3));
    let expected = ["plain.json", "train.json", "val.json"].map(|name| root.join(name).to_str().unwrap().to_owned());
    assert_eq!(names_below(&root), expected);
    assert!(fs::read(root.join("val.json")).unwrap() == bytes && fs::read(root.join("plain.json")).unwrap() == bytes);
}

#[test]
fn an_archive_with_two_files_for_one_place_is_refused() {
    let (server, home) = (HubServer::start(&[]), tempfile::tempdir().unwrap());
    let root = home.path().join("data");
    let entries: &[(&str, &[u8])] = &[("v1/val.json", b"[1]"), ("v2/val.json", b"[2]")];
    for (name, packing, bytes) in
        [("/x.zip", Packing::Zip, zipped(entries)), ("/x.tar.gz", Packing::TarGz, tarred(entries))]
    {
        server.put(name, bytes);
        let files = [source("val.json", Some(server.endpoint() + name), packing)];
        let error = fetch(&files, &root, &hub_at(&server, home.path()), &mut |_| ()).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "the archive has two files for one place, the second is `v2/val.json`");
        assert_eq!(error.next_step(), Some("unpack it by hand"));
        assert!(!root.join("val.json").exists() && root.join(name.replace('/', ".")).is_file());
    }
}

/// Who has a model in a folder needs no Hub.
#[test]
fn odd_settings_of_the_hub_do_not_matter_to_a_model_in_a_folder() {
    let (server, home) = (HubServer::start(&[]), tempfile::tempdir().unwrap());
    let model = fixture("models/paligemma-tiny-a");
    let mut command = program(home.path(), &server);
    command.env("HF_TOKEN", "no token").env("HF_ENDPOINT", "hub.example");
    succeeded(command.args(["export", "--output=exported", "--model"]).arg(&model).output().unwrap());
    assert!(home.path().join("exported").exists());
}

#[test]
fn no_file_of_an_archive_leaves_its_folder() {
    let (server, home) = (HubServer::start(&[]), tempfile::tempdir().unwrap());
    let root = home.path().join("data");
    let hub = hub_at(&server, home.path());
    for entry in ["val2014/../../evil.jpg", "val2014//etc/evil.jpg", "/val2014/../../evil.jpg"] {
        for (name, packing) in [("/x.zip", Packing::Zip), ("/x.tar.gz", Packing::TarGz)] {
            let entries: &[(&str, &[u8])] = &[("val2014/1.jpg", b"one"), (entry, b"evil")];
            server.put(name, if packing == Packing::Zip { zipped(entries) } else { tarred(entries) });
            let files = [source("images/val2014", Some(server.endpoint() + name), packing)];
            let error = fetch(&files, &root, &hub, &mut |_| ()).unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(cause, format!("the archive has an entry `{entry}`, which leaves its folder"));
            assert!(!root.join("images/val2014").exists());
            assert!(!names_below(home.path()).iter().any(|name| name.contains("evil")));
        }
    }
}

#[test]
fn damaged_archives_are_told_and_fetched_again() {
    let (server, home) = (HubServer::start(&[]), tempfile::tempdir().unwrap());
    let hub = hub_at(&server, home.path());
    let entries: &[(&str, &[u8])] = &[("val.json", &weights(5000))];
    for (name, packing, whole) in
        [("/x.zip", Packing::Zip, zipped(entries)), ("/x.tar.gz", Packing::TarGz, tarred(entries))]
    {
        let root = home.path().join(name.replace(['/', '.'], "-"));
        let files = [source("val.json", Some(server.endpoint() + name), packing)];
        server.put(name, whole[..whole.len() / 2].to_vec());
        let error = fetch(&files, &root, &hub, &mut |_| ()).unwrap_err();
        assert!(error.to_string().starts_with("cannot unpack `"), "{error}");
        assert_eq!(error.next_step(), Some("the archive was removed; run the same command again"), "{error:?}");
        server.put(name, if packing == Packing::Zip { zipped(&[("x", b"")]) } else { tarred(&[("x", b"")]) });
        let error = fetch(&files, &root, &hub, &mut |_| ()).unwrap_err();
        assert!(error.to_string().ends_with("has no `val.json`"), "{error}");
        // It may be of use by hand, so that it stays.
        let archive = root.join(name.replace('/', "."));
        assert!(archive.is_file());
        fs::remove_file(archive).unwrap();
        server.put(name, whole);
        assert_eq!(fetch(&files, &root, &hub, &mut |_| ()).unwrap(), [FileState::Fetched]);
        assert!(fs::read(root.join("val.json")).unwrap() == weights(5000));
    }
}

#[test]
fn parts_of_two_versions_of_a_file_are_not_mixed() {
    let (server, home) = (HubServer::start(&[]), tempfile::tempdir().unwrap());
    let online = hub_at(&server, home.path());
    let (url, target) = (server.endpoint() + "/answers.json", home.path().join("answers.json"));
    let download = || online.download(&url, &target, &mut |_| ());
    let [old, new] = [vec![b'a'; 1000], vec![b'b'; 1000]];
    server.put("/answers.json", old);
    server.fail("/answers", 1, Fault::Truncated(600));
    server.fail("/answers", 1, Fault::Status(404, &[]));
    let error = download().unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the server answers with status 404");
    assert_eq!(fs::metadata(home.path().join(".answers.json.part")).unwrap().len(), 600);
    server.put("/answers.json", new.clone());
    server.requests();
    download().unwrap();
    let [request] = server.requests().try_into().unwrap();
    assert_eq!(request.headers["range"], "bytes=600-");
    assert!(fs::read(&target).unwrap() == new);
    assert_eq!(names_below(home.path()), [target.to_str().unwrap()]);
    let offline = hub(&server, home.path(), None, true);
    let error = offline.download(&url, &home.path().join("more.json"), &mut |_| ()).unwrap_err();
    assert!(error.to_string().starts_with("offline, and `"), "{error}");
    assert_eq!(server.requests().len(), 0);
}
