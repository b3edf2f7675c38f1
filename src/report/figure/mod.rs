//! Figures from numbers that others computed: laid out once, then drawn as SVG text and as a PNG image.
//!
//! A [`Figure`] is a grid of [`Panel`]s under one title and one legend. The layout turns it into shapes at fixed places,
//! in pixels; [`Figure::svg`] and [`Figure::png`] draw the same shapes. Equal figures give equal bytes.
//!
//! The colour of a series follows from the place where its name occurs first, so that it is the same in all panels.
//! Markers and dashes differ as well: colour is never the only sign.

mod chart;
mod clip;
mod colour;
mod heatmap;
mod labels;
mod layout;
mod legend;
mod png;
mod scale;
mod scene;
mod svg;
mod text;

pub(super) use self::svg::escaped;
use crate::error::{Error, Result};

/// A grid of panels.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What the figure shows, above it.
    pub title: String,
    /// The same in words, for readers that do not see the figure.
    pub description: String,
    /// What the names of the series are.
    pub series: Series,
    /// Number of panels side by side; more panels begin another row.
    pub columns: usize,
    /// The panels in reading order.
    pub panels: Vec<Panel>,
}

/// What the names of a figure's series are.
#[derive(Debug, Clone, PartialEq)]
pub enum Series {
    /// Kinds without an order, in the colours of Okabe and Ito.
    Categories,
    /// Values in ascending order of the quantity with this name, in colours that ascend too.
    Ordered(String),
}

/// One part of a figure.
#[derive(Debug, Clone, PartialEq)]
pub enum Panel {
    /// Marks in a plane.
    Chart(Chart),
    /// Cells with values.
    Heatmap(Heatmap),
}

/// Marks between two axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Above the panel; may be empty.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// Drawn in this order.
    pub marks: Vec<Mark>,
}

/// A direction in a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// The quantity, with its unit in parentheses.
    pub label: String,
    /// How values become lengths.
    pub scale: Scale,
    /// Lowest and highest value shown; by default all that there are, with some room around them.
    pub range: Option<[f64; 2]>,
}

/// How values become lengths.
#[derive(Debug, Clone, PartialEq)]
pub enum Scale {
    /// Equal differences are equal lengths.
    Linear,
    /// Equal ratios are equal lengths.
    Logarithmic,
    /// The values are positions in this list, from 0 on.
    Categories(Vec<String>),
}

impl Axis {
    /// An axis where equal differences are equal lengths.
    pub fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), scale: Scale::Linear, range: None }
    }

    /// An axis where equal ratios are equal lengths; its values are above 0.
    pub fn logarithmic(label: &str) -> Self {
        Self { scale: Scale::Logarithmic, ..Self::linear(label) }
    }

    /// An axis whose values are positions in a list of names.
    pub fn categories(label: &str, names: Vec<String>) -> Self {
        Self { scale: Scale::Categories(names), ..Self::linear(label) }
    }

    /// The same axis with fixed ends; what lies beyond is cut off.
    #[must_use]
    pub fn between(self, low: f64, high: f64) -> Self {
        Self { range: Some([low, high]), ..self }
    }
}

/// Something drawn in a chart. A number that is NaN is missing: its point is left out, and a line has a gap there.
/// Infinite ones are errors, and so are those that
/// an axis has no place for: 0 on a logarithmic one, or a position beyond a list.
#[derive(Debug, Clone, PartialEq)]
pub enum Mark {
    /// Points joined in their order.
    Line {
        /// The series.
        name: String,
        /// In the order of `x`.
        points: Vec<Estimate>,
    },
    /// Single points.
    Points {
        /// The series.
        name: String,
        /// In any order.
        points: Vec<Spot>,
    },
    /// A density that is constant between two edges.
    Histogram {
        /// The series.
        name: String,
        /// In ascending order.
        edges: Vec<f64>,
        /// One fewer than edges, none below 0.
        densities: Vec<f64>,
    },
    /// A straight line to compare with.
    Reference {
        /// What it is; may be empty.
        name: String,
        /// One end, `[x, y]`.
        from: [f64; 2],
        /// The other end.
        to: [f64; 2],
    },
    /// Words in the emptiest corner of the chart.
    Note(String),
}

/// A point of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Place on the x axis.
    pub x: f64,
    /// Place on the y axis.
    pub y: f64,
    /// What `y` lies between: a band where points are many, bars where they are few.
    pub bounds: Option<[f64; 2]>,
}

/// A point of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Spot {
    /// Place on the x axis.
    pub x: f64,
    /// Place on the y axis.
    pub y: f64,
    /// What it stands for. Written beside the point unless there is no room for it.
    pub label: String,
}

/// A table of cells whose colours are their values.
#[derive(Debug, Clone, PartialEq)]
pub struct Heatmap {
    /// Above the panel; may be empty.
    pub title: String,
    /// Names of the rows, from the top.
    pub rows: Vec<String>,
    /// Names of the columns, from the left.
    pub columns: Vec<String>,
    /// Row by row; none, or NaN, where there is no value.
    pub values: Vec<Option<f64>>,
    /// Colours of the values.
    pub shade: Shade,
    /// Values of the first and the last colour; by default those that there are.
    pub range: Option<[f64; 2]>,
    /// Digits behind the point in the cells.
    pub decimals: usize,
    /// The quantity, with its unit in parentheses.
    pub label: String,
}

