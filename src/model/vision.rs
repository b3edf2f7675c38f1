//! From an RGB image to the numbers a vision tower reads, as the SigLIP processor of transformers computes
//! them on Pillow: resize, rescale, normalise.
//!
//! The results equal that processor's to the last bit. (On torchvision, which transformers prefers where it is
//! installed, the same processor resizes a little differently.)

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::resample::{Kernel, resize};
use crate::data::image::RgbImage;
use crate::error::{Error, Result};

const CHANNELS: usize = 3;

/// Files of a checkpoint that hold the settings, in the order transformers 5 prefers them.
const FILES: [&str; 2] = ["processor_config.json", "preprocessor_config.json"];

/// Names under which checkpoints refer to the SigLIP processor.
const PROCESSORS: [&str; 3] = ["SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil"];

/// The keys of a processor's settings that change its output.
#[derive(Deserialize)]
struct Settings {
    image_processor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<serde_json::Value>,
    resample: Option<i64>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<PerChannel>,
    image_std: Option<PerChannel>,
    do_center_crop: Option<bool>,
    do_pad: Option<bool>,
}

#[derive(Deserialize)]
struct Nested {
    image_processor: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Size {
    height: u32,
    width: u32,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PerChannel {
    All(f64),
    Each([f64; CHANNELS]),
}

impl PerChannel {
    fn values(self) -> [f64; CHANNELS] {
        match self {
            Self::All(value) => [value; CHANNELS],
            Self::Each(values) => values,
        }
    }
}

/// Turns images into pixel values of one size.
#[derive(Debug, Clone)]
pub struct ImageProcessor {
    width: u32,
    height: u32,
    resample: Option<Kernel>,
    rescale_factor: Option<f64>,
    mean_and_std: Option<[[f64; CHANNELS]; 2]>,
    /// Value of each level in each channel: there are only 256 levels.
    values: [[f32; 256]; CHANNELS],
}

impl ImageProcessor {
    /// Reads the settings from a checkpoint's `processor_config.json` (its `image_processor` object) or, if
    /// that has none, from `preprocessor_config.json`.
    ///
    /// # Errors
    /// Neither file holds settings, or they ask for something other than what this processor does.
    pub fn read(folder: &Path) -> Result<Self> {
        for name in FILES {
            let path = folder.join(name);
            let within = |error: Error| error.within(format!("cannot use the image settings in `{}`", path.display()));
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => continue,
                Err(cause) => return Err(within(Error::input("cannot read the file").caused_by(cause))),
            };
            if let Some(processor) = Self::from_json(&text, name == FILES[0]).map_err(within)? {
                return Ok(processor);
            }
        }
        let message = format!("no image settings in `{}`", folder.display());
        Err(Error::input(message).hint(format!("the folder needs one of {}", FILES.join(", "))))
    }

    /// The processor that a settings file describes; none if the settings should be nested and are not there.
    fn from_json(text: &str, nested: bool) -> Result<Option<Self>> {
        let invalid = |cause| Error::input("the JSON is not valid").caused_by(cause);
        if !nested {
            return Self::new(serde_json::from_str(text).map_err(invalid)?).map(Some);
        }
        let Nested { image_processor } = serde_json::from_str(text).map_err(invalid)?;
        let Some(inner) = image_processor else { return Ok(None) };
        Self::new(serde_json::from_value(inner).map_err(invalid)?).map(Some)
    }

    /// Missing keys are the defaults of `SiglipImageProcessor`.
    fn new(settings: Settings) -> Result<Self> {
        if let Some(name) = settings.image_processor_type.filter(|name| !PROCESSORS.contains(&name.as_str())) {
            let known = format!("supported: {}", PROCESSORS.join(", "));
            return Err(Error::input(format!("unknown image processor `{name}`")).hint(known));
        }
        for (key, wanted) in [("do_center_crop", settings.do_center_crop), ("do_pad", settings.do_pad)] {
            if wanted == Some(true) {
                return Err(Error::input(format!("`{key}` is not supported")));
            }
        }
        let Size { height, width } = read_size(settings.size)?;
        let resample = match settings.resample {
            None | Some(3) => Kernel::Bicubic,
            Some(2) => Kernel::Bilinear,
            Some(other) => {
                let error = Error::input(format!("`resample` {other} is not supported"));
                return Err(error.hint("supported: 2 (bilinear), 3 (bicubic)"));
            }
        };
        let rescale_factor = settings.rescale_factor.unwrap_or(1.0 / 255.0);
        let half = || PerChannel::All(0.5);
        let mean = settings.image_mean.unwrap_or_else(half).values();
        let std = settings.image_std.unwrap_or_else(half).values();
        if std.iter().any(|&value| value <= 0.0) {
            return Err(Error::input(format!("`image_std` must be positive, not {std:?}")));
        }
        let rescale_factor = settings.do_rescale.unwrap_or(true).then_some(rescale_factor);
        let mean_and_std = settings.do_normalize.unwrap_or(true).then_some([mean, std]);
        Ok(Self {
            width,
            height,
            resample: settings.do_resize.unwrap_or(true).then_some(resample),
            rescale_factor,
            mean_and_std,
            values: level_values(rescale_factor, mean_and_std),
        })
    }

    /// Height and width of every processed image.
    pub fn size(&self) -> (usize, usize) {
        (self.height as usize, self.width as usize)
    }

    /// Number of values that [`process`](Self::process) writes: 3 x height x width.
    pub fn output_len(&self) -> usize {
        CHANNELS * self.height as usize * self.width as usize
    }

    /// Writes the pixel values of an image to `out`: channels, then rows, then columns.
    ///
    /// # Errors
    /// `out` has another length than [`output_len`](Self::output_len), or the settings say not to resize and
    /// the image has another size.
    pub fn process(&self, image: &RgbImage, out: &mut [f32]) -> Result<()> {
        if out.len() != self.output_len() {
            let message = format!("{} pixel values do not fit into {}", self.output_len(), out.len());
            return Err(Error::internal(message));
        }
        let resized = self.resize(image)?;
        let plane = out.len() / CHANNELS;
        for (channel, (values, out)) in self.values.iter().zip(out.chunks_exact_mut(plane)).enumerate() {
            let levels = resized.as_raw().iter().skip(channel).step_by(CHANNELS);
            for (value, &level) in out.iter_mut().zip(levels) {
                *value = values[usize::from(level)];
            }
        }
        Ok(())
    }

    /// The image at the processor's size, as 8-bit levels; not resampled if it has that size.
    ///
    /// # Errors
    /// The image has no pixels, or the settings say not to resize and it has another size.
    pub fn resize<'a>(&self, image: &'a RgbImage) -> Result<Cow<'a, RgbImage>> {
        let (width, height) = image.dimensions();
        match self.resample {
            _ if width == 0 || height == 0 => Err(Error::input(format!("an image of {width} x {height} pixels"))),
            Some(kernel) => Ok(resize(image, self.width, self.height, kernel)),
            None if (width, height) == (self.width, self.height) => Ok(Cow::Borrowed(image)),
            None => {
                let needed = format!("where {} x {} are needed", self.width, self.height);
                let error = Error::input(format!("an image of {width} x {height} pixels {needed}"));
                Err(error.hint("the checkpoint says `do_resize: false`"))
            }
        }
    }

    /// What this processor does, in one line; equal lines mean equal output.
    pub fn describe(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for ImageProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resize = match self.resample {
            Some(Kernel::Bilinear) => "pillow-13-bilinear",
            Some(Kernel::Bicubic) => "pillow-13-bicubic",
            None => "as-is",
        };
        write!(f, "rgb {resize} {}x{}", self.width, self.height)?;
        if let Some(factor) = self.rescale_factor {
            write!(f, " rescale {factor}")?;
        }
        if let Some([mean, std]) = self.mean_and_std {
            write!(f, " mean {mean:?} std {std:?}")?;
        }
        Ok(())
    }
}

