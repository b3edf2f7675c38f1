//! Attention and rotary position embeddings.

use super::indexing::add_at;
use super::layout::{fixed, flat, reshape_like, sizes, transposed, zeros_like};
use super::{Attributes, Case, Dim, Gradient, Op, Site, Type, Use, same};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Builder, Value};
use crate::tensor::{DType, Tensor};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "RotaryEmbedding", shape: same, gradient: Gradient::Rule(rotary_gradient), cases: rotary_cases },
    Op { name: "Attention", shape: attention, gradient: Gradient::Rule(attention_gradient), cases: attention_cases },
];

fn rotary_cases() -> Vec<Case> {
    let angles = |case: Case| case.input("batch,tokens,2").input("batch,tokens,2");
    vec![
        angles(Case::new().input("batch,3,tokens,4")),
        angles(Case::new().input("batch,3,tokens,4")).int("interleaved", 1).unknown(),
        angles(Case::new().input("batch,tokens,12")).int("num_heads", 3),
        angles(Case::new().input("batch,tokens,12")).int("num_heads", 3).int("interleaved", 1),
        angles(Case::new().input("batch,3,tokens,6")).int("rotary_embedding_dim", 4),
        Case::new().input("batch,3,tokens,4").input("140,2").input("140,2").input("i140:batch,tokens"),
    ]
}

fn pairs<'a>(attributes: Attributes<'a>) -> Vec<(&'a str, Attribute)> {
    attributes.0.iter().map(|(name, value)| (name.as_str(), value.clone())).collect()
}

/// A rotation is undone by the negative angle. The caches are linear in it too: `d cos = x dy` and, with `x` rotated by a
/// right angle, `d sin = x' dy`.
fn rotary_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, cos, sin, gradient) = (site.input(0)?, site.input(1)?, site.input(2)?, site.gradient()?);
    let (positions, attributes) = (site.optional(3), pairs(site.attributes()));
    let rotate = |builder: &mut Builder, x, cos, sin| {
        let mut inputs = vec![Some(x), Some(cos), Some(sin)];
        inputs.extend(positions.map(Some));
        Ok::<_, Error>(builder.node("RotaryEmbedding", &inputs, &attributes)?[0])
    };
    let back = builder.op("Neg", &[sin], &[])?;
    let dx = rotate(builder, gradient, cos, back)?;
    let (zero, one) = (builder.scale(cos, 0.0)?, builder.float(1.0, builder.ty(cos)?.dtype)?);
    let one = builder.add(zero, one)?;
    let quarter = rotate(builder, x, zero, one)?;
    let dcos = cache_gradient(builder, site, x, cos)?;
    let dsin = cache_gradient(builder, site, quarter, sin)?;
    Ok(vec![Some(dx), Some(dcos), Some(dsin), None])
}

/// The gradient of a cache whose element multiplies both elements of a pair of `x` in every head.
fn cache_gradient(builder: &mut Builder, site: &Use, x: Value, cache: Value) -> Result<Value> {
    let product = builder.mul(x, site.gradient()?)?;
    let four = builder.ty(product)?.dims.len() == 4;
    let (by_head, heads) = match site.attributes().int("num_heads").filter(|_| !four) {
        Some(heads) => (builder.reshape(product, &[0, 0, heads, -1])?, 2),
        None => (product, 1),
    };
    let axes = builder.ints(&[heads])?;
    let sum = builder.op("ReduceSum", &[by_head, axes], &[("keepdims", Attribute::Int(0))])?;
    let rotated = match site.attributes().int("rotary_embedding_dim").unwrap_or(0) {
        0 => sum,
        rotated => builder.slice(sum, -1, 0, rotated)?,
    };
    let (shape, axis) = match site.attributes().int("interleaved").unwrap_or(0) {
        0 => ([0, 0, 2, -1], 2),
        _ => ([0, 0, -1, 2], 3),
    };
    let apart = builder.reshape(rotated, &shape)?;
    let axes = builder.ints(&[axis])?;
    let sum = builder.op("ReduceSum", &[apart, axes], &[("keepdims", Attribute::Int(0))])?;
    let Some(positions) = site.optional(3) else { return Ok(sum) };
    let rows = builder.op("Flatten", &[sum], &[("axis", Attribute::Int(-1))])?;
    let positions = flat(builder, positions)?;
    let positions = builder.unsqueeze(positions, &[1])?;
    let shape = builder.op("Shape", &[rows], &[])?;
    let positions = builder.op("Expand", &[positions, shape], &[])?;
    add_at(builder, cache, positions, rows, 0)
}

