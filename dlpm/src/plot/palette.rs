//! Colours that people with any colour vision tell apart, on white and on dark ground.
//!
//! The first six are Okabe and Ito's (2008) without black and yellow, the others from Paul Tol's "muted" scheme (2021)
//! without those that vanish on dark ground. Each series of a chart has a colour of its own: the page finds a series by it.

use plotters::style::RGBColor;

/// Axes, ticks and text.
pub const INK: RGBColor = RGBColor(0x1F, 0x24, 0x2A);

/// Lines of the grid.
pub const GRID: RGBColor = RGBColor(0xDF, 0xE3, 0xE8);

/// The ground of a plot that stands alone.
pub const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);

const SERIES: [RGBColor; 12] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0x99, 0x99, 0x33),
    RGBColor(0xAA, 0x44, 0x99),
    RGBColor(0x44, 0xAA, 0x99),
    RGBColor(0xCC, 0x66, 0x77),
    RGBColor(0xB8, 0xA6, 0x5A),
    RGBColor(0x11, 0x87, 0x43),
];

/// The light base that idle energy is under the consumers; the page has it darker on a dark screen.
pub const IDLE: RGBColor = RGBColor(0xDD, 0xE3, 0xE9);

/// What is neither a listed process with an area of its own nor idle: smaller ones, others, kernel, dlpm, unattributed.
/// Any two of these and idle can be distinguished with any colour vision.
const REST: [RGBColor; 5] = [
    RGBColor(0xA3, 0xAB, 0xB5),
    RGBColor(0xC4, 0xA4, 0x84),
    RGBColor(0x55, 0x61, 0x70),
    RGBColor(0xF0, 0xD8, 0x5A),
    RGBColor(0xB0, 0x30, 0x3C),
];

/// Number of colours of phases.
pub const BANDS: usize = 6;

/// Muted, and different from every series.
const BAND_COLORS: [RGBColor; BANDS] = [
    RGBColor(0x5B, 0x7D, 0xB1),
    RGBColor(0xB1, 0x7D, 0x5B),
    RGBColor(0x5B, 0xA0, 0x8C),
    RGBColor(0x9C, 0x6F, 0xA8),
    RGBColor(0xA8, 0x9A, 0x52),
    RGBColor(0xA8, 0x5F, 0x6F),
];

/// The colour of the series with this number; beyond the twelfth they come again a little darker each time.
pub fn series(index: usize) -> RGBColor {
    darker(SERIES[index % SERIES.len()], index / SERIES.len())
}

/// The colour of a row that is not a process.
pub fn rest(index: usize) -> RGBColor {
    REST[index % REST.len()]
}

/// The colour of the phases with the label of this number.
pub fn band(index: usize) -> RGBColor {
    BAND_COLORS[index % BANDS]
}

/// `#RRGGBB`, as it stands in the SVG.
pub fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

fn darker(RGBColor(red, green, blue): RGBColor, steps: usize) -> RGBColor {
    let shade = |channel: u8| (0..steps).fold(channel, |channel, _| channel - channel / 6);
    RGBColor(shade(red), shade(green), shade(blue))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a colour looks like without one kind of cones, as CIE 1976 L*a*b* (D65): Machado, Oliveira and Fernandes 2009,
    /// severity 1.
    fn seen([red, green, blue]: [f64; 3], vision: [[f64; 3]; 3]) -> [f64; 3] {
        let linear = |channel: f64| match channel / 255.0 {
            low if low <= 0.040_45 => low / 12.92,
            high => ((high + 0.055) / 1.055).powf(2.4),
        };
        let times = |rows: [[f64; 3]; 3], vector: [f64; 3]| {
            rows.map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum::<f64>().max(0.0))
        };
        let light = times(vision, [red, green, blue].map(linear));
        let [x, y, z] = times(
            [
                [0.4339, 0.3762, 0.1899],
                [0.2126, 0.7152, 0.0722],
                [0.0177, 0.1095, 0.8728],
            ],
            light,
        )
        .map(|part| match part {
            bright if bright > 216.0 / 24389.0 => bright.cbrt(),
            dim => (24389.0 / 27.0 * dim + 16.0) / 116.0,
        });
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    #[test]
    fn what_is_not_a_process_can_be_distinguished_with_any_colour_vision() {
        const VISIONS: [[[f64; 3]; 3]; 4] = [
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            [
                [0.152_286, 1.052_583, -0.204_868],
                [0.114_503, 0.786_281, 0.099_216],
                [-0.003_882, -0.048_116, 1.051_998],
            ],
            [
                [0.367_322, 0.860_646, -0.227_968],
                [0.280_085, 0.672_501, 0.047_413],
                [-0.011_820, 0.042_940, 0.968_881],
            ],
            [
                [1.255_528, -0.076_749, -0.178_779],
                [-0.078_411, 0.930_809, 0.147_602],
                [0.004_733, 0.691_367, 0.303_900],
            ],
        ];
        let colors = REST.map(|RGBColor(red, green, blue)| [red, green, blue].map(f64::from));
        let RGBColor(red, green, blue) = IDLE;
        let colors = [&colors[..], &[[red, green, blue].map(f64::from)]].concat();
        for vision in VISIONS {
            for (index, one) in colors.iter().enumerate() {
                for other in &colors[..index] {
                    let (a, b) = (seen(*one, vision), seen(*other, vision));
                    let distance = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                    assert!(distance > 15.0, "{one:?} {other:?}: {distance}");
                }
            }
        }
    }

    #[test]
    fn no_two_series_of_a_chart_have_one_colour() {
        let all = (0..36)
            .map(series)
            .chain((0..REST.len()).map(rest))
            .chain([IDLE])
            .chain((0..BANDS).map(band));
        let all: Vec<String> = all.chain([INK, GRID, PAPER]).map(hex).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
