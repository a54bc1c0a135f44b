//! Python programs that turn a checkpoint into something to serve: found in folders, run as tasks.
//!
//! A pipeline is a folder with a `pipeline.toml`, a lock file of its own, and a `main.py`. Its virtual environment is
//! made when it is first used. How it is started, what it writes and how it reports is said in `pipelines/README.md`.

mod content;
mod convert;
mod parameters;
mod python;
mod run;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use content::{BadParam, ContentName, named};
pub use convert::{Convert, ConvertOutput, ConvertParams};
pub use parameters::{check as check_params, trusting};
pub use python::Version;
pub use run::{Pipelines, Ran};
pub use source::{Checkpoint, check as check_source, looks_into};

/// A pipeline, as its folder says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    pub name: String,
    pub summary: String,
    pub folder: PathBuf,
    /// The program, in `folder`.
    pub entry: String,
    /// The lock file, in `folder`: every package with its version and hashes.
    pub requirements: String,
    /// What its virtual environment is called. Pipelines with the same name and the same lock file share one.
    pub environment: String,
    /// The oldest Python that it runs on.
    pub python: Version,
    /// What its sources are made with: `pytorch`, `tensorflow`.
    pub framework: String,
    /// The JSON Schema of its parameters, where it has written one.
    pub parameters: Option<serde_json::Value>,
}

/// Why a folder is no pipeline.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error("{path}: {source}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{path}: {problem}")]
    Malformed { path: String, problem: String },
    #[error("two pipelines are called {name}: {first} and {second}; rename one")]
    SameName {
        name: String,
        first: String,
        second: String,
    },
}

/// `pipeline.toml` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    summary: String,
    #[serde(default = "default_entry")]
    entry: String,
    #[serde(default = "default_requirements")]
    requirements: String,
    environment: Option<String>,
    python: Option<String>,
    #[serde(default)]
    framework: String,
}

fn default_entry() -> String {
    "main.py".into()
}

fn default_requirements() -> String {
    "requirements.lock.txt".into()
}

const FILE: &str = "pipeline.toml";
const PARAMETERS: &str = "parameters.json";
/// Folders below the root; pipelines lie at most so deep.
const DEPTH: usize = 3;

/// Every pipeline below `root`, by name.
///
/// # Errors
/// [`PipelineError`]: a pipeline that is broken is told when it is looked for, not when it is needed.
pub fn discover(root: &Path) -> Result<BTreeMap<String, Pipeline>, PipelineError> {
    let mut found = BTreeMap::new();
    look_into(root, DEPTH, &mut found)?;
    Ok(found)
}

fn look_into(
    folder: &Path,
    depth: usize,
    found: &mut BTreeMap<String, Pipeline>,
) -> Result<(), PipelineError> {
    let failed = |source| PipelineError::Read {
        path: folder.display().to_string(),
        source,
    };
    if folder.join(FILE).is_file() {
        let pipeline = Pipeline::read(folder)?;
        if let Some(first) = found.get(&pipeline.name) {
            return Err(PipelineError::SameName {
                first: first.folder.display().to_string(),
                second: folder.display().to_string(),
                name: pipeline.name,
            });
        }
        found.insert(pipeline.name.clone(), pipeline);
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Links are not followed: one to a parent would go on for ever.
        if entry.file_type().map_err(failed)?.is_dir() {
            look_into(&entry.path(), depth - 1, found)?;
        }
    }
    Ok(())
}

impl Pipeline {
    /// Reads `folder`'s `pipeline.toml`.
    ///
    /// # Errors
    /// [`PipelineError`], naming the file and the field.
    pub fn read(folder: &Path) -> Result<Self, PipelineError> {
        let path = folder.join(FILE);
        let malformed = |problem: String| PipelineError::Malformed {
            path: path.display().to_string(),
            problem,
        };
        let text = std::fs::read_to_string(&path).map_err(|source| PipelineError::Read {
            path: path.display().to_string(),
            source,
        })?;
        let file: File = toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        let plain = |text: &str| {
            !text.is_empty()
                && text.len() <= 64
                && text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let environment = file.environment.unwrap_or_else(|| file.name.clone());
        // They become parts of paths.
        for (field, name) in [("name", &file.name), ("environment", &environment)] {
            if !plain(name) {
                return Err(malformed(format!(
                    "{field}: \"{name}\" should be letters, digits, - and _, at most 64"
                )));
            }
        }
        for (field, name) in [("entry", &file.entry), ("requirements", &file.requirements)] {
            if !plain(name) || !folder.join(name).is_file() {
                return Err(malformed(format!(
                    "{field}: there is no file \"{name}\" beside it"
                )));
            }
        }
        let python = match &file.python {
            Some(text) => text
                .parse()
                .map_err(|problem| malformed(format!("python: {problem}")))?,
            None => Version::default(),
        };
        Ok(Self {
            name: file.name,
            summary: file.summary,
            folder: folder.to_owned(),
            entry: file.entry,
            requirements: file.requirements,
            environment,
            python,
            framework: file.framework,
            parameters: parameters(folder)?,
        })
    }
}

fn parameters(folder: &Path) -> Result<Option<serde_json::Value>, PipelineError> {
    let path = folder.join(PARAMETERS);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(PipelineError::Read {
                path: path.display().to_string(),
                source,
            });
        }
    };
    let schema = serde_json::from_slice(&text).map_err(|error| PipelineError::Malformed {
        path: path.display().to_string(),
        problem: error.to_string(),
    })?;
    Ok(Some(schema))
}

#[cfg(test)]
mod tests;
