//! `dlpm plot`: the metrics that were asked for, as one chart.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

use super::{
    bands::Bands,
    bins::{Series, TimeBins},
    chart::{Chart, Curve, ValueAxis},
    metrics::{Inventory, Metric},
    palette,
    scan::{self, Sample, Scanned},
    timeline::Span,
};
use crate::{aipowermeter::fields::Unit, log::window::Window};

/// Curves that can still be told apart.
const MOST_CURVES: usize = 24;

/// What is to be drawn.
#[derive(Clone, Debug)]
pub struct Request {
    /// The curves.
    pub metrics: Vec<Metric>,
    /// Of which intervals.
    pub window: Window,
    /// Above the chart.
    pub title: Option<String>,
    /// Width and height in pixels.
    pub size: (u32, u32),
}

/// Reads a log (twice: for what there is, and for its values) and makes the chart of it.
///
/// # Errors
///
/// If the log cannot be read, or does not have what is asked for.
pub fn chart(path: &Path, request: &Request) -> Result<Chart> {
    if request.metrics.len() > MOST_CURVES {
        bail!(
            "{} curves are too many to distinguish; draw at most {MOST_CURVES} in one plot",
            request.metrics.len()
        );
    }
    let units = units(&request.metrics)?;
    let (scanned, inventory) = survey(path, &request.window, &request.metrics)?;
    let span = checked(path, request, &scanned, &inventory)?;
    let curves = read(path, request, &scanned, span)?;

    if let Some((metric, _)) = curves.iter().find(|(_, curve)| curve.series.is_empty()) {
        bail!(
            "`{}` has no value there: it was not known in any of these intervals",
            metric.name.escape_debug()
        );
    }
    let offset = |at_ns: u64| at_ns.clamp(span.begin_ns, span.end_ns) - span.begin_ns;
    let (phases, _) = scanned.timeline.phases();
    let bands = phases
        .into_iter()
        .filter(|(label, ..)| request.window.phase.as_ref().is_none_or(|phase| phase == label))
        .map(|(label, begin_ns, end_ns)| (label, offset(begin_ns), offset(end_ns)));
    let mut sides = units.iter().map(|unit| {
        let of_unit = curves.iter().filter(|(metric, _)| metric.unit() == *unit);
        let curves: Vec<Curve> = of_unit.map(|(_, curve)| curve.clone()).collect();
        (axis(*unit, &curves), curves)
    });
    let (left, left_curves) = sides
        .next()
        .ok_or_else(|| anyhow!("there is nothing to draw; name a metric with -m"))?;
    Ok(Chart {
        size: request.size,
        title: request.title.clone(),
        left,
        curves: left_curves,
        stacked: false,
        right: sides.next(),
        bands: Bands::new(bands),
        standalone: true,
    })
}

/// The metrics of a log, a line for each kind.
///
/// # Errors
///
/// If the log cannot be read.
pub fn list(path: &Path) -> Result<Vec<String>> {
    let mut inventory = Inventory::default();
    scan::scan(path, &Window::default(), u64::MAX, |sample, _| {
        inventory.add_sample(&sample)
    })?;
    Ok(inventory.list())
}

/// The units, in the order in which they appear.
fn units(metrics: &[Metric]) -> Result<Vec<Unit>> {
    let mut units: Vec<Unit> = Vec::new();
    for metric in metrics {
        if !units.contains(&metric.unit()) {
            units.push(metric.unit());
        }
    }
    if units.len() > 2 {
        let all: Vec<&str> = units.iter().map(|unit| unit.title()).collect();
        bail!(
            "a plot has two axes, but these metrics have {} units ({}); draw them in several plots",
            all.len(),
            all.join(", ")
        );
    }
    Ok(units)
}

