//! Limits of departments and people: what may run, and how much may be asked.
//!
//! - **Requests and tokens**, per minute and per calendar month (UTC): the publisher hands them to the gateway, which counts in
//!   memory ([`sluice_gateway::limits::quota`]). All keys of a person share the person's, everyone in a department
//!   the department's. A month's counts begin with what the ledger says and follow it every ten seconds.
//!   With `n` serving processes, up to `n` times a limit per minute passes; of a month's limit, at most
//!   what the other processes serve in eleven seconds (the ledger's second, and the ten) too much.
//! - **CPU, GPUs, memory**: asked when a work order is approved ([`check_room`]): what is live, and what was
//!   approved before, counts. Replicas multiply.
//!
//! Storage and money are recorded and not enforced here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_gateway::limits::quota::Quota as Counter;
use tokio::sync::Notify;

use crate::deploy::{Caller, DeployError, Settings};
use crate::domain::record::{Department, Deployment, Principal, Quota};
use crate::domain::roles::Verb;
use crate::id::{DepartmentId, DeploymentId};
use crate::store::{Store, StoreError, Stored, Tx, UsageFilter};
use crate::time::Timestamp;

/// A sum that is beyond a quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{whose}: {what} {used} in use + {asked} asked = {} > {limit}", used + asked)]
pub struct Exceeded {
    /// `department helpdesk`, `ada`.
    pub whose: String,
    /// `cpu_millis`, `gpus` or `memory_bytes`.
    pub what: &'static str,
    pub used: i64,
    pub asked: i64,
    pub limit: i64,
}

/// Resources in the order `cpu_millis`, `gpus`, `memory_bytes`.
type Resources = [i64; 3];
const NAMES: [&str; 3] = ["cpu_millis", "gpus", "memory_bytes"];

fn resources(settings: &Settings) -> Resources {
    [settings.cpu_millis, settings.gpus, settings.memory_bytes]
        .map(|each| each.saturating_mul(settings.replicas))
}

/// Whether a deployment may take what its settings ask for, beside all that was approved already.
///
/// # Errors
/// [`DeployError::Quota`], with every sum that is too large.
pub async fn check_room(
    tx: &mut Tx,
    deployment: &Stored<Deployment>,
    settings: &Settings,
) -> Result<(), DeployError> {
    let asked = resources(settings);
    let commitments = tx.commitments(deployment.department, deployment.id).await?;
    // While a deployment changes, the larger of before and after counts.
    let mut taken: HashMap<DeploymentId, (DepartmentId, _, Resources)> = HashMap::new();
    for commitment in commitments {
        let these = resources(&Settings::read(&commitment.snapshot)?);
        let fresh = (commitment.department, commitment.owner, [0; 3]);
        let (_, _, most) = taken.entry(commitment.deployment).or_insert(fresh);
        for (most, this) in most.iter_mut().zip(these) {
            *most = (*most).max(this);
        }
    }
    let mut exceeded = Vec::new();
    for quota in tx.quotas().await? {
        let mine = match (quota.department, quota.principal) {
            (Some(department), _) => department == deployment.department,
            (None, principal) => principal.is_some() && principal == deployment.owner,
        };
        if !mine {
            continue;
        }
        let limits = [quota.cpu_millis, quota.gpus, quota.memory_bytes];
        for (index, limit) in limits.into_iter().enumerate() {
            let Some(limit) = limit else { continue };
            let used = taken
                .values()
                .filter(|(department, owner, _)| match quota.department {
                    Some(wanted) => *department == wanted,
                    None => *owner == quota.principal,
                })
                .map(|(_, _, resources)| resources[index])
                .fold(0, i64::saturating_add);
            if asked[index] > 0 && used.saturating_add(asked[index]) > limit {
                exceeded.push(Exceeded {
                    whose: whose(tx, &quota).await?,
                    what: NAMES[index],
                    used,
                    asked: asked[index],
                    limit,
                });
            }
        }
    }
    if exceeded.is_empty() {
        Ok(())
    } else {
        Err(DeployError::Quota(exceeded))
    }
}

async fn whose(tx: &mut Tx, quota: &Quota) -> Result<String, StoreError> {
    match (quota.department, quota.principal) {
        (Some(id), _) => {
            let department = tx.get::<Department>(id).await?;
            Ok(format!("department {}", department.name))
        }
        (None, Some(id)) => Ok(tx.get::<Principal>(id).await?.name.clone()),
        (None, None) => Ok("nobody".into()),
    }
}

