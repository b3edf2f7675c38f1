//! Draws scenes, to the same bytes on every machine: coordinates are sums and products of constants, which IEEE 754 rounds
//! alike everywhere, and what changes pixels afterwards is integer arithmetic.

use tiny_skia::{FillRule, Paint, Path, PathBuilder, Pixmap, Stroke, Transform};

use super::font;
use super::scene::{Background, Damage, GRID, Look, Object, Scene, Shape, Sign, Size};
use crate::data::image::RgbImage;
use crate::error::{Error, Result};
use crate::random::Random;

/// Width and height of a picture in pixels.
pub const PIXELS: u32 = 64;

const CELL: i32 = PIXELS as i32 / GRID as i32;
const BORDER: [u8; 3] = [24, 24, 24];
const BAR: [u8; 3] = [120, 116, 110];

/// The picture of a scene; `random` belongs to the picture and decides noise and bars.
pub(super) fn draw(scene: &Scene, random: Random) -> Result<RgbImage> {
    let mut canvas = Canvas::new()?;
    canvas.background(scene.look.background);
    for object in &scene.objects {
        canvas.object(object, scene.look)?;
    }
    for sign in &scene.signs {
        canvas.sign(sign);
    }
    let mut image = canvas.into_image()?;
    apply(scene.look.damage, &mut image, random);
    Ok(image)
}

struct Canvas(Pixmap);

impl Canvas {
    fn new() -> Result<Self> {
        Pixmap::new(PIXELS, PIXELS).map(Self).ok_or_else(|| Error::internal("cannot make a picture"))
    }

    fn background(&mut self, background: Background) {
        for y in 0..PIXELS as i32 {
            for x in 0..PIXELS as i32 {
                self.set(x, y, background_color(background, x, y));
            }
        }
    }

    fn set(&mut self, x: i32, y: i32, [red, green, blue]: [u8; 3]) {
        if let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y))
            && x < PIXELS as usize
            && y < PIXELS as usize
            && let Some(color) = tiny_skia::PremultipliedColorU8::from_rgba(red, green, blue, 255)
        {
            self.0.pixels_mut()[y * PIXELS as usize + x] = color;
        }
    }

    fn fill(&mut self, x: i32, y: i32, width: i32, height: i32, color: [u8; 3]) {
        for row in y..y + height {
            for column in x..x + width {
                self.set(column, row, color);
            }
        }
    }

    fn object(&mut self, object: &Object, look: Look) -> Result<()> {
        let middle = |cell: u8, offset: i8| (i32::from(cell) * CELL + CELL / 2 + i32::from(offset)) as f32;
        let (x, y) = (middle(object.cell.column, object.offset.0), middle(object.cell.row, object.offset.1));
        let radius = match object.size {
            Size::Small => 5.0,
            Size::Large => 7.0,
        };
        let path = outline(object.shape, x, y, radius).ok_or_else(|| Error::internal("cannot outline an object"))?;
        self.0.fill_path(&path, &paint(object.color.rgb()), FillRule::EvenOdd, Transform::identity(), None);
        if look.bordered {
            self.0.stroke_path(&path, &paint(BORDER), &Stroke::default(), Transform::identity(), None);
        }
        Ok(())
    }

    fn sign(&mut self, sign: &Sign) {
        let (left, top) = (i32::from(sign.cell.column) * CELL, i32::from(sign.cell.row) * CELL);
        let y = top + CELL / 2 + i32::from(sign.offset) - font::HEIGHT / 2 - 2;
        self.fill(left, y, CELL, font::HEIGHT + 4, BORDER);
        self.fill(left, y + 1, CELL, font::HEIGHT + 2, [255; 3]);
        for (letter, character) in (0..).zip(sign.word.chars()) {
            for (row, bits) in (0..).zip(font::rows(character)) {
                for column in (0..font::WIDTH).filter(|column| bits >> (font::WIDTH - 1 - column) & 1 == 1) {
                    self.set(left + 1 + letter * (font::WIDTH + 1) + column, y + 2 + row, BORDER);
                }
            }
        }
    }

    fn into_image(self) -> Result<RgbImage> {
        let samples = self.0.pixels().iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]).collect();
        RgbImage::from_raw(PIXELS, PIXELS, samples).ok_or_else(|| Error::internal("a picture has too few samples"))
    }
}

