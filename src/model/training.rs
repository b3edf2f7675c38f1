//! What trains and on what: the choice of parameters, the graph of the loss, and batches for it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::graph::{Graph, IGNORED_LABEL, matches_pattern};
use crate::random::Random;
use crate::tensor::Tensor;

/// Which tensors are inputs of a model's graphs, so that their values can change between calls.
#[derive(Debug, Clone, Default)]
pub struct Trained {
    /// Which parameters of the checkpoint.
    pub parameters: Parameters,
    /// LoRA matrices beside linear layers.
    pub adapter: Option<Lora>,
}

/// LoRA: `x W^T + scale * (dropout(x) A^T) B^T` beside the weights `W` of linear layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// The product is scaled by this over the rank.
    pub alpha: f32,
    /// Share of the input's elements that are removed while training.
    pub dropout: f32,
    /// Names of the layers, as PEFT matches them: the last parts of the path of a module.
    pub targets: Vec<String>,
}

impl FromStr for Lora {
    type Err = Error;

    /// Reads a text such as `r=8,alpha=16,dropout=0.05,targets=q_proj+v_proj`; alpha is twice the rank and dropout 0 where
    /// they are left out.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: String| Error::input(what).hint("write r=8,alpha=16,dropout=0.05,targets=q_proj+v_proj");
        let (mut rank, mut alpha, mut dropout, mut targets) = (None, None, 0.0, Vec::new());
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| wrong(format!("`{part}` is no setting of LoRA")))?;
            let bad = || wrong(format!("`{value}` cannot be `{key}` of LoRA"));
            match key.trim() {
                "r" => rank = Some(value.parse().ok().filter(|rank| *rank > 0).ok_or_else(bad)?),
                "alpha" => alpha = Some(value.parse().ok().filter(|alpha: &f32| alpha.is_finite()).ok_or_else(bad)?),
                "dropout" => dropout = value.parse().ok().filter(|share| (0.0..1.0).contains(share)).ok_or_else(bad)?,
                "targets" => targets = value.split('+').map(|target| target.trim().to_owned()).collect(),
                _ => return Err(wrong(format!("LoRA has no setting `{key}`"))),
            }
        }
        let rank: usize = rank.ok_or_else(|| wrong("LoRA needs a rank".to_owned()))?;
        if targets.is_empty() || targets.iter().any(String::is_empty) {
            return Err(wrong("LoRA needs targets".to_owned()));
        }
        Ok(Self { rank, alpha: alpha.unwrap_or(2.0 * rank as f32), dropout, targets })
    }
}

impl Lora {
    /// What the product is scaled by.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Whether the layer at this path has matrices of its own.
    pub fn includes(&self, module: &str) -> bool {
        super::adapter::matches(&self.targets, module)
    }
}

/// Which parameters of a checkpoint train.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Parameters {
    /// None: they are part of the graphs.
    #[default]
    None,
    /// All.
    All,
    /// The matrix that makes logits (with the token embedding, if the two are tied).
    Head,
    /// Weights and biases of normalisation layers, and the head.
    NormsAndHead,
    /// Those whose name in the checkpoint matches one of the patterns, in which `*` stands for any text.
    Matching(Vec<String>),
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::All => f.write_str("all"),
            Self::Head => f.write_str("head"),
            Self::NormsAndHead => f.write_str("norms+head"),
            Self::Matching(patterns) => f.write_str(&patterns.join(" ")),
        }
    }
}

impl fmt::Display for Lora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, alpha, dropout, targets } = self;
        write!(f, "r={rank},alpha={alpha},dropout={dropout},targets={}", targets.join("+"))
    }
}

/// What a parameter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The matrix that makes logits.
    Head,
    /// Part of a normalisation layer.
    Norm,
    /// Anything else.
    Inner,
}

impl Parameters {
    /// A pattern that matches none of the trained tensors.
    pub fn unmatched(&self, trained: &[TrainedTensor]) -> Option<&str> {
        let Self::Matching(patterns) = self else { return None };
        let unmatched = |pattern: &&String| !trained.iter().any(|tensor| matches_pattern(pattern, &tensor.name));
        patterns.iter().find(unmatched).map(String::as_str)
    }

    /// Whether the parameter with this name in the checkpoint trains.
    pub fn include(&self, name: &str, role: Role) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Head => role == Role::Head,
            Self::NormsAndHead => role != Role::Inner,
            Self::Matching(patterns) => patterns.iter().any(|pattern| matches_pattern(pattern, name)),
        }
    }
}

/// A tensor that a graph takes as an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainedTensor {
    /// Its name in the checkpoint or, for LoRA matrices, in `adapter_model.safetensors`; also that of the input.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
}

/// The rows of a layer's input that a dropout mask covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskedRows {
    /// One for each patch of each image.
    Patches,
    /// One for each token of each row, `[batch, tokens, width]`.
    Tokens,
    /// One for each column of `answer_columns` of each row, `[batch, answer, width]`.
    Answer,
    /// The same without their own dimension, `[batch * answer, width]`.
    FlatAnswer,
}

