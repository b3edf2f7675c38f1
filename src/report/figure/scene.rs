//! What both canvases draw: shapes at fixed places, in pixels from the upper left corner.

use super::colour::Colour;

/// `[x, y]`, from the left and from the top.
pub(super) type Point = [f64; 2];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rect {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Rect {
    pub fn width(&self) -> f64 {
        self.right - self.left
    }

    pub fn height(&self) -> f64 {
        self.bottom - self.top
    }

    pub fn middle(&self) -> Point {
        [(self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0]
    }

    pub fn corners(&self) -> Vec<Point> {
        vec![[self.left, self.top], [self.right, self.top], [self.right, self.bottom], [self.left, self.bottom]]
    }

    pub fn around([x, y]: Point, [width, height]: [f64; 2]) -> Self {
        Self { left: x - width / 2.0, top: y - height / 2.0, right: x + width / 2.0, bottom: y + height / 2.0 }
    }

    /// The rectangle with this much more, or less, on each side.
    pub fn grown(&self, by: f64) -> Self {
        Self { left: self.left - by, top: self.top - by, right: self.right + by, bottom: self.bottom + by }
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    /// Whether the other one lies within, edges included.
    pub fn holds(&self, other: &Self) -> bool {
        self.left <= other.left && other.right <= self.right && self.top <= other.top && other.bottom <= self.bottom
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scene {
    pub width: f64,
    pub height: f64,
    /// In the order of drawing.
    pub items: Vec<Item>,
}

/// A shape with its looks. One without any is only a place for its tooltip.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub shape: Shape,
    pub fill: Option<Fill>,
    /// Drawn below the fill of a text and above that of other shapes.
    pub stroke: Option<Stroke>,
    pub tooltip: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Path { points: Vec<Point>, closed: bool },
    Circle { centre: Point, radius: f64 },
    Text(Text),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text {
    pub content: String,
    /// Where the baseline has its anchor.
    pub at: Point,
    pub anchor: Anchor,
    pub size: f64,
    pub bold: bool,
    /// Turn about the anchor in degrees, clockwise.
    pub turn: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fill {
    pub colour: Colour,
    pub opacity: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stroke {
    pub colour: Colour,
    pub width: f64,
    /// Lengths of lines and gaps in turn; empty for a line without gaps.
    pub dashes: &'static [f64],
}

impl Item {
    pub fn new(shape: Shape) -> Self {
        Self { shape, fill: None, stroke: None, tooltip: None }
    }

    pub fn area(points: Vec<Point>) -> Self {
        Self::new(Shape::Path { points, closed: true })
    }

    pub fn line(points: Vec<Point>) -> Self {
        Self::new(Shape::Path { points, closed: false })
    }

    pub fn circle(centre: Point, radius: f64) -> Self {
        Self::new(Shape::Circle { centre, radius })
    }

    pub fn text(content: impl Into<String>, at: Point, anchor: Anchor, size: f64) -> Self {
        Self::new(Shape::Text(Text { content: content.into(), at, anchor, size, bold: false, turn: 0.0 }))
    }

    pub fn filled(self, colour: Colour) -> Self {
        self.tinted(colour, 1.0)
    }

    pub fn tinted(self, colour: Colour, opacity: f64) -> Self {
        Self { fill: Some(Fill { colour, opacity }), ..self }
    }

    pub fn stroked(self, colour: Colour, width: f64, dashes: &'static [f64]) -> Self {
        Self { stroke: Some(Stroke { colour, width, dashes }), ..self }
    }

    pub fn told(self, tooltip: impl Into<String>) -> Self {
        Self { tooltip: Some(tooltip.into()), ..self }
    }

    /// In bold letters, if it is a text.
    pub fn bold(mut self) -> Self {
        if let Shape::Text(text) = &mut self.shape {
            text.bold = true;
        }
        self
    }

    /// Turned about its anchor, if it is a text.
    pub fn turned(mut self, degrees: f64) -> Self {
        if let Shape::Text(text) = &mut self.shape {
            text.turn = degrees;
        }
        self
    }
}
