//! CPU time of tenants by dlpm and by tools that sample, against the kernel's own account of their cgroups.

mod account;
mod load;
mod plot;
mod samplers;
mod tables;

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use dlpm_common::yardsticks::KernelAccount;

use self::{
    account::Accounts,
    load::Load,
    samplers::{ByGroup, Psutil, Scanner},
};
use super::{
    Programs,
    log::Line,
    stats::{Spread, float},
    traced::Traced,
};
use dlpm_tests::cgroup::Cgroup;

/// Largest difference of one tenant, in percent.
pub const TENANT_PERCENT: f64 = 1.5;

/// Largest difference of all tenants together, in percent.
pub const TOTAL_PERCENT: f64 = 0.5;

/// Largest difference of one tenant to the second count at the same switches, in percent: dlpm's own error.
pub const OWN_PERCENT: f64 = 0.2;

/// Largest part of a difference that may come from where a switch is charged, in percent, on any machine: it depends on how
/// long switches take there.
const CHARGING_PERCENT: f64 = 5.0;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Runs.
    pub rounds: usize,
    /// Short processes that are started one after another.
    pub processes: u32,
    /// Object with the programs that follow the kernel's account.
    pub yardsticks: Option<PathBuf>,
    /// Whether tools that sample run beside dlpm.
    pub samplers: bool,
    /// Where the plot is written.
    pub plot: Option<PathBuf>,
}

/// CPU time of a tenant, counted in several ways.
#[derive(Clone, Debug, Default)]
pub struct Tenant {
    /// What it does.
    pub what: String,
    /// By dlpm's log.
    pub by_dlpm_ns: u64,
    /// `usage_usec` of its cgroup, in nanoseconds.
    pub by_kernel_ns: u64,
    /// By the sampler on psutil.
    pub by_psutil_ns: Option<u64>,
    /// By the scanner of `/proc`.
    pub by_scanner_ns: Option<u64>,
    /// What the kernel's account is made of.
    pub account: Option<KernelAccount>,
}

impl Tenant {
    /// Difference in percent of the kernel's figure; positive where dlpm counts more.
    pub fn percent(&self) -> f64 {
        self.percent_of(self.by_dlpm_ns)
    }

    /// The same of another count.
    pub fn percent_of(&self, counted_ns: u64) -> f64 {
        (float(counted_ns) / float(self.by_kernel_ns) - 1.0) * 100.0
    }

    /// Difference in percent to the second count at the same switches, where that was made.
    pub fn own_percent(&self) -> Option<f64> {
        Some((float(self.by_dlpm_ns) / float(self.account?.switched_ns) - 1.0) * 100.0)
    }

    /// Parts of [`Tenant::percent`], where the kernel's account was followed.
    pub fn parts(&self) -> Option<Parts> {
        let account = self.account?;
        let percent = |more_ns: u64, less_ns: u64| (float(more_ns) - float(less_ns)) / float(self.by_kernel_ns) * 100.0;
        Some(Parts {
            charging: percent(self.by_dlpm_ns, account.elapsed_ns),
            clock: percent(account.elapsed_ns, account.runtime_ns),
            rest: percent(account.runtime_ns, self.by_kernel_ns),
        })
    }
}

