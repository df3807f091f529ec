//! Files beside the model that hold its weights: their names, and whether they are there. Their contents are not read.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path},
};

use super::proto::{Constant, Graph, Model, Node};
use crate::{ModelError, summary::ExternalFile};

/// Files that are looked for at most.
const MOST_FILES: usize = 10_000;

/// The files that a model names, with what it needs of each.
///
/// # Errors
///
/// Where a name leads out of the model's folder, or there are too many.
pub fn files(model: &Path, contents: &Model) -> Result<Vec<ExternalFile>, ModelError> {
    let mut needed: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    let mut open: Vec<&Graph> = vec![&contents.graph];
    let mut constants: Vec<&Constant> = Vec::new();
    let mut nodes: Vec<&Node> = contents.functions.iter().flat_map(|function| &function.nodes).collect();
    loop {
        while let Some(graph) = open.pop() {
            constants.extend(&graph.initializers);
            nodes.extend(&graph.nodes);
        }
        let Some(node) = nodes.pop() else { break };
        for attribute in &node.attributes {
            constants.extend(&attribute.tensor);
            open.extend(attribute.graph.as_deref());
        }
    }
    for external in constants.iter().filter_map(|constant| constant.external.as_ref()) {
        let end = external.length.and_then(|length| external.offset.checked_add(length));
        let of_file = needed.entry(&external.location).or_insert(Some(0));
        *of_file = of_file.zip(end).map(|(before, end)| before.max(end));
        if needed.len() > MOST_FILES {
            return Err(ModelError::TooLarge(format!("it names more than {MOST_FILES} files")));
        }
    }
    let folder = model.parent().unwrap_or(Path::new(""));
    needed
        .into_iter()
        .map(|(name, needed_bytes)| {
            let inside = Path::new(name)
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            if !inside || name.is_empty() {
                return Err(ModelError::Malformed(format!(
                    "its weights are said to be in `{}`, which is not in the folder of the model",
                    crate::printable(name)
                )));
            }
            let status = fs::metadata(folder.join(name)).ok().filter(fs::Metadata::is_file);
            Ok(ExternalFile {
                name: crate::printable(name),
                needed_bytes,
                file_bytes: status.map(|status| status.len()),
            })
        })
        .collect()
}

/// What a reader of the result has to know of these files.
pub fn notes(files: &[ExternalFile]) -> Vec<String> {
    let note = |file: &ExternalFile| match (file.file_bytes, file.needed_bytes) {
        (None, _) => Some(format!(
            "its weights are in `{}`, which is not beside the model: it cannot be run without that file",
            file.name
        )),
        (Some(there), Some(needed)) if there < needed => Some(format!(
            "its weights are in `{}`, which is too short: it has {there} of {needed} bytes",
            file.name
        )),
        _ => None,
    };
    files.iter().filter_map(note).take(10).collect()
}
