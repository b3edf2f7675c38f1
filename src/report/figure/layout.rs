//! Places title, legend and panels.

use super::colour::TEXT;
use super::heatmap::Sides;
use super::legend::Legend;
use super::scene::{Anchor, Item, Rect, Scene};
use super::text::{BOLD, Font};
use super::{Axis, Figure, Heatmap, Panel, chart};
use crate::error::{Error, Result};

/// Sizes of letters, and height of a line of them.
pub(super) const TICK: f64 = 11.5;
pub(super) const LABEL: f64 = 12.5;
pub(super) const LINE: f64 = 17.0;
const TITLE: f64 = 16.0;
const PANEL_TITLE: f64 = 13.0;

/// Height of a text that is turned by 45 degrees, relative to its width.
pub(super) const TURNED: f64 = std::f64::consts::FRAC_1_SQRT_2;

const MARGIN: f64 = 18.0;
/// Between panels.
const GAP: f64 = 20.0;
/// To the right of a chart, where half of the last tick label stands.
const RIGHT: f64 = 12.0;
/// Between an upright label and what stands to its right.
const UPRIGHT_GAP: f64 = 8.0;
/// Widest name beside an axis or a table; longer ones are cut.
pub(super) const WIDEST: f64 = 170.0;
/// Width of a plot where it is not known yet.
const LIKELY: f64 = 320.0;
/// Least width of the axes of a panel.
const LEAST: f64 = 60.0;

/// What panels need to know of the figure.
pub(super) struct Sheet<'a> {
    pub font: &'a Font,
    pub legend: &'a Legend,
    /// Labels that all panels have, written once beside them.
    shared: [Option<&'a str>; 2],
}

pub(super) fn lay_out(figure: &Figure) -> Result<Scene> {
    let font = &Font::load()?;
    let legend = &Legend::of(figure);
    let sheet = Sheet { font, legend, shared: [0, 1].map(|direction| shared_label(&figure.panels, direction)) };
    let width = if figure.columns.min(figure.panels.len()) > 1 { 960.0 } else { 720.0 };
    let mut page = Page { sheet, width, items: Vec::new(), bottom: MARGIN };
    page.head(&figure.title);
    if figure.panels.is_empty() {
        page.nothing();
    } else {
        page.panels(figure)?;
    }
    Ok(Scene { width, height: (page.bottom + MARGIN).ceil(), items: page.items })
}

fn axis(panel: &Panel, direction: usize) -> Option<&Axis> {
    match panel {
        Panel::Chart(chart) => Some([&chart.x, &chart.y][direction]),
        Panel::Heatmap(_) => None,
    }
}

/// The label that all of several panels have.
fn shared_label(panels: &[Panel], direction: usize) -> Option<&str> {
    let label = |panel| axis(panel, direction).map(|axis| axis.label.as_str());
    let first = label(panels.first()?)?;
    (panels.len() > 1 && !first.is_empty() && panels.iter().all(|panel| label(panel) == Some(first))).then_some(first)
}

struct Page<'a> {
    sheet: Sheet<'a>,
    width: f64,
    items: Vec<Item>,
    /// Where what follows begins.
    bottom: f64,
}

/// The plots of a row of panels.
struct Row {
    /// Left edge of each.
    lefts: Vec<f64>,
    /// Width of each.
    width: f64,
}

