//! That nothing counts twice: which lines and which times of which machines were added already. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// Ranges of numbers, and traces, that are told apart at most.
const MOST: usize = 1_000_000;

/// Two logs of one machine are of the same start of it if, by both, it began within this time.
const SAME_START_NS: i64 = 10_000_000_000;

/// A machine, and one of its starts.
type Start = (Arc<str>, Arc<str>);

/// A line of a tenant that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is new.
    New,
    /// It was added already: this is a copy.
    Again,
    /// There was another one with its number: two agents counted on one machine.
    Other,
    /// There are too many gaps between numbers.
    TooMany,
}

/// Which lines of tenants were added, by start of a machine and number.
///
/// An agent numbers its lines without a gap, so a machine's lines are one range, however many they are.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// From the first number of each range to its last, and to what the first line says.
    ranges: HashMap<Start, BTreeMap<u64, (u64, u64)>>,
    count: usize,
}

impl Numbers {
    /// A line of `node` and `boot_id`.
    pub fn add(&mut self, node: &Arc<str>, boot_id: &Arc<str>, number: u64, line: &[u8]) -> Seen {
        let mut hasher = DefaultHasher::new();
        line.trim_ascii().hash(&mut hasher);
        let hash = hasher.finish();
        let ranges = self.ranges.entry((node.clone(), boot_id.clone())).or_default();
        let before = ranges.range_mut(..=number).next_back();
        let mut first = (number, hash);
        if let Some((begin, (end, of_first))) = before {
            if number <= *end {
                let is_other = number == *begin && hash != *of_first;
                return if is_other { Seen::Other } else { Seen::Again };
            }
            if number == *end + 1 {
                *end = number;
                first = (*begin, *of_first);
            }
        }
        // The range that begins after it is one with it.
        let after = number.checked_add(1).and_then(|next| ranges.remove(&next));
        let joined = usize::from(first.0 != number) + usize::from(after.is_some());
        ranges.insert(first.0, (after.map_or(number, |(end, _)| end), first.1));
        self.count = self.count + 1 - joined;
        if self.count > MOST { Seen::TooMany } else { Seen::New }
    }
}

/// A time of a machine that a log covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which of the sources it is of.
    pub source: usize,
    /// The machine; `None` without metadata.
    pub node: Option<Arc<str>>,
    /// Its start, where that is known.
    pub boot_id: Option<Arc<str>>,
    /// CLOCK_MONOTONIC.
    pub begin_ns: u64,
    /// CLOCK_MONOTONIC.
    pub end_ns: u64,
    /// ns since 1970 at the end.
    pub end_unix_ns: i64,
}

impl Span {
    fn begin_unix_ns(&self) -> i64 {
        let length_ns = i64::try_from(self.end_ns.saturating_sub(self.begin_ns)).unwrap_or(i64::MAX);
        self.end_unix_ns.saturating_sub(length_ns)
    }

    /// When the machine was started, by the wall clock.
    fn start_unix_ns(&self) -> i64 {
        self.end_unix_ns
            .saturating_sub(i64::try_from(self.end_ns).unwrap_or(i64::MAX))
    }
}

/// What the logs and the lines cover.
#[derive(Clone, Debug, Default)]
pub struct Covered {
    spans: Vec<Span>,
    /// From the first beginning to the last end, by machine and its start, and the source.
    lives: HashMap<Start, (i64, i64, usize)>,
}

impl Covered {
    /// A trace of a log. Whether there is room for it.
    pub fn add(&mut self, span: Span) -> bool {
        self.spans.push(span);
        self.spans.len() <= MOST
    }

    /// A line of a tenant that has ended.
    pub fn add_life(
        &mut self,
        source: usize,
        node: &Arc<str>,
        boot_id: &Arc<str>,
        begin_unix_ns: i64,
        end_unix_ns: i64,
    ) {
        let life = (begin_unix_ns, end_unix_ns, source);
        let covered = self.lives.entry((node.clone(), boot_id.clone())).or_insert(life);
        *covered = (covered.0.min(begin_unix_ns), covered.1.max(end_unix_ns), covered.2);
    }

    /// Two sources that are of one machine and one time, so that the same joules are in both.
    pub fn twice(&self) -> Option<(usize, usize)> {
        let by_boot = self.spans.iter().filter_map(|span| Some((span.boot_id.clone()?, span)));
        let mut groups: HashMap<Arc<str>, Vec<&Span>> = HashMap::new();
        by_boot.for_each(|(boot_id, span)| groups.entry(boot_id).or_default().push(span));
        let mut by_node: HashMap<Option<Arc<str>>, Vec<&Span>> = HashMap::new();
        self.spans
            .iter()
            .for_each(|span| by_node.entry(span.node.clone()).or_default().push(span));
        let starts = by_node.into_values().flat_map(starts);
        let of_logs = groups
            .into_values()
            .chain(starts)
            .find_map(|group| overlap(group, |span| span.begin_ns, |span| span.end_ns));
        of_logs.or_else(|| self.copies()).or_else(|| self.of_lives())
    }

    /// The same trace without metadata: its first interval is the same to the nanosecond.
    fn copies(&self) -> Option<(usize, usize)> {
        let mut begins: HashMap<(u64, i64), &Span> = HashMap::new();
        self.spans.iter().find_map(|span| {
            // The wall clock of a date is told to the microsecond.
            let before = begins.insert((span.begin_ns, span.begin_unix_ns() / 1_000_000), span)?;
            let is_unknown = before.node.is_none() || span.node.is_none();
            (is_unknown && before.source != span.source).then_some((before.source, span.source))
        })
    }