/// An input of a training graph that says which elements of a layer's input dropout keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Name of the input.
    pub name: String,
    /// Which rows.
    pub rows: MaskedRows,
    /// Elements per row.
    pub width: usize,
}

/// The loss of a batch as a graph, and what it takes.
#[derive(Debug)]
pub struct TrainingGraph {
    /// Output `loss`: f32, the sum of the cross-entropies of all answer tokens.
    pub graph: Graph,
    /// The tensors that train, in the order the graph names them.
    pub trained: Vec<TrainedTensor>,
    /// Dropout masks.
    pub masks: Vec<Mask>,
    /// Tokens that stand for one image.
    pub image_tokens: usize,
    /// Scopes of the layers, which can be computed again on the way back.
    pub layers: Vec<String>,
}

/// A prompt about an image and the answer to learn.
#[derive(Debug, Clone)]
pub struct Example {
    /// Tokens of the prompt, from [`super::text::TextProcessor::encode`].
    pub prompt: Vec<u32>,
    /// Tokens of the answer with the end token, from [`super::text::TextProcessor::encode_answer`].
    pub answer: Vec<u32>,
    /// Row of the image in the batch's pixels.
    pub image: usize,
}

/// Turns examples into inputs of a [`TrainingGraph`].
#[derive(Debug, Clone)]
pub struct Collation {
    /// Tokens that stand for one image.
    pub image_tokens: usize,
    /// Masks to draw.
    pub masks: Arc<[Mask]>,
    /// Share of elements that dropout removes.
    pub dropout: f32,
}

impl Collation {
    /// The same for the graph without masks.
    pub fn without_dropout(&self) -> Self {
        Self { image_tokens: self.image_tokens, masks: Arc::new([]), dropout: 0.0 }
    }

    /// The inputs for examples about `pixels`, f32 `[images, channels, height, width]`; dropout masks are drawn from
    /// `seed` and their names alone. Also the number of answer tokens.
    ///
    /// # Errors
    /// Internal error for a batch without examples or with an empty answer.
    pub fn batch(&self, examples: &[Example], pixels: Tensor, seed: u64) -> Result<(Vec<(String, Tensor)>, usize)> {
        if examples.is_empty() || examples.iter().any(|example| example.prompt.is_empty() || example.answer.is_empty())
        {
            return Err(Error::internal("an empty batch, prompt or answer"));
        }
        let layout = Layout::of(examples);
        let images = pixels.shape().first().copied().unwrap_or(0);
        let mut inputs = vec![("pixel_values".to_owned(), pixels)];
        inputs.extend(layout.inputs(examples, self.image_tokens)?);
        for mask in self.masks.iter() {
            inputs.push((mask.name.clone(), self.draw(mask, &layout, images, seed)?));
        }
        Ok((inputs, examples.iter().map(|example| example.answer.len()).sum()))
    }

    fn draw(&self, mask: &Mask, layout: &Layout, images: usize, seed: u64) -> Result<Tensor> {
        let shape = match mask.rows {
            MaskedRows::Patches => vec![images * self.image_tokens, mask.width],
            MaskedRows::Tokens => vec![layout.batch, self.image_tokens + layout.width, mask.width],
            MaskedRows::Answer => vec![layout.batch, layout.answer, mask.width],
            MaskedRows::FlatAnswer => vec![layout.batch * layout.answer, mask.width],
        };
        let random = Random::new(seed).name(&mask.name);
        let limit = (f64::from(self.dropout) * 65_536.0).round() as u64;
        let count: usize = shape.iter().product();
        // Four draws of 16 bits from each number.
        let kept = |index: usize| (random.bits(index as u64 / 4) >> (16 * (index % 4))) & 0xffff >= limit;
        Tensor::new(shape, (0..count).map(kept).collect::<Vec<bool>>())
    }
}

/// How a batch is laid out: image tokens, padding, prompt, answer; all rows end together, and the last token of an answer
/// is only a label.
struct Layout {
    batch: usize,
    /// Columns after the image tokens.
    width: usize,
    /// Columns whose next token counts in some row.
    answer: usize,
}

impl Layout {
    fn of(examples: &[Example]) -> Self {
        let length = |example: &Example| example.prompt.len() + example.answer.len() - 1;
        Self {
            batch: examples.len(),
            width: examples.iter().map(length).max().unwrap_or(0),
            answer: examples.iter().map(|example| example.answer.len()).max().unwrap_or(0),
        }
    }

