//! CPU time of three tenants by dlpm, and by the kernel's own account of their cgroups.

use std::{fmt::Write, fs, thread, time::Duration};

use anyhow::{Context, Result, bail};

use super::{Programs, log::Line, stats::float, traced::Traced};
use crate::{cgroup::Cgroup, worker::Worker};

/// Largest difference of one tenant, in percent.
pub const TENANT_PERCENT: f64 = 1.5;

/// Largest difference of all tenants together, in percent.
pub const TOTAL_PERCENT: f64 = 0.5;

/// Short processes that are started one after another.
pub const PROCESSES: u32 = 3_000;

const BURST_THREADS: u32 = 20;
const BURST_US: u32 = 2_000;
const PAUSE_US: u32 = 150_000;

/// CPU time of a tenant, counted twice.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// What it does.
    pub what: String,
    /// By dlpm's log.
    pub by_dlpm_ns: u64,
    /// `usage_usec` of its cgroup, in nanoseconds.
    pub by_kernel_ns: u64,
}

impl Tenant {
    /// Difference in percent of the kernel's figure; positive where dlpm counts more.
    pub fn percent(&self) -> f64 {
        (float(self.by_dlpm_ns) / float(self.by_kernel_ns) - 1.0) * 100.0
    }
}

/// The tenants of one run.
#[derive(Clone, Debug)]
pub struct Accuracy {
    /// Each on its own.
    pub tenants: Vec<Tenant>,
    /// Time that the hypervisor kept from all CPUs meanwhile, where it tells: to 10 ms. cpu.stat leaves it out, and for
    /// dlpm a task is on its CPU also while the CPU is not on the hardware.
    pub stolen_ns: u64,
}

impl Accuracy {
    /// All together.
    pub fn total(&self) -> Tenant {
        let sum = |of: fn(&Tenant) -> u64| self.tenants.iter().map(of).sum();
        Tenant {
            what: "all".to_owned(),
            by_dlpm_ns: sum(|tenant| tenant.by_dlpm_ns),
            by_kernel_ns: sum(|tenant| tenant.by_kernel_ns),
        }
    }

    /// Difference of all tenants in percent that stolen time cannot explain: cpu.stat leaves that time out, and the
    /// tenants have had at most all of it.
    pub fn unexplained_percent(&self) -> f64 {
        let total = self.total();
        let more_ns = total.by_dlpm_ns.saturating_sub(total.by_kernel_ns);
        let by_dlpm_ns = total.by_dlpm_ns - more_ns.min(self.stolen_ns);
        Tenant { by_dlpm_ns, ..total }.percent()
    }

    /// A markdown table.
    pub fn table(&self) -> String {
        let mut table =
            String::from("| tenant | CPU s by dlpm | CPU s by cpu.stat | difference |\n|---|---|---|---|\n");
        for tenant in self.tenants.iter().chain([&self.total()]) {
            let _ = writeln!(
                table,
                "| {} | {:.6} | {:.6} | {:+.3} % |",
                tenant.what,
                float(tenant.by_dlpm_ns) / 1e9,
                float(tenant.by_kernel_ns) / 1e9,
                tenant.percent()
            );
        }
        let _ = writeln!(
            table,
            "\nStolen by the hypervisor meanwhile: {:.2} s; it cannot explain {:+.3} % of all.",
            float(self.stolen_ns) / 1e9,
            self.unexplained_percent()
        );
        table
    }

    /// Whether every difference is within its bound: that of each tenant as it is, that of all together as far as
    /// stolen time cannot explain it.
    ///
    /// # Errors
    ///
    /// A sentence for each that is not.
    pub fn check(&self) -> Result<()> {
        self.check_with(self.unexplained_percent())
    }

    /// The same with nothing left to stolen time.
    ///
    /// # Errors
    ///
    /// A sentence for each that is not within its bound.
    pub fn check_plainly(&self) -> Result<()> {
        self.check_with(self.total().percent())
    }

    fn check_with(&self, total_percent: f64) -> Result<()> {
        let tenants = self.tenants.iter();
        let wrong: Vec<String> = tenants
            .map(|tenant| (tenant.what.as_str(), tenant.percent(), TENANT_PERCENT))
            .chain([("all", total_percent, TOTAL_PERCENT)])
            .filter(|(_, percent, bound)| percent.abs() > *bound || percent.is_nan())
            .map(|(what, percent, bound)| format!("{what}: {percent:+.3} % is beyond {bound} %"))
            .collect();
        if !wrong.is_empty() {
            bail!("{}", wrong.join("; "));
        }
        Ok(())
    }
}