fn paint([red, green, blue]: [u8; 3]) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(red, green, blue, 255);
    paint
}

fn background_color(background: Background, x: i32, y: i32) -> [u8; 3] {
    match background {
        Background::Plain(color) => color,
        Background::Stripes(one, other) => [one, other][(y / 4 % 2) as usize],
        Background::Checks(one, other) => [one, other][((x / 8 + y / 8) % 2) as usize],
        Background::Slope(top, bottom) => std::array::from_fn(|channel| {
            let (top, bottom) = (i32::from(top[channel]), i32::from(bottom[channel]));
            (top + (bottom - top) * y / (PIXELS as i32 - 1)) as u8
        }),
    }
}

fn outline(shape: Shape, x: f32, y: f32, radius: f32) -> Option<Path> {
    let mut path = PathBuilder::new();
    let mut polygon = |points: &[(f32, f32)]| {
        for (index, (right, down)) in points.iter().enumerate() {
            let (x, y) = (x + right * radius, y + down * radius);
            if index == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
        }
        path.close();
    };
    match shape {
        Shape::Square => polygon(&rectangle(0.9, 0.9)),
        Shape::Bar => polygon(&rectangle(1.0, 0.375)),
        Shape::Pole => polygon(&rectangle(0.375, 1.0)),
        Shape::Triangle => polygon(&[(0.0, -1.0), (1.0, 0.875), (-1.0, 0.875)]),
        Shape::Ring => {
            path.push_circle(x, y, radius);
            path.push_circle(x, y, radius / 2.0);
        }
        Shape::Cross => {
            let (arm, end) = (0.25, 1.0);
            polygon(&[
                (-arm, -end),
                (arm, -end),
                (arm, -arm),
                (end, -arm),
                (end, arm),
                (arm, arm),
                (arm, end),
                (-arm, end),
                (-arm, arm),
                (-end, arm),
                (-end, -arm),
                (-arm, -arm),
            ]);
        }
    }
    path.finish()
}

/// The corners of a rectangle of so many radii from its middle to the sides.
fn rectangle(right: f32, down: f32) -> [(f32, f32); 4] {
    [(-right, -down), (right, -down), (right, down), (-right, down)]
}

fn apply(damage: Damage, image: &mut RgbImage, random: Random) {
    for _ in 0..damage.blur {
        blur(image);
    }
    for bar in 0..u64::from(damage.bars) {
        cover(image, random.name("bar").number(bar));
    }
    if damage.darkness == 0 && damage.noise == 0 {
        return;
    }
    let light = 100 - i32::from(damage.darkness.min(100));
    let (noise, amplitude) = (random.name("noise"), i32::from(damage.noise));
    for (index, sample) in (0..).zip(image.iter_mut()) {
        let change = noise.below(index, (2 * amplitude + 1).unsigned_abs() as usize) as i32 - amplitude;
        *sample = (i32::from(*sample) * light / 100 + change).clamp(0, 255) as u8;
    }
}

/// Replaces each pixel by the mean of its neighbourhood of three by three; the border's is repeated.
fn blur(image: &mut RgbImage) {
    let before = image.clone();
    let near = |at: u32, step: i32| at.saturating_add_signed(step).min(PIXELS - 1);
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        for channel in 0..3 {
            let row = |down: i32| -> u32 {
                (-1..=1).map(|right| u32::from(before.get_pixel(near(x, right), near(y, down)).0[channel])).sum()
            };
            pixel.0[channel] = ((-1..=1).map(row).sum::<u32>() / 9) as u8;
        }
    }
}

/// Puts a gray bar of about a cell's width across the picture.
fn cover(image: &mut RgbImage, random: Random) {
    let (lies, width) = (random.below(0, 2) == 0, 12 + random.below(1, 6) as u32);
    let start = random.below(2, (PIXELS - width) as usize + 1) as u32;
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        if (start..start + width).contains(if lies { &y } else { &x }) {
            pixel.0 = BAR;
        }
    }
}
