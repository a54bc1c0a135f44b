//! What one key may have of what all requests share beside its rate: bodies under way, and long
//! texts in work.
//!
//! A text in work (parsed, rendered, turned into tokens) takes about a hundred times its own
//! length of memory, and a CPU. So at most [`A_CPU`] bytes of text are in work for each CPU, half
//! of that for one key; a longer text has all of its key's share for itself.
//!
//! Looked up where it is needed only: by a body that did not come with its head, and by a text
//! that is too long to be dealt with at once. Most requests never ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use sluice_engine::request::CacheSalt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{Config, PrefixSharing};
use crate::context::RequestContext;

/// Bytes of text in work for each CPU.
pub(crate) const A_CPU: usize = 1 << 20;

/// Bytes of text that are counted as one.
const UNIT: usize = 256 << 10;

/// Entries from which on those that nobody uses are looked for.
const MANY: usize = 1024;

/// The shares of all keys.
#[derive(Debug)]
pub(crate) struct Shares {
    of: Mutex<HashMap<Arc<str>, Arc<Share>>>,
    /// Who may reuse whose prompts.
    pub(crate) prefixes: PrefixSharing,
    /// Tokens of one `/tokenize`.
    pub(crate) max_tokenize: usize,
    bodies: usize,
    units_a_key: u32,
    /// One for each [`UNIT`] of text that is worked on.
    texts: Arc<Semaphore>,
}

/// One key's share.
#[derive(Debug)]
pub(crate) struct Share {
    bodies: Arc<AtomicUsize>,
    most_bodies: usize,
    units: u32,
    texts: Arc<Semaphore>,
    all_texts: Arc<Semaphore>,
}

/// A body under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reading(Arc<AtomicUsize>);

/// A long text in work, until it is dropped.
#[derive(Debug)]
pub(crate) struct Working {
    _of_all: OwnedSemaphorePermit,
    _of_key: OwnedSemaphorePermit,
}

impl Shares {
    /// As configured, on so many CPUs.
    pub(crate) fn new(config: &Config, cpus: usize) -> Self {
        let units = u32::try_from(cpus.max(1) * A_CPU / UNIT).unwrap_or(u32::MAX);
        Self {
            of: Mutex::default(),
            prefixes: config.auth.prefix_sharing,
            max_tokenize: config.limits.max_tokenize,
            bodies: config.limits.max_bodies_per_key,
            units_a_key: (units / 2).max(1),
            texts: Arc::new(Semaphore::new(units as usize)),
        }
    }

    /// The share of a key, or of all requests that bring none.
    pub(crate) fn of(&self, tenant: &Arc<str>) -> Arc<Share> {
        let mut all = self.of.lock();
        if let Some(share) = all.get(tenant) {
            return Arc::clone(share);
        }
        if all.len() >= MANY {
            all.retain(|_, share| Arc::strong_count(share) > 1 || share.is_in_use());
        }
        let share = Arc::new(Share {
            bodies: Arc::default(),
            most_bodies: self.bodies,
            units: self.units_a_key,
            texts: Arc::new(Semaphore::new(self.units_a_key as usize)),
            all_texts: Arc::clone(&self.texts),
        });
        all.insert(Arc::clone(tenant), Arc::clone(&share));
        share
    }
}

impl Share {
    /// Whether something is held that does not hold the share itself.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.bodies) > 1 || Arc::strong_count(&self.texts) > 1
    }

    /// Counts a body that is waited for.
    ///
    /// # Errors
    /// So many are under way already.
    pub(crate) fn read_body(&self) -> Result<Reading, usize> {
        let more = |count: usize| (count < self.most_bodies).then_some(count + 1);
        self.bodies
            .fetch_update(Relaxed, Relaxed, more)
            .map(|_| Reading(Arc::clone(&self.bodies)))
            .map_err(|_| self.most_bodies)
    }

    /// Waits for the turn of a text of so many bytes. `None`: the process ends.
    pub(crate) async fn work(&self, bytes: usize) -> Option<Working> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let units = units.clamp(1, self.units);
        // The key's own first, so that at the common ones each key stands at most as often as it
        // may work: who sends much waits behind himself.
        let of_key = Arc::clone(&self.texts).acquire_many_owned(units);
        let of_key = of_key.await.ok()?;
        let of_all = Arc::clone(&self.all_texts).acquire_many_owned(units);
        let of_all = of_all.await.ok()?;
        Some(Working {
            _of_all: of_all,
            _of_key: of_key,
        })
    }
}

