#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use metrics::{HistogramFn as _, Label};
use proptest::prelude::*;
use prost::Message as _;
use sluice_engine::request::{FinishReason, Usage};

use super::exposition::{Family, Kind, Value};
use super::histogram::Histogram;
use super::window::{Sample, Window};
use super::*;
use crate::context::{Fault, Outcome};
use crate::endpoint::Resolved;
use crate::router::RouteTable;

fn record(series: &Series, status: u16, fault: Option<Fault>, outcome: &Outcome) {
    let completed = Completed {
        endpoint: Resolved::of("/v1/chat/completions").endpoint,
        status,
        total: Duration::from_millis(300),
        fault,
    };
    series.record(&completed, outcome);
}

#[test]
fn a_generation_shows_under_vllms_names() {
    let metrics = Metrics::new(&MetricsConfig::default());
    let series = metrics.series("chat", "v\"1");
    let outcome = Outcome::new(Instant::now());
    outcome.add_usage(Usage {
        prompt: 20,
        cached: 0,
        completion: 5,
    });
    outcome.set_finish(FinishReason::Length);
    outcome.token();
    record(&series, 200, None, &outcome);
    let text = metrics.render(&RouteTable::default());
    let labels = r#"model_name="chat",deployment="chat",revision="v\"1""#;
    for line in [
        format!("vllm:request_success_total{{{labels},finished_reason=\"length\"}} 1"),
        format!("vllm:prompt_tokens_total{{{labels}}} 20"),
        format!("vllm:generation_tokens_total{{{labels}}} 5"),
        format!("vllm:e2e_request_latency_seconds_bucket{{{labels},le=\"0.25\"}} 0"),
        format!("vllm:e2e_request_latency_seconds_bucket{{{labels},le=\"0.3\"}} 1"),
        format!("vllm:e2e_request_latency_seconds_bucket{{{labels},le=\"+Inf\"}} 1"),
        format!("vllm:e2e_request_latency_seconds_sum{{{labels}}} 0.3"),
        format!("vllm:time_to_first_token_seconds_count{{{labels}}} 1"),
        r#"sluice_requests_total{deployment="chat",revision="v\"1",route="chat",status="200"} 1"#
            .to_owned(),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn faults_are_told_apart() {
    let metrics = Metrics::new(&MetricsConfig::default());
    let series = metrics.series("m", "1");
    let outcome = Outcome::new(Instant::now());
    for (status, fault) in [
        (400, Fault::Client),
        (499, Fault::Cancelled),
        (500, Fault::Server),
        (500, Fault::Server),
    ] {
        record(&series, status, Some(fault), &outcome);
    }
    let text = metrics.render(&RouteTable::default());
    for (fault, count) in [("client", 1), ("cancelled", 1), ("server", 2)] {
        let line = format!(
            "sluice_request_faults_total{{deployment=\"m\",revision=\"1\",fault=\"{fault}\"}} {count}"
        );
        assert!(text.contains(&line), "{text}");
    }
    let line =
        "sluice_requests_total{deployment=\"m\",revision=\"1\",route=\"chat\",status=\"500\"} 2";
    assert!(text.lines().any(|each| each == line), "{text}");
}

#[test]
fn every_line_is_well_formed_and_every_family_is_declared_once() {
    let metrics = Metrics::new(&MetricsConfig::default());
    record(
        &metrics.series("m", "1"),
        200,
        None,
        &Outcome::new(Instant::now()),
    );
    let text = metrics.render(&RouteTable::default());
    let mut families = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            assert!(
                families.insert(declared.split(' ').next().unwrap().to_owned()),
                "{line}"
            );
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let name = series.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name);
            assert!(
                families.contains(family) || families.contains(name),
                "{line}"
            );
        }
    }
}

