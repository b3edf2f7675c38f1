//! `figures`: what a store holds about shift and training, as figures and a page; no model is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use digrap_bench::error::{Error, Result};
use digrap_bench::report::figure::Figure;
use digrap_bench::report::{
    self, CorrelationMaps, DatasetShifts, DistanceHistograms, DistanceRelationRow, FileNames, SensitivityPlot,
    ShiftAccuracyRow, ShiftPlot, TowerStrengths,
};
use digrap_bench::stats::COEFFICIENTS;
use digrap_bench::store::Store;
use digrap_bench::suite::{
    DistanceRelations, DistanceSpread, LayerStrength, LeftOut, MODALITIES, ShiftAndAccuracy, StoredRun,
    StoredStrengths, Suite, SuiteDataset, Sweeps, Tower, adjusted_p_values, distance_relations, distance_spread,
    paper_correlations, paper_sweeps, shift_and_accuracy, stored_runs, stored_strengths, stored_sweeps,
};
use serde_json::{Value, json};

use super::features::{ABOUT, measured_with};
use super::known;
use super::vqa::{create_output, shorten, write_whole};

/// Arguments of `figures`.
#[derive(Debug, Args)]
pub struct FiguresArgs {
    /// Stores of evaluated models and of training runs, or output folders with one
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "paper")]
    store: Vec<PathBuf>,
    /// The suite of the evaluated models: a known one (`list suites`), or a TOML file
    #[arg(long, value_name = "NAME|FILE", required_unless_present = "paper")]
    suite: Option<String>,
    /// Folder with one folder for each dataset of the suite [default: that of the user's data]
    #[arg(long, value_name = "DIR", requires = "suite")]
    root: Option<PathBuf>,
    /// Only the first N questions of each dataset, where only they were asked
    #[arg(long, value_name = "N", requires = "suite", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// The correlations and the sweeps of the paper's own tables
    #[arg(long, conflicts_with_all = ["store", "suite"])]
    paper: bool,
    /// Folder for README.md, numbers.json and the figures, as SVG and PNG
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

/// Writes the page and its figures, and tells their names.
pub fn run(args: &FiguresArgs, json: bool) -> Result<()> {
    let page = match &args.suite {
        Some(suite) => suite_page(args, &Suite::load(suite)?)?,
        None => paper_page()?,
    };
    page.write(&args.output, json)
}

/// A page with figures in it.
struct Page {
    text: String,
    figures: Vec<(String, Figure)>,
    names: FileNames,
    numbers: Value,
}

impl Page {
    fn new(title: &str) -> Self {
        Self { text: format!("# {title}\n"), figures: Vec::new(), names: FileNames::default(), numbers: Value::Null }
    }

    fn section(&mut self, title: &str, text: &str) {
        self.text += &format!("\n## {title}\n\n{}\n", text.trim_end());
    }

    /// Adds a figure under a file name without ending, which gets a number where another figure has it.
    fn figure(&mut self, name: &str, figure: Figure) {
        let name = self.names.unique(name);
        self.text += &format!("\n![{}]({name}.svg)\n", figure.description);
        self.figures.push((name, figure));
    }

    fn write(self, output: &Path, json: bool) -> Result<()> {
        create_output(output)?;
        for (name, figure) in &self.figures {
            write_whole(&output.join(format!("{name}.svg")), figure.svg()?)?;
            write_whole(&output.join(format!("{name}.png")), figure.png()?)?;
        }
        let numbers = serde_json::to_string_pretty(&self.numbers)
            .map_err(|cause| Error::internal("cannot write the numbers as JSON").caused_by(cause))?;
        write_whole(&output.join("numbers.json"), numbers + "\n")?;
        write_whole(&output.join("README.md"), &self.text)?;
        if json {
            return super::print_json(&self.numbers);
        }
        let names = self.figures.iter().map(|(name, _)| output.join(format!("{name}.svg")).display().to_string());
        let lines = std::iter::once(output.join("README.md").display().to_string()).chain(names);
        super::print(&lines.map(|line| line + "\n").collect::<String>())
    }
}

