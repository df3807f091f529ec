//! The order of operators: each after those that it reads from.
//!
//! The format demands it, but converters write files without it (ONNX Runtime's float16 converter, for one), and the runtimes
//! accept them.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use super::proto::{Graph, Node};

/// Sorts operators that are not in order; the order of the file decides where it may. Operators that read from each other in
/// a circle stay as they are.
pub fn sort(nodes: &mut Vec<Node>) {
    if let Some(order) = order(nodes) {
        let mut taken: Vec<Option<Node>> = nodes.drain(..).map(Some).collect();
        nodes.extend(order.into_iter().filter_map(|at| taken.get_mut(at)?.take()));
    }
}

/// The order in which they have to be; `None` where they are in order, or cannot be brought into one.
fn order(nodes: &[Node]) -> Option<Vec<usize>> {
    let mut made_by: HashMap<&str, usize> = HashMap::new();
    for (at, node) in nodes.iter().enumerate() {
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            made_by.entry(output).or_insert(at);
        }
    }
    let mut in_order = true;
    let mut needs = vec![0usize; nodes.len()];
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        each_read(node, &mut |name| {
            if let Some(from) = made_by.get(name)
                && *from != at
            {
                in_order &= *from < at;
                if let (Some(count), Some(list)) = (needs.get_mut(at), needed_by.get_mut(*from)) {
                    *count += 1;
                    list.push(at);
                }
            }
        });
    }
    if in_order {
        return None;
    }
    let ready = needs.iter().enumerate().filter(|(_, count)| **count == 0);
    let mut ready: BinaryHeap<Reverse<usize>> = ready.map(|(at, _)| Reverse(at)).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(at)) = ready.pop() {
        order.push(at);
        for next in needed_by.get(at)? {
            let count = needs.get_mut(*next)?;
            *count -= 1;
            if *count == 0 {
                ready.push(Reverse(*next));
            }
        }
    }
    (order.len() == nodes.len()).then_some(order)
}

/// Names that an operator reads, those in its graphs included.
fn each_read<'a>(node: &'a Node, take: &mut impl FnMut(&'a str)) {
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        node.inputs.iter().for_each(|name| take(name));
        let graphs = node
            .attributes
            .iter()
            .filter_map(|attribute| attribute.graph.as_deref());
        for Graph { nodes, outputs, .. } in graphs {
            outputs.iter().for_each(|output| take(&output.name));
            open.extend(nodes);
        }
    }
}
