//! The walls between the modules of dlpm: which module may import which is a table in `ARCHITECTURE.md`.
//!
//! The code is read as syntax, so a path counts wherever it stands: in a `use`, in an expression, in a type or in the
//! arguments of a macro. What is compiled for tests only may import anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    Attribute, Item, ItemMod, ItemUse, Macro, UseTree,
    visit::{self, Visit},
};

/// The document with the table.
const DOCUMENT: &str = "ARCHITECTURE.md";

/// The head of the table: its rows follow until the first other line.
const HEAD: &str = "| module | may import |";

/// From each module to the modules that it imports, and one place where it does.
type Edges = BTreeMap<String, BTreeMap<String, Place>>;

/// What the table allows.
type Allowed = BTreeMap<String, BTreeSet<String>>;

/// A line of a file, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    file: PathBuf,
    line: usize,
}

/// Compares the imports of the crate in `dlpm/src` with the table.
///
/// # Errors
///
/// Every import that the table does not list, every entry that no code needs, and a circle between modules.
pub fn check(root: &Path) -> Result<()> {
    let text = fs::read_to_string(root.join(DOCUMENT)).with_context(|| format!("{DOCUMENT} cannot be read"))?;
    let allowed = table(&text)?;
    let edges = edges(root, Path::new("dlpm/src"))?;
    let mut faults = compare(&allowed, &edges);
    faults.extend(circle(&allowed));
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{}", faults.join("\n"))
}

/// The table of a document.
fn table(text: &str) -> Result<Allowed> {
    let mut lines = text.lines().skip_while(|line| line.trim() != HEAD).skip(2).peekable();
    if lines.peek().is_none() {
        bail!("{DOCUMENT} has no table with the head `{HEAD}`");
    }
    let mut allowed = Allowed::new();
    for line in lines.take_while(|line| line.starts_with('|')) {
        // The names are what stands between backticks.
        let mut names = line.split('`').skip(1).step_by(2).map(str::to_owned);
        let module = names
            .next()
            .with_context(|| format!("a row without a module: {line}"))?;
        if allowed.insert(module.clone(), names.collect()).is_some() {
            bail!("{DOCUMENT} has two rows for `{module}`");
        }
    }
    Ok(allowed)
}

fn compare(allowed: &Allowed, edges: &Edges) -> Vec<String> {
    let mut faults = Vec::new();
    for (module, imports) in edges {
        let Some(row) = allowed.get(module) else {
            faults.push(format!("{DOCUMENT}: the table of modules has no row for `{module}`"));
            continue;
        };
        for (import, place) in imports.iter().filter(|(import, _)| !row.contains(*import)) {
            faults.push(format!(
                "{}:{}: `{module}` must not import `{import}`. Move the code to where both may find it; where the design \
                 changed, change the table in {DOCUMENT}",
                place.file.display(),
                place.line,
            ));
        }
    }
    for (module, row) in allowed {
        let imports = edges.get(module);
        if imports.is_none() {
            faults.push(format!(
                "{DOCUMENT}: the table has a row for `{module}`, which does not exist"
            ));
        }
        for import in row
            .iter()
            .filter(|&import| imports.is_some_and(|found| !found.contains_key(import)))
        {
            faults.push(format!(
                "{DOCUMENT}: `{module}` does not import `{import}` any more: take it out of the table"
            ));
        }
    }
    faults
}

/// A circle of modules that import each other, if there is one.
fn circle(allowed: &Allowed) -> Option<String> {
    // Take away what imports nothing that is left, until nothing changes: what remains leads into a circle.
    let mut left = allowed.clone();
    loop {
        let leaves: Vec<String> = left
            .iter()
            .filter(|(_, imports)| !imports.iter().any(|import| left.contains_key(import)))
            .map(|(module, _)| module.clone())
            .collect();
        if leaves.is_empty() {
            break;
        }
        left.retain(|module, _| !leaves.contains(module));
    }
    let mut way = vec![left.keys().next()?];
    while let Some(next) = left.get(*way.last()?)?.iter().find(|import| left.contains_key(*import)) {
        if let Some(at) = way.iter().position(|module| *module == next) {
            let names: Vec<&str> = way
                .iter()
                .skip(at)
                .chain([&next])
                .map(|module| module.as_str())
                .collect();
            return Some(format!(
                "{DOCUMENT}: modules import each other in a circle: {}",
                names.join(" -> ")
            ));
        }
        way.push(next);
    }
    None
}

