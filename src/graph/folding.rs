//! The integer arithmetic on shapes that exporters write, such as `Concat(Gather(Shape(x), 0), -1)` before a `Reshape`:
//! computed while a file is read, so that ranks and sizes behind it are known.
//!
//! Values are scalars and vectors. Single elements may be sizes that only get known when the graph runs, which pass
//! through where they are moved but not changed.

use super::ops::{Attributes, dims};
use super::{Attribute, Dim, Node, Type};
use crate::tensor::{DType, Data, Tensor};

/// Longer vectors hold data, not shapes.
const LONGEST: usize = 4096;

/// One element.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    /// A number; truth values are 0 and 1.
    Number(i64),
    /// A number from 0 on that is a size.
    Size(Dim),
    /// Any number.
    Open,
}

impl Item {
    /// The size of a dimension.
    fn of(dim: &Dim) -> Self {
        match dim {
            Dim::Fixed(size) => i64::try_from(*size).map_or(Self::Open, Self::Number),
            other => Self::Size(other.clone()),
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The dimension with this size.
    fn dim(&self) -> Dim {
        match self {
            Self::Number(number) => usize::try_from(*number).map_or(Dim::Unknown, Dim::Fixed),
            Self::Size(dim) => dim.clone(),
            Self::Open => Dim::Unknown,
        }
    }
}

/// A scalar or vector of integers or truth values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Items {
    dtype: DType,
    vector: bool,
    items: Vec<Item>,
}

impl Items {
    /// The elements of a constant, if it is one of shapes.
    pub(super) fn of(tensor: &Tensor) -> Option<Self> {
        let shape = tensor.shape();
        if shape.len() > 1 || shape.iter().any(|size| *size > LONGEST) {
            return None;
        }
        let numbers: Vec<i64> = match tensor.data() {
            Data::I64(values) => values.clone(),
            Data::I32(values) => values.iter().map(|value| i64::from(*value)).collect(),
            Data::Bool(values) => values.iter().map(|value| i64::from(*value)).collect(),
            _ => return None,
        };
        Some(Self::new(tensor.dtype(), !shape.is_empty(), numbers.into_iter().map(Item::Number).collect()))
    }

    fn new(dtype: DType, vector: bool, items: Vec<Item>) -> Self {
        Self { dtype, vector, items }
    }

    fn numbers(&self) -> Option<Vec<i64>> {
        self.items.iter().map(Item::number).collect()
    }

    fn scalar(&self) -> Option<&Item> {
        if self.items.len() == 1 { self.items.first() } else { None }
    }

    /// The constant with these elements, if all are known.
    pub(super) fn tensor(&self) -> Option<Tensor> {
        let numbers = self.numbers()?;
        let shape = if self.vector { vec![numbers.len()] } else { Vec::new() };
        let tensor = match self.dtype {
            DType::I64 => Tensor::new(shape, numbers),
            DType::I32 => {
                Tensor::new(shape, numbers.into_iter().map(i32::try_from).collect::<Result<Vec<_>, _>>().ok()?)
            }
            DType::Bool => Tensor::new(shape, numbers.into_iter().map(|number| number != 0).collect()),
            _ => return None,
        };
        tensor.ok()
    }
}

/// Inputs of a node: their types, and their elements where they are of shapes.
pub(super) struct Inputs<'a> {
    /// Types, where they are known.
    pub(super) types: Vec<Option<&'a Type>>,
    /// Elements, where they are known.
    pub(super) items: Vec<Option<Items>>,
}

impl Inputs<'_> {
    fn at(&self, index: usize) -> Option<&Items> {
        self.items.get(index)?.as_ref()
    }

    fn dims(&self, index: usize) -> Option<&[Dim]> {
        self.types.get(index)?.map(|ty| ty.dims.as_slice())
    }
}

