//! Leaderboards: what is put together, ranked and compared, and what they say of themselves.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use digrap_bench::error::{Error, Kind};
use digrap_bench::report;
use digrap_bench::score::Summary;
use digrap_bench::store::{AnswerSettings, Distances, StoredModel};
use digrap_bench::suite::{Entry, Leaderboard, LeftOut, Selection, StoredDataset, StoredRun, Suite, leaderboard};
use serde_json::{Value, json};

use crate::support::{answer_settings, fixture, program_at};

/// A model of a suite whose accuracy on every dataset is the same.
struct Made {
    name: &'static str,
    /// The method and the seed, of a model that a run of this program trained.
    trained: Option<(&'static str, u64)>,
    right: usize,
}

/// Questions of each made dataset, two to an image.
const QUESTIONS: usize = 20;

impl Made {
    fn stored(&self, datasets: usize) -> StoredRun {
        let scores: Vec<f64> = (0..QUESTIONS).map(|question| f64::from(u8::from(question < self.right))).collect();
        let summary = Summary {
            metric: "simple".to_owned(),
            n: QUESTIONS,
            accuracy: Some(100.0 * self.right as f64 / QUESTIONS as f64),
            interval: None,
            clusters: QUESTIONS / 2,
            by_answer_type: Default::default(),
            by_question_type: Default::default(),
        };
        let dataset = |position| StoredDataset {
            position,
            questions: "digest".to_owned(),
            answers: None,
            summary: Some(summary.clone()),
            scores: scores.clone(),
            distances: vec![Distances { joint: Some(position as f64), ..Distances::default() }; QUESTIONS],
            clusters: (0..QUESTIONS as u32).map(|question| question / 2).collect(),
        };
        let settings = |(method, seed)| json!({"method": method, "subject": {"seed": seed, "lora": null}});
        let model = StoredModel {
            name: self.name.to_owned(),
            weights: format!("weights of {}", self.name),
            training: self.trained.map(|trained| settings(trained).to_string()),
            made_by: None,
            zero_shot: self.name == "base",
            selected_on_reported: self.name == "selected",
            answers: None,
            distances: None,
        };
        let datasets = (0..datasets).map(dataset).collect();
        let (reference, left_out) = (Vec::new(), Vec::new());
        StoredRun { model, answer_settings: None, settings: None, reference, datasets, left_out }
    }
}

const MADE: [Made; 6] = [
    Made { name: "d2", trained: Some(("digrap", 2)), right: 18 },
    Made { name: "d1", trained: Some(("digrap", 1)), right: 16 },
    Made { name: "selected", trained: None, right: 20 },
    Made { name: "v", trained: Some(("vanilla", 1)), right: 16 },
    Made { name: "base", trained: None, right: 10 },
    Made { name: "other", trained: None, right: 16 },
];

fn board(suite: &str, selection: &Selection) -> Leaderboard {
    let suite = Suite::load(suite).unwrap();
    let runs: Vec<StoredRun> = MADE.iter().map(|made| made.stored(suite.datasets.len())).collect();
    leaderboard(&suite, &[], &runs, selection).unwrap()
}

fn names(board: &Leaderboard) -> Vec<&str> {
    board.entries.iter().map(|entry| entry.name.as_str()).collect()
}

#[test]
fn seeds_of_a_method_are_one_row_in_the_order_of_methods() {
    let board = board("miniature", &Selection::default());
    assert_eq!(names(&board), ["base", "vanilla", "digrap", "other", "selected"]);
    let digrap = &board.entries[2];
    let labels: Vec<(&str, Option<u64>)> = digrap.runs.iter().map(|run| (run.label.as_str(), run.seed)).collect();
    assert_eq!(labels, [("digrap, seed 1", Some(1)), ("digrap, seed 2", Some(2))]);
    for (column, cell) in board.columns.iter().zip(&digrap.cells) {
        let cell = cell.unwrap();
        // Mean and sample deviation of 80 and 90.
        assert!((cell.accuracy - 85.0).abs() < 1e-9, "{cell:?}");
        assert!((cell.spread.unwrap() - 50.0_f64.sqrt()).abs() < 1e-9, "{cell:?}");
        assert!((cell.change.unwrap() - 6.25).abs() < 1e-9, "{cell:?}");
        assert_eq!(
            (cell.n, cell.interval.is_some()),
            match column.average_of.len() {
                0 => (Some(QUESTIONS), true),
                _ => (None, false),
            }
        );
    }
    // NumPy and SciPy: the t interval of the ten image means of the questions' means over both runs,
    // t.interval(0.95, 9, mean, sem) of [1] * 8 + [0.5, 0].
    let [low, high] = digrap.cells[0].unwrap().interval.unwrap();
    assert!((low - 60.858_544).abs() < 1e-5 && high == 100.0, "{low} {high}");
    let shift = &digrap.shifts[0];
    assert_eq!((digrap.shifts.len(), shift.modality, shift.cells[1]), (1, "joint", Some(1.0)));
}

#[test]
fn ranks_leave_out_models_that_a_reported_set_selected_and_equal_ones_share_theirs() {
    let board = board("miniature", &Selection::default());
    let ranks: Vec<Option<usize>> = board.entries.iter().map(|entry| entry.cells[0].unwrap().rank).collect();
    assert_eq!(ranks, [None, Some(2), Some(1), Some(2), None]);
    let change = |entry: &Entry| entry.cells[0].unwrap().change;
    // Neither a model that no run of this program fine-tuned nor vanilla itself is compared with vanilla.
    let changes: Vec<bool> = board.entries.iter().map(|entry| change(entry).is_some()).collect();
    assert_eq!(changes, [false, false, true, false, false]);
}

#[test]
fn rows_are_chosen_and_sorted() {
    let select = |selection: Selection| board("miniature", &selection);
    let methods = vec!["digrap".to_owned(), "vanilla".to_owned()];
    let chosen = select(Selection { methods, ..Selection::default() });
    assert_eq!(names(&chosen), ["vanilla", "digrap"]);
    // What a row is compared with need not be shown.
    let alone = select(Selection { models: vec!["d1".to_owned()], ..Selection::default() });
    assert_eq!(names(&alone), ["digrap"]);
    assert!(alone.entries[0].cells[0].unwrap().change.is_some());
    let sorted = select(Selection { sort: Some("OOD avg.".to_owned()), ..Selection::default() });
    assert_eq!(names(&sorted), ["selected", "digrap", "vanilla", "other", "base"]);
}

#[test]
fn the_papers_rows_stand_beside_those_of_its_own_datasets() {
    let board = board("vqa", &Selection::default());
    let digrap = board.paper.iter().find(|row| row.name == "DiGraP").unwrap();
    // Table 3.
    let printed = [86.29, 94.43, 69.36, 78.90, 86.21, 71.73, 49.82, 75.08, 42.08, 22.92, 48.30, 37.77, 62.64];
    let vanilla = board.paper.iter().find(|row| row.name == "Vanilla FT").unwrap();
    assert_eq!(vanilla.cells, printed.map(Some));
    assert!(!digrap.is_shift && board.paper.iter().filter(|row| row.is_shift).count() == 3);
    let page = report::leaderboard(&board);
    let line = page.lines().find(|line| line.contains("DiGraP (paper)")).unwrap();
    assert!(line.starts_with("| *DiGraP (paper)* ") && line.contains(" *87.40* |") && !line.contains("**"), "{line}");
    assert!(self::board("miniature", &Selection::default()).paper.is_empty());
}

#[test]
fn an_average_of_the_paper_is_not_shown_for_other_datasets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    let manifest =
        "extends = \"vqa\"\n[[group]]\nname = \"near\"\nlabel = \"near\"\nmembers = [\"iv-vqa\", \"cv-vqa\"]\n";
    std::fs::write(&path, manifest).unwrap();
    let board = board(path.to_str().unwrap(), &Selection::default());
    let at = board.columns.iter().position(|column| column.name == "near").unwrap();
    assert!(board.paper.iter().all(|row| row.cells[at].is_none()) && !board.paper.is_empty());
}