fn attention_cases() -> Vec<Case> {
    let heads = |case: Case, queries, keys| case.int("q_num_heads", queries).int("kv_num_heads", keys);
    let flat = || Case::new().input("batch,tokens,12").input("batch,past,6").input("batch,past,10");
    let square = || Case::new().input("batch,2,tokens,4").input("batch,2,tokens,4").input("batch,2,tokens,4");
    let mut cases = vec![
        heads(flat(), 4, 2),
        square().int("is_causal", 1).with("scale", Attribute::Float(0.7)),
        square().input("batch,1,tokens,tokens"),
        square().input("batch,1,tokens,tokens").int("is_causal", 1),
        square().omit().input("batch,2,past,4").input("batch,2,past,4").int("is_causal", 1),
        square().with("softcap", Attribute::Float(1.5)),
        square().input("2,tokens,tokens").with("softcap", Attribute::Float(1.5)),
    ];
    if let Ok(mask) = Tensor::new(vec![3, 2], vec![true, false, true, true, false, true]) {
        cases.push(Case::new().input("batch,2,3,4").input("batch,2,2,4").input("batch,2,2,5").constant(mask));
    }
    cases
}

/// Sizes of an attention that have to be known.
struct Heads {
    queries: i64,
    keys: i64,
    /// Elements of a head of queries and keys.
    width: i64,
    /// Elements of a head of values.
    value_width: i64,
    /// Whether the heads lie one after the other in the last of three dimensions.
    joined: bool,
}

fn heads(attributes: Attributes, query: &Type, key: &Type, value: &Type) -> Result<Heads> {
    let last = |ty: &Type| ty.dims.last().and_then(fixed);
    let joined = query.dims.len() == 3;
    let (queries, keys) = match joined {
        true => (attributes.int("q_num_heads"), attributes.int("kv_num_heads")),
        false if query.dims.len() == 4 && key.dims.len() == 4 => (fixed(&query.dims[1]), fixed(&key.dims[1])),
        false => (None, None),
    };
    let known = (|| {
        let (queries, keys) = (queries?, keys?);
        let (width, value_width) = match joined {
            true => (last(query)? / queries, last(value)? / keys),
            false => (last(query)?, last(value)?),
        };
        Some(Heads { queries, keys, width, value_width, joined })
    })();
    let known = known.filter(|heads| heads.keys > 0 && heads.queries % heads.keys == 0);
    known.ok_or_else(|| Error::input(format!("the heads of queries {query} and keys {key} are not known")))
}

fn attention(site: &Site) -> Result<Vec<Type>> {
    let (query, key, value) = (site.input(0)?, site.input(1)?, site.input(2)?);
    let heads = heads(site.attributes, query, key, value)?;
    let size = |size: i64| Dim::Fixed(size as usize);
    let (batch, tokens, keys) = match heads.joined {
        true => (&query.dims[0], &query.dims[1], &key.dims[1]),
        false => (&query.dims[0], &query.dims[2], &key.dims[2]),
    };
    let result = match heads.joined {
        true => vec![batch.clone(), tokens.clone(), size(heads.queries * heads.value_width)],
        false => vec![batch.clone(), size(heads.queries), tokens.clone(), size(heads.value_width)],
    };
    let all = match site.optional(4).and_then(|past| past.dims.get(2)) {
        Some(past) => super::layout::sum(past, keys),
        None => keys.clone(),
    };
    let present = |width| vec![batch.clone(), size(heads.keys), all.clone(), size(width)];
    let scores = vec![batch.clone(), size(heads.queries), tokens.clone(), all.clone()];
    let every = [result, present(heads.width), present(heads.value_width), scores];
    // ONNX Runtime wants all keys and values as results where there are past ones.
    let least = if site.optional(4).is_some() { 3 } else { 1 };
    Ok(every.into_iter().take(site.outputs.max(least)).map(|dims| Type { dtype: query.dtype, dims }).collect())
}

/// `[batch, heads, tokens, width]` from a query, key, value or result.
fn by_head(builder: &mut Builder, x: Value, heads: i64, joined: bool) -> Result<Value> {
    if !joined {
        return Ok(x);
    }
    let width = fixed(&builder.ty(x)?.dims[2]).map_or(-1, |all| all / heads);
    let apart = builder.reshape(x, &[0, 0, heads, width])?;
    builder.transpose(apart, &[0, 2, 1, 3])
}

