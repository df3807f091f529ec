//! Kernel modules with meters, and what they themselves say that these have counted.

use std::{
    fs::{self, File},
    ops::RangeInclusive,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use dlpm::sources::clock::monotonic_ns;
use rustix::system::finit_module;

use crate::log::Log;

/// The meters of one reading are read one after the other.
const READING_NS: u64 = 50_000_000;

/// A module of `tests/kernel-module`, in `/` of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Module(pub &'static str);

/// What a module says of its meters, in µJ since it was loaded, and when: between these readings of the clock.
#[derive(Clone, Debug)]
pub struct Record {
    before_ns: u64,
    pub total_uj: Vec<u64>,
    after_ns: u64,
}

impl Module {
    /// Loads it, once.
    pub fn load(self) {
        if !Path::new(&self.parameter("total_uj")).exists() {
            let file = File::open(format!("/{}.ko", self.0)).unwrap();
            finit_module(file, c"", 0).unwrap();
        }
    }

    /// The file of a parameter.
    pub fn parameter(self, name: &str) -> String {
        format!("/sys/module/{}/parameters/{name}", self.0)
    }

    /// What its meters have counted.
    pub fn record(self) -> Record {
        let before_ns = monotonic_ns();
        let text = fs::read_to_string(self.parameter("total_uj")).unwrap();
        let after_ns = monotonic_ns();
        Record {
            before_ns,
            total_uj: text.split_whitespace().map(|word| word.parse().unwrap()).collect(),
            after_ns,
        }
    }

    /// What they counted while `work` was done, from before it until after it.
    pub fn records(self, work: impl FnOnce()) -> Vec<Record> {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let sampler = scope.spawn(|| {
                let mut records = vec![self.record()];
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(20));
                    records.push(self.record());
                }
                records
            });
            work();
            thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
            sampler.join().unwrap()
        })
    }
}

/// What a meter counted between the readings at both ends of a log, at the least and at the most. `meter` is its place in
/// the records.
pub fn counted_uj(records: &[Record], meter: usize, log: &Log) -> RangeInclusive<u64> {
    let at_least = |at_ns: u64| {
        let known = records.iter().rev().find(|record| record.after_ns <= at_ns);
        known.unwrap().total_uj[meter]
    };
    let at_most = |at_ns: u64| {
        let known = records.iter().find(|record| record.before_ns >= at_ns);
        known.unwrap().total_uj[meter]
    };
    let (begin_ns, end_ns) = (log.samples[0].begin_ns(), log.samples[log.samples.len() - 1].end_ns());
    at_least(end_ns) - at_most(begin_ns + READING_NS)..=at_most(end_ns + READING_NS) - at_least(begin_ns)
}
