//! Links between documents: each names a file that exists and, behind `#`, a heading of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::{Document, files};
use crate::workspace::Workspace;

/// What `document` links to, without what lies elsewhere in the network.
pub fn targets(document: &Document) -> Vec<String> {
    let events = Parser::new_ext(&document.text, Options::ENABLE_TABLES);
    let targets = events.filter_map(|event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.into_string()),
        _ => None,
    });
    let elsewhere = |target: &String| {
        ["https:", "http:", "mailto:"]
            .iter()
            .any(|scheme| target.starts_with(scheme))
    };
    targets.filter(|target| !elsewhere(target)).collect()
}

/// The links of all `documents` that lead nowhere. `exists` says whether a path below the root is there.
pub fn faults(documents: &[Document], exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let anchors: BTreeMap<&Path, BTreeSet<String>> = documents
        .iter()
        .map(|document| (document.path.as_path(), anchors(&document.text)))
        .collect();
    let mut faults = Vec::new();
    for document in documents {
        for target in targets(document) {
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = match file {
                "" => Some(document.path.clone()),
                _ => beside(&document.path, file),
            };
            let reason = match path {
                None => Some("leads out of the repository"),
                Some(path) if !exists(&path) => Some("there is no such file"),
                Some(path) if !anchor.is_empty() => match anchors.get(path.as_path()) {
                    Some(anchors) if !anchors.contains(anchor) => Some("there is no such heading"),
                    _ => None,
                },
                Some(_) => None,
            };
            if let Some(reason) = reason {
                faults.push(format!("{}: the link `{target}`: {reason}", document.path.display()));
            }
        }
    }
    faults
}

/// Documents that sources name (`docs/….md`) and that do not exist: users meet them in messages.
pub fn unknown_documents(workspace: &Workspace) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for pattern in ["*.rs", "*.py", "*.toml", "*.md"] {
        for path in files(workspace, pattern)? {
            let text = fs::read_to_string(workspace.root().join(&path))
                .with_context(|| format!("cannot read {}", path.display()))?;
            for name in named_documents(&text) {
                if !workspace.root().join(&name).exists() {
                    faults.push(format!("{} names {name}, which does not exist", path.display()));
                }
            }
        }
    }
    Ok(faults)
}

/// `docs/NAME.md` wherever it stands in `text` for a document of this workspace. A name of one letter is an example.
fn named_documents(text: &str) -> BTreeSet<String> {
    let in_name = |c: char| c.is_ascii_lowercase() || c == '-';
    let names = text.match_indices("docs/").filter_map(|(at, folder)| {
        let of_another = text[..at].ends_with(|c: char| c == '/' || c.is_alphanumeric());
        let rest = &text[at + folder.len()..];
        let name = &rest[..rest.find(|c| !in_name(c))?];
        let is_document = name.len() > 1 && rest[name.len()..].starts_with(".md");
        (is_document && !of_another).then(|| format!("docs/{name}.md"))
    });
    names.collect()
}

/// The path of `target` as `document` means it, relative to the root of the workspace.
pub fn beside(document: &Path, target: &str) -> Option<PathBuf> {
    let mut path = document.parent()?.to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => (),
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// The anchors of all headings, made as code hosts and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let base = anchor(&heading.take().unwrap_or_default());
                let again = (1..).map(|count| format!("{base}-{count}"));
                let free = std::iter::once(base.clone())
                    .chain(again)
                    .find(|name| !anchors.contains(name));
                anchors.extend(free);
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => (),
        }
    }
    anchors
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c),
        _ => None,
    });
    kept.collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(path: &str, text: &str) -> Document {
        Document {
            path: path.into(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let documents = [
            document(
                "docs/a.md",
                "[ok](b.md#two-words-1) [ok](#one) [ok](../src/x.rs) ![no](gone.png)\n# One",
            ),
            document(
                "docs/b.md",
                "# Two words\n## Two `words`\n[no](../../out.md) [no](a.md#two) <https://x.y>",
            ),
        ];
        let there = ["docs/a.md", "docs/b.md", "src/x.rs"].map(Path::new);
        let found = faults(&documents, |path| there.contains(&path));
        let expected = [
            "docs/a.md: the link `gone.png`: there is no such file",
            "docs/b.md: the link `../../out.md`: leads out of the repository",
            "docs/b.md: the link `a.md#two`: there is no such heading",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn anchors_are_those_of_code_hosts() {
        let text = "# A start\n## `bench NAME`, and (more)\n### A start\n";
        let expected = ["a-start", "a-start-1", "bench-name-and-more"];
        assert_eq!(anchors(text), expected.map(str::to_owned).into());
    }

    #[test]
    fn named_documents_are_found_in_sources() {
        let text =
            "see docs/report.md, `docs/log-format.md#limits`, docs/*.md, docs/flow.svg, ggml/docs/gguf.md, docs/a.md";
        let expected = ["docs/log-format.md", "docs/report.md"];
        assert_eq!(named_documents(text), expected.map(str::to_owned).into());
    }
}
