//! The differences of all runs as a picture.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::{super::stats::Spread, Accuracy, TENANT_PERCENT, Tenant};

const SIZE: (u32, u32) = (900, 420);

/// Marks of one tool: its name, colour and count.
type Tool = (&'static str, RGBColor, fn(&Tenant) -> Option<u64>);

const TOOLS: [Tool; 3] = [
    ("psutil, once a second", RGBColor(213, 94, 0), |tenant| {
        tenant.by_psutil_ns
    }),
    ("scan of /proc, once a second", RGBColor(230, 159, 0), |tenant| {
        tenant.by_scanner_ns
    }),
    ("dlpm", RGBColor(0, 114, 178), |tenant| Some(tenant.by_dlpm_ns)),
];

/// Draws all tools on the left, and dlpm alone on a finer scale on the right.
///
/// # Errors
///
/// Where the file cannot be written.
pub fn write(path: &Path, names: &[&str], runs: &[Accuracy]) -> Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    // The errors of the crate borrow the drawing.
    let told = |error: &dyn std::fmt::Display| anyhow!("{error}");
    root.fill(&WHITE).map_err(|error| told(&error))?;
    let (left, right) = root.split_horizontally(560);
    panel(
        &left,
        "CPU time missed or added, % of cpu.stat",
        -105.0..15.0,
        names,
        runs,
        &TOOLS,
    )?;
    let bound = TENANT_PERCENT * 1.1;
    panel(
        &right,
        "dlpm alone, finer scale",
        -bound..bound,
        names,
        runs,
        &TOOLS[2..],
    )?;
    root.present().map_err(|error| told(&error))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// A column for each tenant, a point for each run of a tool, and a bar at its median.
fn panel(
    area: &Area<'_>,
    caption: &str,
    percent: std::ops::Range<f64>,
    names: &[&str],
    runs: &[Accuracy],
    tools: &[Tool],
) -> Result<()> {
    let told = |error: &dyn std::fmt::Display| anyhow!("{error}");
    let columns = f64::from(u32::try_from(names.len())?);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..columns, percent)
        .map_err(|error| told(&error))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(names.len() * 2 + 1)
        .x_label_formatter(&|x| column_name(names, *x))
        .y_label_formatter(&|y| format!("{y:+.1} %"))
        .draw()
        .map_err(|error| told(&error))?;
    let width = 0.8 / f64::from(u32::try_from(tools.len())?);
    let mut begin = 0.1;
    for (tool, color, count) in tools {
        let mut marks = Vec::new();
        for (column, x) in (0..names.len()).zip(0_u32..) {
            let values = runs.iter().filter_map(|run| {
                let tenant = run.tenants.get(column)?;
                Some(tenant.percent_of(count(tenant)?))
            });
            let x = f64::from(x) + begin;
            let values: Vec<f64> = values.collect();
            if let Some(spread) = Spread::of(values.iter().copied()) {
                marks.push((x, spread.median, values));
            }
        }
        let bars = marks
            .iter()
            .map(|(x, median, _)| Rectangle::new([(*x, 0.0), (x + width * 0.9, *median)], color.mix(0.45).filled()));
        chart
            .draw_series(bars)
            .map_err(|error| told(&error))?
            .label(*tool)
            .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.mix(0.45).filled()));
        let points = marks.iter().flat_map(|(x, _, values)| {
            let x = x + width * 0.45;
            values
                .iter()
                .map(move |value| Circle::new((x, *value), 2, color.filled()))
        });
        chart.draw_series(points).map_err(|error| told(&error))?;
        begin += width;
    }
    if tools.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()
            .map_err(|error| told(&error))?;
    }
    Ok(())
}

/// The name of a column, in its middle.
fn column_name(names: &[&str], x: f64) -> String {
    let named = names.iter().zip(0_u32..);
    let middle = |column: u32| f64::from(column) + 0.5;
    named
        .filter(|(_, column)| (x - middle(*column)).abs() < 0.01)
        .map(|(name, _)| (*name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_the_tools_and_the_tenants() {
        let tenant = |percent: u64| Tenant {
            what: "tenant".to_owned(),
            by_dlpm_ns: 1_000 + percent,
            by_kernel_ns: 1_000,
            by_psutil_ns: Some(10),
            by_scanner_ns: None,
            account: None,
        };
        let run = Accuracy {
            tenants: vec![tenant(1), tenant(2)],
            stolen_ns: 0,
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plot.svg");
        write(&path, &["one", "two"], &[run.clone(), run]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["psutil, once a second", "dlpm", "one", "two"] {
            assert!(text.contains(word), "no {word} in {text}");
        }
    }
}
