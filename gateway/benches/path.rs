//! What the gateway adds to a request beside the network: routing (< 1 µs), who may use a model (< 1 µs),
//! recording (< 200 ns), limits and the choice of a replica.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue};
use sluice_engine::request::{FinishReason, Usage};
use sluice_gateway::access::{Audience, Clearance, Rights};
use sluice_gateway::config::{Config, MetricsConfig};
use sluice_gateway::endpoint::Resolved;
use sluice_gateway::limits::{RateLimiter, RateLimits};
use sluice_gateway::metrics::{Completed, Metrics};
use sluice_gateway::remote::{Envelope, RemotePool, balance};
use sluice_gateway::router::split::{Cohort, Split, SplitConfig, Subject, Weight};
use sluice_gateway::router::{Release, Source, Standing, Target, load};
use sluice_gateway::{Gateway, Outcome, RequestContext};

/// A gateway with one name under release, and a request's headers.
fn under_release() -> (Arc<Gateway>, HeaderMap) {
    let gateway = Gateway::new(Config::default()).expect("the defaults are in order");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let revision = |revision| {
        let urls = ["http://127.0.0.1:9/v1".to_owned()];
        let pool = RemotePool::new(&urls, None, None, &gateway.config().upstream);
        let target = Target::Remote(runtime.block_on(pool).expect("a pool"));
        let standing = Standing::default();
        load::make(&gateway, "model", revision, target, standing)
    };
    let split = Split::new(SplitConfig {
        weight: Weight::percent(5.0).expect("a weight"),
        cohorts: vec![Cohort::headers([("x-sluice-cohort", "beta")]).expect("a cohort")],
        sticky: ["x-session-id", "user", "api_key"]
            .map(|key| key.parse().expect("a key"))
            .to_vec(),
        ..SplitConfig::default()
    });
    let release = Release::new("release", revision("v1"), revision("v2"), split);
    let entries = vec![Arc::new(release.expect("two revisions"))];
    let published = gateway.publish_from(Source::Control, entries);
    published.expect("one name");
    let headers = [
        ("content-type", "application/json"),
        ("user-agent", "bench"),
        ("authorization", "Bearer key"),
        ("x-session-id", "session-1"),
    ];
    let headers = headers.into_iter().map(|(name, value)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    });
    let headers = HeaderMap::from_iter(headers);
    (gateway, headers)
}

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
        endpoint: Resolved::of("/v1/chat/completions").endpoint,
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
        b.iter(|| Resolved::of(black_box("/v1/chat/completions")));
    });

    c.bench_function("route under release", |b| {
        let (gateway, headers) = under_release();
        let context = || RequestContext::new("id", "/v1/chat/completions");
        let subject = Subject {
            headers: &headers,
            user: Some("ann"),
            principal: None,
        };
        let route = |context: RequestContext| {
            let found = gateway.route(&context, "model", black_box(&subject));
            (found, context)
        };
        b.iter_batched(context, route, BatchSize::SmallInput);
    });

    // A deployment with a thousand grants, asked for by the last of those who have one.
    let people: Vec<Arc<str>> = (0..1000).map(|n| format!("person-{n:04}").into()).collect();
    let rights = Rights {
        clearance: Clearance::Secret,
        department: Some("it".into()),
        person: people.last().cloned(),
        ..Rights::default()
    };
    let audience = Audience::of_department("hr", Clearance::Secret).granted(people, Vec::new());
    c.bench_function("may use, of a thousand grants", |b| {
        b.iter(|| black_box(&audience).admits(black_box(&rights)));
    });

    let start = Instant::now();
    let limits = RateLimits {
        requests: Some(u32::MAX),
        tokens: Some(u32::MAX),
        ..RateLimits::default()
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
