//! The records, one file a family: which fields a client sets, who may know of them, how they are checked.

pub(super) mod accounting;
pub(super) mod apply;
pub(super) mod approvals;
pub(super) mod artifacts;
pub(super) mod conversions;
pub(super) mod datasets;
pub(super) mod deployments;
pub(super) mod downloads;
pub(super) mod evaluation_runs;
pub(super) mod evaluations;
mod granting;
pub(super) mod imports;
mod key_bounds;
pub(super) mod keys;
pub(super) mod models;
pub(super) mod names;
pub(super) mod people;
pub(super) mod releases;
mod releases_view;
pub(super) mod requirements;
mod secrecy;
pub(super) mod taken_back;
pub(super) mod tasks;
pub(super) mod trainings;
pub(super) mod uploads;
pub(super) mod versions;
pub(super) mod work_orders;
