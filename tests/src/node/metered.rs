//! What the agent says of a tenant, beside what the kernel and the module with the energy zones say.

use std::{collections::BTreeMap, fs, net::TcpStream, path::Path};

use super::{
    OUT,
    shell::{sh, wait_for},
};
use crate::{
    agent::{ByDevice, Kept, finished as lines_in},
    web::Answer,
};

/// The agent's folder.
pub const STATE: &str = "/var/lib/dlpm";

/// Where it serves.
const ADDRESS: &str = "127.0.0.1:9942";

/// The zones in the order of the module's `total_uj`, with their directory.
const ZONES: [(&str, &str); 4] = [
    ("package-0", "intel-rapl:0"),
    ("package-0/core", "intel-rapl:0:0"),
    ("package-0/uncore", "intel-rapl:0:1"),
    ("dram-0", "intel-rapl:0:2"),
];

/// Where the module's counters stood when the agent had begun: between these two.
const BEGUN: &str = "/t/out/begun";

/// One page of `/metrics`.
#[derive(Debug)]
pub struct Page(String);

impl Page {
    /// The agent's newest; `None` while it does not serve.
    pub fn get() -> Option<Self> {
        let stream = TcpStream::connect(ADDRESS).ok()?;
        let answer = Answer::over(stream, "GET", "/metrics", &[])?;
        (answer.status == 200).then(|| Self(answer.text()))
    }

    /// The series of this name: labels and value.
    pub fn series(&self, name: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(name));
        lines.filter_map(parsed).collect()
    }

    /// The CPU time of a tenant in ns.
    pub fn cpu_ns(&self, kind: &str, id: &str) -> Option<u64> {
        let series = self.series("dlpm_tenant_cpu_seconds_total");
        let found = series.iter().find(|(labels, _)| is(labels, kind, id))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds of a test"
        )]
        Some((found.1 * 1e9).round() as u64)
    }
}

fn is(labels: &BTreeMap<String, String>, kind: &str, id: &str) -> bool {
    labels.get("kind").is_some_and(|text| text == kind) && labels.get("tenant").is_some_and(|text| text == id)
}

/// The rest of a line after the name: `{label="value",…} VALUE`.
fn parsed(rest: &str) -> Option<(BTreeMap<String, String>, f64)> {
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_prefix('{')?;
    while !rest.starts_with('}') {
        let (name, text) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = text.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        rest = &text[end + 1..];
    }
    let value = rest[1..].trim().split(' ').next()?.parse().ok()?;
    Some((labels, value))
}

/// A tenant that was started: what it has to be called, and where the kernel counts its CPU time.
#[derive(Clone, Debug)]
pub struct Wanted {
    kind: &'static str,
    id: String,
    labels: Vec<(&'static str, String)>,
    cgroup: String,
    burned_ms: u64,
    slack_ns: u64,
}

/// What a process may use between its fork and its move into its cgroup, without a switch, in an emulated machine: dlpm
/// counts a slice for the cgroup at its end, the kernel each part for its own. A runtime's first process is large.
const MOVE_NS: u64 = 200_000_000;

impl Wanted {
    /// Of this kind and id, in a directory below the mount of cgroups; all of it sleeps when it has used so much CPU time,
    /// at least half of it there: a scope gets a process that has worked before.
    pub fn new(kind: &'static str, id: impl Into<String>, cgroup: impl Into<String>, burned_ms: u64) -> Self {
        Self {
            kind,
            id: id.into(),
            labels: Vec::new(),
            cgroup: cgroup.into(),
            burned_ms,
            slack_ns: MOVE_NS,
        }
    }

    /// Nothing is allowed but 1.5 %.
    pub fn strictly(mut self) -> Self {
        self.slack_ns = 0;
        self
    }

    /// Has this label, among others.
    pub fn label(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((name, value.into()));
        self
    }