#[test]
fn one_model_is_not_counted_twice() {
    let suite = Suite::load("miniature").unwrap();
    let refused = |first: &Made, second: &Made| {
        let runs = [first.stored(1), second.stored(1)];
        leaderboard(&suite, &[], &runs, &Selection::default()).unwrap_err().to_string()
    };
    let twice = Made { name: "v", ..MADE[3] };
    assert_eq!(refused(&MADE[3], &twice), "`v` and `v` are the same model under the same settings");
}

#[test]
fn models_of_one_name_and_seeds_that_come_again_are_rows_of_their_own() {
    let suite = Suite::load("miniature").unwrap();
    let board = |runs: &[StoredRun]| leaderboard(&suite, &[], runs, &Selection::default()).unwrap();
    let mut namesake = MADE[5].stored(1);
    namesake.model.weights = "others".to_owned();
    assert_eq!(names(&board(&[MADE[5].stored(1), namesake])), ["other (1)", "other (2)"]);
    let again = Made { name: "again", ..MADE[1] };
    let board = board(&[&MADE[0], &MADE[1], &again].map(|made| made.stored(1)));
    assert_eq!(names(&board), ["digrap (1)", "digrap (2)"]);
    let seeds = |entry: &Entry| entry.runs.iter().map(|run| run.seed).collect::<Vec<_>>();
    assert_eq!(board.entries.iter().map(seeds).collect::<Vec<_>>(), [vec![Some(1), Some(2)], vec![Some(1)]]);
}