impl Page<'_> {
    fn inner(&self) -> f64 {
        self.width - 2.0 * MARGIN
    }

    fn head(&mut self, title: &str) {
        let lines = self.sheet.font.wrap(title, TITLE * BOLD, self.inner());
        for line in lines {
            self.bottom += TITLE + 4.0;
            let at = [MARGIN, self.bottom - 6.0];
            self.items.push(Item::text(line, at, Anchor::Start, TITLE).bold().filled(TEXT));
        }
        self.bottom += 4.0;
        let (legend, height) = self.sheet.legend.draw(self.sheet.font, [MARGIN, self.bottom], self.inner());
        self.items.extend(legend);
        self.bottom += height + 8.0;
    }

    fn nothing(&mut self) {
        let plot = Rect { left: MARGIN, top: self.bottom, right: self.width - MARGIN, bottom: self.bottom + 90.0 };
        self.items.push(chart::no_data(&plot));
        self.bottom = plot.bottom;
    }

    fn panels(&mut self, figure: &Figure) -> Result<()> {
        let columns = figure.columns.min(figure.panels.len());
        let height = match columns {
            1 => 340.0,
            2 => 260.0,
            3 => 180.0,
            _ => 130.0,
        };
        let row = self.row(&figure.panels, columns, height)?;
        let (mut upper, mut lower) = (f64::MAX, 0.0);
        for (number, panels) in figure.panels.chunks(columns).enumerate() {
            self.bottom += if number > 0 { GAP * 0.6 } else { 0.0 };
            let plots = self.place(panels, &row, height);
            upper = plots.iter().map(|plot| plot.top).fold(upper, f64::min);
            lower = plots.iter().map(|plot| plot.bottom).fold(lower, f64::max);
        }
        self.shared_labels(&row, [upper, lower]);
        Ok(())
    }

    /// The plots are equally wide; what stands beside them has the room that the widest of its column needs.
    fn row(&self, panels: &[Panel], columns: usize, height: f64) -> Result<Row> {
        let length = height * panels.len().div_ceil(columns) as f64;
        let shared = self.sheet.shared[1].map_or(0, |label| self.sheet.font.wrap(label, LABEL, length).len());
        let start = MARGIN + upright(shared);
        let widest = |column: usize, side: &dyn Fn(usize) -> f64| {
            (column..panels.len()).step_by(columns).map(side).fold(0.0, f64::max)
        };
        let row_of = |index: usize| panels.chunks(columns).nth(index / columns).unwrap_or_default();
        let left = |index: usize| self.sheet.left(row_of(index), index % columns, height);
        let right = |index: usize| self.sheet.right(row_of(index), index % columns);
        let lefts: Vec<f64> = (0..columns).map(|column| widest(column, &left)).collect();
        let rights: Vec<f64> = (0..columns).map(|column| widest(column, &right)).collect();
        let beside: f64 = lefts.iter().chain(&rights).sum::<f64>() + GAP * (columns - 1) as f64;
        let width = (self.width - MARGIN - start - beside) / columns as f64;
        if width < LEAST {
            return Err(Error::input(format!("{columns} panels side by side have no room"))
                .hint("ask for fewer columns or shorten the names"));
        }
        let mut at = start;
        let lefts = lefts.iter().zip(&rights).map(|(left, right)| {
            let edge = at + left;
            at = edge + width + right + GAP;
            edge
        });
        Ok(Row { lefts: lefts.collect(), width })
    }

    /// Draws panels side by side, and tells where their plots are.
    fn place(&mut self, panels: &[Panel], row: &Row, height: f64) -> Vec<Rect> {
        let sheet = &self.sheet;
        let titles: Vec<Vec<String>> =
            panels.iter().map(|panel| sheet.font.wrap(title(panel), PANEL_TITLE * BOLD, row.width)).collect();
        let lines = titles.iter().map(Vec::len).max().unwrap_or(0);
        let top = self.bottom + lines as f64 * LINE + if lines > 0 { 5.0 } else { 4.0 };
        let (mut plots, mut items, mut bottom) = (Vec::new(), Vec::new(), top);
        for (number, ((panel, title), &left)) in panels.iter().zip(&titles).zip(&row.lefts).enumerate() {
            let high = match panel {
                Panel::Chart(_) => height,
                Panel::Heatmap(heatmap) => heatmap.height(),
            };
            let plot = Rect { left, top, right: left + row.width, bottom: top + high };
            items.extend((1..).zip(title.iter().rev()).map(|(line, text)| {
                let at = [left, top - 8.0 - LINE * f64::from(line - 1)];
                Item::text(text.as_str(), at, Anchor::Start, PANEL_TITLE).bold().filled(TEXT)
            }));
            items.extend(match panel {
                Panel::Chart(chart) => chart.draw(sheet, &plot),
                Panel::Heatmap(heatmap) => heatmap.draw(sheet, &plot, sides(panels, number, heatmap)),
            });
            let (labels, height) = sheet.axis_labels(panel, &plot);
            items.extend(labels);
            bottom = f64::max(bottom, plot.bottom + height);
            plots.push(plot);
        }
        self.items.extend(items);
        self.bottom = bottom;
        plots
    }

    fn shared_labels(&mut self, row: &Row, [upper, lower]: [f64; 2]) {
        let [x, y] = self.sheet.shared;
        if let (Some(label), Some(first), Some(last)) = (x, row.lefts.first(), row.lefts.last()) {
            let middle = (first + last + row.width) / 2.0;
            self.bottom += LINE;
            let at = [middle, self.bottom - 2.0];
            self.items.push(Item::text(label, at, Anchor::Middle, LABEL).filled(TEXT));
        }
        for (number, line) in (1..).zip(self.sheet.font.wrap(y.unwrap_or_default(), LABEL, lower - upper)) {
            let at = [MARGIN + LINE * f64::from(number) - 6.0, (upper + lower) / 2.0];
            self.items.push(Item::text(line, at, Anchor::Middle, LABEL).turned(-90.0).filled(TEXT));
        }
    }
}

