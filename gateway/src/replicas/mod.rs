//! A deployment's models in this process: one on each of its devices, behind one name.
//!
//! A request takes the replica with the least to do ([`Replicas::lease`]) and keeps it to
//! its last byte. All replicas are at hand and their loads are atomics, so all are looked
//! at: choosing between two at random would only be worse. Where the prompt's K/V may lie
//! is not looked at: it is known on a replica's own thread only, and only for tokens,
//! which a request becomes after the choice.
//!
//! A replica whose executor is lost takes no request from that instant on. What had no
//! step there yet goes to another; the [`supervisor`] loads the replica again, as its
//! [`life`] says.

mod devices;
mod driver;
mod lease;
mod ledger;
mod life;
mod model;
mod supervisor;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sluice_engine::LoadError;
use tokio::sync::Notify;

pub use devices::{Devices, Gpus, Holding, Occupancy};
pub use driver::Driver;
use lease::Counted;
pub use lease::{Lease, NoReplica, Tried};
use life::Life;
pub use life::{RestartPolicy, State};
pub use model::LocalModel;

/// Loads the model on a device (`None`: the CPU), warm and probed. Takes seconds.
pub type Loader = Arc<dyn Fn(Option<u32>) -> Result<LocalModel, LoadError> + Send + Sync>;

/// A loaded model, and the GPU that it lies on; none on the CPU.
pub type Placed = (Option<u32>, LocalModel);

/// Replicas of one deployment at most.
pub const MAX_REPLICAS: usize = 64;

/// A deployment's models. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Replicas(Arc<Set>);

pub(super) struct Set {
    name: Arc<str>,
    /// At least one.
    all: Box<[Replica]>,
    /// Where the search for the least loaded begins, so that equals take turns.
    turn: AtomicUsize,
    /// Told by whoever finds an executor lost.
    lost: Arc<Notify>,
    /// Lost replicas come back.
    wanted: AtomicBool,
    loader: Option<Loader>,
    /// Memory of the devices; given back with the last owner.
    _holding: Option<Holding>,
}

/// What a replica was lost to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its own executor failed.
    Executor,
    /// Its device was lost, with all that ran there.
    Device,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Executor, Self::Device];

    /// Its name in logs and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Executor => "executor",
            Self::Device => "device",
        }
    }
}

/// One model on one device.
#[derive(Debug)]
pub struct Replica {
    device: Option<u32>,
    /// While the executor is lost, what is left of it: it still tells what it was.
    model: ArcSwap<LocalModel>,
    /// Requests that hold it; not counted where it is the only one.
    in_flight: AtomicUsize,
    life: Mutex<Life>,
    /// Lost to a reset of its device.
    evicted: AtomicBool,
    restarts: [AtomicU64; Cause::ALL.len()],
    failed_restarts: AtomicU64,
    /// Nanoseconds that the last restart took.
    load_ns: AtomicU64,
}

impl Replica {
    fn new(device: Option<u32>, model: LocalModel, policy: RestartPolicy) -> Self {
        Self {
            device,
            model: ArcSwap::from_pointee(model),
            in_flight: AtomicUsize::new(0),
            life: Mutex::new(Life::new(policy)),
            evicted: AtomicBool::new(false),
            restarts: Default::default(),
            failed_restarts: AtomicU64::new(0),
            load_ns: AtomicU64::new(0),
        }
    }

    /// `cpu`, or CUDA's number of the GPU.
    #[must_use]
    pub fn label(&self) -> String {
        self.device
            .map_or_else(|| "cpu".to_owned(), |device| device.to_string())
    }

    /// CUDA's number of the GPU; none on the CPU.
    #[must_use]
    pub fn device(&self) -> Option<u32> {
        self.device
    }

    /// The model, or what is left of it.
    #[must_use]
    pub fn model(&self) -> Arc<LocalModel> {
        self.model.load_full()
    }

    /// What it is doing; lost and not yet noticed counts as waiting.
    #[must_use]
    pub fn state(&self) -> State {
        match self.life.lock().state() {
            State::Serving if !self.model.load().healthy() => State::Waiting(Instant::now()),
            state => state,
        }
    }

    /// How often it came back after it had been lost to this.
    #[must_use]
    pub fn restarts(&self, cause: Cause) -> u64 {
        self.restarts[cause as usize].load(Relaxed)
    }

    /// How often it could not be loaded again.
    #[must_use]
    pub fn failed_restarts(&self) -> u64 {
        self.failed_restarts.load(Relaxed)
    }

    fn load(&self) -> u64 {
        let held = self.in_flight.load(Relaxed) as u64;
        held.max(self.model.load().load())
    }

    /// Time until it serves; `None` when it never will.
    fn expected(&self) -> Option<Duration> {
        let load = Duration::from_nanos(self.load_ns.load(Relaxed));
        self.life.lock().expected(Instant::now(), load)
    }

