//! Figures and names as people read them.

use crate::printable::printable;

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

/// A part of a whole.
pub fn percent(part: u128, whole: u128) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", part as f64 / whole as f64 * 100.0)
}

/// A number of things.
pub fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
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

/// A bar for a part from 0 to 1, in eighths of a cell; anything but nothing is seen.
pub fn bar(part: f64, cells: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (0..=cells * 8)
        .rev()
        .find(|eighths| *eighths as f64 <= part * cells as f64 * 8.0);
    let eighths = eighths.unwrap_or(0).max(usize::from(part > 0.0));
    "█".repeat(eighths / 8) + EIGHTHS.get(eighths % 8).copied().unwrap_or_default()
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

    #[test]
    fn a_bar_is_as_long_as_its_part() {
        assert_eq!(
            ["", "▏", "██", "███▌", "████"].map(str::to_owned),
            [0.0, 1e-9, 0.5, 0.88, 1.0].map(|part| bar(part, 4))
        );
    }
}
