//! A page as a request of OTLP (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! Names of metrics and labels are those of the text formats, with their suffixes: what turns OTLP into series of
//! Prometheus neither adds a unit nor `_total` where a name has it.
//!
//! A snapshot may have a hundred thousand series, so no message of all of them is built in memory. Protobuf makes that
//! easy: bytes of a message followed by more bytes of it are a message that has the fields of both
//! (<https://protobuf.dev/programming-guides/encoding/#last-one-wins>). So the labels are encoded once, as data points
//! that have nothing else, and each series is the bytes of its labels and then those of its value.

use prost::Message;

use super::{
    page::{Family, Labels, Type, Value},
    proto::{CUMULATIVE, KeyValue, Metric, Number, NumberDataPoint, Resource, Scope, Sum},
};
use crate::agent::facts::Snapshot;

/// The numbers of those fields whose messages are put together here.
mod field {
    pub(super) const RESOURCE_METRICS: u8 = 1;
    pub(super) const RESOURCE: u8 = 1;
    pub(super) const SCOPE_METRICS: u8 = 2;
    pub(super) const SCOPE: u8 = 1;
    pub(super) const METRICS: u8 = 2;
    pub(super) const GAUGE: u8 = 5;
    pub(super) const SUM: u8 = 7;
    pub(super) const DATA_POINTS: u8 = 1;
}

/// A request that grows.
#[derive(Debug)]
pub(super) struct Writer {
    resource: Resource,
    scope: Scope,
    /// When the counters were 0, and the time of all values: ns since 1970.
    begun_unix_ns: i64,
    time_unix_ns: i64,
    /// The family that is being written, and its data points.
    family: Option<Family>,
    points: Vec<u8>,
    /// One series.
    point: Vec<u8>,
    /// Families that are complete.
    metrics: Vec<u8>,
}

impl Writer {
    pub(super) fn new(snapshot: &Snapshot, version: &str, capacity: usize) -> Self {
        let host = &snapshot.facts.host_name;
        // The two with `service` become `job` and `instance` in Prometheus, so nodes differ there as well.
        let attributes = [
            ("service.name", "dlpm"),
            ("service.version", version),
            ("service.instance.id", host),
            ("host.name", host),
        ];
        Self {
            resource: Resource {
                attributes: attributes
                    .map(|(key, value)| KeyValue::text(key, printable(value)))
                    .into(),
            },
            scope: Scope {
                name: "dlpm".to_owned(),
                version: version.to_owned(),
            },
            begun_unix_ns: snapshot.counters.begun_unix_ns,
            time_unix_ns: snapshot.counters.end_unix_ns,
            family: None,
            points: Vec::new(),
            point: Vec::new(),
            metrics: Vec::with_capacity(capacity),
        }
    }

    /// Begins a family; since when its series count if nothing else is said.
    pub(super) fn family(&mut self, family: Family) -> i64 {
        self.close();
        self.family = Some(family);
        self.begun_unix_ns
    }

    pub(super) fn put(&mut self, labels: &[&Labels], value: Value, since_unix_ns: i64) {
        self.point.clear();
        for label in labels {
            self.point.extend_from_slice(&label.0);
        }
        let is_sum = self.family.is_some_and(|family| family.kind == Type::Counter);
        // After a step of the clock it may have gone back beyond the beginning.
        let since_unix_ns = since_unix_ns.max(self.begun_unix_ns).min(self.time_unix_ns);
        let point = NumberDataPoint {
            start_time_unix_nano: if is_sum { unsigned(since_unix_ns) } else { 0 },
            time_unix_nano: unsigned(self.time_unix_ns),
            attributes: Vec::new(),
            value: Some(number(value)),
        };
        self.point.extend_from_slice(&point.encode_to_vec());
        field(&mut self.points, field::DATA_POINTS, &self.point);
    }

    /// Ends the family. One without series is left out.
    fn close(&mut self) {
        let Some(family) = self.family.take().filter(|_| !self.points.is_empty()) else {
            return;
        };
        let metric = Metric {
            name: format!("{}{}", family.name, family.kind.suffix()),
            description: family.help.to_owned(),
            unit: match family.unit {
                Some("joules") => "J",
                Some("seconds") => "s",
                other => other.unwrap_or_default(),
            }
            .to_owned(),
            data: None,
        };
        let mut metric = metric.encode_to_vec();
        if family.kind == Type::Counter {
            let sum = Sum {
                data_points: Vec::new(),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            };
            let sum = [sum.encode_to_vec(), std::mem::take(&mut self.points)].concat();
            field(&mut metric, field::SUM, &sum);
        } else {
            field(&mut metric, field::GAUGE, &std::mem::take(&mut self.points));
        }
        field(&mut self.metrics, field::METRICS, &metric);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.close();
        let mut scope_metrics = Vec::with_capacity(self.metrics.len() + 64);
        field(&mut scope_metrics, field::SCOPE, &self.scope.encode_to_vec());
        scope_metrics.append(&mut self.metrics);
        let mut resource_metrics = Vec::with_capacity(scope_metrics.len() + 512);
        field(&mut resource_metrics, field::RESOURCE, &self.resource.encode_to_vec());
        field(&mut resource_metrics, field::SCOPE_METRICS, &scope_metrics);
        drop(scope_metrics);
        let mut request = Vec::with_capacity(resource_metrics.len() + 16);
        field(&mut request, field::RESOURCE_METRICS, &resource_metrics);
        request
    }
}

/// Adds a label to those of a data point.
pub(super) fn label(point: &mut Vec<u8>, name: &'static str, value: &str) {
    let labelled = NumberDataPoint {
        attributes: vec![KeyValue::text(name, printable(value))],
        ..NumberDataPoint::default()
    };
    point.extend_from_slice(&labelled.encode_to_vec());
}

/// The text formats escape a line break; here it may stay.
fn printable(value: &str) -> String {
    let shown = |character| match character {
        '\n' => character,
        character if crate::printable::is_printable(character) => character,
        _ => '?',
    };
    value.chars().map(shown).collect()
}

/// Writes a field whose value is a message: `number` is below 16.
fn field(bytes: &mut Vec<u8>, number: u8, message: &[u8]) {
    /// `LEN` of Protobuf: a length comes before the value.
    const LENGTH_DELIMITED: u8 = 2;
    bytes.push(number << 3 | LENGTH_DELIMITED);
    // The room of a vector grows.
    let _ = prost::encode_length_delimiter(message.len(), bytes);
    bytes.extend_from_slice(message);
}

/// The nearest floating-point number of what the text formats write; what counts things stays whole.
fn number(value: Value) -> Number {
    if let Value::Count(count) = value
        && let Ok(count) = i64::try_from(count)
    {
        return Number::AsInt(count);
    }
    let mut text = Vec::new();
    value.write(&mut text);
    let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
    // A decimal is a number.
    Number::AsDouble(number.unwrap_or(f64::NAN))
}

fn unsigned(unix_ns: i64) -> u64 {
    u64::try_from(unix_ns).unwrap_or(0)
}
