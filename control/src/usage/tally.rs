//! Sums in memory since the last write.

use std::collections::HashMap;

use parking_lot::Mutex;
use sluice_gateway::metrics::observer::{Record, UsageSink};
use sluice_gateway::router::{Deployment, Target};

use crate::id::{Id as _, UsageId};
use crate::store::{Amounts, UsageEntry};
use crate::time::Timestamp;

/// Whose use, of what, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Of {
    department: String,
    principal: String,
    api_key: String,
    deployment: String,
    model_version: String,
    status: u16,
}

/// Requests that ended since the last [`Tally::take`].
#[derive(Debug)]
pub struct Tally {
    sums: Mutex<Sums>,
    /// Keys of requests that were nobody's use, such as a listing, and when they were last shown.
    shown: Mutex<HashMap<String, Timestamp>>,
    /// Sums, and keys, at once.
    capacity: usize,
}

#[derive(Debug, Default)]
struct Sums {
    by: HashMap<Of, Amounts>,
    dropped: u64,
}

impl Tally {
    pub fn new(capacity: usize) -> Self {
        Self {
            sums: Mutex::default(),
            shown: Mutex::default(),
            capacity,
        }
    }

    /// The sums as lines of the ledger, and how many requests found no room in them.
    pub fn take(&self) -> (Vec<UsageEntry>, u64) {
        let sums = std::mem::take(&mut *self.sums.lock());
        let at = Timestamp::now();
        let entries = sums
            .by
            .into_iter()
            .map(|(of, amounts)| UsageEntry {
                id: UsageId::new(),
                at,
                department: of.department,
                principal: of.principal,
                api_key: of.api_key,
                deployment: of.deployment,
                model_version: of.model_version,
                request: String::new(),
                status: of.status.into(),
                amounts,
            })
            .collect();
        (entries, sums.dropped)
    }

    /// The keys that were shown and used nothing since the last time.
    pub fn take_shown(&self) -> HashMap<String, Timestamp> {
        std::mem::take(&mut *self.shown.lock())
    }

    /// What could not be written down; it is given again the next time.
    pub fn put_back(&self, shown: HashMap<String, Timestamp>) {
        shown.into_iter().for_each(|(key, at)| self.show(key, at));
    }

    fn show(&self, key: String, at: Timestamp) {
        let mut shown = self.shown.lock();
        if shown.len() < self.capacity || shown.contains_key(&key) {
            let last = shown.entry(key).or_insert(at);
            *last = (*last).max(at);
        }
    }

    fn add(&self, of: Of, amounts: Amounts) {
        let mut sums = self.sums.lock();
        if sums.by.len() >= self.capacity && !sums.by.contains_key(&of) {
            sums.dropped += 1;
            return;
        }
        let sum = sums.by.entry(of).or_default();
        *sum = sum.plus(amounts);
    }
}

impl UsageSink for Tally {
    fn record(&self, record: &Record) {
        let outcome = &record.context.outcome;
        let principal = outcome.principal().map(std::convert::AsRef::as_ref);
        let owner = principal.and_then(|principal| principal.owner.as_deref());
        let deployment = outcome.deployment().filter(|deployment| {
            !deployment.standing.hidden && record.completed.endpoint.kind.is_use()
        });
        let Some(deployment) = deployment else {
            if let Some(owner) = owner {
                self.show(owner.key.to_string(), Timestamp::now());
            }
            return;
        };
        let of = Of {
            department: owner
                .map(|it| it.department.to_string())
                .unwrap_or_default(),
            principal: owner.map(|it| it.principal.to_string()).unwrap_or_default(),
            api_key: match (owner, principal) {
                (Some(owner), _) => owner.key.to_string(),
                // A key of the file has no record, but an id all the same.
                (None, Some(principal)) => principal.key_id.to_string(),
                (None, None) => String::new(),
            },
            deployment: known_as(&deployment.standing.deployment, &deployment.name),
            model_version: known_as(&deployment.standing.version, &deployment.revision),
            status: record.completed.status,
        };
        let usage = outcome.usage();
        let timings = outcome.timings();
        let device = micros(timings.prefill + timings.decode);
        let on_gpu = on_gpu(deployment);
        let amounts = Amounts {
            requests: 1,
            input_tokens: count(usage.prompt),
            output_tokens: count(usage.completion),
            cpu_us: if on_gpu { 0 } else { device },
            gpu_us: if on_gpu { device } else { 0 },
            bytes: i64::try_from(record.bytes).unwrap_or(i64::MAX),
            latency_us: micros(record.completed.total),
            cost_micros: 0,
        };
        self.add(of, amounts);
    }
}

/// By its record's id, or by its name where only the configuration file knows it.
fn known_as(id: &str, name: &str) -> String {
    if id.is_empty() { name } else { id }.to_owned()
}

fn on_gpu(deployment: &Deployment) -> bool {
    match &deployment.target {
        Target::Local(replicas) => replicas.all().iter().any(|it| it.device().is_some()),
        Target::Remote(_) => false,
    }
}

fn count(tokens: usize) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
