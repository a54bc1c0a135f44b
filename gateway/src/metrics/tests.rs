#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use proptest::prelude::*;
use sluice_engine::request::{FinishReason, Usage};

use super::histogram::Histogram;
use super::window::{Sample, Window};
use super::*;
use crate::context::{Fault, Outcome};
use crate::router::RouteTable;
use crate::stack::Route;

fn record(series: &Series, status: u16, fault: Option<Fault>, outcome: &Outcome) {
    let completed = Completed {
        route: Route::Chat,
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
    assert_eq!(series.requests(500), 2);
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
    let left: Vec<_> = metrics
        .all_series()
        .iter()
        .map(|series| series.revision.clone())
        .collect();
    assert_eq!(left, ["2".into()]);
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
    fn a_histogram_counts_each_value_once(values in proptest::collection::vec(0_u64..2_000_000_000, 0..200)) {
        let histogram = Histogram::new(&Buckets::seconds(&[0.1, 0.5, 1.0]));
        for value in &values {
            histogram.record(*value);
        }
        prop_assert_eq!(histogram.count(), values.len() as u64);
        let mut text = String::new();
        histogram.render(&mut text, "h", "a=\"1\"");
        let within = values.iter().filter(|value| **value <= 500_000_000).count();
        let line = format!("h_bucket{{a=\"1\",le=\"0.5\"}} {within}");
        prop_assert!(text.contains(&line), "{text}");
    }
}
