//! Records and decisions: what is served, what it was made from, and who decided so.
//!
//! `domain` holds values and rules and does nothing; `store` keeps them in SQLite or PostgreSQL. Everything else
//! of the control plane stands on these two.
//!
//! ```no_run
//! # use sluice_control::{domain::record::Department, store::{Actor, Listing, Store, StoreSettings}};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::open(&"sqlite:data/sluice.db".parse()?, &StoreSettings::default()).await?;
//! let actor = Actor::system("set-up");
//! let made = store.create(&actor, Department { name: "helpdesk".into(), description: String::new() }).await?;
//! // A change names the version that it was made against; somebody faster makes it a `StoreError::Stale`.
//! let edited = store
//!     .update::<Department>(&actor, made.id, Some(made.version), |it| it.description = "IT support".into())
//!     .await?;
//! assert_eq!(edited.version, 2);
//! // Several changes that belong together share a transaction.
//! let mut tx = store.begin().await?;
//! tx.delete::<Department>(&actor, made.id, Some(2)).await?;
//! tx.commit().await?;
//! let page = store.list(&Listing::<Department>::new().is("name", &"helpdesk".to_owned()).limit(20)).await?;
//! assert!(page.items.is_empty() && page.next.is_none());
//! # Ok(()) }
//! ```
//!
//! # Adding a record
//!
//! 1. Its id: a line in `id.rs`, with a prefix of its own.
//! 2. Its table: the next file in `migrations/`, and a line in `store/migration.rs`. It ends in `version`, `created_at`,
//!    `updated_at`, `deleted_at`; a unique index is called `TABLE__FIELD_unique`.
//! 3. Its fields: a plain struct in `domain/record/`. Enums are made by `words!`.
//! 4. Its columns: `mapped! { Name(NameId) in "names": fixed […], editable […] }` in `store/`. With that it can be
//!    created, read, listed, edited and put away, audited, and under an optimistic lock.
//! 5. If it has states: a machine in `domain/` (one `match`; add it to `domain::document` and to the tests
//!    of `machine.rs`), and `stateful! { Name: NameState as state }`. Then [`store::Store::transition`] moves it.
//! 6. A test with `rig::on_both`, which runs it on both databases.
//!
//! Statements of one's own use [`store::Tx::connection`] or [`store::Store::reader`], `$1` places, [`store::arguments`] and
//! [`store::read`]; sums are cast (`CAST(SUM(x) AS BIGINT)`), since PostgreSQL's are of another type.

mod alive;
pub mod api;
pub mod artifacts;
pub mod control;
pub mod deploy;
pub mod doctor;
pub mod domain;
pub mod evaluation;
pub mod id;
pub mod pipelines;
pub mod private;
pub mod publish;
pub mod quota;
pub mod release;
pub mod rows;
pub mod sandbox;
pub mod serving;
pub mod store;
pub mod tasks;
pub mod time;
pub mod upkeep;
pub mod usage;
pub mod work;
