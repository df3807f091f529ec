//! Phases of a trace: what marks ask for, which phases are open, and what is said back. No socket, no clock.
//!
//! The text of requests and answers is an interface, described in `docs/phases.md`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes of a label at most.
pub const LABEL_BYTES: usize = 128;

/// Bytes of a request at most, with its newline: verb, space and label.
pub const REQUEST_BYTES: usize = LABEL_BYTES + 16;

/// Phases that can be open at the same time.
pub const OPEN_PHASES: usize = 100;

/// Open phases that an error names at most.
const NAMED: usize = 10;

/// What a mark asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// The phase that the mark before began ends, and this one begins: for phases in a row, as epochs.
    Mark,
    /// A phase begins; others stay open.
    Begin,
    /// A phase ends.
    End,
}

impl Verb {
    const ALL: [Self; 3] = [Self::Mark, Self::Begin, Self::End];

    fn as_str(self) -> &'static str {
        match self {
            Self::Mark => "mark",
            Self::Begin => "begin",
            Self::End => "end",
        }
    }
}

/// One mark: its text is one line, `mark LABEL`, `begin LABEL` or `end LABEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    verb: Verb,
    label: String,
}

impl Request {
    /// A mark with this label.
    ///
    /// # Errors
    ///
    /// A sentence, where the label cannot be one.
    pub fn new(verb: Verb, label: &str) -> Result<Self, String> {
        let wrong = if label.trim().is_empty() {
            "it is empty".to_owned()
        } else if label.len() > LABEL_BYTES {
            format!("it has {} bytes; at most {LABEL_BYTES} are allowed", label.len())
        } else if label.chars().any(char::is_control) {
            "it has a control character, as a tab or the end of a line".to_owned()
        } else if label.trim() != label {
            "it begins or ends with a space".to_owned()
        } else {
            return Ok(Self {
                verb,
                label: label.to_owned(),
            });
        };
        Err(format!(
            "`{}` is not a label for a phase: {wrong}",
            label.escape_debug()
        ))
    }

    /// Reads a request; `line` is without its newline.
    ///
    /// # Errors
    ///
    /// A sentence for whoever sent it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(line).map_err(|_| "the request is not UTF-8".to_owned())?;
        let (word, label) = text.split_once(' ').unwrap_or((text, ""));
        match Verb::ALL.into_iter().find(|verb| verb.as_str() == word) {
            Some(verb) => Self::new(verb, label),
            None => Err(format!(
                "`{}` is not a request: write `mark LABEL`, `begin LABEL` or `end LABEL` and a newline",
                word.escape_debug()
            )),
        }
    }

    /// What it asks for.
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// Its label.
    pub fn label(&self) -> &str {
        &self.label
    }
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.verb.as_str(), self.label)
    }
}

/// A moment at which one interval ended and the next began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Border {
    /// Number of the interval after it.
    pub seq: u64,
    /// CLOCK_MONOTONIC.
    pub at_ns: u64,
}

/// What the trace says to a mark: `ok SEQ AT_NS`, or `error` and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The border is made.
    Done(Border),
    /// It is not, and why.
    Refused(String),
}

impl Answer {
    /// Reads an answer; `None`: it is none.
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.trim_end_matches('\n').split_once(' ')?;
        match word {
            "ok" => {
                let mut numbers = rest.split(' ').map(str::parse);
                Some(Self::Done(Border {
                    seq: numbers.next()?.ok()?,
                    at_ns: numbers.next()?.ok()?,
                }))
            }
            "error" => Some(Self::Refused(rest.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(border) => write!(out, "ok {} {}", border.seq, border.at_ns),
            Self::Refused(reason) => write!(out, "error {reason}"),
        }
    }
}

/// What changes at a border.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This phase begins.
    Begin(String),
    /// This phase ends.
    End(String),
}

/// Phases that are open, as plain values: those of a recording that goes on elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenPhases {
    /// Labels in the order in which they began, each with the number of ends that it needs.
    pub open: Vec<(String, u64)>,
    /// What the last `mark` began, if it is open.
    pub marked: Option<String>,
}

/// The phases that are open.
#[derive(Debug, Default)]
pub struct Phases {
    /// In the order in which they began, with the number of ends that each needs.
    open: Vec<(String, u64)>,
    /// What the last `mark` began, as long as it is open.
    marked: Option<String>,
}

