//! How each series looks, and the line above the panels that tells.

use std::f64::consts::FRAC_1_SQRT_2;

use super::colour::{self, Colour, GROUND, MUTED, TEXT};
use super::scene::{Anchor, Item, Point, Rect};
use super::text::{BASELINE, Font};
use super::{Chart, Figure, Mark, Panel, Series};

/// Looks of reference lines.
pub(super) const REFERENCE: (Colour, f64, &[f64]) = (MUTED, 1.4, &[5.0, 4.0]);

/// Opacity of the areas below histograms and between bounds.
pub(super) const TINT: f64 = 0.22;

const DASHES: [&[f64]; 5] = [&[], &[7.0, 3.0], &[2.0, 2.5], &[9.0, 3.0, 2.0, 3.0], &[4.0, 2.0]];

/// Looks of one series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    /// Its place among the series.
    pub index: usize,
    pub colour: Colour,
    pub marker: Marker,
    pub width: f64,
    pub dashes: &'static [f64],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    Dot,
    Circle,
    Square,
    Triangle,
    Diamond,
    Turned,
    Plus,
    Cross,
}

const MARKERS: [Marker; 7] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Turned, Marker::Plus, Marker::Cross];

impl Look {
    fn category(index: usize) -> Self {
        Self {
            index,
            colour: colour::category(index),
            marker: MARKERS[index % MARKERS.len()],
            width: 1.8,
            dashes: DASHES[index % DASHES.len()],
        }
    }

    fn ordered(index: usize, count: usize) -> Self {
        let width = 1.2 + 1.2 * index as f64 / (count.max(2) - 1) as f64;
        Self { index, colour: colour::ordered(index, count), marker: Marker::Dot, width, dashes: &[] }
    }

    /// Least distance of two markers.
    pub fn room(&self) -> f64 {
        if self.marker == Marker::Dot { 6.0 } else { 14.0 }
    }

    pub fn marker(&self, at: Point) -> Item {
        let item = match self.marker {
            Marker::Dot => Item::circle(at, 1.1 + self.width / 2.0),
            Marker::Circle => Item::circle(at, 4.0),
            Marker::Square => Item::area(Rect::around(at, [7.2; 2]).corners()),
            Marker::Triangle => polygon(at, &[[0.0, -5.0], [4.8, 3.6], [-4.8, 3.6]]),
            Marker::Diamond => polygon(at, &[[0.0, -5.2], [5.2, 0.0], [0.0, 5.2], [-5.2, 0.0]]),
            Marker::Turned => polygon(at, &[[0.0, 5.0], [4.8, -3.6], [-4.8, -3.6]]),
            Marker::Plus => polygon(at, &PLUS),
            Marker::Cross => polygon(at, &PLUS.map(|[x, y]| [(x - y) * FRAC_1_SQRT_2, (x + y) * FRAC_1_SQRT_2])),
        };
        let item = item.filled(self.colour);
        if self.marker == Marker::Dot { item } else { item.stroked(GROUND, 1.0, &[]) }
    }
}

const PLUS: [Point; 12] = [
    [-1.6, -5.2],
    [1.6, -5.2],
    [1.6, -1.6],
    [5.2, -1.6],
    [5.2, 1.6],
    [1.6, 1.6],
    [1.6, 5.2],
    [-1.6, 5.2],
    [-1.6, 1.6],
    [-5.2, 1.6],
    [-5.2, -1.6],
    [-1.6, -1.6],
];

fn polygon([x, y]: Point, offsets: &[Point]) -> Item {
    Item::area(offsets.iter().map(|[right, down]| [x + right, y + down]).collect())
}

/// The looks of all series of a figure, and its named reference lines.
pub(super) struct Legend {
    keys: Vec<Key>,
    /// The quantity whose values the names are.
    of: Option<String>,
}

struct Key {
    name: String,
    /// None for a reference line.
    look: Option<Look>,
    line: bool,
    points: bool,
    area: bool,
}

/// What a mark adds to the legend.
fn key(mark: &Mark) -> Option<Key> {
    let (name, series, [line, points, area]) = match mark {
        Mark::Line { name, .. } => (name, true, [true, false, false]),
        Mark::Points { name, .. } => (name, true, [false, true, false]),
        Mark::Histogram { name, .. } => (name, true, [false, false, true]),
        Mark::Reference { name, .. } => (name, false, [true, false, false]),
        Mark::Note(_) => return None,
    };
    let look = series.then(|| Look::category(0));
    Some(Key { name: name.clone(), look, line, points, area })
}

