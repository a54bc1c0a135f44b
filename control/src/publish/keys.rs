//! Keys and quotas as the gateway takes them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use sluice_engine::request::Priority;
use sluice_gateway::auth::KeyEntry;
use sluice_gateway::context::Owner;
use sluice_gateway::limits::RateLimits;
use sluice_gateway::limits::quota::{Quota, QuotaLimits};

use super::snapshot::{FileKeys, PublishedKey, PublishedQuota, Snapshot};
use sluice_gateway::access::{Reach, Rights};

use super::standing::clearance;
use crate::domain::record;
use crate::domain::roles::{Role, Verb};
use crate::domain::secrecy::Secrecy;
use crate::id::{PrincipalId, QuotaId};
use crate::store::KeyLimits;
use crate::time::Timestamp;

/// The quotas in force, which keep what is used up from one snapshot to the next.
#[derive(Debug, Default)]
pub(super) struct Counters {
    by_id: HashMap<QuotaId, (PublishedQuota, Arc<Quota>)>,
    /// Limits of keys, by what stands for them: their line, or `file:` and an id.
    by_key: HashMap<String, (KeyLimits, Arc<Quota>)>,
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

    /// Follows the limits of keys; those of keys that are gone are forgotten.
    pub(super) fn follow_keys(&mut self, keys: &[PublishedKey], file: FileKeys<'_>) {
        let mut old = std::mem::take(&mut self.by_key);
        for key in keys {
            let line = key.line.map(|line| line.to_string());
            let own = line.map(|line| (line, key.limits, format!("limit of the key {}", key.key)));
            let of_maker = key.made_by.as_deref().and_then(|maker| {
                let entry = file(maker.strip_prefix("file:")?)?;
                let limits = file_limits(&entry.limits);
                Some((
                    maker.to_owned(),
                    limits,
                    format!("limit of the key {}", entry.name),
                ))
            });
            for (line, limits, name) in own.into_iter().chain(of_maker) {
                if limits.is_unlimited() || self.by_key.contains_key(&line) {
                    continue;
                }
                let counter = match old.remove(&line) {
                    Some((before, counter)) if before == limits => counter,
                    Some((_, counter)) => {
                        Arc::new(counter.with_limits(name.as_str(), limits_of(limits)))
                    }
                    None => Arc::new(Quota::new(name.as_str(), limits_of(limits), Instant::now())),
                };
                self.by_key.insert(line, (limits, counter));
            }
        }
    }

    /// Counters of keys, by line.
    pub(super) fn of_keys(&self) -> impl Iterator<Item = (&str, &Arc<Quota>)> {
        self.by_key
            .iter()
            .map(|(line, (_, counter))| (line.as_str(), counter))
    }

    /// What a key is counted against: its own limits and those of the keys behind it, its person's and its
    /// department's quota.
    fn of(&self, key: &PublishedKey, makers: &HashMap<String, &PublishedKey>) -> Vec<Arc<Quota>> {
        let shared = self.iter().filter(|(quota, _)| {
            quota.principal == Some(key.principal) || quota.department == Some(key.department)
        });
        let mut all: Vec<_> = shared.map(|(_, counter)| Arc::clone(counter)).collect();
        let mut line = key.line.map(|line| line.to_string());
        let mut made_by = key.made_by.as_ref();
        for _ in 0..MAKERS {
            let Some(of) = line.as_ref() else { break };
            all.extend(self.by_key.get(of).map(|(_, counter)| Arc::clone(counter)));
            line = made_by.cloned();
            made_by = made_by
                .and_then(|maker| makers.get(maker))
                .and_then(|maker| maker.made_by.as_ref());
        }
        all
    }
}

/// So many keys that made one another are counted.
const MAKERS: usize = 32;

fn limits_of(limits: KeyLimits) -> QuotaLimits {
    quota_limits([
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.requests_per_month,
        limits.tokens_per_month,
    ])
}

