//! Keys and quotas as the gateway takes them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use sluice_engine::request::Priority;
use sluice_gateway::auth::KeyEntry;
use sluice_gateway::context::Owner;
use sluice_gateway::limits::RateLimits;
use sluice_gateway::limits::quota::{Quota, QuotaLimits};

use super::snapshot::{PublishedKey, PublishedQuota, Snapshot};
use crate::domain::record;
use crate::id::QuotaId;
use crate::time::Timestamp;

/// The quotas in force, which keep what is used up from one snapshot to the next.
#[derive(Debug, Default)]
pub(super) struct Counters {
    by_id: HashMap<QuotaId, (PublishedQuota, Arc<Quota>)>,
}

impl Counters {
    /// Follows the snapshot; quotas that are gone are forgotten.
    pub(super) fn follow(&mut self, quotas: &[PublishedQuota]) {
        let mut old = std::mem::take(&mut self.by_id);
        for published in quotas {
            let limits = limits(&published.quota);
            let counter = match old.remove(&published.id) {
                Some((before, counter)) if before == *published => counter,
                Some((_, counter)) => {
                    Arc::new(counter.with_limits(published.name.as_str(), limits))
                }
                None => Arc::new(Quota::new(published.name.as_str(), limits, Instant::now())),
            };
            self.by_id
                .insert(published.id, (published.clone(), counter));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&record::Quota, &Arc<Quota>)> {
        self.by_id
            .values()
            .map(|(published, counter)| (&published.quota, counter))
    }

    /// What a key shares with others.
    fn of(&self, key: &PublishedKey) -> Vec<Arc<Quota>> {
        self.iter()
            .filter(|(quota, _)| {
                quota.principal == Some(key.principal) || quota.department == Some(key.department)
            })
            .map(|(_, counter)| Arc::clone(counter))
            .collect()
    }
}

/// 0 is nothing at all here, and without limit at the gateway: the least it counts is one.
fn limits(quota: &record::Quota) -> QuotaLimits {
    let minute = |limit: Option<i64>| limit.map(|it| u32::try_from(it).unwrap_or(u32::MAX));
    let month = |limit: Option<i64>| limit.map(|it| u64::try_from(it).unwrap_or(0));
    let nothing = quota.requests_per_minute == Some(0) || quota.tokens_per_minute == Some(0);
    QuotaLimits {
        minute: RateLimits {
            requests: minute(quota.requests_per_minute),
            tokens: minute(quota.tokens_per_minute),
            control: None,
        },
        month_requests: if nothing {
            Some(0)
        } else {
            month(quota.requests_per_month)
        },
        month_tokens: month(quota.tokens_per_month),
    }
}

/// The keys that are in force at `now`.
pub(super) fn entries(snapshot: &Snapshot, counters: &Counters, now: Timestamp) -> Vec<KeyEntry> {
    let in_force = |key: &&PublishedKey| key.expires_at.is_none_or(|end| now < end);
    snapshot
        .keys
        .iter()
        .filter(in_force)
        .filter_map(|key| {
            Some(KeyEntry {
                name: key.name.clone(),
                digest: digest(&key.hash)?,
                priority: Priority::Normal,
                models: (!key.inference).then(|| Arc::from([])),
                limits: RateLimits::default(),
                // The API asks the store about these keys itself.
                role: None,
                owner: Some(Arc::new(Owner {
                    key: key.key.to_string().into(),
                    principal: key.principal.to_string().into(),
                    department: key.department.to_string().into(),
                    operator: key.operator,
                    steers_as: key.steers_as.map(|role| role.word().into()),
                })),
                quotas: counters.of(key),
            })
        })
        .collect()
}

/// 64 hexadecimal digits. Others were not written by the store.
fn digest(hash: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hash.len() != 64 || !hash.is_ascii() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(hash.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}
