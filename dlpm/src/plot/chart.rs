//! One chart as SVG: curves or a stack over time, with phases above.

mod paint;

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::{prelude::*, style::text_anchor::HPos};

use self::paint::{Area, LANE, LEGEND_LINE, Paint, TEXT, UNIT, drawn, text};
use super::{
    axis::{self, TimeTicks},
    bands::Bands,
    bins::{SMALLEST, Series},
    palette,
};
use crate::printable::printable;

/// Room for the labels of the time axis and of an axis of values, and beside that, in pixels.
const BOTTOM: i32 = 42;
const SIDE: i32 = 64;
const MARGIN: i32 = 6;

/// The least height and width of a plotting area that shows anything.
const LEAST: (i32, i32) = (120, 50);

/// A curve, and how it is called.
#[derive(Clone, Debug)]
pub struct Curve {
    /// For legend and readout.
    pub label: String,
    /// Its colour.
    pub color: RGBColor,
    /// Its values.
    pub series: Series,
}

/// What an axis of values is of.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueAxis {
    /// Title, with the unit.
    pub title: String,
    /// Values are divided by this (bytes to gigabytes).
    pub divisor: f64,
}

impl ValueAxis {
    /// Values as they are.
    pub fn plain(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            divisor: 1.0,
        }
    }
}

/// What a chart shows.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Above everything.
    pub title: Option<String>,
    /// Axis on the left.
    pub left: ValueAxis,
    /// Curves of the left axis.
    pub curves: Vec<Curve>,
    /// The curves stand on each other: they are parts of a sum.
    pub stacked: bool,
    /// A second axis, on the right, with its curves.
    pub right: Option<(ValueAxis, Vec<Curve>)>,
    /// Phases.
    pub bands: Bands,
    /// With legend and ground, for a file that stands alone.
    pub standalone: bool,
}

/// A chart that was drawn.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// The SVG element, without an XML declaration.
    pub svg: String,
    /// Left and right edge of the plotting area, as parts of the width.
    pub x_range: (f64, f64),
}

/// Draws a chart.
///
/// # Errors
///
/// If the size leaves no room for the curves.
pub fn draw(chart: &Chart) -> Result<Drawing> {
    let mut buffer = String::new();
    let (width, height) = chart.size;
    let units = |pixels: u32| pixels.saturating_mul(UNIT.unsigned_abs());
    let x_units = {
        let area = SVGBackend::with_string(&mut buffer, (units(width), units(height))).into_drawing_area();
        let x_units = draw_into(chart, &area)?;
        drawn(area.present())?;
        x_units
    };
    // The element's own size is in pixels; its content stays in units.
    let (_, content) = buffer
        .split_once('>')
        .ok_or_else(|| anyhow!("the chart has no content"))?;
    let opening = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {} {}">"#,
        units(width),
        units(height)
    );
    let part = |x: i32| f64::from(x) / f64::from(units(width));
    Ok(Drawing {
        svg: opening + content,
        x_range: (part(x_units.start), part(x_units.end)),
    })
}

