//! Foreign names as ids and labels: printable, and of limited length.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::printable::{is_printable, one_line};

/// Longest id or label in bytes.
pub(super) const LONGEST_BYTES: usize = 200;

/// A name as an id: characters that cannot be shown, and backslashes that would be taken for such, become `\u{…}`, and of a
/// name that is too long the beginning and a digest of the whole is left. Different names stay different.
pub fn id(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for (at, character) in name.char_indices() {
        if is_printable(character) && !name[at..].starts_with("\\u{") {
            text.push(character);
        } else {
            let _ = write!(text, "\\u{{{:x}}}", u32::from(character));
        }
    }
    if text.len() <= LONGEST_BYTES {
        return text;
    }
    let digest = Sha256::digest(name.as_bytes());
    let mut ending = "~".to_owned();
    for byte in digest.iter().take(8) {
        let _ = write!(ending, "{byte:02x}");
    }
    format!("{}{ending}", cut(&text, LONGEST_BYTES - ending.len()))
}

/// A foreign text as the value of a label; `None` if there is nothing in it.
pub fn label(text: &str) -> Option<String> {
    // What is cut away need not be read.
    let shown = one_line(cut(text, LONGEST_BYTES));
    let text = cut(&shown, LONGEST_BYTES).trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// At most so many bytes of a text, in whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_shown_is_escaped_in_ids_and_replaced_in_labels() {
        assert_eq!(id("a\nb\u{202e}"), r"a\u{a}b\u{202e}");
        assert_eq!(id(r"a\u{a}b\x2dc"), r"a\u{5c}u{a}b\x2dc");
        assert_eq!(label("a\nb\u{202e}").as_deref(), Some("a?b?"));
        assert_eq!(label(" \n"), Some("?".to_owned()));
        assert_eq!(label("  "), None);
    }

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let (one, other) = ("x".repeat(10_000) + "1", "x".repeat(10_000) + "2");
        assert_ne!(id(&one), id(&other));
        assert!(id(&one).len() <= LONGEST_BYTES && label(&one).is_some_and(|label| label.len() == LONGEST_BYTES));
        assert_eq!(label(&"ä".repeat(150)).map(|label| label.len()), Some(200));
    }

    proptest! {
        #[test]
        fn any_text_is_printable_and_short(text in ".{0,400}") {
            for shown in [Some(id(&text)), label(&text)].into_iter().flatten() {
                prop_assert!(shown.len() <= LONGEST_BYTES && shown.chars().all(is_printable));
            }
        }
    }
}