/// There 0 is without limit.
fn file_limits(limits: &RateLimits) -> KeyLimits {
    let limited = |limit: Option<u32>| limit.filter(|limit| *limit > 0).map(i64::from);
    KeyLimits {
        requests_per_minute: limited(limits.requests),
        tokens_per_minute: limited(limits.tokens),
        ..KeyLimits::default()
    }
}

/// 0 is nothing at all here, and without limit at the gateway: the least it counts is one.
fn limits(quota: &record::Quota) -> QuotaLimits {
    quota_limits([
        quota.requests_per_minute,
        quota.tokens_per_minute,
        quota.requests_per_month,
        quota.tokens_per_month,
    ])
}

/// Requests and tokens a minute, then of a month.
fn quota_limits([requests, tokens, month_requests, month_tokens]: [Option<i64>; 4]) -> QuotaLimits {
    let minute = |limit: Option<i64>| limit.map(|it| u32::try_from(it).unwrap_or(u32::MAX));
    let month = |limit: Option<i64>| limit.map(|it| u64::try_from(it).unwrap_or(0));
    let nothing = requests == Some(0) || tokens == Some(0);
    QuotaLimits {
        minute: RateLimits {
            requests: minute(requests),
            tokens: minute(tokens),
            control: None,
        },
        month_requests: if nothing {
            Some(0)
        } else {
            month(month_requests)
        },
        month_tokens: month(month_tokens),
    }
}

/// The same without quotas, for tests of who may use what.
#[cfg(test)]
pub(crate) fn key_entries(snapshot: &Snapshot) -> Vec<KeyEntry> {
    entries(snapshot, &Counters::default(), Timestamp::now())
}

/// The keys that are in force at `now`.
pub(super) fn entries(snapshot: &Snapshot, counters: &Counters, now: Timestamp) -> Vec<KeyEntry> {
    let in_force = |key: &&PublishedKey| key.expires_at.is_none_or(|end| now < end);
    let line = |key: &PublishedKey| key.line.map(|line| line.to_string());
    let makers: HashMap<String, &PublishedKey> = snapshot
        .keys
        .iter()
        .filter_map(|key| Some((line(key)?, key)))
        .collect();
    snapshot
        .keys
        .iter()
        .filter(in_force)
        .filter_map(|key| {
            Some(KeyEntry {
                name: key.name.clone(),
                digest: digest(&key.hash)?,
                priority: Priority::Normal,
                models: key
                    .models
                    .as_ref()
                    .map(|models| models.iter().map(|model| model.as_str().into()).collect()),
                rights: rights(key),
                limits: RateLimits::default(),
                // The API asks the store about these keys itself.
                role: None,
                owner: Some(Arc::new(Owner {
                    key: key.key.to_string().into(),
                    principal: key.principal.to_string().into(),
                    department: key.department.to_string().into(),
                    operator: key.operator,
                })),
                quotas: counters.of(key, &makers),
            })
        })
        .collect()
}

/// Which deployments a key reaches.
fn rights(key: &PublishedKey) -> Rights {
    let department = match &key.department_name {
        Some(name) => name.clone(),
        None => key.department.to_string(),
    };
    // What an earlier binary wrote names no role, and left out whose role may not infer.
    let role = key.role.unwrap_or(Role::Viewer);
    Rights {
        looks_only: !key.inference,
        ..person_rights(role, key.clearance, &department, key.principal)
    }
}

/// Which deployments a person reaches.
pub(crate) fn person_rights(
    role: Role,
    cleared: Secrecy,
    department: &str,
    person: PrincipalId,
) -> Rights {
    let reach = match role {
        Role::Admin => Reach::Everywhere,
        role if role.may(Verb::Infer) => Reach::Department,
        _ => Reach::Named,
    };
    Rights {
        reach,
        clearance: clearance(cleared),
        department: Some(department.into()),
        person: Some(person.to_string().into()),
        metrics: false,
        looks_only: false,
    }
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
