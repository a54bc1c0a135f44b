//! From a version to a model that can be asked: the live revision as it is served here, or one that is loaded on trial
//! beside it for as long as the run needs it.

use std::sync::Arc;

use serde_json::{Map, Value};
use sluice_gateway::Gateway;
use sluice_gateway::access::{Audience, Rights};
use sluice_gateway::in_house::InHouse;
use sluice_gateway::router::{Deployment as Routed, Standing};

use super::plan::RunSettings;
use crate::deploy::{Blueprint, Settings};
use crate::domain::record::{Department, Deployment, Model, ModelVersion, Principal};
use crate::domain::secrecy::Secrecy;
use crate::id::PrincipalId;
use crate::publish::{Publisher, Standing as Held, Trial, TrialError, clearance, rights};
use crate::sandbox::render::SharedRenderer;
use crate::sandbox::{End, Ended, Shared};
use crate::store::{Listing, Store, StoreError, Stored};
use crate::tasks::TaskFailure;

/// Who asks, as the engine's queues see it: one tenant among the others.
const WHO: &str = "evaluation";

/// Where models are found, and loaded if they are not there.
#[derive(Debug, Clone)]
pub(super) struct Models {
    pub(super) gateway: Arc<Gateway>,
    pub(super) publisher: Arc<Publisher>,
}

/// A version that answers. Dropped, its trial ends.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) model: InHouse,
    /// The process that holds it, where it is on trial here.
    held: Option<Shared>,
    _trial: Option<OnTrial>,
}

impl Target {
    /// Works for as long as the version answers: the end of its process is the end of the work, with the reason.
    pub(super) async fn while_it_lives<T>(
        &self,
        work: impl Future<Output = Result<T, TaskFailure>>,
    ) -> Result<T, TaskFailure> {
        let Some(held) = &self.held else {
            return work.await;
        };
        tokio::select! {
            done = work => done,
            ended = held.ended() => Err(failed(self.model.model(), &ended)),
        }
    }
}

/// The same content would end the next process as it ended this one.
fn failed(name: &str, ended: &Ended) -> TaskFailure {
    let code = match ended.end {
        End::NotLoaded => "not_loaded",
        End::Stopped | End::Memory | End::Time | End::Crashed => "model_process",
    };
    TaskFailure::lasting(code, format!("{name}: {ended}"))
}

/// Ends a trial when it is dropped, however the run ends.
#[derive(Debug)]
struct OnTrial {
    publisher: Arc<Publisher>,
    trial: Option<Trial>,
}

impl Drop for OnTrial {
    fn drop(&mut self) {
        if let Some(trial) = self.trial.take() {
            let publisher = Arc::clone(&self.publisher);
            // Without a runtime the process is ending, and its models with it.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { publisher.end_trial(trial).await });
            }
        }
    }
}

impl Models {
    /// What renders a run's prompts.
    pub(super) async fn renderer(&self) -> Result<SharedRenderer, TaskFailure> {
        let begun = self.publisher.renderer().await;
        begun.map_err(|ended| TaskFailure::passing("prompt_process", ended.to_string()))
    }

    /// A deployment of this process, by its endpoint,
    /// that `author` may use. One that he may not is not there for him, as for his own requests; `None` is nobody in
    /// particular, where there is no authentication.
    pub(super) fn deployment(&self, endpoint: &str, author: Option<&Rights>) -> Option<InHouse> {
        let routes = self.gateway.routes();
        let found = routes.served(endpoint)?;
        let may_use = author.is_none_or(|rights| found.audience.admits(rights));
        may_use.then(|| self.in_house(found.stable()))
    }

    /// What a person may use, as his keys may; `None` where nobody is told apart.
    pub(super) async fn rights(
        &self,
        store: &Store,
        person: PrincipalId,
    ) -> Result<Option<Rights>, StoreError> {
        if !self.gateway.config().auth.required {
            return Ok(None);
        }
        let principal = store.get::<Principal>(person).await?;
        let department = store.get::<Department>(principal.department).await?;
        let file = |id: &str| self.gateway.file_key(id);
        let standing = Held::of(&principal, &file);
        Ok(Some(standing.map_or_else(Rights::default, |standing| {
            rights(standing.role, standing.clearance, &department.name, person)
        })))
    }

    fn in_house(&self, deployment: &Arc<Routed>) -> InHouse {
        InHouse::new(Arc::clone(&self.gateway), Arc::clone(deployment), WHO)
    }

