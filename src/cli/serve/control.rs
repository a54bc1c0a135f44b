//! The control plane inside `sluice serve`: started beside the models, never waited for.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use sluice_control::control::{Control, ControlSettings, Open};
use sluice_control::deploy::Shelf;
use sluice_control::evaluation::run::{Evaluate, RowLimits};
use sluice_control::release::webhook::{Courier, CourierSettings, Webhook};
use sluice_control::serving::{PairSettings, RollbackRepeats, Serving, ServingSettings};
use sluice_control::store::{DatabaseUrl, IdempotencyTimes};
use sluice_control::work::{self, WorkSettings};
use sluice_control::{api, upkeep};
use sluice_gateway::Gateway;
use sluice_gateway::server::Stop;
use tokio::task::JoinSet;

use crate::cli::plan::Plan;

/// The control plane of this process.
pub(super) struct Plane {
    gateway: Arc<Gateway>,
    control: Control,
    serving: Arc<Serving>,
    work: WorkSettings,
    hooks: Vec<Webhook>,
    stop: Stop,
    running: JoinSet<()>,
    _own: OwnFolder,
}

impl Plane {
    /// Puts the API under `/api` and opens the database in the background. `None` where it is turned off.
    ///
    /// # Errors
    /// `[control]` says something wrong, or its folder cannot be used.
    pub(super) fn start(gateway: &Arc<Gateway>, stop: &Stop) -> Result<Option<Self>> {
        let config = gateway.config();
        if !config.control.enabled {
            return Ok(None);
        }
        let plan = Plan::of(config)?;
        let hooks = &config.control.releases.webhooks;
        let hooks = Webhook::read(hooks, |name| std::env::var(name).ok())?;
        let control = Control::new(ControlSettings {
            open: !config.auth.required,
            max_body: config.control.max_body,
            idempotency: IdempotencyTimes {
                lease: config.control.idempotency_lease,
                keep: config.control.idempotency_keep,
            },
            body_timeout: config.server.body_timeout,
            pipelines: Some(config.control.tasks.pipelines.clone()),
            allow: config.control.allow.clone(),
        });
        control.set_gateway(Arc::clone(gateway));
        gateway.set_control(api::service(&control));
        let shared = config.data.join("control");
        let own = OwnFolder::take(&shared, &plan.url)
            .with_context(|| format!("data: {} cannot be used", shared.display()))?;
        plan.tighten();
        let serving = Serving::start(
            Arc::clone(gateway),
            Arc::new(Shelf::new(control.clone(), shared.join("models"))),
            Arc::clone(control.wake()),
            &own.path,
            ServingSettings {
                rollback_repeats: RollbackRepeats(config.control.releases.rollback_repeats),
                pairs: PairSettings {
                    most: config.control.releases.pairs,
                    keep: config.control.releases.pairs_keep,
                },
                memory_budget: config.control.memory.map(|bytes| bytes as u64),
                ..ServingSettings::default()
            },
        )
        .with_context(|| format!("data: {} cannot be used", own.path.display()))?;
        serving.publisher().expect_kept();
        control.set_releases(serving.releases().clone());
        let work = plan.work.clone();
        let mut running = JoinSet::new();
        let opening = control.clone();
        running.spawn(async move {
            let artifacts = |store| plan.artifacts(store);
            opening.connect(&plan.url, &plan.store, artifacts).await;
        });
        let (watching, stopped) = (control.clone(), stop.clone());
        let health = Arc::clone(gateway.control_health());
        running.spawn(async move { watching.look_after(&health, stopped.wait()).await });
        let (stopping, stopped) = (control.clone(), stop.clone());
        running.spawn(async move {
            stopped.wait().await;
            stopping.stop();
        });
        Ok(Some(Self {
            gateway: Arc::clone(gateway),
            control,
            serving: Arc::new(serving),
            work,
            hooks,
            stop: stop.clone(),
            running,
            _own: own,
        }))
    }

    /// Serves what the control plane served last, without its database; returns when that is loaded.
    pub(super) async fn restore(&self) {
        self.serving.publisher().restore().await;
    }

    /// From now on, once there is a database, records are followed, work orders driven and tasks done.
    pub(super) fn follow(&mut self) {
        let (control, serving) = (self.control.clone(), Arc::clone(&self.serving));
        let (settings, stop) = (self.work.clone(), self.stop.clone());
        let gateway = Arc::clone(&self.gateway);
        let hooks = std::mem::take(&mut self.hooks);
        self.running.spawn(async move {
            let Some(open) = control.when_open().await else {
                return;
            };
            serving.follow(open.store.clone());
            // Only here: a worker beside a server has no models to ask.
            let evaluate = Evaluate::new(
                gateway,
                Arc::clone(serving.publisher()),
                open.artifacts.clone(),
                RowLimits::default(),
            );
            tokio::join!(
                upkeep::run(open, stop.clone().wait()),
                tell(&control, open, hooks, stop.clone()),
                tasks(open, evaluate, &settings, stop)
            );
        });
    }

    /// Ends all of it. The gateway has drained, and its observer has told of every request.
    pub(super) async fn close(mut self) {
        while self.running.join_next().await.is_some() {}
        self.serving.stop().await;
        self.control.close().await;
    }
}

/// Tells webhooks of what is decided about releases.
async fn tell(control: &Control, open: &Open, hooks: Vec<Webhook>, stop: Stop) {
    if hooks.is_empty() {
        return;
    }
    match Courier::new(open.store.clone(), hooks, CourierSettings::default()) {
        Ok(courier) => courier.run(control.wake(), stop.wait()).await,
        Err(error) => {
            tracing::error!(%error, "control.releases.webhooks: nobody is told of anything")
        }
    }
}

/// Does tasks until the process stops; those in hand may end then, within their time.
async fn tasks(open: &Open, evaluate: Evaluate, settings: &WorkSettings, stop: Stop) {
    if settings.slots == 0 {
        return;
    }
    match work::kinds(open, settings) {
        Ok(kinds) => {
            let worker = work::start(open, kinds.with(evaluate), settings);
            stop.wait().await;
            worker.drain().await;
        }
        Err(error) => tracing::error!(%error, "control.tasks: this process takes no tasks"),
    }
}

/// What was published last and what was used, of one process on one database: others in the same data folder
/// have theirs.
#[derive(Debug)]
struct OwnFolder {
    path: PathBuf,
    _lock: File,
}

/// Processes on one database in one data folder.
const PROCESSES: usize = 256;

impl OwnFolder {
    /// The first that no other process holds, so that a process that starts again finds what it left.
    fn take(shared: &Path, url: &DatabaseUrl) -> std::io::Result<Self> {
        let digest = Sha256::digest(url.to_string());
        let name: String = digest
            .iter()
            .take(6)
            .map(|it| format!("{it:02x}"))
            .collect();
        for number in 1..=PROCESSES {
            let path = shared.join(format!("{name}-{number}"));
            std::fs::create_dir_all(&path)?;
            let lock = File::create(path.join(".lock"))?;
            match lock.try_lock() {
                Ok(()) => return Ok(Self { path, _lock: lock }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(std::io::Error::other(format!(
            "{PROCESSES} processes use it already"
        )))
    }
}