    /// Kind and id, as `finished.jsonl` has them.
    pub fn node(&self) -> String {
        format!("{}:{}", self.kind, self.id)
    }

    /// Waits until it is known with its names, and sleeps; then its CPU time has to be the kernel's.
    #[track_caller]
    pub fn is_measured(&self) {
        let (kind, id) = (self.kind, self.id.as_str());
        let what = format!("{kind}:{id} with {:?}", self.labels);
        let mut newest = None;
        wait_for(&what, || {
            let page = Page::get()?;
            let told = page.series("dlpm_tenant_info");
            let (labels, _) = told.into_iter().find(|(labels, _)| is(labels, kind, id))?;
            if newest.as_ref() != Some(&labels) {
                println!("  {labels:?}");
            }
            let has = |(name, value): &(&str, String)| labels.get(*name) == Some(value);
            let found = self.labels.iter().all(has);
            newest = Some(labels);
            found.then_some(())
        });
        let (mut kernel_ns, mut dlpm_ns) = (0, 0);
        wait_for(&format!("the CPU time of {what} to be the kernel's"), || {
            let before = kernel_ns;
            kernel_ns = usage_ns(&self.cgroup)?;
            dlpm_ns = Page::get()?.cpu_ns(kind, id)?;
            if before == kernel_ns {
                println!("  {kind}:{id}: {dlpm_ns} ns, {kernel_ns} ns by cpu.stat");
            }
            (kernel_ns >= self.burned_ms * 500_000 && before == kernel_ns && is_same(dlpm_ns, kernel_ns, self.slack_ns))
                .then_some(())
        });
    }
}

/// Whether two counts of CPU time agree: within 1.5 % and the slack.
fn is_same(dlpm_ns: u64, kernel_ns: u64, slack_ns: u64) -> bool {
    dlpm_ns.abs_diff(kernel_ns).saturating_sub(slack_ns) * 1000 <= kernel_ns * 15
}

/// What the kernel's scheduler says that a cgroup used.
fn usage_ns(cgroup: &str) -> Option<u64> {
    let path = Path::new("/sys/fs/cgroup")
        .join(cgroup.trim_start_matches('/'))
        .join("cpu.stat");
    let text = fs::read_to_string(path).ok()?;
    let us: u64 = text.lines().next()?.strip_prefix("usage_usec ")?.parse().ok()?;
    Some(us * 1000)
}

/// Waits until a process that burns is in a directory below the mount, and returns that directory, as `/proc` names it.
#[track_caller]
pub fn cgroup_of(part: &str) -> String {
    wait_for(&format!("a cgroup with {part}"), || {
        fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let text = fs::read_to_string(entry.path().join("cgroup")).ok()?;
            let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
            path.contains(part).then(|| path.to_owned())
        })
    })
}

/// The module's own sums, in µJ since it was loaded, by zone.
pub fn total_uj() -> ByDevice {
    let text = fs::read_to_string("/sys/module/dlpm_rapl/parameters/total_uj").unwrap();
    let numbers = text.split_whitespace().map(|word| word.parse().unwrap());
    ZONES.iter().map(|(zone, _)| (*zone).to_owned()).zip(numbers).collect()
}

/// Loads the module, whose counters need days to run through their range, and not seconds.
pub fn load_zones() {
    let release = sh("uname -r");
    sh(&format!(
        "install -D -m 644 /t/dlpm_rapl.ko /lib/modules/{release}/extra/dlpm_rapl.ko && depmod"
    ));
    fs::write(
        "/etc/modprobe.d/dlpm_rapl.conf",
        "options dlpm_rapl range_factor=100000\n",
    )
    .unwrap();
    fs::write("/etc/modules-load.d/dlpm_rapl.conf", "dlpm_rapl\n").unwrap();
    sh("modprobe dlpm_rapl");
    for (_, directory) in ZONES {
        assert!(
            Path::new("/sys/class/powercap")
                .join(directory)
                .join("energy_uj")
                .exists()
        );
    }
}