fn suite_page(args: &FiguresArgs, suite: &Suite) -> Result<Page> {
    let mut datasets = known::suite(suite, args.root.as_deref(), None)?;
    let mut page = Page::new(&format!("Shift: {}", suite.name));
    if let Some(limit) = shorten(&mut datasets, args.limit) {
        page.text += &format!("\nFirst {limit} questions of each dataset only.\n");
    }
    let (mut runs, mut stores) = (Vec::new(), Vec::new());
    for path in &args.store {
        let store = Store::open_to_read(path)?;
        runs.extend(stored_runs(&store, &datasets)?);
        stores.push(store);
    }
    let mut seen = BTreeSet::new();
    if let Some(run) = runs.iter().find(|run| !seen.insert(&run.model.name)) {
        return Err(Error::input(format!("two stores hold results of a model named `{}`", run.model.name))
            .hint("give one of them"));
    }
    let labelled: Vec<LabelledRun> = runs.iter().map(|run| LabelledRun { label: &run.model.name, run }).collect();
    fill(&mut page, suite, &labelled, &stored_strengths(&stores)?);
    let left_out: Vec<LeftOut> = runs.iter().flat_map(LeftOut::of).collect();
    page.text += &report::left_out(&left_out);
    if !left_out.is_empty() {
        page.numbers["left_out"] = json!(left_out);
    }
    if page.figures.is_empty() {
        runs.into_iter().try_for_each(|run| run.complete().map(drop))?;
        return Err(Error::input("these stores hold no distances, no projection strengths and no sweep")
            .hint("`digrap-bench vqa --suite ... --shift` measures distances"));
    }
    Ok(page)
}

/// A stored run under the name that figures have for it.
#[derive(Clone, Copy)]
pub(super) struct LabelledRun<'a> {
    /// The name.
    pub label: &'a str,
    /// What is stored.
    pub run: &'a StoredRun,
}

/// The figures of these runs and strengths, under names of files; none where there is nothing to draw.
pub(super) fn suite_figures(
    suite: &Suite,
    runs: &[LabelledRun],
    strengths: &[StoredStrengths],
) -> Vec<(String, Figure)> {
    let mut page = Page::new("");
    fill(&mut page, suite, runs, strengths);
    page.figures
}

fn fill(page: &mut Page, suite: &Suite, runs: &[LabelledRun], strengths: &[StoredStrengths]) {
    let measured: Vec<Measured> = runs.iter().filter_map(Measured::of).collect();
    let sweeps = stored_sweeps(suite, &runs.iter().map(|labelled| labelled.run).collect::<Vec<_>>());
    add_shifts(page, suite, &measured);
    add_relations(page, suite, &measured);
    add_histograms(page, suite, &measured);
    add_strengths(page, strengths);
    add_sweeps(page, &sweeps);
    page.numbers = numbers(suite, &measured, strengths, &sweeps);
}

/// The numbers behind a page, by names.
fn numbers(suite: &Suite, measured: &[Measured], strengths: &[StoredStrengths], sweeps: &[Sweeps]) -> Value {
    let accuracies = measured.iter().flat_map(|one| one.accuracies.iter());
    let mut adjusted = adjusted_p_values(&accuracies.collect::<Vec<_>>()).into_iter();
    let models: Vec<Value> = measured.iter().map(|one| numbers_of(suite, one, &mut adjusted)).collect();
    let strengths: Vec<Value> = strengths.iter().map(strength_numbers).collect();
    let sweeps: Vec<Value> = sweeps
        .iter()
        .map(|sweep| {
            json!({"parameter": sweep.parameter, "values": sweep.values,
        "accuracies": sweep.series.iter().cloned().collect::<BTreeMap<_, _>>()})
        })
        .collect();
    json!({"suite": suite.name, "models": models, "projection_strengths": strengths, "sweeps": sweeps})
}

