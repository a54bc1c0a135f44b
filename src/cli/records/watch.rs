//! Following something until it is over.

use anyhow::{Result, bail};
use serde_json::Value;

use super::view::cell;
use crate::cli::client::ApiClient;
use crate::cli::output::{self, Shape};

/// Ends that are no success.
const FAILED: &[&str] = &[
    "failed",
    "timed_out",
    "cancelled",
    "rejected",
    "aborted",
    "rolled_back",
    "rollback_failed",
];

/// Where to follow what a request began: a task, a work order, or the task of a run.
pub(super) fn path_of(answer: &Value) -> Option<String> {
    [&answer["task"], &answer["id"]]
        .into_iter()
        .filter_map(Value::as_str)
        .find_map(|id| match id.split_once('_')?.0 {
            "tsk" => Some(format!("/tasks/{id}")),
            "wo" => Some(format!("/work_orders/{id}")),
            _ => None,
        })
}

/// Shows progress on standard error while it goes on, and the record on standard output at the end.
///
/// # Errors
/// It ended without success, or the server cannot be reached.
pub(super) async fn until_over(client: &ApiClient, path: &str, shape: Shape) -> Result<()> {
    let record = at_end(client, path).await?;
    let state = cell(&record["state"]);
    if !shape.document(&record)? {
        output::line(format!("{} {state}", cell(&record["id"])))?;
    }
    succeeded(&record)
}

/// # Errors
/// How and why a record did not end well.
pub(super) fn succeeded(record: &Value) -> Result<()> {
    let state = cell(&record["state"]);
    if FAILED.contains(&state.as_str()) {
        let error = &record["error"];
        let reason = error["message"]
            .as_str()
            .or(record["ended_because"].as_str());
        bail!(
            "it ended {state}{}",
            reason.map(|it| format!(": {it}")).unwrap_or_default()
        );
    }
    Ok(())
}

/// Shows progress until it is over, however it ends; the record as it is then.
pub(super) async fn at_end(client: &ApiClient, path: &str) -> Result<Value> {
    let mut events = client.follow(&format!("{path}/events")).await?;
    while let Some(event) = events.next().await? {
        show(&event);
    }
    output::progress("");
    client.get(path).await
}

/// A line of the log stays; progress is overwritten.
fn show(event: &Value) {
    if let Some(state) = event["state"].as_str() {
        let bar = match event["progress_fraction"].as_f64() {
            Some(fraction) => output::bar(fraction),
            None => String::new(),
        };
        let message = event["progress_message"].as_str().unwrap_or("");
        output::progress(&format!("{state:12} {bar} {message}"));
    } else if let Some(to) = event["to_state"].as_str() {
        output::note(format!("{} → {to}", cell(&event["event"])));
    } else if event["kind"] == "log" {
        output::progress("");
        let text = event["body"]["text"].as_str().or(event["body"].as_str());
        output::note(text.map_or_else(|| cell(&event["body"]), str::to_owned));
    }
}