#[test]
fn what_is_not_complete_is_left_out_and_told() {
    let suite = Suite::load("miniature").unwrap();
    let incomplete = |made: &Made, datasets: usize| {
        let mut run = made.stored(datasets);
        run.left_out.push(Error::incomplete(format!("question 7 of {} has no answer", made.name)));
        run
    };
    let runs = [incomplete(&MADE[0], 1), MADE[1].stored(2), incomplete(&MADE[5], 0), MADE[3].stored(2)];
    let board = |selection: &Selection| leaderboard(&suite, &[], &runs, selection);
    let all = board(&Selection::default()).unwrap();
    // A mean over seeds is one over the same seeds in every column.
    assert_eq!(names(&all), ["vanilla", "digrap", "digrap (incomplete)"]);
    let accuracies = |entry: &Entry| [0, 1].map(|at| entry.cells[at].map(|cell| cell.accuracy));
    assert_eq!(accuracies(&all.entries[1]), [Some(80.0), Some(80.0)]);
    assert_eq!(accuracies(&all.entries[2]), [Some(90.0), None]);
    let left_out = |board: &Leaderboard| board.left_out.iter().map(|one| one.model.clone()).collect::<Vec<_>>();
    assert_eq!(left_out(&all), ["d2", "other"]);
    let page = report::leaderboard(&all);
    assert!(page.contains("\n## Left out\n\n- d2: question 7 of d2 has no answer\n- other: question 7"), "{page}");
    let latex = report::leaderboard_latex(&all);
    assert!(latex.starts_with("% Left out\n%\n% - d2: question 7 of d2 has no answer\n"), "{latex}");
    let methods = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Selection { methods: names, ..Selection::default() }
    };
    assert_eq!(left_out(&board(&methods(&["vanilla"])).unwrap()), [""; 0]);
    assert_eq!(left_out(&board(&methods(&["digrap"])).unwrap()), ["d2"]);
    let named =
        Selection { models: vec!["d1".to_owned(), "d2".to_owned(), "other".to_owned()], ..Selection::default() };
    let error = board(&named).unwrap_err();
    assert_eq!(error.to_string(), "no results of `other` can be shown");
    assert_eq!(error.kind(), Kind::Incomplete);
}

#[test]
fn equal_scores_share_a_rank_whatever_the_order_of_their_sum() {
    let suite = Suite::load("miniature").unwrap();
    let mut runs = [MADE[3].stored(1), MADE[5].stored(1), MADE[4].stored(1)];
    for run in &mut runs[..2] {
        run.datasets[0].summary.as_mut().unwrap().accuracy = Some(89.683_333_333_333_28);
    }
    runs[1].datasets[0].summary.as_mut().unwrap().accuracy = Some(89.683_333_333_333_12);
    let sorted = Selection { sort: Some("ID".to_owned()), ..Selection::default() };
    for selection in [Selection::default(), sorted] {
        let board = leaderboard(&suite, &[], &runs, &selection).unwrap();
        let ranks: BTreeMap<&str, Option<usize>> =
            board.entries.iter().map(|entry| (entry.name.as_str(), entry.cells[0].unwrap().rank)).collect();
        assert_eq!(ranks, BTreeMap::from([("vanilla", Some(1)), ("other", Some(1)), ("base", Some(2))]));
    }
}

#[test]
fn names_and_prompts_stay_in_their_cells() {
    let suite = Suite::load("miniature").unwrap();
    let mut run = MADE[5].stored(1);
    run.model.name = "[a]\n<b>|*c_d*@e".to_owned();
    run.answer_settings = Some(AnswerSettings { prompt: "{q}\n`x`".to_owned(), ..answer_settings() });
    let mut board = leaderboard(&suite, &[], &[run], &Selection::default()).unwrap();
    board.left_out.push(LeftOut { model: "x\ny".to_owned(), reason: "# no\nheading".to_owned() });
    let page = report::leaderboard(&board);
    assert!(page.contains("\n| \\[a\\] &lt;b&gt;\\|\\*c_d\\*@e |"), "{page}");
    assert!(page.contains("| `{q}''x'` |") && page.contains("\n- x y: # no heading\n"), "{page}");
    let latex = report::leaderboard_latex(&board);
    assert!(latex.contains("\n{}[a] \\textless{}b\\textgreater{}\\textbar{}*c\\_d*@e & "), "{latex}");
}

