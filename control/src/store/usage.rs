//! The ledger of what was used, and its sums by the hour and by the day. All are written in one transaction, so that
//! a page over millions of rows reads a few hundred.

mod report;

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::column::{Column, Value, arguments, read};
use super::evaluation::places;
use super::{StoreError, Tx};
use crate::domain::words::words;
use crate::id::UsageId;
use crate::time::Timestamp;

/// One request, or a stretch of use. Names are ids, or empty where there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct UsageEntry {
    pub id: UsageId,
    pub at: Timestamp,
    pub department: String,
    pub principal: String,
    pub api_key: String,
    pub deployment: String,
    pub model_version: String,
    pub request: String,
    /// HTTP's; 0 for what was no request. 400 and above count as errors.
    pub status: i64,
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// What is summed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Amounts {
    pub requests: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cpu_us: i64,
    pub gpu_us: i64,
    pub bytes: i64,
    pub latency_us: i64,
    /// Millionths of the currency that the operator counts in.
    pub cost_micros: i64,
}

const AMOUNTS: [&str; 8] = [
    "requests",
    "input_tokens",
    "output_tokens",
    "cpu_us",
    "gpu_us",
    "bytes",
    "latency_us",
    "cost_micros",
];
const NAMES: &str =
    "id, at, department, principal, api_key, deployment, model_version, request, status";
const ENTRY_COLUMNS: usize = 9 + AMOUNTS.len();
/// Rows a statement. SQLite looks every place up among those before it, so that longer statements cost more a row.
const BATCH: usize = 100;

words! {
    /// What sums are grouped by.
    pub enum UsageGroup ("grouping") {
        Hour = "hour",
        Day = "day",
        Department = "department",
        Principal = "principal",
        Deployment = "deployment",
        ModelVersion = "model_version",
    }
}

/// Which use to show; an absent field does not restrict.
#[derive(Debug, Clone, Default)]
pub struct UsageFilter {
    /// From this instant on.
    pub from: Option<Timestamp>,
    /// Before this one.
    pub until: Option<Timestamp>,
    pub department: Option<String>,
    pub principal: Option<String>,
    pub deployment: Option<String>,
}

/// A line of a report.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct UsageSum {
    /// The group's id, or the instant at which its hour or day begins; empty for the whole.
    pub group: String,
    pub errors: i64,
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// That a key was answered by a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// The id of a key in the records, or of one in the keys file.
    pub key: String,
    /// The deployment's id.
    pub deployment: String,
    pub endpoint: String,
    pub requests: i64,
    pub last: Timestamp,
}

impl Amounts {
    fn values(&self) -> [i64; AMOUNTS.len()] {
        [
            self.requests,
            self.input_tokens,
            self.output_tokens,
            self.cpu_us,
            self.gpu_us,
            self.bytes,
            self.latency_us,
            self.cost_micros,
        ]
    }

    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            requests: read(row, "requests")?,
            input_tokens: read(row, "input_tokens")?,
            output_tokens: read(row, "output_tokens")?,
            cpu_us: read(row, "cpu_us")?,
            gpu_us: read(row, "gpu_us")?,
            bytes: read(row, "bytes")?,
            latency_us: read(row, "latency_us")?,
            cost_micros: read(row, "cost_micros")?,
        })
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cpu_us: self.cpu_us.saturating_add(other.cpu_us),
            gpu_us: self.gpu_us.saturating_add(other.gpu_us),
            bytes: self.bytes.saturating_add(other.bytes),
            latency_us: self.latency_us.saturating_add(other.latency_us),
            cost_micros: self.cost_micros.saturating_add(other.cost_micros),
        }
    }
}

impl UsageEntry {
    fn values(&self) -> impl Iterator<Item = Value> {
        [
            self.id.to_value(),
            self.at.to_value(),
            self.department.to_value(),
            self.principal.to_value(),
            self.api_key.to_value(),
            self.deployment.to_value(),
            self.model_version.to_value(),
            self.request.to_value(),
            self.status.to_value(),
        ]
        .into_iter()
        .chain(self.amounts.values().map(|amount| amount.to_value()))
    }

    fn key(&self, rollup: &Rollup) -> Key<'_> {
        let named = |name: &&'static str| match *name {
            "department" => self.department.as_str(),
            "principal" => self.principal.as_str(),
            "deployment" => self.deployment.as_str(),
            "model_version" => self.model_version.as_str(),
            _ => self.api_key.as_str(),
        };
        let names = rollup.names().iter().map(named).collect();
        (start_of(self.at, rollup.period), names)
    }

    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: read(row, "id")?,
            at: read(row, "at")?,
            department: read(row, "department")?,
            principal: read(row, "principal")?,
            api_key: read(row, "api_key")?,
            deployment: read(row, "deployment")?,
            model_version: read(row, "model_version")?,
            request: read(row, "request")?,
            status: read(row, "status")?,
            amounts: Amounts::from_row(row)?,
        })
    }
}

/// A sum's key: sorted, so that two writers take the rows' locks in the same order.
type Key<'a> = (i64, Vec<&'a str>);
type Sums<'a> = BTreeMap<Key<'a>, (i64, Amounts)>;

