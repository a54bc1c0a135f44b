//! What is asked of the ledger and its sums.

use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::{
    AMOUNTS, Amounts, KEY_DAYS, KeyUse, NAMES, Rollup, UsageEntry, UsageFilter, UsageGroup,
    UsageSum, start_of,
};
use crate::id::UsageId;
use crate::store::column::{Column, Value, arguments, read};
use crate::store::{Page, Store, StoreError};
use crate::time::Timestamp;

/// A WHERE over `time` and the filter's names, and its values.
fn conditions(
    filter: &UsageFilter,
    time: &str,
    from: Option<Timestamp>,
) -> (Vec<String>, Vec<Value>) {
    let mut clauses = vec!["TRUE".to_owned()];
    let mut values = Vec::new();
    let mut add = |condition: String, value: Option<Value>| {
        if let Some(value) = value {
            values.push(value);
            clauses.push(format!("{condition} ${}", values.len()));
        }
    };
    add(format!("{time} >="), from.map(|from| from.to_value()));
    add(
        format!("{time} <"),
        filter.until.map(|until| until.to_value()),
    );
    add(
        "department =".into(),
        filter.department.as_ref().map(Column::to_value),
    );
    add(
        "principal =".into(),
        filter.principal.as_ref().map(Column::to_value),
    );
    add(
        "deployment =".into(),
        filter.deployment.as_ref().map(Column::to_value),
    );
    (clauses, values)
}

impl Store {
    /// Sums, a line for each group, or one line for all. Grouped by hour they are over whole hours,
    /// otherwise over whole days (UTC): a day that `from` or `until` lies in counts entirely.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn usage(
        &self,
        filter: &UsageFilter,
        by: Option<UsageGroup>,
    ) -> Result<Vec<UsageSum>, StoreError> {
        let rollup = Rollup::that_tells(filter, by);
        let group = match by {
            None => "''".to_owned(),
            Some(UsageGroup::Hour | UsageGroup::Day) => "period".to_owned(),
            // An expression, lest SQLite follow the column's index through the whole table, row by row.
            Some(column) => format!("{column} || ''"),
        };
        let from = filter
            .from
            .map(|from| Timestamp::from_micros(start_of(from, rollup.period)));
        let (clauses, values) = conditions(filter, "period", from);
        let sums: Vec<String> = ["errors"]
            .iter()
            .chain(&AMOUNTS)
            .map(|column| format!("CAST(COALESCE(SUM({column}), 0) AS BIGINT) AS {column}"))
            .collect();
        let (selected, grouping) = match by {
            None => ("'' AS named".to_owned(), String::new()),
            Some(_) => (
                format!("{group} AS named"),
                format!(" GROUP BY {group} ORDER BY {group}"),
            ),
        };
        let sql = format!(
            "SELECT {selected}, {} FROM {} WHERE {}{grouping}",
            sums.join(", "),
            rollup.table,
            clauses.join(" AND ")
        );
        // Safe: made of constants and places.
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments(values)?)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        let line = |row: &AnyRow| {
            let group = match by {
                Some(UsageGroup::Hour | UsageGroup::Day) => {
                    read::<Timestamp>(row, "named")?.to_string()
                }
                _ => read(row, "named")?,
            };
            Ok(UsageSum {
                group,
                errors: read(row, "errors")?,
                amounts: Amounts::from_row(row)?,
            })
        };
        rows.iter().map(line).collect()
    }

    /// What the keys of a line used since the day of `from`.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn usage_of_keys(&self, line: &str, from: Timestamp) -> Result<Amounts, StoreError> {
        let sums = AMOUNTS
            .map(|column| format!("CAST(COALESCE(SUM({column}), 0) AS BIGINT) AS {column}"))
            .join(", ");
        // Safe: made of constants and places.
        let row = sqlx::query_with(
            AssertSqlSafe(format!(
                "SELECT {sums} FROM usage_key_days WHERE period >= $1 AND api_key IN \
                 (SELECT id FROM api_keys WHERE id = $2 OR line = $2)"
            )),
            arguments([
                start_of(from, KEY_DAYS.period).to_value(),
                line.to_owned().to_value(),
            ])?,
        )
        .fetch_one(&mut *self.reader().await?)
        .await?;
        Amounts::from_row(&row)
    }

    /// Which keys had answers of which recorded deployments since `since`, from the ledger.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn used_by_keys(&self, since: Timestamp) -> Result<Vec<KeyUse>, StoreError> {
        let rows = sqlx::query_with(
            "SELECT u.api_key AS api_key, u.deployment AS deployment, d.endpoint AS endpoint, \
             CAST(SUM(u.requests) AS BIGINT) AS requests, MAX(u.at) AS last FROM usage_entries u \
             JOIN deployments d ON d.id = u.deployment AND d.deleted_at IS NULL \
             WHERE u.at >= $1 AND u.api_key <> '' AND u.status < 400 \
             GROUP BY u.api_key, u.deployment, d.endpoint ORDER BY d.endpoint, u.api_key",
            arguments([since.to_value()])?,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let used = |row: &AnyRow| {
            Ok(KeyUse {
                key: read(row, "api_key")?,
                deployment: read(row, "deployment")?,
                endpoint: read(row, "endpoint")?,
                requests: read(row, "requests")?,
                last: read(row, "last")?,
            })
        };
        rows.iter().map(used).collect()
    }

    /// The ledger, newest first. `after` is the `next` of the page before.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a foreign cursor.
    pub async fn usage_entries(
        &self,
        filter: &UsageFilter,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<UsageEntry>, StoreError> {
        let (mut clauses, mut values) = conditions(filter, "at", filter.from);
        if let Some(after) = after {
            let (at, id) = decode_cursor(after)?;
            values.extend([at.to_value(), id.to_value()]);
            clauses.push(format!(
                "(at, id) < (${}, ${})",
                values.len() - 1,
                values.len()
            ));
        }
        values.push(i64::from(limit).saturating_add(1).to_value());
        let sql = format!(
            "SELECT {NAMES}, {} FROM usage_entries WHERE {} ORDER BY at DESC, id DESC LIMIT ${}",
            AMOUNTS.join(", "),
            clauses.join(" AND "),
            values.len()
        );
        // Safe: made of constants and places.
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments(values)?)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        let more = rows.len() > limit as usize;
        let items = rows
            .iter()
            .take(limit as usize)
            .map(UsageEntry::from_row)
            .collect::<Result<Vec<_>, _>>()?;
        let next = items
            .last()
            .filter(|_| more)
            .map(|last| format!("{}.{}", last.at.as_micros(), last.id));
        Ok(Page { items, next })
    }
}

fn decode_cursor(cursor: &str) -> Result<(Timestamp, UsageId), StoreError> {
    cursor
        .split_once('.')
        .and_then(|(at, id)| Some((Timestamp::from_micros(at.parse().ok()?), id.parse().ok()?)))
        .ok_or_else(|| StoreError::invalid("cursor", "is not one that the ledger gave"))
}
