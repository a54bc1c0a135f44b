//! `sluice top`: what a server is doing, live.

mod view;

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde::{Deserialize, Serialize};

use self::view::History;
use super::client::{ApiClient, Server};
use super::output::{self, Format};

/// Watch QPS, RT, TTFT, tokens/s, batch size, queue and K/V use, live.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice top\n  sluice top --interval 0.5\n  sluice top --once              # one table, for scripts\n  sluice top --once -o json | jq '.deployments[].latency_ms.p99'\n\nKeys: q or Esc leaves. QPS and quantiles are those of the last minute."
)]
pub(crate) struct Top {
    #[command(flatten)]
    server: Server,
    /// Seconds between two looks.
    #[arg(short, long, default_value_t = 1.0, value_name = "SECONDS", value_parser = positive_seconds)]
    interval: f64,
    /// Print once and leave, as without a terminal.
    #[arg(long)]
    once: bool,
    /// How to print once; `json` implies --once.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn positive_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds between 0.1 and 3600".to_owned()),
    }
}

impl Top {
    pub(crate) async fn run(self) -> Result<()> {
        let client = ApiClient::new(&self.server)?;
        let first = fetch(&client).await?;
        if self.output == Format::Json {
            return output::json(&first);
        }
        // A pipe or a file gets no screen.
        if self.once || !std::io::stdout().is_terminal() {
            return print_once(&first);
        }
        let mut terminal = ratatui::try_init().context("this terminal")?;
        let result = self.watch(&client, &mut terminal, first).await;
        ratatui::restore();
        result
    }

    async fn watch(
        &self,
        client: &ApiClient,
        terminal: &mut ratatui::DefaultTerminal,
        first: Stats,
    ) -> Result<()> {
        let mut history = History::default();
        let mut trouble = None;
        let mut stats = first;
        loop {
            if trouble.is_none() {
                history.push(&stats);
            }
            terminal.draw(|frame| view::draw(frame, &stats, &history, trouble.as_deref()))?;
            if wait_for_quit(Duration::from_secs_f64(self.interval)).await? {
                return Ok(());
            }
            // A server that restarts is worth waiting for: say so and go on looking.
            match fetch(client).await {
                Ok(fresh) => (stats, trouble) = (fresh, None),
                Err(error) => trouble = Some(format!("{error:#}")),
            }
        }
    }
}

/// Waits, or returns early with `true` when the user wants to leave.
async fn wait_for_quit(interval: Duration) -> Result<bool> {
    // The terminal's events come by a blocking call; keep it off the runtime's threads.
    let waiting = tokio::task::spawn_blocking(move || -> std::io::Result<bool> {
        let until = std::time::Instant::now() + interval;
        while let Some(rest) = until.checked_duration_since(std::time::Instant::now()) {
            if event::poll(rest)? && is_quit(&event::read()?) {
                return Ok(true);
            }
        }
        Ok(false)
    });
    Ok(waiting.await??)
}

pub(super) fn is_quit(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

async fn fetch(client: &ApiClient) -> Result<Stats> {
    Ok(serde_json::from_value(client.get("/api/v1/stats").await?)?)
}

/// The answer of `/api/v1/stats`. Times are milliseconds, rates per second.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stats {
    uptime_seconds: f64,
    deployments: Vec<DeploymentStats>,
    builds: Vec<BuildStats>,
}

/// An engine that is being built for a model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BuildStats {
    model: String,
    percent: Option<u8>,
    seconds: f64,
    progress: String,
}

impl Stats {
    /// A line for each build that goes on.
    fn builds(&self) -> impl Iterator<Item = String> {
        let line = |build: &BuildStats| {
            let line = format!("{}: {}", build.model, build.progress);
            output::in_one_line(&line).into_owned()
        };
        self.builds.iter().map(line)
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DeploymentStats {
    name: String,
    revision: String,
    requests_per_second: f64,
    errors_per_second: f64,
    latency_ms: Option<Quantiles>,
    ttft_ms: Option<Quantiles>,
    prompt_tokens_per_second: f64,
    completion_tokens_per_second: f64,
    batch_size: Option<f64>,
    running: u64,
    waiting: u64,
    kv_usage: Option<f64>,
    replicas: Vec<ReplicaStats>,
}

/// One model in the server's process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReplicaStats {
    device: String,
    state: String,
    restarts: u64,
    failed_restarts: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Quantiles {
    p50: f64,
    p90: f64,
    p99: f64,
}

const HEADINGS: [&str; 15] = [
    "DEPLOYMENT",
    "REVISION",
    "QPS",
    "ERR/S",
    "RT P50",
    "P90",
    "P99",
    "TTFT P50",
    "P99",
    "TOK/S",
    "BATCH",
    "RUN",
    "WAIT",
    "K/V",
    "UP",
];

impl DeploymentStats {
    /// One cell a heading.
    fn cells(&self) -> Vec<String> {
        let quantile = |of: &Option<Quantiles>, pick: fn(&Quantiles) -> f64| {
            of.as_ref().map_or_else(dash, |q| milliseconds(pick(q)))
        };
        vec![
            output::in_one_line(&self.name).into_owned(),
            output::in_one_line(&self.revision).into_owned(),
            format!("{:.1}", self.requests_per_second),
            format!("{:.1}", self.errors_per_second),
            quantile(&self.latency_ms, |q| q.p50),
            quantile(&self.latency_ms, |q| q.p90),
            quantile(&self.latency_ms, |q| q.p99),
            quantile(&self.ttft_ms, |q| q.p50),
            quantile(&self.ttft_ms, |q| q.p99),
            format!(
                "{:.0}",
                self.prompt_tokens_per_second + self.completion_tokens_per_second
            ),
            self.batch_size
                .map_or_else(dash, |size| format!("{size:.1}")),
            self.running.to_string(),
            self.waiting.to_string(),
            self.kv_usage
                .map_or_else(dash, |share| format!("{:.0}%", share * 100.0)),
            match self.replicas.len() {
                0 => dash(),
                all => format!("{}/{all}", all - self.down()),
            },
        ]
    }

    /// Replicas that do not serve.
    fn down(&self) -> usize {
        let is_down = |replica: &&ReplicaStats| replica.state != "serving";
        self.replicas.iter().filter(is_down).count()
    }
}

fn dash() -> String {
    "–".to_owned()
}

/// Three significant digits with a unit, from microseconds to minutes.
pub(super) fn milliseconds(value: f64) -> String {
    match value {
        value if value < 1.0 => format!("{:.0}µs", value * 1e3),
        value if value < 10.0 => format!("{value:.2}ms"),
        value if value < 100.0 => format!("{value:.1}ms"),
        value if value < 1000.0 => format!("{value:.0}ms"),
        value => format!("{:.2}s", value / 1e3),
    }
}

fn print_once(stats: &Stats) -> Result<()> {
    let rows: Vec<Vec<String>> = stats
        .deployments
        .iter()
        .map(DeploymentStats::cells)
        .collect();
    output::table(&HEADINGS, &rows)?;
    stats.builds().try_for_each(output::line)
}