/// Where a difference comes from, in percent of the kernel's figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts {
    /// dlpm less the time between the kernel's own borders of slices, both by CLOCK_MONOTONIC: where a switch is charged.
    pub charging: f64,
    /// The time between these borders by CLOCK_MONOTONIC less that by the scheduler's clock: what the hypervisor stole.
    pub clock: f64,
    /// What `sched_stat_runtime` told, less `cpu.stat`.
    pub rest: f64,
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
        let known = |of: fn(&Tenant) -> Option<u64>| self.tenants.iter().map(of).sum();
        Tenant {
            what: "all".to_owned(),
            by_dlpm_ns: sum(|tenant| tenant.by_dlpm_ns),
            by_kernel_ns: sum(|tenant| tenant.by_kernel_ns),
            by_psutil_ns: known(|tenant| tenant.by_psutil_ns),
            by_scanner_ns: known(|tenant| tenant.by_scanner_ns),
            account: self.tenants.iter().map(|tenant| tenant.account).try_fold(
                KernelAccount::default(),
                |sum, account| {
                    let account = account?;
                    Some(KernelAccount {
                        runtime_ns: sum.runtime_ns + account.runtime_ns,
                        elapsed_ns: sum.elapsed_ns + account.elapsed_ns,
                        switched_ns: sum.switched_ns + account.switched_ns,
                    })
                },
            ),
        }
    }

    /// The tenants, and all together.
    pub fn rows(&self) -> impl Iterator<Item = Tenant> {
        self.tenants.iter().cloned().chain([self.total()])
    }

    /// Difference of all tenants in percent that stolen time cannot explain: cpu.stat leaves that time out, and the
    /// tenants have had at most all of it.
    pub fn unexplained_percent(&self) -> f64 {
        let total = self.total();
        let more_ns = total.by_dlpm_ns.saturating_sub(total.by_kernel_ns);
        let by_dlpm_ns = total.by_dlpm_ns - more_ns.min(self.stolen_ns);
        Tenant { by_dlpm_ns, ..total }.percent()
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
        let each = tenants.flat_map(|tenant| {
            let own = tenant
                .own_percent()
                .map(|percent| (tenant.what.as_str(), percent, OWN_PERCENT));
            [(tenant.what.as_str(), tenant.percent(), TENANT_PERCENT)]
                .into_iter()
                .chain(own)
        });
        within(each.chain([("all", total_percent, TOTAL_PERCENT)]))
    }
}

/// Whether dlpm counted what a second program counts at the same switches, which is its own error and the same on every
/// machine; and whether the kernel's account, which charges a switch to another task, is near. How much the hypervisor
/// stole does not matter. Judged is the median of the runs, since what the neighbours of a shared machine add comes and
/// goes.
///
/// # Errors
///
/// A sentence for each difference that is beyond its bound, and where there was no second count.
pub fn check_medians(runs: &[Accuracy]) -> Result<()> {
    let tenants = runs.first().map_or(0, |run| run.tenants.len());
    let median =
        |of: &dyn Fn(&Accuracy) -> f64| Spread::of(runs.iter().map(of)).map_or(f64::NAN, |spread| spread.median);
    let own = |tenant: &Tenant| tenant.own_percent().unwrap_or(f64::NAN);
    let part = |tenant: &Tenant, of: fn(Parts) -> f64| tenant.parts().map_or(f64::NAN, of);
    let each = (0..tenants).flat_map(|index| {
        let what = runs[0].tenants[index].what.as_str();
        let part = |of| median(&|run| part(&run.tenants[index], of));
        let own = median(&|run| own(&run.tenants[index]));
        [
            (format!("{what}, by a second count"), own, OWN_PERCENT),
            (
                format!("{what}, where a switch is charged"),
                part(|parts| parts.charging),
                CHARGING_PERCENT,
            ),
            (
                format!("{what}, sched_stat_runtime less cpu.stat"),
                part(|parts| parts.rest),
                OWN_PERCENT,
            ),
        ]
    });
    let own = median(&|run| own(&run.total()));
    let all = [
        ("all, by a second count".to_owned(), own, OWN_PERCENT),
        ("all".to_owned(), median(&Accuracy::unexplained_percent), TENANT_PERCENT),
    ];
    within(each.chain(all))
}

/// Each of these differences in percent is within its bound.
fn within(differences: impl Iterator<Item = (impl Display, f64, f64)>) -> Result<()> {
    let wrong: Vec<String> = differences
        .filter(|(_, percent, bound)| percent.abs() > *bound || percent.is_nan())
        .map(|(what, percent, bound)| format!("{what}: {percent:+.3} % is beyond {bound} %"))
        .collect();
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}

