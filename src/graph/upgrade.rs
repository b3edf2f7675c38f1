//! Brings nodes of older operator sets into the form that [`OPSET`] gives them.
//!
//! Source: the change log of the ONNX operators. Between opset 13 and 23 only the rows of [`CHANGES`] changed what a
//! node means; the other new versions add element types, inputs and attributes whose defaults keep the meaning.

use super::{Attribute, OPSET, Value, subgraph};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The oldest operator set whose nodes can be brought forward.
pub(super) const OLDEST: i64 = 13;

/// A node while it is brought forward.
pub(super) struct Form<'a> {
    /// Its operator.
    pub(super) op: &'a str,
    /// Its inputs; `None` where an optional one is left out.
    pub(super) inputs: &'a [Option<Value>],
    /// Names of its outputs.
    pub(super) outputs: &'a mut Vec<String>,
    /// Its attributes.
    pub(super) attributes: &'a mut Vec<(String, Attribute)>,
    /// Constants that become inputs, with their positions.
    pub(super) added: Vec<(usize, Tensor)>,
}

impl Form<'_> {
    fn take(&mut self, name: &str) -> Option<Attribute> {
        let at = self.attributes.iter().position(|(key, _)| key == name)?;
        Some(self.attributes.remove(at).1)
    }

    fn set(&mut self, name: &str, value: Attribute) {
        self.take(name);
        self.attributes.push((name.to_owned(), value));
    }

    fn lacks(&self, name: &str) -> bool {
        !self.attributes.iter().any(|(key, _)| key == name)
    }
}

/// One change of an operator's meaning.
struct Change {
    op: &'static str,
    /// The operator set that made it.
    since: i64,
    bring: fn(&mut Form) -> Result<()>,
}

static CHANGES: &[Change] = &[
    Change { op: "BatchNormalization", since: 14, bring: state_training_mode },
    Change { op: "RoiAlign", since: 16, bring: state_pixel_centres },
    Change { op: "ReduceL1", since: 18, bring: axes_to_input },
    Change { op: "ReduceL2", since: 18, bring: axes_to_input },
    Change { op: "ReduceLogSum", since: 18, bring: axes_to_input },
    Change { op: "ReduceLogSumExp", since: 18, bring: axes_to_input },
    Change { op: "ReduceMax", since: 18, bring: axes_to_input },
    Change { op: "ReduceMean", since: 18, bring: axes_to_input },
    Change { op: "ReduceMin", since: 18, bring: axes_to_input },
    Change { op: "ReduceProd", since: 18, bring: axes_to_input },
    Change { op: "ReduceSumSquare", since: 18, bring: axes_to_input },
    Change { op: "Split", since: 18, bring: state_number_of_parts },
    Change { op: "DFT", since: 20, bring: axis_to_input },
    Change { op: "GridSample", since: 20, bring: rename_interpolation },
    Change { op: "GroupNormalization", since: 21, bring: refuse_scale_per_group },
];

fn changes(opset: i64, op: &str) -> impl Iterator<Item = &'static Change> {
    CHANGES.iter().filter(move |change| change.op == op && opset < change.since)
}

/// Brings a node of the standard domain and this operator set forward.
///
/// # Errors
///
/// Input errors: a form that has no counterpart; a sub-graph with an operator that would have to be changed.
pub(super) fn bring_forward(opset: i64, form: &mut Form) -> Result<()> {
    for change in changes(opset, form.op) {
        (change.bring)(form)?;
    }
    for (domain, op) in subgraph::operators(form.attributes) {
        if super::is_standard(&domain) && changes(opset, &op).next().is_some() {
            return Err(Error::input(format!("its sub-graph uses `{op}` in the form of opset {opset}"))
                .hint(format!("export the model with opset {OPSET}")));
        }
    }
    Ok(())
}

/// Until opset 13 the mode followed from the number of outputs; the last two of five held intermediate results.
fn state_training_mode(form: &mut Form) -> Result<()> {
    if form.outputs.len() > 1 {
        form.set("training_mode", Attribute::Int(1));
        form.outputs.truncate(3);
    }
    Ok(())
}

fn state_pixel_centres(form: &mut Form) -> Result<()> {
    form.set("coordinate_transformation_mode", Attribute::Text("output_half_pixel".to_owned()));
    Ok(())
}

fn axes_to_input(form: &mut Form) -> Result<()> {
    if let Some(Attribute::Ints(axes)) = form.take("axes")
        && !axes.is_empty()
    {
        form.added.push((1, Tensor::vector(axes)));
    }
    Ok(())
}

