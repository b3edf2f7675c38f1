//! Attention and rotary position embeddings.

use super::dims::remaining;
use super::{Attribute, Attributes, Builder, Case, Dim, Gradient, Op, Site, Tensor, Type, Use, Value, same};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "RotaryEmbedding", shape: rotary, gradient: Gradient::Rule(rotate_back), cases: rotary_cases },
    Op { name: "Attention", shape: attention, gradient: Gradient::Rule(attention_gradient), cases: attention_cases },
];

fn rotary_cases() -> Vec<Case> {
    vec![
        rotated("batch,3,tokens,4"),
        rotated("batch,3,tokens,4").int("interleaved", 1),
        rotated("batch,tokens,12").int("num_heads", 3),
        rotated("batch,3,tokens,6").int("rotary_embedding_dim", 4),
        Case::new().input("2,3,4,4").constant(angles(&[2, 4, 2], f32::cos)).constant(angles(&[2, 4, 2], f32::sin)),
    ]
}

/// Heads of which four numbers are rotated by tables of 160 positions. The tables are constants: they carry no gradient.
fn rotated(input: &str) -> Case {
    let case = Case::new().input(input).constant(angles(&[160, 2], f32::cos)).constant(angles(&[160, 2], f32::sin));
    case.input("i7:batch,tokens")
}

fn angles(shape: &[usize], of: fn(f32) -> f32) -> Tensor {
    let values = (0..shape.iter().product()).map(|index: usize| of(0.3 * index as f32)).collect();
    Tensor::new(shape, values).unwrap_or_else(|_| Tensor::scalar(0f32))
}

fn rotary(site: &Site) -> Result<Vec<Type>> {
    let input = site.input(0)?;
    match (input.dims.len(), site.int("num_heads").unwrap_or(0)) {
        (4, _) | (3, 1..) => same(site),
        (3, _) => Err(Error::internal(format!("`num_heads` is missing for {input}"))),
        _ => Err(Error::internal(format!("{input} has neither three nor four dimensions"))),
    }
}

/// The gradient is rotated back: by the same angles with negated sines. The tables of angles have no gradient.
fn rotate_back(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let sines = builder.op("Neg", &[site.input(2)?], &[])?;
    let mut inputs = vec![Some(site.gradient()?), Some(site.input(1)?), Some(sines)];
    inputs.extend(site.optional(3).map(Some));
    let attributes: Vec<_> = site.node.attributes.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    Ok(vec![Some(builder.node("RotaryEmbedding", &inputs, &attributes)?[0])])
}

fn attention_cases() -> Vec<Case> {
    let heads = |query: &str, key: &str, value: &str| Case::new().input(query).input(key).input(value);
    let square = || heads("2,4,tokens,6", "2,2,tokens,6", "2,2,tokens,3");
    let softcap = ("softcap", Attribute::Float(1.5));
    vec![
        heads("batch,2,tokens,4", "batch,2,past,4", "batch,2,past,4"),
        square().int("is_causal", 1).with("scale", Attribute::Float(0.7)),
        square().input("b:tokens,tokens"),
        heads("2,4,5,6", "2,2,5,6", "2,2,5,3").constant(first_and_some(5)).int("is_causal", 1),
        square().input("2,4,tokens,tokens").int("is_causal", 1),
        square().with(softcap.0, softcap.1.clone()),
        square().input("1,tokens,tokens").with(softcap.0, softcap.1.clone()),
        square().int("is_causal", 1).with(softcap.0, softcap.1),
        heads("2,tokens,8", "2,past,4", "2,past,6").input("tokens,past").int("q_num_heads", 4).int("kv_num_heads", 2),
    ]
}

/// A mask by which each of `tokens` queries sees the first key and some others: ONNX Runtime has no result for one that
/// sees none.
fn first_and_some(tokens: usize) -> Tensor {
    let visible = (0..tokens * tokens).map(|index| index % tokens == 0 || index % 3 == 1).collect::<Vec<bool>>();
    Tensor::new([tokens, tokens], visible).unwrap_or_else(|_| Tensor::scalar(true))
}

/// The sizes that attention is computed with.
struct Heads {
    /// Heads of the queries, and those of keys and values, each of which serves the same number of query heads.
    query: Dim,
    key: Dim,
    /// Whether heads lie side by side in the last dimension.
    joined: bool,
}