fn numbers_of(suite: &Suite, one: &Measured, adjusted: &mut impl Iterator<Item = Option<f64>>) -> Value {
    let name = |position: usize| suite.datasets.get(position).map_or("", |dataset| dataset.row.name);
    let by_modality =
        |values: Vec<Value>| MODALITIES.iter().map(|row| row.name).zip(values).collect::<BTreeMap<_, _>>();
    let mut accuracies = BTreeMap::new();
    for relation in &one.accuracies {
        let points = relation.points.iter().map(|(at, shift, accuracy)| (name(*at), json!([shift, accuracy])));
        let coefficients = COEFFICIENTS.iter().map(|row| row.name).zip(&relation.coefficients);
        accuracies.insert(
            relation.modality,
            json!({
                "shift_and_accuracy": points.collect::<BTreeMap<_, _>>(),
                "coefficients": coefficients.collect::<BTreeMap<_, _>>(),
                "pearson_p_value_holm": adjusted.next().flatten(),
                "line": relation.line,
            }),
        );
    }
    let of_dataset = |relations: &DistanceRelations| {
        let shifts = by_modality(relations.shifts.iter().map(|shift| json!(shift)).collect());
        let areas = by_modality(relations.wrong_answers.iter().map(|area| json!(area)).collect());
        let value = json!({
            "shifts": shifts,
            "wrong_answers_auroc": areas,
            "pearson_vision_joint": relations.vision_joint,
            "pearson_question_joint": relations.question_joint,
        });
        (name(relations.position), value)
    };
    let datasets: BTreeMap<&str, Value> = one.relations.iter().map(of_dataset).collect();
    json!({"model": one.name(), "measured_with": one.run.settings, "modalities": accuracies, "datasets": datasets})
}

fn strength_numbers(run: &StoredStrengths) -> Value {
    let steps: Vec<[f64; 2]> = run.by_step.iter().map(|band| [band.x, band.mean]).collect();
    let layer = |row: &LayerStrength| json!({"tower": row.tower.name(), "layer": row.layer, "epoch": row.epoch, "strength": row.strength});
    json!({"run": run.name, "steps": steps, "layers": run.by_layer.iter().map(layer).collect::<Vec<_>>()})
}

/// A model whose distances are stored, and what was computed of them.
struct Measured<'a> {
    label: &'a str,
    run: &'a StoredRun,
    accuracies: Vec<ShiftAndAccuracy>,
    relations: Vec<DistanceRelations>,
}

impl<'a> Measured<'a> {
    fn of(&LabelledRun { label, run }: &LabelledRun<'a>) -> Option<Self> {
        let relations = distance_relations(run);
        (!relations.is_empty()).then(|| Self { label, run, accuracies: shift_and_accuracy(run), relations })
    }

    fn name(&self) -> &'a str {
        self.label
    }
}

fn label(suite: &Suite, position: usize) -> &str {
    suite.datasets.get(position).map_or("", |SuiteDataset { label, .. }| label)
}

fn label_of_modality(name: &str) -> &'static str {
    MODALITIES.iter().find(|modality| modality.name == name).map_or("", |modality| modality.label)
}

fn add_shifts(page: &mut Page, suite: &Suite, measured: &[Measured]) {
    if measured.is_empty() {
        return;
    }
    let mut rows = Vec::new();
    for one in measured {
        for relations in &one.relations {
            rows.push(DatasetShifts {
                model: one.name(),
                zero_shot: one.run.model.zero_shot,
                dataset: label(suite, relations.position),
                n: relations.shifts.iter().flatten().map(|shift| shift.n).max().unwrap_or(0),
                shifts: relations.shifts.iter().map(|shift| shift.map(|shift| (shift.mean, shift.interval))).collect(),
            });
        }
    }
    let heads: Vec<&str> = MODALITIES.iter().map(|modality| modality.label).collect();
    let settings = measured.iter().filter_map(|one| Some((one.name(), one.run.settings.as_ref()?)));
    let told: String = settings.map(|(name, settings)| format!("- {name}: {}\n", measured_with(settings))).collect();
    let text = format!("{}\n{}\n\n{told}", report::dataset_shifts(&heads, &rows), ABOUT);
    page.section("How far each dataset has shifted", &text);
}