    /// A log and lines of tenants of its machine.
    fn of_lives(&self) -> Option<(usize, usize)> {
        let mut by_node: HashMap<&Arc<str>, Vec<(i64, i64, usize)>> = HashMap::new();
        for ((node, _), covered) in &self.lives {
            by_node.entry(node).or_default().push(*covered);
        }
        self.spans.iter().find_map(|span| {
            let lives = by_node.get(span.node.as_ref()?)?;
            let (begin, end) = (span.begin_unix_ns(), span.end_unix_ns);
            let other = lives.iter().find(|(from, to, _)| *from < end && begin < *to)?;
            Some((other.2, span.source))
        })
    }
}

/// The spans of one machine by its starts.
fn starts(mut spans: Vec<&Span>) -> Vec<Vec<&Span>> {
    spans.sort_by_key(|span| span.start_unix_ns());
    let mut groups: Vec<Vec<&Span>> = Vec::new();
    for span in spans {
        match groups.last_mut() {
            Some(group)
                if group
                    .last()
                    .is_some_and(|last| span.start_unix_ns().saturating_sub(last.start_unix_ns()) < SAME_START_NS) =>
            {
                group.push(span);
            }
            _ => groups.push(vec![span]),
        }
    }
    groups
}

fn overlap<'a>(
    mut spans: Vec<&'a Span>,
    begin: impl Fn(&Span) -> u64,
    end: impl Fn(&Span) -> u64,
) -> Option<(usize, usize)> {
    spans.sort_by_key(|span| begin(span));
    let mut longest: Option<&'a Span> = None;
    for span in spans {
        if let Some(before) = longest
            && begin(span) < end(before)
        {
            return Some((before.source, span.source));
        }
        if longest.is_none_or(|before| end(before) < end(span)) {
            longest = Some(span);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_known_by_number_in_whatever_order_they_come() {
        let (node, boot): (Arc<str>, Arc<str>) = ("n".into(), "b".into());
        let mut numbers = Numbers::default();
        let mut add = |number: u64, text: &str| numbers.add(&node, &boot, number, text.as_bytes());
        for number in [5, 6, 3, 4, 1] {
            assert_eq!(add(number, &number.to_string()), Seen::New);
        }
        for number in [1, 3, 4, 5, 6] {
            assert_eq!(add(number, &number.to_string()), Seen::Again);
        }
        assert_eq!(add(2, "2"), Seen::New);
        assert_eq!((add(1, "another"), add(u64::MAX, "x")), (Seen::Other, Seen::New));
        let ranges = numbers.ranges.values().next().unwrap();
        assert_eq!((ranges.len(), numbers.count, ranges[&1].0), (2, 2, 6));
        assert_eq!(numbers.add(&node, &"other boot".into(), 1, b"1"), Seen::New);
    }

    fn span(source: usize, node: &str, boot_id: &str, begin_s: u64, end_s: u64, start_s: i64) -> Span {
        let known = |text: &str| (!text.is_empty()).then(|| text.into());
        let ns = |seconds: u64| seconds * 1_000_000_000;
        Span {
            source,
            node: known(node),
            boot_id: known(boot_id),
            begin_ns: ns(begin_s),
            end_ns: ns(end_s),
            end_unix_ns: (start_s + i64::try_from(end_s).unwrap()) * 1_000_000_000,
        }
    }

    fn twice(spans: &[Span]) -> Option<(usize, usize)> {
        let mut covered = Covered::default();
        for span in spans {
            assert!(covered.add(span.clone()));
        }
        covered.twice()
    }

    #[test]
    fn the_same_time_of_a_machine_counts_once() {
        let one = span(0, "n", "b", 10, 20, 1000);
        // After it, another start of the machine, another machine.
        for other in [
            span(1, "n", "b", 20, 30, 1000),
            span(1, "n", "c", 10, 20, 5000),
            span(1, "m", "c", 10, 20, 1000),
            span(1, "", "", 11, 20, 1000),
        ] {
            assert_eq!(twice(&[one.clone(), other.clone()]), None, "{other:?}");
        }
        // A copy, a later copy, another trace at the same time, one whose clock was set, one without metadata.
        for other in [
            one.clone(),
            span(1, "n", "b", 10, 25, 1000),
            span(1, "n", "", 19, 21, 1002),
            span(1, "n", "b", 12, 13, 90_000),
            span(1, "", "", 10, 20, 1000),
        ] {
            let other = Span { source: 1, ..other };
            assert_eq!(twice(&[one.clone(), other.clone()]), Some((0, 1)), "{other:?}");
        }
    }

    #[test]
    fn a_log_and_the_lines_of_its_machine_are_the_same_joules() {
        let mut covered = Covered::default();
        covered.add_life(0, &"n".into(), &"b".into(), 1_005_000_000_000, 1_012_000_000_000);
        assert!(covered.add(span(1, "n", "b", 30, 40, 1000)) && covered.twice().is_none());
        assert!(covered.add(span(2, "m", "c", 10, 20, 1000)) && covered.twice().is_none());
        assert!(covered.add(span(3, "n", "b", 10, 20, 1000)));
        assert_eq!(covered.twice(), Some((0, 3)));
    }
}
