//! What of the control plane runs inside a serving process, beside its API: models, publishing, work orders,
//! and the ledger. It is started before there is a database, and never waited for by the data plane.
//!
//! ```no_run
//! # use std::{path::Path, sync::Arc};
//! # use sluice_control::{control::Control, deploy::Shelf, serving::{Serving, ServingSettings}, store::Store};
//! # async fn example(
//! #     gateway: Arc<sluice_gateway::Gateway>, control: Control, store: Store,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let folder = Path::new("data/control");
//! let shelf = Arc::new(Shelf::new(control.clone(), folder.join("models")));
//! let (wake, settings) = (control.wake().clone(), ServingSettings::default());
//! let serving = Serving::start(gateway.clone(), shelf, wake, folder, settings)?;
//! serving.publisher().restore().await; // what was served before, without a database
//! gateway.set_ready(true);
//! serving.follow(store); // once it is open
//! // … the gateway has drained:
//! gateway.observer().finish();
//! serving.stop().await;
//! # Ok(()) }
//! ```

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use sluice_engine::backend::onnx::default_budget;
use sluice_gateway::Gateway;
use sluice_gateway::config::ReleasesConfig;
use sluice_gateway::release::ReleaseSink;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::alive::until_it_ends;
use crate::deploy::{Artifacts, Deployments, Driver, DriverSettings, Replicas};
use crate::publish::{Publisher, SnapshotFile};
use crate::release::controller::{Controller, Recorder, Releases};
use crate::release::sample::{PairKeeper, PairWriter};
use crate::sandbox::{ChildHosts, HostProgram, Hosts};
use crate::store::Store;
use crate::usage::{Ledger, LedgerSettings};

/// `[control]`, as far as it is about serving.
#[derive(Debug, Clone, Default)]
pub struct ServingSettings {
    /// Bytes for weights and K/V of all replicas that the control plane loads; `None` is 60 % of what the host or its
    /// control group has available at the start.
    pub memory_budget: Option<u64>,
    /// The program that holds models on trial, as a child.
    pub host: HostProgram,
    pub driver: DriverSettings,
    pub ledger: LedgerSettings,
    /// Pairs of answers that are kept of each release, and how long.
    pub pairs: PairSettings,
    /// For so long a roll-back after another one is the same wish.
    pub rollback_repeats: RollbackRepeats,
}

/// How long that is.
#[derive(Debug, Clone, Copy)]
pub struct RollbackRepeats(pub Duration);

impl Default for RollbackRepeats {
    fn default() -> Self {
        Self(ReleasesConfig::default().rollback_repeats)
    }
}

/// What is kept of copied requests.
#[derive(Debug, Clone, Copy)]
pub struct PairSettings {
    pub most: usize,
    pub keep: Duration,
}

impl Default for PairSettings {
    fn default() -> Self {
        let config = ReleasesConfig::default();
        Self {
            most: config.pairs,
            keep: config.pairs_keep,
        }
    }
}

