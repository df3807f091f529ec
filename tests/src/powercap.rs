//! A powercap tree of real files whose counters move by a known model while a test runs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dlpm::sources::clock::monotonic_ns;
use tempfile::TempDir;

/// A counter of 262 kJ, as most machines have it: it does not wrap in a test.
pub const LARGE_RANGE_UJ: u64 = 262_143_328_850;

/// Counters move by a step in twice this time.
const STEP: Duration = Duration::from_millis(3);

/// A zone of the tree.
#[derive(Clone, Copy, Debug)]
pub struct Zone {
    /// Its directory.
    pub id: &'static str,
    /// What its `name` file says.
    pub name: &'static str,
    /// What it draws beside the zones that it contains, in milliwatts on average.
    pub own_mw: u64,
    /// Zones whose energy it contains, by directory; they stand before it.
    pub contains: &'static [&'static str],
    /// Largest value of its counter, in microjoules.
    pub range_uj: u64,
}

/// One package with all its parts, and psys. The package is written some time after its parts, so that a reader often
/// finds them ahead of it: that is what the carry is for.
pub fn node() -> Vec<Zone> {
    let zone = |id, name, own_mw, contains, range_uj| Zone {
        id,
        name,
        own_mw,
        contains,
        range_uj,
    };
    vec![
        zone("intel-rapl:0:0", "core", 60_000, &[], LARGE_RANGE_UJ),
        zone("intel-rapl:0:1", "uncore", 10_000, &[], LARGE_RANGE_UJ),
        zone(
            "intel-rapl:0",
            "package-0",
            20_000,
            &["intel-rapl:0:0", "intel-rapl:0:1"],
            LARGE_RANGE_UJ,
        ),
        zone("intel-rapl:0:2", "dram", 8_000, &[], LARGE_RANGE_UJ),
        zone("intel-rapl:1", "psys", 150_000, &[], LARGE_RANGE_UJ),
    ]
}

/// A value that a counter had.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// When the file was in place, on CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// Energy since the tree began, in microjoules, without wraps.
    pub total_uj: u64,
}

/// The tree. Its counters stop when this is dropped.
#[derive(Debug)]
pub struct Powercap {
    root: TempDir,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
    zones: Vec<Zone>,
}

/// The machine's own CPUs, but made by Intel: on others the zone `core` covers something else.
fn share_cpus(sysfs: &Path) {
    let cpus = Path::new("devices/system/cpu");
    fs::create_dir_all(sysfs.join(cpus)).unwrap();
    for entry in fs::read_dir(Path::new("/sys").join(cpus)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "modalias" {
            symlink(entry.path(), sysfs.join(cpus).join(entry.file_name())).unwrap();
        }
    }
    fs::write(
        sysfs.join(cpus).join("modalias"),
        "cpu:type:x86,ven0000fam0006mod0055:feature:\n",
    )
    .unwrap();
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    history: Mutex<Vec<Vec<Written>>>,
}

impl Powercap {
    /// Makes the tree, beside what else is in the machine's `/sys`, and lets its counters run.
    pub fn start(zones: Vec<Zone>) -> Self {
        Self::paced(zones, None)
    }

    /// The same, but a counter waits for dlpm (and crawls meanwhile): with each line of this log it may go on by an eighth of its range. So a
    /// counter cannot wrap twice between two readings, however late a busy machine makes them.
    pub fn paced_by(zones: Vec<Zone>, log: &Path) -> Self {
        Self::paced(zones, Some(log.to_owned()))
    }

    fn paced(zones: Vec<Zone>, log: Option<PathBuf>) -> Self {
        let shm = Path::new("/dev/shm");
        let root = if shm.is_dir() {
            TempDir::new_in(shm)
        } else {
            TempDir::new()
        }
        .unwrap();
        crate::command::world_readable(&root);
        let class = root.path().join("class/powercap");
        fs::create_dir_all(&class).unwrap();
        symlink("/sys/kernel", root.path().join("kernel")).unwrap();
        share_cpus(root.path());
        let mut feeders = Vec::new();
        for zone in &zones {
            let directory = class.join(zone.id);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("name"), format!("{}\n", zone.name)).unwrap();
            fs::write(directory.join("max_energy_range_uj"), format!("{}\n", zone.range_uj)).unwrap();
            // Some way into the range, as on a machine that runs for a while.
            feeders.push(Feeder {
                directory,
                zone: *zone,
                begun_uj: zone.range_uj / 3,
                total_uj: zone.range_uj / 3,
                step_uj: 0,
            });
        }
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            history: Mutex::new(feeders.iter().map(|feeder| vec![feeder.write()]).collect()),
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || feed(&of_thread, feeders, log.as_deref()));
        Self {
            root,
            shared,
            thread: Some(thread),
            zones,
        }
    }

    /// For `--sysfs`.
    pub fn sysfs(&self) -> &Path {
        self.root.path()
    }

    /// The directory of a zone.
    pub fn directory(&self, id: &str) -> PathBuf {
        self.root.path().join("class/powercap").join(id)
    }

    /// Stops the counters where they are.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Everything that a zone's counter was so far.
    pub fn history(&self, name: &str) -> History {
        let index = self.zones.iter().position(|zone| zone.name == name).unwrap();
        History {
            modulus: self.zones[index].range_uj + 1,
            written: self.shared.history.lock().unwrap()[index].clone(),
        }
    }
}

