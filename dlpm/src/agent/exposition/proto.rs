//! The messages of OTLP that a push of metrics has: those fields that dlpm writes or reads, with the numbers of
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/v1.10.0/opentelemetry/proto/metrics/v1/metrics.proto> and
//! what that file includes.
//!
//! The crate `opentelemetry-proto` has all of them, and brings the SDK of OpenTelemetry along.

use prost::{Message, Oneof};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: a sum since the start time of its data point.
pub const CUMULATIVE: i32 = 2;

/// `ExportMetricsServiceRequest`: the body of a push.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// One for each source of metrics.
    #[prost(message, repeated, tag = "1")]
    pub resource_metrics: Vec<ResourceMetrics>,
}

/// Metrics of one source.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceMetrics {
    /// The source.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// By what made them.
    #[prost(message, repeated, tag = "2")]
    pub scope_metrics: Vec<ScopeMetrics>,
}

/// A source of metrics.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// What identifies it.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// Metrics of one program.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeMetrics {
    /// The program.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// What it counted.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
}

/// `InstrumentationScope`: a program.
#[derive(Clone, PartialEq, Message)]
pub struct Scope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// A family of series.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it is.
    #[prost(string, tag = "2")]
    pub description: String,
    /// Its unit by the Unified Code for Units of Measure.
    #[prost(string, tag = "3")]
    pub unit: String,
    /// Its series.
    #[prost(oneof = "Data", tags = "5, 7")]
    pub data: Option<Data>,
}

/// What a family of series is.
#[derive(Clone, PartialEq, Oneof)]
pub enum Data {
    /// Values of now.
    #[prost(message, tag = "5")]
    Gauge(Gauge),
    /// Counters.
    #[prost(message, tag = "7")]
    Sum(Sum),
}

/// Values of now.
#[derive(Clone, PartialEq, Message)]
pub struct Gauge {
    /// Each series.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<NumberDataPoint>,
}

/// Counters.
#[derive(Clone, PartialEq, Message)]
pub struct Sum {
    /// Each series.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<NumberDataPoint>,
    /// [`CUMULATIVE`].
    #[prost(int32, tag = "2")]
    pub aggregation_temporality: i32,
    /// Whether they never fall.
    #[prost(bool, tag = "3")]
    pub is_monotonic: bool,
}

/// The value of a series.
#[derive(Clone, PartialEq, Message)]
pub struct NumberDataPoint {
    /// When a sum was 0: ns since 1970; 0 if that is not known.
    #[prost(fixed64, tag = "2")]
    pub start_time_unix_nano: u64,
    /// When it had the value: ns since 1970.
    #[prost(fixed64, tag = "3")]
    pub time_unix_nano: u64,
    /// Its labels.
    #[prost(message, repeated, tag = "7")]
    pub attributes: Vec<KeyValue>,
    /// The value.
    #[prost(oneof = "Number", tags = "4, 6")]
    pub value: Option<Number>,
}

/// A value.
#[derive(Clone, Copy, PartialEq, Oneof)]
pub enum Number {
    /// A floating-point number.
    #[prost(double, tag = "4")]
    AsDouble(f64),
    /// A whole number.
    #[prost(sfixed64, tag = "6")]
    AsInt(i64),
}

/// A label.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// What it says.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// What a label says.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// In dlpm always a text.
    #[prost(oneof = "Any", tags = "1")]
    pub value: Option<Any>,
}

/// A value of a label.
#[derive(Clone, PartialEq, Oneof)]
pub enum Any {
    /// A text.
    #[prost(string, tag = "1")]
    Text(String),
}

impl KeyValue {
    /// A label with this text.
    pub fn text(key: &str, value: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            value: Some(AnyValue {
                value: Some(Any::Text(value.into())),
            }),
        }
    }
}

/// `ExportMetricsServiceResponse`: what a collector answers.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// What it did not take.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// What a collector did not take.
#[derive(Clone, PartialEq, Message)]
pub struct PartialSuccess {
    /// How many data points; with 0 the text is only a warning.
    #[prost(int64, tag = "1")]
    pub rejected_data_points: i64,
    /// Why not.
    #[prost(string, tag = "2")]
    pub error_message: String,
}