/// A table of sums.
struct Rollup {
    table: &'static str,
    /// What a row covers, in microseconds.
    period: i64,
    /// What is told apart.
    names: &'static [&'static str],
}

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
const DAYS: Rollup = Rollup {
    table: "usage_days",
    period: DAY_US,
    names: &DETAILS,
};
const HOURS: Rollup = Rollup {
    table: "usage_hours",
    period: HOUR_US,
    names: &DETAILS,
};
const DEPARTMENT_HOURS: Rollup = Rollup {
    table: "usage_department_hours",
    period: HOUR_US,
    names: &["department"],
};
const KEY_DAYS: Rollup = Rollup {
    table: "usage_key_days",
    period: DAY_US,
    names: &["api_key"],
};
const DETAILS: [&str; 4] = ["department", "principal", "deployment", "model_version"];

impl Rollup {
    /// All, in the order in which a writer takes their locks.
    const ALL: [Self; 4] = [HOURS, DAYS, DEPARTMENT_HOURS, KEY_DAYS];

    /// The smallest that can tell.
    fn that_tells(filter: &UsageFilter, by: Option<UsageGroup>) -> Self {
        match by {
            Some(UsageGroup::Hour) if filter.principal.is_none() && filter.deployment.is_none() => {
                DEPARTMENT_HOURS
            }
            Some(UsageGroup::Hour) => HOURS,
            _ => DAYS,
        }
    }

    fn names(&self) -> &'static [&'static str] {
        self.names
    }
}

fn start_of(at: Timestamp, period: i64) -> i64 {
    at.as_micros().div_euclid(period) * period
}

impl Tx {
    /// Appends to the ledger and adds to the sums. An entry whose id is there already is left out of
    /// both, so that a batch may be sent again after a crash.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn record_usage(&mut self, entries: &[UsageEntry]) -> Result<(), StoreError> {
        let mut sums = Rollup::ALL.map(|rollup| (rollup, Sums::new()));
        for batch in entries.chunks(BATCH) {
            let mut new = self.append(batch).await?;
            // Taken out as they are met: an id that comes twice in a batch counts once, too.
            for entry in batch.iter().filter(|entry| new.remove(&entry.id)) {
                for (rollup, sums) in &mut sums {
                    let (errors, amounts) = sums.entry(entry.key(rollup)).or_default();
                    *errors += i64::from(entry.status >= 400) * entry.amounts.requests;
                    *amounts = amounts.plus(entry.amounts);
                }
            }
        }
        let mut used: BTreeMap<&str, Timestamp> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| !entry.api_key.is_empty()) {
            let at = used.entry(&entry.api_key).or_insert(entry.at);
            *at = (*at).max(entry.at);
        }
        for (key, at) in used {
            self.note_key_use(key, at).await?;
        }
        for (rollup, sums) in &sums {
            let rows: Vec<_> = sums.iter().collect();
            for batch in rows.chunks(BATCH) {
                self.add_to_sums(rollup, batch).await?;
            }
        }
        Ok(())
    }

    /// Returns the ids that were not there before.
    async fn append(&mut self, batch: &[UsageEntry]) -> Result<HashSet<UsageId>, StoreError> {
        let sql = format!(
            "INSERT INTO usage_entries ({NAMES}, {}) VALUES {} ON CONFLICT (id) DO NOTHING RETURNING id",
            AMOUNTS.join(", "),
            places(batch.len(), ENTRY_COLUMNS)
        );
        let values = arguments(batch.iter().flat_map(UsageEntry::values))?;
        // Safe: made of constants and places.
        let rows = sqlx::query_with(AssertSqlSafe(sql), values)
            .fetch_all(self.connection())
            .await?;
        rows.iter().map(|row| read(row, "id")).collect()
    }

    async fn add_to_sums(
        &mut self,
        rollup: &Rollup,
        rows: &[(&Key<'_>, &(i64, Amounts))],
    ) -> Result<(), StoreError> {
        let table = rollup.table;
        let names = rollup.names().join(", ");
        let added: Vec<String> = ["errors"]
            .iter()
            .chain(&AMOUNTS)
            .map(|column| format!("{column} = {table}.{column} + excluded.{column}"))
            .collect();
        let sql = format!(
            "INSERT INTO {table} (period, {names}, errors, {}) VALUES {} ON CONFLICT (period, {names}) DO UPDATE SET {}",
            AMOUNTS.join(", "),
            places(rows.len(), 2 + rollup.names().len() + AMOUNTS.len()),
            added.join(", ")
        );
        let values = rows.iter().flat_map(|((start, names), (errors, amounts))| {
            let names = names.iter().map(|name| (*name).to_owned().to_value());
            let numbers = amounts.values().map(|amount| amount.to_value());
            [start.to_value()]
                .into_iter()
                .chain(names)
                .chain([errors.to_value()])
                .chain(numbers)
        });
        // Safe: made of constants and places.
        sqlx::query_with(AssertSqlSafe(sql), arguments(values)?)
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
