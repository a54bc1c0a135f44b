//! Overhead of everything that is not the model: one `schedule` + `update`, and the
//! device thread's loop through the channels, over a backend that costs nothing.
//!
//! `cargo bench -p sluice-engine --bench scheduler`

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluice_engine::backend::fake::{FakeBackend, FakeControl, FakeOptions, FakeTokens};
use sluice_engine::cache::SlotCache;
use sluice_engine::generator::{GeneratorHandle, GeneratorOptions};
use sluice_engine::request::{
    CacheSalt, GenerateRequest, GenerationEvent, Priority, SamplingParams,
};
use sluice_engine::scheduler::{Drawn, Sampled, Scheduler, SchedulerOptions, Sequence, SequenceId};

const PROMPT: usize = 64;

fn sequence(id: u64, max_tokens: usize) -> Sequence {
    Sequence {
        id: SequenceId(id),
        prompt: (0..PROMPT as u32).map(|i| i + id as u32).collect(),
        max_tokens,
        stop: [0].into(),
        min_tokens: 0,
        prompt_logits: false,
        priority: Priority::Normal,
        tenant: "bench".into(),
        salt: CacheSalt::default(),
        deadline: None,
    }
}

/// One decode step of `batch` sequences, planned and taken in.
fn step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("schedule+update");
    for batch in [1u32, 16, 64] {
        group.throughput(Throughput::Elements(u64::from(batch)));
        group.bench_function(format!("decode/{batch}"), |bencher| {
            let capacity = 1 << 22;
            let mut scheduler = Scheduler::new(SchedulerOptions {
                step_budget: 1 << 16,
                ..SchedulerOptions::default()
            });
            let mut cache = SlotCache::new(batch, capacity, true);
            let now = Instant::now();
            for id in 0..u64::from(batch) {
                scheduler.add(sequence(id, capacity - PROMPT), now);
            }
            let mut events = Vec::new();
            let mut sampled = Vec::new();
            bencher.iter(|| {
                let plan = scheduler.schedule(&mut cache, now);
                sampled.clear();
                sampled.extend(plan.rows.iter().filter(|row| row.draws).map(|row| Sampled {
                    sequence: row.sequence,
                    drawn: Drawn::Token(1),
                }));
                events.clear();
                scheduler.update(&plan, &sampled, &mut cache, &mut events);
                black_box(&events);
            });
        });
    }
    group.finish();
}

/// Tokens through submit → device thread → per-request channels, all of them read.
fn generate(criterion: &mut Criterion) {
    const TOKENS: usize = 256;
    let mut group = criterion.benchmark_group("generator loop");
    group.sample_size(10);
    for batch in [1u32, 16, 64] {
        group.throughput(Throughput::Elements(u64::from(batch) * TOKENS as u64));
        let fake = FakeOptions {
            slots: batch,
            tokens: FakeTokens::Hash { low: 1, high: 256 },
            ..FakeOptions::default()
        };
        let factory = FakeBackend::factory(fake, FakeControl::new());
        let Ok(handle) = GeneratorHandle::start("bench", factory, GeneratorOptions::default())
        else {
            continue;
        };
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else {
            continue;
        };
        group.bench_function(format!("batch/{batch}"), |bencher| {
            bencher.iter(|| runtime.block_on(burst(&handle, batch, TOKENS)));
        });
    }
    group.finish();
}

async fn burst(handle: &GeneratorHandle, batch: u32, tokens: usize) {
    let local = tokio::task::LocalSet::new();
    for i in 0..batch {
        let request = GenerateRequest {
            prompt: (0..8).map(|j| (i * 3 + j) % 256).collect(),
            params: SamplingParams {
                temperature: 0.0,
                max_tokens: tokens,
                ..SamplingParams::default()
            },
            grammar: None,
            restriction: None,
            priority: Priority::Normal,
            tenant: "bench".into(),
            salt: CacheSalt::default(),
            deadline: None,
            whole: false,
        };
        if let Ok(mut generation) = handle.submit(request) {
            local.spawn_local(async move {
                let mut count = 0;
                while let Some(event) = generation.next().await {
                    count += usize::from(matches!(event, GenerationEvent::Token(_)));
                }
                assert_eq!(count, tokens);
            });
        }
    }
    local.await;
}

criterion_group!(benches, step, generate);
criterion_main!(benches);
