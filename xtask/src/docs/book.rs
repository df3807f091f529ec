//! The documents as a book: its table of contents is complete, and its sources are laid out as in the repository.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    Document, documents,
    links::{beside, targets},
};
use crate::workspace::Workspace;

/// The table of contents, in mdBook's form. Its links are relative to its own folder, as everywhere.
const CONTENTS: &str = "docs/SUMMARY.md";

/// The settings of the book.
const SETTINGS: &str = "docs/book.toml";

/// Documents in `docs` that the table of contents leaves out.
pub fn faults(documents: &[Document]) -> Result<Vec<String>> {
    let contents = contents(documents)?;
    let chapters: BTreeSet<PathBuf> = chapters(contents).collect();
    let missing = documents
        .iter()
        .map(|document| &document.path)
        .filter(|path| path.starts_with("docs") && path.as_path() != Path::new(CONTENTS) && !chapters.contains(*path));
    Ok(missing
        .map(|path| format!("{} is missing in {CONTENTS}", path.display()))
        .collect())
}

fn contents(documents: &[Document]) -> Result<&Document> {
    let found = documents.iter().find(|document| document.path == Path::new(CONTENTS));
    found.with_context(|| format!("{CONTENTS} is missing"))
}

fn chapters(contents: &Document) -> impl Iterator<Item = PathBuf> {
    targets(contents)
        .into_iter()
        .filter_map(|target| beside(&contents.path, &target))
}

/// Lays the sources of the book out in `folder`, which is emptied first.
///
/// Documents link to each other across folders, and a book has one: so the layout of the repository is kept, and only the
/// table of contents moves to its root.
pub fn stage(workspace: &Workspace, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let documents = documents(workspace)?;
    let contents = contents(&documents)?;
    let sources = folder.join("src");
    let mut wanted: BTreeSet<PathBuf> = chapters(contents).collect();
    // Pictures and other files that chapters show.
    for document in &documents {
        if wanted.contains(&document.path) {
            let shown = targets(document);
            let shown = shown.iter().map(|target| target.split('#').next().unwrap_or_default());
            wanted.extend(shown.filter_map(|target| beside(&document.path, target)));
        }
    }
    for path in wanted {
        let from = workspace.root().join(&path);
        if from.is_file() {
            copy(&from, &sources.join(&path))?;
        }
    }
    let moved = moved_to_root(contents);
    write(&sources.join("SUMMARY.md"), &moved)?;
    copy(&workspace.root().join(SETTINGS), &folder.join("book.toml"))
}

/// The table of contents with links as seen from the root.
fn moved_to_root(contents: &Document) -> String {
    let mut text = contents.text.clone();
    for target in targets(contents) {
        if let Some(path) = beside(&contents.path, &target) {
            text = text.replace(&format!("]({target})"), &format!("]({})", path.display()));
        }
    }
    text
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write(to, bytes)
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    fs::write(path, bytes).with_context(failed)
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
    fn a_document_that_the_contents_leave_out_is_found() {
        let documents = [
            document("README.md", ""),
            document("docs/SUMMARY.md", "- [a](a.md)\n- [read](../README.md)"),
            document("docs/a.md", ""),
            document("docs/b.md", ""),
        ];
        assert_eq!(faults(&documents).unwrap(), ["docs/b.md is missing in docs/SUMMARY.md"]);
        assert_eq!(moved_to_root(&documents[1]), "- [a](docs/a.md)\n- [read](README.md)");
    }
}
