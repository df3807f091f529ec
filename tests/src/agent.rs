//! Reads what an agent leaves in its folder, without any of dlpm's own types.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cgroup::Cgroup,
    command::{Dlpm, Running},
    log::number,
    powercap::Powercap,
    tenant::Tenant,
};

/// What the agent may keep of root's rights: bits of `CapPrm` (KILL, SETGID, SETUID, SETPCAP, SYS_PTRACE, SYS_RESOURCE,
/// DAC_READ_SEARCH, PERFMON, BPF).
pub const KEPT_CAPABILITIES: u64 = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 19 | 1 << 24 | 1 << 2 | 1 << 38 | 1 << 39;

/// Name of the socket in the folder of an agent.
pub const SOCKET: &str = "agent.sock";

/// A folder that only root can write.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A container of Docker, by the name of its cgroup, with a process that uses a tenth of a CPU.
#[derive(Debug)]
pub struct Container {
    /// Before its cgroup, which has to be empty to be removed.
    process: Option<Tenant>,
    cgroup: Cgroup,
    /// Kind and id of the tenant.
    pub node: String,
}

impl Container {
    /// The id of the container with that number: of this run alone, so that what an earlier one left is not taken for it.
    pub fn id(number: u32) -> String {
        format!("{:032x}{number:032x}", std::process::id())
    }

    /// Starts `program` (see [`tenant_program`](crate::tenant_program)) in it.
    pub fn start(program: &Path, above: &Cgroup, number: u32) -> Self {
        let id = Self::id(number);
        let cgroup = above.create_inside(&format!("docker-{id}.scope"));
        let process = Tenant::named(program, "tenant", None, None);
        cgroup.add(process.pid());
        Self {
            process: Some(process),
            cgroup,
            node: format!("docker:{id}"),
        }
    }

    /// Ends its process and removes its cgroup. Kind and id of the tenant.
    pub fn end(mut self) -> String {
        self.process = None;
        self.cgroup.wait_until_empty();
        self.node.clone()
    }
}

/// Counters of all zones at the beginning of an agent's first interval.
#[track_caller]
pub fn begin(running: &mut Running, folder: &Path) -> ByDevice {
    let first = wait_for(running, folder, "a first interval", |_| true);
    // No zone has wrapped: they stand at a third of their range.
    let counters = first.counters.iter();
    counters
        .map(|(zone, uj)| (zone.clone(), uj - first.zones[zone]))
        .collect()
}

/// µJ by device.
pub type ByDevice = BTreeMap<String, u64>;

/// The newest snapshot in an agent's state.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The newest record.
    pub newest: Value,
    /// Tenants that have a series: what they used, over all their lives.
    pub tenants: BTreeMap<String, ByDevice>,
    /// Of them, those that have ended.
    pub ended: Vec<String>,
    /// What no tenant has, by row.
    pub rows: BTreeMap<String, ByDevice>,
    /// What the devices counted.
    pub counted: ByDevice,
    /// What the zones counted.
    pub zones: ByDevice,
    /// Counters of the zones at the end of the newest interval.
    pub counters: ByDevice,
}

