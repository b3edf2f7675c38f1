//! Sums of products in Einstein's notation.

use super::dims::broadcast_dims;
use super::layout::fixed;
use super::{Attributes, Case, Dim, Gradient, Op, Site, Type, Use, one};
use crate::error::{Error, Result};
use crate::graph::{Attribute, Builder, Value};

/// The rows of this file.
pub(super) const ROWS: &[Op] =
    &[Op { name: "Einsum", shape: einsum, gradient: Gradient::Rule(einsum_gradient), cases: einsum_cases }];

fn einsum_cases() -> Vec<Case> {
    let equation = |text: &str| Case::new().with("equation", Attribute::Text(text.to_owned()));
    vec![
        equation("bhid, bhjd -> bhij").input("batch,3,tokens,4").input("batch,3,past,4"),
        equation("bij,jk").input("batch,tokens,4").input("4,6"),
        equation("...ij,...jk->...ik").input("batch,3,tokens,4").input("1,3,4,6").unknown(),
        equation("...ij,jk->...ik").input("batch,3,tokens,4").input("4,6"),
        equation("bij->b").input("batch,tokens,4"),
        equation("bij,bk->bi").input("batch,tokens,4").input("batch,6"),
        equation("i,i->").input("tokens").input("tokens"),
        equation("bi,bj,jk->ik").input("batch,3").input("batch,4").input("4,6"),
        equation("ij->ji").input("batch,tokens"),
    ]
}

/// The labels of the operands' and the result's dimensions, with letters in the place of dots.
struct Equation {
    operands: Vec<Vec<char>>,
    result: Vec<char>,
}

fn equation(attributes: Attributes, ranks: &[usize]) -> Result<Equation> {
    let text = attributes.text("equation").unwrap_or_default();
    let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    let wrong = || Error::internal(format!("the equation `{text}` does not fit operands of {ranks:?} dimensions"));
    let (left, right) = text.split_once("->").map_or((text.as_str(), None), |(left, right)| (left, Some(right)));
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != ranks.len() {
        return Err(wrong());
    }
    let letters = |term: &str| term.chars().filter(char::is_ascii_alphabetic).count();
    let dotted =
        |(term, rank): (&&str, &usize)| if term.contains("...") { rank.checked_sub(letters(term)) } else { None };
    let most = terms.iter().zip(ranks).filter_map(dotted).max().unwrap_or(0);
    let unused: Vec<char> = ('A'..='Z').chain('a'..='z').filter(|letter| !text.contains(*letter)).take(most).collect();
    let spelled = |term: &str, dots: usize| -> Vec<char> {
        let dots: String = unused[unused.len() - dots..].iter().collect();
        term.replacen("...", &dots, 1).chars().collect()
    };
    let mut operands = Vec::with_capacity(terms.len());
    for (term, rank) in terms.iter().zip(ranks) {
        let operand = spelled(term, dotted((term, rank)).unwrap_or(0));
        if operand.len() != *rank || !operand.iter().all(char::is_ascii_alphabetic) {
            return Err(wrong());
        }
        operands.push(operand);
    }
    let result = match right {
        Some(right) => spelled(right, if right.contains("...") { most } else { 0 }),
        None => {
            let mut single: Vec<char> = left.chars().filter(|letter| left.matches(*letter).count() == 1).collect();
            single.retain(char::is_ascii_alphabetic);
            single.sort_unstable();
            unused.iter().copied().chain(single).collect()
        }
    };
    let known = |label: &char| operands.iter().any(|operand| operand.contains(label));
    if result.iter().all(known) { Ok(Equation { operands, result }) } else { Err(wrong()) }
}

