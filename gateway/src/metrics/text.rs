//! Prometheus' text exposition format, version 0.0.4.

use std::fmt::Write as _;

use metrics::Label;

use super::exposition::{Family, Kind, Value};
use super::histogram::Snapshot;

/// Appends a family.
pub(super) fn write(out: &mut String, name: &str, family: &Family) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    // Our own words, in which nothing needs escaping.
    _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
    for (labels, value) in &family.series {
        let labels = join(labels);
        match value {
            Value::Number(value) if labels.is_empty() => _ = writeln!(out, "{name} {value}"),
            Value::Number(value) => _ = writeln!(out, "{name}{{{labels}}} {value}"),
            Value::Histogram(shape, held) => buckets(out, name, &labels, &shape.labels, held),
        }
    }
}

/// The `_bucket`, `_sum` and `_count` lines of one histogram. Most of an answer is made
/// of these, so their parts are copied rather than formatted.
fn buckets(out: &mut String, name: &str, labels: &str, bounds: &[String], held: &Snapshot) {
    let comma = if labels.is_empty() { "" } else { "," };
    let start = format!("{name}_bucket{{{labels}{comma}le=\"");
    let count = held.native.count;
    let cumulative = held.cumulative.iter().chain([&count]);
    let infinity = ["+Inf".to_owned()];
    let (mut shown, mut digits) = (0, String::from("0"));
    for (cumulative, bound) in cumulative.zip(bounds.iter().chain(&infinity)) {
        if *cumulative != shown {
            (shown, digits) = (*cumulative, cumulative.to_string());
        }
        for part in [&start, bound, "\"} ", &digits, "\n"] {
            out.push_str(part);
        }
    }
    let sum = held.sum;
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
