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
/// They differ in brightness, which every vision tells apart.
const REST: [RGBColor; 5] = [
    RGBColor(0xA3, 0xAB, 0xB5),
    RGBColor(0xC4, 0xA4, 0x84),
    RGBColor(0x55, 0x61, 0x70),
    RGBColor(0xF0, 0xD8, 0x5A),
    RGBColor(0x8F, 0x4E, 0x5B),
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