fn add_relations(page: &mut Page, suite: &Suite, measured: &[Measured]) {
    let accuracies: Vec<(&str, &ShiftAndAccuracy)> =
        measured.iter().flat_map(|one| one.accuracies.iter().map(|accuracy| (one.name(), accuracy))).collect();
    if !accuracies.is_empty() {
        page.section("Accuracy against shift, over datasets", &accuracy_table(&accuracies));
        for one in measured.iter().filter(|one| !one.accuracies.is_empty()) {
            let plots: Vec<ShiftPlot> = one.accuracies.iter().map(|accuracy| shift_plot(suite, accuracy)).collect();
            page.figure(&file_name("shift-accuracy", one.name()), report::shift_against_accuracy(one.name(), &plots));
        }
    }
    let rows: Vec<DistanceRelationRow> = measured
        .iter()
        .flat_map(|one| one.relations.iter().map(|relations| relation_row(suite, one.name(), relations)))
        .filter(|row| row.tells())
        .collect();
    if rows.is_empty() {
        return;
    }
    let modalities: Vec<&str> = MODALITIES.iter().map(|modality| modality.name).collect();
    let text = format!("{}\n{RELATIONS}", report::distance_relations(&modalities, &rows));
    page.section("Distances of single questions", &text);
    let maps = maps(suite, measured);
    if maps.vision_joint.iter().any(Option::is_some) {
        page.figure("correlations", report::correlation_maps(&maps));
    }
}

const RELATIONS: &str = "\
r: Pearson's coefficient of the distances of a dataset's questions. AUROC: how well a distance tells wrong answers (less \
than half the score) from others; 0.5 says nothing. 95 % intervals clustered by image (in the known sets of edits by the question that was edited).";

const ACCURACIES: &str = "\
Coefficients of mean distance and accuracy over the datasets: negative where accuracy falls as the shift grows (the paper \
takes the negative distance, which turns the sign). Intervals \
and p-values take the datasets as independent, which sets on the same images are not; the last column is adjusted for all \
rows.";

fn accuracy_table(accuracies: &[(&str, &ShiftAndAccuracy)]) -> String {
    let adjusted = adjusted_p_values(&accuracies.iter().map(|(_, one)| *one).collect::<Vec<_>>());
    let rows = accuracies.iter().zip(adjusted).map(|((model, one), adjusted)| ShiftAccuracyRow {
        model,
        label: label_of_modality(one.modality),
        coefficients: &one.coefficients,
        adjusted,
    });
    format!("{}\n{ACCURACIES}", report::shift_accuracy(&rows.collect::<Vec<_>>()))
}

fn shift_plot<'a>(suite: &'a Suite, accuracy: &ShiftAndAccuracy) -> ShiftPlot<'a> {
    ShiftPlot {
        label: label_of_modality(accuracy.modality),
        points: accuracy.points.iter().map(|(position, x, y)| (label(suite, *position), *x, *y)).collect(),
        line: accuracy.line,
        correlation: accuracy.pearson(),
    }
}

fn relation_row<'a>(suite: &'a Suite, model: &'a str, relations: &'a DistanceRelations) -> DistanceRelationRow<'a> {
    DistanceRelationRow {
        model,
        dataset: label(suite, relations.position),
        vision_joint: relations.vision_joint,
        question_joint: relations.question_joint,
        wrong_answers: &relations.wrong_answers,
    }
}

