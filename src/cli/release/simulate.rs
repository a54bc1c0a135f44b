//! `sluice release simulate`: what a strategy would do, before a release depends on it.

mod pauses;
mod progress;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sluice_control::release::simulate::{Grid, Recorded, Row, Spent, Summary, Traffic, simulate};
use sluice_control::release::strategy::Strategy;

use self::progress::Bar;
use super::start::read;
use crate::cli::output::{self, Format};

/// Try a strategy on made-up or recorded traffic: how often it takes back a good release, how soon a bad one, and who is hurt.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice release simulate --strategy strategy.yaml              # on traffic as it usually is\n  sluice release simulate --example traffic > traffic.yaml      # every field, explained: fill in your own\n  sluice release simulate --strategy strategy.yaml --traffic traffic.yaml\n  sluice release simulate --traffic traffic.yaml --releases 10000   # the default strategy\n  sluice release simulate --grid --releases 20                      # the tables of docs/release-analysis.md\n  sluice release simulate --pauses --releases 2000               # what allowing for pauses costs\n\nBoth files are YAML or JSON. A traffic file says\n  rate, lasts, users, skew, sticky      how many requests a second, for how long, from whom\n  stable, candidate                     chances of error, empty, refusal, disagree; times; what the candidate changes\n  diurnal, bursts, incidents, pauses    ups and downs, and bad moments\n  agents, keys, noisy                   clients that are unlike others\n  recorded                              a file of recorded requests instead\nand each may be left out. --example prints such a file with every field explained; docs/release-analysis.md has\nthem, too. Beside it stand Flagger's and Argo Rollouts' default rules on the same requests. The same seed gives\nthe same numbers."
)]
pub(crate) struct Simulate {
    /// The strategy; without it the default one.
    #[arg(short, long, value_name = "FILE")]
    strategy: Option<PathBuf>,
    /// The traffic, and what the candidate does differently; without it 20 requests a second of 1,000 users, and a candidate
    /// that is as good as stable.
    #[arg(short, long, value_name = "FILE")]
    traffic: Option<PathBuf>,
    /// Print a file with every field and its default explained, and simulate nothing.
    #[arg(long, value_enum, value_name = "WHICH", conflicts_with_all = ["strategy", "traffic", "grid", "pauses"])]
    example: Option<Example>,
    /// Simulate true differences against weights and rates instead.
    #[arg(long, conflicts_with_all = ["strategy", "traffic"])]
    grid: bool,
    /// Simulate what allowing for pauses costs: settings against good releases and a bad one.
    #[arg(long, conflicts_with_all = ["strategy", "traffic", "grid"])]
    pauses: bool,
    /// How many releases, of each cell with --grid.
    #[arg(short = 'n', long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    releases: u64,
    /// Where the made-up requests come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Files that can be printed to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Example {
    /// What --traffic reads.
    Traffic,
    /// What --strategy reads.
    Strategy,
}

impl Example {
    const fn text(self) -> &'static str {
        match self {
            Self::Traffic => include_str!("../../../examples/releases/traffic.yaml"),
            Self::Strategy => include_str!("../../../examples/releases/strategy.yaml"),
        }
    }
}

impl Simulate {
    pub(crate) fn run(self) -> Result<()> {
        if let Some(example) = self.example {
            return output::fragment(example.text());
        }
        if self.grid {
            return self.run_grid();
        }
        if self.pauses {
            return pauses::run(self.releases, self.seed, self.output);
        }
        let strategy = match &self.strategy {
            Some(path) => {
                let mut value = read(path)?;
                // A deployment's own file holds it under its name.
                if let Some(inner) = value.get_mut("strategy") {
                    value = inner.take();
                }
                Strategy::parse(value).with_context(|| path.display().to_string())?
            }
            None => Strategy::default(),
        };
        let (traffic, recorded) = match &self.traffic {
            Some(path) => read_traffic(path)?,
            None => (Traffic::default(), Vec::new()),
        };
        let bar = Bar::new(self.releases);
        let summary = simulate(
            &strategy,
            &traffic,
            &recorded,
            self.releases,
            self.seed,
            true,
            &|| bar.tick(),
        );
        drop(bar);
        match self.output {
            Format::Json => output::json(&summary),
            Format::Table => print_summary(&summary),
        }
    }

