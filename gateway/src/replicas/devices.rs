//! The GPUs of this process: how much of them is held, and how one that is lost is
//! made usable again.
//!
//! After an illegal access every call of the CUDA context fails, for all models on
//! that device. So they are ended together, the context is made anew, and each comes
//! back by itself ([`super::supervisor`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::Set;
use super::ledger::{EntryId, Full, Ledger};
use crate::config::DevicesConfig;

/// How long executors may take to end before a device is given up.
const ENDING: Duration = Duration::from_secs(60);
/// How often is looked whether they have.
const LOOK: Duration = Duration::from_millis(10);

/// What is asked of the driver. Calls may take seconds.
pub trait Gpus: fmt::Debug + Send + Sync {
    /// Bytes of a device's memory.
    ///
    /// # Errors
    /// There is no such device, in words.
    fn memory(&self, device: u32) -> Result<u64, String>;

    /// Whether nothing works on the device any more in this process.
    fn is_lost(&self, device: u32) -> bool;

    /// Makes it usable again. Nothing of this process may run there.
    ///
    /// # Errors
    /// Why not, in words.
    fn reset(&self, device: u32) -> Result<(), String>;
}

/// All devices, shared by the deployments of a gateway.
#[derive(Debug)]
pub struct Devices {
    gpus: Box<dyn Gpus>,
    config: DevicesConfig,
    ledger: Mutex<Ledger>,
    /// By device: shared by those that load on it, held alone by who resets it.
    turns: Mutex<BTreeMap<u32, Arc<RwLock<()>>>>,
    sets: Mutex<Vec<Weak<Set>>>,
}

/// What one model holds of one or more devices; given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Holding {
    devices: Arc<Devices>,
    entries: Vec<EntryId>,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut ledger = self.devices.ledger.lock();
        self.entries.drain(..).for_each(|id| ledger.remove(id));
    }
}

/// One device's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// CUDA's number of the device.
    pub device: u32,
    /// What models may hold.
    pub limit: u64,
    /// What they hold.
    pub held: u64,
}

impl Devices {
    /// Devices as `gpus` knows them.
    #[must_use]
    pub fn new(gpus: Box<dyn Gpus>, config: DevicesConfig) -> Arc<Self> {
        Arc::new(Self {
            gpus,
            config,
            ledger: Mutex::default(),
            turns: Mutex::default(),
            sets: Mutex::default(),
        })
    }

    /// What models may hold of a device, in bytes.
    ///
    /// # Errors
    /// There is no such device, in words.
    pub fn limit(&self, device: u32) -> Result<u64, String> {
        Ok(self.config.memory.of(self.gpus.memory(device)?))
    }

    /// What is left for a model's weights and K/V on the fullest of `devices`.
    ///
    /// # Errors
    /// There is no such device, in words.
    pub fn room(&self, devices: &[u32]) -> Result<u64, String> {
        let mut least = u64::MAX;
        for &device in devices {
            let limit = self.limit(device)?;
            least = least.min(self.ledger.lock().free(device, limit));
        }
        Ok(least.saturating_sub(self.config.workspace as u64))
    }

    /// Who holds what of `devices`, in words.
    #[must_use]
    pub fn describe(&self, devices: &[u32]) -> String {
        let one = |&device: &u32| {
            let limit = self.limit(device).unwrap_or(0);
            self.ledger.lock().describe(device, limit)
        };
        devices.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// Takes what a model with `bytes` of weights and K/V needs of each of `devices`,
    /// before it is loaded.
    ///
    /// # Errors
    /// It does not fit, with the addition spelled out, or there is no such device.
    pub fn hold(
        self: &Arc<Self>,
        name: &str,
        bytes: u64,
        devices: &[u32],
    ) -> Result<Holding, String> {
        let limits: Result<Vec<_>, String> = devices
            .iter()
            .map(|&device| Ok((device, self.limit(device)?)))
            .collect();
        let bytes = bytes.saturating_add(self.config.workspace as u64);
        let entered = self.ledger.lock().enter(&name.into(), bytes, &limits?);
        let entries = entered.map_err(|full: Full| full.to_string())?;
        Ok(Holding {
            devices: Arc::clone(self),
            entries,
        })
    }

    /// How these devices stand; those that cannot be asked are left out.
    pub(crate) fn occupancy(&self, devices: impl IntoIterator<Item = u32>) -> Vec<Occupancy> {
        let one = |device| {
            let limit = self.limit(device).ok()?;
            let held = self.ledger.lock().held(device);
            Some(Occupancy {
                device,
                limit,
                held,
            })
        };
        devices.into_iter().filter_map(one).collect()
    }

    /// Waits until nobody resets the device, and keeps it so.
    pub(crate) async fn loading(&self, device: u32) -> OwnedRwLockReadGuard<()> {
        self.turn(device).read_owned().await
    }

    /// Notes whose replicas end when a device is reset.
    pub(super) fn follow(&self, set: &Arc<Set>) {
        let mut sets = self.sets.lock();
        sets.retain(|set| set.strong_count() > 0);
        sets.push(Arc::downgrade(set));
    }

    /// Asks whether a device is lost, and if so ends all that runs on it and makes it
    /// usable again. Whether that was done.
    ///
    /// # Errors
    /// It could not be done, in words.
    pub(super) async fn recover(self: &Arc<Self>, device: u32) -> Result<bool, String> {
        if !self.is_lost(device).await? {
            return Ok(false);
        }
        let turn = self.turn(device);
        // Loads that have begun fail by themselves on a lost device.
        let _alone = turn.write().await;
        if !self.is_lost(device).await? {
            return Ok(true);
        }
        tracing::error!(device, "the GPU is lost to this process; it is reset");
        self.evict(device).await?;
        let devices = Arc::clone(self);
        off_path(move || devices.gpus.reset(device)).await??;
        tracing::info!(device, "the GPU was reset");
        Ok(true)
    }

    async fn is_lost(self: &Arc<Self>, device: u32) -> Result<bool, String> {
        let devices = Arc::clone(self);
        off_path(move || devices.gpus.is_lost(device)).await
    }

    /// Ends every executor on a device.
    async fn evict(&self, device: u32) -> Result<(), String> {
        let sets: Vec<Arc<Set>> = self.sets.lock().iter().filter_map(Weak::upgrade).collect();
        let mut ending = Vec::new();
        for set in &sets {
            for replica in set.all.iter().filter(|it| it.device == Some(device)) {
                ending.push(replica.evict());
            }
            set.lost.notify_one();
        }
        drop(sets);
        let all_ended = async {
            while !ending.iter().all(|model| model.ended()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(ENDING, all_ended).await.map_err(|_| {
            let seconds = ENDING.as_secs();
            format!("GPU {device} is lost, and an executor on it did not end within {seconds} s")
        })
    }

    fn turn(&self, device: u32) -> Arc<RwLock<()>> {
        Arc::clone(self.turns.lock().entry(device).or_default())
    }
}

async fn off_path<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| format!("asking the driver failed: {panic}"))
}
