//! The curves of the page.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{consumers::Areas, survey::Survey};
use crate::{
    aipowermeter::fields::{FIELDS, Unit},
    attribution::ledger::Ledger,
    interval::ZoneKind,
    log::window::Window,
    plot::{
        bands::Bands,
        bins::{Series, TimeBins},
        chart::{self, Chart, Curve, ValueAxis},
        figure::most_bins,
        metrics::{Metric, Source},
        palette,
        scan::{Sample, scan},
        timeline::Span,
    },
    totals::ZoneTotal,
};

/// Width and height of a chart, in pixels of its own; the page scales it.
const SIZE: (u32, u32) = (1100, 330);

/// Significant digits in the readout.
const DIGITS: i32 = 5;

/// A chart with what the page needs beside it.
#[derive(Clone, Debug)]
pub struct Figure {
    /// For links and tests.
    pub id: &'static str,
    /// Heading.
    pub title: &'static str,
    /// A sentence below it.
    pub note: &'static str,
    /// The drawing.
    pub svg: String,
    /// Labels with their colours, in the order of the legend.
    pub legend: Vec<(String, String)>,
    /// The same of phases, with whether their bands have room for their labels, on a wide screen.
    pub phases: Vec<(String, String, bool)>,
    /// What the readout shows.
    pub data: Value,
}

/// Curves of one chart while they are read.
struct Group {
    id: &'static str,
    title: &'static str,
    note: &'static str,
    axis: ValueAxis,
    stacked: bool,
    curves: Vec<(Reading, Curve)>,
}

/// Where the values of a curve come from.
enum Reading {
    /// A zone.
    Zone(Metric),
    /// A field of AIPowerMeter.
    Field(Metric),
    /// An area of the stack with this index: by process (0) or by cgroup (1).
    Area(usize, usize),
}

/// Reads the curves.
///
/// # Errors
///
/// If the log cannot be read.
pub fn read(folder: &Path, window: &Window, survey: &Survey, wanted: Span) -> Result<Vec<Figure>> {
    let time = TimeBins::new(wanted.end_ns - wanted.begin_ns, most_bins(SIZE.0));
    let stacks: Vec<Areas> = match survey.collected.totals.intervals {
        0 => Vec::new(),
        _ => std::iter::once(Areas::of_processes(survey))
            .chain(Areas::of_cgroups(survey))
            .collect(),
    };
    let mut groups = groups(survey, time, &stacks);
    let by_energy = survey.by_energy();
    let needs_fields = groups
        .iter()
        .flat_map(|group| &group.curves)
        .any(|(reading, _)| matches!(reading, Reading::Field(_)));
    scan(folder, window, survey.scanned.lines, |sample, span| {
        let (begin_ns, end_ns) = (span.begin_ns - wanted.begin_ns, span.end_ns - wanted.begin_ns);
        let mut add = |value_of: &dyn Fn(&Reading) -> Option<f64>| {
            for (reading, curve) in groups.iter_mut().flat_map(|group| &mut group.curves) {
                if let Some(value) = value_of(reading) {
                    curve.series.add(begin_ns, end_ns, value);
                }
            }
        };
        match sample {
            Sample::Exact(ledger, _) => {
                let areas: Vec<Vec<f64>> = stacks.iter().map(|areas| rates(areas, ledger, by_energy)).collect();
                add(&|reading| match reading {
                    Reading::Zone(metric) => metric.value(ledger, &Value::Null),
                    Reading::Area(stack, area) => areas.get(*stack)?.get(*area).copied(),
                    Reading::Field(_) => None,
                });
            }
            Sample::Foreign(raw) if needs_fields => {
                let metrics = serde_json::from_str(raw.get()).unwrap_or(Value::Null);
                add(&|reading| match reading {
                    Reading::Field(metric) => metric.foreign_value(&metrics),
                    _ => None,
                });
            }
            Sample::Foreign(_) => {}
        }
    })?;
    let bands = bands(survey, wanted);
    groups
        .into_iter()
        .filter_map(|group| draw(group, survey, wanted, &bands).transpose())
        .collect()
}