fn einsum(site: &Site) -> Result<Vec<Type>> {
    let types = (0..site.inputs.len()).map(|index| site.input(index)).collect::<Result<Vec<_>>>()?;
    let ranks: Vec<usize> = types.iter().map(|ty| ty.dims.len()).collect();
    let equation = equation(site.attributes, &ranks)?;
    let size = |label: &char| {
        let mut size = vec![Dim::Fixed(1)];
        for (operand, ty) in equation.operands.iter().zip(&types) {
            for (_, dim) in operand.iter().zip(&ty.dims).filter(|(other, _)| *other == label) {
                size = broadcast_dims(&size, std::slice::from_ref(dim))?;
            }
        }
        Ok(size.remove(0))
    };
    one(types[0].dtype, equation.result.iter().map(size).collect::<Result<_>>()?)
}

/// The gradient of an operand is the product of the others with the gradient, summed over what the operand lacks and
/// repeated along what only the operand has.
fn einsum_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let inputs: Vec<Value> = site.node.inputs.iter().flatten().copied().collect();
    let ranks = inputs.iter().map(|input| Ok(builder.ty(*input)?.dims.len())).collect::<Result<Vec<_>>>()?;
    let equation = equation(site.attributes(), &ranks)?;
    let repeats = |operand: &Vec<char>| operand.iter().enumerate().any(|(at, label)| operand[..at].contains(label));
    if equation.operands.iter().any(repeats) {
        return Err(Error::input("no gradient for an equation that repeats a label in one operand"));
    }
    let mut gradients = Vec::with_capacity(inputs.len());
    for index in 0..inputs.len() {
        gradients.push(Some(operand_gradient(builder, site, &equation, (&inputs, index))?));
    }
    Ok(gradients)
}

fn operand_gradient(
    builder: &mut Builder,
    site: &Use,
    equation: &Equation,
    (inputs, index): (&[Value], usize),
) -> Result<Value> {
    let gradient = site.gradient()?;
    let own = &equation.operands[index];
    let mut factors: Vec<(Value, &[char])> = Vec::new();
    for (other, (input, labels)) in inputs.iter().zip(&equation.operands).enumerate() {
        if other != index {
            factors.push((*input, labels));
        }
    }
    // A number is no operand of an equation, but a factor of its result.
    let number = equation.result.is_empty();
    if !number || factors.is_empty() {
        factors.push((gradient, &equation.result));
    }
    let kept: Vec<char> =
        own.iter().copied().filter(|label| factors.iter().any(|(_, labels)| labels.contains(label))).collect();
    let mut product = match factors.as_slice() {
        [(only, labels)] if *labels == kept.as_slice() => *only,
        _ => {
            let terms: Vec<String> = factors.iter().map(|(_, labels)| labels.iter().collect()).collect();
            let text = format!("{}->{}", terms.join(","), kept.iter().collect::<String>());
            let values: Vec<Value> = factors.iter().map(|(value, _)| *value).collect();
            builder.op("Einsum", &values, &[("equation", Attribute::Text(text))])?
        }
    };
    if number && inputs.len() > 1 {
        product = builder.mul(product, gradient)?;
    }
    repeated(builder, product, (own, &kept), inputs[index])
}

/// `product` with the dimensions of an operand that it lacks, or has with size 1.
fn repeated(builder: &mut Builder, product: Value, (own, kept): (&[char], &[char]), like: Value) -> Result<Value> {
    let axes: Vec<i64> = (0..).zip(own).filter(|(_, label)| !kept.contains(label)).map(|(axis, _)| axis).collect();
    let apart = if axes.is_empty() { product } else { builder.unsqueeze(product, &axes)? };
    let (from, to) = (builder.ty(apart)?.clone(), builder.ty(like)?.clone());
    let short = |(from, to): (&Dim, &Dim)| fixed(from) == Some(1) && fixed(to) != Some(1);
    if !from.dims.iter().zip(&to.dims).any(short) {
        return Ok(apart);
    }
    let shape = builder.op("Shape", &[like], &[])?;
    let repeated = builder.op("Expand", &[apart, shape], &[])?;
    let dims =
        from.dims.iter().zip(&to.dims).map(|(from, to)| if short((from, to)) { to.clone() } else { from.clone() });
    builder.assume(repeated, Type { dtype: from.dtype, dims: dims.collect() });
    Ok(repeated)
}