/// Remembers where the counters stood at the beginning of the agent's first interval.
pub fn remember_begin(before: &ByDevice) {
    let kept = wait_for("a first interval in the agent's state", || {
        Kept::read(Path::new(STATE)).filter(|kept| kept.zones.len() == ZONES.len())
    });
    let after = total_uj();
    let mut text = String::new();
    for (zone, counter_uj) in &kept.counters {
        let begun_uj = counter_uj - kept.zones[zone];
        assert!(
            before[zone] <= begun_uj && begun_uj <= after[zone],
            "{zone} began at {begun_uj} µJ: {before:?}, {after:?}"
        );
        text.push_str(&format!("{zone} {begun_uj}\n"));
    }
    fs::write(BEGUN, text).unwrap();
}

/// Where they stood.
fn begun() -> ByDevice {
    let text = fs::read_to_string(BEGUN).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(zone, uj)| (zone.to_owned(), uj.parse().unwrap())).collect()
}

/// Whether everyone together has what the module's zones counted since the agent began, to the microjoule.
#[track_caller]
pub fn adds_up() {
    let kept = Kept::read(Path::new(STATE)).unwrap();
    kept.adds_up();
    let (begun, now) = (begun(), total_uj());
    for (zone, energy_uj) in &kept.zones {
        // No counter has gone through its range, so that it is the module's own sum.
        let counter_uj = kept.counters[zone];
        assert_eq!(begun[zone] + energy_uj, counter_uj, "{zone}");
        assert!(counter_uj <= now[zone], "{zone} is ahead of the module");
        println!("  {zone}: {energy_uj} µJ since the agent began, in all rows; the counter stands at {counter_uj} µJ");
    }
    let page = Page::get().unwrap();
    for (labels, difference) in page.series("dlpm_agent_energy_difference_joules") {
        assert!(difference == 0.0, "{labels:?}: {difference}");
    }
}

/// Lines of `finished.jsonl`, once the tenant is among them.
#[track_caller]
pub fn finished(node: &str) -> serde_json::Value {
    wait_for(&format!("{node} in finished.jsonl"), || {
        let lines = lines_in(Path::new(STATE));
        lines.into_iter().find(|line| line["tenant"] == node)
    })
}

/// All joules and all lines, at the end of the day.
pub fn sums() {
    adds_up();
    let lines = lines_in(Path::new(STATE));
    let mut numbers = lines.iter().map(|line| line["number"].as_u64().unwrap());
    assert!(
        (1..=lines.len() as u64).all(|number| numbers.next() == Some(number)),
        "a line is missing or double"
    );
    println!("  {} tenants have ended", lines.len());
    // The last minute is written when the agent stops; until then the log has no end.
    sh("systemctl stop dlpm-agent");
    let verified = sh(&format!("dlpm verify {STATE}/history"));
    assert!(verified.contains("close in all of them"), "{verified}");
    sh(&format!("dlpm report {STATE}/history --by tenant > {OUT}/report.txt"));
    sh("systemctl start dlpm-agent");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_with_their_escapes() {
        let (labels, value) =
            parsed(r#"{kind="unit",tenant="we\\x2dird@a:b_c.service",x="a\"b,c}"} 1.5e3 1700"#).unwrap();
        assert_eq!(labels["tenant"], r"we\x2dird@a:b_c.service");
        assert_eq!(labels["x"], "a\"b,c}");
        assert!((value - 1500.0).abs() < 1e-9);
        assert_eq!(parsed("_more{} 1"), None);
    }

    #[test]
    fn one_and_a_half_percent_is_the_limit() {
        assert!(is_same(1_015, 1_000, 0) && is_same(985, 1_000, 0));
        assert!(!is_same(1_016, 1_000, 0) && !is_same(984, 1_000, 0));
        assert!(is_same(1_020, 1_000, 5) && !is_same(1_021, 1_000, 5));
    }
}