/// The running parts. Dropped without [`Serving::stop`], they end as in a crash.
#[derive(Debug)]
pub struct Serving {
    replicas: Arc<Replicas>,
    publisher: Arc<Publisher>,
    ledger: Arc<Ledger>,
    recorder: Arc<Recorder>,
    releases: Releases,
    settings: ServingSettings,
    /// Until there is a database to write to.
    pairs: Mutex<Option<PairWriter>>,
    store: Arc<OnceLock<Store>>,
    wake: Arc<Notify>,
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

impl Serving {
    /// Starts the ledger, which needs no database to begin with. `wake` is notified of commits that the publisher and
    /// the driver should hear of at once; others are seen within a second. `folder` is the control plane's own.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn start(
        gateway: Arc<Gateway>,
        artifacts: Arc<dyn Artifacts>,
        wake: Arc<Notify>,
        folder: &Path,
        settings: ServingSettings,
    ) -> std::io::Result<Self> {
        let budget = settings.memory_budget.unwrap_or_else(default_budget);
        let ledger = Ledger::open(folder.join("usage"), settings.ledger.clone())?;
        gateway.observer().tell(ledger.tally());
        let replicas = Replicas::new(Arc::clone(&gateway), artifacts, budget);
        let file = SnapshotFile::in_folder(folder);
        let releases = Arc::clone(gateway.releases());
        let hosts = ChildHosts::new(Arc::clone(&gateway), settings.host.clone());
        let hosts: Arc<dyn Hosts> = Arc::new(hosts);
        let publisher = Publisher::new(gateway, Arc::clone(&replicas), hosts, file);
        releases.tell(Arc::clone(publisher.watches()) as Arc<dyn ReleaseSink>);
        let PairSettings { most, keep } = settings.pairs;
        let (keeper, pairs) = PairKeeper::new(most, keep);
        publisher.watches().keep_pairs(keeper);
        let recorder = Recorder::new(Arc::clone(&publisher), folder);
        let serving = Self {
            releases: Releases::new(
                Arc::clone(&publisher),
                Arc::clone(&recorder),
                Arc::clone(&wake),
            )
            .repeating_within(settings.rollback_repeats.0),
            recorder,
            publisher,
            replicas,
            ledger,
            settings,
            pairs: Mutex::new(Some(pairs)),
            store: Arc::default(),
            wake,
            stop: watch::Sender::new(false),
            tasks: Mutex::default(),
        };
        let (ledger, store) = (Arc::clone(&serving.ledger), Arc::clone(&serving.store));
        let stop = serving.stop.subscribe();
        let run = async move {
            let run = || Arc::clone(&ledger).run(|| store.get().cloned(), over(stop.clone()));
            until_it_ends("ledger of usage", run).await;
        };
        serving.tasks.lock().spawn(run);
        let (recorder, stop) = (Arc::clone(&serving.recorder), serving.stop.subscribe());
        serving.tasks.lock().spawn(async move {
            let run = || recorder.run(over(stop.clone()));
            until_it_ends("recorder of what was taken back", run).await;
        });
        Ok(serving)
    }

    /// The database is open: from now on its records are followed, and work orders driven. Once; a second store is
    /// ignored.
    pub fn follow(&self, store: Store) {
        if self.store.set(store.clone()).is_err() {
            return;
        }
        self.publisher.follow(store.clone());
        let deployments = Deployments::new(store.clone(), Arc::clone(&self.wake));
        self.recorder.follow(store.clone(), deployments.clone());
        self.releases.follow(store.clone(), deployments);
        let pairs = self.pairs.lock().take();
        if let Some(pairs) = pairs {
            let (store, stop) = (store.clone(), self.stop.subscribe());
            self.tasks.lock().spawn(async move {
                let run = || pairs.run(&store, over(stop.clone()));
                until_it_ends("writer of pairs", run).await;
            });
        }
        let pulsed = store.clone();
        let controller = Controller::new(
            store.clone(),
            Arc::clone(&self.publisher),
            Arc::clone(&self.recorder),
        );
        let driver = Driver::new(
            store,
            Arc::clone(&self.replicas),
            Arc::clone(&self.publisher),
            self.settings.driver.clone(),
        );
        let mut tasks = self.tasks.lock();
        let publisher = Arc::clone(&self.publisher);
        let stop = self.stop.subscribe();
        tasks.spawn(async move {
            let run = || publisher.pulse().run(&pulsed, over(stop.clone()));
            until_it_ends("pulse of the records", run).await;
        });
        let publisher = Arc::clone(&self.publisher);
        let (wake, stop) = (Arc::clone(&self.wake), self.stop.subscribe());
        tasks.spawn(async move {
            let run = || publisher.run(&wake, over(stop.clone()));
            until_it_ends("publisher", run).await;
        });
        let (wake, stop) = (Arc::clone(&self.wake), self.stop.subscribe());
        tasks.spawn(async move {
            let run = || driver.run(&wake, over(stop.clone()));
            until_it_ends("driver of work orders", run).await;
        });
        let (wake, stop) = (Arc::clone(&self.wake), self.stop.subscribe());
        tasks.spawn(async move {
            let run = || controller.run(&wake, over(stop.clone()));
            until_it_ends("controller of releases", run).await;
        });
    }

    /// For the API.
    pub fn releases(&self) -> &Releases {
        &self.releases
    }

    pub fn publisher(&self) -> &Arc<Publisher> {
        &self.publisher
    }

    pub fn replicas(&self) -> &Arc<Replicas> {
        &self.replicas
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Ends all of it: leases are given back, and what was used is written and sent. To be called when the gateway has
    /// drained and its observer has finished.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while tasks.join_next().await.is_some() {}
    }
}

/// Over when the process stops.
async fn over(mut stop: watch::Receiver<bool>) {
    // An error is a sender that is gone, and with it what was served.
    _ = stop.wait_for(|stop| *stop).await;
}