#[test]
fn series_of_retired_revisions_are_forgotten() {
    let metrics = Metrics::new(&MetricsConfig::default());
    let kept = metrics.series("m", "2");
    drop(metrics.series("m", "1"));
    metrics.retire(&RouteTable::default());
    let text = metrics.render(&RouteTable::default());
    assert!(text.contains(r#"revision="2""#), "{text}");
    assert!(!text.contains(r#"revision="1""#), "{text}");
    // What belongs to no revision stays.
    assert!(text.contains("sluice_shed_total{"), "{text}");
    drop(kept);
}

#[test]
fn two_hundred_deployments_render_without_bloat() {
    let metrics = Metrics::new(&MetricsConfig::default());
    for index in 0..200 {
        record(
            &metrics.series(&format!("m{index}"), "1"),
            200,
            None,
            &Outcome::new(Instant::now()),
        );
    }
    let text = metrics.render(&RouteTable::default());
    // Histograms that nothing was recorded in are left out.
    assert!(text.len() < 4 << 20, "{} bytes", text.len());
}

fn sample(ms: u64) -> Sample {
    Sample {
        total: Duration::from_millis(ms),
        ttft: None,
        prompt_tokens: 1,
        completion_tokens: 2,
        failed: false,
    }
}

#[test]
fn a_window_forgets_what_is_older_than_it() {
    let mut window = Window::default();
    let at = Duration::from_secs;
    window.add(at(0), &sample(1000));
    for second in 100..160 {
        window.add(at(second), &sample(10));
    }
    let minute = window.summary(at(160), at(60));
    assert!(
        (minute.requests_per_second - 1.0).abs() < 0.01,
        "{minute:?}"
    );
    assert!(minute.latency_ms.unwrap().p99 < 11.0);
    let five = window.summary(at(160), at(300));
    assert!(five.latency_ms.unwrap().p99 > 900.0 || five.requests_per_second > 0.3);
    let later = window.summary(at(1000), at(300));
    assert_eq!((later.requests_per_second, later.latency_ms), (0.0, None));
}

proptest! {
    /// Each quantile is within 1 % of the sample of that rank.
    #[test]
    fn quantiles_are_true(mut values in proptest::collection::vec(10_u64..600_000_000, 100..500)) {
        let mut window = Window::default();
        for micros in &values {
            window.add(Duration::ZERO, &Sample { total: Duration::from_micros(*micros), ..sample(0) });
        }
        values.sort_unstable();
        let quantiles = window.summary(Duration::ZERO, Duration::from_secs(60)).latency_ms.unwrap();
        for (q, found) in [(0.5, quantiles.p50), (0.9, quantiles.p90), (0.99, quantiles.p99)] {
            let rank = (q * (values.len() - 1) as f64) as usize;
            let near = |rank: usize| {
                let exact = values[rank] as f64 / 1e3;
                (found - exact).abs() <= exact * 0.0101
            };
            prop_assert!(near(rank) || near((rank + 1).min(values.len() - 1)), "{q}: {found}");
        }
    }

    #[test]
    fn a_histogram_counts_each_value_once(values in proptest::collection::vec(0_u64..2_000_000_000, 1..200)) {
        let buckets = Buckets::seconds(&[0.1, 0.5, 1.0], 7);
        let histogram = Histogram::new(&buckets);
        for value in &values {
            histogram.record(*value as f64 / 1e9);
        }
        let count = values.len() as u64;
        let held = histogram.snapshot().unwrap();
        prop_assert_eq!(held.native.count, count);
        let family = Family {
            kind: Kind::Histogram,
            help: "Help.".to_owned(),
            series: vec![(vec![Label::new("a", "1")], Value::Histogram(buckets, held))],
        };
        let mut text = String::new();
        text::write(&mut text, "h", &family);
        let within = values.iter().filter(|value| **value <= 500_000_000).count();
        let line = format!("h_bucket{{a=\"1\",le=\"0.5\"}} {within}");
        prop_assert!(text.contains(&line), "{text}");
    }

    /// Whatever the resolution, and however many bounds share an exponential bucket.
    #[test]
    fn classic_buckets_are_exact(
        schema in 0_u8..=8,
        mut bounds in proptest::collection::btree_set(0_u64..300, 1..20),
        values in proptest::collection::vec(0_u64..300, 1..200),
    ) {
        bounds.insert(1);
        let uppers: Vec<f64> = bounds.iter().map(|bound| *bound as f64).collect();
        let histogram = Histogram::new(&Buckets::counts(&uppers, schema));
        for value in &values {
            histogram.record(*value as f64);
        }
        let held = histogram.snapshot().unwrap();
        for (bound, found) in bounds.iter().zip(held.cumulative) {
            let within = values.iter().filter(|value| *value <= bound).count();
            prop_assert_eq!(found, within as u64, "{}", bound);
        }
    }

    /// Read as Prometheus reads it, each value lies in a bucket whose bounds are within 0.55 %.
    #[test]
    fn native_buckets_hold_their_values(
        mut values in proptest::collection::vec((-16.6_f64..9.3).prop_map(f64::exp2), 1..100),
    ) {
        let histogram = Histogram::new(&Buckets::seconds(&[1.0], 7));
        for value in &values {
            histogram.record(*value);
        }
        values.sort_by(f64::total_cmp);
        let uppers = uppers(&histogram.snapshot().unwrap().native);
        prop_assert_eq!(uppers.len(), values.len());
        for (value, upper) in values.iter().zip(uppers) {
            let rounding = 1e-12;
            prop_assert!(*value <= upper * (1.0 + rounding), "{value} in {upper}");
            prop_assert!(upper <= *value * (1.0055 + rounding), "{value} in {upper}");
        }
    }
}

/// The upper bound of each value's bucket, ascending, at schema 7.
fn uppers(native: &super::native::Snapshot) -> Vec<f64> {
    let (mut index, mut count, mut uppers) = (0, 0, Vec::new());
    let mut deltas = native.deltas.iter();
    for (offset, length) in &native.spans {
        index += offset;
        for _ in 0..*length {
            count += deltas.next().unwrap();
            let upper = (f64::from(index) / 128.0).exp2();
            uppers.extend(std::iter::repeat_n(upper, usize::try_from(count).unwrap()));
            index += 1;
        }
    }
    assert_eq!(deltas.next(), None);
    uppers
}

#[test]
fn powers_of_two_are_upper_bounds_of_native_buckets() {
    let histogram = Histogram::new(&Buckets::counts(&[1.0], 7));
    for value in [0.0, 1.0, 1.000_001, 2.0, f64::INFINITY, f64::NAN] {
        histogram.record(value);
    }
    let native = histogram.snapshot().unwrap().native;
    assert_eq!((native.count, native.zero), (5, 1));
    // Buckets 0 and 1 at 1, 128 at 2, and the last at 2²⁰.
    assert_eq!(native.spans, [(0, 2), (126, 1), (20 * 128 - 129, 1)]);
    assert_eq!(native.deltas, [1, 0, 0, 0]);
}

#[test]
fn protobuf_holds_native_and_classic_buckets() {
    let metrics = Metrics::new(&MetricsConfig::default());
    let series = metrics.series("m", "1");
    record(&series, 200, None, &Outcome::new(Instant::now()));
    let bytes = metrics.expose(&RouteTable::default(), Format::Protobuf);
    let mut rest = &bytes[..];
    let mut found = None;
    while !rest.is_empty() {
        let family = protobuf::MetricFamily::decode_length_delimited(&mut rest).unwrap();
        if family.name == "sluice_request_duration_seconds" {
            found = family.metric.into_iter().next().unwrap().histogram;
        }
    }
    let histogram = found.unwrap();
    assert_eq!(
        (histogram.sample_count, histogram.sample_sum),
        (Some(1), Some(0.3))
    );
    assert_eq!((histogram.schema, histogram.zero_count), (Some(7), Some(0)));
    assert_eq!(histogram.positive_delta, [1]);
    assert_eq!(
        histogram.bucket.len(),
        MetricsConfig::default().buckets.len()
    );
}

#[test]
fn the_format_follows_accept() {
    const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let negotiate = |accept: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert(http::header::ACCEPT, accept.parse().unwrap());
        Format::negotiate(&headers)
    };
    assert_eq!(Format::negotiate(&http::HeaderMap::new()), Format::Text);
    assert_eq!(negotiate("*/*"), Format::Text);
    // What Prometheus sends with and without native histograms.
    let text =
        "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(negotiate(text), Format::Text);
    assert_eq!(negotiate(&format!("{PROTOBUF},{text}")), Format::Protobuf);
    assert_eq!(negotiate(&format!("{PROTOBUF};q=0.3,{text}")), Format::Text);
    assert_eq!(negotiate(&format!("{PROTOBUF};q=0")), Format::Text);
    assert_eq!(negotiate("application/vnd.google.protobuf"), Format::Text);
}

/// The exporter of the same authors, given the same samples, says the same.
#[test]
fn text_is_that_of_the_exporter_crate() {
    let config = MetricsConfig::default();
    let metrics = Metrics::new(&config);
    let peer = metrics_exporter_prometheus::PrometheusBuilder::new()
        .set_buckets(&config.buckets)
        .unwrap()
        .build_recorder();
    let handle = peer.handle();
    for series in [
        metrics.series("m", "1"),
        Arc::new(Series::new(Arc::new(peer), "m", "1")),
    ] {
        for (status, fault) in [(200, None), (429, Some(Fault::Client))] {
            record(&series, status, fault, &Outcome::new(Instant::now()));
        }
    }
    let lines = |text: &str| -> std::collections::BTreeSet<String> {
        text.lines()
            .filter(|line| line.contains("sluice_request"))
            // Those of requests without a deployment, and the time this test took.
            .filter(|line| !line.contains(r#"deployment="""#) && !line.contains("overhead"))
            .map(str::to_owned)
            .collect()
    };
    let ours = lines(&metrics.render(&RouteTable::default()));
    assert!(ours.len() > config.buckets.len());
    assert_eq!(ours, lines(&handle.render()));
}
