//! One scrape: every family with its series, from whatever knows them, on the way to
//! one of the formats that a scraper can ask for.

use http::{HeaderMap, header};
use indexmap::IndexMap;
use metrics::Label;
use std::sync::Arc;

use super::histogram::{Buckets, Snapshot};
use super::{protobuf, text};

/// How a family is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What a series holds.
#[derive(Debug)]
pub(super) enum Value {
    Number(f64),
    Histogram(Arc<Buckets>, Snapshot),
}

#[derive(Debug)]
pub(super) struct Family {
    pub(super) kind: Kind,
    pub(super) help: String,
    pub(super) series: Vec<(Vec<Label>, Value)>,
}

/// Families by name, in the order in which they were declared.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    families: IndexMap<String, Family>,
}

impl Exposition {
    /// Says what a family is; the first to say so is heard.
    pub(super) fn declare(&mut self, name: &str, kind: Kind, help: &str) {
        if !self.families.contains_key(name) {
            let family = Family {
                kind,
                help: help.to_owned(),
                series: Vec::new(),
            };
            self.families.insert(name.to_owned(), family);
        }
    }

    /// Adds a series to a declared family.
    pub(super) fn push(&mut self, name: &str, labels: Vec<Label>, value: Value) {
        if let Some(family) = self.families.get_mut(name) {
            family.series.push((labels, value));
        }
    }

    /// Leaves out the series whose labels `shown` refuses.
    pub(super) fn retain(&mut self, shown: impl Fn(&[Label]) -> bool) {
        for family in self.families.values_mut() {
            family.series.retain(|(labels, _)| shown(labels));
        }
    }

    /// Families that have series, these in the order of their labels.
    fn sorted(mut self) -> impl Iterator<Item = (String, Family)> {
        for family in self.families.values_mut() {
            family.series.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        self.families
            .into_iter()
            .filter(|(_, family)| !family.series.is_empty())
    }

    pub(super) fn into_text(self) -> String {
        let mut out = String::new();
        for (name, family) in self.sorted() {
            text::write(&mut out, &name, &family);
        }
        out
    }

    pub(super) fn into_protobuf(self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, family) in self.sorted() {
            protobuf::write(&mut out, name, family);
        }
        out
    }
}

/// What `/metrics` answers in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4, with classic buckets.
    Text,
    /// Length-delimited `io.prometheus.client.MetricFamily`, with classic and native buckets.
    Protobuf,
}

impl Format {
    /// Text, unless `Accept` likes protobuf at least as well as any form of text.
    #[must_use]
    pub fn negotiate(headers: &HeaderMap) -> Self {
        let (mut protobuf, mut text) = (0.0_f32, 0.0_f32);
        let ranges = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let (mut quality, mut family, mut delimited) = (1.0_f32, false, false);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                match (key.trim(), value.trim().trim_matches('"')) {
                    ("q", value) => quality = value.parse().unwrap_or(0.0),
                    ("proto", value) => family = value == "io.prometheus.client.MetricFamily",
                    ("encoding", value) => delimited = value == "delimited",
                    _ => {}
                }
            }
            match kind {
                "application/vnd.google.protobuf" if family && delimited => {
                    protobuf = protobuf.max(quality);
                }
                "text/plain" | "text/*" | "*/*" => text = text.max(quality),
                _ => {}
            }
        }
        if protobuf > 0.0 && protobuf >= text {
            Self::Protobuf
        } else {
            Self::Text
        }
    }

    /// The media type of the answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}