impl Heads {
    fn of(attributes: Attributes, query: &Type, key: &Type) -> Result<Self> {
        let given = |name: &str| match attributes.int(name) {
            Some(count @ 1..) => Ok(Dim::Fixed(count as usize)),
            _ => Err(Error::internal(format!("`{name}` is missing for {query} and {key}"))),
        };
        match (query.dims.len(), key.dims.len()) {
            (4, 4) => Ok(Self { query: query.dims[1].clone(), key: key.dims[1].clone(), joined: false }),
            (3, 3) => Ok(Self { query: given("q_num_heads")?, key: given("kv_num_heads")?, joined: true }),
            _ => Err(Error::internal(format!("{query} and {key} have neither three nor four dimensions"))),
        }
    }

    /// Size of each of `count` heads of an input.
    fn size(&self, ty: &Type, count: &Dim) -> Result<Dim> {
        let last = ty.dims[ty.dims.len() - 1].clone();
        if self.joined { remaining(&[last], std::slice::from_ref(count)) } else { Ok(last) }
    }

    /// Whether keys serve several query heads.
    fn shared(&self) -> Result<bool> {
        match (&self.query, &self.key) {
            (Dim::Fixed(query), Dim::Fixed(key)) if query % key == 0 => Ok(query != key),
            (query, key) if query == key && *key != Dim::Unknown => Ok(false),
            (query, key) => Err(Error::input(format!("{query} heads of queries cannot share {key} heads of keys"))
                .hint("export the model with fixed numbers of heads, the first a multiple of the second")),
        }
    }
}

/// How heads are laid out for the products.
impl Heads {
    /// An input as `[batch, head, token, size]`.
    fn split(&self, builder: &mut Builder, value: Value, count: &Dim) -> Result<Value> {
        let (true, Dim::Fixed(count)) = (self.joined, count) else { return Ok(value) };
        let split = builder.reshape(value, &[0, 0, *count as i64, -1])?;
        builder.transpose(split, &[0, 2, 1, 3])
    }

    /// The reverse of [`Heads::split`].
    fn join(&self, builder: &mut Builder, value: Value) -> Result<Value> {
        if !self.joined {
            return Ok(value);
        }
        let moved = builder.transpose(value, &[0, 2, 1, 3])?;
        builder.reshape(moved, &[0, 0, -1])
    }

    /// `[batch, head, row, column]` with the rows of as many heads joined, or split, as leaves `count` heads.
    fn regroup(&self, builder: &mut Builder, value: Value, count: &Dim) -> Result<Value> {
        let ty = builder.ty(value)?.clone();
        let (true, Dim::Fixed(number)) = (self.shared()?, count) else { return Ok(value) };
        let leading = builder.ints(&[0, *number as i64, -1])?;
        let shape = builder.op("Shape", &[value], &[])?;
        let columns = builder.slice(shape, 0, 3, i64::MAX)?;
        let shape = builder.concat(&[leading, columns], 0)?;
        let result = builder.op("Reshape", &[value, shape], &[])?;
        let rows = remaining(&ty.dims[1..3], std::slice::from_ref(count))?;
        let dims = vec![ty.dims[0].clone(), count.clone(), rows, ty.dims[3].clone()];
        builder.assume(result, Type { dtype: ty.dtype, dims });
        Ok(result)
    }
}

fn attention(site: &Site) -> Result<Vec<Type>> {
    let (query, key, value) = (site.input(0)?, site.input(1)?, site.input(2)?);
    let heads = Heads::of(site.attributes, query, key)?;
    let (tokens, past) = (if heads.joined { 1 } else { 2 }, site.optional(4).is_some());
    if value.dims.len() != key.dims.len() || key.dtype != query.dtype {
        return Err(Error::internal(format!("inputs are {query}, {key} and {value}")));
    }
    let (head, value_head) = (heads.size(key, &heads.key)?, heads.size(value, &heads.key)?);
    let mut result = query.dims.clone();
    result[query.dims.len() - 1] = match (&value_head, heads.joined) {
        (size, false) => size.clone(),
        (size, true) => remaining(&[heads.query.clone(), size.clone()], &[])?,
    };
    let length = if past { Dim::Unknown } else { key.dims[tokens].clone() };
    let (batch, dtype) = (&query.dims[0], query.dtype);
    let kept = |heads: &Dim, rows: &Dim, columns: Dim| Type {
        dtype,
        dims: vec![batch.clone(), heads.clone(), rows.clone(), columns],
    };
    let mut types = vec![
        Type { dtype, dims: result },
        kept(&heads.key, &length, head),
        kept(&heads.key, &length, value_head),
        kept(&heads.query, &query.dims[tokens], length.clone()),
    ];
    types.truncate(site.outputs.max(1));
    Ok(types)
}

