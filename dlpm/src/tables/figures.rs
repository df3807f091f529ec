//! Figures and names as a terminal shows them.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::{printable::printable, totals::Peak};

/// Longest name of a cgroup that is shown whole.
const CGROUP_WIDTH: usize = 32;

/// What stands for energy that was known in no interval.
pub const UNKNOWN: &str = "unknown";

/// `value` in units of 10^-`digits`, rounded to `shown` decimals (half up); exact integers until here.
pub fn decimal(value: u128, digits: u32, shown: u32) -> String {
    let unit = 10u128.pow(digits - shown);
    let rounded = value / unit + u128::from(value % unit * 2 >= unit && unit > 1);
    let one = 10u128.pow(shown);
    let width = usize::try_from(shown).unwrap_or(0);
    format!("{}.{:0width$}", rounded / one, rounded % one)
}

/// Average power; µJ over ns are kilowatts.
pub fn watts(energy_uj: u128, duration_ns: u128) -> String {
    if duration_ns == 0 {
        return "-".to_owned();
    }
    format!("{:.3}", energy_uj as f64 / duration_ns as f64 * 1000.0)
}

/// µJ as joules.
pub fn joules(energy_uj: Option<u128>) -> String {
    energy_uj.map_or_else(|| UNKNOWN.to_owned(), |energy_uj| decimal(energy_uj, 6, 3))
}

/// Average power of what may be unknown.
pub fn average_watts(energy_uj: Option<u128>, known_ns: u128) -> String {
    energy_uj.map_or_else(|| "-".to_owned(), |energy_uj| watts(energy_uj, known_ns))
}

/// A part of what may be unknown.
pub fn known_percent(part: Option<u128>, whole: Option<u128>) -> String {
    part.zip(whole)
        .map_or_else(|| "-".to_owned(), |(part, whole)| percent(part, whole))
}

/// Power of the highest interval.
pub fn peak_watts(peak: &Peak) -> String {
    peak.interval().map_or_else(
        || "-".to_owned(),
        |(energy_uj, length_ns)| watts(energy_uj, length_ns.into()),
    )
}

/// A part of a whole.
pub fn percent(part: u128, whole: u128) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", part as f64 / whole as f64 * 100.0)
}

/// The end of a path says more than its beginning.
pub fn shortened(cgroup: &str) -> String {
    let cgroup = printable(cgroup);
    let length = cgroup.chars().count();
    if length <= CGROUP_WIDTH {
        return cgroup;
    }
    let end: String = cgroup.chars().skip(length + 1 - CGROUP_WIDTH).collect();
    format!("…{end}")
}

/// A table for a terminal of `width` columns; after the first `left` columns are numbers.
pub fn table(header: Vec<String>, left: usize, width: u16) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .force_no_tty()
        .set_header(header);
    for (position, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if position >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The lines of a table, without blanks at their ends.
pub fn trimmed(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_rounded_from_integers() {
        assert_eq!(decimal(1_999_499, 6, 3), "1.999");
        assert_eq!(decimal(1_999_500, 6, 3), "2.000");
        assert_eq!(decimal(7, 6, 6), "0.000007");
        assert_eq!(decimal(u128::from(u64::MAX), 6, 3), "18446744073709.552");
    }
}
