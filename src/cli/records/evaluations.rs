//! Evaluations and their runs: starting one and waiting for its verdict, and what it found, for people to read.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use super::kinds::{Kind, ONE, Special, Writes, act, list};
use super::view::cell;
use super::{fields, watch};
use crate::cli::client::ApiClient;
use crate::cli::output::{self, Shape};

/// Another word for `eval`.
pub(super) const ALIAS: &str = "evaluation";
/// The method of the verb that starts a run.
pub(super) const START: &str = "START";
pub(super) const DIFF: &str = "diff";

const RUNS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("STATUS", "status"),
    ("VERDICT", "verdict"),
    ("SAMPLES", "samples"),
    ("FINISHED", "finished_at"),
    ("WITHDRAWN", "withdrawn_at"),
];

const SAMPLES: Special = Special {
    verb: "samples",
    about: "List a run's inputs and outputs: passed=false tag=… contains=… score_below=0.5",
    argument: "ID",
    method: "GET",
    path: "/evaluation_runs/{0}/samples",
    columns: &[
        ("ITEM", "item"),
        ("PASSED", "passed"),
        ("SCORE", "score"),
        ("INPUT", "input"),
        ("OUTPUT", "output"),
        ("EXPECTED", "expected"),
        ("ERROR", "error"),
    ],
    begins: false,
};

const WITHDRAW: Special = act(
    "withdraw",
    "Withdraw a run as evidence: reason=…",
    "ID",
    "/evaluation_runs/{0}/withdraw",
);

pub(super) const EVALUATION: Kind = Kind {
    noun: "eval",
    about: "Evaluations: test set, metrics, thresholds",
    path: "/evaluations",
    writes: Writes::All,
    columns: &[
        ("NAME", "name"),
        ("MODEL", "model"),
        ("METHOD", "method"),
        ("TEST SET", "test_set"),
        ("ID", "id"),
    ],
    specials: &[
        Special {
            verb: "run",
            about: "Evaluate a version; with --wait until there is a verdict",
            argument: "NAME",
            method: START,
            path: "/evaluations/{0}/runs",
            columns: ONE,
            begins: false,
        },
        list(
            "runs",
            "List an evaluation's runs",
            "/evaluation_runs?evaluation={0}",
            RUNS,
        ),
        SAMPLES,
        WITHDRAW,
    ],
    examples: "  sluice eval create tickets model=helpdesk test_set=tickets@v1 -f tickets.yaml\n  sluice eval run tickets --version helpdesk@v2 --wait\n  sluice eval run tickets --version helpdesk@v2 prompt_versions='[\"triage@v1\", \"triage@v2\"]'\n  sluice eval runs tickets",
};

pub(super) const RUN: Kind = Kind {
    noun: "run",
    about: "Runs of evaluations: numbers, samples, differences",
    path: "/evaluation_runs",
    writes: Writes::None,
    columns: RUNS,
    specials: &[
        SAMPLES,
        Special {
            verb: DIFF,
            about: "Show what changed, worst first: with=evr_… metric=… change=worse",
            argument: "ID",
            method: "GET",
            path: "/evaluation_runs/{0}/diff",
            columns: ONE,
            begins: false,
        },
        WITHDRAW,
    ],
    examples: "  sluice run show evr_…\n  sluice run samples evr_… passed=false contains=VPN\n  sluice run diff evr_… with=evr_… change=worse\n  sluice run diff evr_… prompt_version=prv_… with_prompt_version=prv_…",
};

/// What the verb that starts a run takes beside its fields.
pub(super) fn arguments(command: Command) -> Command {
    let version = Arg::new("version")
        .long("version")
        .value_name("MODEL@VERSION")
        .required(true)
        .help("The version to evaluate, such as helpdesk@v2");
    let wait = Arg::new("wait")
        .long("wait")
        .action(ArgAction::SetTrue)
        .help("Wait for the verdict, with a progress bar; exits 1 unless it is passed");
    command.arg(version).arg(wait)
}

/// Starts a run, and waits for its verdict if asked to.
///
/// # Errors
/// It is refused, ends without a verdict, or with one that is not `passed`.
pub(super) async fn start(
    client: &ApiClient,
    path: &str,
    mut body: Value,
    typed: &ArgMatches,
    shape: Shape,
) -> Result<()> {
    if let Some(version) = typed.get_one::<String>("version") {
        body["model_version"] = json!(version);
    }
    let run = client.call("POST", path, Some(&body), &[]).await?;
    if !typed.get_flag("wait") {
        return show(&run, shape);
    }
    let task = cell(&run["task"]);
    watch::at_end(client, &format!("/api/v1/tasks/{}", fields::encoded(&task))).await?;
    let run = ended(client, &cell(&run["id"])).await?;
    show(&run, shape)?;
    match (run["verdict"].as_str(), run["error"].as_str()) {
        (Some("passed"), _) => Ok(()),
        (Some(verdict), _) => bail!("the verdict is {verdict}"),
        (None, error) => bail!(
            "it ended {}: {}",
            cell(&run["status"]),
            error.unwrap_or("without a verdict")
        ),
    }
}

