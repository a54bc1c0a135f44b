//! Who asks: API keys from a file or the environment.
//!
//! Only SHA-256 digests are kept. A key is looked up by the first eight bytes of
//! its digest and then compared whole in constant time; an attacker who times
//! us learns nothing of a digest that he cannot choose.

pub mod keys;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::context::Principal;
use crate::limits::quota::Quota;
use crate::limits::{RateLimiter, RateLimits};
pub use keys::{KeyEntry, KeysError};

/// A principal and its buckets.
#[derive(Debug)]
pub struct Account {
    /// Who it is.
    pub principal: Arc<Principal>,
    /// What it may still ask.
    pub limiter: RateLimiter,
    /// What it shares with others: its person's keys, its department.
    pub quotas: Box<[Arc<Quota>]>,
    digest: [u8; 32],
}

/// Why a request is not let in (401).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No key was sent.
    #[error(
        "You didn't provide an API key. Send it as `Authorization: Bearer KEY` \
         (or as `api-key` or `x-api-key`)."
    )]
    Missing,
    /// The key is not known.
    #[error("Incorrect API key provided.")]
    Unknown,
}

/// All keys at one moment, replaced whole on reload.
#[derive(Debug, Default)]
pub struct Keys {
    by_prefix: ArcSwap<HashMap<u64, Arc<Account>>>,
}

impl Keys {
    /// Accounts of these entries. `defaults` fill in what an entry leaves open.
    ///
    /// # Errors
    /// Two entries have the same name or digest.
    pub fn new(entries: Vec<KeyEntry>, defaults: RateLimits) -> Result<Self, KeysError> {
        let keys = Self::default();
        keys.replace(entries, defaults)?;
        Ok(keys)
    }

    /// Replaces all keys. Accounts that stay, unchanged in limits, keep their
    /// buckets: a reload is no amnesty.
    ///
    /// # Errors
    /// Two entries have the same name or digest; the old keys stay.
    pub fn replace(&self, entries: Vec<KeyEntry>, defaults: RateLimits) -> Result<(), KeysError> {
        let old = self.by_prefix.load();
        let mut accounts: HashMap<u64, Arc<Account>> = HashMap::with_capacity(entries.len());
        let mut names = std::collections::HashSet::new();
        for entry in entries {
            // Keys of a control plane go by their owner's name, and one person has several.
            if entry.owner.is_none() && !names.insert(entry.name.clone()) {
                return Err(KeysError::Duplicate(entry.name));
            }
            let prefix = prefix(&entry.digest);
            let name = entry.name.clone();
            let account = Arc::new(Account::new(entry, defaults, old.get(&prefix)));
            if accounts.insert(prefix, account).is_some() {
                return Err(KeysError::Duplicate(name));
            }
        }
        self.by_prefix.store(Arc::new(accounts));
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_prefix.load().len()
    }

    /// Whether there is none, so that nobody can get in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The account whose key the headers carry.
    ///
    /// # Errors
    /// No key, or an unknown one.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Account>, AuthError> {
        let key = presented(headers).ok_or(AuthError::Missing)?;
        let digest: [u8; 32] = Sha256::digest(key).into();
        let accounts = self.by_prefix.load();
        let account = accounts.get(&prefix(&digest)).ok_or(AuthError::Unknown)?;
        if equal(&account.digest, &digest) {
            Ok(Arc::clone(account))
        } else {
            Err(AuthError::Unknown)
        }
    }
}

impl Account {
    fn new(entry: KeyEntry, defaults: RateLimits, old: Option<&Arc<Account>>) -> Self {
        let in_force = |own: Option<u32>, default| own.or(default).filter(|limit| *limit > 0);
        let limits = RateLimits {
            requests: in_force(entry.limits.requests, defaults.requests),
            tokens: in_force(entry.limits.tokens, defaults.tokens),
            control: in_force(entry.limits.control, defaults.control),
        };
        let limiter = match old {
            Some(old) if old.digest == entry.digest && old.limiter.limits() == limits => {
                old.limiter.carry_over()
            }
            _ => RateLimiter::new(limits, Instant::now()),
        };
        Self {
            principal: Arc::new(Principal {
                key_id: keys::key_id(&entry.digest),
                name: entry.name.into(),
                priority: entry.priority,
                models: entry.models,
                role: entry.role,
                owner: entry.owner,
                rights: entry.rights,
            }),
            limiter,
            quotas: entry.quotas.into(),
            digest: entry.digest,
        }
    }
}

/// The key in `Authorization: Bearer …`, `api-key` or `x-api-key`, in this order.
#[must_use]
pub fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme
            .eq_ignore_ascii_case(b"bearer ")
            .then(|| key.trim_ascii())
    });
    bearer
        .or_else(|| headers.get("api-key").map(|value| value.as_bytes()))
        .or_else(|| headers.get("x-api-key").map(|value| value.as_bytes()))
        .filter(|key| !key.is_empty())
}

fn prefix(digest: &[u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

/// Takes the same time wherever the two differ.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y));
    std::hint::black_box(difference) == 0
}