/// The colours of a heatmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shade {
    /// From dark to bright.
    Sequential,
    /// From blue over white at 0 to brown.
    Diverging,
}

impl Figure {
    /// The figure as a self-contained SVG file for light and dark pages, with the values as tooltips.
    ///
    /// # Errors
    ///
    /// Numbers that have no place, and lists whose lengths do not fit.
    pub fn svg(&self) -> Result<String> {
        Ok(svg::write(&self.scene()?, &self.title, &self.description))
    }

    /// The figure as a PNG file on a light ground, two dots for each pixel of the SVG file. Letters that the font lacks
    /// are boxes: it has Latin and Greek ones.
    ///
    /// # Errors
    ///
    /// As for [`Figure::svg`].
    pub fn png(&self) -> Result<Vec<u8>> {
        png::draw(&self.scene()?)
    }

    fn scene(&self) -> Result<scene::Scene> {
        let within = |error: Error| error.within(format!("cannot draw the figure `{}`", self.title));
        self.check().and_then(|()| layout::lay_out(self)).map_err(within)
    }

    fn check(&self) -> Result<()> {
        if self.columns == 0 {
            return Err(Error::input("no columns for the panels"));
        }
        self.panels.iter().try_for_each(|panel| match panel {
            Panel::Chart(chart) => chart.check(),
            Panel::Heatmap(heatmap) => heatmap.check(),
        })
    }
}

impl Chart {
    fn check(&self) -> Result<()> {
        let of =
            |name: &'static str| move |error: Error| error.within(format!("the {name} axis of panel `{}`", self.title));
        let [x, y] = [0, 1].map(|direction| self.marks.iter().flat_map(move |mark| mark.values(direction)));
        self.x.check(x).map_err(of("x"))?;
        self.y.check(y).map_err(of("y"))?;
        self.marks.iter().try_for_each(|mark| mark.check(&self.title))
    }
}

/// The difference of two values up to this one is a number.
const LARGEST: f64 = 1e300;

impl Axis {
    /// Whether each of these values, unless it is missing, has a place.
    fn check(&self, mut values: impl Iterator<Item = f64>) -> Result<()> {
        check_range(self.range)?;
        let ends = self.range.into_iter().flatten();
        match values.by_ref().chain(ends).find(|&value| !value.is_nan() && !self.has_place(value)) {
            None => Ok(()),
            Some(value) => Err(Error::input(match &self.scale {
                Scale::Logarithmic if value <= 0.0 => format!("{value} is not above 0, as a logarithmic axis asks"),
                Scale::Categories(names) => format!("{value} is no position in a list of {}", names.len()),
                _ => format!("{value} is too large to be drawn"),
            })),
        }
    }

    fn has_place(&self, value: f64) -> bool {
        value.abs() <= LARGEST
            && match &self.scale {
                Scale::Linear => true,
                Scale::Logarithmic => value > 0.0,
                Scale::Categories(names) => (-0.5..=names.len() as f64 - 0.5).contains(&value),
            }
    }
}

fn check_range(range: Option<[f64; 2]>) -> Result<()> {
    match range {
        Some([low, high]) if !(low < high && (high - low).is_finite()) => {
            Err(Error::input(format!("{low} to {high} is no range: the ends must be finite and ascend")))
        }
        _ => Ok(()),
    }
}

impl Mark {
    /// All numbers in one direction: 0 for x, 1 for y.
    fn values(&self, direction: usize) -> Vec<f64> {
        match self {
            Self::Line { points, .. } if direction == 0 => points.iter().map(|point| point.x).collect(),
            Self::Line { points, .. } => points
                .iter()
                .flat_map(|point| [point.y].into_iter().chain(point.bounds.into_iter().flatten()))
                .collect(),
            Self::Points { points, .. } => points.iter().map(|point| [point.x, point.y][direction]).collect(),
            Self::Histogram { edges, .. } if direction == 0 => edges.clone(),
            Self::Histogram { densities, .. } => {
                let foot = densities.iter().any(|density| !density.is_nan()).then_some(0.0);
                densities.iter().copied().chain(foot).collect()
            }
            Self::Reference { from, to, .. } => vec![from[direction], to[direction]],
            Self::Note(_) => Vec::new(),
        }
    }

    fn check(&self, panel: &str) -> Result<()> {
        let Self::Histogram { name, edges, densities } = self else { return Ok(()) };
        let wrong = if edges.len() != densities.len() + 1 && !(edges.is_empty() && densities.is_empty()) {
            format!("{} edges and {} densities", edges.len(), densities.len())
        } else if !edges.is_sorted_by(|low, high| low < high) {
            "edges that do not ascend".to_owned()
        } else if densities.iter().any(|density| *density < 0.0) {
            "a density below 0".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::input(format!("the histogram `{name}` of panel `{panel}` has {wrong}")))
    }
}

impl Heatmap {
    fn check(&self) -> Result<()> {
        let (rows, columns, values) = (self.rows.len(), self.columns.len(), self.values.len());
        let wrong = |what: String| Error::input(format!("the heatmap of panel `{}`: {what}", self.title));
        check_range(self.range).map_err(|error| error.within(format!("the colours of panel `{}`", self.title)))?;
        if rows * columns != values {
            return Err(wrong(format!("{values} values for {rows} rows of {columns}")));
        }
        match self.values.iter().flatten().find(|value| value.abs() > LARGEST) {
            Some(value) => Err(wrong(format!("{value} is too large to be drawn"))),
            None => Ok(()),
        }
    }
}