/// Watts, or CPUs in use, of each area; none of them where no energy is known.
fn rates(areas: &Areas, ledger: &Ledger, by_energy: bool) -> Vec<f64> {
    if by_energy && !ledger.leaves.iter().any(|leaf| leaf.energy_uj.is_ok()) {
        return Vec::new();
    }
    let length_ns = ledger.length_ns() as f64;
    let unit = if by_energy { 1000.0 } else { 1.0 };
    let amounts = areas.amounts(ledger, by_energy);
    amounts
        .into_iter()
        .map(|amount| amount as f64 / length_ns * unit)
        .collect()
}

fn groups(survey: &Survey, time: TimeBins, stacks: &[Areas]) -> Vec<Group> {
    let zones = &survey.collected.totals.zones;
    // Where all are estimates, the first line of the page says so.
    let in_part = !zones.iter().all(ZoneTotal::is_estimate);
    let label =
        |zone: &str, is_estimate: bool| format!("{zone}{}", if is_estimate && in_part { " (estimate)" } else { "" });
    let of_zones = |wanted: &dyn Fn(bool, ZoneKind) -> bool| -> Vec<(Reading, Curve)> {
        let zones = zones.iter().filter(|zone| wanted(zone.leaf, zone.kind));
        let curves = zones.enumerate().map(|(index, zone)| {
            let metric = Metric {
                name: zone.zone.clone(),
                source: Source::Zone(zone.zone.clone()),
            };
            let name = match survey.collected.gpus.totals.get(&zone.zone) {
                Some(gpu) => format!("GPU {} {}", gpu.index, gpu.name),
                None => zone.zone.clone(),
            };
            (
                Reading::Zone(metric),
                curve(label(&name, zone.is_estimate()), palette::series(index), time),
            )
        });
        curves.collect()
    };
    let watts = || ValueAxis::plain(Unit::Watts.title());
    let range =
        "The line is the average of a piece of time, the pale area goes from the lowest to the highest interval in it.";
    let mut groups = Vec::new();
    let (title, axis): (_, fn() -> ValueAxis) = if survey.by_energy() {
        (
            [("who", "Who used the energy"), ("who-by-cgroup", "The same by cgroup")],
            || ValueAxis::plain("power (W)"),
        )
    } else {
        (
            [("who", "Who used the CPUs"), ("who-by-cgroup", "The same by cgroup")],
            || ValueAxis::plain("CPUs in use"),
        )
    };
    for (stack, (areas, (id, title))) in stacks.iter().zip(title).enumerate() {
        let curves = areas.labels.iter().enumerate().map(|(area, name)| {
            let color = match (area, area.checked_sub(areas.chosen_end)) {
                (0, _) => palette::IDLE,
                (_, None) => palette::series(area - 1),
                (_, Some(rest)) => palette::rest(rest),
            };
            (Reading::Area(stack, area), curve(name.clone(), color, time))
        });
        groups.push(Group {
            id,
            title,
            note: "Averages of a piece of time, on top of each other: together they are all that was split.",
            axis: axis(),
            stacked: true,
            curves: curves.collect(),
        });
    }
    groups.extend([
        Group {
            id: "meters",
            title: "Power of the meters",
            note: range,
            axis: watts(),
            stacked: false,
            curves: of_zones(&|leaf, kind| (!leaf && kind != ZoneKind::OneCore) || kind == ZoneKind::Dram),
        },
        Group {
            id: "packages",
            title: "Power inside the packages",
            note: range,
            axis: watts(),
            stacked: false,
            curves: of_zones(&|leaf, kind| {
                leaf && matches!(kind, ZoneKind::Core | ZoneKind::Uncore | ZoneKind::Package)
            }),
        },
        Group {
            id: "gpu-power",
            title: "Power of the GPUs",
            note: range,
            axis: watts(),
            stacked: false,
            curves: of_zones(&|_, kind| kind == ZoneKind::Gpu),
        },
        Group {
            id: "aipowermeter-power",
            title: "Power as AIPowerMeter recorded it",
            note: range,
            axis: watts(),
            stacked: false,
            curves: foreign(survey, time),
        },
    ]);
    groups
}

