//! Pillow's resampling of 8-bit images, to the last bit.
//!
//! Smooth areas are full of values halfway between two levels, and Pillow rounds each to the side its 22-bit
//! weights fall on; two passes make that up to 2 levels. So an implementation with other weights, such as
//! fast_image_resize, cannot stay within one level, and this one follows `Resample.c` instead.

use std::borrow::Cow;

use crate::data::image::RgbImage;

const CHANNELS: usize = 3;

/// Fraction bits of a weight: what 32 bits leave beside 8 bits of level and 2 of overshoot.
const WEIGHT_BITS: u32 = 22;

/// Function that weighs the neighbours of a resampled pixel; the numbers are Pillow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    Bilinear = 2,
    Bicubic = 3,
}

impl Kernel {
    /// Distance in pixels at which the weight becomes 0.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        // Keys' cubic convolution with a = -0.5.
        const A: f64 = -0.5;
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// The pixels that make up one resampled pixel.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

/// The windows that turn `from` pixels into `to`. When shrinking, the kernel is stretched to cover all pixels.
fn windows(from: u32, to: u32, kernel: Kernel) -> Vec<Window> {
    let scale = f64::from(from) / f64::from(to);
    let stretch = scale.max(1.0);
    let support = kernel.support() * stretch;
    let window = |index: u32| {
        let center = (f64::from(index) + 0.5) * scale;
        // Casts to an integer cut off the fraction and, below 0, saturate.
        let first = (center - support + 0.5) as u32;
        let end = ((center + support + 0.5) as u32).min(from);
        let weight = |x: u32| kernel.weight((f64::from(x) - center + 0.5) * (1.0 / stretch));
        let sum: f64 = (first..end).map(weight).sum();
        let fixed = |x: u32| (weight(x) / sum * f64::from(1 << WEIGHT_BITS)).round() as i32;
        Window { first: first as usize, weights: (first..end).map(fixed).collect() }
    };
    (0..to).map(window).collect()
}

const HALF_LEVEL: i32 = 1 << (WEIGHT_BITS - 1);

fn level(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// The image at another size; an image of that size is returned as it is. No side may be 0.
pub(super) fn resize(image: &RgbImage, width: u32, height: u32, kernel: Kernel) -> Cow<'_, RgbImage> {
    let mut image = Cow::Borrowed(image);
    let columns_first = starts_with_columns(image.dimensions(), (width, height));
    for columns in [columns_first, !columns_first] {
        if columns && image.height() != height {
            image = Cow::Owned(resize_columns(&image, height, kernel));
        } else if !columns && image.width() != width {
            image = Cow::Owned(resize_rows(&image, width, kernel));
        }
    }
    image
}

/// The order of the two passes in Pillow 13, which starts with the columns if they lose more than twice the
/// pixels that the rows lose (found by comparison, and without exception over 773 random shapes). Older
/// versions always start with the rows.
fn starts_with_columns((width, height): (u32, u32), (new_width, new_height): (u32, u32)) -> bool {
    let (rows_lose, columns_lose) =
        (i64::from(width) - i64::from(new_width), i64::from(height) - i64::from(new_height));
    columns_lose > 0 && columns_lose > 2 * rows_lose
}

fn resize_rows(image: &RgbImage, width: u32, kernel: Kernel) -> RgbImage {
    let windows = windows(image.width(), width, kernel);
    let mut resized = RgbImage::new(width, image.height());
    let rows = image.chunks_exact(CHANNELS * image.width() as usize);
    for (row, out) in rows.zip(resized.chunks_exact_mut(CHANNELS * width as usize)) {
        let pixels = row.as_chunks::<CHANNELS>().0;
        for (window, out) in windows.iter().zip(out.as_chunks_mut::<CHANNELS>().0) {
            let mut sums = [HALF_LEVEL; CHANNELS];
            for (pixel, &weight) in pixels[window.first..].iter().zip(&window.weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            *out = sums.map(level);
        }
    }
    resized
}

fn resize_columns(image: &RgbImage, height: u32, kernel: Kernel) -> RgbImage {
    let row_len = CHANNELS * image.width() as usize;
    let mut resized = RgbImage::new(image.width(), height);
    let mut sums = vec![0; row_len];
    for (window, out) in windows(image.height(), height, kernel).iter().zip(resized.chunks_exact_mut(row_len)) {
        sums.fill(HALF_LEVEL);
        for (row, &weight) in image.chunks_exact(row_len).skip(window.first).zip(&window.weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        for (out, &sum) in out.iter_mut().zip(&sums) {
            *out = level(sum);
        }
    }
    resized
}
