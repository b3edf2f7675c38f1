//! Image files as 8-bit RGB, with the values that `Image.open(path).convert("RGB")` has in Pillow.
//!
//! That call is what published results of VQA models were computed from. It follows that alpha channels and
//! transparent colours are dropped rather than blended, that an EXIF orientation is not applied, that colour
//! profiles are ignored and that an animation is its first frame. JPEG goes through libjpeg's code, because
//! chroma upsampling and the inverse cosine transform are not specified to the bit and the `image` crate's
//! decoder differs from libjpeg by up to 46 levels on small images with subsampled chroma.
//!
//! Not as in Pillow: a GIF whose first frame is smaller than its canvas is surrounded by black, and the levels
//! of 16-bit BMP files may differ by one.

use std::any::Any;
use std::fs;
use std::io::{self, BufRead, Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::UNIX_EPOCH;

pub use image::RgbImage;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use mozjpeg::{ColorSpace, Decompress};

use crate::error::{Error, Result};

/// Pillow refuses images above this number of pixels as decompression bombs (`Image.MAX_IMAGE_PIXELS`, twice).
const MAX_PIXELS: u64 = 178_956_970;

/// Bytes a decoder may use beside the file; 16-bit RGBA images of [`MAX_PIXELS`] fit.
const MAX_DECODER_BYTES: u64 = 2 << 30;

/// Size and time of an image file: cheap to read, and different after most changes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Length of the file in bytes.
    pub size: u64,
    /// Time of the last modification, in nanoseconds since 1970; 0 where the file system keeps none.
    pub modified_ns: i64,
}

/// Reads the stamp of a file without opening it.
///
/// # Errors
/// There is no such file.
pub fn stamp(path: &Path) -> Result<Stamp> {
    let metadata = fs::metadata(path).map_err(|cause| unreadable(path, cause))?;
    let since_1970 = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified_ns = since_1970.and_then(|duration| i64::try_from(duration.as_nanos()).ok()).unwrap_or(0);
    Ok(Stamp { size: metadata.len(), modified_ns })
}

/// Bytes that name a file and differ after most changes of it: size, time and absolute path.
///
/// # Errors
/// There is no such file.
pub fn file_identity(path: &Path) -> Result<Vec<u8>> {
    let stamp = stamp(path)?;
    let whole = std::path::absolute(path)
        .map_err(|cause| Error::input(format!("`{}` cannot name an image", path.display())).caused_by(cause))?;
    let text = whole.as_os_str().as_encoded_bytes();
    let numbers = [stamp.size, stamp.modified_ns.cast_unsigned(), text.len() as u64];
    Ok(numbers.iter().flat_map(|number| number.to_le_bytes()).chain(text.iter().copied()).collect())
}

/// Decodes a JPEG, PNG, GIF, BMP or WebP file, recognised by its content.
///
/// # Errors
/// The file is missing, empty, truncated, damaged, of another format, or larger than Pillow accepts.
pub fn decode(path: &Path) -> Result<RgbImage> {
    let bytes = fs::read(path).map_err(|cause| unreadable(path, cause))?;
    decode_bytes(&bytes).map_err(|error| {
        let error = error.within(format!("cannot decode the image `{}`", path.display()));
        error.hint("put an intact copy in its place, or take its questions out of the set")
    })
}

fn unreadable(path: &Path, cause: io::Error) -> Error {
    let error = Error::input(format!("cannot read the image `{}`", path.display())).caused_by(cause);
    error.hint("check the folder of the images and the template of their names")
}

/// Decodes the bytes of such a file.
///
/// # Errors
/// As [`decode`]; the message does not say which image it is.
pub fn decode_bytes(bytes: &[u8]) -> Result<RgbImage> {
    if bytes.is_empty() {
        return Err(Error::input("the file is empty"));
    }
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => decode_jpeg(bytes),
        Ok(format @ (ImageFormat::Png | ImageFormat::Gif | ImageFormat::Bmp | ImageFormat::WebP)) => {
            decode_other(bytes, format)
        }
        _ => Err(Error::input("it is not a JPEG, PNG, GIF, BMP or WebP file")),
    }
}

fn check_size(width: u64, height: u64) -> Result<()> {
    match width.saturating_mul(height) {
        0 => Err(Error::input(format!("it has no pixels ({width} x {height})"))),
        1..=MAX_PIXELS => Ok(()),
        _ => Err(Error::input(format!("{width} x {height} pixels are more than the limit of {MAX_PIXELS}"))),
    }
}

fn from_samples(width: u32, height: u32, samples: Vec<u8>) -> Result<RgbImage> {
    RgbImage::from_raw(width, height, samples)
        .ok_or_else(|| Error::internal(format!("the decoder returned too few samples for {width} x {height} pixels")))
}

