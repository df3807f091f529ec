//! The length of lines.

use super::Document;

/// The most columns of a line. Tables, code blocks and the targets of links do not count.
const COLUMNS: usize = 120;

/// The lines of `document` that are too long.
pub fn faults(document: &Document) -> Vec<String> {
    let mut fence = None;
    let mut faults = Vec::new();
    for (index, line) in document.text.lines().enumerate() {
        let trimmed = line.trim_start();
        let marker = ["```", "~~~"].into_iter().find(|marker| trimmed.starts_with(marker));
        match (fence, marker) {
            (None, Some(marker)) => fence = Some(marker),
            (Some(open), Some(marker)) if open == marker => fence = None,
            (None, None) if !trimmed.starts_with('|') && !is_definition(trimmed) => {
                let columns = without_targets(line).chars().count();
                if columns > COLUMNS {
                    let path = document.path.display();
                    faults.push(format!("{path}:{}: {columns} columns, more than {COLUMNS}", index + 1));
                }
            }
            _ => (),
        }
    }
    faults
}

/// Whether `line` says where the links of a name lead: `[name]: target`.
fn is_definition(line: &str) -> bool {
    line.strip_prefix('[')
        .and_then(|rest| rest.split_once("]: "))
        .is_some_and(|(name, target)| !name.contains(']') && !target.trim().contains(' '))
}

/// `line` with `[text]` for `[text](target)` and nothing for `<https://…>`: neither can be broken.
fn without_targets(line: &str) -> String {
    let mut kept = String::new();
    let mut rest = line;
    let start_of = |text: &str| {
        text.find("](")
            .map(|at| at + 1)
            .into_iter()
            .chain(text.find("<http"))
            .min()
    };
    while let Some(start) = start_of(rest) {
        let close = if rest[start..].starts_with('(') { ')' } else { '>' };
        kept.push_str(&rest[..start]);
        rest = match rest[start..].find(close) {
            Some(length) => &rest[start + length + 1..],
            None => "",
        };
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(text: &str) -> usize {
        let document = Document {
            path: "a.md".into(),
            text: text.to_owned(),
        };
        faults(&document).len()
    }

    #[test]
    fn long_lines_are_found_and_what_cannot_be_broken_is_not() {
        let long = "word ".repeat(30);
        assert_eq!(faults_of(&long), 1);
        assert_eq!(faults_of(&"é".repeat(COLUMNS)), 0);
        assert_eq!(faults_of(&format!("| {long} |")), 0);
        assert_eq!(faults_of(&format!("```\n{long}\n```\n{long}")), 1);
        assert_eq!(faults_of(&format!("[a](https://example.org/{})", "x".repeat(200))), 0);
        assert_eq!(faults_of(&format!("<https://example.org/{}>", "x".repeat(200))), 0);
        assert_eq!(faults_of(&format!("[a](b) {long}")), 1);
        assert_eq!(faults_of(&format!("[a]: https://example.org/{}", "x".repeat(200))), 0);
        assert_eq!(faults_of(&format!("[a]: {long}")), 1);
    }
}
