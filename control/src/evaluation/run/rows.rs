//! The rows of a test set: JSON lines in the dataset version's artifact.

use std::collections::HashMap;

use futures_util::TryStreamExt as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::plan::Ask;
use crate::artifacts::{ArtifactError, Artifacts, File};
use crate::domain::record::DatasetVersion;
use crate::tasks::TaskFailure;

/// What a test set may hold, so that a mistake does not fill the memory: all of it is held while a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RowLimits {
    /// Rows of one file.
    pub rows: usize,
    /// Bytes of one file.
    pub bytes: u64,
}

impl Default for RowLimits {
    fn default() -> Self {
        Self {
            rows: 200_000,
            bytes: 256 << 20,
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Place in the file, from 0.
    pub(super) ordinal: i64,
    /// Its own id, or its number from 1: samples of two runs pair by it.
    pub(super) item: String,
    pub(super) tags: Vec<String>,
    pub(super) columns: Map<String, Value>,
}

/// Reads the rows of a dataset version.
///
/// # Errors
/// [`TaskFailure`], naming the file, the line and what would be right.
pub(super) async fn read(
    artifacts: &Artifacts,
    version: &DatasetVersion,
    ask: &Ask,
    limits: RowLimits,
) -> Result<Vec<Row>, TaskFailure> {
    let file = choose(&files(artifacts, version).await?, ask)?;
    let text = content(artifacts, &file, limits).await?;
    Ok(parse(&file.path, &text, ask, limits)?)
}

/// Reads the documents of a corpus: id and text.
///
/// # Errors
/// As [`read`].
pub(super) async fn corpus(
    artifacts: &Artifacts,
    version: &DatasetVersion,
    ask: &Ask,
    limits: RowLimits,
) -> Result<Vec<(String, String)>, TaskFailure> {
    let name = corpus_file(ask);
    let file = named(&files(artifacts, version).await?, name)?;
    let text = content(artifacts, &file, limits).await?;
    let documents = lines(name, &text, limits)?
        .into_iter()
        .map(|(number, columns)| {
            let text = |column: &str| columns.get(column).and_then(Value::as_str);
            match (text("id").or_else(|| text("_id")), text("text")) {
                (Some(id), Some(text)) => Ok((id.to_owned(), text.to_owned())),
                _ => Err(bad(format!(
                    "{name}, line {number}: a document has the texts `id` and `text`"
                ))),
            }
        })
        .collect::<Result<_, BadTestSet>>()?;
    Ok(documents)
}

fn corpus_file(ask: &Ask) -> &str {
    ask.corpus.as_deref().unwrap_or("corpus.jsonl")
}

/// Why a test set cannot be asked; names the file, the line or the row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadTestSet(pub(super) String);

impl From<BadTestSet> for TaskFailure {
    fn from(error: BadTestSet) -> Self {
        Self::lasting("bad_test_set", error.0)
    }
}

fn bad(message: impl Into<String>) -> BadTestSet {
    BadTestSet(message.into())
}

async fn files(artifacts: &Artifacts, version: &DatasetVersion) -> Result<Vec<File>, TaskFailure> {
    let artifact = version.artifact.ok_or_else(|| {
        bad("the test set's content is not here: it was registered by its digest only")
    })?;
    artifacts
        .files(artifact)
        .await
        .map_err(|error| unreadable(&error))
}

fn unreadable(error: &ArtifactError) -> TaskFailure {
    TaskFailure::passing("test_set_unreadable", error.to_string())
}

fn choose(files: &[File], ask: &Ask) -> Result<File, BadTestSet> {
    if let Some(name) = &ask.file {
        return named(files, name);
    }
    let rows: Vec<&File> = files
        .iter()
        .filter(|file| file.path.ends_with(".jsonl") && file.path != corpus_file(ask))
        .collect();
    match rows[..] {
        [only] => Ok(only.clone()),
        [] => Err(bad(format!(
            "the test set has no .jsonl file; it has {}",
            paths(files)
        ))),
        _ => Err(bad(format!(
            "the test set has several .jsonl files; name one as metrics.ask.file: {}",
            paths(files)
        ))),
    }
}

fn named(files: &[File], name: &str) -> Result<File, BadTestSet> {
    let found = files.iter().find(|file| file.path == name);
    found.cloned().ok_or_else(|| {
        bad(format!(
            "the test set has no file {name}; it has {}",
            paths(files)
        ))
    })
}

fn paths(files: &[File]) -> String {
    let mut paths: Vec<&str> = files.iter().take(20).map(|file| &*file.path).collect();
    if files.len() > paths.len() {
        paths.push("…");
    }
    paths.join(", ")
}

async fn content(
    artifacts: &Artifacts,
    file: &File,
    limits: RowLimits,
) -> Result<String, TaskFailure> {
    if file.bytes > limits.bytes {
        let File { path, bytes, .. } = file;
        return Err(bad(format!(
            "{path} is {bytes} bytes, more than {} for an evaluation",
            limits.bytes
        ))
        .into());
    }
    let pieces = artifacts
        .read(file.digest)
        .await
        .map_err(|error| unreadable(&error))?;
    let whole = pieces
        .try_fold(Vec::new(), async |mut whole, piece| {
            whole.extend_from_slice(&piece);
            Ok(whole)
        })
        .await
        .map_err(|error| unreadable(&error))?;
    let text = String::from_utf8(whole);
    Ok(text.map_err(|error| bad(format!("{} is not UTF-8: {error}", file.path)))?)
}

/// An object with its line's number, from 1.
type Line = (usize, Map<String, Value>);

/// The objects of a file of JSON lines.
fn lines(path: &str, text: &str, limits: RowLimits) -> Result<Vec<Line>, BadTestSet> {
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() {
            continue;
        }
        if found.len() == limits.rows {
            return Err(bad(format!(
                "{path} has more than {} rows, which is the limit of an evaluation",
                limits.rows
            )));
        }
        let columns = serde_json::from_str(line).map_err(|error| {
            bad(format!(
                "{path}, line {number}: should be a JSON object: {error}"
            ))
        })?;
        found.push((number, columns));
    }
    if found.is_empty() {
        return Err(bad(format!("{path} has no rows")));
    }
    Ok(found)
}

/// The rows of a file; no two of one id.
///
/// # Errors
/// [`BadTestSet`].
pub(super) fn parse(
    path: &str,
    text: &str,
    ask: &Ask,
    limits: RowLimits,
) -> Result<Vec<Row>, BadTestSet> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut rows = Vec::new();
    for (ordinal, (number, columns)) in (0..).zip(lines(path, text, limits)?) {
        let at = |problem: String| bad(format!("{path}, line {number}: {problem}"));
        let item = match (
            columns.get(ask.columns.id.as_deref().unwrap_or("id")),
            &ask.columns.id,
        ) {
            (Some(Value::String(id)), _) => id.clone(),
            (Some(Value::Number(id)), _) => id.to_string(),
            (None, None) => (ordinal + 1).to_string(),
            (None, Some(column)) => {
                let names: Vec<&str> = columns.keys().map(String::as_str).take(20).collect();
                return Err(at(format!(
                    "has no column `{column}`; it has {}",
                    names.join(", ")
                )));
            }
            (_, column) => {
                let column = column.as_deref().unwrap_or("id");
                return Err(at(format!("`{column}` should be a text or a number")));
            }
        };
        if let Some(earlier) = seen.insert(item.clone(), number) {
            return Err(at(format!("has the id {item}, as line {earlier} has")));
        }
        let tags = tags(&columns, ask).map_err(at)?;
        rows.push(Row {
            ordinal,
            item,
            tags,
            columns,
        });
    }
    Ok(rows)
}

fn tags(columns: &Map<String, Value>, ask: &Ask) -> Result<Vec<String>, String> {
    let column = ask.columns.tags.as_deref().unwrap_or("tags");
    let text = |value: &Value| match value {
        Value::String(tag) => Ok(tag.clone()),
        _ => Err(format!("`{column}` should be a text or a list of texts")),
    };
    match columns.get(column) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tags)) => tags.iter().map(text).collect(),
        Some(one) => Ok(vec![text(one)?]),
    }
}

#[cfg(test)]
mod tests;
