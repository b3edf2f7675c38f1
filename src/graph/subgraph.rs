//! What the sub-graphs of `If`, `Loop` and `Scan` use. They are kept as bytes and never changed.

use std::collections::HashSet;

use prost::Message;

use super::Attribute;
use super::messages::{GraphProto, NodeProto, SubGraphs};

/// The sub-graphs among the attributes of a node.
fn sub_graphs(attributes: &[(String, Attribute)]) -> Vec<GraphProto> {
    let bytes = attributes.iter().filter_map(|(_, attribute)| match attribute {
        Attribute::Other(bytes) => Some(bytes.as_slice()),
        _ => None,
    });
    bytes.flat_map(graphs_of).collect()
}

fn graphs_of(attribute: &[u8]) -> Vec<GraphProto> {
    // What is no attribute has been refused when the file was read.
    let SubGraphs { g, mut graphs } = SubGraphs::decode(attribute).unwrap_or_default();
    graphs.extend(g);
    graphs
}

fn inner_graphs(node: &NodeProto) -> Vec<GraphProto> {
    node.attribute.iter().flat_map(|attribute| graphs_of(attribute)).collect()
}

/// Names of the values outside that the sub-graphs of a node read.
pub(super) fn captured(attributes: &[(String, Attribute)]) -> HashSet<String> {
    sub_graphs(attributes).iter().flat_map(captured_by).collect()
}

fn captured_by(graph: &GraphProto) -> HashSet<String> {
    let mut read: HashSet<String> = graph.output.iter().filter_map(|output| output.name.clone()).collect();
    let mut made: HashSet<&str> = graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref()).collect();
    made.extend(graph.input.iter().filter_map(|input| input.name.as_deref()));
    for node in &graph.node {
        made.extend(node.output.iter().map(String::as_str));
        read.extend(node.input.iter().cloned());
        read.extend(inner_graphs(node).iter().flat_map(captured_by));
    }
    read.retain(|name| !name.is_empty() && !made.contains(name.as_str()));
    read
}

/// Domain and operator of every node in the sub-graphs of a node.
pub(super) fn operators(attributes: &[(String, Attribute)]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = sub_graphs(attributes);
    while let Some(graph) = open.pop() {
        for node in graph.node {
            open.extend(inner_graphs(&node));
            found.push((node.domain.unwrap_or_default(), node.op_type.unwrap_or_default()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::messages::{ModelProto, OperatorSetIdProto, ValueInfoProto};
    use super::super::{Builder, Graph, OPSET};
    use super::*;

    fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        NodeProto { op_type: Some(op.into()), input: names(inputs), output: names(outputs), ..NodeProto::default() }
    }

    fn info(name: &str) -> ValueInfoProto {
        ValueInfoProto { name: Some(name.into()), ..ValueInfoProto::default() }
    }

    /// `y = if condition { op(a) + a } else { op(a) + a }`, with `a = -x` outside.
    fn conditional(opset: i64, op: &str) -> Vec<u8> {
        let inner = vec![node(op, &["a"], &["b"]), node("Add", &["b", "a"], &["c"])];
        let branch = GraphProto { node: inner, output: vec![info("c")], ..GraphProto::default() };
        let attribute = |name: &str| {
            let mut bytes = Vec::new();
            prost::encoding::string::encode(1, &name.to_owned(), &mut bytes);
            prost::encoding::message::encode(6, &branch, &mut bytes);
            prost::encoding::int32::encode(20, &5, &mut bytes);
            bytes
        };
        let attributes = ["then_branch", "else_branch"].map(attribute).to_vec();
        let choice = NodeProto { attribute: attributes, ..node("If", &["condition"], &["y"]) };
        let graph = GraphProto {
            node: vec![node("Neg", &["x"], &["a"]), choice],
            input: vec![info("x"), info("condition")],
            output: vec![info("y")],
            ..GraphProto::default()
        };
        let opset_import = vec![OperatorSetIdProto { domain: None, version: Some(opset) }];
        ModelProto { graph: Some(graph), opset_import, ..ModelProto::default() }.encode_to_vec()
    }

    #[test]
    fn what_a_sub_graph_reads_is_kept() {
        let mut graph = Graph::from_onnx(&conditional(OPSET, "Exp")).unwrap();
        graph.prune();
        let ops: Vec<&str> = graph.nodes.iter().map(|node| node.op.as_str()).collect();
        assert_eq!(ops, ["Neg", "If"]);
        let a = graph.find("a").unwrap();
        assert_eq!(graph.captured().into_values().flatten().collect::<HashSet<_>>(), HashSet::from([a]));
        let (x, y) = (graph.find("x").unwrap(), graph.outputs[0]);
        let mut builder = Builder::resume(graph);
        assert!(builder.ty(y).is_err());
        builder.assume(y, super::super::Type::new(crate::tensor::DType::F32, []));
        let error = super::super::gradients(&mut builder, y, &[x], &[]).unwrap_err();
        assert_eq!(error.to_string(), "cannot differentiate `If` (node `If_1`): no row in graph::ops");
    }

    #[test]
    fn a_sub_graph_of_an_older_opset_is_read_if_its_operators_are_the_same() {
        assert_eq!(Graph::from_onnx(&conditional(17, "Exp")).unwrap().opset(), Some(OPSET));
        let error = Graph::from_onnx(&conditional(17, "ReduceMean")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `If` (node `If_1`)");
        assert_eq!(Graph::from_onnx(&conditional(18, "ReduceMean")).unwrap().opset(), Some(OPSET));
    }
}
