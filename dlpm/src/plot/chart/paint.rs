//! The parts of a chart that plotters has no element for: bands, stacks, curves with their range, the legend.

use std::{fmt::Display, ops::Range};

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{Chart, Curve};
use crate::{
    plot::{
        axis::nearest,
        bands::{Band, Bands},
        bins::Series,
        palette,
    },
    printable::printable,
};

/// plotters counts in whole units; four to a pixel, so that curves stay smooth.
pub const UNIT: i32 = 4;

/// Height of a lane of phases, in pixels.
pub const LANE: i32 = 18;

/// Height of a line of the legend, in pixels.
pub const LEGEND_LINE: i32 = 20;

/// Size of text, in pixels.
pub const TEXT: i32 = 12;

/// How strong the colour of a band is.
const BAND: f64 = 0.45;

/// What is drawn on.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// An error of plotters as one of ours.
pub fn drawn<T, E: Display>(result: Result<T, E>) -> Result<T> {
    result.map_err(|error| anyhow!("the chart cannot be drawn: {error}"))
}

/// The style of text of this size in pixels; it is centred vertically.
pub fn text<'a>(size: i32, horizontal: HPos) -> TextStyle<'a> {
    ("sans-serif", size * UNIT)
        // Only a size in percent would need the dimensions of a parent.
        .into_text_style(&(0, 0))
        .color(&palette::INK)
        .pos(Pos::new(horizontal, VPos::Center))
}

/// The width that text of [`TEXT`] may take, in pixels: what most sans-serif fonts stay below.
fn text_width(text: &str) -> i32 {
    let count = i32::try_from(text.chars().count()).unwrap_or(i32::MAX / 100);
    count * TEXT * 55 / 100
}

/// As much of a text as fits in a width in pixels; empty if not even three letters do.
fn fitting(text: &str, width: i32) -> String {
    if text_width(text) <= width {
        return text.to_owned();
    }
    let fit = usize::try_from(width * 100 / (TEXT * 55)).unwrap_or(0);
    if fit < 4 {
        return String::new();
    }
    text.chars().take(fit - 1).chain(['…']).collect()
}

/// What a band of this width in pixels shows of its label.
pub fn band_label(band: &Band, width: i32) -> String {
    fitting(&printable(&band.label), width - 6)
}

/// The plotting area.
pub struct Paint<'a, 'b> {
    /// The whole chart.
    pub area: &'a Area<'b>,
    /// Left and right, top and bottom edge, in units.
    pub x: Range<i32>,
    /// The same vertically.
    pub y: Range<i32>,
    /// What the width stands for.
    pub length_ns: u64,
}

impl Paint<'_, '_> {
    fn x_of(&self, at_ns: u64) -> i32 {
        let part = at_ns.min(self.length_ns) as f64 / self.length_ns.max(1) as f64;
        self.x.start + nearest(f64::from(self.x.end - self.x.start) * part)
    }

    fn y_of(&self, value: f64, range: &Range<f64>) -> i32 {
        let part = (value - range.start) / (range.end - range.start);
        self.y.end - nearest(f64::from(self.y.end - self.y.start) * part)
    }

    /// Phases: a lane above the curves, and a pale ground behind them.
    pub fn bands(&self, bands: &Bands, lanes_top: i32) -> Result<()> {
        let mut drawn_to = vec![i32::MIN; bands.lanes];
        for band in &bands.bands {
            let (left, right) = (self.x_of(band.begin_ns), self.x_of(band.end_ns));
            // Of those that are narrower than a pixel, one a pixel.
            let right = right.max(left + UNIT);
            match drawn_to.get_mut(band.lane) {
                Some(drawn_to) if right > *drawn_to => *drawn_to = right,
                _ => continue,
            }
            self.band(band, left, right, lanes_top + LANE * UNIT * lane_from_top(bands, band))?;
        }
        Ok(())
    }

    fn band(&self, band: &Band, left: i32, right: i32, top: i32) -> Result<()> {
        let color = palette::band(band.label_index);
        let lane = [(left, top), (right, top + (LANE - 2) * UNIT)];
        drawn(self.area.draw(&Rectangle::new(lane, color.mix(BAND).filled())))?;
        let ground = [(left, self.y.start), (right, self.y.end)];
        drawn(self.area.draw(&Rectangle::new(ground, color.mix(0.12).filled())))?;
        let label = band_label(band, (right - left) / UNIT);
        if label.is_empty() {
            return Ok(());
        }
        let position = (left + 3 * UNIT, top + (LANE - 2) * UNIT / 2);
        drawn(self.area.draw(&Text::new(label, position, text(TEXT - 1, HPos::Left))))
    }