const SIZE: f64 = 12.5;
const HEIGHT: f64 = 22.0;
/// Width of the sign of a line, and that of a point.
const SIGN: f64 = 26.0;
const POINT: f64 = 10.0;
/// Between a sign and its name, and between entries.
const SIGN_GAP: f64 = 7.0;
const GAP: f64 = 18.0;

impl Legend {
    pub fn of(figure: &Figure) -> Self {
        let charts = figure.panels.iter().filter_map(|panel| match panel {
            Panel::Chart(chart) => Some(chart),
            Panel::Heatmap(_) => None,
        });
        let mut keys: Vec<Key> = Vec::new();
        for key in charts.flat_map(|Chart { marks, .. }| marks).filter_map(key) {
            match keys.iter_mut().find(|known| known.name == key.name && known.look.is_some() == key.look.is_some()) {
                Some(known) => {
                    known.line |= key.line;
                    known.points |= key.points;
                    known.area |= key.area;
                }
                None => keys.push(key),
            }
        }
        let looks: Vec<&mut Look> = keys.iter_mut().filter_map(|key| key.look.as_mut()).collect();
        let count = looks.len();
        looks.into_iter().enumerate().for_each(|(index, look)| {
            *look = match figure.series {
                Series::Categories => Look::category(index),
                Series::Ordered(_) => Look::ordered(index, count),
            };
        });
        let of = match &figure.series {
            Series::Ordered(quantity) => Some(quantity.clone()),
            Series::Categories => None,
        };
        Self { keys, of }
    }

    pub fn look(&self, name: &str) -> Look {
        let looks = self.keys.iter().filter(|key| key.name == name);
        looks.filter_map(|key| key.look).next().unwrap_or(Look::category(0))
    }

    /// Number of series.
    pub fn series(&self) -> usize {
        self.keys.iter().filter(|key| key.look.is_some()).count()
    }

    /// The legend in lines of this width from the corner on, and its height; nothing where only one thing has a name.
    pub fn draw(&self, font: &Font, [left, top]: Point, width: f64) -> (Vec<Item>, f64) {
        let named: Vec<&Key> = self.keys.iter().filter(|key| !key.name.is_empty()).collect();
        if named.len() < 2 {
            return (Vec::new(), 0.0);
        }
        let (mut items, mut at) = (Vec::new(), [left, top + HEIGHT / 2.0]);
        let baseline = |y: f64| y + SIZE * BASELINE;
        if let Some(of) = &self.of {
            items.push(Item::text(of.as_str(), [left, baseline(at[1])], Anchor::Start, SIZE).filled(MUTED));
            at[0] += font.width(of, SIZE) + GAP * 0.7;
        }
        for key in named {
            let extent = key.width() + SIGN_GAP + font.width(&key.name, SIZE);
            if at[0] > left && at[0] + extent > left + width {
                at = [left, at[1] + HEIGHT];
            }
            items.extend(key.sign(at));
            let place = [at[0] + key.width() + SIGN_GAP, baseline(at[1])];
            items.push(Item::text(key.name.as_str(), place, Anchor::Start, SIZE).filled(TEXT));
            at[0] += extent + GAP;
        }
        (items, at[1] + HEIGHT / 2.0 - top)
    }
}

impl Key {
    fn width(&self) -> f64 {
        if self.line || self.area { SIGN } else { POINT }
    }

    fn sign(&self, [x, y]: Point) -> Vec<Item> {
        let stroke = Item::line(vec![[x, y], [x + SIGN, y]]);
        let Some(look) = self.look else {
            let (colour, width, dashes) = REFERENCE;
            return vec![stroke.stroked(colour, width, dashes)];
        };
        let middle = [x + self.width() / 2.0, y];
        let area = Item::area(Rect::around(middle, [SIGN, 11.0]).corners());
        let area = self.area.then(|| area.tinted(look.colour, TINT).stroked(look.colour, 1.5, look.dashes));
        let line = self.line.then(|| stroke.stroked(look.colour, look.width, look.dashes));
        let marker = (self.points || self.line && look.marker != Marker::Dot).then(|| look.marker(middle));
        [area, line, marker].into_iter().flatten().collect()
    }
}
