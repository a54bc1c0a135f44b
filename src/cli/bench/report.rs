//! What `sluice bench` found, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::Sample;
use crate::cli::output;

/// Exact quantiles (nearest rank) of one measure, in milliseconds.
#[derive(Debug, Serialize)]
struct Quantiles {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

/// The result of a run. Times are milliseconds, rates are per second.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    model: String,
    concurrency: u32,
    target_rate: Option<f64>,
    seconds: f64,
    succeeded: usize,
    failed: usize,
    errors: BTreeMap<String, usize>,
    requests_per_second: f64,
    prompt_tokens_per_second: f64,
    completion_tokens_per_second: f64,
    latency_ms: Option<Quantiles>,
    ttft_ms: Option<Quantiles>,
    time_per_output_token_ms: Option<Quantiles>,
}

impl Report {
    pub(super) fn new(
        model: &str,
        concurrency: u32,
        rate: Option<f64>,
        elapsed: Duration,
        samples: &[Sample],
    ) -> Self {
        let good: Vec<&Sample> = samples
            .iter()
            .filter(|sample| sample.error.is_none())
            .collect();
        let mut errors = BTreeMap::new();
        for error in samples.iter().filter_map(|sample| sample.error.clone()) {
            *errors.entry(error).or_default() += 1;
        }
        let seconds = elapsed.as_secs_f64();
        let per_second = |count: u64| count as f64 / seconds;
        let per_token = |sample: &&Sample| {
            let rest = sample.total.checked_sub(sample.first?)?;
            let tokens = sample
                .completion_tokens
                .checked_sub(1)
                .filter(|tokens| *tokens > 0)?;
            Some(rest.div_f64(tokens as f64))
        };
        Self {
            model: model.to_owned(),
            concurrency,
            target_rate: rate,
            seconds,
            succeeded: good.len(),
            failed: samples.len() - good.len(),
            errors,
            requests_per_second: per_second(good.len() as u64),
            prompt_tokens_per_second: per_second(
                good.iter().map(|sample| sample.prompt_tokens).sum(),
            ),
            completion_tokens_per_second: per_second(
                good.iter().map(|sample| sample.completion_tokens).sum(),
            ),
            latency_ms: quantiles(good.iter().map(|sample| sample.total).collect()),
            ttft_ms: quantiles(good.iter().filter_map(|sample| sample.first).collect()),
            time_per_output_token_ms: quantiles(good.iter().filter_map(per_token).collect()),
        }
    }

    pub(super) fn print(&self) -> Result<()> {
        output::line(format!(
            "{}: {} answered, {} failed in {:.1} s with {} in flight",
            self.model, self.succeeded, self.failed, self.seconds, self.concurrency
        ))?;
        output::line(format!(
            "{:.1} requests/s, {:.0} prompt tokens/s, {:.0} generated tokens/s\n",
            self.requests_per_second,
            self.prompt_tokens_per_second,
            self.completion_tokens_per_second
        ))?;
        let measures = [
            ("latency", &self.latency_ms),
            ("time to first token", &self.ttft_ms),
            ("time per output token", &self.time_per_output_token_ms),
        ];
        let rows: Vec<Vec<String>> = measures
            .into_iter()
            .filter_map(|(name, quantiles)| {
                let q = quantiles.as_ref()?;
                let cells = [q.mean, q.p50, q.p90, q.p99, q.max].map(|value| format!("{value:.2}"));
                Some(std::iter::once(name.to_owned()).chain(cells).collect())
            })
            .collect();
        output::table(&["MILLISECONDS", "MEAN", "P50", "P90", "P99", "MAX"], &rows)?;
        self.errors
            .iter()
            .try_for_each(|(error, count)| output::line(format!("{count} × {error}")))
    }
}

fn quantiles(mut values: Vec<Duration>) -> Option<Quantiles> {
    values.sort_unstable();
    let milliseconds = |value: Duration| value.as_secs_f64() * 1e3;
    let rank = |share: f64| {
        let index = (share * values.len() as f64).ceil() as usize;
        values
            .get(index.saturating_sub(1))
            .copied()
            .map(milliseconds)
    };
    let total: Duration = values.iter().sum();
    Some(Quantiles {
        mean: milliseconds(total) / values.len() as f64,
        p50: rank(0.50)?,
        p90: rank(0.90)?,
        p99: rank(0.99)?,
        max: rank(1.0)?,
    })
}