/// First reading. Fields of a line are parsed only if one of them is asked for, or until it is known that all metrics are
/// there.
fn survey(path: &Path, window: &Window, metrics: &[Metric]) -> Result<(Scanned, Inventory)> {
    let mut inventory = Inventory::default();
    let mut missing: Vec<&Metric> = metrics.iter().collect();
    let scanned = scan::scan(path, window, u64::MAX, |sample, _| {
        if !missing.is_empty() {
            inventory.add_sample(&sample);
            missing.retain(|metric| !inventory.has(metric));
        }
    })?;
    Ok((scanned, inventory))
}

fn checked(path: &Path, request: &Request, scanned: &Scanned, inventory: &Inventory) -> Result<Span> {
    let Some(span) = scanned.wanted.filter(|span| span.end_ns > span.begin_ns) else {
        if scanned.timeline.origin_unix_ns().is_none() {
            bail!("{} holds no interval yet; trace something first", path.display());
        }
        bail!("{}", scan::nothing(&request.window, &scanned.timeline));
    };
    let missing: Vec<&str> = request
        .metrics
        .iter()
        .filter(|metric| !inventory.has(metric))
        .map(|metric| metric.name.as_str())
        .collect();
    if !missing.is_empty() {
        bail!(
            "this log has no `{}`; it has {}",
            missing.join("`, `").escape_debug(),
            inventory.list().join("; ")
        );
    }
    Ok(span)
}

/// Second reading: the values.
fn read(path: &Path, request: &Request, scanned: &Scanned, wanted: Span) -> Result<Vec<(Metric, Curve)>> {
    let time = TimeBins::new(wanted.end_ns - wanted.begin_ns, most_bins(request.size.0));
    let mut curves: Vec<(&Metric, Series, bool)> = request
        .metrics
        .iter()
        .map(|metric| (metric, Series::new(time), false))
        .collect();
    let needs_fields = request.metrics.iter().any(Metric::is_field);
    scan::scan(path, &request.window, scanned.lines, |sample, span| {
        let fields = |raw: &serde_json::value::RawValue| match needs_fields {
            true => serde_json::from_str(raw.get()).unwrap_or(Value::Null),
            false => Value::Null,
        };
        let metrics = match sample {
            Sample::Exact(_, raw) | Sample::Foreign(raw) => fields(raw),
        };
        for (metric, series, is_estimate) in &mut curves {
            let value = match sample {
                Sample::Exact(ledger, _) => {
                    *is_estimate |= metric.is_estimate(ledger);
                    metric.value(ledger, &metrics)
                }
                Sample::Foreign(_) => metric.foreign_value(&metrics),
            };
            if let Some(value) = value {
                series.add(span.begin_ns - wanted.begin_ns, span.end_ns - wanted.begin_ns, value);
            }
        }
    })?;
    let curves = curves
        .into_iter()
        .enumerate()
        .map(|(index, (metric, series, is_estimate))| {
            let estimate = if is_estimate { " (estimate)" } else { "" };
            let curve = Curve {
                label: format!("{}{estimate}", metric.name),
                color: palette::series(index),
                series,
            };
            (metric.clone(), curve)
        });
    Ok(curves.collect())
}

/// A bin is a little more than a pixel wide.
pub fn most_bins(width: u32) -> usize {
    usize::try_from(width).unwrap_or(usize::MAX).saturating_mul(4) / 5
}

/// Bytes in the unit that makes the largest value readable.
fn axis(unit: Unit, curves: &[Curve]) -> ValueAxis {
    if unit != Unit::Bytes {
        return ValueAxis::plain(unit.title());
    }
    let most = curves
        .iter()
        .filter_map(|curve| curve.series.extent())
        .fold(0.0, |most: f64, (_, high)| most.max(high));
    let (divisor, name) = match most {
        1e12.. => (1e12, "TB"),
        1e9.. => (1e9, "GB"),
        1e6.. => (1e6, "MB"),
        1e3.. => (1e3, "kB"),
        _ => (1.0, "bytes"),
    };
    ValueAxis {
        title: format!("memory ({name})"),
        divisor,
    }
}