impl Drop for Powercap {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The values of one counter.
#[derive(Clone, Debug)]
pub struct History {
    /// The counter starts again at 0 when it gets here.
    pub modulus: u64,
    /// In the order of time; each is larger than the one before it.
    pub written: Vec<Written>,
}

impl History {
    /// The total behind a counter that was read at this time or just after: the first value since then that looks
    /// like it.
    #[track_caller]
    pub fn total_at(&self, counter_uj: u64, read_ns: u64) -> u64 {
        let first = self
            .written
            .partition_point(|written| written.at_ns <= read_ns)
            .saturating_sub(1);
        let found = self.written[first..]
            .iter()
            .find(|written| written.total_uj % self.modulus == counter_uj);
        let Some(found) = found else {
            panic!("the counter was never {counter_uj} at or after {read_ns}");
        };
        found.total_uj
    }

    /// Whether the counter ever stood at this total.
    pub fn was(&self, total_uj: u64) -> bool {
        self.written
            .binary_search_by_key(&total_uj, |written| written.total_uj)
            .is_ok()
    }

    /// How often the counter started again.
    pub fn wraps(&self) -> u64 {
        self.last_uj() / self.modulus - self.written[0].total_uj / self.modulus
    }

    /// Where it stands.
    pub fn last_uj(&self) -> u64 {
        self.written[self.written.len() - 1].total_uj
    }
}

struct Feeder {
    directory: PathBuf,
    zone: Zone,
    begun_uj: u64,
    total_uj: u64,
    step_uj: u64,
}

impl Feeder {
    /// Puts the counter into its file, by a rename: a plain write would empty the file first.
    fn write(&self) -> Written {
        let temporary = self.directory.join(".energy_uj");
        fs::write(&temporary, format!("{}\n", self.total_uj % (self.zone.range_uj + 1))).unwrap();
        fs::rename(&temporary, self.directory.join("energy_uj")).unwrap();
        Written {
            at_ns: monotonic_ns(),
            total_uj: self.total_uj,
        }
    }

    /// How far it may go when the log has that many lines.
    fn limit_uj(&self, lines: u64) -> u64 {
        self.begun_uj + (lines + 2) * (self.zone.range_uj / 8)
    }
}

fn feed(shared: &Shared, mut feeders: Vec<Feeder>, log: Option<&Path>) {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut last = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        thread::sleep(STEP);
        // After a pause of the machine the model goes on from where it was.
        let elapsed_us = u64::try_from(last.elapsed().min(4 * STEP).as_micros()).unwrap();
        last = Instant::now();
        let lines = log.map(|log| {
            fs::read(log)
                .unwrap_or_default()
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count()
        });
        for index in 0..feeders.len() {
            // Odd figures, from half to one and a half times the average: no sum comes out right by chance.
            let own_uj = feeders[index].zone.own_mw * elapsed_us / 1_000;
            let own_uj = own_uj / 2 + random.below(own_uj) + 1;
            let contained_uj: u64 = feeders
                .iter()
                .filter(|feeder| feeders[index].zone.contains.contains(&feeder.zone.id))
                .map(|feeder| feeder.step_uj)
                .sum();
            feeders[index].step_uj = own_uj + contained_uj;
        }
        let allowed = |feeder: &Feeder| {
            lines.is_none_or(|lines| feeder.total_uj + feeder.step_uj <= feeder.limit_uj(lines.try_into().unwrap()))
        };
        // All or none: a package that waits for its parts, or the other way round, would fall behind for good.
        if !feeders.iter().all(allowed) {
            // They crawl on: a counter that stands still while CPUs are busy is not believed.
            for feeder in &mut feeders {
                feeder.step_uj = 1 + u64::try_from(feeder.zone.contains.len()).unwrap();
            }
        }
        let mut parts_are_written = false;
        for (index, feeder) in feeders.iter_mut().enumerate() {
            // Half of the time the parts of a package are ahead of it.
            if !parts_are_written && !feeder.zone.contains.is_empty() {
                parts_are_written = true;
                thread::sleep(STEP);
            }
            feeder.total_uj += feeder.step_uj;
            let written = feeder.write();
            shared.history.lock().unwrap()[index].push(written);
        }
    }
}

/// A linear congruential generator (the multiplier of Knuth's MMIX): the same figures in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}
