//! Foreign text made safe to show: what comes from a file, a name, a socket or a driver.
//!
//! A name may hold characters that move the cursor, change the direction of the text around them, or take no room at
//! all. None of them reaches a terminal, a table, a page or a picture. [`printable`] is for one name or message,
//! [`page`] for a whole output, [`json`] for JSON, which keeps them in another form. Nothing else in dlpm decides which
//! characters are safe.

use std::{borrow::Cow, fmt::Write as _};

/// Replaces a character that is not shown.
const SUBSTITUTE: char = '?';

/// Whether a character has a shape of its own.
///
/// Not so are: controls (C0, DEL, C1), characters of the general categories Cf, Zl and Zp, and of the property
/// `Default_Ignorable_Code_Point` (Unicode 16, `DerivedCoreProperties.txt`), and the last two of the basic plane, which
/// XML cannot hold.
pub fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_control();
    }
    !matches!(character,
        '\u{80}'..='\u{9F}' | '\u{AD}' | '\u{34F}' | '\u{600}'..='\u{605}' | '\u{61C}' | '\u{6DD}' | '\u{70F}'
        | '\u{890}'..='\u{891}' | '\u{8E2}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}'
        | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
        | '\u{FFFE}'..='\u{FFFF}' | '\u{110BD}' | '\u{110CD}' | '\u{13430}'..='\u{1343F}'
        | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// Longest name or message that is shown whole: tables are laid out around the longest one.
const LONGEST: usize = 1_000;

/// A name or a message on one line, shortened if it is very long: every other character is shown as `?`, the end of a
/// line as well.
pub fn printable(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => one_line(text),
        Some((end, _)) => one_line(text.get(..end).unwrap_or_default()) + "…",
    }
}

/// Like [`printable`], of any length.
pub fn one_line(text: &str) -> String {
    text.chars().map(shown).collect()
}

/// A whole output: like [`printable`], but lines stay lines.
pub fn page(text: &str) -> Cow<'_, str> {
    let is_safe = |character| character == '\n' || is_printable(character);
    if text.chars().all(is_safe) {
        return Cow::Borrowed(text);
    }
    let safe = |character| if character == '\n' { '\n' } else { shown(character) };
    Cow::Owned(text.chars().map(safe).collect())
}

/// JSON with the same contents, in which those characters are written as `\uXXXX`: outside of texts JSON has none but
/// ends of lines and tabs, which become blanks.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_safe = |character: char| is_printable(character) || character == '\n';
    if text.chars().all(is_safe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 64);
    for character in text.chars() {
        if is_safe(character) {
            escaped.push(character);
        } else if matches!(character, '\t' | '\r') {
            // A text has none: serde_json refuses them.
            escaped.push(' ');
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(escaped)
}

fn shown(character: char) -> char {
    if is_printable(character) { character } else { SUBSTITUTE }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member of each kind.
    const UNSAFE: [char; 24] = [
        '\0',
        '\u{7}',
        '\t',
        '\r',
        '\u{1B}',
        '\u{7F}',
        '\u{85}',
        '\u{9B}',
        '\u{AD}',
        '\u{61C}',
        '\u{115F}',
        '\u{180E}',
        '\u{200B}',
        '\u{200D}',
        '\u{200E}',
        '\u{2028}',
        '\u{2029}',
        '\u{202E}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{FE0F}',
        '\u{FEFF}',
        '\u{E0041}',
    ];

    #[test]
    fn what_has_no_shape_is_shown_as_a_question_mark() {
        for character in UNSAFE {
            assert_eq!(
                printable(&format!("a{character}b")),
                "a?b",
                "{:x}",
                u32::from(character)
            );
            assert_eq!(page(&format!("a{character}\nb")), "a?\nb", "{:x}", u32::from(character));
        }
        assert_eq!(printable("a\nb"), "a?b");
        assert_eq!(printable(&"é".repeat(100_000)).chars().count(), LONGEST + 1);
        for text in [
            "python",
            "größe 学習 εκπαίδευση",
            "é e\u{301}",
            "…→×µ\u{A0}",
            "🔥",
            "\u{FFFD}",
        ] {
            assert_eq!(printable(text), text);
            assert!(matches!(page(text), Cow::Borrowed(_)));
        }
    }

    /// The standard library's notion of a control is a part of ours.
    #[test]
    fn every_control_is_among_them() {
        let forgotten = ('\0'..=char::MAX).find(|character| character.is_control() && is_printable(*character));
        assert_eq!(forgotten, None);
    }

    #[test]
    fn json_says_the_same_in_other_words() {
        for character in UNSAFE {
            let text = format!("a{character}\"b");
            let value = serde_json::json!({ &text: [&text] });
            let pretty = format!("{value:#}");
            let escaped = json(&pretty);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
            assert_eq!(page(&escaped), escaped, "{:x}", u32::from(character));
        }
        assert_eq!(json("{\t\"a\":\r\n1}"), "{ \"a\": \n1}");
        assert!(matches!(json("{\n  \"größe\": 1\n}\n"), Cow::Borrowed(_)));
    }
}
