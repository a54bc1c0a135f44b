//! Who did what to which record, and what it was before and after. Only ever appended to.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::column::{Column, Value, arguments, placed, read};
use super::record::{Record, Stored};
use super::{Store, StoreError, Tx, Viewer};
use crate::id::{AuditEventId, DepartmentId, Id, PrincipalId};
use crate::time::Timestamp;

/// On whose behalf something is done, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// `None` for the system itself.
    pub principal: Option<PrincipalId>,
    /// As people will read it in the log, even after the principal is gone.
    pub name: String,
    /// Said by the person, such as an override's reason.
    pub reason: Option<String>,
    /// The id of the HTTP request.
    pub request: Option<String>,
}

impl Actor {
    pub fn person(principal: PrincipalId, name: impl Into<String>) -> Self {
        Self {
            principal: Some(principal),
            name: name.into(),
            reason: None,
            request: None,
        }
    }

    /// A part of the program that acts by itself: `Actor::system("lease reaper")`.
    pub fn system(part: &str) -> Self {
        Self {
            principal: None,
            name: format!("system: {part}"),
            reason: None,
            request: None,
        }
    }

    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    #[must_use]
    pub fn in_request(mut self, request: impl Into<String>) -> Self {
        self.request = Some(request.into());
        self
    }
}

/// An event to be appended.
#[derive(Debug, Clone)]
pub struct Audit<'a> {
    actor: &'a Actor,
    verb: String,
    kind: &'static str,
    id: String,
    before: Option<String>,
    after: Option<String>,
}

impl<'a> Audit<'a> {
    pub fn of<I: Id>(actor: &'a Actor, verb: impl Into<String>, id: I) -> Self {
        Self {
            actor,
            verb: verb.into(),
            kind: I::KIND,
            id: id.to_string(),
            before: None,
            after: None,
        }
    }

    #[must_use]
    pub(super) fn before<R: Record>(mut self, stored: &Stored<R>) -> Self {
        self.before = serde_json::to_string(stored).ok();
        self
    }

    #[must_use]
    pub(super) fn after<R: Record>(mut self, stored: &Stored<R>) -> Self {
        self.after = serde_json::to_string(stored).ok();
        self
    }

    /// What came of it, where that is not a record: which requirements were overridden, for example.
    #[must_use]
    pub fn detail(mut self, detail: &serde_json::Value) -> Self {
        self.after = Some(detail.to_string());
        self
    }
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct AuditEvent {
    pub id: AuditEventId,
    pub at: Timestamp,
    pub actor: Option<PrincipalId>,
    pub actor_name: String,
    pub verb: String,
    pub object_kind: String,
    pub object_id: String,
    pub before: Option<serde_json::Value>,
    pub after: Option<serde_json::Value>,
    pub reason: Option<String>,
    pub request: Option<String>,
}

impl AuditEvent {
    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        let json = |column| {
            let text: Option<String> = read(row, column)?;
            Ok::<_, StoreError>(text.and_then(|text| serde_json::from_str(&text).ok()))
        };
        Ok(Self {
            id: read(row, "id")?,
            at: read(row, "at")?,
            actor: read(row, "actor")?,
            actor_name: read(row, "actor_name")?,
            verb: read(row, "verb")?,
            object_kind: read(row, "object_kind")?,
            object_id: read(row, "object_id")?,
            before: json("before_json")?,
            after: json("after_json")?,
            reason: read(row, "reason")?,
            request: read(row, "request")?,
        })
    }
}

/// Which events to show; an absent field does not restrict.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub object: Option<String>,
    pub object_kind: Option<String>,
    pub actor: Option<PrincipalId>,
    pub verb: Option<String>,
    /// Only events older than this one: the last of the page before.
    pub before: Option<AuditEventId>,
    /// Nothing about datasets that it may not know of. What a model is asked, and its verdicts, are no secret of theirs.
    pub viewer: Option<Viewer>,
    /// Only what people of this department did.
    pub department: Option<DepartmentId>,
}

impl Tx {
    /// Appends to the log, as part of this transaction.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn audit(&mut self, audit: &Audit<'_>) -> Result<(), StoreError> {
        let values = arguments([
            AuditEventId::new().to_value(),
            self.now().to_value(),
            audit.actor.principal.to_value(),
            audit.actor.name.to_value(),
            audit.verb.to_value(),
            Value::Text(Some(audit.kind.to_owned())),
            audit.id.to_value(),
            audit.before.to_value(),
            audit.after.to_value(),
            audit.actor.reason.to_value(),
            audit.actor.request.to_value(),
        ])?;
        sqlx::query_with(
            "INSERT INTO audit_events (id, at, actor, actor_name, verb, object_kind, object_id, before_json, \
             after_json, reason, request) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            values,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

impl Store {
    /// The newest events first, at most `limit`.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn audit_events(
        &self,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let mut clauses = vec!["TRUE".to_owned()];
        let mut values = Vec::new();
        let conditions = [
            ("object_id =", filter.object.to_value()),
            ("object_kind =", filter.object_kind.to_value()),
            ("actor =", filter.actor.to_value()),
            ("verb =", filter.verb.to_value()),
            ("id <", filter.before.to_value()),
        ];
        for (condition, value) in conditions {
            if value != Value::Text(None) {
                values.push(value);
                clauses.push(format!("{condition} ${}", values.len()));
            }
        }
        if let Some(viewer) = filter.viewer {
            hide_secrets(viewer, &mut clauses, &mut values);
        }
        if let Some(department) = filter.department {
            values.push(department.to_value());
            clauses.push(format!(
                "actor IN (SELECT p.id FROM principals p WHERE p.department = ${})",
                values.len()
            ));
        }
        let sql = format!(
            "SELECT * FROM audit_events WHERE {} ORDER BY id DESC LIMIT {limit}",
            clauses.join(" AND ")
        );
        // Safe: made of constants and a number; every value is bound.
        let rows = sqlx::query_with(sqlx::AssertSqlSafe(sql), arguments(values)?)
            .fetch_all(&mut *self.reader().await?)
            .await?;
        rows.iter().map(AuditEvent::from_row).collect()
    }
}

/// Leaves out what is about datasets that the viewer may not know of: themselves, their versions, grants on them, and
/// trainings' runs that name them.
fn hide_secrets(viewer: Viewer, clauses: &mut Vec<String>, values: &mut Vec<Value>) {
    let versions = Viewer::dataset_versions();
    let kinds = [
        ("dataset", Viewer::DATASETS.to_owned()),
        ("dataset version", versions.clone()),
        (
            "grant",
            format!(
                "SELECT h.id FROM grants h WHERE h.object_kind <> 'dataset' OR h.object_id IN ({})",
                Viewer::DATASETS
            ),
        ),
        (
            "training run",
            format!(
                "SELECT r.id FROM training_runs r WHERE NOT EXISTS (SELECT 1 FROM training_datasets t \
                 WHERE t.training = r.training AND t.dataset_version NOT IN ({versions}))"
            ),
        ),
    ];
    for (kind, visible) in kinds {
        let visible = placed(&visible, values.len());
        values.extend(viewer.values());
        clauses.push(format!(
            "(object_kind <> '{kind}' OR object_id IN ({visible}))"
        ));
    }
}
