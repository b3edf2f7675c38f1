//! A scene as a PNG image.

use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use tiny_skia::{Color, FillRule, LineJoin, Paint, Path, PathBuilder, Pixmap, StrokeDash, Transform};
use ttf_parser::OutlineBuilder;

use super::colour::{Colour, GROUND, Rgb};
use super::scene::{Anchor, Item, Point, Scene, Shape, Stroke, Text};
use super::text::Font;
use crate::error::{Error, Result};

/// Dots per pixel of the scene.
const DOTS: f64 = 2.0;

/// Width of the line around bold letters, relative to their size.
const BOLD: f64 = 0.035;

pub(super) fn draw(scene: &Scene) -> Result<Vec<u8>> {
    let [width, height] = [scene.width, scene.height].map(|length| (length * DOTS).ceil() as u32);
    let pixels = Pixmap::new(width, height);
    let pixels = pixels.ok_or_else(|| Error::input(format!("an image of {width} by {height} dots is too large")))?;
    let mut canvas = Canvas { pixels, font: Font::load()? };
    let [red, green, blue] = GROUND.light.0;
    canvas.pixels.fill(Color::from_rgba8(red, green, blue, 255));
    scene.items.iter().for_each(|item| canvas.item(item));
    encode(&canvas.pixels)
}

/// The image is opaque, since its ground is. Figures are flat areas and repeated rows, which are smallest without a filter.
fn encode(pixels: &Pixmap) -> Result<Vec<u8>> {
    let samples: Vec<u8> =
        pixels.pixels().iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]).collect();
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::NoFilter)
        .write_image(&samples, pixels.width(), pixels.height(), image::ExtendedColorType::Rgb8)
        .map_err(|error| Error::internal("cannot encode a figure as PNG").caused_by(error))?;
    Ok(bytes)
}

struct Canvas {
    pixels: Pixmap,
    font: Font,
}

impl Canvas {
    fn item(&mut self, item: &Item) {
        match &item.shape {
            Shape::Path { points, closed } => self.shape(item, path(points, *closed)),
            Shape::Circle { centre: [x, y], radius } => {
                self.shape(item, PathBuilder::from_circle(*x as f32, *y as f32, *radius as f32));
            }
            Shape::Text(text) => self.text(item, text),
        }
    }

    fn shape(&mut self, item: &Item, path: Option<Path>) {
        let Some(path) = path else { return };
        if let Some(fill) = &item.fill {
            self.fill(&path, fill.colour, fill.opacity);
        }
        if let Some(stroke) = &item.stroke {
            self.stroke(&path, stroke);
        }
    }

    fn text(&mut self, item: &Item, text: &Text) {
        let Some(path) = self.letters(text) else { return };
        if let Some(stroke) = &item.stroke {
            self.stroke(&path, stroke);
        }
        let Some(fill) = &item.fill else { return };
        self.fill(&path, fill.colour, fill.opacity);
        if text.bold {
            self.stroke(&path, &Stroke { colour: fill.colour, width: text.size * BOLD, dashes: &[] });
        }
    }

    fn letters(&self, text: &Text) -> Option<Path> {
        let width = self.font.width(&text.content, text.size);
        let start = match text.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -width / 2.0,
            Anchor::End => -width,
        };
        let scale = text.size / self.font.units();
        let mut outline = Outline { path: PathBuilder::new(), at: 0.0, scale: scale as f32 };
        self.font.letters(&text.content, text.size, |glyph, at| {
            outline.at = (start + at) as f32;
            self.font.outline(glyph, &mut outline);
        });
        let [x, y] = text.at.map(|place| place as f32);
        outline.path.finish()?.transform(Transform::from_rotate(text.turn as f32).post_translate(x, y))
    }

    fn fill(&mut self, path: &Path, colour: Colour, opacity: f64) {
        let scale = Transform::from_scale(DOTS as f32, DOTS as f32);
        self.pixels.fill_path(path, &paint(colour.light, opacity), FillRule::Winding, scale, None);
    }

    fn stroke(&mut self, path: &Path, stroke: &Stroke) {
        let lengths: Vec<f32> = stroke.dashes.iter().map(|&length| length as f32).collect();
        let stroke_style = tiny_skia::Stroke {
            width: stroke.width as f32,
            line_join: LineJoin::Round,
            dash: StrokeDash::new(lengths, 0.0),
            ..tiny_skia::Stroke::default()
        };
        let scale = Transform::from_scale(DOTS as f32, DOTS as f32);
        self.pixels.stroke_path(path, &paint(stroke.colour.light, 1.0), &stroke_style, scale, None);
    }
}

fn paint(Rgb([red, green, blue]): Rgb, opacity: f64) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(red, green, blue, (opacity * 255.0).round() as u8);
    paint
}

fn path(points: &[Point], closed: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    for (index, point) in points.iter().enumerate() {
        let [x, y] = point.map(|place| place as f32);
        if index == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    if closed {
        path.close();
    }
    path.finish()
}

/// Letters have their y axis upwards.
struct Outline {
    path: PathBuilder,
    at: f32,
    scale: f32,
}

impl Outline {
    fn place(&self, x: f32, y: f32) -> [f32; 2] {
        [self.at + x * self.scale, -y * self.scale]
    }
}

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        let [x, y] = self.place(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let [x, y] = self.place(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ([x1, y1], [x, y]) = (self.place(x1, y1), self.place(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ([x1, y1], [x2, y2], [x, y]) = (self.place(x1, y1), self.place(x2, y2), self.place(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}
