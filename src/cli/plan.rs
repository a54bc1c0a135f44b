//! What a configuration says of the control plane, in the control plane's own types: read by every verb that
//! opens the database.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use sluice_control::artifacts::{ArtifactSettings, Artifacts};
use sluice_control::control::Open;
use sluice_control::release::webhook::Webhook;
use sluice_control::store::{DatabaseUrl, DatabaseUrlError, Store, StoreSettings};
use sluice_control::work::WorkSettings;
use sluice_gateway::config::{Config, Problem, Problems};

/// The control plane of a configuration.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) url: DatabaseUrl,
    pub(crate) store: StoreSettings,
    pub(crate) artifacts: ArtifactSettings,
    pub(crate) work: WorkSettings,
    data: PathBuf,
}

impl Plan {
    /// # Errors
    /// Names the fields and what would be right.
    pub(crate) fn of(config: &Config) -> Result<Self> {
        Self::parse(config).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("the configuration: {}", lines.join("\n"))
        })
    }

    /// # Errors
    /// All that is wrong with `[control]` in the control plane's own words.
    pub(crate) fn parse(config: &Config) -> Result<Self, Vec<Problem>> {
        let control = &config.control;
        let mut problems = Problems::default();
        let url = match &control.database {
            Some(text) => text.parse().unwrap_or_else(|_: DatabaseUrlError| {
                let right = "must be sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE";
                problems.add("control.database", right);
                DatabaseUrl::Sqlite(PathBuf::new())
            }),
            None => DatabaseUrl::Sqlite(config.data.join("sluice.db")),
        };
        let artifacts = artifacts(&control.artifacts, &mut problems);
        problems.extend(artifacts.problems());
        problems.extend(Webhook::problems(&control.releases.webhooks));
        let problems = problems.into_inner();
        if !problems.is_empty() {
            return Err(problems);
        }
        let tasks = &control.tasks;
        Ok(Self {
            url,
            store: StoreSettings {
                connections: control.connections,
                full_sync: control.full_sync,
                ..StoreSettings::default()
            },
            artifacts,
            work: WorkSettings {
                slots: tasks.slots,
                conversions: Some(tasks.conversions).filter(|limit| *limit > 0),
                memory: tasks.memory.map(|bytes| bytes as u64),
                pipelines: tasks.pipelines.clone(),
                environments: tasks
                    .environments
                    .clone()
                    .unwrap_or_else(|| config.data.join("venv")),
                data: config.data.clone(),
                drain: tasks.drain,
            },
            data: config.data.clone(),
        })
    }

    /// Of a named file, of ./sluice.toml where there is one, or of the environment.
    ///
    /// # Errors
    /// The file cannot be read, or says something wrong.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self> {
        Self::of(&configuration(file)?)
    }

    /// The content store on a database that is open.
    ///
    /// # Errors
    /// The setting that is wrong.
    pub(crate) fn artifacts(&self, store: Store) -> Result<Artifacts> {
        Artifacts::open(store, self.artifacts.clone(), &self.data)
            .context("control.artifacts of the configuration")
    }

    /// Takes what an earlier version left open to others away from them: beside the models are served, since there may
    /// be many files.
    pub(crate) fn tighten(&self) {
        let mut folders = vec![self.data.join("control"), self.work.data.join("tasks")];
        folders.extend(Artifacts::folders(&self.artifacts, &self.data));
        std::thread::spawn(move || {
            for folder in folders {
                sluice_control::private::tighten_folder(&folder);
            }
        });
    }

    /// The database and the content store, once.
    ///
    /// # Errors
    /// The database cannot be reached, or a setting is wrong.
    pub(crate) async fn open(&self) -> Result<Open> {
        let store = Store::open(&self.url, &self.store)
            .await
            .with_context(|| format!("database {}", self.url))?;
        let artifacts = self.artifacts(store.clone())?;
        Ok(Open::new(store, artifacts))
    }
}

/// `[control.artifacts]`, with what could be read of it.
fn artifacts(fields: &Map<String, Value>, problems: &mut Problems) -> ArtifactSettings {
    let mut fields = Value::Object(fields.clone());
    loop {
        let error = match serde_path_to_error::deserialize(fields.clone()) {
            Ok(settings) => return settings,
            Err(error) => error,
        };
        let message = error.inner().to_string();
        let mut path: Vec<String> = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                Segment::Map { key } => Some(key.clone()),
                // A list goes as a whole.
                Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown => None,
            })
            .collect();
        if let (true, Some(name)) = (
            message.starts_with("unknown field"),
            message.split('`').nth(1),
        ) && path.last().is_none_or(|last| last != name)
        {
            path.push(name.to_owned());
        }
        let field = format!("control.artifacts.{}", path.join("."));
        problems.add(field, format!("cannot be read: {message}"));
        let parent = path.split_last().and_then(|(last, above)| {
            let parent = above
                .iter()
                .try_fold(&mut fields, |it, part| it.get_mut(part))?;
            parent.as_object_mut()?.remove(last)
        });
        if parent.is_none() {
            return ArtifactSettings::default();
        }
    }
}

/// The configuration that a verb works by.
///
/// # Errors
/// The file cannot be read, or says something wrong.
pub(crate) fn configuration(file: Option<&Path>) -> Result<Config> {
    let default = Path::new(super::serve::DEFAULT_FILE);
    Ok(match file {
        Some(path) => Config::load(path)?,
        None if default.exists() => Config::load(default)?,
        None => Config::default().with_environment(|name| std::env::var(name).ok())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_holds_every_default_of_content() -> Result<()> {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("sluice.example.toml");
        let plan = Plan::of(&Config::load(&example)?)?;
        let default = ArtifactSettings::default();
        assert_eq!(format!("{:?}", plan.artifacts), format!("{default:?}"));
        Ok(())
    }

    #[test]
    fn an_event_that_is_none_is_named() -> Result<()> {
        let source = "[control.releases]\nwebhooks = [{ url = \"https://h/\", secret_env = \"A\", events = [\"x\"] }]\n";
        let config = Config::parse(source, Path::new("sluice.toml"))?;
        let problem = Plan::of(&config).map_err(|error| format!("{error:#}"));
        assert!(problem.is_err_and(|text| {
            text.contains("`control.releases.webhooks.0.events` \"x\" is no event")
        }));
        Ok(())
    }

    #[test]
    fn what_is_wrong_with_content_is_named() {
        let mut config = Config::default();
        let upload = serde_json::json!({"max_open": "many"});
        config.control.artifacts.insert("upload".into(), upload);
        let problem = Plan::of(&config).map_err(|error| format!("{error:#}"));
        assert!(problem.is_err_and(|text| text.contains("control.artifacts.upload.max_open")),);
    }
}
