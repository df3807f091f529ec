//! Lines that wait for the disk or for a reader, up to a number of bytes.

use std::collections::VecDeque;

use crate::log::{Dropped, Line, LineKind, SampleFacts};

impl Dropped {
    fn add(&mut self, line: &Line) {
        match &line.kind {
            LineKind::Sample(Some(facts)) => self.add_sample(facts),
            // Repeats a sample that has lines of its own.
            LineKind::Sample(None) | LineKind::Rotation => {}
            LineKind::Event | LineKind::SegmentEnd => self.other_lines += 1,
        }
    }

    fn add_sample(&mut self, facts: &SampleFacts) {
        self.merge(&Self {
            intervals: 1,
            from_seq: Some(facts.seq),
            to_seq: Some(facts.seq),
            cpu_ns: facts.cpu_ns,
            zones: facts.zones_uj.clone(),
            other_lines: 0,
        });
    }

    fn merge(&mut self, other: &Self) {
        self.intervals += other.intervals;
        self.other_lines += other.other_lines;
        self.from_seq = [self.from_seq, other.from_seq].into_iter().flatten().min();
        self.to_seq = self.to_seq.max(other.to_seq);
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
        for (zone, uj) in &other.zones {
            let sum = self.zones.entry(zone.clone()).or_default();
            *sum = sum.saturating_add(*uj);
        }
    }
}

/// What is to be written next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A line.
    Line(Line),
    /// An event in the place of dropped samples; it ends the segment before it.
    Gap(Dropped),
}

/// Lines in order. Where they would need more than the limit, the oldest samples give way.
#[derive(Debug)]
pub struct Backlog {
    lines: VecDeque<Line>,
    bytes: usize,
    limit: usize,
    gap: Option<Dropped>,
}

impl Backlog {
    /// Lines of so many bytes at most.
    pub fn new(limit: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            limit,
            gap: None,
        }
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.lines.len() + usize::from(self.gap.is_some())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a line at the end; returns how many samples were dropped for it.
    pub fn push(&mut self, line: Line) -> u64 {
        self.bytes += line.text().len();
        self.lines.push_back(line);
        let mut dropped = Dropped::default();
        while self.bytes > self.limit {
            let is_sample = |line: &Line| matches!(line.kind, LineKind::Sample(_));
            let oldest = self.lines.iter().position(is_sample).unwrap_or(0);
            let Some(line) = self.lines.remove(oldest) else { break };
            self.bytes -= line.text().len();
            dropped.add(&line);
        }
        let samples = dropped.intervals;
        if dropped != Dropped::default() {
            self.gap.get_or_insert_default().merge(&dropped);
        }
        samples
    }

    /// Takes what is to be written next.
    pub fn pop(&mut self) -> Option<Item> {
        if let Some(gap) = self.gap.take() {
            return Some(Item::Gap(gap));
        }
        let line = self.lines.pop_front()?;
        self.bytes -= line.text().len();
        Some(Item::Line(line))
    }

    /// Puts back what could not be written; returns how many samples were dropped by that: one whose successors were
    /// dropped meanwhile joins them, so that a gap in a segment is never inside it.
    pub fn put_back(&mut self, item: Item) -> u64 {
        match (item, &mut self.gap) {
            (Item::Line(line), Some(gap)) if matches!(line.kind, LineKind::Sample(_)) => {
                let before = gap.intervals;
                gap.add(&line);
                return gap.intervals - before;
            }
            (Item::Line(line), _) => {
                self.bytes += line.text().len();
                self.lines.push_front(line);
            }
            (Item::Gap(put_back), gap) => gap.get_or_insert_default().merge(&put_back),
        }
        0
    }

    /// Samples that were dropped and wait to be noted.
    pub fn gap_intervals(&self) -> u64 {
        self.gap.as_ref().map_or(0, |gap| gap.intervals)
    }

    /// Gives up everything; returns what it was.
    pub fn drop_all(&mut self) -> Option<Dropped> {
        let mut gap = self.gap.take();
        for line in self.lines.drain(..) {
            gap.get_or_insert_default().add(&line);
        }
        self.bytes = 0;
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seq: u64) -> Line {
        let facts = SampleFacts {
            seq,
            cpu_ns: 10,
            zones_uj: [("package-0".to_owned(), seq)].into(),
        };
        Line::new(LineKind::Sample(Some(facts)), &format!("sample {seq}")).unwrap()
    }

    #[test]
    fn the_oldest_samples_give_way_and_their_sums_stay() {
        let length = sample(0).text().len();
        let mut backlog = Backlog::new(3 * length + Line::segment_end().text().len());
        assert_eq!(backlog.push(Line::segment_end()), 0);
        let dropped: u64 = (0..5).map(|seq| backlog.push(sample(seq))).sum();
        assert_eq!((dropped, backlog.len()), (2, 5));
        let Some(Item::Gap(gap)) = backlog.pop() else {
            panic!("no gap")
        };
        assert_eq!(
            (gap.intervals, gap.from_seq, gap.to_seq, gap.cpu_ns),
            (2, Some(0), Some(1), 20)
        );
        assert_eq!(gap.zones["package-0"], 1);
        // What is put back is one gap with what was dropped meanwhile.
        backlog.push(sample(5));
        backlog.put_back(Item::Gap(gap));
        let Some(Item::Gap(gap)) = backlog.pop() else {
            panic!("no gap")
        };
        assert_eq!((gap.intervals, gap.from_seq, gap.to_seq), (3, Some(0), Some(2)));
        assert_eq!(backlog.pop(), Some(Item::Line(Line::segment_end())));
        assert_eq!(backlog.pop(), Some(Item::Line(sample(3))));
        assert_eq!(backlog.put_back(Item::Line(sample(3))), 0);
        assert_eq!((6..9).map(|seq| backlog.push(sample(seq))).sum::<u64>(), 1);
        assert_eq!(
            backlog.put_back(Item::Line(sample(2))),
            1,
            "older than what was dropped"
        );
        let rest = backlog.drop_all().unwrap();
        assert_eq!((rest.intervals, rest.from_seq, rest.to_seq), (7, Some(2), Some(8)));
        assert!(backlog.is_empty());
    }

    #[test]
    fn without_samples_other_lines_give_way_too() {
        let mut backlog = Backlog::new(10);
        assert_eq!(backlog.push(Line::segment_end()), 0);
        assert!(backlog.lines.is_empty());
        let Some(Item::Gap(gap)) = backlog.pop() else {
            panic!("no gap")
        };
        assert_eq!((gap.intervals, gap.other_lines), (0, 1));
    }
}