impl RequestContext {
    /// Who shares the device fairly with whom: the key's id, or `anonymous`.
    #[must_use]
    pub fn tenant(&self) -> Arc<str> {
        match &self.principal {
            Some(principal) => Arc::clone(&principal.key_id),
            None => Arc::from("anonymous"),
        }
    }

    /// The share of its key, where there are shares.
    pub(crate) fn share(&self) -> Option<Arc<Share>> {
        self.shares.as_ref().map(|all| all.of(&self.tenant()))
    }

    /// Under which salt the request's K/V are reused: that of its department, of its key where it
    /// has no department, or of everybody, as the configuration says, and within that the
    /// client's own.
    #[must_use]
    pub fn cache_salt(&self, own: Option<&str>) -> CacheSalt {
        let sharing = self
            .shares
            .as_ref()
            .map_or(PrefixSharing::Department, |shares| shares.prefixes);
        let department = || self.principal.as_ref()?.rights.department.as_deref();
        let key = || self.principal.as_ref().map_or("", |it| &*it.key_id);
        let (kind, whose) = match sharing {
            PrefixSharing::All => ("all", ""),
            PrefixSharing::Key => ("key", key()),
            PrefixSharing::Department => match department() {
                Some(department) => ("department", department),
                None => ("key", key()),
            },
        };
        match own {
            Some(own) => CacheSalt::of(&[kind, whose, own]),
            None => CacheSalt::of(&[kind, whose]),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn shares() -> Shares {
        let mut config = Config::default();
        config.limits.max_bodies_per_key = 2;
        Shares::new(&config, 1)
    }

    fn key(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn each_key_has_so_many_bodies_and_gets_them_back() {
        let shares = shares();
        let (ada, bob) = (shares.of(&key("ada")), shares.of(&key("bob")));
        let first = ada.read_body().unwrap();
        let _second = shares.of(&key("ada")).read_body().unwrap();
        assert_eq!(ada.read_body().err(), Some(2));
        assert!(bob.read_body().is_ok());
        drop(first);
        assert!(ada.read_body().is_ok());
    }

    #[tokio::test]
    async fn one_key_has_half_of_the_texts_however_much_it_sends() {
        let shares = shares();
        let (ada, bob) = (shares.of(&key("ada")), shares.of(&key("bob")));
        let _work = (ada.work(1).await.unwrap(), ada.work(UNIT).await.unwrap());
        let waits = tokio::time::timeout(std::time::Duration::from_millis(5), ada.work(1));
        assert!(waits.await.is_err(), "the third waits behind the first two");
        // As long as it may be, it fits beside: nobody takes more than his half.
        assert!(bob.work(100 * A_CPU).await.is_some());
    }

    #[test]
    fn keys_that_are_gone_are_forgotten() {
        let shares = shares();
        let held = shares.of(&key("held"));
        let reading = shares.of(&key("reading")).read_body().unwrap();
        for number in 0..3 * MANY {
            shares.of(&key(&number.to_string()));
        }
        assert!(shares.of.lock().len() <= MANY + 2);
        assert!(Arc::ptr_eq(&held, &shares.of(&key("held"))));
        let again = shares.of(&key("reading"));
        assert_eq!(again.bodies.load(Relaxed), 1);
        drop(reading);
    }
}
