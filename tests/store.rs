//! Stores on disk: what survives which accident, and which files are refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use digrap_bench::error::Kind;
use digrap_bench::store::{
    AnswerSettings, CurvePoint, Distances, QuestionSet, SettingsId, Store, StoredAnswer, StoredDistances, StoredModel,
};

use crate::support::{Random, answer_settings, distance_settings};

const BATCH: usize = 32;
/// Tells a copy of this test binary which store to write to, see [`writer`].
const WRITER_STORE: &str = "DIGRAP_TEST_WRITER_STORE";
const WRITER_FIRST: &str = "DIGRAP_TEST_WRITER_FIRST";

fn settings(weights: &str) -> AnswerSettings {
    AnswerSettings { weights: weights.to_owned(), ..answer_settings() }
}

fn answer(question_id: &str, image_id: &str, content: u64, answer: &str) -> StoredAnswer {
    StoredAnswer { question_id: question_id.into(), image_id: image_id.into(), content, answer: answer.into() }
}

fn batch(first: usize, count: usize) -> Vec<StoredAnswer> {
    let row = |i: usize| answer(&i.to_string(), &(i / 3).to_string(), i as u64, &format!("answer {i}"));
    (first..first + count).map(row).collect()
}

fn all(store: &Store, id: SettingsId, dataset: &str) -> Vec<StoredAnswer> {
    let mut found = Vec::new();
    let visit = |q: &str, i: &str, content, text: &str| {
        found.push(answer(q, i, content, text));
        Ok(())
    };
    store.for_each_answer(id, dataset, visit).unwrap();
    found
}

fn open_error(path: &Path) -> digrap_bench::error::Error {
    let error = Store::open(path).err().expect("this file must be refused");
    assert_eq!(error.kind(), Kind::Input, "{error:?}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert!(error.next_step().is_some_and(|hint| hint.contains("--store")), "{error:?}");
    error
}

#[test]
fn answers_are_found_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/folders/store.sqlite");
    let rows = [
        answer("7", "1", u64::MAX, "a number"),
        answer("\"7\"", "1", 0, "a \"text\" of größe"),
        answer("7", "2", 1, ""),
    ];
    let mut store = Store::open(&path).unwrap();
    let id = store.settings(&settings("w")).unwrap();
    store.commit(id, "vqa", &rows).unwrap();
    drop(store);

    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.path(), path);
    assert_eq!(store.settings(&settings("w")).unwrap(), id);
    for row in &rows {
        let found = store.answer(id, "vqa", &row.question_id, &row.image_id).unwrap();
        assert_eq!(found, Some((row.content, row.answer.clone())));
    }
    assert_eq!(store.answer(id, "vqa", "\"7\"", "2").unwrap(), None);
    assert_eq!(store.answer(id, "other", "7", "1").unwrap(), None);
    let mut expected = rows.to_vec();
    expected.sort_by(|a, b| (&a.question_id, &a.image_id).cmp(&(&b.question_id, &b.image_id)));
    assert_eq!(all(&store, id, "vqa"), expected);
    assert_eq!(all(&store, id, "other"), []);
}

#[test]
fn settings_and_data_sets_keep_their_answers_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path().join("s")).unwrap();
    let one = store.settings(&settings("one")).unwrap();
    let two = store.settings(&AnswerSettings { max_new_tokens: 11, ..settings("one") }).unwrap();
    assert_ne!(one, two);
    store.commit(one, "a", &[answer("1", "1", 0, "one a")]).unwrap();
    store.commit(one, "b", &[answer("1", "1", 0, "one b")]).unwrap();
    store.commit(two, "a", &[answer("1", "1", 0, "two a")]).unwrap();
    let text = |id, dataset| store.answer(id, dataset, "1", "1").unwrap().unwrap().1;
    assert_eq!([text(one, "a"), text(one, "b"), text(two, "a")], ["one a", "one b", "two a"]);
}

#[test]
fn a_changed_question_replaces_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path().join("s")).unwrap();
    let id = store.settings(&settings("w")).unwrap();
    store.commit(id, "a", &[answer("1", "1", 5, "old"), answer("2", "1", 5, "kept")]).unwrap();
    store.commit(id, "a", &[answer("1", "1", 6, "new")]).unwrap();
    assert_eq!(all(&store, id, "a"), [answer("1", "1", 6, "new"), answer("2", "1", 5, "kept")]);
}

