//! How a deployment's version is served: what a work order's snapshot holds.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluice_gateway::config::{AllowConfig, Config, DeploymentConfig};

use crate::domain::gate::Requirement;
use crate::domain::record::Deployment;
use crate::domain::secrecy::Secrecy;
use crate::release::controller::split;
use crate::release::planner::Release;
use crate::release::strategy::Strategy;
use crate::store::{Document, Json, StoreError};
use crate::time::Timestamp;

/// A deployment's settings at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub endpoint: String,
    pub clearance: Secrecy,
    /// Thousandths of a core, for each replica.
    pub cpu_millis: i64,
    pub gpus: i64,
    /// For weights and K/V of each replica; 0 leaves it to the process's budget.
    pub memory_bytes: i64,
    pub zone: Option<String>,
    /// Each serving process holds one; more are counted against quotas and run by more processes.
    pub replicas: i64,
    /// What `[[deployment]]` of `sluice.toml` knows, without its name, path and revision.
    pub engine_options: Value,
    pub strategy: Value,
    pub gate_policy: Vec<Requirement>,
}

/// Set by the work order, not by hand.
const OWN: [&str; 5] = ["name", "path", "revision", "department", "clearance"];

impl Settings {
    pub fn of(deployment: &Deployment) -> Self {
        Self {
            endpoint: deployment.endpoint.clone(),
            clearance: deployment.clearance,
            cpu_millis: deployment.cpu_millis,
            gpus: deployment.gpus,
            memory_bytes: deployment.memory_bytes,
            zone: deployment.zone.clone(),
            replicas: deployment.replicas,
            engine_options: deployment.engine_options.0.clone(),
            strategy: deployment.strategy.0.clone(),
            gate_policy: deployment.gate_policy.0.clone(),
        }
    }

    /// # Errors
    /// [`StoreError::Malformed`]: a newer binary wrote it, or a hand.
    pub fn read(snapshot: &Document) -> Result<Self, StoreError> {
        serde_json::from_value(snapshot.0.clone()).map_err(|error| StoreError::Malformed {
            table: "work_orders",
            column: "snapshot".into(),
            problem: error.to_string(),
        })
    }

    pub fn to_document(&self) -> Document {
        // A struct of texts and numbers is always JSON.
        Json(serde_json::to_value(self).unwrap_or_default())
    }