impl Phases {
    /// Those of a recording that goes on.
    ///
    /// # Errors
    ///
    /// A sentence, where they cannot be ones that were open.
    pub fn of(open: OpenPhases) -> Result<Self, String> {
        if open.open.len() > OPEN_PHASES {
            return Err(format!("at most {OPEN_PHASES} phases are open"));
        }
        for (position, (label, depth)) in open.open.iter().enumerate() {
            Request::new(Verb::Begin, label)?;
            let is_twice = open.open[..position].iter().any(|(before, _)| before == label);
            if is_twice || *depth == 0 {
                return Err(format!("the phase `{label}` is open once, and needs an end"));
            }
        }
        let is_open = |marked: &String| open.open.iter().any(|(label, _)| label == marked);
        Ok(Self {
            marked: open.marked.clone().filter(is_open),
            open: open.open,
        })
    }

    /// Those that are open.
    pub fn open(&self) -> OpenPhases {
        OpenPhases {
            open: self.open.clone(),
            marked: self.marked.clone(),
        }
    }

    /// Whether `request` begins a phase that is not open, or the next one in a row: an end is always possible.
    pub fn begins(&self, request: &Request) -> bool {
        match request.verb {
            Verb::Mark => true,
            Verb::Begin => !self.open.iter().any(|(open, _)| *open == request.label),
            Verb::End => false,
        }
    }

    /// What `request` changes; nothing but the depth where a phase that is open is begun again.
    ///
    /// # Errors
    ///
    /// A sentence for whoever marked; nothing has changed then.
    pub fn apply(&mut self, request: &Request) -> Result<Vec<Change>, String> {
        let label = &request.label;
        match request.verb {
            Verb::End => self.end(label).map(|change| change.into_iter().collect()),
            Verb::Begin => self.begin(label).map(|change| change.into_iter().collect()),
            Verb::Mark => {
                let makes_room = |marked: &String| self.open.contains(&(marked.clone(), 1));
                if !self.marked.as_ref().is_some_and(makes_room) {
                    self.room_for(label)?;
                }
                let ended = match self.marked.clone() {
                    Some(marked) => self.end(&marked)?,
                    None => None,
                };
                let begun = self.begin(label)?;
                self.marked = Some(label.clone());
                Ok(ended.into_iter().chain(begun).collect())
            }
        }
    }

    /// Ends all that are open, the newest first.
    pub fn end_all(&mut self) -> Vec<Change> {
        self.marked = None;
        self.open.drain(..).rev().map(|(label, _)| Change::End(label)).collect()
    }

    fn room_for(&self, label: &str) -> Result<(), String> {
        if self.open.len() < OPEN_PHASES || self.open.iter().any(|(open, _)| open == label) {
            return Ok(());
        }
        Err(format!(
            "{OPEN_PHASES} phases are open, which is the maximum: end some, or use `mark`, which ends the one before"
        ))
    }

    fn begin(&mut self, label: &str) -> Result<Option<Change>, String> {
        self.room_for(label)?;
        if let Some((_, depth)) = self.open.iter_mut().find(|(open, _)| open == label) {
            *depth = depth.saturating_add(1);
            return Ok(None);
        }
        self.open.push((label.to_owned(), 1));
        Ok(Some(Change::Begin(label.to_owned())))
    }

    fn end(&mut self, label: &str) -> Result<Option<Change>, String> {
        let Some(position) = self.open.iter().position(|(open, _)| open == label) else {
            return Err(format!("no phase `{label}` is open; {}", self.those_open()));
        };
        if self.open[position].1 > 1 {
            self.open[position].1 -= 1;
            return Ok(None);
        }
        self.open.remove(position);
        self.marked.take_if(|marked| marked == label);
        Ok(Some(Change::End(label.to_owned())))
    }

