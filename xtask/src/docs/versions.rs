//! The version: said in `Cargo.toml`, and the same in the changelog and in the citation.

use std::{fs, path::Path};

use anyhow::{Context, Result};

const CHANGELOG: &str = "CHANGELOG.md";
const CITATION: &str = "CITATION.cff";

/// Where the version is another than that of the workspace.
pub fn faults(root: &Path) -> Result<Vec<String>> {
    let read = |name: &str| fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"));
    // Of this crate, which has the workspace's.
    let version = env!("CARGO_PKG_VERSION");
    let said = [
        (CHANGELOG, newest_release(&read(CHANGELOG)?)),
        (CITATION, cited(&read(CITATION)?)),
    ];
    let wrong = said.into_iter().filter(|(_, said)| said.as_deref() != Some(version));
    Ok(wrong
        .map(|(name, said)| {
            let said = said.unwrap_or_else(|| "nothing".to_owned());
            format!("{name}: the newest version is {said}, and that of Cargo.toml is {version}")
        })
        .collect())
}

/// The first `## [X.Y.Z]` of a changelog.
fn newest_release(changelog: &str) -> Option<String> {
    let headings = changelog.lines().filter_map(|line| line.strip_prefix("## ["));
    let mut names = headings.filter_map(|rest| Some(rest.split_once(']')?.0));
    names.find(|name| *name != "Unreleased").map(str::to_owned)
}

fn cited(citation: &str) -> Option<String> {
    let version = citation.lines().find_map(|line| line.strip_prefix("version:"))?;
    Some(version.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_where_they_are_said() {
        let changelog = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-11-28\n\n## [0.1.0]\n";
        assert_eq!(newest_release(changelog).as_deref(), Some("0.2.0"));
        assert_eq!(newest_release("## [Unreleased]"), None);
        assert_eq!(cited("title: x\nversion: 0.2.0\n").as_deref(), Some("0.2.0"));
    }
}