impl Sheet<'_> {
    /// The lines of a panel's own label.
    fn own_label(&self, panel: &Panel, direction: usize, length: f64) -> Vec<String> {
        let label = axis(panel, direction).map_or("", |axis| axis.label.as_str());
        if self.shared[direction].is_some() { Vec::new() } else { self.font.wrap(label, LABEL, length) }
    }

    /// Width of what stands to the left of a plot.
    fn left(&self, row: &[Panel], index: usize, height: f64) -> f64 {
        match &row[index] {
            Panel::Chart(chart) => upright(self.own_label(&row[index], 1, height).len()) + chart.left(self, height),
            Panel::Heatmap(heatmap) => heatmap.left(self, sides(row, index, heatmap).rows),
        }
    }

    /// Width of what stands to the right of a plot.
    fn right(&self, row: &[Panel], index: usize) -> f64 {
        match &row[index] {
            Panel::Chart(_) => RIGHT,
            Panel::Heatmap(heatmap) if sides(row, index, heatmap).bar => heatmap.bar_width(self),
            Panel::Heatmap(_) => 0.0,
        }
    }

    /// The labels of a panel's axes, and the height of all that stands below it.
    fn axis_labels(&self, panel: &Panel, plot: &Rect) -> (Vec<Item>, f64) {
        let (below, left) = match panel {
            Panel::Chart(chart) => (chart.below(self, plot.width()), chart.left(self, plot.height())),
            Panel::Heatmap(heatmap) => (heatmap.below(self, plot.width()), 0.0),
        };
        let [x, y] = plot.middle();
        let (across, upwards) = (self.own_label(panel, 0, plot.width()), self.own_label(panel, 1, plot.height()));
        let height = below + LINE * across.len() as f64 + 2.0;
        let across = (1..).zip(across).map(|(number, line)| {
            Item::text(line, [x, plot.bottom + below + LINE * f64::from(number) - 2.0], Anchor::Middle, LABEL)
        });
        let upwards = upwards.into_iter().rev().enumerate().map(|(number, line)| {
            let at = [plot.left - left - UPRIGHT_GAP - LINE * number as f64, y];
            Item::text(line, at, Anchor::Middle, LABEL).turned(-90.0)
        });
        (across.chain(upwards).map(|label| label.filled(TEXT)).collect(), height)
    }
}

/// Width of this many lines of an upright label.
fn upright(lines: usize) -> f64 {
    if lines == 0 { 0.0 } else { LINE * lines as f64 + UPRIGHT_GAP - 4.0 }
}

/// How far names below equal parts of a plot reach beyond its left edge, where they are likely slanted.
pub(super) fn overhang(widths: &[f64]) -> f64 {
    let part = LIKELY / widths.len().max(1) as f64;
    let slanted = widths.iter().any(|width| *width > part);
    let beyond = widths.iter().enumerate().map(|(index, width)| width * TURNED - part * (index as f64 + 0.5));
    if slanted { beyond.fold(0.0, f64::max) } else { 0.0 }
}

fn title(panel: &Panel) -> &str {
    match panel {
        Panel::Chart(chart) => &chart.title,
        Panel::Heatmap(heatmap) => &heatmap.title,
    }
}

fn heatmap(panel: &Panel) -> Option<&Heatmap> {
    match panel {
        Panel::Heatmap(heatmap) => Some(heatmap),
        Panel::Chart(_) => None,
    }
}

/// What stands beside a heatmap in a row of panels.
fn sides(row: &[Panel], index: usize, of: &Heatmap) -> Sides {
    let before = index.checked_sub(1).and_then(|index| heatmap(&row[index]));
    of.sides(before, row.get(index + 1).and_then(heatmap))
}