    fn those_open(&self) -> String {
        let named: Vec<String> = self
            .open
            .iter()
            .take(NAMED)
            .map(|(label, _)| format!("`{label}`"))
            .collect();
        match self.open.len() {
            0 => "none is: begin one first".to_owned(),
            1..=NAMED => format!("open are {}", named.join(", ")),
            open => format!("open are {} and {} more", named.join(", "), open - NAMED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies requests and writes what changes: `+a` begins, `-a` ends.
    fn changes(phases: &mut Phases, line: &str) -> Result<String, String> {
        let changes = phases.apply(&Request::parse(line.as_bytes())?)?;
        let words = changes.iter().map(|change| match change {
            Change::Begin(label) => format!("+{label}"),
            Change::End(label) => format!("-{label}"),
        });
        Ok(words.collect::<Vec<_>>().join(" "))
    }

    #[track_caller]
    fn story(lines: &[(&str, &str)]) -> Phases {
        let mut phases = Phases::default();
        for (line, expected) in lines {
            assert_eq!(changes(&mut phases, line).as_deref(), Ok(*expected), "{line}");
        }
        phases
    }

    #[test]
    fn phases_nest_overlap_and_count_their_depth() {
        let mut phases = story(&[
            ("begin a", "+a"),
            ("begin b", "+b"),
            ("end a", "-a"),
            ("begin b", ""),
            ("end b", ""),
            ("end b", "-b"),
            ("begin c d", "+c d"),
            ("begin e", "+e"),
        ]);
        assert_eq!(
            phases.end_all(),
            ["e", "c d"].map(|label| Change::End(label.to_owned()))
        );
        assert_eq!(phases.end_all(), []);
    }

    #[test]
    fn phases_go_on_elsewhere() {
        let phases = story(&[("begin a", "+a"), ("begin a", ""), ("mark b", "+b")]);
        let mut elsewhere = Phases::of(phases.open()).unwrap();
        assert_eq!(changes(&mut elsewhere, "mark c").unwrap(), "-b +c");
        assert_eq!(changes(&mut elsewhere, "end a").unwrap(), "");
        assert_eq!(changes(&mut elsewhere, "end a").unwrap(), "-a");
        for open in [
            vec![("a".to_owned(), 0)],
            vec![("a".to_owned(), 1), ("a".to_owned(), 1)],
            vec![(" ".to_owned(), 1)],
        ] {
            Phases::of(OpenPhases { open, marked: None }).unwrap_err();
        }
        let gone = OpenPhases {
            open: Vec::new(),
            marked: Some("b".to_owned()),
        };
        assert_eq!(Phases::of(gone).unwrap().open(), OpenPhases::default());
    }

    #[test]
    fn a_mark_ends_the_mark_before() {
        story(&[
            ("mark 1", "+1"),
            ("begin inner", "+inner"),
            ("mark 2", "-1 +2"),
            ("mark 2", "-2 +2"),
            ("end 2", "-2"),
            ("mark 3", "+3"),
            // Begun once more: it stays open when the mark's end comes.
            ("begin 3", ""),
            ("mark 4", "+4"),
            ("end 3", "-3"),
            ("mark inner", "-4"),
            ("mark 5", "+5"),
            ("end inner", "-inner"),
        ]);
    }

    #[test]
    fn what_is_not_open_cannot_end() {
        let mut phases = Phases::default();
        assert_eq!(
            changes(&mut phases, "end x"),
            Err("no phase `x` is open; none is: begin one first".to_owned())
        );
        for number in 1..=12 {
            changes(&mut phases, &format!("begin {number}")).unwrap();
        }
        let message = changes(&mut phases, "end x").unwrap_err();
        assert!(
            message.ends_with("open are `1`, `2`, `3`, `4`, `5`, `6`, `7`, `8`, `9`, `10` and 2 more"),
            "{message}"
        );
        phases.end_all();
        for number in 0..OPEN_PHASES {
            changes(&mut phases, &format!("begin {number}")).unwrap();
        }
        assert!(changes(&mut phases, "begin one more").is_err());
        assert!(changes(&mut phases, "mark one more").is_err());
        assert_eq!(changes(&mut phases, "begin 7"), Ok(String::new()));
        assert_eq!(phases.end_all().len(), OPEN_PHASES);
    }

    #[test]
    fn labels_have_a_form() {
        for good in ["x", "train 1", "エポック", &"x".repeat(LABEL_BYTES), "begin", "end end"] {
            let request = Request::new(Verb::Mark, good).unwrap();
            assert_eq!(Request::parse(request.to_string().as_bytes()), Ok(request.clone()));
            assert!(request.to_string().len() < REQUEST_BYTES);
        }
        for (bad, says) in [
            ("mark ", "empty"),
            ("mark", "empty"),
            ("mark  x", "a space"),
            ("mark x ", "a space"),
            ("mark x\ty", "control"),
            ("mark \u{85}", "empty"),
            ("mark a\u{9b}b", "control"),
            ("marks x", "`mark LABEL`"),
            ("", "`mark LABEL`"),
        ] {
            let message = Request::parse(bad.as_bytes()).unwrap_err();
            assert!(message.contains(says), "{bad:?}: {message}");
        }
        assert!(Request::parse(b"mark \xff").unwrap_err().contains("UTF-8"));
        assert!(Request::new(Verb::End, &"é".repeat(65)).unwrap_err().contains("130"));
    }

    #[test]
    fn answers_can_be_read_again() {
        for answer in [
            Answer::Done(Border { seq: 7, at_ns: 12 }),
            Answer::Refused("no phase `x` is open".to_owned()),
        ] {
            assert_eq!(Answer::parse(&format!("{answer}\n")), Some(answer));
        }
        for other in ["", "ok", "ok 1", "ok x 1", "yes 1 2"] {
            assert_eq!(Answer::parse(other), None, "{other}");
        }
    }
}
