//! What ViT and BERT share: settings, parameters, attention and feed-forward layers.

use std::ops::{Deref, DerefMut};

use serde_json::Value as Json;

use super::EncoderCheckpoint;
use crate::error::{Error, Result};
use crate::graph::{Attribute, Builder, Dim, Graph, Type, Value};
use crate::model::weights::Placement;
use crate::tensor::DType;

/// The keys of a `config.json`. One that is missing or null has the default of transformers.
pub(super) struct Settings<'a> {
    source: &'a EncoderCheckpoint,
}

impl<'a> Settings<'a> {
    pub(super) fn of(source: &'a EncoderCheckpoint) -> Self {
        Self { source }
    }

    fn get(&self, key: &str) -> Option<&'a Json> {
        self.source.config.get(key).filter(|value| !value.is_null())
    }

    fn read<T>(&self, key: &str, default: T, wanted: &str, read: impl Fn(&Json) -> Option<T>) -> Result<T> {
        let Some(value) = self.get(key) else { return Ok(default) };
        read(value).ok_or_else(|| {
            self.source.in_config(
                Error::input(format!("`{key}` {value} is not supported")).hint(format!("supported: {wanted}")),
            )
        })
    }

    /// A positive number that fits into memory.
    pub(super) fn number(&self, key: &str, default: usize) -> Result<usize> {
        let small = |value: &Json| value.as_u64().filter(|number| (1..1 << 32).contains(number));
        self.read(key, default, "a positive number", |value| {
            small(value).and_then(|number| usize::try_from(number).ok())
        })
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.read(key, default, "true, false", Json::as_bool)
    }

    /// Refuses any value but the one that the graphs are made for.
    pub(super) fn require(&self, key: &str, only: &Json) -> Result<()> {
        self.read(key, (), &only.to_string(), |value| (value == only).then_some(()))
    }
}

/// What a feed-forward layer applies between its two products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activation {
    /// GELU through the error function or its approximation by tanh, as the attribute `approximate` names them.
    Gelu(&'static str),
    Relu,
}

/// Activations by their names in transformers.
const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu("none")),
    ("gelu_new", Activation::Gelu("tanh")),
    ("gelu_pytorch_tanh", Activation::Gelu("tanh")),
    ("relu", Activation::Relu),
];

/// The sizes that `ViTConfig` and `BertConfig` have in common, with the same defaults.
pub(super) struct Sizes {
    pub width: usize,
    pub layers: usize,
    inner: usize,
    heads: usize,
    activation: Activation,
    epsilon: f32,
}

impl Sizes {
    pub(super) fn read(settings: &Settings) -> Result<Self> {
        let (width, heads) = (settings.number("hidden_size", 768)?, settings.number("num_attention_heads", 12)?);
        if !width.is_multiple_of(heads) {
            let message = format!("`hidden_size` {width} does not divide into `num_attention_heads` {heads}");
            return Err(settings.source.in_config(Error::input(message)));
        }
        let named =
            |value: &Json| ACTIVATIONS.iter().find(|(name, _)| value == name).map(|(_, activation)| *activation);
        let known: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
        let epsilon = |value: &Json| value.as_f64().filter(|epsilon| (0.0..1.0).contains(epsilon));
        Ok(Self {
            width,
            layers: settings.number("num_hidden_layers", 12)?,
            inner: settings.number("intermediate_size", 3072)?,
            heads,
            activation: settings.read("hidden_act", Activation::Gelu("none"), &known.join(", "), named)?,
            epsilon: settings.read("layer_norm_eps", 1e-12, "a number from 0 to 1", epsilon)? as f32,
        })
    }
}

/// How the tensors of a family are called in its checkpoints.
pub(super) struct Spelling {
    /// What stands before the names where the encoder is part of a model.
    pub prefix: &'static str,
    /// Parts of names, and what other checkpoints have in their place; replaced in this order.
    pub other: &'static [(&'static str, &'static str)],
}

impl Spelling {
    fn respelled(&self, name: &str) -> String {
        self.other.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
    }
}

/// Emits one graph over the parameters of a checkpoint, in f32.
pub(super) struct Emitter<'a, 'w> {
    builder: Builder,
    placement: &'a mut Placement<'w>,
    sizes: &'a Sizes,
    spelling: &'static Spelling,
    /// What stands before the names in this checkpoint.
    prefix: &'static str,
}

impl<'a, 'w> Emitter<'a, 'w> {
    pub(super) fn new(placement: &'a mut Placement<'w>, sizes: &'a Sizes, spelling: &'static Spelling) -> Self {
        let names = placement.weights().names();
        let prefix = if names.iter().any(|name| name.starts_with(spelling.prefix)) { spelling.prefix } else { "" };
        Self { builder: Builder::new("encoder"), placement, sizes, spelling, prefix }
    }

