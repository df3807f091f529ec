//! What waits for the reader of one recording.

use std::{cell::RefCell, rc::Rc};

use tokio::sync::Notify;

use super::wire::StreamLine;
use crate::{
    log::{Event, Line, LineKind},
    sinks::queue::{Backlog, Item},
};

/// Lines for a reader, the oldest first. Those of a log are bounded: where they are too many, the oldest samples are
/// dropped, and one line has their sums.
#[derive(Debug)]
pub struct Outbox {
    state: RefCell<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// The first line.
    first: Option<String>,
    backlog: Backlog,
    /// The last line, once there is one.
    last: Option<String>,
    /// Whether the newest line that was taken is of a segment that has not ended.
    is_segment_open: bool,
}

impl Outbox {
    /// An empty one, for lines of so many bytes.
    pub fn new(limit_bytes: usize) -> Rc<Self> {
        Rc::new(Self {
            state: RefCell::new(State {
                first: None,
                backlog: Backlog::new(limit_bytes),
                last: None,
                is_segment_open: false,
            }),
            changed: Notify::new(),
        })
    }

    /// Adds the first line.
    pub fn begin(&self, line: &StreamLine) {
        self.state.borrow_mut().first = text(line);
        self.changed.notify_one();
    }

    /// Adds lines of the log.
    pub fn add(&self, lines: Vec<Line>) {
        let mut state = self.state.borrow_mut();
        for line in lines {
            state.backlog.push(line);
        }
        self.changed.notify_one();
    }

    /// Adds the last line.
    pub fn end(&self, line: &StreamLine) {
        self.state.borrow_mut().last = text(line);
        self.changed.notify_one();
    }

    /// Waits for the next piece of the stream: whole lines. `None` after the last one.
    pub async fn next(&self) -> Option<String> {
        loop {
            match self.state.borrow_mut().next() {
                Next::Text(text) => return Some(text),
                Next::End => return None,
                Next::Later => {}
            }
            self.changed.notified().await;
        }
    }
}

enum Next {
    Text(String),
    Later,
    End,
}

impl State {
    fn next(&mut self) -> Next {
        if let Some(first) = self.first.take() {
            return Next::Text(first);
        }
        match self.backlog.pop() {
            Some(Item::Line(line)) => {
                self.is_segment_open = match line.kind {
                    LineKind::Sample(_) => true,
                    LineKind::SegmentEnd => false,
                    LineKind::Event | LineKind::Rotation => self.is_segment_open,
                };
                Next::Text(line.text().to_owned())
            }
            Some(Item::Gap(dropped)) => {
                let mut text = String::new();
                if std::mem::take(&mut self.is_segment_open) {
                    text.push_str(Line::segment_end().text());
                }
                match Line::event(&Event::Dropped(dropped)) {
                    Ok(line) => text.push_str(line.text()),
                    Err(error) => log::warn!("what a reader missed cannot be written: {error}"),
                }
                Next::Text(text)
            }
            None => match self.last.as_mut() {
                Some(last) if last.is_empty() => Next::End,
                Some(last) => Next::Text(std::mem::take(last)),
                None => Next::Later,
            },
        }
    }
}

/// A line with its newline.
fn text(line: &StreamLine) -> Option<String> {
    let mut text = serde_json::to_string(line)
        .inspect_err(|error| log::warn!("a line of a recording cannot be written: {error}"))
        .ok()?;
    text.push('\n');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::SampleFacts,
        socket::wire::{EndReason, RecordingEnd},
    };

    fn sample(seq: u64) -> Line {
        let facts = SampleFacts {
            seq,
            cpu_ns: 10,
            ..SampleFacts::default()
        };
        Line::new(LineKind::Sample(Some(facts)), &format!("sample {seq}")).unwrap()
    }

    fn all(outbox: &Outbox) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut text = String::new();
            while let Some(next) = outbox.next().await {
                text.push_str(&next);
            }
            text
        })
    }

    #[test]
    fn a_slow_reader_gets_the_sums_of_what_it_missed() {
        let length = sample(0).text().len();
        let outbox = Outbox::new(2 * length);
        outbox.add(vec![sample(0)]);
        let Next::Text(first) = outbox.state.borrow_mut().next() else {
            panic!("nothing there")
        };
        assert_eq!(first, "\"sample 0\"\n");
        outbox.add((1..6).map(sample).collect());
        outbox.end(&StreamLine::Ended(RecordingEnd {
            reason: EndReason::Asked,
            switch_cost: None,
        }));
        let text = all(&outbox);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], Line::segment_end().text().trim_end());
        assert!(
            lines[1].contains("\"intervals\":3,\"from_seq\":1,\"to_seq\":3,\"cpu_ns\":30"),
            "{}",
            lines[1]
        );
        assert_eq!(lines[2..4], ["\"sample 4\"", "\"sample 5\""]);
        assert!(lines[4].starts_with("{\"ended\":"), "{}", lines[4]);
        assert_eq!(lines.len(), 5);
    }
}