#[test]
fn a_failed_batch_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut foreign = Store::open(folder.path().join("foreign")).unwrap();
    foreign.settings(&settings("w")).unwrap();
    let unknown = foreign.settings(&settings("v")).unwrap();
    let mut store = Store::open(folder.path().join("s")).unwrap();
    let id = store.settings(&settings("w")).unwrap();
    store.commit(unknown, "a", &batch(0, BATCH)).unwrap_err();
    assert_eq!(all(&store, unknown, "a"), []);
    store.commit(id, "a", &batch(0, BATCH)).unwrap();
    assert_eq!(all(&store, id, "a").len(), BATCH);
}

#[test]
fn visiting_stops_at_the_first_error_and_sees_one_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let (mut store, mut other) = (Store::open(&path).unwrap(), Store::open(&path).unwrap());
    let id = store.settings(&settings("w")).unwrap();
    store.commit(id, "a", &batch(0, BATCH)).unwrap();
    let mut seen = 0;
    let visit = |_: &str, _: &str, _, _: &str| {
        seen += 1;
        other
            .commit(id, "a", &batch(100 * seen, 1))
            .map(|()| seen < 10)
            .and_then(|go_on| if go_on { Ok(()) } else { Err(digrap_bench::error::Error::incomplete("enough")) })
    };
    assert_eq!(store.for_each_answer(id, "a", visit).unwrap_err().to_string(), "enough");
    assert_eq!(seen, 10);
    assert_eq!(all(&store, id, "a").len(), BATCH + 10);
    let mut during = 0;
    let count = |_: &str, _: &str, _, _: &str| {
        during += 1;
        other.commit(id, "a", &batch(10_000 + during, 1))
    };
    store.for_each_answer(id, "a", count).unwrap();
    assert_eq!(during, BATCH + 10);
}

#[test]
fn digests_hold_for_one_size_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path().join("s")).unwrap();
    let file = Path::new("/weights/model.safetensors");
    assert_eq!(store.digest(file, 10, 20).unwrap(), None);
    store.remember_digest(file, 10, 20, "abc").unwrap();
    assert_eq!(store.digest(file, 10, 20).unwrap().as_deref(), Some("abc"));
    assert_eq!(store.digest(file, 11, 20).unwrap(), None);
    assert_eq!(store.digest(file, 10, 21).unwrap(), None);
    assert_eq!(store.digest(Path::new("/weights"), 10, 20).unwrap(), None);
    store.remember_digest(file, 11, 21, "def").unwrap();
    assert_eq!(store.digest(file, 11, 21).unwrap().as_deref(), Some("def"));
    assert_eq!(store.digest(file, 10, 20).unwrap(), None);
}

/// A copy of file and log while the store is open is what a dead process leaves behind.
#[test]
fn a_copy_taken_while_open_holds_every_committed_batch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut store = Store::open(&path).unwrap();
    let id = store.settings(&settings("w")).unwrap();
    for i in 0..20 {
        store.commit(id, "a", &batch(i * BATCH, BATCH)).unwrap();
    }
    let copy = folder.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    let log = fs::read(folder.path().join("s-wal")).unwrap();
    assert!(!log.is_empty(), "the batches must still be in the log");
    fs::write(folder.path().join("copy-wal"), &log).unwrap();
    let mut copied = Store::open(&copy).unwrap();
    assert_eq!(copied.settings(&settings("w")).unwrap(), id);
    assert_eq!(all(&copied, id, "a"), all(&store, id, "a"));
    drop(copied);

    // A log torn in its last frame loses that batch and no other.
    let torn = folder.path().join("torn");
    fs::copy(&path, &torn).unwrap();
    fs::write(folder.path().join("torn-wal"), &log[..log.len() - 100]).unwrap();
    assert_eq!(all(&Store::open(&torn).unwrap(), id, "a").len(), 19 * BATCH);
}

/// Writes batches without end, says after each one that it is committed, and is killed.
fn write_until_killed(path: &Path, first: usize) -> ! {
    let mut store = Store::open(path).unwrap();
    let id = store.settings(&settings("w")).unwrap();
    for i in 0.. {
        store.commit(id, "a", &batch(first + i * BATCH, BATCH)).unwrap();
        eprintln!("committed {i}");
    }
    unreachable!()
}

/// This test binary once more, running only `test` and only as a writer.
fn writer(test: &str, path: &Path, first: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    command.env(WRITER_STORE, path).env(WRITER_FIRST, first.to_string());
    command
}

