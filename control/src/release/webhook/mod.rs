//! Tells others what was decided about releases: by posts that are signed as the *Standard Webhooks* specification
//! has it (<https://www.standardwebhooks.com>), and by one line each in the log.
//!
//! The records are the queue: a post is made from a row of `release_decisions`, and a row in `webhook_deliveries` says
//! that it was taken. Nothing is lost by a crash, and what was posted just before one is posted again under
//! the same `webhook-id`. `docs/webhooks.md` is for those who receive them.
//!
//! | part | what it does |
//! |---|---|
//! | `event` | a decision as others are told of it; pure |
//! | `sign` | secrets and signatures; pure |
//! | `courier` | posts what is due, hook by hook |

mod courier;
mod event;
mod sign;
#[cfg(test)]
mod tests;

use std::path::Path;

use reqwest::Url;
use sha2::{Digest as _, Sha256};
use sluice_gateway::config::{Problem, WebhookConfig};

pub use courier::{Courier, CourierSettings};
pub use event::{Event, EventKind, ReleaseEvent, log};
pub use sign::{Secret, SecretError, sign};

/// A receiver, ready to be posted to.
#[derive(Debug)]
pub struct Webhook {
    /// SHA-256 of the URL: what the records know it by.
    pub(crate) id: String,
    pub(crate) target: Target,
    pub(crate) secrets: Vec<Secret>,
    /// None is all.
    events: Vec<EventKind>,
}

/// A URL whose path and query nobody is shown: receivers put their own secrets there.
#[derive(Clone)]
pub(crate) struct Target(pub(crate) Url);

/// A webhook that cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("control.releases.webhooks.{index}.{field}: {problem}")]
pub struct WebhookError {
    index: usize,
    field: &'static str,
    problem: String,
}

impl Webhook {
    /// What is wrong with what the configuration says of webhooks, without reading secrets.
    pub fn problems(configs: &[WebhookConfig]) -> Vec<Problem> {
        let checked = configs.iter().enumerate();
        checked
            .filter_map(|(index, config)| Checked::of(index, config).err())
            .map(WebhookError::into_problem)
            .collect()
    }

    /// Which secrets cannot be used; `variable` reads the environment.
    pub fn unusable_secrets(
        configs: &[WebhookConfig],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Vec<Problem> {
        let read = configs.iter().enumerate();
        read.filter_map(|(index, config)| secrets(index, config, &variable).err())
            .map(WebhookError::into_problem)
            .collect()
    }

    /// Reads the webhooks of a configuration with their secrets; `variable` reads the environment.
    ///
    /// # Errors
    /// Names the field and what would be right, never the secret.
    pub fn read(
        configs: &[WebhookConfig],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Self>, WebhookError> {
        let hooks = configs.iter().enumerate().map(|(index, config)| {
            let Checked { url, events } = Checked::of(index, config)?;
            Ok(Self {
                id: hex(&Sha256::digest(config.url.as_bytes())),
                target: Target(url),
                secrets: secrets(index, config, &variable)?,
                events,
            })
        });
        hooks.collect()
    }

    /// Whether the receiver wants to hear of it.
    pub(crate) fn wants(&self, kind: EventKind) -> bool {
        self.events.is_empty() || self.events.contains(&kind)
    }
}

impl WebhookError {
    fn into_problem(self) -> Problem {
        Problem {
            field: format!("control.releases.webhooks.{}.{}", self.index, self.field),
            message: self.problem,
        }
    }
}

/// What the events of a receiver are signed with.
fn secrets(
    index: usize,
    config: &WebhookConfig,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Secret>, WebhookError> {
    let (field, text) = match (&config.secret_file, &config.secret_env) {
        (Some(file), _) => ("secret_file", from_file(file)),
        (None, Some(name)) => ("secret_env", from_environment(name, variable)),
        (None, None) => (
            "secret_file",
            Err("or `secret_env` must be given".to_owned()),
        ),
    };
    let wrong = |problem| WebhookError {
        index,
        field,
        problem,
    };
    let secrets = Secret::read_all(&text.map_err(wrong)?);
    secrets.map_err(|error| wrong(error.to_string()))
}

struct Checked {
    url: Url,
    events: Vec<EventKind>,
}

impl Checked {
    fn of(index: usize, config: &WebhookConfig) -> Result<Self, WebhookError> {
        let wrong = |field, problem| WebhookError {
            index,
            field,
            problem,
        };
        // The parser's message does not hold the URL.
        let url = Url::parse(&config.url).map_err(|error| wrong("url", error.to_string()))?;
        let events = config.events.iter().map(|name| name.parse());
        let events: Result<Vec<EventKind>, _> = events.collect();
        let events = events.map_err(|error| wrong("events", error.to_string()))?;
        Ok(Self { url, events })
    }
}

fn from_file(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn from_environment(
    name: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, String> {
    variable(name).ok_or_else(|| format!("the environment variable {name} is not set"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
