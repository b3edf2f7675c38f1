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
