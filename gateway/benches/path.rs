//! What the gateway adds to a request beside the network: routing (< 1 µs),
//! recording (< 200 ns), limits and the choice of a replica.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use sluice_engine::request::{FinishReason, Usage};
use sluice_gateway::Outcome;
use sluice_gateway::config::MetricsConfig;
use sluice_gateway::limits::{RateLimiter, RateLimits};
use sluice_gateway::metrics::{Completed, Metrics};
use sluice_gateway::remote::{Envelope, balance};
use sluice_gateway::stack::Route;

fn path(c: &mut Criterion) {
    let metrics = Metrics::new(&MetricsConfig::default());
    let series = metrics.series("model", "1");
    let outcome = Outcome::new(Instant::now());
    outcome.add_usage(Usage {
        prompt: 20,
        cached: 0,
        completion: 64,
    });
    outcome.set_finish(FinishReason::Stop);
    outcome.token();
    let completed = Completed {
        route: Route::Chat,
        status: 200,
        total: Duration::from_millis(123),
        fault: None,
    };
    c.bench_function("record a generation", |b| {
        b.iter(|| series.record(black_box(&completed), black_box(&outcome)));
    });
    c.bench_function("record a token", |b| b.iter(|| outcome.token()));

    let body = format!(
        r#"{{"model":"model","messages":[{{"role":"user","content":"{}"}}],"max_tokens":64}}"#,
        "Say something about foxes. ".repeat(8)
    );
    c.bench_function("read model and stream of a body", |b| {
        b.iter(|| Envelope::parse(black_box(body.as_bytes())));
    });
    c.bench_function("endpoint of a path", |b| {
        b.iter(|| Route::of(black_box("/v1/chat/completions")));
    });

    let start = Instant::now();
    let limits = RateLimits {
        requests: Some(u32::MAX),
        tokens: Some(u32::MAX),
    };
    let limiter = RateLimiter::new(limits, start);
    c.bench_function("take from two buckets", |b| {
        b.iter(|| limiter.take(black_box(start), black_box(1)));
    });
    c.bench_function("draw two of 64 replicas", |b| {
        b.iter(|| balance::draw(black_box(u64::MAX), rand::random(), rand::random()));
    });
}

criterion_group!(benches, path);
criterion_main!(benches);
