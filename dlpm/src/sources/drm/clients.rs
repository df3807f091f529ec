//! Engine time of each client of a GPU, and whose it is: pure.

use std::collections::BTreeMap;

use super::fdinfo::{Engine, Fdinfo};
use crate::interval::ProcessId;

/// Looks without a client until it is forgotten. Numbers of clients are not used again.
const FORGET_AFTER: u64 = 64;

/// An open file that was read.
#[derive(Clone, Debug)]
pub(super) struct Open {
    /// Whose it is.
    pub process: ProcessId,
    /// It did not have this file at the look before, or did not exist: all that the file tells is of this interval.
    pub is_new: bool,
    pub info: Fdinfo,
}

/// A client of a device.
type Key = (Device, u64);

/// What a client names its GPU by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Device {
    /// The PCI address.
    Pci(String),
    /// The driver, of a GPU on another bus.
    Driver(String),
}

impl Device {
    pub fn of(info: &Fdinfo) -> Self {
        match &info.pdev {
            Some(address) => Self::Pci(address.clone()),
            None => Self::Driver(info.driver.clone()),
        }
    }
}

/// What one process used of one device since the look before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Time of all engines together.
    pub busy_ns: u64,
    /// Memory of the GPU that it holds now.
    pub vram_bytes: Option<u64>,
}

/// All clients that are known.
#[derive(Debug, Default)]
pub(super) struct Clients {
    known: BTreeMap<Key, Client>,
    /// Number of the look.
    looks: u64,
    at_ns: u64,
    /// The newest length of a cycle of a class of engines: so many cycles in so many ns.
    clocks: BTreeMap<(Device, String), (u64, u64)>,
}

#[derive(Debug, Default)]
struct Client {
    engines: BTreeMap<String, Engine>,
    at_ns: u64,
    look: u64,
}

impl Clients {
    /// Takes what all open files said at `now_ns`, and gives what each process used since the look before.
    ///
    /// A client that several processes have open is counted once. It is that of the process that started first: a file
    /// that is inherited over `fork` stays its opener's.
    pub fn see(&mut self, open: &[Open], now_ns: u64) -> BTreeMap<(Device, ProcessId), Used> {
        let mut clients: BTreeMap<Key, (Fdinfo, ProcessId, bool)> = BTreeMap::new();
        for one in open {
            let key = (Device::of(&one.info), one.info.client);
            match clients.get_mut(&key) {
                None => drop(clients.insert(key, (one.info.clone(), one.process, one.is_new))),
                Some((info, owner, is_new)) => {
                    larger(&mut info.engines, &one.info.engines);
                    *owner = older(*owner, one.process);
                    // Somebody had it before.
                    *is_new &= one.is_new;
                }
            }
        }
        let first = self.looks == 0;
        let elapsed_ns = now_ns.saturating_sub(self.at_ns);
        (self.looks, self.at_ns) = (self.looks + 1, now_ns);
        let mut used: BTreeMap<(Device, ProcessId), Used> = BTreeMap::new();
        for ((device, number), (info, owner, is_new)) in clients {
            let sum = used.entry((device.clone(), owner)).or_default();
            if let Some(bytes) = info.vram_bytes {
                sum.vram_bytes = Some(sum.vram_bytes.unwrap_or(0).saturating_add(bytes));
            }
            let counts_whole = is_new && !first;
            let key = (device, number);
            let busy_ns = match self.known.get_mut(&key) {
                Some(client) => {
                    let passed_ns = now_ns.saturating_sub(client.at_ns);
                    let mut busy_ns = 0_u64;
                    for (class, now) in &info.engines {
                        let before = client.engines.get(class).copied().unwrap_or_default();
                        busy_ns = busy_ns.saturating_add(moved_ns(before, *now, passed_ns));
                        if let (Some(before), Some(now)) = (before.total_cycles, now.total_cycles)
                            && now > before
                        {
                            self.clocks
                                .insert((key.0.clone(), class.clone()), (now - before, passed_ns));
                        }
                    }
                    busy_ns
                }
                None if counts_whole => {
                    let engines = info.engines.iter();
                    let whole = engines.map(|(class, engine)| {
                        let clock = self.clocks.get(&(key.0.clone(), class.clone())).copied();
                        // It cannot have used more than there was.
                        whole_ns(*engine, clock).min(elapsed_ns.saturating_mul(engine.capacity.max(1)))
                    });
                    whole.fold(0, u64::saturating_add)
                }
                // What it used before nobody was looking is of no interval.
                None => 0,
            };
            sum.busy_ns = sum.busy_ns.saturating_add(busy_ns);
            let client = self.known.entry(key).or_default();
            larger(&mut client.engines, &info.engines);
            (client.at_ns, client.look) = (now_ns, self.looks);
        }
        let looks = self.looks;
        self.known.retain(|_, client| looks - client.look < FORGET_AFTER);
        used
    }
}