    fn run_grid(&self) -> Result<()> {
        let grid = Grid {
            releases: self.releases,
            ..Grid::default()
        };
        let cells = grid.cells();
        let bar = Bar::new(self.releases.saturating_mul(cells.len() as u64));
        let rows: Vec<Row> = cells
            .iter()
            .map(|cell| grid.row(*cell, self.seed, &|| bar.tick()))
            .collect();
        drop(bar);
        match self.output {
            Format::Json => output::json(&rows),
            Format::Table => print_grid(&rows),
        }
    }
}

/// The traffic of a file, and the recorded requests that it names.
fn read_traffic(path: &Path) -> Result<(Traffic, Vec<Recorded>)> {
    let traffic = Traffic::parse(read(path)?).with_context(|| path.display().to_string())?;
    let recorded = match &traffic.recorded {
        Some(name) => read_recorded(&path.with_file_name(name))?,
        None => Vec::new(),
    };
    Ok((traffic, recorded))
}

fn read_recorded(path: &Path) -> Result<Vec<Recorded>> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).with_context(|| name.clone())?;
    let recorded: Vec<Recorded> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            serde_json::from_str(line).with_context(|| format!("{name}, line {}", index + 1))
        })
        .collect::<Result<_>>()?;
    if recorded.is_empty() {
        bail!("{name}: has no requests");
    }
    if !recorded.is_sorted_by_key(|it| it.at_ms) {
        bail!("{name}: at_ms goes back; the lines are to be in the order of time");
    }
    Ok(recorded)
}

fn print_summary(summary: &Summary) -> Result<()> {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    for (what, chance) in [
        ("promoted", summary.promoted),
        ("taken back", summary.sluice.rolled_back),
        ("paused for a person", summary.paused),
        ("unfinished", summary.unfinished),
    ] {
        output::line(format!(
            "{what:<20} {:>6} of {} ({}, surely between {} and {})",
            chance.times,
            chance.of,
            percent(chance.share()),
            percent(chance.low),
            percent(chance.high)
        ))?;
    }
    if let Some(seconds) = summary.promoted_after_s {
        output::line(format!(
            "promoted after       {} in the median",
            time(seconds)
        ))?;
    }
    for (objective, times) in &summary.because {
        output::line(format!("because of           {objective}: {times}"))?;
    }
    output::line("")?;
    let rows = [
        ("sluice", &summary.sluice),
        ("Flagger's rule", &summary.flagger),
        ("Argo's rule", &summary.argo),
    ]
    .map(|(name, spent)| {
        vec![
            name.to_owned(),
            percent(spent.rolled_back.share()),
            pair(spent.median_s, spent.p90_s),
            format!("{} / {}", spent.median_requests, spent.p90_requests),
            format!("{} / {}", spent.median_users, spent.p90_users),
        ]
    });
    output::table(
        &[
            "RULE",
            "TAKEN BACK",
            "AFTER (MEDIAN / P90)",
            "REQUESTS HURT",
            "USERS HURT",
        ],
        &rows,
    )
}

fn print_grid(rows: &[Row]) -> Result<()> {
    let cells = rows.iter().map(|row| {
        let cell = row.cell;
        let difference = if cell.slower > 1.0 {
            format!("times × {}", cell.slower)
        } else {
            format!("errors {} %", 100.0 * cell.error)
        };
        let mut texts = vec![
            difference,
            format!("{} rps", cell.rate),
            format!("{} %", cell.weight),
        ];
        let summary = &row.summary;
        texts.extend([&summary.sluice, &summary.flagger, &summary.argo].map(spent));
        texts
    });
    output::line("Each: taken back; after (median / P90); requests hurt (median / P90)\n")?;
    output::table(
        &[
            "DIFFERENCE",
            "RATE",
            "WEIGHT",
            "SLUICE",
            "FLAGGER'S RULE",
            "ARGO'S RULE",
        ],
        &cells.collect::<Vec<_>>(),
    )
}

fn spent(spent: &Spent) -> String {
    format!(
        "{:.0} %; {}; {} / {}",
        100.0 * spent.rolled_back.share(),
        pair(spent.median_s, spent.p90_s),
        spent.median_requests,
        spent.p90_requests
    )
}

fn pair(median: Option<f64>, p90: Option<f64>) -> String {
    let text = |seconds: Option<f64>| seconds.map_or_else(|| "–".to_owned(), time);
    format!("{} / {}", text(median), text(p90))
}

fn time(seconds: f64) -> String {
    if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.1} min", seconds / 60.0)
    }
}

#[cfg(test)]
mod tests;
