//! Features of what a model is given, from which distances between datasets are measured: means of its hidden states over
//! the image, the question, or both.
//!
//! Defined as in section 7.3 of the paper and in its authors' code. The question alone is a prompt whose image tokens are
//! masked, the image alone one whose text is masked. What is masked changes nothing, so it is left out here.

use std::fmt;
use std::str::FromStr;

use super::encoder::Modality;
use super::{Model, Request, with_trained};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::runtime::{DeviceTensor, Session};

/// A hidden state, counted as transformers counts `hidden_states`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layer {
    /// After the last layer and the norm that follows it, if one does (transformers' `last_hidden_state`).
    #[default]
    Last,
    /// After so many layers: 0 is what enters the first one. The last number is [`Layer::Last`] for a text decoder, and
    /// comes before the norm for an image tower.
    Hidden(usize),
}

impl Layer {
    /// Layers to compute of `layers`.
    ///
    /// # Errors
    /// Input error for a hidden state that there is none of.
    pub(super) fn depth(self, layers: usize) -> Result<usize> {
        match self {
            Self::Last => Ok(layers),
            Self::Hidden(depth) if depth <= layers => Ok(depth),
            Self::Hidden(depth) => {
                Err(Error::input(format!("there is no hidden state {depth}: there are {layers} layers"))
                    .hint(format!("give a number from 0 to {layers}, or `last`")))
            }
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::Hidden(depth) => write!(f, "{depth}"),
        }
    }
}

impl FromStr for Layer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(depth) => Ok(Self::Hidden(depth)),
            Err(_) if text == "last" => Ok(Self::Last),
            Err(_) => Err(Error::input(format!("`{text}` is no layer"))
                .hint("give `last`, or the number of a hidden state: 0 is what enters the first layer")),
        }
    }
}

/// The hidden states that features are means of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureLayers {
    /// For the image alone.
    pub vision: Layer,
    /// For the question alone and for both together.
    pub language: Layer,
}

impl FeatureLayers {
    /// The one for an encoder.
    pub fn of(&self, modality: Modality) -> Layer {
        match modality {
            Modality::Image => self.vision,
            Modality::Text => self.language,
        }
    }
}

/// The graphs of a family's features. Each has one output, `features` f32 `[rows, hidden]`.
pub struct FeatureGraphs {
    /// `image_features` and `positions` to the mean over image tokens.
    pub vision: Graph,
    /// `input_ids` and `positions` to the mean over text tokens.
    pub question: Graph,
    /// `image_features`, `image_rows`, `input_ids` and `positions` to the mean of the means over image and text tokens.
    pub joint: Graph,
}

/// The sessions of [`FeatureGraphs`].
pub(super) struct FeatureSessions {
    vision: Session,
    question: Session,
    joint: Session,
}

impl FeatureSessions {
    pub(super) fn new(graphs: &FeatureGraphs, session: impl Fn(&Graph) -> Result<Session>) -> Result<Self> {
        Ok(Self {
            vision: session(&graphs.vision)?,
            question: session(&graphs.question)?,
            joint: session(&graphs.joint)?,
        })
    }
}

impl Model {
    /// Features of images, f32 `[images, hidden]`, from those of the image tower.
    ///
    /// # Errors
    /// Internal error for a model that was loaded without features.
    pub fn vision_features(&mut self, image_features: &DeviceTensor) -> Result<Vec<f32>> {
        let images = image_features.shape().first().copied().unwrap_or(0);
        let positions: Vec<i64> = (1..=self.image_tokens as i64).collect();
        let positions = self.int_tensor([images, self.image_tokens], positions.repeat(images))?;
        let inputs = vec![("image_features", image_features), ("positions", &positions)];
        self.features(|sessions| &mut sessions.vision, inputs)
    }

    /// Features of prompts without their image, f32 `[prompts, hidden]`. `prompts` are tokens from
    /// [`super::text::TextProcessor::encode`].
    ///
    /// # Errors
    /// Internal error for a model that was loaded without features.
    pub fn question_features(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<f32>> {
        let (ids, positions) = self.prompt_inputs(prompts.iter().map(Vec::as_slice))?;
        let inputs = vec![("input_ids", &ids), ("positions", &positions)];
        self.features(|sessions| &mut sessions.question, inputs)
    }

    /// Features of prompts with their images, f32 `[requests, hidden]`, from those of the image tower.
    ///
    /// # Errors
    /// Internal error for a model that was loaded without features.
    pub fn joint_features(&mut self, image_features: &DeviceTensor, requests: &[Request]) -> Result<Vec<f32>> {
        let (ids, positions) = self.prompt_inputs(requests.iter().map(|request| request.tokens.as_slice()))?;
        let rows = self.int_vector(requests.iter().map(|request| request.image as i64).collect())?;
        let inputs = vec![
            ("image_features", image_features),
            ("image_rows", &rows),
            ("input_ids", &ids),
            ("positions", &positions),
        ];
        self.features(|sessions| &mut sessions.joint, inputs)
    }

    fn features(
        &mut self,
        session: impl Fn(&mut FeatureSessions) -> &mut Session,
        inputs: Vec<(&str, &DeviceTensor)>,
    ) -> Result<Vec<f32>> {
        let sessions = self.features.as_mut();
        let session = session(sessions.ok_or_else(|| Error::internal("the model was loaded without features"))?);
        let inputs = with_trained(&self.trained, session, inputs);
        let outputs = session.run(&inputs, &[], &["features"])?;
        let features = outputs.first().ok_or_else(|| Error::internal("the features have no result"))?;
        Ok(features.values::<f32>()?.to_vec())
    }
}