/// The correlations of each model in the columns of the suite.
fn maps<'a>(suite: &'a Suite, measured: &[Measured<'a>]) -> CorrelationMaps<'a> {
    let of = |one: &Measured, position: usize| one.relations.iter().find(|row| row.position == position).cloned();
    let all = |value: fn(&DistanceRelations) -> Option<f64>| {
        let row = |one: &Measured| (0..suite.datasets.len()).map(|at| value(&of(one, at)?)).collect::<Vec<_>>();
        measured.iter().flat_map(row).collect::<Vec<_>>()
    };
    CorrelationMaps {
        models: measured.iter().map(Measured::name).collect(),
        datasets: suite.datasets.iter().map(|dataset| dataset.label.as_str()).collect(),
        question_joint: all(|row| row.question_joint.map(|one| one.coefficient)),
        vision_joint: all(|row| row.vision_joint.map(|one| one.coefficient)),
    }
}

fn add_histograms(page: &mut Page, suite: &Suite, measured: &[Measured]) {
    if !measured.is_empty() {
        page.section("How distances are spread", SPREAD);
    }
    for one in measured {
        for modality in &MODALITIES {
            let DistanceSpread { training, datasets } = distance_spread(one.run, modality);
            let datasets: Vec<_> =
                datasets.into_iter().map(|(position, histogram)| (label(suite, position), histogram)).collect();
            if !datasets.is_empty() {
                let name = file_name(&format!("distances-{}", modality.name), one.name());
                let label = modality.label;
                let histograms = DistanceHistograms { model: one.name(), label, training, datasets };
                page.figure(&name, report::distance_histograms(&histograms));
            }
        }
    }
}

const SPREAD: &str = "\
Questions of each test set and, where distances were not measured from a fit in a file, up to 10,000 of the training \
questions. The mean and the covariance are those of the training questions, so that these lie closer than new ones of the \
same kind would, the more so the fewer there are.";

fn add_strengths(page: &mut Page, strengths: &[StoredStrengths]) {
    if strengths.is_empty() {
        return;
    }
    page.section("Projection strength", "Runs that recorded it, by method and the settings in which they differ.");
    let runs: Vec<_> = strengths.iter().map(|run| (run.name.as_str(), run.by_step.as_slice())).collect();
    page.figure("strength-steps", report::strength_over_steps(&runs));
    for (number, run) in strengths.iter().enumerate() {
        let towers: Vec<TowerStrengths> = [Tower::Vision, Tower::Language]
            .into_iter()
            .map(|tower| TowerStrengths { tower: tower.name(), epochs: run.epochs_of(tower) })
            .filter(|tower| !tower.epochs.is_empty())
            .collect();
        if !towers.is_empty() {
            page.figure(&format!("strength-layers-{}", number + 1), report::strength_per_layer(&run.name, &towers));
        }
    }
}

fn add_sweeps(page: &mut Page, sweeps: &[Sweeps]) {
    if sweeps.is_empty() {
        return;
    }
    page.section("Sensitivity to hyper-parameters", "Accuracy in distribution and its mean out of distribution.");
    let plots: Vec<SensitivityPlot> = sweeps
        .iter()
        .map(|sweep| SensitivityPlot {
            title: &sweep.title,
            parameter: &sweep.parameter,
            values: &sweep.values,
            series: &sweep.series,
        })
        .collect();
    page.figure("sensitivity", report::sensitivity(&plots));
}

fn paper_page() -> Result<Page> {
    let paper = paper_correlations()?;
    let rows: Vec<report::CorrelationRow> = paper
        .correlations
        .iter()
        .map(|one| report::CorrelationRow {
            shift: &one.shift,
            set: one.set.label,
            method: &one.method,
            coefficients: &one.coefficients,
        })
        .collect();
    let reported: Vec<report::ReportedRow> = paper
        .reported
        .iter()
        .map(|one| report::ReportedRow { shift: one.shift, coefficient: one.coefficient })
        .collect();
    let mut page = Page::new("");
    page.text = report::paper_correlations(&rows, &reported);
    add_sweeps(&mut page, &paper_sweeps()?);
    page.numbers = serde_json::to_value(&paper)
        .map_err(|cause| Error::internal("cannot write the numbers as JSON").caused_by(cause))?;
    Ok(page)
}

/// A file name that holds the name of a model.
fn file_name(start: &str, model: &str) -> String {
    // Other letters than those of ASCII are written in several ways, which some file systems take for one.
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '-' };
    format!("{start}-{}", model.chars().map(plain).collect::<String>())
}