/// Quotas as people set them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Quotas {
    store: Store,
    wake: Arc<Notify>,
}

impl Quotas {
    /// `wake` is notified after each commit, for the publisher.
    pub fn new(store: Store, wake: Arc<Notify>) -> Self {
        Self { store, wake }
    }

    /// Sets the limits of a department or a person: all of them, so that an absent one is without limit. `expected` is the
    /// version that they were read at; `None` for a first time, or to set them whatever they are.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], [`StoreError::Stale`], and 403 for who may not.
    pub async fn set(
        &self,
        caller: &Caller,
        expected: Option<i64>,
        limits: Quota,
    ) -> Result<Stored<Quota>, DeployError> {
        self.authorise(caller, &limits).await?;
        limits.check()?;
        let (department, principal) = (limits.department, limits.principal);
        let stored = match self.store.quota_of(department, principal).await? {
            Some(found) => {
                let edit = move |it: &mut Quota| *it = limits;
                self.store
                    .update::<Quota>(&caller.actor, found.id, expected, edit)
                    .await?
            }
            None => self.store.create_quota(&caller.actor, limits).await?,
        };
        self.wake.notify_waiters();
        Ok(stored)
    }

    /// Takes the limits away.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Stale`], and 403 for who may not.
    pub async fn remove(
        &self,
        caller: &Caller,
        id: crate::id::QuotaId,
        expected: Option<i64>,
    ) -> Result<(), DeployError> {
        let quota = self.store.get::<Quota>(id).await?;
        self.authorise(caller, &quota).await?;
        self.store
            .delete::<Quota>(&caller.actor, id, expected)
            .await?;
        self.wake.notify_waiters();
        Ok(())
    }

    async fn authorise(&self, caller: &Caller, quota: &Quota) -> Result<(), DeployError> {
        let department = match (quota.department, quota.principal) {
            (Some(department), None) => department,
            (None, Some(principal)) => self.store.get::<Principal>(principal).await?.department,
            _ => {
                let problem = "name either a principal or a department";
                return Err(StoreError::invalid("principal", problem).into());
            }
        };
        Ok(caller.may(Verb::ManageQuota, department)?)
    }
}

/// Counts of a month that is over are none of this one's.
pub(crate) fn begin_month<'a>(counters: impl Iterator<Item = &'a Arc<Counter>>) {
    let ends = month_end(Timestamp::now());
    for counter in counters {
        counter.begin_month(ends);
    }
}

/// In Unix seconds.
fn month_end(now: Timestamp) -> u64 {
    const LONGER_THAN_ANY: Duration = Duration::from_secs(32 * 24 * 3600);
    let next = now.start_of_month().after(LONGER_THAN_ANY).start_of_month();
    u64::try_from(next.as_micros() / 1_000_000).unwrap_or(0)
}

/// Raises the month's counts to what the ledger says of all processes.
pub(crate) async fn read_books<'a>(
    store: &Store,
    counters: impl Iterator<Item = (&'a Quota, &'a Arc<Counter>)>,
) -> Result<(), StoreError> {
    let from = Some(Timestamp::now().start_of_month());
    for (quota, counter) in counters {
        let limits = counter.limits();
        if limits.month_requests.is_none() && limits.month_tokens.is_none() {
            continue;
        }
        let filter = UsageFilter {
            from,
            department: quota.department.map(|id| id.to_string()),
            principal: quota.principal.map(|id| id.to_string()),
            ..UsageFilter::default()
        };
        for sum in store.usage(&filter, None).await? {
            let tokens = sum
                .amounts
                .input_tokens
                .saturating_add(sum.amounts.output_tokens);
            let count = |number: i64| u64::try_from(number).unwrap_or(0);
            counter.at_least(count(sum.amounts.requests), count(tokens));
        }
    }
    Ok(())
}

/// The same for keys that have a limit of their own, by the lines that they belong to.
pub(crate) async fn read_key_books<'a>(
    store: &Store,
    counters: impl Iterator<Item = (&'a str, &'a Arc<Counter>)>,
) -> Result<(), StoreError> {
    let from = Timestamp::now().start_of_month();
    for (line, counter) in counters {
        let limits = counter.limits();
        if limits.month_requests.is_none() && limits.month_tokens.is_none() {
            continue;
        }
        let used = store.usage_of_keys(line, from).await?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        let tokens = used.input_tokens.saturating_add(used.output_tokens);
        counter.at_least(count(used.requests), count(tokens));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
