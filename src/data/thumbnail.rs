//! Small copies of images, as files that browsers show.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use mozjpeg::{ColorSpace, Compress};

use super::image::RgbImage;
use crate::error::{Error, Result};

/// The longest side of a thumbnail, in pixels.
const LONGEST: u32 = 256;

/// Images up to this side are drawings more often than photographs, and small without loss.
const LOSSLESS: u32 = 128;

/// Quality of JPEG files, 0 to 100.
const QUALITY: f32 = 80.0;

/// An encoded image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// What it is encoded as.
    pub format: Format,
    /// The file.
    pub bytes: Vec<u8>,
}

/// What a thumbnail is encoded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Without loss.
    Png,
    /// With loss.
    Jpeg,
}

impl Format {
    /// Ending of the names of such files.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
        }
    }
}

/// A copy of at most 256 pixels on the longer side; PNG where the image has at most 128, else JPEG. Equal images give equal
/// bytes.
///
/// # Errors
/// The encoder fails.
pub fn thumbnail(image: &RgbImage) -> Result<Thumbnail> {
    let longest = image.width().max(image.height());
    if longest <= LOSSLESS {
        return Ok(Thumbnail { format: Format::Png, bytes: png(image)? });
    }
    let bytes = if longest <= LONGEST { jpeg(image)? } else { jpeg(&reduced(image))? };
    Ok(Thumbnail { format: Format::Jpeg, bytes })
}

fn reduced(image: &RgbImage) -> RgbImage {
    let longest = u64::from(image.width().max(image.height()));
    let side = |length: u32| {
        let rounded = (u64::from(length) * u64::from(LONGEST) + longest / 2) / longest;
        u32::try_from(rounded).map_or(LONGEST, |side| side.max(1))
    };
    image::imageops::thumbnail(image, side(image.width()), side(image.height()))
}

fn png(image: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(image, image.width(), image.height(), ExtendedColorType::Rgb8)
        .map_err(|cause| Error::internal("an image cannot be encoded as PNG").caused_by(cause))?;
    Ok(bytes)
}

fn jpeg(image: &RgbImage) -> Result<Vec<u8>> {
    let failed = || Error::internal("an image cannot be encoded as JPEG");
    let encode = || {
        let mut encoder = Compress::new(ColorSpace::JCS_RGB);
        encoder.set_size(image.width() as usize, image.height() as usize);
        encoder.set_quality(QUALITY);
        let mut started = encoder.start_compress(Vec::new())?;
        started.write_scanlines(image)?;
        started.finish()
    };
    // libjpeg reports errors by unwinding; all of its state belongs to the closure.
    let encoded = catch_unwind(AssertUnwindSafe(encode)).map_err(|_| failed())?;
    encoded.map_err(|cause| failed().caused_by(cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::decode_bytes;
    use image::Rgb;

    fn gradient(width: u32, height: u32) -> RgbImage {
        let level = |at: u32, of: u32| (at * 255 / of) as u8;
        RgbImage::from_fn(width, height, |x, y| Rgb([level(x, width), level(y, height), 128]))
    }

    #[test]
    fn small_images_are_kept_to_the_pixel() {
        let image = gradient(128, 40);
        let small = thumbnail(&image).unwrap();
        assert_eq!((small.format.ending(), decode_bytes(&small.bytes).unwrap()), ("png", image));
    }

    #[test]
    fn larger_ones_are_reduced_and_look_alike() {
        for (size, expected) in [((200, 129), (200, 129)), ((640, 480), (256, 192)), ((3, 2000), (1, 256))] {
            let image = gradient(size.0, size.1);
            let small = thumbnail(&image).unwrap();
            assert_eq!(small, thumbnail(&image).unwrap());
            let decoded = decode_bytes(&small.bytes).unwrap();
            assert_eq!((small.format.ending(), decoded.dimensions()), ("jpg", expected));
            let [_, green, blue] = decoded.get_pixel(0, expected.1 / 2).0;
            assert!(green.abs_diff(127) < 8 && blue.abs_diff(128) < 8, "{green} {blue}");
        }
    }
}