/// `Y = P V` with `P = softmax(S)`, and `S` the capped and masked `scale Q K^T`:
/// `dV = P^T dY`, `dS = P * (dY V^T - rowsum(dY * Y))`, `dQ = scale dS K`, `dK = scale dS^T Q`.
///
/// The probabilities are computed once more. The query heads that share a key head are rows of one matrix in every
/// product, which sums the gradients of that head.
fn attention_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let later = site.gradients.iter().skip(1).any(Option::is_some);
    if later || site.node.outputs.len() > 3 || site.optional(4).is_some() || site.optional(5).is_some() {
        return Err(Error::input(
            "`Attention` with a cache of keys and values, or whose scores are a result, is not supported",
        )
        .hint("export the model without a cache, for training"));
    }
    let (query, key) = (site.input(0)?, site.input(1)?);
    let heads = Heads::of(site.attributes(), builder.ty(query)?, builder.ty(key)?)?;
    let scores = Scores::compute(builder, site, &heads)?;
    let value = heads.split(builder, site.input(2)?, &heads.key)?;
    let gradient = heads.split(builder, site.gradient()?, &heads.query)?;
    let result = heads.split(builder, site.output(0)?, &heads.query)?;

    let weighted = builder.mul(gradient, result)?;
    let last = builder.ints(&[-1])?;
    let mean = builder.op("ReduceSum", &[weighted, last], &[("keepdims", Attribute::Int(1))])?;
    let gradient = heads.regroup(builder, gradient, &heads.key)?;
    let probabilities = heads.regroup(builder, scores.probabilities, &heads.key)?;
    let probabilities = swapped(builder, probabilities)?;
    let of_value = builder.matmul(probabilities, gradient)?;
    let values = swapped(builder, value)?;
    let of_probabilities = builder.matmul(gradient, values)?;
    let of_probabilities = heads.regroup(builder, of_probabilities, &heads.query)?;
    let deviation = builder.op("Sub", &[of_probabilities, mean], &[])?;
    let of_softmax = builder.mul(scores.probabilities, deviation)?;
    let (of_product, of_mask) = scores.back_to_product(builder, of_softmax)?;

    let of_product = heads.regroup(builder, of_product, &heads.key)?;
    let of_query = builder.matmul(of_product, scores.key)?;
    let of_query = heads.regroup(builder, of_query, &heads.query)?;
    let of_query = builder.scale(of_query, scores.scale)?;
    let transposed = swapped(builder, of_product)?;
    let of_key = builder.matmul(transposed, scores.query)?;
    let of_query = heads.join(builder, of_query)?;
    Ok(vec![Some(of_query), Some(heads.join(builder, of_key)?), Some(heads.join(builder, of_value)?), of_mask])
}

/// The last two dimensions of four swapped.
fn swapped(builder: &mut Builder, value: Value) -> Result<Value> {
    builder.transpose(value, &[0, 1, 3, 2])
}

/// What the probabilities are computed from.
struct Scores {
    scale: f32,
    /// `[batch, key head, query head of it and token, size]`, times the scale.
    query: Value,
    /// `[batch, key head, token, size]`.
    key: Value,
    softcap: f32,
    /// The hyperbolic tangents of capped scores.
    tangents: Option<Value>,
    /// Where truth values of the model, not only causality, hide scores.
    visible: Option<Value>,
    /// Whether numbers are added to the scores.
    biased: bool,
    /// `[batch, query head, token, token of the keys]`.
    probabilities: Value,
}

impl Scores {
    fn compute(builder: &mut Builder, site: &Use, heads: &Heads) -> Result<Self> {
        let attributes = site.attributes();
        let size = heads.size(builder.ty(site.input(0)?)?, &heads.query)?;
        let scale = match (attributes.float("scale"), size) {
            (Some(scale), _) => scale,
            (None, Dim::Fixed(size)) => 1.0 / (size as f32).sqrt(),
            (None, size) => {
                return Err(Error::internal(format!("the heads of `Attention` have the unknown size {size}")));
            }
        };
        let query = heads.split(builder, site.input(0)?, &heads.query)?;
        let query = builder.scale(query, scale)?;
        let query = heads.regroup(builder, query, &heads.key)?;
        let key = heads.split(builder, site.input(1)?, &heads.key)?;
        let transposed = swapped(builder, key)?;
        let product = builder.matmul(query, transposed)?;
        let product = heads.regroup(builder, product, &heads.query)?;
        let softcap = attributes.float("softcap").unwrap_or(0.0);
        let mut scores =
            Self { scale, query, key, softcap, tangents: None, visible: None, biased: false, probabilities: product };
        // ONNX Runtime caps the scores before it masks them, so that hidden ones stay hidden.
        let capped = if softcap > 0.0 { scores.cap(builder, product)? } else { product };
        let masked = scores.mask(builder, site, capped)?;
        scores.probabilities = builder.softmax(masked)?;
        Ok(scores)
    }