/// The result of a node that computes with shapes.
pub(super) fn evaluate(node: &Node, inputs: &Inputs) -> Option<Items> {
    let attributes = node.attributes();
    let result = match node.op.as_str() {
        "Shape" => shape(&attributes, inputs.dims(0)?),
        "Identity" => inputs.at(0).cloned(),
        "Cast" => cast(&attributes, inputs.at(0)?),
        "Gather" => gather(&attributes, inputs),
        "Slice" => slice(inputs),
        "Concat" => concat(inputs),
        "Squeeze" => Some(Items { vector: false, ..sole(inputs.at(0)?)? }),
        "Unsqueeze" if !inputs.at(0)?.vector => Some(Items { vector: true, ..inputs.at(0)?.clone() }),
        "Reshape" => reshape(inputs),
        "ConstantOfShape" => filled(&attributes, inputs),
        "Range" => range(inputs),
        "Where" => select(inputs),
        op => pointwise(op, inputs),
    };
    result.filter(|result| result.items.len() <= LONGEST)
}

/// The type of a result whose dimensions are given by elements of which some are sizes.
pub(super) fn shaped(node: &Node, inputs: &Inputs) -> Option<Type> {
    let sizes = |index: usize| inputs.at(index).filter(|sizes| sizes.vector).map(|sizes| sizes.items.as_slice());
    match node.op.as_str() {
        "Reshape" => {
            let zero_is_kept = node.attributes().int("allowzero").unwrap_or(0) == 0;
            let from = inputs.types.first().copied().flatten()?;
            Some(Type { dtype: from.dtype, dims: reshaped(&from.dims, sizes(1)?, zero_is_kept)? })
        }
        "Expand" => {
            let from = inputs.types.first().copied().flatten()?;
            let to: Vec<Dim> = sizes(1)?.iter().map(Item::dim).collect();
            Some(Type { dtype: from.dtype, dims: dims::broadcast_dims(&from.dims, &to).ok()? })
        }
        "ConstantOfShape" => {
            let dtype = node.attributes().tensor("value").map_or(DType::F32, Tensor::dtype);
            Some(Type { dtype, dims: sizes(0)?.iter().map(Item::dim).collect() })
        }
        "Range" => {
            let bounds = [inputs.at(0)?.scalar()?, inputs.at(2)?.scalar()?];
            let count = inputs.at(1)?.scalar()?;
            let counted = bounds == [&Item::Number(0), &Item::Number(1)];
            Some(Type { dtype: inputs.at(0)?.dtype, dims: vec![if counted { count.dim() } else { Dim::Unknown }] })
        }
        _ => None,
    }
}

fn reshaped(from: &[Dim], sizes: &[Item], zero_is_kept: bool) -> Option<Vec<Dim>> {
    let mut to = Vec::with_capacity(sizes.len());
    let mut open = None;
    for (index, size) in sizes.iter().enumerate() {
        to.push(match size {
            Item::Number(0) if zero_is_kept => from.get(index)?.clone(),
            Item::Number(-1) => {
                open = Some(index);
                Dim::Fixed(1)
            }
            size => size.dim(),
        });
    }
    if let Some(index) = open {
        to[index] = dims::remaining(from, &to).unwrap_or(Dim::Unknown);
    }
    Some(to)
}

