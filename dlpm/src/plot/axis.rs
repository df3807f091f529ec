//! Ticks of the time axis, and how values are written.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// Steps of the time axis in ns: what people count time in.
const STEPS_NS: [u64; 31] = {
    const MS: u64 = 1_000_000;
    const S: u64 = 1000 * MS;
    const MIN: u64 = 60 * S;
    const H: u64 = 60 * MIN;
    const D: u64 = 24 * H;
    [
        5 * MS,
        10 * MS,
        20 * MS,
        50 * MS,
        100 * MS,
        200 * MS,
        500 * MS,
        S,
        2 * S,
        5 * S,
        10 * S,
        15 * S,
        30 * S,
        MIN,
        2 * MIN,
        5 * MIN,
        10 * MIN,
        15 * MIN,
        30 * MIN,
        H,
        2 * H,
        3 * H,
        6 * H,
        12 * H,
        D,
        2 * D,
        5 * D,
        10 * D,
        30 * D,
        100 * D,
        365 * D,
    ]
};

/// How times on an axis are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// With this many decimals.
    Seconds(usize),
    /// `m:ss`
    MinutesSeconds,
    /// `h:mm`
    HoursMinutes,
    /// Whole days.
    Days,
}

/// A time axis with its ticks.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeTicks {
    /// The whole axis in seconds.
    length: f64,
    /// Seconds since the beginning.
    pub seconds: Vec<f64>,
    /// How they are written.
    pub form: TimeForm,
}

impl TimeTicks {
    /// At most `most` ticks (at least one) for a span.
    pub fn new(length_ns: u64, most: u64) -> Self {
        let most = most.max(1);
        let step_ns = STEPS_NS.into_iter().find(|step_ns| length_ns / step_ns < most);
        // Longer than a hundred years: one tick.
        let step_ns = step_ns.unwrap_or(u64::MAX);
        let (second, hour) = (1_000_000_000, 3_600_000_000_000);
        let form = if step_ns < second / 10 {
            TimeForm::Seconds(2)
        } else if step_ns < second {
            TimeForm::Seconds(1)
        } else if length_ns < 120 * second {
            TimeForm::Seconds(0)
        } else if step_ns < hour && length_ns < 3 * hour {
            TimeForm::MinutesSeconds
        } else if step_ns < 24 * hour {
            TimeForm::HoursMinutes
        } else {
            TimeForm::Days
        };
        let seconds = (0..=length_ns / step_ns).map(|tick| (tick * step_ns) as f64 / 1e9);
        Self {
            length: length_ns.max(1) as f64 / 1e9,
            seconds: seconds.collect(),
            form,
        }
    }
}

impl Ranged for TimeTicks {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, seconds: &f64, (begin, end): (i32, i32)) -> i32 {
        begin + nearest(f64::from(end - begin) * seconds / self.length)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.seconds.clone()
        }
    }

    fn range(&self) -> Range<f64> {
        0.0..self.length
    }
}

impl ValueFormatter<f64> for TimeTicks {
    fn format_ext(&self, seconds: &f64) -> String {
        self.form.write(*seconds)
    }
}

impl TimeForm {
    /// What stands below the axis.
    pub fn description(self) -> &'static str {
        match self {
            Self::Seconds(_) => "time since the start (s)",
            Self::MinutesSeconds => "time since the start (min:s)",
            Self::HoursMinutes => "time since the start (h:min)",
            Self::Days => "time since the start (days)",
        }
    }

    /// A time in this form.
    pub fn write(self, seconds: f64) -> String {
        let whole = whole(seconds);
        match self {
            Self::Seconds(decimals) => format!("{seconds:.decimals$}"),
            Self::MinutesSeconds => format!("{}:{:02}", whole / 60, whole % 60),
            Self::HoursMinutes => format!("{}:{:02}", whole / 3600, whole / 60 % 60),
            Self::Days => format!("{}", whole / 86_400),
        }
    }
}

/// A length in the units of a drawing.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates; a chart is small")]
pub fn nearest(length: f64) -> i32 {
    length.round() as i32
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and ticks are not negative"
)]
fn whole(seconds: f64) -> u64 {
    seconds.round() as u64
}

/// A value of an axis: as few digits as tell it from its neighbours.
pub fn value(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn written(length_ns: u64) -> Vec<String> {
        let ticks = TimeTicks::new(length_ns, 8);
        ticks.seconds.iter().map(|tick| ticks.form.write(*tick)).collect()
    }

    #[test]
    fn ticks_are_what_people_count_in() {
        assert_eq!(written(9 * SECOND + SECOND / 2), ["0", "2", "4", "6", "8"]);
        assert_eq!(written(600 * SECOND), ["0:00", "2:00", "4:00", "6:00", "8:00", "10:00"]);
        assert_eq!(written(24 * 3600 * SECOND), ["0:00", "6:00", "12:00", "18:00", "24:00"]);
        assert_eq!(written(SECOND), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(written(6 * 86_400 * SECOND).len(), 7);
    }

    #[test]
    fn no_span_has_too_many_ticks_or_none() {
        for exponent in 0..64 {
            let ticks = TimeTicks::new(1 << exponent, 8);
            assert!((1..=8).contains(&ticks.seconds.len()), "{exponent}: {ticks:?}");
        }
    }

    #[test]
    fn values_have_few_digits() {
        let all = [0.0, 0.05, 0.5, 2.0, 12.5, 100.0, 1500.0].map(value);
        assert_eq!(all, ["0", "0.05", "0.5", "2", "12.5", "100", "1500"]);
    }
}