    /// Ends the executor, because its device is to be reset.
    fn evict(&self) -> Arc<LocalModel> {
        let model = self.model.load_full();
        self.evicted.store(true, Relaxed);
        model.abort();
        model
    }

    fn put_back(&self, model: LocalModel, cause: Cause, took: Duration) {
        let cause = match self.evicted.swap(false, Relaxed) {
            true => Cause::Device,
            false => cause,
        };
        self.model.store(Arc::new(model));
        self.restarts[cause as usize].fetch_add(1, Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.load_ns.store(nanos, Relaxed);
    }

    fn count_failure(&self) {
        self.failed_restarts.fetch_add(1, Relaxed);
    }
}

impl From<LocalModel> for Replicas {
    /// One model, which nobody loads again when it is lost.
    fn from(model: LocalModel) -> Self {
        let never = RestartPolicy {
            restarts: 0,
            window: Duration::MAX,
            pause: Duration::ZERO,
            pause_max: Duration::ZERO,
        };
        let replica = Replica::new(None, model, never);
        Self(Arc::new(Set::new("", vec![replica], None, None)))
    }
}

impl Replicas {
    /// Loaded models, each with its device, that come back by `loader` when they are
    /// lost, as often as `policy` says. At least one, and at most [`MAX_REPLICAS`]. Must be
    /// called within a runtime.
    #[must_use]
    pub fn supervised(
        name: &str,
        models: Vec<Placed>,
        loader: Loader,
        policy: &RestartPolicy,
        holding: Option<Holding>,
        devices: &Arc<Devices>,
    ) -> Self {
        let replica = |(device, model)| Replica::new(device, model, policy.clone());
        let all = models.into_iter().map(replica).collect();
        let set = Arc::new(Set::new(name, all, Some(loader), holding));
        devices.follow(&set);
        tokio::spawn(supervisor::watch(Arc::downgrade(&set), Arc::clone(devices)));
        Self(set)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Replica] {
        &self.0.all
    }

    /// One that serves, to be asked about itself; where none does, what is left of the first.
    #[must_use]
    pub fn model(&self) -> Arc<LocalModel> {
        let serving = self.0.all.iter().map(|it| it.model.load_full());
        let mut serving = serving.filter(|model| model.healthy());
        serving
            .next()
            .unwrap_or_else(|| self.0.all[0].model.load_full())
    }

    /// Whether a request would be taken.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.0.all.iter().any(|it| it.model.load().healthy())
    }

    /// Whether none serves, and none will.
    #[must_use]
    pub fn given_up(&self) -> bool {
        let given_up = |it: &Replica| it.state() == State::GivenUp;
        match self.0.loader {
            Some(_) => self.0.all.iter().all(given_up),
            None => !self.healthy(),
        }
    }

    /// Whether requests wait for a place on every replica that serves.
    #[must_use]
    pub fn is_queueing(&self) -> bool {
        let models = self.0.all.iter().map(|it| it.model.load());
        let mut serving = models.filter(|model| model.healthy()).peekable();
        serving.peek().is_some() && serving.all(|model| model.is_queueing())
    }

    /// Whether lost replicas come back. They do until their deployment is to go.
    pub fn set_wanted(&self, wanted: bool) {
        self.0.wanted.store(wanted, Relaxed);
        self.0.lost.notify_one();
    }

    /// The replica with the least to do of those that serve and were not tried.
    ///
    /// # Errors
    /// [`NoReplica`].
    pub fn lease(&self, tried: Tried) -> Result<Lease, NoReplica> {
        let all = &self.0.all;
        let place = match all.len() {
            1 => (!tried.holds(0) && all[0].model.load().healthy()).then_some(0),
            count => {
                let first = self.0.turn.fetch_add(1, Relaxed) % count;
                let places = (0..count).map(|step| (first + step) % count);
                let open =
                    |place: &usize| !tried.holds(*place) && all[*place].model.load().healthy();
                places.filter(open).min_by_key(|place| all[*place].load())
            }
        };
        place.map(|place| self.0.lease(place)).ok_or_else(|| {
            self.0.lost.notify_one();
            let expected = all.iter().filter_map(Replica::expected).min();
            NoReplica {
                expected: expected.filter(|_| self.0.loader.is_some()),
            }
        })
    }
}

impl Set {
    fn new(
        name: &str,
        all: Vec<Replica>,
        loader: Option<Loader>,
        holding: Option<Holding>,
    ) -> Self {
        Self {
            name: name.into(),
            all: all.into(),
            turn: AtomicUsize::new(0),
            lost: Arc::default(),
            wanted: AtomicBool::new(true),
            loader,
            _holding: holding,
        }
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    fn lease(self: &Arc<Self>, place: usize) -> Lease {
        let is_one_of_several = self.all.len() > 1;
        let counted = is_one_of_several.then(|| Counted::new(Arc::clone(self), place));
        Lease::new(self.all[place].model.load_full(), place, counted)
    }
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Set")
            .field("name", &self.name)
            .field("all", &self.all)
            .finish_non_exhaustive()
    }
}
