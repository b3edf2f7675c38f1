//! A run that is killed goes on where it stopped and ends as if nothing had happened; answers are computed again exactly
//! where something they depend on has changed.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use digrap_bench::store::Store;
use serde_json::Value;

use crate::support::{easy_vqa, fixture, link, program_at};

const KILLS: usize = 20;
const QUESTIONS: u64 = 3000;

/// A small generator of numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    /// The next number from 0 to 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn part_of(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.unit())
    }
}

/// The command that is killed, with `home/output` for its output.
fn command(home: &Path) -> Command {
    let mut command = program_at(home);
    let limit = QUESTIONS.to_string();
    command.arg("vqa").arg("--model").arg(fixture("models/paligemma-easy-vqa"));
    command.args(["--dataset", "easy-vqa", "--batch-size", "16", "--output", "output", "--limit", &limit]);
    command.arg("--root").arg(easy_vqa()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs the command to its end; how long it took.
fn complete(home: &Path) -> Duration {
    let start = Instant::now();
    assert!(command(home).status().unwrap().success());
    start.elapsed()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A store that counts for each question how often an answer to it was written.
fn create_counting_store(output: &Path) -> PathBuf {
    let path = output.join("store.sqlite");
    drop(Store::open(&path).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    let count = "CREATE TABLE written (question TEXT NOT NULL);
        CREATE TRIGGER count_answers AFTER INSERT ON answer BEGIN INSERT INTO written VALUES (new.question); END;";
    connection.execute_batch(count).unwrap();
    path
}

fn number(store: &Path, sql: &str) -> u64 {
    let connection = rusqlite::Connection::open(store).unwrap();
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
}

/// Answers in a copy of the store, so that the next run finds the files as the kill has left them.
fn stored(store: &Path) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("store.sqlite");
    fs::copy(store, &copy).unwrap();
    // The write-ahead log is not there before the first write of a run.
    let _ = fs::copy(store.with_extension("sqlite-wal"), copy.with_extension("sqlite-wal"));
    number(&copy, "SELECT count(*) FROM answer")
}

/// When a run is killed.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    /// So long after its start.
    After(Duration),
    /// So long after it has begun to write answers.
    Answering(Duration),
    /// So long after it has begun to write one of its files.
    Writing(Duration),
}

/// State of the files that are written at the end.
fn written(output: &Path) -> Vec<(String, u64, SystemTime)> {
    let names = names(output).into_iter().filter(|name| !name.starts_with("store.sqlite"));
    // A file that goes between the two looks is a change, too.
    names
        .filter_map(|name| {
            fs::metadata(output.join(&name)).ok().map(|file| (name, file.len(), file.modified().unwrap()))
        })
        .collect()
}

/// State of the store's log, which answers are written to.
fn log(output: &Path) -> Option<(u64, SystemTime)> {
    let file = fs::metadata(output.join("store.sqlite-wal")).ok()?;
    Some((file.len(), file.modified().unwrap()))
}

/// Whether the kill came before the end of the run.
fn kill(home: &Path, moment: Moment) -> bool {
    let output = home.join("output");
    let (before, log_before) = (written(&output), log(&output));
    let mut child = command(home).spawn().unwrap();
    let mut is_running = || child.try_wait().unwrap().is_none();
    match moment {
        Moment::After(delay) => std::thread::sleep(delay),
        Moment::Answering(delay) => {
            while is_running() && log(&output) == log_before {
                std::thread::yield_now();
            }
            std::thread::sleep(delay);
        }
        Moment::Writing(delay) => {
            while is_running() && written(&output) == before {
                std::thread::yield_now();
            }
            std::thread::sleep(delay);
        }
    }
    let running = is_running();
    child.kill().unwrap();
    running && child.wait().unwrap().signal() == Some(9)
}

/// Moments spread over loading, answering (whose parts together do not reach the end) and writing. `whole` is the time
/// of an undisturbed run, `rest` that of one with nothing left to answer.
fn moments(random: &mut Random, whole: Duration, rest: Duration) -> Vec<Moment> {
    let answering = whole.saturating_sub(rest);
    let mut moments: Vec<Moment> = (0..5).map(|_| Moment::After(random.part_of(rest))).collect();
    moments.extend((0..10).map(|_| Moment::Answering(random.part_of(answering / 14))));
    for last in (1..moments.len()).rev() {
        moments.swap(last, (random.unit() * (last + 1) as f64) as usize);
    }
    moments.extend((moments.len()..KILLS).map(|_| Moment::Writing(random.part_of(rest / 15))));
    moments
}

#[test]
fn a_run_killed_twenty_times_ends_as_one_that_was_not() {
    let (calm, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = complete(calm.path());
    let rest = complete(calm.path());
    let output = killed.path().join("output");
    fs::create_dir(&output).unwrap();
    let store = create_counting_store(&output);
    let mut random = Random(20);
    let (mut grew, mut before, mut tries) = (0, 0, 0);
    for mut moment in moments(&mut random, whole, rest) {
        while !kill(killed.path(), moment) {
            // The run was faster than expected. All answers are there now, so it can only be met while it writes.
            moment = Moment::Writing(random.part_of(Duration::from_millis(1)));
            tries += 1;
            assert!(tries < 5 * KILLS, "runs end before they can be killed");
        }
        let now = stored(&store);
        assert!(now >= before, "{before} answers became {now}");
        grew += usize::from(now > before);
        before = now;
    }
    assert!(grew >= 3, "only {grew} kills came while questions were answered");
    complete(killed.path());
    for name in ["easy-vqa.results.json", "table.md"] {
        let (ours, theirs) = (fs::read(output.join(name)), fs::read(calm.path().join("output").join(name)));
        assert!(ours.unwrap() == theirs.unwrap(), "{name} differs");
    }
    assert_eq!(names(&output), ["easy-vqa.results.json", "run.json", "store.sqlite", "table.md"]);
    assert_eq!(names(&killed.path().join("digrap-bench/converted")), [""; 0], "converted weights are left");
    let run: Value = serde_json::from_slice(&fs::read(output.join("run.json")).unwrap()).unwrap();
    let pace = &run["evaluations"][0]["pace"];
    assert_eq!((pace["reused"].as_u64(), pace["answered"].as_u64()), (Some(before), Some(QUESTIONS - before)));
    assert_eq!(number(&store, "SELECT count(*) FROM answer"), QUESTIONS);
    let most = number(&store, "SELECT max(times) FROM (SELECT count(*) AS times FROM written GROUP BY question)");
    assert_eq!((number(&store, "SELECT count(*) FROM written"), most), (QUESTIONS, 1), "answers were written twice");
}

/// A set of 200 questions that a test may change, with an output folder and a store.
struct Set {
    home: tempfile::TempDir,
}

const SET: u64 = 200;

impl Set {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (easy_vqa().join("test"), home.path().join("set/test"));
        fs::create_dir_all(to.join("images")).unwrap();
        link(&from.join("questions.json"), &to.join("questions.json"));
        for name in names(&from.join("images")) {
            link(&from.join("images").join(&name), &to.join("images").join(&name));
        }
        let model = fixture("models/paligemma-easy-vqa");
        fs::create_dir(home.path().join("model")).unwrap();
        for name in names(&model) {
            fs::copy(model.join(&name), home.path().join("model").join(&name)).unwrap();
        }
        Self { home }
    }

    /// Images of the first questions.
    fn images(&self) -> Vec<i64> {
        let text = fs::read(self.home.path().join("set/test/questions.json")).unwrap();
        let records: Vec<(String, String, i64)> = serde_json::from_slice(&text).unwrap();
        records.iter().take(SET as usize).map(|(_, _, image)| *image).collect()
    }

    /// Evaluates; how many questions were asked, and the text of results and table.
    fn run(&self, model: &str, more: &[&str]) -> (u64, String, String) {
        let limit = SET.to_string();
        let arguments = ["--dataset", "easy-vqa", "--root", "set", "--output", "output", "--limit", &limit];
        let mut command = program_at(self.home.path());
        let output = command.args(["vqa", "--json", "--model", model]).args(arguments).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let run: Value = serde_json::from_slice(&output.stdout).unwrap();
        let pace = &run["evaluations"][0]["pace"];
        let [answered, reused] = ["answered", "reused"].map(|key| pace[key].as_u64().unwrap());
        assert_eq!(answered + reused, SET);
        let read = |name: &str| fs::read_to_string(self.home.path().join("output").join(name)).unwrap();
        (answered, read("easy-vqa.results.json"), read("table.md"))
    }
}

#[test]
fn a_second_run_asks_nothing_and_says_the_same() {
    let set = Set::new();
    let first = set.run("model", &[]);
    assert_eq!(first.0, SET);
    let second = set.run("model", &[]);
    assert_eq!((second.0, &second.1, &second.2), (0, &first.1, &first.2));
    // Neither the size of batches nor the folder of a model decides an answer.
    assert_eq!(set.run("model", &["--batch-size", "5"]).0, 0);
    fs::rename(set.home.path().join("model"), set.home.path().join("moved")).unwrap();
    let moved = set.run("moved", &[]);
    assert_eq!((moved.0, &moved.1), (0, &first.1));
}

#[test]
fn other_settings_ask_again_and_keep_the_answers() {
    let set = Set::new();
    let first = set.run("model", &[]);
    for other in [["--prompt", "answer-en"], ["--decode", "beam:2"], ["--max-new-tokens", "3"]] {
        assert_eq!(set.run("model", &other).0, SET, "{other:?}");
        assert_eq!(set.run("model", &other).0, 0, "{other:?}");
    }
    let again = set.run("model", &[]);
    assert_eq!((again.0, &again.1), (0, &first.1));
    for name in ["generation_config.json", "config.json", "tokenizer.json"] {
        let file = set.home.path().join("model").join(name);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text + "\n").unwrap();
        assert_eq!(set.run("model", &[]).0, SET, "{name}");
    }
}

#[test]
fn another_image_asks_its_own_questions_again() {
    let set = Set::new();
    let first = set.run("model", &[]);
    let images = set.images();
    let replaced = images[SET as usize / 2];
    let asked = images.iter().filter(|image| **image == replaced).count() as u64;
    assert!(asked > 1 && asked < SET / 2);
    let path = |image: i64| set.home.path().join(format!("set/test/images/{image}.png"));
    fs::remove_file(path(replaced)).unwrap();
    fs::copy(path(replaced + 1), path(replaced)).unwrap();
    let second = set.run("model", &[]);
    assert_eq!(second.0, asked);
    let answers = |text: &str| -> Vec<String> {
        let records: Vec<Value> = serde_json::from_str(text).unwrap();
        records.iter().map(|record| record["answer"].as_str().unwrap().to_owned()).collect()
    };
    let (before, after) = (answers(&first.1), answers(&second.1));
    let changed: Vec<usize> = (0..before.len()).filter(|question| before[*question] != after[*question]).collect();
    assert!(!changed.is_empty() && changed.iter().all(|question| images[*question] == replaced), "{changed:?}");
    assert_eq!(set.run("model", &[]).0, 0);
}