#[test]
fn distances_alone_are_no_row_where_answers_are_left_out() {
    let suite = Suite::load("miniature").unwrap();
    let measured = |made: &Made| {
        let mut run = made.stored(2);
        run.datasets.iter_mut().for_each(|dataset| dataset.summary = None);
        run
    };
    let mut left = measured(&MADE[3]);
    for number in 1..=5 {
        left.left_out.push(Error::incomplete(format!("question {number} of `d` has no answer")));
    }
    let runs = [left, measured(&MADE[5])];
    let board = leaderboard(&suite, &[], &runs, &Selection::default()).unwrap();
    assert_eq!(names(&board), ["other"]);
    let told = "\n- v: question 1 of `d` has no answer; question 2 of `d` has no answer; question 3 of `d` has no answer; \
                and 2 more\n";
    assert!(report::leaderboard(&board).contains(told), "{}", report::leaderboard(&board));
    let error = leaderboard(&suite, &[], &runs[..1], &Selection::default()).unwrap_err();
    assert_eq!(error.to_string(), "no results of `v` can be shown");
}

#[test]
fn a_shift_is_that_of_the_runs_it_was_measured_in() {
    let suite = Suite::load("miniature").unwrap();
    let mut unmeasured = MADE[0].stored(2);
    unmeasured.datasets.iter_mut().for_each(|dataset| dataset.distances.clear());
    let board = leaderboard(&suite, &[], &[unmeasured, MADE[1].stored(2)], &Selection::default()).unwrap();
    let shift = &board.entries[0].shifts[0];
    assert_eq!((shift.modality, shift.runs, &shift.cells[..2]), ("joint", 1, &[Some(0.0), Some(1.0)][..]));
    assert!(report::leaderboard(&board).contains("| joint shift, digrap (1 of 2 runs) |"));
}

#[test]
fn tables_for_other_programs_mean_what_they_show() {
    let mut board = board("vqa", &Selection::default());
    board.entries[1].name = "a_b & 5 % \"x\", y".to_owned();
    let latex = report::leaderboard_latex(&board);
    let row = latex.lines().find(|line| line.starts_with("a\\_b \\& 5 \\% \"x\", y & ")).unwrap();
    assert!(row.contains("\\underline{80.00}") && row.ends_with(" \\\\"), "{row}");
    assert!(
        latex.contains("\\textbf{85.00 $\\pm$ 7.07}")
            && latex.contains("\\textit{Vanilla FT (paper)} & \\textit{86.29}")
    );
    let columns = row.matches('&').count() - row.matches("\\&").count();
    assert_eq!(columns, board.columns.len());
    let csv = report::leaderboard_csv(&board).unwrap();
    assert!(csv.starts_with("source,suite,model,method,zero_shot,runs,column,shift,accuracy,"), "{csv}");
    let line = csv.lines().find(|line| line.contains("vqa-ce") && line.contains("digrap")).unwrap();
    let fields: Vec<&str> = line.split(',').collect();
    assert_eq!(fields[..9], ["measured", "vqa", "digrap", "digrap", "false", "2", "vqa-ce", "multimodal", "85"]);
    assert!(csv.contains("\nmeasured,vqa,\"a_b & 5 % \"\"x\"\", y\",vanilla,false,1,vqav2,none,80,,20,"), "{csv}");
    assert!(csv.contains("\npaper,vqa,Vanilla FT,,,0,vqav2,none,86.29,,,,,,,,,,,\n"), "{csv}");
    assert!(csv.lines().all(|line| line.contains('"') || line.matches(',').count() == 19));
}

fn asked(prompt: &str) -> AnswerSettings {
    AnswerSettings { prompt: prompt.to_owned(), ..answer_settings() }
}

