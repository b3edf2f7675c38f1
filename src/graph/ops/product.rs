//! Matrix products.

use std::slice::from_ref;

use super::dims::{broadcast_dims, compatible};
use super::{Attribute, Attributes, Case, Dim, Gradient, Op, Site, Type, Use, expand_like, one};
use crate::error::{Error, Result};
use crate::graph::{Builder, Node, Value};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "MatMul", shape: matmul, gradient: Gradient::Rule(matmul_gradient), cases: matmul_cases },
    Op { name: "Gemm", shape: gemm, gradient: Gradient::Rule(gemm_gradient), cases: gemm_cases },
    Op { name: "Einsum", shape: einsum, gradient: Gradient::Rule(einsum_gradient), cases: einsum_cases },
];

fn matmul_cases() -> Vec<Case> {
    vec![
        Case::new().input("batch,3,tokens,4").input("4,6"),
        Case::new().input("batch,3,tokens,4").input("batch,1,4,past"),
        Case::new().input("tokens,4").input("batch,1,4,past").unknown(),
        Case::new().input("batch,tokens,past").input("past,4").unknown(),
        Case::new().input("tokens,4").input("4,past"),
        Case::new().input("4").input("batch,4,tokens"),
        Case::new().input("batch,tokens,4").input("4"),
        Case::new().input("4").input("4"),
    ]
}

fn matmul(site: &Site) -> Result<Vec<Type>> {
    let (a, b) = (site.input(0)?, site.input(1)?);
    let unfit = || Error::internal(format!("{a} cannot be multiplied by {b}"));
    let (Some((inner, a_rest)), false) = (a.dims.split_last(), b.dims.is_empty() || a.dtype != b.dtype) else {
        return Err(unfit());
    };
    let (b_rest, columns) = match b.dims.split_last() {
        Some((columns, rest)) if !rest.is_empty() => (rest, Some(columns.clone())),
        _ => (&b.dims[..], None),
    };
    let (a_batch, rows) = match a_rest.split_last() {
        Some((rows, batch)) => (batch, Some(rows.clone())),
        None => (a_rest, None),
    };
    let (b_inner, b_batch) = b_rest.split_last().ok_or_else(unfit)?;
    if !compatible(inner, b_inner) {
        return Err(unfit());
    }
    let mut dims = broadcast_dims(a_batch, b_batch)?;
    dims.extend(rows);
    dims.extend(columns);
    one(a.dtype, dims)
}

/// `d(A B) = dA B + A dB`. Vectors are matrices of one row or one column meanwhile.
fn matmul_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (mut a, mut b, mut gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let (row, column) = (builder.ty(a)?.dims.len() == 1, builder.ty(b)?.dims.len() == 1);
    if column {
        b = builder.unsqueeze(b, &[1])?;
        gradient = builder.unsqueeze(gradient, &[-1])?;
    }
    if row {
        a = builder.unsqueeze(a, &[0])?;
        gradient = builder.unsqueeze(gradient, &[-2])?;
    }
    let transposed = swapped(builder, b)?;
    let mut of_a = builder.matmul(gradient, transposed)?;
    let mut of_b = right_gradient(builder, a, b, gradient)?;
    if row {
        of_a = squeeze(builder, of_a, -2)?;
    }
    if column {
        of_b = squeeze(builder, of_b, -1)?;
    }
    Ok(vec![Some(of_a), Some(of_b)])
}

/// The gradient of the right operand. That of a matrix which every row of a larger left operand met is one product over
/// all these rows, not a product each and then their sum.
fn right_gradient(builder: &mut Builder, a: Value, b: Value, gradient: Value) -> Result<Value> {
    let rank = |builder: &Builder, value| builder.ty(value).map(|ty| ty.dims.len());
    let (mut rows, mut of_rows) = (a, gradient);
    if rank(builder, b)? == 2 && rank(builder, a)? > 2 {
        let last = [("axis", Attribute::Int(-1))];
        rows = builder.op("Flatten", &[a], &last)?;
        of_rows = builder.op("Flatten", &[gradient], &last)?;
    }
    let columns = swapped(builder, rows)?;
    builder.matmul(columns, of_rows)
}