/// Measures and prints. Whether at least nine of ten runs are within the bounds.
///
/// # Errors
///
/// Where dlpm cannot trace, or has lost time.
pub fn bench(programs: &Programs, options: &Options) -> Result<bool> {
    let mut runs = Vec::new();
    for round in 1..=options.rounds {
        let run = run(programs, options)?;
        eprintln!("run {round} of {}\n\n{}", options.rounds, run.table());
        runs.push(run);
    }
    println!("{}\n\n{}", super::machine()?, tables::of_runs(&runs));
    if let Some(path) = &options.plot {
        let names = Load::new(options.processes).names;
        plot::write(path, &names, &runs).with_context(|| format!("{} cannot be drawn", path.display()))?;
        println!("\nPlot: {}", path.display());
    }
    let within = runs.iter().filter(|run| run.check().is_ok()).count();
    Ok(within * 10 >= runs.len() * 9)
}

/// Traces the tenants once, about half a minute.
///
/// All accounts cover the same time: the cgroups are new, their processes start to work when the trace has begun, and
/// all are gone before it ends. Only the samplers look for the last time while the long-lived tenants are still there.
///
/// # Errors
///
/// Where dlpm cannot trace, or has lost time.
pub fn run(programs: &Programs, options: &Options) -> Result<Accuracy> {
    let load = Load::new(options.processes);
    let groups: Vec<Cgroup> = load.names.iter().map(|name| Cgroup::create(name)).collect();
    let paths: Vec<&str> = groups.iter().map(Cgroup::path).collect();
    let filters: Vec<String> = paths
        .iter()
        .flat_map(|path| ["--cgroup".to_owned(), (*path).to_owned()])
        .collect();
    for group in &groups {
        if group.usage_ns() != 0 {
            bail!("{} is new, but its cpu.stat is not 0", group.path());
        }
    }
    let object = options.yardsticks.as_deref();
    let accounts = object.and_then(|object| follow(object, &groups));
    let psutil = options.samplers.then(|| left_out(Psutil::start(&paths))).flatten();
    let scanner = options.samplers.then(|| Scanner::start(&paths));
    let trace = Traced::start(&programs.dlpm, Duration::from_secs(1), &filters)?;
    let stolen_ns = stolen_ns()?;
    let (by_psutil, by_scanner) = load.run(programs, &groups, || {
        Ok((
            psutil.map(Psutil::finish).transpose()?,
            scanner.map(Scanner::finish).transpose()?,
        ))
    })?;
    for group in &groups {
        group.wait_until_empty();
    }
    // A process is out of its group some microseconds before its last switch.
    thread::sleep(Duration::from_millis(200));
    let by_kernel: Vec<u64> = groups.iter().map(Cgroup::usage_ns).collect();
    let stolen_ns = self::stolen_ns()? - stolen_ns;
    let lines = trace.finish()?;
    let lost_ns: u64 = lines.iter().map(|line| line.lost_ns).sum();
    if lost_ns > 0 {
        bail!("{lost_ns} ns found no room in dlpm's maps, on a machine with this much else to do");
    }
    let of_group =
        |sampled: &Option<ByGroup>, path: &str| sampled.as_ref().and_then(|sampled| sampled.get(path)).copied();
    let tenants = load.what.iter().zip(&groups).zip(by_kernel);
    let tenants = tenants.map(|((what, group), by_kernel_ns)| {
        Ok(Tenant {
            what: what.clone(),
            by_dlpm_ns: traced_ns(&lines, group.path())?,
            by_kernel_ns,
            by_psutil_ns: of_group(&by_psutil, group.path()),
            by_scanner_ns: of_group(&by_scanner, group.path()),
            account: accounts.as_ref().map(|accounts| accounts.of(group)).transpose()?,
        })
    });
    Ok(Accuracy {
        tenants: tenants.collect::<Result<_>>()?,
        stolen_ns,
    })
}

