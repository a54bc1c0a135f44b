//! Resampling at the size that the evaluation page promises: 10,000 resamples of 10,000 samples.

use criterion::{Criterion, criterion_group, criterion_main};
use sluice_control::evaluation::metrics::bleu::BleuCounts;
use sluice_control::evaluation::metrics::classification::Average;
use sluice_control::evaluation::statistics::{
    Bootstrap, Corpus, Labelled, Mean, Method, Quantile, permutation_test,
};

const SAMPLES: usize = 10_000;

fn scores() -> Vec<f64> {
    (0..SAMPLES)
        .map(|sample| (sample * 7_919 % 1_000) as f64 / 1_000.0)
        .collect()
}

fn labels() -> (Vec<(String, String)>, Vec<String>) {
    let label = |number: usize| format!("label {}", number % 8);
    let pairs = (0..SAMPLES)
        .map(|sample| (label(sample), label(sample + usize::from(sample % 5 == 0))))
        .collect();
    (pairs, (0..8).map(label).collect())
}

fn bleu() -> Corpus<BleuCounts> {
    let counts = (0..SAMPLES)
        .map(|sample| BleuCounts {
            output_length: 20.0 + (sample % 7) as f64,
            reference_length: 21.0 + (sample % 5) as f64,
            correct: [12.0, 8.0, 5.0, (sample % 4) as f64],
            total: [20.0, 19.0, 18.0, 17.0],
        })
        .collect();
    Corpus {
        counts,
        value: BleuCounts::corpus,
    }
}

fn resampling(criterion: &mut Criterion) {
    let bootstrap = Bootstrap::default();
    let mut group = criterion.benchmark_group("resampling");
    group.sample_size(10);
    let mean = Mean(scores());
    group.bench_function("interval of a mean", |b| {
        b.iter(|| bootstrap.interval(&mean, Method::Bca))
    });
    let bleu = bleu();
    group.bench_function("interval of BLEU", |b| {
        b.iter(|| bootstrap.interval(&bleu, Method::Bca))
    });
    let (pairs, labels) = labels();
    let f1 = Labelled::new(&pairs, &labels, Some(Average::Macro));
    group.bench_function("interval of macro F1", |b| {
        b.iter(|| bootstrap.interval(&f1, Method::Bca))
    });
    let p95 = Quantile::new(&scores(), 0.95);
    group.bench_function("interval of a quantile", |b| {
        b.iter(|| bootstrap.interval(&p95, Method::Percentile));
    });
    let other = Mean(scores().into_iter().map(|score| score * 0.99).collect());
    group.bench_function("paired test of a mean, with interval", |b| {
        b.iter(|| permutation_test(&bootstrap, &mean, &other));
    });
    group.finish();
}

criterion_group!(benches, resampling);
criterion_main!(benches);