/// Turns every `N` samples into one RGB pixel.
fn convert<T: Copy, const N: usize>(samples: &[T], pixel: impl Fn([T; N]) -> [u8; 3]) -> Vec<u8> {
    samples.as_chunks().0.iter().flat_map(|&values| pixel(values)).collect()
}

/// The bytes of a JPEG file, which must not be read past their end: libjpeg would invent the rest, Pillow refuses.
struct JpegBytes<'a>(&'a [u8]);

impl Read for JpegBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for JpegBytes<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.is_empty() { Err(io::Error::other("the file is truncated")) } else { Ok(self.0) }
    }

    fn consume(&mut self, count: usize) {
        self.0 = &self.0[count..];
    }
}

fn decode_jpeg(bytes: &[u8]) -> Result<RgbImage> {
    // libjpeg reports errors by unwinding; all of its state belongs to the closure.
    catch_unwind(AssertUnwindSafe(|| read_jpeg(bytes))).unwrap_or_else(|payload| Err(jpeg_failure(&*payload)))
}

fn jpeg_failure(payload: &(dyn Any + Send)) -> Error {
    let message = payload
        .downcast_ref::<String>()
        .map_or("libjpeg gave up", |message| message.strip_prefix("libjpeg fatal error: ").unwrap_or(message));
    // libjpeg words an error of the reader, see `JpegBytes`, as its own.
    let message = if message.starts_with("Input file read error") { "the file is truncated" } else { message };
    Error::input(message)
}

fn read_jpeg(bytes: &[u8]) -> Result<RgbImage> {
    let failed = |cause: io::Error| Error::input("the JPEG data are damaged").caused_by(cause);
    let decoder = Decompress::new_reader(JpegBytes(bytes)).map_err(failed)?;
    let (width, height) = decoder.size();
    check_size(width as u64, height as u64)?;
    let color = match decoder.components().len() {
        1 => ColorSpace::JCS_GRAYSCALE,
        3 => ColorSpace::JCS_RGB,
        4 => ColorSpace::JCS_CMYK,
        count => return Err(Error::input(format!("JPEG files with {count} channels are not supported"))),
    };
    let mut started = decoder.to_colorspace(color).map_err(failed)?;
    let samples: Vec<u8> = started.read_scanlines().map_err(failed)?;
    started.finish().map_err(failed)?;
    let samples = match color {
        ColorSpace::JCS_GRAYSCALE => convert(&samples, |[gray]| [gray; 3]),
        ColorSpace::JCS_CMYK => convert(&samples, inverted_cmyk),
        _ => samples,
    };
    // A JPEG has at most 65535 rows and columns.
    from_samples(width as u32, height as u32, samples)
}

/// Pillow's arithmetic for CMYK in JPEG, which it always takes to be stored inverted, as Adobe does
/// (`JpegImagePlugin.py`, `Convert.c`).
fn inverted_cmyk([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let light = i32::from(black);
    [cyan, magenta, yellow].map(|stored| {
        let product = (255 - i32::from(stored)) * light + 128;
        (light - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8
    })
}

fn decode_other(bytes: &[u8], format: ImageFormat) -> Result<RgbImage> {
    let failed = |cause| Error::input(format!("the {format:?} data are damaged or truncated")).caused_by(cause);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    let samples = match DynamicImage::from_decoder(decoder).map_err(failed)? {
        DynamicImage::ImageRgb8(image) => return Ok(image),
        DynamicImage::ImageLuma8(image) => convert(&image, |[gray]| [gray; 3]),
        DynamicImage::ImageLumaA8(image) => convert(&image, |[gray, _]| [gray; 3]),
        DynamicImage::ImageRgba8(image) => convert(&image, |[red, green, blue, _]| [red, green, blue]),
        // Pillow clips 16-bit gray levels and keeps the high byte of all other 16-bit samples.
        DynamicImage::ImageLuma16(image) => convert(&image, |[gray]: [u16; 1]| [gray.min(255) as u8; 3]),
        DynamicImage::ImageLumaA16(image) => convert(&image, |[gray, _]| [high_byte(gray); 3]),
        DynamicImage::ImageRgb16(image) => convert(&image, |pixel: [u16; 3]| pixel.map(high_byte)),
        DynamicImage::ImageRgba16(image) => convert(&image, |[red, green, blue, _]| [red, green, blue].map(high_byte)),
        other => return Err(Error::input(format!("{:?} samples are not supported", other.color()))),
    };
    from_samples(width, height, samples)
}

fn high_byte(sample: u16) -> u8 {
    (sample >> 8) as u8
}
