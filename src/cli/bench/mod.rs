//! `sluice bench`: load a server and report what its users would feel.

mod report;
mod workload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use serde_json::Value;
use tokio::sync::mpsc;

use self::report::Report;
use self::workload::{Kind, Workload};
use super::client::{ApiClient, Server};
use super::models::default_model;
use super::output::{self, Format};

/// Load a server and report throughput, latency quantiles, TTFT and tokens/s.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice bench chat -c 8 -n 200\n  sluice bench embed -c 32 --duration 15\n  sluice bench chat --rate 20 --duration 30 -o json > result.json\n  sluice bench chat --input prompts.jsonl --max-tokens 64\n\nWithout --rate each of the -c clients sends its next request when the last one is\nanswered (closed loop). With --rate requests start on schedule whether or not\nearlier ones are done, and latency counts from the scheduled start, so that a slow\nserver cannot hide behind its own slowness (no coordinated omission)."
)]
pub(crate) struct Bench {
    #[command(flatten)]
    server: Server,
    /// What to send.
    #[arg(value_enum)]
    kind: Kind,
    /// Model; the server's only one of the kind by default.
    #[arg(short, long)]
    model: Option<String>,
    /// Requests in flight at once.
    #[arg(short, long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    concurrency: u32,
    /// Requests in all; without it, --duration decides.
    #[arg(short = 'n', long)]
    requests: Option<usize>,
    /// Seconds to run.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    duration: f64,
    /// Requests a second, open loop.
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds after which a request that has not been answered whole counts as failed.
    #[arg(long, default_value_t = 120.0, value_name = "SECONDS")]
    timeout: f64,
    /// Requests sent first and not counted.
    #[arg(long, default_value_t = 2)]
    warmup: usize,
    /// Tokens to generate at most, for each request.
    #[arg(long, default_value_t = 64)]
    max_tokens: u32,
    /// Generate exactly --max-tokens, ignoring end-of-sequence.
    #[arg(long)]
    ignore_eos: bool,
    /// Words in a generated prompt, as MIN..MAX.
    #[arg(long, default_value = "8..64", value_name = "MIN..MAX")]
    words: String,
    /// Prompts instead of generated ones: a file with a string, or an object with
    /// `messages`, `prompt`, `input` or `text`, a line.
    #[arg(long, value_name = "JSONL")]
    input: Option<PathBuf>,
    /// Seed of the generated prompts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What became of one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// From the (scheduled) start to the last byte.
    total: Duration,
    /// To the first token, when one came.
    first: Option<Duration>,
    prompt_tokens: u64,
    completion_tokens: u64,
    /// The server's message, when it failed.
    error: Option<String>,
}

impl Bench {
    pub(crate) async fn run(self) -> Result<()> {
        if !self.duration.is_finite() || self.duration <= 0.0 {
            bail!("--duration must be a positive number of seconds");
        }
        if self
            .rate
            .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
        {
            bail!("--rate must be a positive number of requests a second");
        }
        if !self.timeout.is_finite() || self.timeout <= 0.0 {
            bail!("--timeout must be a positive number of seconds");
        }
        let client = ApiClient::new(&self.server)?;
        let model = match &self.model {
            Some(model) => model.clone(),
            None => default_model(&client, self.kind.model_kind()).await?,
        };
        let workload = Arc::new(Workload::new(&self, &model)?);
        for index in 0..self.warmup {
            let sample = send(&client, &workload, index, Instant::now()).await;
            if let Some(error) = sample.error {
                bail!("the warm-up request failed: {error}");
            }
        }
        let began = Instant::now();
        let samples = self.load(&client, &workload, began).await;
        output::progress("");
        if let Some(error) = all_failed(&samples) {
            bail!("every request failed: {error}");
        }
        let report = Report::new(
            &model,
            self.concurrency,
            self.rate,
            began.elapsed(),
            &samples,
        );
        match self.output {
            Format::Json => output::json(&report),
            Format::Table => report.print(),
        }
    }