/// Values may fall for a while: the larger is kept.
fn larger(kept: &mut BTreeMap<String, Engine>, now: &BTreeMap<String, Engine>) {
    for (class, now) in now {
        let kept = kept.entry(class.clone()).or_default();
        kept.busy_ns = kept.busy_ns.max(now.busy_ns);
        kept.cycles = kept.cycles.max(now.cycles);
        kept.total_cycles = kept.total_cycles.max(now.total_cycles);
        kept.capacity = now.capacity;
    }
}

/// Time between two readings that are `passed_ns` apart.
fn moved_ns(before: Engine, now: Engine, passed_ns: u64) -> u64 {
    if let Some(now_ns) = now.busy_ns {
        return now_ns.saturating_sub(before.busy_ns.unwrap_or(0));
    }
    let (Some(cycles), Some(total)) = (now.cycles, now.total_cycles) else {
        return 0;
    };
    let cycles = cycles.saturating_sub(before.cycles.unwrap_or(0));
    match before.total_cycles.and_then(|before| total.checked_sub(before)) {
        Some(total) if total > 0 => part(passed_ns, cycles, total),
        _ => 0,
    }
}

/// Time since a client was opened.
fn whole_ns(engine: Engine, clock: Option<(u64, u64)>) -> u64 {
    match (engine.busy_ns, engine.cycles, clock) {
        (Some(busy_ns), ..) => busy_ns,
        (None, Some(cycles), Some((total, passed_ns))) => part(passed_ns, cycles, total),
        _ => 0,
    }
}

fn part(whole: u64, numerator: u64, denominator: u64) -> u64 {
    let product = u128::from(whole) * u128::from(numerator);
    let part = product.checked_div(denominator.into()).unwrap_or(0);
    u64::try_from(part).unwrap_or(u64::MAX)
}

fn older(one: ProcessId, other: ProcessId) -> ProcessId {
    if (other.start_ns, other.tgid) < (one.start_ns, one.tgid) {
        other
    } else {
        one
    }
}

#[cfg(test)]
mod tests {
    use super::super::fdinfo::parse;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn open(tgid: u32, client: u64, is_new: bool, engines: &str) -> Open {
        Open {
            process: ProcessId {
                tgid,
                start_ns: u64::from(tgid),
            },
            is_new,
            info: parse(&format!(
                "drm-driver: amdgpu\ndrm-pdev: 0000:03:00.0\ndrm-client-id: {client}\n{engines}"
            ))
            .unwrap(),
        }
    }

    fn gfx(ns: u64) -> String {
        format!("drm-engine-gfx: {ns} ns\n")
    }

    fn busy(used: &BTreeMap<(Device, ProcessId), Used>) -> Vec<(u32, u64)> {
        used.iter().map(|((_, id), used)| (id.tgid, used.busy_ns)).collect()
    }