fn follow(object: &Path, groups: &[Cgroup]) -> Option<Accounts> {
    left_out(Accounts::follow(object, groups).context("where a switch is charged cannot be told apart"))
}

fn left_out<T>(started: Result<T>) -> Option<T> {
    started.inspect_err(|error| eprintln!("left out: {error:#}")).ok()
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
            ..Tenant::default()
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

    /// With a second count that is `own_ns` less, and a kernel that found its borders `charging_ns` earlier.
    fn counted_twice(own_ns: u64, charging_ns: u64) -> Accuracy {
        let mut run = accuracy([10_010_000, 9_990_000], 0);
        for tenant in &mut run.tenants {
            tenant.account = Some(KernelAccount {
                switched_ns: tenant.by_dlpm_ns - own_ns,
                elapsed_ns: tenant.by_dlpm_ns - charging_ns,
                runtime_ns: tenant.by_kernel_ns,
            });
        }
        run
    }

    #[test]
    fn of_several_runs_the_median_is_judged() {
        let good = counted_twice(10_000, 400_000);
        // An error of a quarter of a percent is dlpm's own.
        let bad = counted_twice(25_000, 400_000);
        check_medians(&[good.clone(), bad.clone(), good.clone()]).unwrap();
        check_medians(&[bad.clone(), good.clone(), bad]).unwrap_err();
        check_medians(&[]).unwrap_err();
        check_medians(&[accuracy([10_000_000, 10_000_000], 0)]).unwrap_err();
        // Each tenant on its own: the best of one run does not excuse the other runs.
        let slow = counted_twice(0, 600_000);
        let error = check_medians(&[slow.clone(), slow, good]).unwrap_err().to_string();
        assert_eq!(error.matches("where a switch is charged").count(), 2, "{error}");
    }

    #[test]
    fn what_the_hypervisor_stole_is_not_an_error_of_a_tenant() {
        let mut run = counted_twice(0, 100_000);
        for tenant in &mut run.tenants {
            tenant.by_kernel_ns -= 2_000_000;
            tenant.account.as_mut().unwrap().runtime_ns -= 2_000_000;
        }
        check_medians(&[run.clone()]).unwrap_err();
        run.stolen_ns = 4_000_000;
        check_medians(&[run.clone()]).unwrap();
        // But the kernel has to agree with itself.
        run.tenants[0].by_kernel_ns -= 100_000;
        check_medians(&[run]).unwrap_err();
    }

    #[test]
    fn a_run_is_within_its_bounds_only_where_the_second_count_is_near() {
        counted_twice(19_000, 0).check().unwrap();
        counted_twice(21_000, 0).check().unwrap_err();
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

    #[test]
    fn the_parts_add_up_to_the_difference() {
        let mut run = accuracy([10_300_000, 9_950_000], 0);
        assert_eq!(run.tenants[0].parts(), None);
        let accounts = [(10_002_000, 10_100_000), (9_999_000, 10_010_000)];
        for (tenant, (runtime_ns, elapsed_ns)) in run.tenants.iter_mut().zip(accounts) {
            tenant.account = Some(KernelAccount {
                runtime_ns,
                elapsed_ns,
                switched_ns: 0,
            });
        }
        for row in run.rows() {
            let parts = row.parts().unwrap();
            let sum = parts.charging + parts.clock + parts.rest;
            assert!((sum - row.percent()).abs() < 1e-9, "{}: {sum}", row.what);
        }
        assert!((run.tenants[0].parts().unwrap().charging - 2.0).abs() < 1e-9);
    }

    #[test]
    fn what_one_tenant_lacks_all_lack() {
        let mut run = accuracy([1, 2], 0);
        run.tenants[0].by_psutil_ns = Some(3);
        assert_eq!(run.total().by_psutil_ns, None);
        run.tenants[1].by_psutil_ns = Some(4);
        assert_eq!(run.total().by_psutil_ns, Some(7));
    }
}