fn told_to_write() -> Option<(std::path::PathBuf, usize)> {
    let path = std::env::var_os(WRITER_STORE)?;
    Some((path.into(), std::env::var(WRITER_FIRST).unwrap().parse().unwrap()))
}

#[test]
fn a_killed_process_loses_nothing_it_committed() {
    use std::io::BufRead;
    if let Some((path, first)) = told_to_write() {
        write_until_killed(&path, first);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut command = writer("store::a_killed_process_loses_nothing_it_committed", &path, 0);
    let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    let confirmed = lines.by_ref().map_while(Result::ok).filter(|line| line.starts_with("committed")).take(200).count();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(confirmed, 200);
    let confirmed = confirmed + lines.map_while(Result::ok).filter(|line| line.starts_with("committed")).count();

    let mut store = Store::open(&path).unwrap();
    let id = store.settings(&settings("w")).unwrap();
    let found = all(&store, id, "a");
    assert!(found.len() >= confirmed * BATCH, "{} answers for {confirmed} confirmed batches", found.len());
    assert_eq!(found.len() % BATCH, 0, "a part of a batch was kept");
    let mut expected = batch(0, found.len());
    expected.sort_by(|a, b| a.question_id.cmp(&b.question_id));
    assert_eq!(found, expected);
}

/// Fifty writers, one after the other, each killed at a moment of its own: while it opens the store, while it writes, while
/// the log of the one before is taken over.
#[test]
fn fifty_kills_lose_and_double_nothing() {
    use std::io::BufRead;
    const KILLS: usize = 50;
    /// More than a writer comes to.
    const RANGE: usize = 1_000_000;
    const NAME: &str = "store::fifty_kills_lose_and_double_nothing";
    if let Some((path, first)) = told_to_write() {
        write_until_killed(&path, first);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut random = Random::new(50);
    let mut confirmed = Vec::new();
    for number in 0..KILLS {
        let mut command = writer(NAME, &path, number * RANGE);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        let (first_batch, begun) = std::sync::mpsc::channel();
        let count = std::thread::spawn(move || {
            let committed = lines.map_while(Result::ok).filter(|line| line.starts_with("committed"));
            // Nobody listens any more to what comes after the first one.
            committed.inspect(|_| first_batch.send(()).unwrap_or_default()).count()
        });
        // Half of them while they start, as far as the machine lets them come; half of them while they write.
        if number % 2 == 1 {
            begun.recv().unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(random.below(120) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        confirmed.push(count.join().unwrap());
    }
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.faults().unwrap(), [""; 0]);
    let id = store.settings(&settings("w")).unwrap();
    let mut found = vec![0; KILLS];
    store
        .for_each_answer(id, "a", |question, image, content, answer| {
            let number: usize = question.parse().unwrap();
            assert_eq!((image, content), (&*(number / 3).to_string(), number as u64));
            assert_eq!(answer, format!("answer {number}"));
            found[number / RANGE] += 1;
            Ok(())
        })
        .unwrap();
    let working = confirmed.iter().filter(|count| **count > 0).count();
    assert!(working >= KILLS / 2, "only {working} writers came to write: {confirmed:?}");
    for (number, (found, confirmed)) in found.iter().zip(&confirmed).enumerate() {
        assert!(*found >= confirmed * BATCH, "writer {number}: {found} answers, {confirmed} batches confirmed");
        assert_eq!(found % BATCH, 0, "writer {number} left a part of a batch");
        // What it wrote has no gap: the last answer is there, and one behind it is not.
        let has = |at: usize| {
            let key = number * RANGE + at;
            store.answer(id, "a", &key.to_string(), &(key / 3).to_string()).unwrap().is_some()
        };
        assert!(*found == 0 || has(found - 1) && !has(*found), "writer {number}");
    }
}

/// Eight processes, each of which also writes half of what the next one does.
#[test]
fn processes_that_write_at_once_take_turns() {
    const PROCESSES: usize = 8;
    const BATCHES: usize = 60;
    if let Some((path, first)) = told_to_write() {
        let mut store = Store::open(path).unwrap();
        let id = store.settings(&settings("w")).unwrap();
        for i in 0..BATCHES + BATCHES / 2 {
            store.commit(id, "a", &batch(first + i * BATCH, BATCH)).unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let start = |i| {
        let mut command = writer("store::processes_that_write_at_once_take_turns", &path, i * BATCHES * BATCH);
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> = (0..PROCESSES).map(start).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut store = Store::open(&path).unwrap();
    let id = store.settings(&settings("w")).unwrap();
    let mut expected = batch(0, (PROCESSES * BATCHES + BATCHES / 2) * BATCH);
    expected.sort_by(|a, b| a.question_id.cmp(&b.question_id));
    assert_eq!(all(&store, id, "a"), expected);
    assert_eq!(store.faults().unwrap(), [""; 0]);
}

#[test]
fn a_store_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut store = Store::open(&path).unwrap();
    store.settings(&settings("w")).unwrap();
    drop(store);
    // Offset 60 is `user_version` in the file format.
    let mut bytes = fs::read(&path).unwrap();
    assert_eq!(bytes[60..64], 4_u32.to_be_bytes());
    bytes[60..64].copy_from_slice(&9_u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    let error = open_error(&path);
    let expected = format!("the store `{}` has version 9, this program reads up to version 4", path.display());
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.next_step(), Some("update the program, or use another --store"));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn files_that_are_no_stores_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut damaged = b"SQLite format 3\0".to_vec();
    damaged.extend([0xa5; 5000]);
    let other_program = {
        // The header of an empty database with the application number 1 (offset 68).
        let path = folder.path().join("real");
        drop(Store::open(&path).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes[68..72].copy_from_slice(&1_u32.to_be_bytes());
        bytes
    };
    let cases: [(&str, &[u8], &str); 4] = [
        ("answers.json", b"[{\"question_id\": 1, \"answer\": \"yes\"}]", "is not a SQLite file"),
        ("short", b"x", "is not a SQLite file"),
        ("damaged", &damaged, "is damaged"),
        ("other", &other_program, "is a SQLite file of another program"),
    ];
    for (name, bytes, expected) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = open_error(&path);
        assert!(error.to_string().ends_with(expected), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name}");
    }
}

#[test]
fn places_that_cannot_hold_a_store_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = Store::open(file.join("store.sqlite")).err().unwrap();
    assert_eq!(error.to_string(), format!("cannot create the folder `{}` of the store", file.display()));
    assert_eq!(error.kind(), Kind::Input);
    let error = open_error(folder.path());
    assert_eq!(error.to_string(), format!("cannot read the store `{}`", folder.path().display()));
    assert_eq!(Store::open("").err().unwrap().kind(), Kind::Input);
}

/// The store of a truncated file opens, and says so when a lost page is needed.
#[test]
fn lost_pages_are_reported_as_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut store = Store::open(&path).unwrap();
    let id = store.settings(&settings("w")).unwrap();
    store.commit(id, "a", &batch(0, 5000)).unwrap();
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let error = Store::open(&path)
        .and_then(|store| store.for_each_answer(id, "a", |_, _, _, _| Ok(())))
        .expect_err("half of the pages are gone");
    assert_eq!(error.to_string(), format!("the store `{}` is damaged", path.display()));
    assert_eq!(error.kind(), Kind::Input);
}

#[test]
fn names_with_a_meaning_to_sqlite_are_plain_files() {
    let folder = tempfile::tempdir().unwrap();
    for name in [":memory:", "file:x?mode=memory"] {
        let path = folder.path().join(name);
        drop(Store::open(&path).unwrap());
        assert!(path.is_file(), "{name}");
    }
}

#[test]
fn curves_are_found_by_run_and_series_and_points_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let point = |series: &str, step, value| CurvePoint { series: series.to_owned(), step, value };
    {
        let mut store = Store::open(&path).unwrap();
        let (one, two) = (store.training_run("{\"seed\":1}").unwrap(), store.training_run("{\"seed\":2}").unwrap());
        assert_ne!(one, two);
        store.record_curve(one, &[point("loss", 2, 0.5), point("loss", 1, 0.7), point("lr", 1, 1e-3)]).unwrap();
        store.record_curve(two, &[point("loss", 1, 9.0)]).unwrap();
        store.record_curve(one, &[point("loss", 2, 0.25), point("loss", 3, 0.1)]).unwrap();
    }
    let mut store = Store::open(&path).unwrap();
    let one = store.training_run("{\"seed\":1}").unwrap();
    assert_eq!(store.curve(one, "loss").unwrap(), [(1, 0.7), (2, 0.25), (3, 0.1)]);
    assert_eq!(store.curve(one, "lr").unwrap(), [(1, 1e-3)]);
    assert_eq!(store.curve(one, "nothing").unwrap(), []);
}

#[test]
fn distances_are_found_by_settings_dataset_and_question() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let stored = |question: &str, vision: f64, answer| StoredDistances {
        question_id: question.to_owned(),
        image_id: "\"a\"".to_owned(),
        content: u64::MAX - 1,
        distances: Distances { vision: Some(vision), question: None, joint: Some(0.1 + 0.2), answer },
    };
    {
        let mut store = Store::open(&path).unwrap();
        let one = store.distance_settings(&distance_settings("w")).unwrap();
        let two = store.distance_settings(&distance_settings("v")).unwrap();
        assert_ne!(one, two);
        store.commit_distances(one, "set", &[stored("1", 1.0, None), stored("2", 9.0, Some(4.0))]).unwrap();
        store.commit_distances(one, "set", &[stored("2", 2.0, Some(4.0))]).unwrap();
        store.commit_distances(two, "set", &[stored("1", 7.0, None)]).unwrap();
    }
    let mut store = Store::open(&path).unwrap();
    let one = store.distance_settings(&distance_settings("w")).unwrap();
    assert_eq!(store.settings_of_distances(one).unwrap(), distance_settings("w"));
    let (content, distances) = store.distances(one, "set", "2", "\"a\"").unwrap().unwrap();
    assert_eq!((content, distances), (u64::MAX - 1, stored("2", 2.0, Some(4.0)).distances));
    assert_eq!(store.distances(one, "other", "2", "\"a\"").unwrap(), None);
    let all: Vec<Option<f64>> =
        store.all_distances(one, "set").unwrap().iter().map(|distances| distances.vision).collect();
    assert_eq!(all, [Some(1.0), Some(2.0)]);
}

#[test]
fn a_model_keeps_the_settings_that_are_not_given_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path().join("store.sqlite")).unwrap();
    let answers = store.settings(&settings("w")).unwrap();
    let distances = store.distance_settings(&distance_settings("w")).unwrap();
    let model = |name: &str, answers, distances| StoredModel {
        name: name.to_owned(),
        weights: "w".to_owned(),
        training: None,
        made_by: None,
        zero_shot: name == "base",
        selected_on_reported: false,
        answers,
        distances,
    };
    store.record_model(&model("tuned", Some(answers), None)).unwrap();
    store.record_model(&model("base", None, Some(distances))).unwrap();
    store.record_model(&model("tuned", None, Some(distances))).unwrap();
    let expected = [model("tuned", Some(answers), Some(distances)), model("base", None, Some(distances))];
    assert_eq!(store.models().unwrap(), expected);
    // Distances alone do not say whether a model was fine-tuned.
    store.record_model(&StoredModel { zero_shot: false, ..model("base", None, Some(distances)) }).unwrap();
    assert!(store.models().unwrap()[1].zero_shot);
    // The name of another checkpoint takes nothing over.
    let other = StoredModel { weights: "v".to_owned(), ..model("tuned", Some(answers), None) };
    store.record_model(&other).unwrap();
    assert_eq!(store.models().unwrap()[0], other);
}