/// Watts of the machine in a log of AIPowerMeter.
fn foreign(survey: &Survey, time: TimeBins) -> Vec<(Reading, Curve)> {
    let fields = FIELDS
        .iter()
        .filter(|field| field.unit == Unit::Watts && field.keys.is_empty());
    let metrics = fields.filter_map(|field| Metric::parse(field.name).ok());
    let known = metrics.filter(|metric| survey.inventory.has(metric));
    let curves = known.enumerate().map(|(index, metric)| {
        let curve = curve(metric.name.clone(), palette::series(index), time);
        (Reading::Field(metric), curve)
    });
    curves.collect()
}

fn curve(label: String, color: plotters::style::RGBColor, time: TimeBins) -> Curve {
    Curve {
        label,
        color,
        series: Series::new(time),
    }
}

/// The phases, from the begin of what is shown.
fn bands(survey: &Survey, wanted: Span) -> Bands {
    let at = |at_ns: u64| at_ns.clamp(wanted.begin_ns, wanted.end_ns) - wanted.begin_ns;
    let (phases, _) = survey.scanned.timeline.phases();
    Bands::new(
        phases
            .into_iter()
            .map(|(label, begin_ns, end_ns)| (label, at(begin_ns), at(end_ns))),
    )
}

/// `None` without any value.
fn draw(group: Group, survey: &Survey, wanted: Span, bands: &Bands) -> Result<Option<Figure>> {
    let is_something = |series: &Series| match series.extent() {
        Some((low, high)) => !group.stacked || low < high || high > 0.0,
        None => false,
    };
    let curves: Vec<Curve> = group
        .curves
        .into_iter()
        .map(|(_, curve)| curve)
        .filter(|curve| is_something(&curve.series))
        .collect();
    if curves.is_empty() {
        return Ok(None);
    }
    let chart = Chart {
        size: SIZE,
        title: None,
        left: group.axis,
        curves,
        stacked: group.stacked,
        right: None,
        bands: bands.clone(),
        standalone: false,
    };
    let drawing = chart::draw(&chart)?;
    let origin_unix_ns = survey.scanned.timeline.origin_unix_ns().unwrap_or(0);
    let begin_ns = i64::try_from(wanted.begin_ns).unwrap_or(i64::MAX);
    let series: Vec<Value> = chart
        .curves
        .iter()
        .map(|curve| {
            let count = curve.series.time().count();
            let means: Vec<Value> = (0..count).map(|index| number(curve.series.mean(index))).collect();
            let highs = (0..count).map(|index| number(curve.series.range(index).map(|(_, high)| high)));
            let highs: Vec<Value> = if chart.stacked { Vec::new() } else { highs.collect() };
            // A log with at most one interval in a bin has no peaks beside the averages.
            if highs == means || highs.is_empty() {
                json!({"mean": means})
            } else {
                json!({"mean": means, "high": highs})
            }
        })
        .collect();
    let phases = bands
        .bands
        .iter()
        .map(|band| json!([band.label, millis(band.begin_ns), millis(band.end_ns)]));
    Ok(Some(Figure {
        id: group.id,
        title: group.title,
        note: group.note,
        svg: drawing.svg,
        legend: chart
            .curves
            .iter()
            .map(|curve| (curve.label.clone(), palette::hex(curve.color)))
            .collect(),
        phases: chart::phases(&chart)
            .into_iter()
            .map(|(label, color, is_labelled)| (label, palette::hex(color), is_labelled))
            .collect(),
        data: json!({
            "x": [drawing.x_range.0, drawing.x_range.1],
            "length_ms": millis(wanted.end_ns - wanted.begin_ns),
            "begin_unix_ms": origin_unix_ns.saturating_add(begin_ns) / 1_000_000,
            "unit": if chart.left.title == "CPUs in use" { "CPUs" } else { "W" },
            "stacked": chart.stacked,
            "series": series,
            "phases": phases.collect::<Vec<_>>(),
        }),
    }))
}

fn millis(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// With few digits: the page stays small.
fn number(value: Option<f64>) -> Value {
    let Some(value) = value else { return Value::Null };
    if value == 0.0 {
        return 0.into();
    }
    let magnitude = 10f64.powi(DIGITS - 1 - crate::plot::axis::nearest(value.abs().log10().floor()));
    let rounded = (value * magnitude).round() / magnitude;
    match serde_json::Number::from_f64(rounded) {
        Some(number) => Value::Number(number),
        None => Value::Null,
    }
}