fn state_number_of_parts(form: &mut Form) -> Result<()> {
    if form.inputs.get(1).copied().flatten().is_none() && form.lacks("num_outputs") {
        form.set("num_outputs", Attribute::Int(form.outputs.len() as i64));
    }
    Ok(())
}

fn axis_to_input(form: &mut Form) -> Result<()> {
    let axis = match form.take("axis") {
        Some(Attribute::Int(axis)) => axis,
        _ => 1,
    };
    form.added.push((2, Tensor::scalar(axis)));
    Ok(())
}

fn rename_interpolation(form: &mut Form) -> Result<()> {
    let name = match form.take("mode") {
        Some(Attribute::Text(mode)) if mode == "bicubic" => "cubic".to_owned(),
        Some(Attribute::Text(mode)) if mode != "bilinear" => mode,
        _ => "linear".to_owned(),
    };
    form.set("mode", Attribute::Text(name));
    Ok(())
}

/// Until opset 20 scale and bias had one element per group, now they have one per channel.
fn refuse_scale_per_group(_: &mut Form) -> Result<()> {
    Err(Error::input("`GroupNormalization` before opset 21 scales groups, not channels")
        .hint(format!("export the model with opset {OPSET}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Brought = (Vec<(String, Attribute)>, Vec<(usize, Tensor)>, usize);

    fn brought(opset: i64, op: &str, attributes: &[(&str, Attribute)], outputs: usize) -> Result<Brought> {
        let mut attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let mut outputs = (0..outputs).map(|index| index.to_string()).collect();
        let mut form = Form { op, inputs: &[], outputs: &mut outputs, attributes: &mut attributes, added: Vec::new() };
        bring_forward(opset, &mut form)?;
        let added = form.added;
        Ok((attributes, added, outputs.len()))
    }

    fn text(value: &str) -> Attribute {
        Attribute::Text(value.to_owned())
    }

    /// Operator, the opset of the change, an attribute before it, number of inputs, and what is made of them.
    type Change<'a> = (&'a str, i64, (&'a str, Attribute), usize, Brought);

    #[test]
    fn every_change_is_made_before_its_opset_and_not_from_it_on() {
        let axes = Attribute::Ints(vec![0, -1]);
        let named = |name: &str, value: Attribute| vec![(name.to_owned(), value)];
        let axes_input = vec![(1, Tensor::vector(vec![0i64, -1]))];
        let cases: Vec<Change> = vec![
            ("ReduceMean", 18, ("axes", axes), 1, (vec![], axes_input, 1)),
            ("DFT", 20, ("axis", Attribute::Int(2)), 1, (vec![], vec![(2, Tensor::scalar(2i64))], 1)),
            ("GridSample", 20, ("mode", text("bicubic")), 1, (named("mode", text("cubic")), vec![], 1)),
            ("GridSample", 20, ("mode", text("bilinear")), 1, (named("mode", text("linear")), vec![], 1)),
            ("GridSample", 20, ("mode", text("nearest")), 1, (named("mode", text("nearest")), vec![], 1)),
        ];
        for (op, since, (name, value), outputs, expected) in cases {
            let given = [(name, value.clone())];
            assert_eq!(brought(since - 1, op, &given, outputs).unwrap(), expected, "{op}");
            assert_eq!(brought(since, op, &given, outputs).unwrap(), (named(name, value), vec![], outputs), "{op}");
        }
    }

    #[test]
    fn what_older_opsets_left_open_is_stated() {
        let (attributes, _, _) = brought(17, "Split", &[("axis", Attribute::Int(1))], 3).unwrap();
        assert_eq!(attributes[1], ("num_outputs".to_owned(), Attribute::Int(3)));
        let (attributes, _, outputs) = brought(13, "BatchNormalization", &[], 5).unwrap();
        assert_eq!((attributes, outputs), (vec![("training_mode".to_owned(), Attribute::Int(1))], 3));
        assert_eq!(brought(13, "BatchNormalization", &[], 1).unwrap(), (vec![], vec![], 1));
        let (attributes, _, _) = brought(15, "RoiAlign", &[], 1).unwrap();
        assert_eq!(attributes, [("coordinate_transformation_mode".to_owned(), text("output_half_pixel"))]);
    }

    #[test]
    fn groups_with_a_scale_of_their_own_are_refused() {
        assert!(brought(20, "GroupNormalization", &[], 1).is_err());
        assert!(brought(21, "GroupNormalization", &[], 1).is_ok());
    }
}