/// Draws everything; returns the left and right edge of the plotting area.
fn draw_into(chart: &Chart, area: &Area<'_>) -> Result<Range<i32>> {
    let pixels = |size: u32| i32::try_from(size).unwrap_or(i32::MAX / UNIT);
    let (width, height) = (pixels(chart.size.0), pixels(chart.size.1));
    let mut top = 8;
    if chart.standalone {
        drawn(area.fill(&palette::PAPER))?;
    }
    if let Some(title) = &chart.title {
        let position = (width * UNIT / 2, top * UNIT + LEGEND_LINE * UNIT / 2);
        drawn(area.draw(&Text::new(printable(title), position, text(TEXT + 3, HPos::Center))))?;
        top += LEGEND_LINE + 6;
    }
    if chart.standalone {
        top = paint::legend(area, chart, top, width)?;
    }
    let lanes_top = top;
    top += LANE * i32::try_from(chart.bands.lanes).unwrap_or(0);
    let sides = sides(chart);
    if width - sides < LEAST.0 || height - top - BOTTOM < LEAST.1 {
        return Err(anyhow!(
            "{width}x{height} leaves no room for the curves; make it at least {}x{}",
            width.max(sides + LEAST.0),
            height.max(top + BOTTOM + LEAST.1)
        ));
    }

    let length_ns = length_ns(chart);
    let most_ticks = u64::from(chart.size.0) / 80;
    let ticks = TimeTicks::new(length_ns, most_ticks.max(2));
    let left = value_range(&chart.curves, chart.stacked, chart.left.divisor);
    let right = match &chart.right {
        Some((axis, curves)) => value_range(curves, false, axis.divisor),
        None => 0.0..1.0,
    };
    let mut builder = ChartBuilder::on(area);
    builder
        .margin_top(top * UNIT)
        .margin_left(MARGIN * UNIT)
        .x_label_area_size(BOTTOM * UNIT)
        .y_label_area_size(SIDE * UNIT);
    if chart.right.is_some() {
        builder.right_y_label_area_size(SIDE * UNIT).margin_right(MARGIN * UNIT);
    } else {
        builder.margin_right(16 * UNIT);
    }
    let x_axis = ticks.clone();
    let mut context =
        drawn(builder.build_cartesian_2d(x_axis, left.clone()))?.set_secondary_coord(ticks.clone(), right.clone());
    let line = UNIT.unsigned_abs();
    drawn(
        context
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(palette::GRID.stroke_width(line))
            .light_line_style(TRANSPARENT)
            .axis_style(palette::INK.stroke_width(line))
            .y_labels(6)
            .set_all_tick_mark_size(4 * UNIT)
            .label_style(text(TEXT, HPos::Center))
            .axis_desc_style(text(TEXT, HPos::Center))
            .y_label_formatter(&|value| axis::value(*value))
            .x_desc(ticks.form.description())
            .y_desc(printable(&chart.left.title))
            .draw(),
    )?;
    if let Some((axis, _)) = &chart.right {
        drawn(
            context
                .configure_secondary_axes()
                .axis_style(palette::INK.stroke_width(line))
                .y_labels(6)
                .set_all_tick_mark_size(4 * UNIT)
                .label_style(text(TEXT, HPos::Center))
                .axis_desc_style(text(TEXT, HPos::Center))
                .y_label_formatter(&|value| axis::value(*value))
                .y_desc(printable(&axis.title))
                .draw(),
        )?;
    }
    let (x_units, y_units) = context.plotting_area().get_pixel_range();
    let paint = Paint {
        area,
        x: x_units.clone(),
        y: y_units,
        length_ns,
    };
    paint.bands(&chart.bands, lanes_top * UNIT)?;
    if chart.stacked {
        paint.stack(&chart.curves, &left, chart.left.divisor)?;
    } else {
        paint.curves(&chart.curves, &left, chart.left.divisor)?;
    }
    if let Some((axis, curves)) = &chart.right {
        paint.curves(curves, &right, axis.divisor)?;
    }
    Ok(x_units)
}

/// What is beside the plotting area, in pixels.
fn sides(chart: &Chart) -> i32 {
    if chart.right.is_some() {
        2 * (SIDE + MARGIN)
    } else {
        SIDE + MARGIN + 16
    }
}

/// The phases with their colours, and whether a band has room for the label; beyond the sixth, colours come again.
pub fn phases(chart: &Chart) -> Vec<(String, RGBColor, bool)> {
    let width = i32::try_from(chart.size.0).unwrap_or(i32::MAX) - sides(chart);
    let length_ns = length_ns(chart) as f64;
    let mut phases: Vec<(usize, &str, bool)> = Vec::new();
    for band in &chart.bands.bands {
        let part = (band.end_ns - band.begin_ns) as f64 / length_ns;
        let fits = !paint::band_label(band, axis::nearest(f64::from(width) * part)).is_empty();
        match phases.iter().position(|(index, ..)| *index == band.label_index) {
            Some(position) => phases[position].2 |= fits,
            None if phases.len() < palette::BANDS => phases.push((band.label_index, &band.label, fits)),
            None => {}
        }
    }
    phases
        .into_iter()
        .map(|(index, label, fits)| (label.to_owned(), palette::band(index), fits))
        .collect()
}

/// The length of the time axis.
fn length_ns(chart: &Chart) -> u64 {
    let mut curves = chart
        .curves
        .iter()
        .chain(chart.right.iter().flat_map(|(_, curves)| curves));
    curves.next().map_or(1, |curve| curve.series.time().length_ns())
}

/// From 0, or what is below it, to a little above the largest value.
fn value_range(curves: &[Curve], stacked: bool, divisor: f64) -> Range<f64> {
    let (mut low, mut high) = (0.0_f64, 0.0_f64);
    if stacked {
        let count = curves.first().map_or(0, |curve| curve.series.time().count());
        for index in 0..count {
            let sum: f64 = curves.iter().filter_map(|curve| curve.series.mean(index)).sum();
            high = high.max(sum);
        }
    } else {
        for (lowest, highest) in curves.iter().filter_map(|curve| curve.series.extent()) {
            low = low.min(lowest);
            high = high.max(highest);
        }
    }
    let (low, high) = (low / divisor, high / divisor);
    // Also where all values are so small that an axis has no ticks between them.
    if high - low < SMALLEST {
        low..low + 1.0
    } else {
        low..high + (high - low) * 0.06
    }
}