/// Back to the form of `like`, an input.
fn in_form_of(builder: &mut Builder, x: Value, like: Value, joined: bool) -> Result<Value> {
    if !joined {
        return Ok(x);
    }
    let together = builder.transpose(x, &[0, 2, 1, 3])?;
    reshape_like(builder, together, like)
}

/// Keys or values of all tokens, the past ones first.
fn present(builder: &mut Builder, past: Option<Value>, x: Value) -> Result<Value> {
    match past {
        Some(past) => builder.concat(&[past, x], 2),
        None => Ok(x),
    }
}

/// Each head of keys or values as often as queries share it.
fn shared(builder: &mut Builder, x: Value, heads: &Heads, width: i64) -> Result<Value> {
    let times = heads.queries / heads.keys;
    if times == 1 {
        return Ok(x);
    }
    let apart = builder.unsqueeze(x, &[2])?;
    let repeats = builder.ints(&[1, 1, times, 1, 1])?;
    let repeated = builder.op("Tile", &[apart, repeats], &[])?;
    builder.reshape(repeated, &[0, heads.queries, -1, width])
}

/// Sums over the queries that share a head.
fn unshared(builder: &mut Builder, x: Value, heads: &Heads, width: i64) -> Result<Value> {
    let times = heads.queries / heads.keys;
    if times == 1 {
        return Ok(x);
    }
    let apart = builder.reshape(x, &[0, heads.keys, times, -1, width])?;
    let axes = builder.ints(&[2])?;
    builder.op("ReduceSum", &[apart, axes], &[("keepdims", Attribute::Int(0))])
}

/// What is computed again of the forward pass.
struct Scores {
    probabilities: Value,
    /// `tanh` of the scores before the cap, where there is one.
    capped: Option<Value>,
}

/// The result is `P V` with `P = softmax(c tanh(s Q K^T / c) + mask)`, as ONNX Runtime has it: everything but `Q`, `K` and `V` is computed again.
fn attention_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let inputs = [site.input(0)?, site.input(1)?, site.input(2)?];
    let types = inputs.map(|input| builder.ty(input).cloned());
    let [query_ty, key_ty, value_ty] = types;
    let heads = heads(site.attributes(), &query_ty?, &key_ty?, &value_ty?)?;
    let query = by_head(builder, inputs[0], heads.queries, heads.joined)?;
    let key = by_head(builder, inputs[1], heads.keys, heads.joined)?;
    let value = by_head(builder, inputs[2], heads.keys, heads.joined)?;
    let keys = present(builder, site.optional(4), key)?;
    let values = present(builder, site.optional(5), value)?;
    let (shared_keys, shared_values) =
        (shared(builder, keys, &heads, heads.width)?, shared(builder, values, &heads, heads.value_width)?);
    let scale = site.attributes().float("scale").unwrap_or(1.0 / (heads.width as f32).sqrt());
    let scores = scores(builder, site, query, shared_keys, scale)?;
    let result = site.output(0)?;
    let gradient = match site.gradients.first().copied().flatten() {
        Some(gradient) => gradient,
        None => zeros_like(builder, result, result)?,
    };
    let result = by_head(builder, result, heads.queries, heads.joined)?;
    let gradient = by_head(builder, gradient, heads.queries, heads.joined)?;
    let dmask = score_gradient(builder, scores.probabilities, shared_values, (result, gradient))?;
    let dscores = uncapped(builder, dmask, scores.capped)?;
    let dscores = builder.scale(dscores, scale)?;
    let dquery = builder.matmul(dscores, shared_keys)?;
    let (dscores, probabilities) = (transposed(builder, dscores)?, transposed(builder, scores.probabilities)?);
    let dkeys = builder.matmul(dscores, query)?;
    let dvalues = builder.matmul(probabilities, gradient)?;
    let dkeys = unshared(builder, dkeys, &heads, heads.width)?;
    let dvalues = unshared(builder, dvalues, &heads, heads.value_width)?;
    let (dpast_key, dkey) = parts(builder, site, dkeys, (key, 1))?;
    let (dpast_value, dvalue) = parts(builder, site, dvalues, (value, 2))?;
    let dquery = in_form_of(builder, dquery, inputs[0], heads.joined)?;
    let dkey = in_form_of(builder, dkey, inputs[1], heads.joined)?;
    let dvalue = in_form_of(builder, dvalue, inputs[2], heads.joined)?;
    Ok(vec![Some(dquery), Some(dkey), Some(dvalue), Some(dmask), dpast_key, dpast_value])
}

