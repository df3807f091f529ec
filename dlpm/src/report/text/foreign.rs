//! What AIPowerMeter itself recorded, for a terminal.

use super::Text;
use crate::{
    printable::printable,
    tables::figures::{table, trimmed},
};

impl Text<'_> {
    /// What AIPowerMeter itself recorded.
    pub fn foreign(&self) -> String {
        let foreign = &self.collected.foreign;
        if foreign.samples == 0 {
            return String::new();
        }
        let mut zones = table(
            ["zone", "J", "s known", "average W", "peak W"]
                .map(str::to_owned)
                .into(),
            1,
            self.options.width,
        );
        for (name, zone) in &foreign.zones {
            let average = if zone.known_s > 0.0 {
                format!("{:.3}", zone.joules / zone.known_s)
            } else {
                "-".to_owned()
            };
            zones.add_row([
                printable(name),
                format!("{:.3}", zone.joules),
                format!("{:.3}", zone.known_s),
                average,
                format!("{:.3}", zone.peak_w),
            ]);
        }
        let mut text = format!(
            "\nRecorded by AIPowerMeter: {} samples over {:.3} s, watts integrated (idle policy: energy goes to busy \
             processes; idle time not recorded)\n{}\n",
            foreign.samples,
            foreign.duration_s,
            trimmed(&zones)
        );
        let mut processes: Vec<_> = foreign.processes.iter().collect();
        let size = |joules: Option<f64>| joules.unwrap_or(0.0);
        processes.sort_by(|(_, a), (_, b)| {
            size(b.package_joules.or(b.core_joules)).total_cmp(&size(a.package_joules.or(a.core_joules)))
        });
        let header = ["pid", "CPU time s", "package J", "core J", "dram J"].map(str::to_owned);
        let mut table = table(header.into(), 1, self.options.width);
        for (pid, process) in processes.into_iter().take(self.options.top) {
            let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
            table.add_row([
                printable(pid),
                shown(process.cpu_s),
                shown(process.package_joules),
                shown(process.core_joules),
                shown(process.dram_joules),
            ]);
        }
        if !foreign.processes.is_empty() {
            text += &format!("\nIts processes\n{}\n", trimmed(&table));
        }
        text
    }
}
