//! From an approved version to live traffic: work orders, end to end.
//!
//! A work order is one change of what a deployment serves. [`Deployments`] is what people (and the API) call:
//!
//! | call | who | what it does |
//! |---|---|---|
//! | [`Deployments::check`] | – | whether a deployment's settings can work; call it before creating or editing one |
//! | [`Deployments::order`] | developer, operator | a work order for a version, with a snapshot of the settings |
//! | [`Deployments::approve`] | approver | the gate and the quotas are asked; an override takes a reason |
//! | [`Deployments::reject`] | approver | ends an order that is pending |
//! | [`Deployments::abort`] | operator | ends an order that has taken no traffic yet |
//! | [`Deployments::aim`], [`Deployments::bring_back`] | operator | what a roll-back amounts to, and an approved order that does it |
//! | [`Deployments::stop`] | operator | the deployment serves nothing any more |
//!
//! Each commits and wakes the [`Driver`], which runs in the serving process and does the work: it fetches, verifies,
//! loads, warms up, probes ([`prepare`]), makes the revision live in one transaction, and has the
//! [`Publisher`](crate::publish::Publisher) swap the route table. Each thing done is a `work_order_step` with its times and
//! numbers. The driver keeps nothing in memory that it could not find out again: after a crash it reads the order's
//! state and goes on, and until the swap the traffic stays where it was. A lease, checked in the transaction of
//! every write, sees to it that one process drives an order.
//!
//! A checkpoint is not converted on the way: what a conversion writes has another digest than what was evaluated and
//! approved, so that the gate would have to refuse it. It is converted first, and its output is a version's artifact.

mod dossier;
mod driver;
mod error;
mod held;
mod prepare;
pub(crate) mod replicas;
pub mod returns;
mod service;
mod settings;
mod shelf;
mod steps;

pub(crate) use dossier::{Dossier, check_order};
pub(crate) use driver::go_live;
pub use driver::{Driver, DriverSettings};
pub use error::DeployError;
pub(crate) use held::held;
pub use replicas::{Artifacts, Blueprint, Materialised, Replicas};
pub use returns::{Aim, Already, History, Return};
pub use service::{Deployments, NewWorkOrder, Returned};
pub use settings::{Settings, check_allowed};
pub use shelf::Shelf;

use crate::domain::roles::{Forbidden, Role, Verb, authorize};
use crate::id::DepartmentId;
use crate::store::Actor;

/// Who asks for something, and by what right.
#[derive(Debug, Clone)]
pub struct Caller {
    pub actor: Actor,
    pub role: Role,
    /// `None` for the administrator of a process without authentication, who belongs nowhere.
    pub department: Option<DepartmentId>,
}

impl Caller {
    /// # Errors
    /// [`Forbidden`], if the role may not, or the object belongs to another department.
    pub fn may(&self, verb: Verb, owner: DepartmentId) -> Result<(), Forbidden> {
        authorize(
            self.role,
            self.department.unwrap_or(owner),
            verb,
            Some(owner),
        )
    }
}

#[cfg(test)]
pub(crate) mod tests;
