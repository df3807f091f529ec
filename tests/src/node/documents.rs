//! Follows a document: its blocks of shell are run as they are written, so that a reader can run them as well.

use std::fs;

use super::{TEST, shell::sh};

/// Documents of the installed package.
const FOLDER: &str = "/usr/share/doc/dlpm/docs";

/// Runs each block of a document that is marked `sh`.
#[track_caller]
pub fn follow(name: &str) {
    let text = fs::read_to_string(format!("{FOLDER}/{name}")).unwrap();
    let blocks = blocks(&text);
    assert!(!blocks.is_empty(), "{name} has no block of shell");
    for block in blocks {
        // Where the package is, as a reader has it in the folder of the shell.
        sh(&format!("set -e\ncd {TEST}\n{block}"));
    }
}

/// What stands between the fences of its blocks.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        match (&mut open, line) {
            (None, "```sh") => open = Some(String::new()),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), line) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::blocks;

    #[test]
    fn only_blocks_of_shell_are_run() {
        let text = "a\n```sh\nfirst\nsecond\n```\nb\n```toml\nx = 1\n```\n```sh\nthird\n```\n";
        assert_eq!(blocks(text), ["first\nsecond\n", "third\n"]);
    }
}