    #[test]
    fn a_client_in_several_processes_is_counted_once_and_is_its_openers() {
        let mut clients = Clients::default();
        clients.see(&[open(5, 1, true, &gfx(100))], SECOND);
        let shared = [
            open(9, 1, true, &gfx(700)),
            open(5, 1, false, &gfx(600)),
            open(7, 1, true, &gfx(600)),
        ];
        assert_eq!(busy(&clients.see(&shared, 2 * SECOND)), [(5, 600)]);
        // The opener has gone.
        assert_eq!(
            busy(&clients.see(&[open(9, 1, false, &gfx(800))], 3 * SECOND)),
            [(9, 100)]
        );
    }

    #[test]
    fn a_value_that_falls_is_not_counted_again() {
        let mut clients = Clients::default();
        for (at, (value, expected)) in [(500, 0), (900, 400), (300, 0), (850, 0), (1000, 100)]
            .into_iter()
            .enumerate()
        {
            let now_ns = (at as u64 + 1) * SECOND;
            assert_eq!(
                busy(&clients.see(&[open(5, 1, false, &gfx(value))], now_ns)),
                [(5, expected)],
                "{at}"
            );
        }
    }

    #[test]
    fn what_was_used_before_anybody_looked_is_of_no_interval() {
        let mut clients = Clients::default();
        assert_eq!(
            busy(&clients.see(&[open(5, 1, true, &gfx(9 * SECOND))], SECOND)),
            [(5, 0)]
        );
        // An old process that was not looked at before, a new one, and one that says more than there was.
        let later = [
            open(6, 2, false, &gfx(SECOND / 2)),
            open(7, 3, true, &gfx(SECOND / 2)),
            open(8, 4, true, &gfx(90 * SECOND)),
        ];
        assert_eq!(
            busy(&clients.see(&later, 2 * SECOND)),
            [(6, 0), (7, SECOND / 2), (8, SECOND)]
        );
    }

    #[test]
    fn a_file_that_vanishes_and_returns_goes_on_where_it_was() {
        let mut clients = Clients::default();
        clients.see(&[open(5, 1, false, &gfx(100))], SECOND);
        assert_eq!(busy(&clients.see(&[], 2 * SECOND)), []);
        assert_eq!(
            busy(&clients.see(&[open(5, 1, true, &gfx(150))], 3 * SECOND)),
            [(5, 50)]
        );
    }

    #[test]
    fn cycles_are_a_part_of_the_time_that_passed() {
        let cycles = |cycles: u64, total: u64| format!("drm-cycles-rcs: {cycles}\ndrm-total-cycles-rcs: {total}\n");
        let mut clients = Clients::default();
        clients.see(&[open(5, 1, false, &cycles(1_000, 10_000))], SECOND);
        let second = clients.see(&[open(5, 1, false, &cycles(1_250, 11_000))], 3 * SECOND);
        assert_eq!(busy(&second), [(5, SECOND / 2)], "a quarter of two seconds");
        // A new client, by the clock that the other has shown: 1000 cycles in two seconds.
        let third = [
            open(5, 1, false, &cycles(1_250, 11_500)),
            open(6, 2, true, &cycles(100, 11_500)),
        ];
        assert_eq!(busy(&clients.see(&third, 4 * SECOND)), [(5, 0), (6, SECOND / 5)]);
    }

    #[test]
    fn engines_add_up_and_clients_of_one_process_too() {
        let mut clients = Clients::default();
        let engines = |gfx: u64, dec: u64| format!("drm-engine-gfx: {gfx} ns\ndrm-engine-dec: {dec} ns\n");
        clients.see(
            &[open(5, 1, false, &engines(0, 0)), open(5, 2, false, &engines(0, 0))],
            SECOND,
        );
        let used = clients.see(
            &[open(5, 1, false, &engines(3, 4)), open(5, 2, false, &engines(10, 0))],
            2 * SECOND,
        );
        assert_eq!(busy(&used), [(5, 17)]);
    }
}