fn read_size(size: Option<serde_json::Value>) -> Result<Size> {
    let Some(value) = size else { return Ok(Size { height: 224, width: 224 }) };
    let unsupported = format!("`size` {value} is not supported");
    let hint = "supported: {\"height\": pixels, \"width\": pixels}";
    let size: Size =
        serde_json::from_value(value).map_err(|cause| Error::input(&unsupported).caused_by(cause).hint(hint))?;
    if size.height == 0 || size.width == 0 {
        return Err(Error::input(unsupported).hint(hint));
    }
    Ok(size)
}

/// The processor's arithmetic: rescale in f64 and round to f32, then normalise in f32
/// (`rescale` and `normalize` in transformers' `image_transforms.py`).
fn level_values(rescale_factor: Option<f64>, mean_and_std: Option<[[f64; CHANNELS]; 2]>) -> [[f32; 256]; CHANNELS] {
    let mut values = [[0.0; 256]; CHANNELS];
    for (channel, values) in values.iter_mut().enumerate() {
        for (level, value) in values.iter_mut().enumerate() {
            let rescaled = (level as f64 * rescale_factor.unwrap_or(1.0)) as f32;
            *value =
                mean_and_std.map_or(rescaled, |[mean, std]| (rescaled - mean[channel] as f32) / std[channel] as f32);
        }
    }
    values
}
