//! Prometheus' text exposition format, version 0.0.4.

use std::fmt::Write as _;

use metrics::Label;
use metrics_exporter_prometheus::formatting::{write_help_line, write_type_line};

use super::exposition::{Family, Kind, Value};
use super::histogram::Histogram;

/// Appends a family.
pub(super) fn write(out: &mut String, name: &str, family: &Family) {
    write_help_line(out, name, None, None, &family.help);
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    write_type_line(out, name, None, None, kind);
    for (labels, value) in &family.series {
        let labels = join(labels);
        match value {
            Value::Number(value) if labels.is_empty() => _ = writeln!(out, "{name} {value}"),
            Value::Number(value) => _ = writeln!(out, "{name}{{{labels}}} {value}"),
            Value::Histogram(histogram) => buckets(out, name, &labels, histogram),
        }
    }
}

/// The `_bucket`, `_sum` and `_count` lines of one histogram. Most of an answer is made
/// of these, so their parts are copied rather than formatted.
fn buckets(out: &mut String, name: &str, labels: &str, histogram: &Histogram) {
    let comma = if labels.is_empty() { "" } else { "," };
    let start = format!("{name}_bucket{{{labels}{comma}le=\"");
    let infinity = ["+Inf".to_owned()];
    let bounds = histogram.buckets.labels.iter().chain(&infinity);
    let (mut count, mut digits) = (0, String::from("0"));
    for (cumulative, bound) in histogram.cumulative().zip(bounds) {
        if cumulative != count {
            (count, digits) = (cumulative, cumulative.to_string());
        }
        for part in [&start, bound, "\"} ", &digits, "\n"] {
            out.push_str(part);
        }
    }
    // The count is that of the last bucket, so the two never disagree.
    let sum = histogram.sum();
    _ = writeln!(
        out,
        "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}"
    );
}

/// `a="1",b="2"`. Not with the exporter crate's formatting, which drops the backslash of `\"`.
fn join(labels: &[Label]) -> String {
    let mut out = String::with_capacity(96);
    for label in labels {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(label.key());
        out.push_str("=\"");
        for character in label.value().chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    out
}