/// The imports between the top modules of the crate whose `lib.rs` is in `folder` below `root`.
fn edges(root: &Path, folder: &Path) -> Result<Edges> {
    let mut reader = Reader {
        root,
        edges: Edges::new(),
    };
    reader.file(&folder.join("lib.rs"), folder, &[])?;
    Ok(reader.edges)
}

struct Reader<'a> {
    root: &'a Path,
    edges: Edges,
}

impl Reader<'_> {
    /// Reads the file of the module with this path, whose children are in `children`, and everything below it.
    fn file(&mut self, file: &Path, children: &Path, module: &[String]) -> Result<()> {
        let text =
            fs::read_to_string(self.root.join(file)).with_context(|| format!("{} cannot be read", file.display()))?;
        let syntax = syn::parse_file(&text).with_context(|| format!("{} cannot be parsed", file.display()))?;
        if let [top] = module {
            self.edges.entry(top.clone()).or_default();
        }
        let mut scan = Scan {
            module: module.to_vec(),
            found: Vec::new(),
            modules: Vec::new(),
        };
        for item in &syntax.items {
            scan.visit_item(item);
        }
        if let Some(from) = module.first() {
            for (import, line) in scan.found {
                let place = || Place {
                    file: file.to_owned(),
                    line,
                };
                if import != *from {
                    let imports = self.edges.entry(from.clone()).or_default();
                    imports.entry(import).or_insert_with(place);
                }
            }
        }
        for path in scan.modules {
            let below: PathBuf = path.iter().skip(module.len()).collect();
            let beside = children.join(&below);
            let file = beside.with_extension("rs");
            if self.root.join(&file).exists() {
                self.file(&file, &beside, &path)?;
            } else {
                self.file(&beside.join("mod.rs"), &beside, &path)?;
            }
        }
        Ok(())
    }
}

/// One file: the top modules that it names, with lines, and the modules that have files of their own.
struct Scan {
    /// Where the syntax that is visited stands.
    module: Vec<String>,
    found: Vec<(String, usize)>,
    modules: Vec<Vec<String>>,
}

impl Scan {
    /// Notes the top module of a path from these first words on.
    fn path(&mut self, words: &[String], span: Span) {
        let top = match words.first().map(String::as_str) {
            Some("crate") => words.get(1).cloned(),
            Some("super") => {
                let up = words.iter().take_while(|word| *word == "super").count();
                let stay = self.module.len().saturating_sub(up);
                self.module
                    .iter()
                    .take(stay)
                    .chain(words.iter().skip(up))
                    .next()
                    .cloned()
            }
            _ => None,
        };
        if let Some(top) = top {
            self.found.push((top, span.start().line));
        }
    }

