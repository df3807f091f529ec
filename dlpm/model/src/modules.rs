//! The modules of a model, under the names that its author gave them.

use std::collections::BTreeMap;

use crate::{onnx::proto::Node, tally::OpCount};

/// A module, with all that is inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Its path, as `encoder.layers.0`; empty for the model itself.
    pub path: String,
    /// Parameters.
    pub params: u64,
    /// Multiply-accumulate operations; `None` where the format does not hold them.
    pub mult_adds: Option<u64>,
}

impl Module {
    /// How many modules are around it.
    pub fn depth(&self) -> usize {
        if self.path.is_empty() {
            0
        } else {
            self.path.split('.').count()
        }
    }

    /// Its name in the module around it.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }
}

/// Modules that are listed at most, those around others included.
const MOST_MODULES: usize = 20_000;

/// Modules in each other at most; those deeper inside belong to the last one.
const MOST_DEPTH: usize = 16;

/// A part of a path. Numbers are ordered as numbers, and before names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part<'a> {
    number: u64,
    text: &'a str,
}

impl<'a> Part<'a> {
    fn of(text: &'a str) -> Self {
        Self {
            number: text.parse().unwrap_or(u64::MAX),
            text,
        }
    }
}

/// The tree of modules with the sums of each: every module after the one around it.
pub fn tree(params: &BTreeMap<String, u64>, operations: Option<&BTreeMap<String, OpCount>>) -> Vec<Module> {
    let mut sums: BTreeMap<Vec<Part<'_>>, (u64, u64)> = BTreeMap::new();
    let of_params = params.iter().map(|(path, params)| (path, *params, 0));
    let of_operations = operations
        .into_iter()
        .flatten()
        .map(|(path, of)| (path, 0, of.mult_adds));
    for (path, params, mult_adds) in of_params.chain(of_operations) {
        let parts: Vec<Part<'_>> = path
            .splitn(MOST_DEPTH, '.')
            .filter(|part| !part.is_empty())
            .map(Part::of)
            .collect();
        for length in 0..=parts.len() {
            let key = parts.get(..length).unwrap_or_default();
            if sums.len() >= MOST_MODULES && !sums.contains_key(key) {
                continue;
            }
            let sum = sums.entry(key.to_vec()).or_default();
            sum.0 = sum.0.saturating_add(params);
            sum.1 = sum.1.saturating_add(mult_adds);
        }
    }
    // Where no operator names its module, only the whole is known.
    let are_named = operations.is_some_and(|operations| operations.keys().any(|path| !path.is_empty()));
    let modules = sums.into_iter().map(|(parts, (params, mult_adds))| {
        let path: Vec<&str> = parts.iter().map(|part| part.text).collect();
        let is_known = operations.is_some() && (are_named || parts.is_empty());
        Module {
            path: path.join("."),
            params,
            mult_adds: is_known.then_some(mult_adds),
        }
    });
    modules.collect()
}

/// Longest path of a module that is kept, in bytes.
const MOST_BYTES: usize = 300;

/// The module of an operator in an ONNX file, as `encoder.layers.0`; empty where it belongs to the model itself.
///
/// PyTorch's newer exporter writes the modules around an operator as a list in the form of Python, whose last entry is the operator;
/// its older one, and TensorFlow's, write them as a path that is the operator's name.
pub fn of_onnx(node: &Node) -> String {
    if let Some(list) = node.scopes.trim().strip_prefix('[') {
        let entries = list.trim_end_matches(']').split(',');
        let entries: Vec<&str> = entries.map(|entry| entry.trim().trim_matches(['\'', '"'])).collect();
        return match entries.as_slice() {
            [.., module, _] => cut(module),
            _ => String::new(),
        };
    }
    match node.name.trim_start_matches('/').rsplit_once('/') {
        Some((path, _)) => cut(&path.replace('/', ".")),
        None => String::new(),
    }
}

/// The module of an operator in a program of `torch.export`, from its `nn_module_stack`: entries of name, path and class, the
/// innermost last.
pub fn of_stack(stack: &str) -> String {
    let innermost = stack.rsplit(';').next().unwrap_or_default();
    let path = innermost.split(',').nth(1).unwrap_or_default();
    let path = path.strip_prefix("L['self'].").unwrap_or(path);
    cut(path)
}

/// The module that holds a tensor: its name without the last part.
pub fn of_tensor(name: &str) -> String {
    name.rsplit_once('.').map_or_else(String::new, |(path, _)| cut(path))
}

fn cut(path: &str) -> String {
    let mut end = path.len().min(MOST_BYTES);
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    path.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_operators() {
        let onnx = |name: &str, scopes: &str| {
            of_onnx(&Node {
                name: name.to_owned(),
                scopes: scopes.to_owned(),
                ..Node::default()
            })
        };
        for (name, scopes, module) in [
            (
                "node_linear",
                "['', 'encoder', 'encoder.layers.0', 'linear']",
                "encoder.layers.0",
            ),
            ("node_linear", "['', 'linear']", ""),
            ("/encoder/layers.0/attn/MatMul", "", "encoder.layers.0.attn"),
            ("MatMul_7", "", ""),
            ("", "[", ""),
        ] {
            assert_eq!(onnx(name, scopes), module, "{name} {scopes}");
        }
        for (stack, module) in [
            (
                "L__self__,,__main__.Fn;L__self__l,l,torch.nn.modules.linear.Linear",
                "l",
            ),
            ("L__self__,,__main__.Fn", ""),
            ("L__self__,L['self'].a.b,x", "a.b"),
            ("", ""),
        ] {
            assert_eq!(of_stack(stack), module, "{stack}");
        }
        assert_eq!(of_tensor("a.b.weight"), "a.b");
        assert_eq!(cut(&"é".repeat(200)).len(), 300);
    }

    #[test]
    fn a_module_holds_what_is_inside() {
        let params = [("", 1), ("layers.10", 4), ("layers.2.mlp", 2)];
        let params: BTreeMap<String, u64> = params
            .iter()
            .map(|(path, count)| ((*path).to_owned(), *count))
            .collect();
        let count = OpCount { runs: 1, mult_adds: 7 };
        let operations = BTreeMap::from([("layers.2".to_owned(), count)]);
        let modules = tree(&params, Some(&operations));
        let rows: Vec<_> = modules
            .iter()
            .map(|module| (module.path.as_str(), module.params, module.mult_adds, module.depth()))
            .collect();
        assert_eq!(
            rows,
            [
                ("", 7, Some(7), 0),
                ("layers", 6, Some(7), 1),
                ("layers.2", 2, Some(7), 2),
                ("layers.2.mlp", 2, Some(0), 3),
                ("layers.10", 4, Some(0), 2),
            ]
        );
        assert_eq!(modules[3].name(), "mlp");
        assert!(tree(&BTreeMap::new(), None).is_empty());
    }
}