impl Kept {
    /// Reads the state in a folder; `None` if there is none yet.
    pub fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join("state")).ok()?;
        let mut kept = Self::default();
        let mut accounts: BTreeMap<String, Value> = BTreeMap::new();
        // A record that is being written is not one.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines().skip(1) {
            let change: Value = serde_json::from_str(line).unwrap();
            for retired in list(&change["retired"]) {
                accounts.remove(retired.as_str().unwrap());
            }
            for account in list(&change["accounts"]) {
                let node = account["tenant"]["node"].as_str().unwrap();
                accounts.insert(node.to_owned(), account.clone());
            }
            kept.newest = change;
        }
        if kept.newest.is_null() {
            return None;
        }
        let devices: Vec<String> = list(&kept.newest["devices"])
            .iter()
            .map(|device| device.as_str().unwrap().to_owned())
            .collect();
        let amounts = |amounts: &Value| -> ByDevice {
            let energy = list(&amounts["energy_uj"]);
            let of_device = |device: usize| energy.get(device).map_or(0, number);
            let devices = devices.iter().cloned().enumerate();
            devices.map(|(device, name)| (name, of_device(device))).collect()
        };
        for (node, account) in &accounts {
            kept.tenants.insert(node.clone(), amounts(&account["used"]));
            if account["end"].is_array() {
                kept.ended.push(node.clone());
            }
        }
        for (row, used) in kept.newest["remainders"].as_object().unwrap() {
            kept.rows.insert(row.clone(), amounts(used));
        }
        for counted in list(&kept.newest["counted_uj"]) {
            let device = &devices[usize::try_from(number(&counted[0])).unwrap()];
            *kept.counted.entry(device.clone()).or_default() += number(&counted[2]);
        }
        for (name, zone) in kept.newest["zones"].as_object().unwrap() {
            kept.zones.insert(name.clone(), number(&zone["energy_uj"]));
            if let Some(counter_uj) = zone["counter_uj"].as_u64() {
                kept.counters.insert(name.clone(), counter_uj);
            }
        }
        Some(kept)
    }

    /// Checks that everyone together has what the devices counted, and that the leaves of the package are the package.
    #[track_caller]
    pub fn adds_up(&self) {
        let mut everyone = ByDevice::new();
        for (device, energy_uj) in self.tenants.values().chain(self.rows.values()).flatten() {
            *everyone.entry(device.clone()).or_default() += energy_uj;
        }
        for (device, counted_uj) in &self.counted {
            assert_eq!(everyone[device], *counted_uj, "{device}");
        }
        if let Some(package_uj) = self.zones.get("package-0") {
            let leaves_uj: u64 = self
                .counted
                .iter()
                .filter(|(device, _)| device.starts_with("package-0/"))
                .map(|(_, energy_uj)| energy_uj)
                .sum();
            let owed_uj = self.newest["carries_uj"]["package-0"].as_i64().unwrap_or(0);
            assert_eq!(i128::from(leaves_uj), i128::from(*package_uj) - i128::from(owed_uj));
        }
        assert_eq!(number(&self.newest["energy_law_broken"]), 0);
        assert_eq!(number(&self.newest["time_law_broken"]), 0);
    }

    /// Number of intervals.
    pub fn intervals(&self) -> u64 {
        number(&self.newest["intervals"])
    }

    /// Energy of a row on all devices.
    pub fn row_uj(&self, row: &str) -> u64 {
        self.rows.get(row).map_or(0, |used| used.values().sum())
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The lines of `finished.jsonl`.
pub fn finished(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("finished.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Energy by device of a line of it.
pub fn energy_of(line: &Value) -> ByDevice {
    let energy = line["energy_uj"].as_object().unwrap();
    energy
        .iter()
        .map(|(device, energy_uj)| (device.clone(), number(energy_uj)))
        .collect()
}

/// An agent with these zones, in intervals of 100 ms, and with a state in `folder`.
pub fn agent(tree: &Powercap, folder: &Path) -> Dlpm {
    Dlpm::new(["agent", "--interval", "100ms", "--sysfs"])
        .arg(tree.sysfs())
        .arg("--state-dir")
        .arg(folder)
        .args(["--listen", "127.0.0.1:0", "--socket"])
        .arg(folder.join(SOCKET))
}

/// Waits until `enough` is true of its state.
#[track_caller]
pub fn wait_for(running: &mut Running, folder: &Path, what: &str, mut enough: impl FnMut(&Kept) -> bool) -> Kept {
    let mut found = None;
    running.wait_until(what, || {
        found = Kept::read(folder).filter(&mut enough);
        found.is_some()
    });
    found.unwrap()
}

/// Waits for so many more intervals.
#[track_caller]
pub fn wait_for_intervals(running: &mut Running, folder: &Path, more: u64) -> Kept {
    let now = Kept::read(folder).map_or(0, |kept| kept.intervals());
    wait_for(running, folder, "intervals", |kept| kept.intervals() >= now + more)
}