/// Traces the three tenants once, about half a minute.
///
/// Both accounts cover the same time: the cgroups are new, their processes start to work when the trace has begun, and
/// all are gone before it ends.
///
/// # Errors
///
/// Where dlpm cannot trace, or has lost time.
pub fn run(programs: &Programs) -> Result<Accuracy> {
    let groups = ["spinner", "processes", "bursts"].map(Cgroup::create);
    let filters: Vec<String> = groups
        .iter()
        .flat_map(|group| ["--cgroup".to_owned(), group.path().to_owned()])
        .collect();
    for group in &groups {
        if group.usage_ns() != 0 {
            bail!("{} is new, but its cpu.stat is not 0", group.path());
        }
    }
    let trace = Traced::start(&programs.dlpm, Duration::from_secs(1), &filters)?;
    let stolen_ns = stolen_ns()?;
    work(programs, &groups)?;
    for group in &groups {
        group.wait_until_empty();
    }
    // A process is out of its group some microseconds before its last switch.
    thread::sleep(Duration::from_millis(200));
    let by_kernel = groups.each_ref().map(Cgroup::usage_ns);
    let stolen_ns = self::stolen_ns()? - stolen_ns;
    let lines = trace.finish()?;
    let lost_ns: u64 = lines.iter().map(|line| line.lost_ns).sum();
    if lost_ns > 0 {
        bail!("{lost_ns} ns found no room in dlpm's maps, on a machine with this much else to do");
    }
    let what = [
        "one process that spins".to_owned(),
        format!("{PROCESSES} processes of 1 to 20 ms"),
        format!("{BURST_THREADS} threads in bursts of 2 ms"),
    ];
    let tenants = what.into_iter().zip(&groups).zip(by_kernel);
    Ok(Accuracy {
        tenants: tenants
            .map(|((what, group), by_kernel_ns)| {
                Ok(Tenant {
                    what,
                    by_dlpm_ns: traced_ns(&lines, group.path())?,
                    by_kernel_ns,
                })
            })
            .collect::<Result<_>>()?,
        stolen_ns,
    })
}

/// The tenants start together; the spinner and the threads go on as long as processes are started.
fn work(programs: &Programs, groups: &[Cgroup; 3]) -> Result<()> {
    let program = programs
        .worker
        .to_str()
        .context("the path of dlpm-worker is no UTF-8")?;
    let start = |group: &Cgroup, arguments: &[&str]| {
        // It waits for `go`, so all but some microseconds of its work is done in the group.
        let worker = Worker::start(program, arguments);
        group.add(worker.pid());
        worker
    };
    let bursts = [BURST_THREADS, BURST_US, PAUSE_US, 600_000].map(|number| number.to_string());
    let bursts: Vec<&str> = ["bursts"]
        .into_iter()
        .chain(bursts.iter().map(String::as_str))
        .collect();
    let mut spinner = start(&groups[0], &["spin", "0"]);
    let mut processes = start(&groups[1], &["processes", &PROCESSES.to_string(), "1000", "20000"]);
    let mut bursts = start(&groups[2], &bursts);
    spinner.go();
    bursts.go();
    processes.go();
    processes.lines_until_done();
    processes.finish();
    // Dropped, they are killed and waited for.
    drop((spinner, bursts));
    Ok(())
}

/// Steal time of all CPUs since the machine started.
fn stolen_ns() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat").context("/proc/stat cannot be read")?;
    // The eighth figure after `cpu`: man 5 proc_stat.
    let ticks = stat
        .split_whitespace()
        .nth(8)
        .and_then(|ticks| ticks.parse::<u64>().ok());
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    Ok(ticks.context("/proc/stat shows no steal time")? * tick_ns)
}

/// Of one cgroup, in the whole log.
fn traced_ns(lines: &[Line], path: &str) -> Result<u64> {
    let sum = |of: fn(&Line) -> &std::collections::BTreeMap<String, u64>| -> u64 {
        lines.iter().filter_map(|line| of(line).get(path)).sum()
    };
    let (by_rows, by_cgroup) = (sum(|line| &line.rows), sum(|line| &line.cgroups));
    if by_rows != by_cgroup {
        bail!("{path}: the rows add up to {by_rows} ns, and the log's `cgroups` to {by_cgroup} ns");
    }
    Ok(by_cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accuracy(by_dlpm_ns: [u64; 2], stolen_ns: u64) -> Accuracy {
        let tenant = |by_dlpm_ns| Tenant {
            what: "tenant".to_owned(),
            by_dlpm_ns,
            by_kernel_ns: 10_000_000,
        };
        Accuracy {
            tenants: by_dlpm_ns.map(tenant).to_vec(),
            stolen_ns,
        }
    }

    #[test]
    fn each_bound_holds_on_its_own() {
        accuracy([10_140_000, 9_870_000], 0).check().unwrap();
        accuracy([10_160_000, 9_840_000], 0).check().unwrap_err();
        accuracy([10_060_000, 10_060_000], 0).check().unwrap_err();
        accuracy([9_940_000, 9_940_000], 0).check().unwrap_err();
    }

    #[test]
    fn stolen_time_explains_only_what_dlpm_counts_more() {
        accuracy([10_060_000, 10_060_000], 100_000).check().unwrap();
        accuracy([10_060_000, 10_060_000], 100_000).check_plainly().unwrap_err();
        accuracy([10_140_000, 10_140_000], 100_000).check().unwrap_err();
        accuracy([9_940_000, 9_940_000], 100_000).check().unwrap_err();
        assert_eq!(accuracy([10_000_000, 10_001_000], 100_000).unexplained_percent(), 0.0);
        // A single tenant has to be right without it.
        accuracy([10_160_000, 10_000_000], 1_000_000).check().unwrap_err();
    }
}
