//! The figures about shift, about what training did, and about a hyper-parameter.

use super::figure::{Axis, Chart, Estimate, Figure, Heatmap, Mark, Panel, Series, Shade, Spot};
use super::markdown::{interval, two_decimals};
use crate::stats::{Band, Correlation, Histogram, Line};

/// What accuracies are measured in.
const ACCURACY: &str = "accuracy (%)";

/// What distances are measured in.
const DISTANCE: &str = "distance from the training set (no unit)";

/// How accuracy goes with the shift of one modality.
#[derive(Debug, Clone)]
pub struct ShiftPlot<'a> {
    /// The modality, such as `vision shift`.
    pub label: &'a str,
    /// Datasets: name, mean distance, accuracy in percent.
    pub points: Vec<(&'a str, f64, f64)>,
    /// Accuracy by distance.
    pub line: Option<Line>,
    /// Pearson's coefficient.
    pub correlation: Option<Correlation>,
}

/// Accuracy against shift, a panel for each modality.
pub fn shift_against_accuracy(model: &str, plots: &[ShiftPlot]) -> Figure {
    let panel = |plot: &ShiftPlot| {
        let spot = |(name, x, y): &(&str, f64, f64)| Spot { x: *x, y: *y, label: (*name).to_owned() };
        let spots = Mark::Points { name: "dataset".to_owned(), points: plot.points.iter().map(spot).collect() };
        let ends = plot.line.zip(ends(plot.points.iter().map(|(_, x, _)| *x)));
        let line = ends.map(|(line, [from, to])| Mark::Reference {
            name: "least squares".to_owned(),
            from: [from, line.at(from)],
            to: [to, line.at(to)],
        });
        let note = plot.correlation.as_ref().map(|correlation| Mark::Note(coefficient("r", correlation)));
        let marks = line.into_iter().chain([spots]).chain(note).collect();
        let (x, y) = (Axis::linear(&format!("mean {DISTANCE}")), Axis::linear(ACCURACY));
        Panel::Chart(Chart { title: plot.label.to_owned(), x, y, marks })
    };
    Figure {
        title: format!("Accuracy against shift: {model}"),
        description: format!("For each dataset its mean distance from the training set and the accuracy of {model}."),
        series: Series::Categories,
        columns: 2,
        panels: plots.iter().map(panel).collect(),
    }
}

fn ends(values: impl Iterator<Item = f64> + Clone) -> Option<[f64; 2]> {
    Some([values.clone().reduce(f64::min)?, values.reduce(f64::max)?])
}

/// A coefficient with its interval.
fn coefficient(symbol: &str, correlation: &Correlation) -> String {
    let Correlation { coefficient, interval: bounds, .. } = correlation;
    let bounds = bounds.map_or_else(String::new, |_| format!(" (95 % {})", interval(*bounds)));
    format!("{symbol} = {}{bounds}", two_decimals(*coefficient))
}

/// The correlations of distances over the questions of a dataset, by model and dataset.
#[derive(Debug, Clone)]
pub struct CorrelationMaps<'a> {
    /// Names of the models.
    pub models: Vec<&'a str>,
    /// Names of the datasets.
    pub datasets: Vec<&'a str>,
    /// Of question and joint, row by row.
    pub question_joint: Vec<Option<f64>>,
    /// Of image and joint, row by row.
    pub vision_joint: Vec<Option<f64>>,
}

/// Two heatmaps of correlations between distances (Fig. 6 of the paper).
pub fn correlation_maps(maps: &CorrelationMaps) -> Figure {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let panel = |(title, values): (&str, &[Option<f64>])| {
        Panel::Heatmap(Heatmap {
            title: title.to_owned(),
            rows: owned(&maps.models),
            columns: owned(&maps.datasets),
            values: values.to_vec(),
            shade: Shade::Diverging,
            range: Some([-1.0, 1.0]),
            decimals: 2,
            label: "Pearson's r".to_owned(),
        })
    };
    let panels =
        [("question and joint distance", &*maps.question_joint), ("image and joint distance", &maps.vision_joint)];
    Figure {
        title: "Correlation of distances over questions".to_owned(),
        description:
            "By model and dataset: how the distance of the question, and that of the image, goes with that of both."
                .to_owned(),
        series: Series::Categories,
        columns: 1,
        panels: panels.into_iter().map(panel).collect(),
    }
}

/// How distances of one modality are spread.
#[derive(Debug, Clone)]
pub struct DistanceHistograms<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// The modality, such as `vision shift`.
    pub label: &'a str,
    /// Those of the training set.
    pub training: Option<Histogram>,
    /// Those of each dataset.
    pub datasets: Vec<(&'a str, Histogram)>,
}

