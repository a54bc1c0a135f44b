//! Keys that other keys made: which of them still count.

use std::collections::{HashMap, HashSet};

use sqlx::AnyConnection;

use super::{KeyOwner, is_unexpired};
use crate::domain::record::ApiKey;
use crate::id::ApiKeyId;
use crate::store::column::{Column as _, arguments};
use crate::store::{StoreError, Stored, columns};
use crate::time::Timestamp;

/// How many keys may stand behind one another. A longer row is refused as if its first key were gone.
const LONGEST: usize = 32;

/// Those whose makers count, of keys that are neither withdrawn nor expired.
pub(super) fn with_makers(owners: Vec<KeyOwner>) -> Vec<KeyOwner> {
    let mut lines: HashMap<String, Vec<&Stored<ApiKey>>> = HashMap::new();
    for KeyOwner { key, .. } in &owners {
        lines.entry(key.line().to_string()).or_default().push(key);
    }
    let counts = |key: &Stored<ApiKey>| {
        let mut key = key;
        for _ in 0..LONGEST {
            let Some(maker) = maker(key) else { return true };
            // All keys of a line have the same maker.
            let Some(of_line) = lines.get(maker).and_then(|line| line.first()) else {
                return false;
            };
            key = of_line;
        }
        false
    };
    let counting: HashSet<ApiKeyId> = owners
        .iter()
        .map(|owner| &owner.key)
        .filter(|key| counts(key))
        .map(|key| key.id)
        .collect();
    let mut owners = owners;
    owners.retain(|owner| counting.contains(&owner.key.id));
    owners
}

/// The same of one key.
pub(super) async fn is_made_by_one_in_force(
    connection: &mut AnyConnection,
    key: &Stored<ApiKey>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let mut of_line: Option<Stored<ApiKey>> = None;
    for _ in 0..LONGEST {
        let Some(maker) = maker(of_line.as_ref().unwrap_or(key)) else {
            return Ok(true);
        };
        // Safe: made of constants and places.
        let rows = sqlx::query_with(
            sqlx::AssertSqlSafe(format!(
                "SELECT {} FROM api_keys WHERE (id = $1 OR line = $1) AND deleted_at IS NULL",
                columns::<ApiKey>()
            )),
            arguments([maker.to_owned().to_value()])?,
        )
        .fetch_all(&mut *connection)
        .await?;
        let keys = rows.iter().map(Stored::<ApiKey>::from_row);
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        of_line = keys.into_iter().find(|key| is_unexpired(key, now));
        if of_line.is_none() {
            return Ok(false);
        }
    }
    Ok(false)
}

/// The line of keys that has to count for this one to count.
fn maker(key: &ApiKey) -> Option<&str> {
    key.made_by.as_deref().filter(|_| key.ends_with_maker)
}
