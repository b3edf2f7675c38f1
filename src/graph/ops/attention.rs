//! Attention and rotary position embeddings.

use super::{Builder, Case, Gradient, Op, Site, Tensor, Type, Use, Value, same};
use crate::error::{Error, Result};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[Op {
    name: "RotaryEmbedding",
    shape: rotary,
    gradient: Gradient::Rule(rotate_back),
    cases: || {
        vec![
            rotated("batch,3,tokens,4"),
            rotated("batch,3,tokens,4").int("interleaved", 1),
            rotated("batch,tokens,12").int("num_heads", 3),
            rotated("batch,3,tokens,6").int("rotary_embedding_dim", 4),
            Case::new().input("2,3,4,4").constant(angles(&[2, 4, 2], f32::cos)).constant(angles(&[2, 4, 2], f32::sin)),
        ]
    },
}];

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