    /// Runs the clients until the requests or the time are used up.
    async fn load(
        &self,
        client: &ApiClient,
        workload: &Arc<Workload>,
        began: Instant,
    ) -> Vec<Sample> {
        let next = Arc::new(AtomicUsize::new(0));
        let limit = self.requests.unwrap_or(usize::MAX);
        let until = if self.requests.is_some() {
            None
        } else {
            Some(began + Duration::from_secs_f64(self.duration))
        };
        let (sender, mut receiver) = mpsc::channel::<Sample>(1024);
        for _ in 0..self.concurrency {
            let (client, workload, next, sender) = (
                client.clone(),
                workload.clone(),
                next.clone(),
                sender.clone(),
            );
            let rate = self.rate;
            tokio::spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let start = match rate {
                        Some(rate) => began + Duration::from_secs_f64(index as f64 / rate),
                        None => Instant::now(),
                    };
                    if index >= limit || until.is_some_and(|end| start >= end) {
                        return;
                    }
                    tokio::time::sleep_until(start.into()).await;
                    let sample = send(&client, &workload, index, start).await;
                    if sender.send(sample).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut samples = Vec::new();
        let mut shown = Instant::now();
        while let Some(sample) = receiver.recv().await {
            samples.push(sample);
            if shown.elapsed() > Duration::from_millis(200) {
                shown = Instant::now();
                let seconds = began.elapsed().as_secs_f64();
                let failed = samples
                    .iter()
                    .filter(|sample| sample.error.is_some())
                    .count();
                output::progress(&format!(
                    "{seconds:5.1} s  {} answered, {failed} failed, {:.1}/s",
                    samples.len(),
                    samples.len() as f64 / seconds
                ));
            }
        }
        samples
    }
}

/// The first error, when no request was answered: a measurement of nothing.
fn all_failed(samples: &[Sample]) -> Option<&str> {
    let mut errors = samples.iter().map(|sample| sample.error.as_deref());
    let first = errors.next()??;
    errors.all(|error| error.is_some()).then_some(first)
}

/// Sends request `index` of the workload; latency counts from `start`.
async fn send(client: &ApiClient, workload: &Workload, index: usize, start: Instant) -> Sample {
    let mut sample = Sample::default();
    let answer = async {
        if workload.kind.streams() {
            return read_stream(client, workload, index, start, &mut sample).await;
        }
        let answer = client
            .post(workload.kind.path(), &workload.body(index))
            .await?;
        count_usage(&answer, &mut sample);
        Ok(())
    };
    let outcome = match tokio::time::timeout(workload.timeout, answer).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow!("no whole answer within {:?}", workload.timeout)),
    };
    sample.total = start.elapsed();
    sample.error = outcome.err().map(|error| format!("{error:#}"));
    sample
}

async fn read_stream(
    client: &ApiClient,
    workload: &Workload,
    index: usize,
    start: Instant,
    sample: &mut Sample,
) -> Result<()> {
    let mut events = client
        .stream(workload.kind.path(), &workload.body(index))
        .await?;
    while let Some(event) = events.next().await? {
        if sample.first.is_none() && !text_of(&event).is_empty() {
            sample.first = Some(start.elapsed());
        }
        count_usage(&event, sample);
    }
    Ok(())
}

/// The generated text in one event; empty in those that only carry a role, usage or the end.
fn text_of(event: &Value) -> &str {
    let choice = &event["choices"][0];
    choice["delta"]["content"]
        .as_str()
        .or(choice["text"].as_str())
        .unwrap_or_default()
}

fn count_usage(answer: &Value, sample: &mut Sample) {
    let usage = &answer["usage"];
    if usage.is_object() {
        sample.prompt_tokens = usage["prompt_tokens"].as_u64().unwrap_or_default();
        sample.completion_tokens = usage["completion_tokens"].as_u64().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;