    /// The version, loaded if nothing serves it here.
    ///
    /// # Errors
    /// [`TaskFailure`]: it cannot be loaded, or not now.
    pub(super) async fn version(
        &self,
        store: &Store,
        model: &Stored<Model>,
        version: &Stored<ModelVersion>,
        settings: &RunSettings,
    ) -> Result<Target, TaskFailure> {
        let name = format!("{}@v{}", model.name, version.number);
        if let Some(model) = self.served(&version.id.to_string(), &name) {
            return Ok(Target {
                model,
                held: self.publisher.on_trial(&name).await,
                _trial: None,
            });
        }
        let digest = version.digest.clone().ok_or_else(|| {
            TaskFailure::lasting(
                "not_registered",
                format!("{name} has no content; register it first"),
            )
        })?;
        let settings = trial_settings(store, model, settings, &name).await?;
        let allow = &self.gateway.config().control.allow;
        settings
            .check_allowed(allow)
            .map_err(|error| TaskFailure::lasting("not_allowed", error.to_string()))?;
        let department = store.get::<Department>(model.department).await?;
        let audience =
            Audience::of_department(department.name.as_str(), clearance(settings.clearance));
        let blueprint = Blueprint {
            key: name.as_str().into(),
            revision: format!("v{}-trial", version.number),
            artifact: version.artifact,
            digest,
            settings,
            standing: Standing {
                deployment: "".into(),
                version: version.id.to_string().into(),
                hidden: true,
                audience: Arc::new(audience),
            },
            name: name.clone(),
        };
        let trial = self
            .publisher
            .begin_trial(blueprint)
            .await
            .map_err(|error| match error {
                TrialError::Store(error) => error.into(),
                // Another run of the same version came first; the next attempt finds what that one loaded.
                TrialError::Taken(_) => TaskFailure::passing("busy", error.to_string()),
                // Memory may be free again by the next attempt.
                TrialError::Load { .. } => TaskFailure::passing("not_loaded", error.to_string()),
                TrialError::Ended { name, ended } => failed(&name, &ended),
            })?;
        let on_trial = OnTrial {
            publisher: Arc::clone(&self.publisher),
            trial: Some(trial),
        };
        let model = self.served(&version.id.to_string(), &name).ok_or_else(|| {
            TaskFailure::passing(
                "not_loaded",
                format!("{name} was loaded and is not there any more"),
            )
        })?;
        Ok(Target {
            model,
            held: self.publisher.on_trial(&name).await,
            _trial: Some(on_trial),
        })
    }

    /// The version where it is live, or on trial already.
    fn served(&self, version: &str, trial: &str) -> Option<InHouse> {
        let routes = self.gateway.routes();
        let is_it = |deployment: &&Arc<Routed>| *deployment.standing.version == *version;
        let found = routes
            .deployments()
            .iter()
            .find(is_it)
            .or_else(|| routes.find(trial).filter(is_it));
        found.map(|deployment| self.in_house(deployment))
    }
}

/// How a version is loaded on trial: as its deployment would serve it.
async fn trial_settings(
    store: &Store,
    model: &Stored<Model>,
    wanted: &RunSettings,
    name: &str,
) -> Result<Settings, TaskFailure> {
    let deployment = deployment_of(store, model, wanted).await?;
    let mut settings =
        deployment.map_or_else(|| plain(name), |deployment| Settings::of(&deployment));
    let mut options = match settings.engine_options {
        Value::Object(options) => options,
        _ => Map::new(),
    };
    options.extend(wanted.engine_options.clone());
    settings.engine_options = Value::Object(options);
    Ok(settings)
}

fn plain(name: &str) -> Settings {
    Settings {
        endpoint: name.to_owned(),
        clearance: Secrecy::Public,
        cpu_millis: 0,
        gpus: 0,
        memory_bytes: 0,
        zone: None,
        replicas: 1,
        engine_options: Value::Object(Map::new()),
        strategy: Value::Object(Map::new()),
        gate_policy: Vec::new(),
    }
}

/// The deployment that the settings name, or the model's only one.
///
/// # Errors
/// [`StoreError::Invalid`] where the model has no deployment of that name.
pub(super) async fn deployment_of(
    store: &Store,
    model: &Stored<Model>,
    settings: &RunSettings,
) -> Result<Option<Stored<Deployment>>, StoreError> {
    let listing = Listing::<Deployment>::new()
        .is("model", &model.id)
        .is_if("endpoint", settings.deployment.as_ref())
        .limit(2);
    let mut found = store.list(&listing).await?.items;
    match (&settings.deployment, found.len()) {
        (Some(endpoint), 0) => Err(StoreError::invalid(
            "settings.deployment",
            format!("{} has no deployment {endpoint}", model.name),
        )),
        (None, 2) => Ok(None),
        _ => Ok(found.pop()),
    }
}