    fn tree(&mut self, words: &mut Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                words.push(path.ident.to_string());
                self.tree(words, &path.tree);
                words.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(words, tree);
                }
            }
            UseTree::Name(name) => self.leaf(words, &name.ident),
            UseTree::Rename(rename) => self.leaf(words, &rename.ident),
            UseTree::Glob(glob) => self.path(words, glob.star_token.spans[0]),
        }
    }

    fn leaf(&mut self, words: &[String], name: &proc_macro2::Ident) {
        let mut words = words.to_vec();
        words.push(name.to_string());
        self.path(&words, name.span());
    }

    /// `crate::NAME` in the arguments of a macro, which are not syntax yet.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(ident) if *ident == "crate" => {
                    if let Some(TokenTree::Ident(name)) = tokens.get(at + 3) {
                        self.path(&["crate".to_owned(), name.to_string()], name.span());
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Scan {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => &[],
        };
        if !attributes.iter().any(for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        match &item.content {
            Some((_, items)) => {
                for item in items {
                    self.visit_item(item);
                }
            }
            None => self.modules.push(self.module.clone()),
        }
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(segment) = path.segments.first() {
            self.path(&words, segment.ident.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.tokens(call.tokens.clone());
    }
}

/// Whether an attribute is `#[cfg(test)]`, alone or among others.
fn for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.meta.require_list().is_ok_and(|list| {
            list.tokens
                .clone()
                .into_iter()
                .next()
                .is_some_and(|token| token.to_string() == "test")
        })
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    /// A crate in a folder of its own, which is deleted at the end.
    struct Crate(PathBuf);

    impl Crate {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = env::temp_dir().join(format!("dlpm-walls-{name}-{}", std::process::id()));
            for (file, text) in files {
                let file = root.join("src").join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Self(root)
        }

        fn imports(&self, module: &str) -> Vec<String> {
            edges(&self.0, Path::new("src")).unwrap()[module]
                .keys()
                .cloned()
                .collect()
        }
    }

    impl Drop for Crate {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn imports_are_found_wherever_they_stand() {
        let lib = "mod a; mod b; mod c; mod d; mod e; mod f; mod g; mod h; mod i;";
        let top = "mod inner; use crate::{b::B, c::{self, C as D}}; use super::d::*;
            fn f(e: &crate::e::E) { println!(\"{}\", crate::f::F) }";
        let inner =
            "fn f() { super::super::g::g(); super::own(); self::own() } mod deep { use super::super::super::h; }
            #[cfg(test)] mod tests { use crate::i; }";
        let mut files = vec![("lib.rs", lib), ("a/mod.rs", top), ("a/inner.rs", inner)];
        files.extend(["b.rs", "c.rs", "d.rs", "e.rs", "f.rs", "g.rs", "h.rs", "i.rs"].map(|file| (file, "")));
        let tree = Crate::new("found", &files);
        assert_eq!(tree.imports("a"), ["b", "c", "d", "e", "f", "g", "h"]);
        assert!(tree.imports("b").is_empty());
    }

    #[test]
    fn what_the_table_does_not_say_is_a_fault_and_so_is_what_it_says_too_much() {
        let tree = Crate::new(
            "table",
            &[
                ("lib.rs", "mod a; mod b; mod c;"),
                ("a.rs", "use crate::b;\nuse crate::c;"),
                ("b.rs", ""),
                ("c.rs", ""),
            ],
        );
        let found = edges(&tree.0, Path::new("src")).unwrap();
        let with = |rows: &str| {
            compare(
                &table(&format!("text\n{HEAD}\n|---|---|\n{rows}\ntext")).unwrap(),
                &found,
            )
        };
        assert!(with("| `a` | `b`, `c` |\n| `b` | |\n| `c` | |").is_empty());
        let faults = with("| `a` | `b` |\n| `b` | `c` |\n| `d` | |");
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(
            faults[0].starts_with("src/a.rs:2: `a` must not import `c`"),
            "{faults:?}"
        );
        assert!(faults[1].contains("no row for `c`"), "{faults:?}");
        assert!(faults[2].contains("`b` does not import `c`"), "{faults:?}");
        assert!(faults[3].contains("`d`, which does not exist"), "{faults:?}");
    }

    #[test]
    fn a_circle_is_a_fault() {
        let allowed = |rows: &str| table(&format!("{HEAD}\n|---|---|\n{rows}")).unwrap();
        assert_eq!(circle(&allowed("| `a` | `b`, `c` |\n| `b` | `c` |\n| `c` | |")), None);
        let found = circle(&allowed("| `a` | `b` |\n| `b` | `c` |\n| `c` | `d` |\n| `d` | `b` |")).unwrap();
        assert!(found.ends_with("b -> c -> d -> b"), "{found}");
    }

    #[test]
    fn a_document_without_the_table_is_refused() {
        assert!(
            table("| other | table |\n")
                .unwrap_err()
                .to_string()
                .contains("no table")
        );
    }
}
