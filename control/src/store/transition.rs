//! Changing a record's state: the machine decides whether it may, the database whether nobody was
//! faster, and both the transition log and the audit log are written in the same transaction.

use super::audit::{Actor, Audit};
use super::column::{Column, Value, arguments, read};
use super::record::{Record, Stored, expect_version, get};
use super::{Store, StoreError, Tx};
use crate::domain::machine::{Illegal, Machine};
use crate::id::{Id, TransitionId};
use crate::time::Timestamp;

/// A record with a state machine.
pub trait Stateful: Record {
    type State: Machine + Column;
    fn state(&self) -> Self::State;
    fn set_state(&mut self, state: Self::State);
    /// Whether this record's story is over, even if its state could move on in another's.
    fn is_finished(&self) -> bool {
        self.state().is_final()
    }
    /// What changes with every step of this kind, whoever makes it: instants of start and end, counters.
    fn stepped(&mut self, _event: <Self::State as Machine>::Event, _now: Timestamp) {}
}

/// The event of a record's machine.
pub type EventOf<R> = <<R as Stateful>::State as Machine>::Event;

/// Gives a record its machine: `stateful! { WorkOrder: WorkOrderState as state }`.
macro_rules! stateful {
    ($record:ident: $state:ty as $field:ident) => {
        impl $crate::store::Stateful for $record {
            type State = $state;
            fn state(&self) -> $state {
                self.$field
            }
            fn set_state(&mut self, state: $state) {
                self.$field = state;
            }
        }
    };
}
pub(crate) use stateful;

/// The same for a run, whose start and end are stamped.
macro_rules! stateful_run {
    ($record:ident) => {
        impl $crate::store::Stateful for $record {
            type State = $crate::domain::run::RunStatus;
            fn state(&self) -> Self::State {
                self.status
            }
            fn set_state(&mut self, state: Self::State) {
                self.status = state;
            }
            fn stepped(
                &mut self,
                _event: $crate::domain::run::RunEvent,
                now: $crate::time::Timestamp,
            ) {
                use $crate::domain::machine::Machine as _;
                if self.status == $crate::domain::run::RunStatus::Running {
                    self.started_at = Some(now);
                }
                if self.status.is_final() {
                    self.finished_at = Some(now);
                }
            }
        }
    };
}
pub(crate) use stateful_run;

impl Tx {
    /// Lets `event` happen to a record. `edit` sets what changes along with the state (who approved, when it
    /// ended); fields that are set once are still refused.
    ///
    /// # Errors
    /// [`StoreError::IllegalTransition`] with the legal events, [`StoreError::Stale`], [`StoreError::NotFound`].
    pub async fn transition<R: Stateful>(
        &mut self,
        actor: &Actor,
        id: R::Id,
        expected: Option<i64>,
        event: EventOf<R>,
        edit: impl FnOnce(&mut R) + Send,
    ) -> Result<Stored<R>, StoreError> {
        let before = get::<R>(self.connection(), id).await?;
        expect_version(&before, expected)?;
        let from = before.record.state();
        if before.record.is_finished() {
            let (state, event) = (from.to_string(), event.to_string());
            return Err(Illegal {
                machine: R::State::NAME,
                state,
                event,
                legal: Vec::new(),
            }
            .into());
        }
        let to = from.apply(event)?;
        let mut record = before.record.clone();
        edit(&mut record);
        // Compared before the new state is set, so that `state` may be among the fixed fields.
        record.set_state(from);
        if let Some(field) = before.record.fixed_field_changed(&record) {
            return Err(StoreError::Fixed {
                kind: R::Id::KIND,
                field,
            });
        }
        record.set_state(to);
        record.stepped(event, self.now());
        // The row's version covers its state: a compare-and-set on one is one on both.
        let after = self.replace(&before, record).await?;
        self.log_transition::<R>(actor, &after, from, event).await?;
        self.audit(
            &Audit::of(actor, event.to_string(), id)
                .before(&before)
                .after(&after),
        )
        .await?;
        Ok(after)
    }

    async fn log_transition<R: Stateful>(
        &mut self,
        actor: &Actor,
        after: &Stored<R>,
        from: R::State,
        event: EventOf<R>,
    ) -> Result<(), StoreError> {
        let values = arguments([
            TransitionId::new().to_value(),
            self.now().to_value(),
            Value::Text(Some(R::Id::KIND.to_owned())),
            after.id.to_value(),
            after.version.to_value(),
            from.to_value(),
            Value::Text(Some(event.to_string())),
            after.record.state().to_value(),
            actor.principal.to_value(),
            actor.name.to_value(),
            actor.reason.to_value(),
        ])?;
        sqlx::query_with(
            "INSERT INTO transitions (id, at, object_kind, object_id, object_version, from_state, event, \
             to_state, actor, actor_name, reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            values,
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

/// A state change that was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Transition {
    pub at: Timestamp,
    /// The record's version after it.
    pub object_version: i64,
    pub from_state: String,
    pub event: String,
    pub to_state: String,
    pub actor_name: String,
    pub reason: Option<String>,
}

impl Store {
    /// The state changes of a record after one of its versions, oldest first.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn transitions<I: Id>(
        &self,
        object: I,
        after_version: i64,
    ) -> Result<Vec<Transition>, StoreError> {
        let rows = sqlx::query_with(
            "SELECT at, object_version, from_state, event, to_state, actor_name, reason FROM transitions \
             WHERE object_id = $1 AND object_version > $2 ORDER BY object_version",
            arguments([
                Value::Text(Some(object.to_string())),
                after_version.to_value(),
            ])?,
        )
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Transition {
                    at: read(row, "at")?,
                    object_version: read(row, "object_version")?,
                    from_state: read(row, "from_state")?,
                    event: read(row, "event")?,
                    to_state: read(row, "to_state")?,
                    actor_name: read(row, "actor_name")?,
                    reason: read(row, "reason")?,
                })
            })
            .collect()
    }

    /// [`Tx::transition`] in a transaction of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn transition<R: Stateful>(
        &self,
        actor: &Actor,
        id: R::Id,
        expected: Option<i64>,
        event: EventOf<R>,
        edit: impl FnOnce(&mut R) + Send,
    ) -> Result<Stored<R>, StoreError> {
        let mut tx = self.begin().await?;
        let stored = tx.transition(actor, id, expected, event, edit).await?;
        tx.commit().await?;
        Ok(stored)
    }
}