/// A run that its task did not end itself is ended a moment later.
async fn ended(client: &ApiClient, id: &str) -> Result<Value> {
    let path = format!("/api/v1/evaluation_runs/{}", fields::encoded(id));
    for _ in 0..50 {
        let run = client.get(&path).await?;
        if !run["finished_at"].is_null() {
            return Ok(run);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bail!(
        "the task of {id} is over, but the run is not; `sluice run show {id}` says how it goes on"
    )
}

/// A run: its verdict with the reasons, then the numbers of each prompt version.
pub(super) fn show(run: &Value, shape: Shape) -> Result<()> {
    if shape.document(run)? {
        return Ok(());
    }
    let outcome = run["verdict"].as_str().or(run["status"].as_str());
    let withdrawn = if run["withdrawn_at"].is_null() {
        ""
    } else {
        ", withdrawn"
    };
    output::line(format!(
        "{}  {}{withdrawn}",
        cell(&run["id"]),
        outcome.unwrap_or("-")
    ))?;
    for (label, field) in [
        ("Version  ", "model_version"),
        ("Artifact ", "artifact_digest"),
        ("Test set ", "test_set"),
        ("Against  ", "baseline_version"),
        ("Task     ", "task"),
        ("Error    ", "error"),
        ("Samples  ", "samples_hidden"),
    ] {
        if let Some(text) = run[field].as_str() {
            output::line(format!("{label}{text}"))?;
        }
    }
    let report = &run["report"];
    for reason in report["reasons"].as_array().into_iter().flatten() {
        output::line(format!(
            "  {:12} {}",
            cell(&reason["verdict"]),
            cell(&reason["text"])
        ))?;
    }
    for prompt in report["prompts"].as_array().into_iter().flatten() {
        numbers(prompt)?;
    }
    Ok(())
}

fn numbers(prompt: &Value) -> Result<()> {
    let verdict = prompt["judgement"]["verdict"].as_str();
    output::line("")?;
    output::line(format!(
        "Prompt {}{}: {} samples, {} failed, {} → {} tokens",
        cell(&prompt["prompt"]),
        verdict.map(|it| format!(" ({it})")).unwrap_or_default(),
        cell(&prompt["samples"]),
        cell(&prompt["failed"]),
        cell(&prompt["tokens"]["input"]),
        cell(&prompt["tokens"]["output"]),
    ))?;
    let against = prompt["against_live"].as_array();
    let rows: Vec<Vec<String>> = prompt["measurements"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|measured| {
            let same = |other: &&Value| other["metric"] == measured["metric"];
            let paired = against
                .into_iter()
                .flatten()
                .find(same)
                .map(|it| &it["paired"]);
            let interval = &measured["interval"];
            vec![
                cell(&measured["metric"]),
                number(&measured["value"]),
                format!(
                    "{} … {}",
                    number(&interval["low"]),
                    number(&interval["high"])
                ),
                cell(&measured["scored"]),
                paired.map_or_else(|| "-".to_owned(), |it| number(&it["difference"])),
                paired.map_or_else(|| "-".to_owned(), |it| number(&it["two_sided"])),
            ]
        })
        .collect();
    output::table(
        &["METRIC", "VALUE", "INTERVAL", "SCORED", "TO LIVE", "P"],
        &rows,
    )?;
    let latency = &prompt["latency_us"];
    if latency.is_object() {
        let ms = |name: &str| latency[name].as_f64().unwrap_or_default() / 1e3;
        output::line(format!(
            "Latency p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms",
            ms("p50"),
            ms("p90"),
            ms("p99")
        ))?;
    }
    Ok(())
}

fn number(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number.abs() >= 1000.0 => format!("{number:.0}"),
        Some(number) => format!("{number:.4}"),
        None => "-".to_owned(),
    }
}

/// The rows of two runs that differ, with what differs in them.
pub(super) async fn diff(
    client: &ApiClient,
    path: &str,
    query: &str,
    limit: u32,
    shape: Shape,
) -> Result<()> {
    let join = if query.is_empty() { '?' } else { '&' };
    let found = client
        .get(&format!("{path}{query}{join}limit={}", limit.min(500)))
        .await?;
    if shape.document(&found)? {
        return Ok(());
    }
    let count = |name: &str| cell(&found[name]);
    output::line(format!(
        "By {}: {} worse, {} the same, {} better, {} unknown",
        count("metric"),
        count("worse"),
        count("same"),
        count("better"),
        count("unknown")
    ))?;
    for row in found["items"].as_array().into_iter().flatten() {
        let score = |side: &str| number(&row[side]["score"]);
        output::line("")?;
        output::line(format!(
            "{}  {}  {} → {}",
            cell(&row["item"]),
            cell(&row["change"]),
            score("before"),
            score("after")
        ))?;
        output::line(format!("  {}", marked(&row["text"])))?;
    }
    Ok(())
}

/// A comparison in one line: `[-before-]` and `{+after+}`.
fn marked(pieces: &Value) -> String {
    let pieces = pieces.as_array().into_iter().flatten();
    pieces
        .map(|piece| {
            let text = cell(&piece["text"]);
            match piece["side"].as_str() {
                Some("before") => format!("[-{text}-]"),
                Some("after") => format!("{{+{text}+}}"),
                _ => text,
            }
        })
        .collect()
}
