//! Writing and reading raw answers.

use digrap_bench::store::{AnswerSettings, SettingsId, Store, StoredAnswer};
use divan::{Bencher, counter::ItemsCount};
use tempfile::TempDir;

const ANSWERS: usize = 100_000;
const BATCH: usize = 64;

fn answers() -> Vec<StoredAnswer> {
    let answer = |i: usize| StoredAnswer {
        question_id: (262_148_000 + 7 * i).to_string(),
        image_id: (i / 3).to_string(),
        content: i as u64,
        answer: "down the street".into(),
    };
    (0..ANSWERS).map(answer).collect()
}

fn empty_store() -> (TempDir, Store, SettingsId) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = Store::open(folder.path().join("store.sqlite")).expect("a new store");
    let settings = AnswerSettings {
        weights: "0".repeat(64),
        configuration: "c".into(),
        tokenizer: "0".repeat(64),
        prompt: "answer en {question}".into(),
        decoding: "greedy".into(),
        max_new_tokens: 10,
        dtype: "f32".into(),
        provider: "cpu".into(),
        runtime_version: "1.31.0".into(),
        preprocessing: "224x224".into(),
        program_version: "0.1.0".into(),
    };
    let settings = store.settings(&settings).expect("a writable store");
    (folder, store, settings)
}

fn fill(store: &mut Store, settings: SettingsId, answers: &[StoredAnswer]) {
    for batch in answers.chunks(BATCH) {
        store.commit(settings, "vqa", batch).expect("a writable store");
    }
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn committing_in_batches(bencher: Bencher) {
    let answers = answers();
    let bencher = bencher.counter(ItemsCount::new(ANSWERS)).with_inputs(empty_store);
    bencher.bench_local_refs(|(_, store, settings)| fill(store, *settings, &answers));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn streaming(bencher: Bencher) {
    let (_folder, mut store, settings) = empty_store();
    fill(&mut store, settings, &answers());
    bencher.counter(ItemsCount::new(ANSWERS)).bench_local(|| {
        let mut bytes = 0;
        let visit = |_: &str, _: &str, _, answer: &str| {
            bytes += answer.len();
            Ok(())
        };
        store.for_each_answer(settings, "vqa", visit).map(|()| bytes)
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn looking_up(bencher: Bencher) {
    let (_folder, mut store, settings) = empty_store();
    let answers = answers();
    fill(&mut store, settings, &answers);
    bencher.counter(ItemsCount::new(ANSWERS)).bench_local(|| {
        let find = |a: &StoredAnswer| store.answer(settings, "vqa", &a.question_id, &a.image_id);
        answers.iter().filter(|&answer| matches!(find(answer), Ok(Some(_)))).count()
    });
}
