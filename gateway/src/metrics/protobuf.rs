//! Prometheus' protobuf exposition format, for scrapers that take native histograms.
//!
//! The messages are the parts that we fill of `io.prometheus.client` (`metrics.proto` of
//! prometheus/client_model), written by hand so that a build needs no protobuf compiler.

use metrics::Label;
use prost::Message;

use super::exposition::{Family, Kind, Value};
use super::histogram::{Buckets, Snapshot};
use super::native::ZERO_THRESHOLD;

#[derive(Message)]
pub(super) struct MetricFamily {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(enumeration = "MetricType", tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    pub(super) metric: Vec<Metric>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum MetricType {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

#[derive(Message)]
pub(super) struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    pub(super) histogram: Option<HistogramMessage>,
}

#[derive(Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// `Gauge` and `Counter` alike. A zero is sent too: the field must be there.
#[derive(Message)]
struct Number {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Message)]
pub(super) struct HistogramMessage {
    #[prost(uint64, optional, tag = "1")]
    pub(super) sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub(super) bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    pub(super) schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    pub(super) zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    pub(super) positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    pub(super) positive_delta: Vec<i64>,
}

#[derive(Message)]
pub(super) struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
}

#[derive(Message)]
pub(super) struct BucketSpan {
    #[prost(sint32, optional, tag = "1")]
    pub(super) offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    pub(super) length: Option<u32>,
}

/// Appends a family.
pub(super) fn write(out: &mut Vec<u8>, name: String, family: Family) {
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let message = MetricFamily {
        name,
        help: family.help,
        kind: kind.into(),
        metric: family
            .series
            .iter()
            .map(|(labels, value)| metric(kind, labels, value))
            .collect(),
    };
    out.extend_from_slice(&message.encode_length_delimited_to_vec());
}

fn metric(kind: MetricType, labels: &[Label], value: &Value) -> Metric {
    let mut metric = Metric {
        label: labels
            .iter()
            .map(|label| LabelPair {
                name: label.key().to_owned(),
                value: label.value().to_owned(),
            })
            .collect(),
        ..Metric::default()
    };
    match value {
        Value::Histogram(buckets, held) => metric.histogram = Some(histogram(buckets, held)),
        Value::Number(value) => {
            let number = Some(Number {
                value: Some(*value),
            });
            match kind {
                MetricType::Counter => metric.counter = number,
                _ => metric.gauge = number,
            }
        }
    }
    metric
}

fn histogram(buckets: &Buckets, held: &Snapshot) -> HistogramMessage {
    let native = &held.native;
    let bucket = held
        .cumulative
        .iter()
        .zip(&buckets.uppers)
        .map(|(count, upper)| Bucket {
            cumulative_count: Some(*count),
            upper_bound: Some(*upper),
        })
        .collect();
    HistogramMessage {
        sample_count: Some(native.count),
        sample_sum: Some(held.sum),
        bucket,
        schema: Some(buckets.schema.number().into()),
        zero_threshold: Some(ZERO_THRESHOLD),
        zero_count: Some(native.zero),
        positive_span: native
            .spans
            .iter()
            .map(|(offset, length)| BucketSpan {
                offset: Some(*offset),
                length: Some(*length),
            })
            .collect(),
        positive_delta: native.deltas.clone(),
    }
}
