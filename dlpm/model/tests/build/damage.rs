//! Damage to files, and what the process that reads them may take. Also used by `tests/tests/model_mutations.rs`.

use std::{fs, time::Duration};

use proptest::prelude::*;
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

/// What is done to the bytes of a file; positions are shares of its length.
#[derive(Clone, Debug)]
pub enum Mutation {
    Set(f64, u8),
    Flip(f64, u8),
    Insert(f64, Vec<u8>),
    Overwrite(f64, Vec<u8>),
    Delete(f64, u8),
    Copy(f64, f64, u8),
    Cut(f64),
    /// What stands in the next quotes becomes this: a name of a file, or a path.
    Text(f64, &'static str),
}

/// Any damage, more often near the begin, where headers are, and with ends of ranges as binary formats, JSON and pickles
/// write them.
pub fn mutation() -> impl Strategy<Value = Mutation> {
    // Headers are at the begin, and most of a small file's structure.
    let at = || prop_oneof![0.0..1.0f64, (0.0..1.0f64).prop_map(|at| at * at * at)];
    let extreme = || {
        prop::sample::select(vec![
            vec![0xff; 9],
            vec![0xff; 4],
            vec![0xff, 0xff, 0xff, 0xff, 0x0f],
            vec![0; 8],
            vec![0, 0, 0, 0x80],
            vec![0xff, 0xff, 0xff, 0x7f],
            vec![0, 0, 0, 0, 1, 0, 0, 0],
            b"9223372036854775807".to_vec(),
            b"-1".to_vec(),
            b"../x".to_vec(),
            b"/etc/passwd".to_vec(),
            b"[".repeat(300),
            b"{\"a\":".repeat(200),
        ])
    };
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        6 => (at(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => (at(), extreme()).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (at(), extreme()).prop_map(|(at, bytes)| Mutation::Overwrite(at, bytes)),
        1 => (at(), any::<u8>()).prop_map(|(at, count)| Mutation::Delete(at, count)),
        1 => (at(), at(), any::<u8>()).prop_map(|(from, to, count)| Mutation::Copy(from, to, count)),
        1 => at().prop_map(Mutation::Cut),
        3 => (at(), prop::sample::select(vec!["../x", "x", "/etc/passwd", ""])).prop_map(|(at, text)| Mutation::Text(at, text)),
    ]
}

/// Damages a file.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "any position will do"
)]
pub fn apply(mutation: &Mutation, bytes: &mut Vec<u8>) {
    let length = bytes.len();
    let place = |at: f64| (at * length as f64) as usize;
    match mutation {
        Mutation::Set(at, byte) => {
            if let Some(found) = bytes.get_mut(place(*at)) {
                *found = *byte;
            }
        }
        Mutation::Flip(at, bit) => {
            if let Some(found) = bytes.get_mut(place(*at)) {
                *found ^= 1 << bit;
            }
        }
        Mutation::Insert(at, new) => {
            let at = place(*at);
            bytes.splice(at..at, new.iter().copied());
        }
        Mutation::Overwrite(at, new) => {
            let at = place(*at);
            let end = (at + new.len()).min(length);
            bytes.splice(at..end, new.iter().copied());
        }
        Mutation::Delete(at, count) => {
            let at = place(*at);
            bytes.drain(at..(at + usize::from(*count)).min(length));
        }
        Mutation::Copy(from, to, count) => {
            let (from, to) = (place(*from), place(*to));
            let copied = bytes[from..(from + usize::from(*count)).min(length)].to_vec();
            bytes.splice(to..to, copied);
        }
        Mutation::Cut(at) => bytes.truncate(place(*at)),
        Mutation::Text(at, text) => {
            let is_quote = |at: &usize| bytes.get(*at) == Some(&b'"');
            // Within a text, the next quotes end it.
            let within = (0..place(*at)).filter(is_quote).count() % 2;
            let mut quotes = (place(*at)..length).filter(is_quote).skip(within);
            if let (Some(begin), Some(end)) = (quotes.next(), quotes.next()) {
                bytes.splice(begin + 1..end, text.bytes());
            }
        }
    }
}

/// Lowers a limit of this process, which is this one test.
pub fn limit(resource: Resource, most: u64) {
    let maximum = getrlimit(resource).maximum;
    let current = Some(maximum.map_or(most, |maximum| maximum.min(most)));
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
}

/// The most memory that the process has held, in KiB.
pub fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The CPU time of this thread: what others do on the machine is not in it.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