#[test]
fn sets_of_questions_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path().join("store.sqlite")).unwrap();
    let [first, second] = ["w", "v"].map(|weights| store.settings(&settings(weights)).unwrap());
    let set = |dataset: &str, digest: &str, n| QuestionSet { dataset: dataset.into(), digest: digest.into(), n };
    let [whole, part, other] = [set("b", "whole", 10), set("b", "part", 3), set("a", "whole", 7)];
    for set in [&whole, &part, &other, &whole] {
        store.record_questions(first, set).unwrap();
    }
    assert_eq!(store.question_sets(first).unwrap(), [other, part, whole]);
    assert_eq!(store.question_sets(second).unwrap(), []);
}

#[test]
fn a_store_is_read_where_nothing_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a?b#c%d.sqlite");
    let mut store = Store::open(&path).unwrap();
    let id = store.settings(&settings("w")).unwrap();
    store.commit(id, "a", &batch(0, 3)).unwrap();
    // While another process has it open, what is in the log is read too.
    assert_eq!(all(&Store::open_to_read(&path).unwrap(), id, "a").len(), 3);
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let mut read = Store::open_to_read(&path).unwrap();
    assert_eq!(all(&read, id, "a").len(), 3);
    assert!(read.commit(id, "a", &batch(3, 1)).is_err());
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let missing = Store::open_to_read(folder.path().join("none")).err().unwrap();
    assert!(missing.to_string().starts_with("there is no store `"), "{missing}");
}