fn shape(attributes: &Attributes, from: &[Dim]) -> Option<Items> {
    let rank = from.len() as i64;
    let bound = |name: &str, default: i64| {
        let at = attributes.int(name).unwrap_or(default);
        (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    let items = from.get(start..end).unwrap_or_default().iter().map(Item::of).collect();
    Some(Items::new(DType::I64, true, items))
}

fn cast(attributes: &Attributes, from: &Items) -> Option<Items> {
    let dtype = super::protobuf::dtype_from_onnx(attributes.int("to")?).ok()?;
    let items = match dtype {
        DType::I64 | DType::I32 => from.items.clone(),
        DType::Bool => from
            .items
            .iter()
            .map(|item| item.number().map(|n| Item::Number(i64::from(n != 0))))
            .collect::<Option<_>>()?,
        _ => return None,
    };
    Some(Items::new(dtype, from.vector, items))
}

fn gather(attributes: &Attributes, inputs: &Inputs) -> Option<Items> {
    let (data, indices) = (inputs.at(0)?, inputs.at(1)?);
    attributes.axis(1, 0).ok().filter(|_| data.vector)?;
    let length = data.items.len() as i64;
    let pick = |index: i64| data.items.get(usize::try_from(if index < 0 { index + length } else { index }).ok()?);
    let items = indices.numbers()?.into_iter().map(|index| pick(index).cloned()).collect::<Option<_>>()?;
    Some(Items::new(data.dtype, indices.vector, items))
}

fn slice(inputs: &Inputs) -> Option<Items> {
    let data = inputs.at(0).filter(|data| data.vector)?;
    let one = |index: usize| inputs.at(index)?.scalar()?.number();
    let (start, end) = (one(1)?, one(2)?);
    let given = |index: usize| inputs.types.get(index).is_some_and(Option::is_some);
    let step = if given(4) { one(4)? } else { 1 };
    if step < 1 || (given(3) && !matches!(one(3)?, 0 | -1)) {
        return None;
    }
    let length = data.items.len() as i64;
    let bound = |at: i64| (if at < 0 { at.saturating_add(length) } else { at }).clamp(0, length) as usize;
    let kept = data.items.get(bound(start)..bound(end)).unwrap_or_default();
    Some(Items::new(data.dtype, true, kept.iter().step_by(step as usize).cloned().collect()))
}

fn concat(inputs: &Inputs) -> Option<Items> {
    let parts: Vec<&Items> = (0..inputs.items.len()).map(|index| inputs.at(index)).collect::<Option<_>>()?;
    let dtype = parts.first().filter(|_| parts.iter().all(|part| part.vector))?.dtype;
    Some(Items::new(dtype, true, parts.iter().flat_map(|part| part.items.clone()).collect()))
}

/// A vector of one element, or a scalar.
fn sole(items: &Items) -> Option<Items> {
    Some(items.clone()).filter(|items| items.items.len() == 1)
}

fn reshape(inputs: &Inputs) -> Option<Items> {
    match inputs.at(1)?.numbers()?.as_slice() {
        [] => Some(Items { vector: false, ..sole(inputs.at(0)?)? }),
        [_] => Some(Items { vector: true, ..inputs.at(0)?.clone() }),
        _ => None,
    }
}

fn filled(attributes: &Attributes, inputs: &Inputs) -> Option<Items> {
    let shape = inputs.at(0).filter(|shape| shape.vector)?.numbers()?;
    let value = Items::of(attributes.tensor("value")?)?;
    let count = match shape.as_slice() {
        [] => 1,
        [count] => usize::try_from(*count).ok().filter(|count| *count <= LONGEST)?,
        _ => return None,
    };
    Some(Items::new(value.dtype, !shape.is_empty(), vec![value.scalar()?.clone(); count]))
}

fn range(inputs: &Inputs) -> Option<Items> {
    let one = |index: usize| inputs.at(index)?.scalar()?.number();
    let (start, limit, step) = (one(0)?, one(1)?, one(2)?);
    let step = usize::try_from(step).ok().filter(|step| *step > 0)?;
    let items: Vec<Item> = (start..limit).step_by(step).take(LONGEST + 1).map(Item::Number).collect();
    Some(Items::new(inputs.at(0)?.dtype, true, items))
}

fn select(inputs: &Inputs) -> Option<Items> {
    let (condition, yes, no) = (inputs.at(0)?, inputs.at(1)?, inputs.at(2)?);
    let length = [condition, yes, no].iter().map(|one| one.items.len()).max()?;
    let items = (0..length).map(|index| {
        let (yes, no) = (broadcast(yes, index)?, broadcast(no, index)?);
        Some(match broadcast(condition, index)? {
            Item::Number(0) => no.clone(),
            Item::Number(_) => yes.clone(),
            _ if yes == no => yes.clone(),
            _ => Item::Open,
        })
    });
    let vector = condition.vector || yes.vector || no.vector;
    Some(Items::new(yes.dtype, vector, items.collect::<Option<_>>()?))
}

fn broadcast(items: &Items, index: usize) -> Option<&Item> {
    items.items.get(if items.items.len() == 1 { 0 } else { index })
}

fn pointwise(op: &str, inputs: &Inputs) -> Option<Items> {
    let first = inputs.at(0)?;
    if inputs.items.len() == 1 {
        let rule = match op {
            "Neg" => |number: i64| number.checked_neg(),
            "Not" => |number: i64| Some(1 - number),
            _ => return None,
        };
        let items = first.numbers()?.into_iter().map(|number| rule(number).map(Item::Number)).collect::<Option<_>>()?;
        return Some(Items { items, ..first.clone() });
    }
    let [Some(a), Some(b)] = inputs.items.as_slice() else { return None };
    let length = a.items.len().max(b.items.len());
    let items = (0..length).map(|index| combine(op, broadcast(a, index)?, broadcast(b, index)?));
    let compares = matches!(op, "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual");
    let dtype = if compares { DType::Bool } else { a.dtype };
    Some(Items::new(dtype, a.vector || b.vector, items.collect::<Option<_>>()?))
}

/// One element of a pointwise operator over two; `None` for other operators.
fn combine(op: &str, a: &Item, b: &Item) -> Option<Item> {
    use Item::{Number, Open, Size};
    let exact = match (a, b) {
        (Number(a), Number(b)) => Some((*a, *b)),
        _ => None,
    };
    let computed = |rule: fn(i64, i64) -> Option<i64>| exact.and_then(|(a, b)| rule(a, b)).map_or(Open, Number);
    let some_size = || if [a, b].into_iter().all(is_size) { Size(Dim::Unknown) } else { Open };
    Some(match (op, a, b) {
        ("Add", Number(0), other) | ("Add" | "Sub", other, Number(0)) => other.clone(),
        ("Mul", Number(1), other) | ("Mul" | "Div", other, Number(1)) => other.clone(),
        ("Mul", Number(factor), Size(Dim::Symbol(name))) | ("Mul", Size(Dim::Symbol(name)), Number(factor))
            if *factor > 1 && !name.contains('+') =>
        {
            Size(Dim::from(format!("{factor}*{name}").as_str()))
        }
        ("Add" | "Mul" | "Div" | "Max" | "Min", ..) if exact.is_none() => some_size(),
        ("Add", ..) => computed(i64::checked_add),
        ("Sub", ..) => computed(i64::checked_sub),
        ("Mul", ..) => computed(i64::checked_mul),
        ("Div", ..) => computed(i64::checked_div),
        ("Max", ..) => computed(|a, b| Some(a.max(b))),
        ("Min", ..) => computed(|a, b| Some(a.min(b))),
        ("Equal", Size(_), Number(..0)) | ("Equal", Number(..0), Size(_)) => Number(0),
        ("Equal", Size(Dim::Symbol(a)), Size(Dim::Symbol(b))) if a == b => Number(1),
        ("Equal", ..) => computed(|a, b| Some(i64::from(a == b))),
        ("Less", ..) => computed(|a, b| Some(i64::from(a < b))),
        ("LessOrEqual", ..) => computed(|a, b| Some(i64::from(a <= b))),
        ("Greater", ..) => computed(|a, b| Some(i64::from(a > b))),
        ("GreaterOrEqual", ..) => computed(|a, b| Some(i64::from(a >= b))),
        ("And", ..) => computed(|a, b| Some(a & b)),
        ("Or", ..) => computed(|a, b| Some(a | b)),
        _ => return None,
    })
}

fn is_size(item: &Item) -> bool {
    !matches!(item, Item::Open | Item::Number(..0))
}

/// The constant that a `Constant` node holds, if it is one of numbers or truth values.
pub(super) fn constant(node: &Node) -> Option<Tensor> {
    if node.op != "Constant" {
        return None;
    }
    let (_, value) = node.attributes.iter().find(|(name, _)| name.starts_with("value"))?;
    match value {
        Attribute::Tensor(tensor) => Some(tensor.clone()),
        Attribute::Float(value) => Some(Tensor::scalar(*value)),
        Attribute::Int(value) => Some(Tensor::scalar(*value)),
        Attribute::Floats(values) => Some(Tensor::vector(values.clone())),
        Attribute::Ints(values) => Some(Tensor::vector(values.clone())),
        Attribute::Text(_) | Attribute::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op: &str, attributes: &[(&str, Attribute)]) -> Node {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let (name, domain) = (String::new(), String::new());
        Node { name, op: op.to_owned(), domain, inputs: Vec::new(), outputs: Vec::new(), attributes }
    }

    fn vector(items: &[Item]) -> Option<Items> {
        Some(Items::new(DType::I64, true, items.to_vec()))
    }

    fn scalar(item: Item) -> Option<Items> {
        Some(Items::new(DType::I64, false, vec![item]))
    }

    fn run(op: &str, attributes: &[(&str, Attribute)], items: Vec<Option<Items>>) -> Option<Items> {
        let ty = Type::new(DType::I64, []);
        evaluate(&node(op, attributes), &Inputs { types: vec![Some(&ty); items.len()], items })
    }

    fn batch() -> Item {
        Item::Size(Dim::from("batch"))
    }

    /// What PyTorch's older exporter writes for `x.expand(-1, 4)`: sizes of -1 are replaced by those of `x`.
    #[test]
    fn sizes_pass_through_and_are_never_negative() {
        use Item::Number;
        let ty = Type::new(DType::F32, [Dim::from("batch"), 1.into()]);
        let inputs = Inputs { types: vec![Some(&ty)], items: vec![None] };
        let shape = evaluate(&node("Shape", &[]), &inputs);
        assert_eq!(shape, vector(&[batch(), Number(1)]));
        let ones = Attribute::Tensor(Tensor::vector(vec![1i64]));
        let ones = run("ConstantOfShape", &[("value", ones)], vec![vector(&[Number(2)])]);
        let minus = run("Mul", &[], vec![ones.clone(), scalar(Number(-1))]);
        let wanted = run("Concat", &[], vec![vector(&[batch()]), vector(&[Number(4)])]);
        let open = run("Equal", &[], vec![wanted.clone(), minus]).unwrap();
        assert_eq!(open.tensor(), Some(Tensor::vector(vec![false, false])));
        assert_eq!(run("Where", &[], vec![Some(open), ones, wanted.clone()]), wanted);
        let inputs = Inputs { types: vec![Some(&ty), Some(&ty)], items: vec![None, wanted] };
        assert_eq!(shaped(&node("Expand", &[]), &inputs).unwrap().to_string(), "f32[batch,4]");
    }

    #[test]
    fn reshapes_keep_zeros_and_infer_the_open_size() {
        let ty = Type::new(DType::F32, [Dim::from("batch"), 6.into(), 8.into()]);
        let cases = [
            (vec![batch(), Item::Number(0), Item::Number(2), Item::Number(4)], 0, "f32[batch,6,2,4]"),
            (vec![Item::Number(-1), Item::Number(8)], 0, "f32[6*batch,8]"),
            (vec![batch(), Item::Number(-1)], 0, "f32[batch,48]"),
            (vec![Item::Open, Item::Number(-1)], 0, "f32[?,?]"),
            (vec![Item::Number(0), Item::Number(8)], 1, "f32[0,8]"),
        ];
        for (sizes, allow_zero, expected) in cases {
            let inputs = Inputs { types: vec![Some(&ty), Some(&ty)], items: vec![None, vector(&sizes)] };
            let reshape = node("Reshape", &[("allowzero", Attribute::Int(allow_zero))]);
            assert_eq!(shaped(&reshape, &inputs).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn vectors_are_cut_and_picked_from() {
        use Item::Number;
        let sizes = || vector(&[batch(), Number(7), Number(5)]);
        let one = |number| vector(&[Number(number)]);
        assert_eq!(run("Slice", &[], vec![sizes(), one(-2), one(i64::MAX), one(0)]), vector(&[Number(7), Number(5)]));
        assert_eq!(run("Slice", &[], vec![sizes(), one(2), one(1)]), vector(&[]));
        assert_eq!(run("Gather", &[], vec![sizes(), scalar(Number(-1))]), scalar(Number(5)));
        assert_eq!(run("Gather", &[], vec![sizes(), one(0)]), vector(&[batch()]));
        assert_eq!(run("Gather", &[], vec![sizes(), one(3)]), None);
        assert_eq!(run("Gather", &[("axis", Attribute::Int(1))], vec![sizes(), one(0)]), None);
    }

    #[test]
    fn what_overflows_or_is_no_number_stays_open() {
        use Item::{Number, Open};
        for (op, a, b, expected) in [
            ("Div", Number(-7), Number(2), Number(-3)),
            ("Div", Number(1), Number(0), Open),
            ("Add", Number(i64::MAX), Number(1), Open),
            ("Mul", batch(), Number(4), Item::Size(Dim::from("4*batch"))),
            ("Mul", batch(), Number(-1), Open),
            ("Sub", batch(), Number(1), Open),
            ("Equal", Open, Number(-1), Open),
        ] {
            assert_eq!(combine(op, &a, &b), Some(expected), "{op}");
        }
        assert_eq!(combine("Pow", &Number(2), &Number(3)), None);
    }
}