    /// # Errors
    /// [`StoreError::Invalid`], naming the field and what would be right.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.endpoint.contains('@') {
            return Err(StoreError::invalid(
                "endpoint",
                "must not hold @, which stands between a model and a version on trial",
            ));
        }
        let numbers = [
            ("cpu_millis", self.cpu_millis, 0),
            ("gpus", self.gpus, 0),
            ("memory_bytes", self.memory_bytes, 0),
            ("replicas", self.replicas, 1),
        ];
        for (field, value, least) in numbers {
            if value < least {
                return Err(StoreError::invalid(
                    field,
                    format!("is {value}, should be {least} or more"),
                ));
            }
        }
        if let Some(fixed) = self.gate_policy.iter().find(|it| !it.can_be_relaxed()) {
            let may: Vec<_> = Requirement::ALL
                .iter()
                .filter(|it| it.can_be_relaxed())
                .map(|it| it.word())
                .collect();
            return Err(StoreError::invalid(
                "gate_policy",
                format!(
                    "\"{fixed}\" holds for everyone; it may name {}",
                    may.join(", ")
                ),
            ));
        }
        self.strategy()?;
        // The folder is not known yet, and its content is checked when it is loaded.
        self.config(&self.endpoint, Path::new("."), "").map(drop)
    }

    /// Whether records may name all that the options name of this machine and its network.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], naming the field below `engine_options`, what is allowed, and who can allow it.
    pub fn check_allowed(&self, allow: &AllowConfig) -> Result<(), StoreError> {
        match &self.engine_options {
            Value::Object(options) => check_allowed(options, allow),
            _ => Ok(()),
        }
    }

    /// Whether the same is served in the same way, however traffic moves there.
    pub fn serves_as(&self, other: &Self) -> bool {
        let other = Self {
            strategy: self.strategy.clone(),
            gate_policy: self.gate_policy.clone(),
            ..other.clone()
        };
        *self == other
    }

    /// Whether traffic moves to it in steps. Without a strategy all of it is switched at once.
    pub fn is_stepwise(&self) -> bool {
        match &self.strategy {
            Value::Null => false,
            Value::Object(fields) => !fields.is_empty(),
            _ => true,
        }
    }

    /// How traffic moves to it.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], naming the field below `strategy`.
    pub fn strategy(&self) -> Result<Strategy, StoreError> {
        let invalid = |field: &str, problem| match field {
            "strategy" => StoreError::invalid("strategy", problem),
            field => StoreError::invalid(format!("strategy.{field}"), problem),
        };
        let strategy = match &self.strategy {
            Value::Null => Strategy::default(),
            words => Strategy::parse(words.clone())
                .map_err(|error| invalid(&error.field, error.message))?,
        };
        // Headers and sticky keys have to be ones that a request can have.
        split(&strategy, &Release::new(Timestamp::from_micros(0)), "")
            .map_err(|error| invalid("strategy", error.to_string()))?;
        Ok(strategy)
    }

    /// Has other servers compute it; what only an engine of this process knows is left out.
    ///
    /// # Errors
    /// [`StoreError::Invalid`].
    pub(crate) fn move_to(&mut self, upstream: &[String]) -> Result<(), StoreError> {
        let before = match &self.engine_options {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        };
        let was_remote = before.contains_key("upstream");
        let mut fields = if was_remote { before } else { Map::new() };
        fields.insert("upstream".into(), upstream.into());
        self.engine_options = Value::Object(fields);
        Ok(())
    }

    /// Whether other servers compute it.
    pub fn is_remote(&self) -> bool {
        self.engine_options.get("upstream").is_some()
    }

    /// As the gateway loads it.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], naming the field below `engine_options`.
    pub fn config(
        &self,
        name: &str,
        folder: &Path,
        revision: &str,
    ) -> Result<DeploymentConfig, StoreError> {
        let invalid = |problem: String| StoreError::invalid("engine_options", problem);
        let mut fields: Map<String, Value> = match &self.engine_options {
            Value::Object(fields) => fields.clone(),
            Value::Null => Map::new(),
            _ => return Err(invalid("should be a JSON object".into())),
        };
        if let Some(own) = OWN.iter().find(|own| fields.contains_key(**own)) {
            return Err(invalid(format!("`{own}` is set by the work order")));
        }
        fields.insert("name".into(), name.into());
        let mut config: DeploymentConfig = serde_json::from_value(Value::Object(fields))
            .map_err(|error| invalid(error.to_string()))?;
        if config.upstream.is_empty() {
            config.path = Some(folder.to_path_buf());
            config.threads = config.threads.or(threads(self.cpu_millis));
            let memory = usize::try_from(self.memory_bytes).ok();
            config.memory = config.memory.or(memory.filter(|bytes| *bytes > 0));
        }
        let whole = Config {
            deployments: vec![config.clone()],
            ..Config::default()
        };
        whole.validate().map_err(|(field, problem)| {
            match field.strip_prefix("deployment.0.").unwrap_or(&field) {
                "name" => StoreError::invalid("endpoint", problem),
                field => StoreError::invalid(format!("engine_options.{field}"), problem),
            }
        })?;
        config.revision = (!revision.is_empty()).then(|| revision.to_owned());
        Ok(config)
    }
}

/// As [`Settings::check_allowed`], for options that may be a part of others.
///
/// # Errors
/// [`StoreError::Invalid`], naming the field below `engine_options`.
pub fn check_allowed(options: &Map<String, Value>, allow: &AllowConfig) -> Result<(), StoreError> {
    let mut fields = options.clone();
    if let Some(own) = OWN.iter().find(|own| fields.contains_key(**own)) {
        return Err(StoreError::invalid(
            "engine_options",
            format!("`{own}` is set by the server"),
        ));
    }
    fields.insert("name".into(), "options".into());
    let asked: DeploymentConfig = serde_json::from_value(Value::Object(fields))
        .map_err(|error| StoreError::invalid("engine_options", error.to_string()))?;
    allow.check(&asked).map_err(|refused| {
        StoreError::invalid(format!("engine_options.{}", refused.field), refused.problem)
    })
}

/// Whole cores; none asked for leaves it to the engine.
fn threads(cpu_millis: i64) -> Option<usize> {
    usize::try_from(cpu_millis)
        .ok()
        .map(|millis| millis.div_ceil(1000))
        .filter(|threads| *threads > 0)
}
