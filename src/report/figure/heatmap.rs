//! Cells, their names and the bar of their colours as shapes.

use super::clip;
use super::colour::{self, AXIS, GROUND, MISSING, MUTED, Rgb, TEXT};
use super::layout::{LABEL, LINE, Sheet, TICK, TURNED, WIDEST, overhang};
use super::scale::{self, number};
use super::scene::{Anchor, Item, Rect};
use super::text::{BASELINE, CAPITAL};
use super::{Heatmap, Shade};

const CELL_HEIGHT: f64 = 28.0;
const GAP: f64 = 7.0;
const BAR: f64 = 12.0;
const BAR_GAP: f64 = 14.0;
/// Number of colours in the bar.
const BAR_STEPS: usize = 64;
/// Sizes of the letters in cells; the largest that fits in all of them is taken.
const SIZES: [f64; 5] = [TICK, 11.0, 10.5, 10.0, 9.5];
/// Distance of the lines across cells without a value.
const HATCH: f64 = 6.0;

/// What stands beside a heatmap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sides {
    pub rows: bool,
    pub bar: bool,
}

impl Heatmap {
    pub(super) fn height(&self) -> f64 {
        CELL_HEIGHT * if self.rows.is_empty() { 3.0 } else { self.rows.len() as f64 }
    }

    /// Width of the names of the rows, if they are there, and of what of the columns' names is below them.
    pub(super) fn left(&self, sheet: &Sheet, rows: bool) -> f64 {
        let columns = overhang(&widths(sheet, &self.columns));
        let rows = if rows { GAP + widths(sheet, &self.rows).into_iter().fold(0.0, f64::max) } else { 0.0 };
        rows.max(columns)
    }

    /// Height of the names of the columns.
    pub(super) fn below(&self, sheet: &Sheet, width: f64) -> f64 {
        let widest = self.widest_column(sheet);
        GAP + if self.slanted(sheet, width) { widest * TURNED + LINE / 2.0 } else { LINE - 3.0 }
    }

    /// Width of the bar with its ticks and label.
    pub(super) fn bar_width(&self, sheet: &Sheet) -> f64 {
        let Some(range) = self.bounds() else { return 0.0 };
        let ticks = self.bar_ticks(range);
        let ticks = ticks.iter().map(|tick| sheet.font.width(&tick.label, TICK)).fold(0.0, f64::max);
        BAR_GAP + BAR + 5.0 + ticks + LINE * self.bar_label(sheet).len() as f64 + 2.0
    }

    /// What stands beside a heatmap that has others to its left and right. Names and bars that both have stand once.
    pub(super) fn sides(&self, before: Option<&Self>, after: Option<&Self>) -> Sides {
        let rows = before.is_none_or(|before| before.rows != self.rows);
        Sides { rows, bar: after.is_none_or(|after| !self.same_colours(after)) }
    }

    /// Whether one bar serves both.
    fn same_colours(&self, other: &Self) -> bool {
        let colours = |map: &Self| (map.shade, map.bounds(), map.label.clone(), map.rows.len());
        colours(self) == colours(other)
    }

    pub(super) fn draw(&self, sheet: &Sheet, plot: &Rect, sides: Sides) -> Vec<Item> {
        if self.values.is_empty() {
            return vec![super::chart::no_data(plot)];
        }
        let size = self.letter_size(sheet, plot);
        let mut items: Vec<Item> = (0..self.values.len()).flat_map(|index| self.cell(plot, index, size)).collect();
        if sides.rows {
            items.extend(self.row_names(sheet, plot));
        }
        items.extend(self.column_names(sheet, plot));
        if let Some(range) = self.bounds().filter(|_| sides.bar) {
            items.extend(self.bar(sheet, plot, range));
        }
        items
    }

    /// The values of the first and the last colour; none where there is no value.
    fn bounds(&self) -> Option<[f64; 2]> {
        let [low, high] = self.range.or_else(|| scale::ends(self.values.iter().flatten().copied()))?;
        Some(match (self.range, self.shade) {
            (Some(range), _) => range,
            (None, Shade::Diverging) => match low.abs().max(high.abs()) {
                0.0 => [-1.0, 1.0],
                far => [-far, far],
            },
            (None, Shade::Sequential) if low == high => [low - 0.5, high + 0.5],
            (None, Shade::Sequential) => [low, high],
        })
    }

    /// The colour of a value. The middle of diverging colours is 0, whatever the ends.
    fn colour(&self, value: f64, [low, high]: [f64; 2]) -> Rgb {
        match self.shade {
            Shade::Sequential => colour::sequential((value - low) / (high - low)),
            Shade::Diverging => colour::diverging(0.5 + value / low.abs().max(high.abs()) / 2.0),
        }
    }

    fn place(&self, plot: &Rect, index: usize) -> Rect {
        let (row, column) = (index / self.columns.len(), index % self.columns.len());
        let width = plot.width() / self.columns.len() as f64;
        let (left, top) = (plot.left + width * column as f64, plot.top + CELL_HEIGHT * row as f64);
        Rect { left, top, right: left + width, bottom: top + CELL_HEIGHT }
    }

    /// The size of the values in the cells; none where they do not fit.
    fn letter_size(&self, sheet: &Sheet, plot: &Rect) -> Option<f64> {
        let room = plot.width() / self.columns.len() as f64 - 4.0;
        let written = self.values.iter().flatten().map(|&value| number(value, self.decimals));
        let widest = written.map(|text| sheet.font.width(&text, 1.0)).fold(0.0, f64::max);
        SIZES.into_iter().find(|size| widest * size <= room)
    }