/// Histograms of distances, training set and test set over each other, a panel for each dataset.
pub fn distance_histograms(histograms: &DistanceHistograms) -> Figure {
    let mark = |name: &str, histogram: &Histogram| Mark::Histogram {
        name: name.to_owned(),
        edges: histogram.edges.clone(),
        densities: histogram.densities.clone(),
    };
    let panel = |(dataset, histogram): &(&str, Histogram)| {
        let training = histograms.training.as_ref().map(|training| mark("training set", training));
        let marks = training.into_iter().chain([mark("test set", histogram)]).collect();
        Panel::Chart(Chart {
            title: (*dataset).to_owned(),
            x: Axis::linear(DISTANCE),
            y: Axis::linear("density"),
            marks,
        })
    };
    let DistanceHistograms { model, label, .. } = histograms;
    Figure {
        title: format!("Distances from the training set: {label}, {model}"),
        description: format!(
            "How the distances of questions are spread, by dataset, beside the training set: {label}."
        ),
        series: Series::Categories,
        columns: 2,
        panels: histograms.datasets.iter().map(panel).collect(),
    }
}

/// The projection strength of each run over optimiser steps (Fig. 4 of the paper).
pub fn strength_over_steps(runs: &[(&str, &[Band])]) -> Figure {
    let point = |band: &Band| Estimate { x: band.x, y: band.mean, bounds: Some(band.range) };
    let mark = |(name, bands): &(&str, &[Band])| Mark::Line {
        name: (*name).to_owned(),
        points: bands.iter().map(point).collect(),
    };
    let chart = Chart {
        title: String::new(),
        x: Axis::linear("optimiser step"),
        y: Axis::linear("projection strength, mean over tensors"),
        marks: runs.iter().map(mark).collect(),
    };
    Figure {
        title: "Projection strength over steps".to_owned(),
        description: "The mean over all tensors; the band is the least and the greatest of neighbouring steps."
            .to_owned(),
        series: Series::Categories,
        columns: 1,
        panels: vec![Panel::Chart(chart)],
    }
}

/// The projection strength of the layers of one tower, epoch by epoch.
#[derive(Debug, Clone)]
pub struct TowerStrengths<'a> {
    /// What the tower is.
    pub tower: &'a str,
    /// For each epoch its number and the strength of each layer.
    pub epochs: Vec<(usize, Vec<(usize, f64)>)>,
}

/// The projection strength per layer over epochs, a panel for each tower (Fig. 5 of the paper).
pub fn strength_per_layer(run: &str, towers: &[TowerStrengths]) -> Figure {
    let mark = |(epoch, layers): &(usize, Vec<(usize, f64)>)| Mark::Line {
        name: epoch.to_string(),
        points: layers.iter().map(|(layer, y)| Estimate { x: *layer as f64, y: *y, bounds: None }).collect(),
    };
    let panel = |tower: &TowerStrengths| {
        Panel::Chart(Chart {
            title: tower.tower.to_owned(),
            x: Axis::linear("layer"),
            y: Axis::linear("projection strength, mean over tensors"),
            marks: tower.epochs.iter().map(mark).collect(),
        })
    };
    Figure {
        title: format!("Projection strength per layer: {run}"),
        description: "The mean over the tensors of each layer, a line for each epoch.".to_owned(),
        series: Series::Ordered("epoch".to_owned()),
        columns: 2,
        panels: towers.iter().map(panel).collect(),
    }
}

/// How accuracy goes with a hyper-parameter.
#[derive(Debug, Clone)]
pub struct SensitivityPlot<'a> {
    /// Above the panel.
    pub title: &'a str,
    /// The hyper-parameter.
    pub parameter: &'a str,
    /// Its values.
    pub values: &'a [f64],
    /// Lines of accuracies in percent, each with its name; none where one is not known.
    pub series: &'a [(String, Vec<Option<f64>>)],
}

/// Accuracy against a hyper-parameter, a panel for each sweep; on a logarithmic axis where all values are above 0.
pub fn sensitivity(plots: &[SensitivityPlot]) -> Figure {
    let panel = |plot: &SensitivityPlot| {
        let logarithmic = plot.values.iter().all(|value| *value > 0.0);
        let mark = |(name, accuracies): &(String, Vec<Option<f64>>)| {
            let points = plot.values.iter().zip(accuracies);
            let points = points.map(|(x, y)| Estimate { x: *x, y: y.unwrap_or(f64::NAN), bounds: None });
            Mark::Line { name: name.clone(), points: points.collect() }
        };
        Panel::Chart(Chart {
            title: plot.title.to_owned(),
            x: if logarithmic { Axis::logarithmic(plot.parameter) } else { Axis::linear(plot.parameter) },
            y: Axis::linear(ACCURACY),
            marks: plot.series.iter().map(mark).collect(),
        })
    };
    Figure {
        title: "Sensitivity to a hyper-parameter".to_owned(),
        description: "Accuracy by the value of a hyper-parameter.".to_owned(),
        series: Series::Categories,
        columns: 2,
        panels: plots.iter().map(panel).collect(),
    }
}