    fn inputs(&self, examples: &[Example], image_tokens: usize) -> Result<Vec<(String, Tensor)>> {
        let (mut ids, mut positions, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for example in examples {
            let fed = example.prompt.iter().chain(&example.answer[..example.answer.len() - 1]);
            let length = example.prompt.len() + example.answer.len() - 1;
            let padding = self.width - length;
            ids.extend(std::iter::repeat_n(0, padding).chain(fed.map(|token| i64::from(*token))));
            let first = image_tokens as i64 + 1;
            positions.extend(std::iter::repeat_n(0, padding).chain(first..first + length as i64));
            labels.extend(std::iter::repeat_n(IGNORED_LABEL, self.answer - example.answer.len()));
            labels.extend(example.answer.iter().map(|token| i64::from(*token)));
        }
        let ends = examples.iter().map(|example| (image_tokens + example.prompt.len()) as i64).collect::<Vec<_>>();
        let columns = image_tokens + self.width - self.answer..image_tokens + self.width;
        let rows = examples.iter().map(|example| example.image as i64).collect::<Vec<_>>();
        let named = [
            ("image_rows", Tensor::vector(rows)),
            ("input_ids", Tensor::new([self.batch, self.width], ids)?),
            ("positions", Tensor::new([self.batch, self.width], positions)?),
            ("prompt_ends", Tensor::new([self.batch, 1], ends)?),
            ("answer_columns", Tensor::vector(columns.map(|column| column as i64).collect::<Vec<_>>())),
            ("labels", Tensor::new([self.batch, self.answer], labels)?),
        ];
        Ok(named.map(|(name, tensor)| (name.to_owned(), tensor)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lora_settings_are_read_and_refused() {
        let lora: Lora = "r=8,alpha=16,dropout=0.05,targets=q_proj+v_proj".parse().unwrap();
        assert_eq!(lora.to_string(), "r=8,alpha=16,dropout=0.05,targets=q_proj+v_proj");
        assert_eq!(lora.scale(), 2.0);
        assert!(lora.includes("a.q_proj") && !lora.includes("a.xq_proj") && !lora.includes("a.q_proj.b"));
        for (text, message) in [
            ("r=0,targets=a", "`0` cannot be `r` of LoRA"),
            ("r=4", "LoRA needs targets"),
            ("targets=a", "LoRA needs a rank"),
            ("r=4,targets=a+", "LoRA needs targets"),
            ("r=4,dropout=1,targets=a", "`1` cannot be `dropout` of LoRA"),
            ("rank=4", "LoRA has no setting `rank`"),
            ("4", "`4` is no setting of LoRA"),
        ] {
            assert_eq!(text.parse::<Lora>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn rows_end_together_and_answers_are_labels() {
        let example =
            |prompt: &[u32], answer: &[u32], image| Example { prompt: prompt.into(), answer: answer.into(), image };
        let collation = Collation { image_tokens: 4, masks: Arc::new([]), dropout: 0.0 };
        let pixels = Tensor::new([2, 3, 1, 1], vec![0f32; 6]).unwrap();
        let examples = [example(&[2, 10, 11, 9], &[7, 8, 1], 1), example(&[2, 9], &[6, 1], 0)];
        let (inputs, count) = collation.batch(&examples, pixels, 0).unwrap();
        assert_eq!(count, 5);
        let find = |name: &str| inputs.iter().find(|(key, _)| key == name).unwrap().1.values::<i64>().unwrap();
        assert_eq!(find("input_ids"), [2, 10, 11, 9, 7, 8, 0, 0, 0, 2, 9, 6]);
        assert_eq!(find("positions"), [5, 6, 7, 8, 9, 10, 0, 0, 0, 5, 6, 7]);
        assert_eq!(find("prompt_ends"), [8, 6]);
        assert_eq!(find("answer_columns"), [7, 8, 9]);
        assert_eq!(find("labels"), [7, 8, 1, IGNORED_LABEL, 6, 1]);
        assert_eq!(find("image_rows"), [1, 0]);
    }

    #[test]
    fn masks_depend_on_seed_and_name_alone_and_keep_the_right_share() {
        let mask = |name: &str| Mask { name: name.to_owned(), rows: MaskedRows::FlatAnswer, width: 5_000 };
        let layout = Layout { batch: 4, width: 3, answer: 2 };
        let collation = Collation { image_tokens: 4, masks: Arc::new([]), dropout: 0.25 };
        let drawn = collation.draw(&mask("a"), &layout, 1, 7).unwrap();
        assert_eq!(collation.draw(&mask("a"), &layout, 9, 7).unwrap(), drawn);
        assert_ne!(collation.draw(&mask("b"), &layout, 1, 7).unwrap(), drawn);
        assert_ne!(collation.draw(&mask("a"), &layout, 1, 8).unwrap(), drawn);
        let kept = drawn.values::<bool>().unwrap().iter().filter(|kept| **kept).count();
        // Five standard deviations of a binomial count.
        assert!((kept as f64 - 30_000.0).abs() < 5.0 * (40_000.0f64 * 0.25 * 0.75).sqrt(), "{kept}");
    }
}