    fn cell(&self, plot: &Rect, index: usize, size: Option<f64>) -> Vec<Item> {
        let place = self.place(plot, index);
        let names = [&self.rows[index / self.columns.len()], &self.columns[index % self.columns.len()]];
        let told = |value: &str| format!("{}, {}\n{}: {value}", names[0], names[1], self.label);
        let area = Item::area(place.corners()).stroked(GROUND, 1.0, &[]);
        let ([x, y], value) = (place.middle(), self.values[index].filter(|value| !value.is_nan()));
        let text = |text: &str, size| Item::text(text, [x, y + size * BASELINE], Anchor::Middle, size);
        match (value, self.bounds()) {
            (Some(value), Some(range)) => {
                let (cell, written) = (self.colour(value, range), number(value, self.decimals));
                let letters = size.map(|size| text(&written, size).filled(colour::letters_on(cell).into()));
                let area = area.filled(cell.into()).told(told(&written));
                [area].into_iter().chain(letters).collect()
            }
            _ => {
                let area = area.filled(MISSING).told(told("no value"));
                let dash = text("–", TICK).filled(MUTED).stroked(MISSING, 5.0, &[]);
                [area].into_iter().chain(hatch(&place)).chain([dash]).collect()
            }
        }
    }

    fn row_names<'a>(&'a self, sheet: &'a Sheet, plot: &'a Rect) -> impl Iterator<Item = Item> + 'a {
        self.rows.iter().enumerate().map(|(index, row)| {
            let y = plot.top + CELL_HEIGHT * (index as f64 + 0.5) + TICK * BASELINE;
            let name = sheet.font.shorten(row, TICK, WIDEST);
            Item::text(name, [plot.left - GAP, y], Anchor::End, TICK).filled(TEXT)
        })
    }

    fn column_names<'a>(&'a self, sheet: &'a Sheet, plot: &'a Rect) -> impl Iterator<Item = Item> + 'a {
        let slanted = self.slanted(sheet, plot.width());
        let bottom = plot.top + self.height() + GAP;
        self.columns.iter().enumerate().map(move |(index, column)| {
            let x = self.place(plot, index).middle()[0];
            let name = sheet.font.shorten(column, TICK, WIDEST);
            let item = match slanted {
                true => Item::text(name, [x + 4.0, bottom + 6.0], Anchor::End, TICK).turned(-45.0),
                false => Item::text(name, [x, bottom + TICK * CAPITAL], Anchor::Middle, TICK),
            };
            item.filled(TEXT)
        })
    }

    fn widest_column(&self, sheet: &Sheet) -> f64 {
        widths(sheet, &self.columns).into_iter().fold(0.0, f64::max)
    }

    fn slanted(&self, sheet: &Sheet, width: f64) -> bool {
        self.widest_column(sheet) > width / self.columns.len().max(1) as f64 - 6.0
    }

    fn bar_ticks(&self, range: [f64; 2]) -> Vec<scale::Tick> {
        scale::linear(range, ((self.height() / 26.0) as usize).clamp(2, 7), false)
    }

    fn bar_label(&self, sheet: &Sheet) -> Vec<String> {
        sheet.font.wrap(&self.label, LABEL, self.height().max(60.0))
    }

    fn bar(&self, sheet: &Sheet, plot: &Rect, range: [f64; 2]) -> Vec<Item> {
        let (left, bottom) = (plot.right + BAR_GAP, plot.top + self.height());
        let frame = Rect { left, top: plot.top, right: left + BAR, bottom };
        let [low, high] = range;
        let height = |value: f64| bottom - (value - low) / (high - low) * frame.height();
        // Each step reaches to the foot, so that no ground shows between two of them.
        let steps = (0..BAR_STEPS).rev().map(|step| {
            let share = |step: f64| low + (high - low) * step / BAR_STEPS as f64;
            let area = Rect { top: height(share(step as f64 + 1.0)), ..frame };
            Item::area(area.corners()).filled(self.colour(share(step as f64 + 0.5), range).into())
        });
        let ticks = self.bar_ticks(range).into_iter().flat_map(|tick| {
            let y = height(tick.value);
            let at = [frame.right + 5.0, y + TICK * BASELINE];
            let mark = Item::line(vec![[frame.right, y], [frame.right + 3.0, y]]).stroked(AXIS, 1.0, &[]);
            [mark, Item::text(tick.label, at, Anchor::Start, TICK).filled(MUTED)]
        });
        let right = left + self.bar_width(sheet) - BAR_GAP;
        let lines = self.bar_label(sheet);
        let label = lines.iter().rev().enumerate().map(|(index, line)| {
            let at = [right - 5.0 - LINE * index as f64, frame.middle()[1]];
            Item::text(line.as_str(), at, Anchor::Middle, LABEL).turned(-90.0).filled(TEXT)
        });
        steps.chain(ticks).chain(label).collect()
    }
}

/// Widths of names, as they are cut.
fn widths(sheet: &Sheet, names: &[String]) -> Vec<f64> {
    names.iter().map(|name| sheet.font.width(name, TICK).min(WIDEST)).collect()
}

fn hatch(place: &Rect) -> impl Iterator<Item = Item> {
    let (place, height) = (*place, place.height());
    let count = ((place.width() + height) / HATCH) as i32;
    (1..=count).filter_map(move |number| {
        let x = place.left + HATCH * f64::from(number);
        let part = clip::segment([[x, place.top], [x - height, place.bottom]], &place.grown(-0.5))?;
        Some(Item::line(part.to_vec()).stroked(AXIS, 0.6, &[]))
    })
}
