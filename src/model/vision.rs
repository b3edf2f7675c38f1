//! From an RGB image to the numbers a vision tower reads, as the SigLIP and ViT processors of transformers compute
//! them on Pillow: resize, rescale, normalise.
//!
//! The results equal those processors' to the last bit. (On torchvision, which transformers prefers where it is
//! installed, the same processors resize a little differently.)

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

/// An image processor of transformers: what it does where a settings file does not say.
#[derive(Debug)]
pub struct ProcessorKind {
    /// Names under which checkpoints refer to it.
    names: &'static [&'static str],
    resample: Kernel,
    /// Whether a `size` of one number is the side of a square; else it is that of the shorter edge.
    square: bool,
}

/// `SiglipImageProcessor`.
pub static SIGLIP: ProcessorKind = ProcessorKind {
    names: &["SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil"],
    resample: Kernel::Bicubic,
    square: false,
};

/// `ViTImageProcessor`, which older files call a feature extractor.
pub static VIT: ProcessorKind = ProcessorKind {
    names: &["ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor"],
    resample: Kernel::Bilinear,
    square: true,
};

impl ProcessorKind {
    /// The processor of this name.
    fn named(name: &str) -> Result<&'static Self> {
        let kinds = [&SIGLIP, &VIT];
        kinds.into_iter().find(|kind| kind.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> = kinds.iter().filter_map(|kind| kind.names.first()).copied().collect();
            Error::input(format!("unknown image processor `{name}`")).hint(format!("supported: {}", known.join(", ")))
        })
    }
}

/// The keys of a processor's settings that change its output.
#[derive(Deserialize)]
struct Settings {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
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
    /// that has none, from `preprocessor_config.json`. Those that name no processor are for SigLIP's.
    ///
    /// # Errors
    /// Neither file holds settings, or they ask for something other than what this processor does.
    pub fn read(folder: &Path) -> Result<Self> {
        Self::read_for(folder, &SIGLIP)
    }

    /// As [`ImageProcessor::read`]; settings that name no processor are for the given one.
    ///
    /// # Errors
    /// As [`ImageProcessor::read`].
    pub fn read_for(folder: &Path, kind: &'static ProcessorKind) -> Result<Self> {
        for name in FILES {
            let path = folder.join(name);
            let within = |error: Error| error.within(format!("cannot use the image settings in `{}`", path.display()));
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => continue,
                Err(cause) => return Err(within(Error::input("cannot read the file").caused_by(cause))),
            };
            if let Some(processor) = Self::from_json(&text, name == FILES[0], kind).map_err(within)? {
                return Ok(processor);
            }
        }
        let message = format!("no image settings in `{}`", folder.display());
        Err(Error::input(message).hint(format!("the folder needs one of {}", FILES.join(", "))))
    }

    /// The processor that a settings file describes; none if the settings should be nested and are not there.
    fn from_json(text: &str, nested: bool, kind: &'static ProcessorKind) -> Result<Option<Self>> {
        let invalid = |cause| Error::input("the JSON is not valid").caused_by(cause);
        if !nested {
            return Self::new(serde_json::from_str(text).map_err(invalid)?, kind).map(Some);
        }
        let Nested { image_processor } = serde_json::from_str(text).map_err(invalid)?;
        let Some(inner) = image_processor else { return Ok(None) };
        Self::new(serde_json::from_value(inner).map_err(invalid)?, kind).map(Some)
    }

    /// Missing keys are the defaults of the processor that is named, or else of `kind`.
    fn new(settings: Settings, kind: &'static ProcessorKind) -> Result<Self> {
        let kind = match settings.image_processor_type.or(settings.feature_extractor_type) {
            Some(name) => ProcessorKind::named(&name)?,
            None => kind,
        };
        for (key, wanted) in [("do_center_crop", settings.do_center_crop), ("do_pad", settings.do_pad)] {
            if wanted == Some(true) {
                return Err(Error::input(format!("`{key}` is not supported")));
            }
        }
        let Size { height, width } = read_size(settings.size, kind)?;
        let resample = match settings.resample {
            None => kind.resample,
            Some(3) => Kernel::Bicubic,
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

fn read_size(size: Option<serde_json::Value>, kind: &ProcessorKind) -> Result<Size> {
    let Some(value) = size else { return Ok(Size { height: 224, width: 224 }) };
    let unsupported = format!("`size` {value} is not supported");
    let hint = "supported: {\"height\": pixels, \"width\": pixels}";
    let side = value.as_u64().and_then(|side| u32::try_from(side).ok()).filter(|_| kind.square);
    let size: Size = match side {
        Some(side) => Size { height: side, width: side },
        None => {
            serde_json::from_value(value).map_err(|cause| Error::input(&unsupported).caused_by(cause).hint(hint))?
        }
    };
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
