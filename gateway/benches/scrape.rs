//! `/metrics` with 200 deployments that have traffic in every histogram (< 50 ms), and
//! recording through the exporter crate's recorder beside our own.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metrics_exporter_prometheus::PrometheusBuilder;
use sluice_engine::request::{FinishReason, Timings, Usage};
use sluice_gateway::Outcome;
use sluice_gateway::config::MetricsConfig;
use sluice_gateway::endpoint::Resolved;
use sluice_gateway::metrics::{Completed, Format, Metrics, Series};
use sluice_gateway::router::RouteTable;

const DEPLOYMENTS: usize = 200;
/// Requests of each deployment; their times spread over a factor of sixteen.
const REQUESTS: u32 = 256;

/// A finished generation that takes `millis`.
fn generation(millis: u64) -> (Completed, Outcome) {
    let outcome = Outcome::new(Instant::now());
    outcome.add_usage(Usage {
        prompt: 20,
        cached: 0,
        completion: 64,
    });
    outcome.set_finish(FinishReason::Stop);
    outcome.token();
    outcome.add_timings(Timings {
        queue: Duration::from_millis(millis / 16),
        prefill: Duration::from_millis(millis / 4),
        decode: Duration::from_millis(millis / 2),
    });
    let completed = Completed {
        endpoint: Resolved::of("/v1/chat/completions").endpoint,
        status: 200,
        total: Duration::from_millis(millis),
        fault: None,
    };
    (completed, outcome)
}

/// Every request at another time, so that many exponential buckets are filled.
fn traffic(series: &Series) {
    for request in 0..REQUESTS {
        let millis = 100.0 * (f64::from(request) / f64::from(REQUESTS) * 4.0).exp2();
        let (completed, outcome) = generation(millis as u64);
        series.record(&completed, &outcome);
        series.inter_token(completed.total / 64);
    }
}

fn scrape(c: &mut Criterion) {
    let config = MetricsConfig::default();
    let routes = RouteTable::default();
    let metrics = Metrics::new(&config);
    let peer = PrometheusBuilder::new()
        .set_buckets(&config.buckets)
        .expect("the default buckets are not empty")
        .build_recorder();
    let (handle, peer) = (peer.handle(), Arc::new(peer));
    for deployment in 0..DEPLOYMENTS {
        let name = format!("deployment-{deployment}");
        traffic(&metrics.series(&name, "2026-01-01"));
        traffic(&Series::new(peer.clone(), &name, "2026-01-01"));
        handle.run_upkeep();
    }

    let mut group = c.benchmark_group("scrape of 200 deployments");
    for format in [Format::Text, Format::Protobuf] {
        let bytes = metrics.expose(&routes, format).len();
        group.throughput(Throughput::Bytes(bytes as u64));
        let id = BenchmarkId::new(format!("{format:?}"), format!("{bytes} bytes"));
        group.bench_function(id, |b| {
            b.iter(|| metrics.expose(&routes, black_box(format)))
        });
    }
    let bytes = handle.render().len();
    group.throughput(Throughput::Bytes(bytes as u64));
    let id = BenchmarkId::new("Text of the exporter crate", format!("{bytes} bytes"));
    group.bench_function(id, |b| b.iter(|| handle.render()));
    group.finish();

    let (completed, outcome) = generation(123);
    let series = metrics.series("deployment-0", "2026-01-01");
    c.bench_function("record in all series", |b| {
        b.iter(|| series.record(black_box(&completed), black_box(&outcome)));
    });
    let series = Series::new(peer, "deployment-0", "2026-01-01");
    c.bench_function("record in all series, exporter crate", |b| {
        // Swept outside the time taken, as it would be by another thread.
        b.iter_custom(|requests| {
            const SWEEP: u64 = 4096;
            let mut taken = Duration::ZERO;
            for first in (0..requests).step_by(SWEEP as usize) {
                let start = Instant::now();
                for _ in first..requests.min(first + SWEEP) {
                    series.record(black_box(&completed), black_box(&outcome));
                }
                taken += start.elapsed();
                handle.run_upkeep();
            }
            taken
        });
    });
}

criterion_group!(benches, scrape);
criterion_main!(benches);