    /// Emits the nodes of `body` under `scope` in node names.
    pub(super) fn scoped<T>(&mut self, scope: &str, body: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.builder.enter(scope);
        let result = body(self);
        self.builder.leave();
        result
    }

    /// The parameter of this name, or of its other spelling.
    pub(super) fn parameter(&mut self, name: &str, dims: &[usize]) -> Result<Value> {
        let first = format!("{}{name}", self.prefix);
        let other = format!("{}{}", self.prefix, self.spelling.respelled(name));
        let weights = self.placement.weights();
        let stored = if !weights.contains(&first) && weights.contains(&other) { other } else { first };
        let ty = Type::new(DType::F32, dims.iter().copied().map(Dim::Fixed).collect::<Vec<_>>());
        self.builder.parameter(&stored, &ty, || self.placement.place(&stored, &ty))
    }

    /// `x W^T + b` with a weight of shape `[outputs, inputs]`, the bias where there is one.
    fn linear(&mut self, x: Value, name: &str, size: [usize; 2], bias: bool) -> Result<Value> {
        let weight = self.parameter(&format!("{name}.weight"), &size)?;
        let transposed = self.transpose(weight, &[1, 0])?;
        let product = self.matmul(x, transposed)?;
        if !bias {
            return Ok(product);
        }
        let bias = self.parameter(&format!("{name}.bias"), &size[..1])?;
        self.add(product, bias)
    }

    pub(super) fn layer_norm(&mut self, x: Value, name: &str) -> Result<Value> {
        let weight = self.parameter(&format!("{name}.weight"), &[self.sizes.width])?;
        let bias = self.parameter(&format!("{name}.bias"), &[self.sizes.width])?;
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(self.sizes.epsilon))];
        self.op("LayerNormalization", &[x, weight, bias], &attributes)
    }

    /// Self-attention of the module `name` over `x` `[rows, tokens, width]`, its output layer included. Queries, keys and
    /// values belong to the module's part `projections`, with biases or without; the mask is added to the scores.
    pub(super) fn attention(
        &mut self,
        x: Value,
        name: &str,
        (projections, biases): (&str, bool),
        mask: Option<Value>,
    ) -> Result<Value> {
        let (width, heads) = (self.sizes.width, self.sizes.heads);
        let head_size = width / heads;
        let projected = |emitter: &mut Self, part: &str, order: &[i64]| {
            let value = emitter.linear(x, &format!("{name}.{projections}.{part}"), [width, width], biases)?;
            let value = emitter.reshape(value, &[0, 0, heads as i64, head_size as i64])?;
            emitter.transpose(value, order)
        };
        let query = projected(self, "query", &[0, 2, 1, 3])?;
        let key = projected(self, "key", &[0, 2, 3, 1])?;
        let value = projected(self, "value", &[0, 2, 1, 3])?;
        let scores = self.matmul(query, key)?;
        let scores = self.scale(scores, (head_size as f64).powf(-0.5) as f32)?;
        let scores = if let Some(mask) = mask { self.add(scores, mask)? } else { scores };
        let weights = self.softmax(scores)?;
        let context = self.matmul(weights, value)?;
        let context = self.transpose(context, &[0, 2, 1, 3])?;
        let context = self.reshape(context, &[0, 0, width as i64])?;
        self.linear(context, &format!("{name}.output.dense"), [width, width], true)
    }

    /// The two products of the layer `name` and the activation between them.
    pub(super) fn feed_forward(&mut self, x: Value, name: &str) -> Result<Value> {
        let (width, inner) = (self.sizes.width, self.sizes.inner);
        let wide = self.linear(x, &format!("{name}.intermediate.dense"), [inner, width], true)?;
        let wide = match self.sizes.activation {
            Activation::Gelu(form) => self.op("Gelu", &[wide], &[("approximate", Attribute::Text(form.to_owned()))])?,
            Activation::Relu => self.op("Relu", &[wide], &[])?,
        };
        self.linear(wide, &format!("{name}.output.dense"), [width, inner], true)
    }

    /// The graph with the output `features`.
    pub(super) fn finish(mut self, features: Value) -> Result<Graph> {
        self.output("features", features)?;
        Ok(self.builder.finish())
    }
}

impl Deref for Emitter<'_, '_> {
    type Target = Builder;

    fn deref(&self) -> &Builder {
        &self.builder
    }
}

impl DerefMut for Emitter<'_, '_> {
    fn deref_mut(&mut self) -> &mut Builder {
        &mut self.builder
    }
}