fn scores(builder: &mut Builder, site: &Use, query: Value, keys: Value, scale: f32) -> Result<Scores> {
    let keys = transposed(builder, keys)?;
    let scores = builder.matmul(query, keys)?;
    let ty = builder.ty(scores)?.clone();
    let mut scores = builder.scale(scores, scale)?;
    let mut capped = None;
    if let Some(cap) = site.attributes().float("softcap").filter(|cap| *cap > 0.0) {
        let scaled = builder.scale(scores, 1.0 / cap)?;
        let tanh = builder.op("Tanh", &[scaled], &[])?;
        capped = Some(tanh);
        scores = builder.scale(tanh, cap)?;
    }
    if let Some(mask) = site.optional(3) {
        let mask = additive(builder, mask, ty.dtype)?;
        scores = builder.add(scores, mask)?;
    }
    if site.attributes().int("is_causal").unwrap_or(0) != 0 {
        let mask = causal(builder, site, scores)?;
        scores = builder.add(scores, mask)?;
    }
    builder.assume(scores, ty);
    Ok(Scores { probabilities: builder.softmax(scores)?, capped })
}

/// A mask that is added to scores; truth values say where attention goes.
fn additive(builder: &mut Builder, mask: Value, dtype: DType) -> Result<Value> {
    if builder.ty(mask)?.dtype != DType::Bool {
        return builder.cast(mask, dtype);
    }
    // Two of them still have a finite sum.
    let lowest = if dtype == DType::F16 { -30_000.0 } else { f32::MIN / 4.0 };
    let (seen, hidden) = (builder.float(0.0, dtype)?, builder.float(lowest, dtype)?);
    builder.op("Where", &[mask, seen, hidden], &[])
}

/// A query sees the keys up to its own position, which counts from the end of the past.
fn causal(builder: &mut Builder, site: &Use, scores: Value) -> Result<Value> {
    let dtype = builder.ty(scores)?.dtype;
    let (zero, one) = (builder.scalar(0i64)?, builder.scalar(1i64)?);
    let mut positions = |axis| {
        let size = sizes(builder, scores, axis, axis + 1)?;
        let size = builder.reshape(size, &[])?;
        builder.op("Range", &[zero, size, one], &[])
    };
    let (queries, keys) = (positions(2)?, positions(3)?);
    let mut queries = builder.unsqueeze(queries, &[1])?;
    if let Some(past) = site.optional(4) {
        let length = sizes(builder, past, 2, 3)?;
        queries = builder.add(queries, length)?;
    }
    let seen = builder.op("LessOrEqual", &[keys, queries], &[])?;
    additive(builder, seen, dtype)
}

/// The gradient of the masked scores: `P (dP - rowsum(dO O))`.
fn score_gradient(
    builder: &mut Builder,
    probabilities: Value,
    values: Value,
    (result, gradient): (Value, Value),
) -> Result<Value> {
    let values = transposed(builder, values)?;
    let dprobabilities = builder.matmul(gradient, values)?;
    let both = builder.mul(gradient, result)?;
    let axes = builder.ints(&[-1])?;
    let rows = builder.op("ReduceSum", &[both, axes], &[])?;
    let centred = builder.op("Sub", &[dprobabilities, rows], &[])?;
    builder.mul(probabilities, centred)
}

/// `d tanh(x) / dx = 1 - tanh(x)^2`.
fn uncapped(builder: &mut Builder, gradient: Value, tanh: Option<Value>) -> Result<Value> {
    let Some(tanh) = tanh else { return Ok(gradient) };
    let square = builder.mul(tanh, tanh)?;
    let one = builder.float(1.0, builder.ty(tanh)?.dtype)?;
    let slope = builder.op("Sub", &[one, square], &[])?;
    builder.mul(gradient, slope)
}

/// The gradients of past and new keys or values, those of output `index` included.
fn parts(
    builder: &mut Builder,
    site: &Use,
    gradient: Value,
    (new, index): (Value, usize),
) -> Result<(Option<Value>, Value)> {
    let gradient = match site.gradients.get(index).copied().flatten() {
        Some(other) => builder.add(gradient, other)?,
        None => gradient,
    };
    let Some(past) = site.optional(3 + index) else { return Ok((None, gradient)) };
    let (before, here) = (sizes(builder, past, 2, 3)?, sizes(builder, new, 2, 3)?);
    let lengths = builder.concat(&[before, here], 0)?;
    let both = builder.node("Split", &[Some(gradient), Some(lengths)], &[("axis", Attribute::Int(2))])?;
    for (part, like) in both.iter().zip([past, new]) {
        let ty = builder.ty(like)?.clone();
        builder.assume(*part, ty);
    }
    Ok((Some(both[0]), both[1]))
}