fn squeeze(builder: &mut Builder, value: Value, axis: i64) -> Result<Value> {
    let axes = builder.ints(&[axis])?;
    builder.op("Squeeze", &[value, axes], &[])
}

/// `value` with its last two dimensions swapped: what it was made from where it is a swapped matrix itself.
fn swapped(builder: &mut Builder, value: Value) -> Result<Value> {
    let rank = builder.ty(value)?.dims.len();
    if rank == 2
        && let Some(original) = producer(builder, value).and_then(swapped_matrix)
    {
        return Ok(original);
    }
    let mut order: Vec<i64> = (0..rank as i64).collect();
    order.swap(rank - 2, rank - 1);
    builder.transpose(value, &order)
}

fn producer(builder: &Builder, value: Value) -> Option<&Node> {
    builder.nodes().iter().rev().find(|node| node.outputs.contains(&value))
}

/// The matrix that a node swaps the dimensions of, if it does that.
fn swapped_matrix(node: &Node) -> Option<Value> {
    let swaps = node.op == "Transpose" && node.domain.is_empty();
    let order = node.attributes().int_list("perm");
    node.inputs.first().copied().flatten().filter(|_| swaps && order.is_none_or(|order| order == [1, 0]))
}

/// `value` transposed, if it is the product of a transposed matrix and another: `(A^T B)^T = B^T A`, which moves no
/// element of the result. Gradients of weights that a model transposes before it multiplies are of this kind.
pub(super) fn transposed_product(builder: &mut Builder, value: Value) -> Result<Option<Value>> {
    let Some(node) = producer(builder, value).filter(|node| node.op == "MatMul" && node.domain.is_empty()) else {
        return Ok(None);
    };
    let [Some(left), Some(right)] = node.inputs[..] else { return Ok(None) };
    let Some(original) = producer(builder, left).and_then(swapped_matrix) else { return Ok(None) };
    if builder.ty(left)?.dims.len() != 2 || builder.ty(right)?.dims.len() != 2 {
        return Ok(None);
    }
    let right = swapped(builder, right)?;
    builder.matmul(right, original).map(Some)
}

fn gemm_cases() -> Vec<Case> {
    let matrices = |a: &str, b: &str| Case::new().input(a).input(b);
    let (alpha, beta) = (("alpha", Attribute::Float(0.5)), ("beta", Attribute::Float(2.0)));
    let scaled = |case: Case| case.with(alpha.0, alpha.1.clone()).with(beta.0, beta.1.clone());
    vec![
        scaled(matrices("tokens,4", "4,past").input("past")),
        matrices("tokens,4", "256,4").input("1,256").int("transB", 1),
        scaled(matrices("4,tokens", "4,past").input("tokens,1")).int("transA", 1),
        scaled(matrices("4,tokens", "past,4").input("1")).int("transA", 1).int("transB", 1).unknown(),
        matrices("tokens,4", "4,past"),
    ]
}

/// Whether an operand of `Gemm` is transposed first.
fn flag(attributes: Attributes, name: &str) -> bool {
    attributes.int(name).unwrap_or(0) != 0
}

fn gemm(site: &Site) -> Result<Vec<Type>> {
    let (a, b) = (site.input(0)?, site.input(1)?);
    let ([a0, a1], [b0, b1], true) = (&a.dims[..], &b.dims[..], a.dtype == b.dtype) else {
        return Err(Error::internal(format!("{a} and {b} are not two matrices of one type")));
    };
    let (rows, inner) = if flag(site.attributes, "transA") { (a1, a0) } else { (a0, a1) };
    let (columns, other) = if flag(site.attributes, "transB") { (b0, b1) } else { (b1, b0) };
    if !compatible(inner, other) {
        return Err(Error::internal(format!("{a} cannot be multiplied by {b}")));
    }
    one(a.dtype, vec![rows.clone(), columns.clone()])
}

