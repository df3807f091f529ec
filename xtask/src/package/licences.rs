//! The licences of what is linked into the program: most ask that their text goes with every copy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{process::probe, targets::Target, workspace::Workspace};

/// A crate of the program.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Part {
    /// Name and version.
    name: String,
    /// The licence, as the crate's author wrote it.
    licence: String,
    /// Where its sources are.
    folder: PathBuf,
}

/// The text that goes into a package: every crate with its licence, then each text of a licence once.
pub fn text(workspace: &Workspace, target: Target) -> Result<String> {
    let mut command = workspace.cargo();
    command.args([
        "metadata",
        "--format-version=1",
        "--quiet",
        "--filter-platform",
        target.triple(),
    ]);
    let metadata = probe(&mut command).context("`cargo metadata` failed; run it by hand to see why")?;
    let metadata: Value = serde_json::from_str(&metadata).context("`cargo metadata` printed no JSON")?;
    let parts = parts(&metadata, "dlpm").context("`cargo metadata` does not say what dlpm consists of")?;

    let mut list = String::from("dlpm contains these crates, under these licences. Their texts follow.\n\n");
    let mut texts: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for part in &parts {
        let Part { name, licence, folder } = part;
        writeln!(list, "{name}: {licence}")?;
        for text in licence_files(folder)? {
            texts.entry(text).or_default().insert(name);
        }
    }
    for (text, names) in texts {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        write!(list, "\n{}\n{names}\n\n{}\n", "-".repeat(80), text.trim_end())?;
    }
    Ok(list)
}

/// What of other people is linked into the workspace's crate `root`, found by walking its normal dependencies.
fn parts(metadata: &Value, root: &str) -> Option<BTreeSet<Part>> {
    let packages: BTreeMap<&str, &Value> = metadata["packages"]
        .as_array()?
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()?
        .iter()
        .filter_map(|node| Some((node["id"].as_str()?, node)))
        .collect();
    let is_root = |package: &&&Value| package["name"] == root && package["source"].is_null();
    let start = packages.values().find(is_root)?["id"].as_str()?;

    let (mut seen, mut open) = (BTreeSet::from([start]), vec![start]);
    while let Some(id) = open.pop() {
        for dependency in nodes.get(id)?["deps"].as_array()? {
            let is_linked = dependency["dep_kinds"]
                .as_array()?
                .iter()
                .any(|kind| kind["kind"].is_null());
            let id = dependency["pkg"].as_str()?;
            if is_linked && seen.insert(id) {
                open.push(id);
            }
        }
    }
    let part = |package: &&Value| {
        let text = |key: &str| package[key].as_str();
        Some(Part {
            name: format!("{} {}", text("name")?, text("version")?),
            licence: text("license").unwrap_or("see its text").to_owned(),
            folder: Path::new(text("manifest_path")?).parent()?.to_owned(),
        })
    };
    let foreign = seen
        .iter()
        .filter_map(|id| packages.get(id))
        .filter(|package| package["source"].is_string());
    foreign.map(part).collect()
}

/// The texts of the licences in `folder`, without the folders below it.
fn licence_files(folder: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let is_licence = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"]
            .iter()
            .any(|start| name.starts_with(start));
        if is_licence && entry.path().is_file() {
            let bytes = fs::read(entry.path()).with_context(|| format!("cannot read {}", entry.path().display()))?;
            texts.push(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_linked_is_found_and_what_only_builds_is_not() {
        let package = |name: &str, source: Value| {
            json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT", "source": source,
                "manifest_path": format!("/crates/{name}/Cargo.toml")})
        };
        let node = |name: &str, deps: &[(&str, Value)]| {
            let deps: Vec<Value> = deps
                .iter()
                .map(|(name, kind)| json!({"pkg": name, "dep_kinds": [{"kind": kind}]}))
                .collect();
            json!({"id": name, "deps": deps})
        };
        let metadata = json!({
            "packages": [
                package("dlpm", Value::Null),
                package("model", Value::Null),
                package("linked", json!("registry")),
                package("below", json!("registry")),
                package("builder", json!("registry")),
                package("elsewhere", json!("registry")),
            ],
            "resolve": {"nodes": [
                node("dlpm", &[("model", Value::Null), ("builder", json!("build"))]),
                node("model", &[("linked", Value::Null)]),
                node("linked", &[("below", Value::Null)]),
                node("below", &[("linked", json!("dev"))]),
            ]},
        });
        let parts = parts(&metadata, "dlpm").unwrap();
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["below 1.0.0", "linked 1.0.0"]);
    }
}