    /// Curves: the range of each bin as a pale area, the mean as a line.
    pub fn curves(&self, curves: &[Curve], range: &Range<f64>, divisor: f64) -> Result<()> {
        for curve in curves {
            for run in curve.series.runs() {
                let bound = |upper: bool| {
                    self.steps(&curve.series, run.clone(), |index| {
                        let (low, high) = curve.series.range(index).unwrap_or_default();
                        self.y_of(if upper { high } else { low } / divisor, range)
                    })
                };
                let (upper, lower) = (bound(true), bound(false));
                if upper != lower {
                    let outline: Vec<_> = upper.into_iter().chain(lower.into_iter().rev()).collect();
                    drawn(self.area.draw(&Polygon::new(outline, curve.color.mix(0.36))))?;
                }
            }
        }
        for curve in curves {
            for run in curve.series.runs() {
                let points = self.steps(&curve.series, run, |index| {
                    self.y_of(curve.series.mean(index).unwrap_or_default() / divisor, range)
                });
                let style = curve.color.stroke_width(UNIT.unsigned_abs() * 3 / 2);
                drawn(self.area.draw(&PathElement::new(points, style)))?;
            }
        }
        Ok(())
    }

    /// Curves on top of each other, the first one at the bottom.
    pub fn stack(&self, curves: &[Curve], range: &Range<f64>, divisor: f64) -> Result<()> {
        let Some(first) = curves.first() else { return Ok(()) };
        let mut below = vec![0.0; first.series.time().count()];
        for curve in curves {
            let above: Vec<f64> = below
                .iter()
                .enumerate()
                .map(|(index, below)| below + curve.series.mean(index).unwrap_or_default())
                .collect();
            for run in curve.series.runs() {
                let edge = |sums: &[f64]| {
                    self.steps(&curve.series, run.clone(), |index| {
                        self.y_of(sums.get(index).copied().unwrap_or_default() / divisor, range)
                    })
                };
                let (upper, lower) = (edge(&above), edge(&below));
                if upper == lower {
                    continue;
                }
                let outline: Vec<_> = upper.into_iter().chain(lower.into_iter().rev()).collect();
                drawn(self.area.draw(&Polygon::new(outline, curve.color.filled())))?;
            }
            below = above;
        }
        Ok(())
    }

    /// The corners of a run of bins, each as wide as it is: no slope between two means that nobody measured.
    fn steps(&self, series: &Series, run: Range<usize>, y_of: impl Fn(usize) -> i32) -> Vec<(i32, i32)> {
        let mut points: Vec<(i32, i32)> = Vec::new();
        let mut last = None;
        for index in run.clone() {
            let y = y_of(index);
            if last.is_some_and(|last: i32| last == y) {
                continue;
            }
            let x = self.x_of(series.time().edge_ns(index));
            if let Some(last) = last {
                points.push((x, last));
            }
            points.push((x, y));
            last = Some(y);
        }
        if let Some(last) = last {
            points.push((self.x_of(series.time().edge_ns(run.end)), last));
        }
        points
    }
}

/// Lane 0 is the lowest.
fn lane_from_top(bands: &Bands, band: &Band) -> i32 {
    i32::try_from(bands.lanes.saturating_sub(band.lane + 1)).unwrap_or(0)
}

/// Draws the legend, on as many lines as it needs; returns where it ends, in pixels.
pub fn legend(area: &Area<'_>, chart: &Chart, top: i32, width: i32) -> Result<i32> {
    let right = chart.right.iter().flat_map(|(_, curves)| curves);
    let curves = chart.curves.iter().chain(right);
    let curves = curves.map(|curve| (curve.label.clone(), curve.color.filled()));
    let phases = super::phases(chart)
        .into_iter()
        .filter(|(.., is_labelled)| !is_labelled)
        .map(|(label, color, _)| (label, color.mix(BAND).filled()));
    let (mut x, mut y) = (64, top);
    for (label, style) in curves.chain(phases) {
        let label = fitting(&printable(&label), width - 64 - 40);
        let needed = 22 + text_width(&label) + 14;
        if x > 64 && x + needed > width {
            (x, y) = (64, y + LEGEND_LINE);
        }
        let middle = y + LEGEND_LINE / 2;
        let swatch = [(x * UNIT, (middle - 4) * UNIT), ((x + 16) * UNIT, (middle + 4) * UNIT)];
        drawn(area.draw(&Rectangle::new(swatch, style)))?;
        let position = ((x + 22) * UNIT, middle * UNIT);
        drawn(area.draw(&Text::new(label, position, text(TEXT, HPos::Left))))?;
        x += needed;
    }
    Ok(y + LEGEND_LINE + 4)
}