/// `Y = alpha A' B' + beta C`: the gradients of `A` and `B` are products with the scale `alpha` again.
fn gemm_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (a, b, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let (swap_a, swap_b) = (flag(site.attributes(), "transA"), flag(site.attributes(), "transB"));
    let alpha = site.attributes().float("alpha").unwrap_or(1.0);
    let mut product = |(left, swap_left): (Value, bool), (right, swap_right): (Value, bool)| {
        let attributes = [
            ("alpha", Attribute::Float(alpha)),
            ("transA", Attribute::Int(swap_left.into())),
            ("transB", Attribute::Int(swap_right.into())),
        ];
        builder.op("Gemm", &[left, right], &attributes)
    };
    let of_a = match swap_a {
        false => product((gradient, false), (b, !swap_b))?,
        true => product((b, swap_b), (gradient, true))?,
    };
    let of_b = match swap_b {
        false => product((a, !swap_a), (gradient, false))?,
        true => product((gradient, true), (a, swap_a))?,
    };
    let beta = site.attributes().float("beta").unwrap_or(1.0);
    let of_c = match site.optional(2) {
        Some(_) if beta == 1.0 => Some(gradient),
        Some(_) => Some(builder.scale(gradient, beta)?),
        None => None,
    };
    Ok(vec![Some(of_a), Some(of_b), of_c])
}

fn einsum_cases() -> Vec<Case> {
    let equation = |case: Case, text: &str| case.with("equation", Attribute::Text(text.to_owned()));
    vec![
        equation(Case::new().input("batch,tokens,3,4").input("batch,past,3,4"), "bqhd,bkhd->bhqk"),
        equation(Case::new().input("batch,tokens,4").input("4,past").unknown(), "b t d, d p"),
        equation(Case::new().input("batch,tokens,4").input("tokens"), "btd,t->d"),
        equation(Case::new().input("batch,4").input("4,past").input("past,2"), "ab,bc,cd->ad"),
        equation(Case::new().input("batch,tokens,4"), "abc->cab"),
        equation(Case::new().input("batch,tokens,4"), "abc->b"),
    ]
}

/// The labels of an equation of `Einsum`.
struct Equation {
    /// Those of each operand.
    operands: Vec<String>,
    /// Those of the result.
    result: String,
}

impl Equation {
    fn of(attributes: Attributes) -> Result<Self> {
        let text = attributes.text("equation").ok_or_else(|| Error::internal("`Einsum` lacks its equation"))?;
        let compact: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        let (operands, result) = match compact.split_once("->") {
            Some((operands, result)) => (operands, Some(result.to_owned())),
            None => (compact.as_str(), None),
        };
        let operands: Vec<String> = operands.split(',').map(str::to_owned).collect();
        let result = result.unwrap_or_else(|| lone_labels(&operands));
        let repeats =
            |term: &String| term.chars().enumerate().any(|(at, label)| term.chars().take(at).any(|l| l == label));
        for term in operands.iter().chain([&result]) {
            if repeats(term) || !term.chars().all(|label| label.is_ascii_alphabetic()) {
                return Err(Error::input(format!("the equation `{text}` of `Einsum` is not supported: `{term}`"))
                    .hint("each operand has one letter per dimension, none of them twice"));
            }
        }
        Ok(Self { operands, result })
    }
}

/// The labels of the result of an equation without an arrow: those that appear once, in the order of the alphabet.
fn lone_labels(operands: &[String]) -> String {
    let all = operands.concat();
    let mut lone: Vec<char> = all.chars().filter(|label| all.matches(*label).count() == 1).collect();
    lone.sort_unstable();
    lone.into_iter().collect()
}

fn einsum(site: &Site) -> Result<Vec<Type>> {
    let equation = Equation::of(site.attributes)?;
    let mut sizes: Vec<(char, Dim)> = Vec::new();
    for (index, term) in equation.operands.iter().enumerate() {
        let ty = site.input(index)?;
        if ty.dims.len() != term.len() {
            return Err(Error::internal(format!("operand {index} is {ty}, but its labels are `{term}`")));
        }
        for (label, dim) in term.chars().zip(&ty.dims) {
            match sizes.iter_mut().find(|(known, _)| *known == label) {
                Some((_, known)) => *known = broadcast_dims(from_ref(known), from_ref(dim))?.remove(0),
                None => sizes.push((label, dim.clone())),
            }
        }
    }
    let size = |label| sizes.iter().find(|(known, _)| *known == label).map(|(_, dim)| dim.clone());
    let unknown = || Error::internal(format!("no operand has all of `{}`", equation.result));
    let dims = equation.result.chars().map(|label| size(label).ok_or_else(unknown)).collect::<Result<_>>()?;
    one(site.input(0)?.dtype, dims)
}