#[test]
fn runs_that_were_asked_otherwise_are_rows_of_their_own() {
    let suite = Suite::load("miniature").unwrap();
    let runs = |prompts: [&str; 2]| {
        let [one, other] = [&MADE[0], &MADE[1]].map(|made| made.stored(1));
        let [first, second] = prompts.map(|prompt| Some(asked(prompt)));
        [StoredRun { answer_settings: first, ..one }, StoredRun { answer_settings: second, ..other }]
    };
    let board = |runs: &[StoredRun]| leaderboard(&suite, &[], runs, &Selection::default());
    assert_eq!(names(&board(&runs(["{q}", "{q}"])).unwrap()), ["digrap"]);
    let apart = board(&runs(["{q}", "answer en {q}"])).unwrap();
    assert_eq!(names(&apart), ["digrap (1)", "digrap (2)"]);
    assert!(report::leaderboard(&apart).contains("**Not alike:** fine-tuned rows differ in prompts"));
}

#[test]
fn a_method_is_compared_with_vanilla_from_the_same_start_alone() {
    let suite = Suite::load("miniature").unwrap();
    let of = |made: &Made, weights: &str| {
        let mut run = made.stored(1);
        let method = made.trained.unwrap().0;
        let settings = json!({"method": method, "subject": {"seed": 1, "weights": weights, "dataset": "d"}});
        run.model.training = Some(settings.to_string());
        run
    };
    let change = |weights: &str| {
        let runs = [of(&MADE[0], weights), of(&MADE[3], "base")];
        let board = leaderboard(&suite, &[], &runs, &Selection::default()).unwrap();
        board.entries.iter().find(|entry| entry.name == "digrap").unwrap().cells[0].unwrap().change
    };
    assert_eq!((change("base"), change("other")), (Some(12.5), None));
}

fn run(home: &Path, arguments: &[&str]) -> Output {
    program_at(home).args(arguments).output().unwrap()
}

#[test]
fn a_store_becomes_the_same_pages_again_without_the_model() {
    let home = tempfile::tempdir().unwrap();
    let [base, tuned] = ["miniature-pt", "miniature-ft"].map(|name| fixture(&format!("models/{name}")));
    let [base, tuned] = [base.to_str().unwrap(), tuned.to_str().unwrap()];
    let evaluated = run(
        home.path(),
        &["vqa", "--suite", "miniature", "--zero-shot", base, "--model", tuned, "--limit", "20", "--output", "results"],
    );
    assert!(evaluated.status.success(), "{}", String::from_utf8_lossy(&evaluated.stderr));
    let store = "results/store.sqlite";
    let made = |output: &str| {
        let arguments = ["leaderboard", "--suite", "miniature", "--store", store, "--limit", "20", "--output", output];
        let made = run(home.path(), &arguments);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let file = |name: &str| std::fs::read_to_string(home.path().join(output).join(name)).unwrap();
        assert_eq!(String::from_utf8(made.stdout).unwrap(), file("leaderboard.md"));
        ["leaderboard.md", "leaderboard.json", "leaderboard.csv", "leaderboard.tex"].map(file)
    };
    let [page, json, ..] = made("one");
    assert_eq!(made("two"), made("one"));
    assert!(page.contains("\nFirst 20 questions of each dataset only.\n"), "{page}");
    assert!(page.contains("\n    digrap-bench vqa --suite miniature --zero-shot "), "{page}");
    // Every accuracy is the one that the evaluation printed.
    let document: Value = serde_json::from_str(&json).unwrap();
    let evaluated: Value =
        serde_json::from_str(&std::fs::read_to_string(home.path().join("results/run.json")).unwrap()).unwrap();
    for (entry, row) in
        document["entries"].as_array().unwrap().iter().zip(evaluated["suite"]["rows"].as_array().unwrap())
    {
        assert_eq!(entry["name"], row["model"]);
        for (cell, expected) in entry["cells"].as_array().unwrap().iter().zip(row["cells"].as_array().unwrap()) {
            let [ours, expected] = [&cell["accuracy"], expected].map(|value| value.as_f64().unwrap());
            assert!((ours - expected).abs() < 1e-9, "{ours} {expected}");
        }
    }
    // A run that finds every answer does not pass for what made them.
    let again =
        ["vqa", "--suite", "miniature", "--zero-shot", base, "--model", tuned, "--limit", "20", "--threads", "1"];
    let again = run(home.path(), &[again.as_slice(), &["--store", store]].concat());
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(made("three"), made("one"));
    // Answers to the first 20 questions are no results of all.
    let whole = run(home.path(), &["leaderboard", "--suite", "miniature", "--store", store]);
    let told = String::from_utf8_lossy(&whole.stderr).into_owned();
    assert_eq!(whole.status.code(), Some(3), "{told}");
    assert!(told.starts_with("error: no results of `miniature-pt` can be shown\n"), "{told}");
    assert!(told.contains("the answers were not given to these 2400 questions of `miniature`"), "{told}");
}