    fn cap(&mut self, builder: &mut Builder, scores: Value) -> Result<Value> {
        let scaled = builder.scale(scores, 1.0 / self.softcap)?;
        let tangents = builder.op("Tanh", &[scaled], &[])?;
        self.tangents = Some(tangents);
        builder.scale(tangents, self.softcap)
    }

    fn mask(&mut self, builder: &mut Builder, site: &Use, scores: Value) -> Result<Value> {
        let mut scores = scores;
        let mut hiding = None;
        if let Some(mask) = site.optional(3) {
            if builder.ty(mask)?.dtype == DType::Bool {
                self.visible = Some(mask);
                hiding = Some(mask);
            } else {
                self.biased = true;
                scores = builder.add(scores, mask)?;
            }
        }
        if site.attributes().int("is_causal").unwrap_or(0) != 0 {
            let causal = causal(builder, scores)?;
            hiding = Some(match hiding {
                Some(mask) => builder.op("And", &[mask, causal], &[])?,
                None => causal,
            });
        }
        let Some(visible) = hiding else { return Ok(scores) };
        let dtype = builder.ty(scores)?.dtype;
        let lowest = builder.float(if dtype == DType::F16 { -65504.0 } else { LOWEST }, dtype)?;
        let ty = builder.ty(scores)?.clone();
        let masked = builder.op("Where", &[visible, scores, lowest], &[])?;
        builder.assume(masked, ty);
        Ok(masked)
    }

    /// Gradients of the product of queries and keys and of numbers that are added to it, from that of the softmax's input.
    fn back_to_product(&self, builder: &mut Builder, gradient: Value) -> Result<(Value, Option<Value>)> {
        let ty = builder.ty(gradient)?.clone();
        let of_bias = self.biased.then_some(gradient);
        let mut gradient = gradient;
        // A row of which nothing is visible has probabilities all the same, but not through its scores.
        if let Some(visible) = self.visible {
            let zero = builder.float(0.0, ty.dtype)?;
            gradient = builder.op("Where", &[visible, gradient, zero], &[])?;
            builder.assume(gradient, ty.clone());
        }
        if let Some(tangents) = self.tangents {
            let square = builder.mul(tangents, tangents)?;
            let one = builder.float(1.0, ty.dtype)?;
            let slope = builder.op("Sub", &[one, square], &[])?;
            gradient = builder.mul(gradient, slope)?;
        }
        Ok((gradient, of_bias))
    }
}

/// Stands for minus infinity in single precision and in `bfloat16`.
const LOWEST: f32 = -3.38e38;

/// Whether a key is not later than a query, for scores `[..., queries, keys]`.
fn causal(builder: &mut Builder, scores: Value) -> Result<Value> {
    let shape = builder.op("Shape", &[scores], &[])?;
    let mut positions = |axis: i64, other: i64| -> Result<Value> {
        let (number, zero, one) = (builder.scalar(axis)?, builder.scalar(0i64)?, builder.scalar(1i64)?);
        let count = builder.gather(shape, number, 0)?;
        let range = builder.op("Range", &[zero, count, one], &[])?;
        builder.unsqueeze(range, &[other])
    };
    let (queries, keys) = (positions(2, 1)?, positions(3, 0)?);
    builder.op("LessOrEqual", &[keys, queries], &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::gradients;

    /// The error of differentiating an `Attention` over these inputs that is asked for `outputs` results.
    fn refusal(with_cache: bool, outputs: usize) -> Option<String> {
        let mut builder = Builder::new("attention");
        let ty = Type::new(DType::F32, ["batch".into(), Dim::from(2), "tokens".into(), Dim::from(4)]);
        let mut inputs = vec![Some(builder.input("x", ty.clone()).unwrap()); 3];
        if with_cache {
            let cache = builder.input("cache", ty).unwrap();
            inputs.extend([None, Some(cache), Some(cache)]);
        }
        let result = builder.node("Attention", &inputs, &[]).unwrap()[0];
        let node = builder.nodes().last().unwrap().clone();
        let asked = builder.optional_output(&node, outputs - 1).unwrap();
        let used = if asked == result { result } else { asked };
        let loss = builder.op("ReduceSum", &[used], &[("keepdims", Attribute::Int(0))]).unwrap();
        gradients(&mut builder, loss, &[inputs[0].unwrap()], &[]).err().map(|error| format!("{error:?}"))
    }

    #[test]
    fn caches_and_scores_are_refused() {
        assert_eq!(refusal(false, 1), None);
        for refused in [refusal(true, 1), refusal(false, 2), refusal(false, 4)] {
            assert!(refused.unwrap().contains("cache of keys and values"));
        }
    }
}