/// An operand's gradient is the sum with that operand and the result exchanged. A label that stands nowhere else was
/// summed over, so its gradient repeats along it.
fn einsum_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let equation = Equation::of(site.attributes())?;
    (0..equation.operands.len()).map(|index| operand_gradient(builder, site, &equation, index).map(Some)).collect()
}

fn operand_gradient(builder: &mut Builder, site: &Use, equation: &Equation, index: usize) -> Result<Value> {
    let (mut terms, mut inputs) = (vec![equation.result.clone()], vec![site.gradient()?]);
    for (other, term) in equation.operands.iter().enumerate().filter(|(other, _)| *other != index) {
        terms.push(term.clone());
        inputs.push(site.input(other)?);
    }
    let (own, all) = (&equation.operands[index], terms.concat());
    let present: String = own.chars().filter(|label| all.contains(*label)).collect();
    let text = Attribute::Text(format!("{}->{present}", terms.join(",")));
    let gradient = builder.op("Einsum", &inputs, &[("equation", text)])?;
    if present == *own {
        return Ok(gradient);
    }
    let missing = (0i64..).zip(own.chars()).filter(|(_, label)| !all.contains(*label));
    let axes: Vec<i64> = missing.map(|(axis, _)| axis).collect();
    let gradient = builder.unsqueeze(gradient, &axes)?;
    expand_like(builder, gradient, site.input(index)?)
}

#[cfg(test)]
mod tests {
    use crate::graph::{Builder, gradients};
    use crate::tensor::DType;

    use super::*;

    fn input(builder: &mut Builder, name: &str, dims: &[Dim]) -> Value {
        builder.input(name, Type::new(DType::F32, dims)).unwrap()
    }

    /// The gradient of a weight that is transposed before the product is a product itself; only rows are transposed for
    /// it. The sizes differ, so no other order of the operands fits.
    #[test]
    fn the_gradient_of_a_transposed_weight_is_not_transposed() {
        let mut builder = Builder::new("linear");
        let x = input(&mut builder, "x", &["batch".into(), "tokens".into(), 4.into()]);
        let weight = input(&mut builder, "weight", &[6.into(), 4.into()]);
        let transposed = builder.transpose(weight, &[1, 0]).unwrap();
        let product = builder.matmul(x, transposed).unwrap();
        let loss = builder.op("ReduceSum", &[product], &[("keepdims", Attribute::Int(0))]).unwrap();
        let found = gradients(&mut builder, loss, &[x, weight], &[]).unwrap();
        let node = producer(&builder, found[1].unwrap()).unwrap();
        assert_eq!(node.op, "MatMul");
        assert_eq!(builder.ty(found[1].unwrap()).unwrap(), builder.ty(weight).unwrap());
        builder.output("x.gradient", found[0].unwrap()).unwrap();
        builder.output("weight.gradient", found[1].unwrap()).unwrap();
        let graph = builder.finish();
        let transposes = graph.nodes.iter().filter(|node| node.op == "Transpose").count();
        assert_eq!(transposes, 2, "that of the model and that of the rows: {:?}", graph.nodes);
    }

    #[test]
    fn equations_that_are_not_supported_are_named() {
        for (equation, term) in [("aab,b->a", "aab"), ("ab,bc->aa", "aa"), ("...a,a->...", "...a")] {
            let mut builder = Builder::new("sum");
            let inputs = [input(&mut builder, "a", &[2.into(), 2.into()]), input(&mut builder, "b", &[2.into()])];
            let attributes = [("equation", Attribute::Text(equation.to_owned()))];
            let message = format!("{:?}", builder.op("Einsum", &inputs, &attributes).unwrap_err());
            assert!(message.contains(&format!("`{equation}`")) && message.contains(&format!("`{term}`")), "{message}");
        }
    }
}
