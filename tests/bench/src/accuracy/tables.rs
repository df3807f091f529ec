//! What is printed.

use std::fmt::Write;

use super::{
    super::stats::{Spread, float},
    Accuracy, Parts, TENANT_PERCENT, TOTAL_PERCENT, Tenant,
};

impl Accuracy {
    /// A markdown table of this run.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| tenant | CPU s by dlpm | CPU s by cpu.stat | difference | difference to a second count |\n|---|---|---|---|---|\n",
        );
        for tenant in self.rows() {
            let _ = writeln!(
                table,
                "| {} | {:.6} | {:.6} | {:+.3} % | {} |",
                tenant.what,
                float(tenant.by_dlpm_ns) / 1e9,
                float(tenant.by_kernel_ns) / 1e9,
                tenant.percent(),
                tenant
                    .own_percent()
                    .map_or_else(|| "left out".to_owned(), |percent| format!("{percent:+.3} %")),
            );
        }
        let _ = writeln!(
            table,
            "\nStolen by the hypervisor meanwhile: {:.2} s; it cannot explain {:+.3} % of all.",
            float(self.stolen_ns) / 1e9,
            self.unexplained_percent()
        );
        if let Err(error) = self.check() {
            let _ = writeln!(table, "\n{error}");
        }
        table
    }
}

/// The tables of several runs, of the same tenants.
pub fn of_runs(runs: &[Accuracy]) -> String {
    let [differences, parts] = [differences(runs), parts(runs)];
    let unexplained = Spread::of(runs.iter().map(Accuracy::unexplained_percent));
    let unexplained = unexplained.map_or_else(String::new, |spread| spread.show(1.0, 3));
    let within = |check: fn(&Accuracy) -> anyhow::Result<()>| runs.iter().filter(|run| check(run).is_ok()).count();
    format!(
        "Difference to cpu.stat in percent, of {} runs: median (min to max)\n\n{differences}\n\
         Of all, what stolen time cannot explain for dlpm: {unexplained}\n\n{parts}\
         {} of {} runs within {TENANT_PERCENT} % per tenant and, for what stolen time cannot explain, {TOTAL_PERCENT} % in \
         all; {} where nothing is left to stolen time.",
        runs.len(),
        within(Accuracy::check),
        runs.len(),
        within(Accuracy::check_plainly),
    )
}

/// For each tenant, and for all together, in the order of the runs.
fn by_tenant(runs: &[Accuracy]) -> Vec<Vec<Tenant>> {
    let mut rows: Vec<Vec<Tenant>> = Vec::new();
    for run in runs {
        for (index, tenant) in run.rows().enumerate() {
            if index == rows.len() {
                rows.push(Vec::new());
            }
            rows[index].push(tenant);
        }
    }
    rows
}

fn show(values: impl Iterator<Item = Option<f64>>) -> String {
    let values: Option<Vec<f64>> = values.collect();
    let spread = values.and_then(Spread::of);
    spread.map_or_else(|| "left out".to_owned(), |spread| spread.show(1.0, 3))
}

fn differences(runs: &[Accuracy]) -> String {
    let mut table = String::from(
        "| tenant | CPU s | dlpm | psutil, once a second | scan of /proc, once a second | dlpm, to a second count at the \
         switches |\n|---|---|---|---|---|---|\n",
    );
    for tenants in by_tenant(runs) {
        let difference =
            |of: fn(&Tenant) -> Option<u64>| show(tenants.iter().map(|tenant| Some(tenant.percent_of(of(tenant)?))));
        let seconds = Spread::of(tenants.iter().map(|tenant| float(tenant.by_kernel_ns)));
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} |",
            tenants[0].what,
            seconds.map_or_else(String::new, |seconds| seconds.show(1e-9, 1)),
            difference(|tenant| Some(tenant.by_dlpm_ns)),
            difference(|tenant| tenant.by_psutil_ns),
            difference(|tenant| tenant.by_scanner_ns),
            show(tenants.iter().map(Tenant::own_percent)),
        );
    }
    table
}

fn parts(runs: &[Accuracy]) -> String {
    if runs.iter().any(|run| run.total().account.is_none()) {
        return String::new();
    }
    let mut table = String::from(
        "Where the difference of dlpm comes from, in percent of cpu.stat\n\n| tenant | where a switch is charged | clock \
         (stolen time) | sched_stat_runtime less cpu.stat |\n|---|---|---|---|\n",
    );
    for tenants in by_tenant(runs) {
        let part = |of: fn(Parts) -> f64| show(tenants.iter().map(|tenant| tenant.parts().map(of)));
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} |",
            tenants[0].what,
            part(|parts| parts.charging),
            part(|parts| parts.clock),
            part(|parts| parts.rest),
        );
    }
    table + "\n"
}
