//! Content in a pipeline's parameters. A caller names it as `artifact:ID` or `artifact:ID/path/in/it`, and the pipeline
//! is given a place on its worker's disk. Any other text that could be a place of the worker's machine is refused:
//! a caller must not read the server's files through a conversion.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::artifacts::{Artifacts, check_path};
use crate::id::ArtifactId;
use crate::tasks::TaskFailure;
use crate::work::failed;

const MARK: &str = "artifact:";

/// An artifact, or one file or folder in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentName {
    pub artifact: ArtifactId,
    pub path: Option<String>,
}

/// A parameter that is not acceptable: its path in the parameters, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadParam {
    pub field: String,
    pub problem: String,
}

impl BadParam {
    pub(super) fn new(field: &str, problem: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            problem: problem.into(),
        }
    }
}

impl std::fmt::Display for ContentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{MARK}{}/{path}", self.artifact),
            None => write!(f, "{MARK}{}", self.artifact),
        }
    }
}

impl ContentName {
    /// `None` for a text that does not name content.
    ///
    /// # Errors
    /// What is wrong with a text that should.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        let rest = text.strip_prefix(MARK)?;
        let (id, path) = match rest.split_once('/') {
            Some((id, path)) => (id, Some(path)),
            None => (rest, None),
        };
        Some(match (id.parse(), path.map(check_path)) {
            (Err(_), _) => Err(format!(
                "should be {MARK}ID or {MARK}ID/path, with the id of an artifact"
            )),
            (_, Some(Err(error))) => Err(error.to_string()),
            (Ok(artifact), _) => Ok(Self {
                artifact,
                path: path.map(str::to_owned),
            }),
        })
    }
}

/// The content that parameters name, each with its field.
///
/// # Errors
/// The first field that is a place of the machine rather than content, or names content in a wrong way.
pub fn named(params: &Json) -> Result<Vec<(String, ContentName)>, BadParam> {
    let mut found = Vec::new();
    each_text(params, "params", &mut |field, text| {
        match ContentName::parse(text) {
            Some(Ok(name)) => found.push((field.to_owned(), name)),
            Some(Err(problem)) => return Err(BadParam::new(field, problem)),
            None if is_place(text) => {
                return Err(BadParam::new(
                    field,
                    format!(
                        "is a place of the machine; upload what is there, and name it as {MARK}ID"
                    ),
                ));
            }
            None => {}
        }
        Ok(())
    })?;
    Ok(found)
}

fn each_text(
    value: &Json,
    field: &str,
    see: &mut dyn FnMut(&str, &str) -> Result<(), BadParam>,
) -> Result<(), BadParam> {
    match value {
        Json::String(text) => see(field, text),
        Json::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| each_text(item, &format!("{field}[{index}]"), see)),
        Json::Object(fields) => fields
            .iter()
            .try_for_each(|(name, item)| each_text(item, &format!("{field}.{name}"), see)),
        _ => Ok(()),
    }
}

/// Whether a program could take a text for a path out of its working folder, or for an address.
fn is_place(text: &str) -> bool {
    text.starts_with(['/', '~', '\\'])
        || text.contains("://")
        || text.split(['/', '\\']).any(|name| name == "..")
}

/// The parameters with content as paths below `folder`, where it is put for this run.
pub(super) async fn placed(
    artifacts: &Artifacts,
    params: &Json,
    folder: &Path,
) -> Result<Json, TaskFailure> {
    let names = named(params).map_err(|bad| TaskFailure::lasting("bad_params", bad.to_string()))?;
    let mut params = params.clone();
    for (_, name) in names {
        let place = place(artifacts, &name, folder).await?;
        let place = place.to_str().ok_or_else(|| {
            TaskFailure::lasting("bad_folder", "the worker's data folder is no UTF-8")
        })?;
        replace(&mut params, &name.to_string(), place);
    }
    Ok(params)
}

async fn place(
    artifacts: &Artifacts,
    name: &ContentName,
    folder: &Path,
) -> Result<PathBuf, TaskFailure> {
    let whole = artifacts.materialise(name.artifact, folder).await;
    let whole = whole.map_err(failed)?;
    Ok(match &name.path {
        Some(path) => whole.join(path),
        None => whole,
    })
}

fn replace(value: &mut Json, name: &str, place: &str) {
    match value {
        Json::String(text) if text == name => place.clone_into(text),
        Json::Array(items) => items.iter_mut().for_each(|item| replace(item, name, place)),
        Json::Object(fields) => fields
            .values_mut()
            .for_each(|item| replace(item, name, place)),
        _ => {}
    }
}
