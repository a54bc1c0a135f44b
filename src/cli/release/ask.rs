//! What the verbs ask the API for.

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::view::View;
use crate::cli::client::ApiClient;
use crate::cli::output;
use crate::cli::records::encoded;

const RELEASES: &str = "/api/v1/releases";
/// The most that the API gives at once.
const PAGE: usize = 500;

/// The path of a release, or of one of its lists or commands.
pub(super) fn path(named: &str, rest: &str) -> String {
    format!("{RELEASES}/{}{rest}", encoded(named))
}

/// What is meant where nothing was named: the one release that is under way.
///
/// # Errors
/// There are several; or there is none and `or_latest` is false.
pub(super) async fn meant(
    client: &ApiClient,
    named: Option<String>,
    or_latest: bool,
) -> Result<String> {
    if let Some(named) = named {
        return Ok(named);
    }
    let active = list(client, &format!("{RELEASES}?active=true"), 10).await;
    let active = active.context("which release is under way; name it, or its deployment")?;
    let active: Vec<View> = active.iter().map(read).collect::<Result<_>>()?;
    match active.as_slice() {
        [one] => Ok(one.id.clone()),
        [] if or_latest => {
            let latest = list(client, RELEASES, 1).await?;
            let latest = latest.first().context("there has been no release yet")?;
            Ok(read::<View>(latest)?.id)
        }
        [] => bail!("no release is under way; `sluice release history` has those that were"),
        several => {
            let names: Vec<&str> = several.iter().map(|it| it.endpoint.as_str()).collect();
            bail!(
                "several releases are under way; name one of {}",
                names.join(", ")
            )
        }
    }
}

/// The release; one that is over comes with the evidence that its end was decided on.
pub(super) async fn show(client: &ApiClient, named: &str) -> Result<Value> {
    let mut shown = client.get(&path(named, "")).await?;
    let view: View = read(&shown)?;
    if view.end().is_some() && view.evidence.is_none() {
        let decisions = decisions(client, &view.id).await?;
        let is_told = |it: &&Value| !it["evidence"].is_null() && it["action"]["action"] != "finish";
        if let Some(last) = decisions.iter().rev().find(is_told) {
            shown["evidence"] = last["evidence"].clone();
        }
    }
    Ok(shown)
}

pub(super) async fn decisions(client: &ApiClient, named: &str) -> Result<Vec<Value>> {
    list(client, &path(named, "/decisions"), usize::MAX).await
}

/// Releases, newest first.
pub(super) async fn history(
    client: &ApiClient,
    deployment: Option<&str>,
    limit: usize,
) -> Result<Vec<Value>> {
    let filter = deployment.map(|it| format!("?deployment={}", encoded(it)));
    let path = format!("{RELEASES}{}", filter.unwrap_or_default());
    list(client, &path, limit).await
}

/// Pages until there are as many as wanted.
pub(super) async fn list(client: &ApiClient, path: &str, wanted: usize) -> Result<Vec<Value>> {
    let mut items: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let join = if path.contains('?') { '&' } else { '?' };
        let limit = (wanted - items.len()).min(PAGE);
        let page = client
            .get(&format!("{path}{join}limit={limit}{cursor}"))
            .await?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(next) if items.len() < wanted => cursor = format!("&cursor={}", encoded(next)),
            _ => return Ok(items),
        }
    }
}

/// Reads a document of the API for people to look at, each text on one line and without what a terminal would obey:
/// whoever may start a release writes its reason into the terminals of all who look.
///
/// # Errors
/// Its fields are others than this version knows.
pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Result<T> {
    read_as_it_is(&on_one_line(value))
}

/// Reads a document of the API. What is printed of its texts is for the caller to make harmless.
///
/// # Errors
/// Its fields are others than this version knows.
pub(super) fn read_as_it_is<T: DeserializeOwned>(value: &Value) -> Result<T> {
    T::deserialize(value)
        .context("the server's answer is not understood; is it of another version? -o json prints it as it is")
}

fn on_one_line(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let shown = text.chars().map(|c| match c {
                '\n' | '\r' | '\t' => ' ',
                c if output::is_unsafe(c) => char::REPLACEMENT_CHARACTER,
                c => c,
            });
            Value::String(shown.collect())
        }
        Value::Array(items) => items.iter().map(on_one_line).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            let shown = fields.map(|(name, value)| (name.clone(), on_one_line(value)));
            Value::Object(shown.collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
