//! Why a work order, or something asked of one, is refused.

use super::returns::Unnamed;
use crate::domain::gate::Missing;
use crate::domain::model_version::ModelVersionState;
use crate::domain::roles::Forbidden;
use crate::id::WorkOrderId;
use crate::quota::Exceeded;
use crate::store::StoreError;

/// The comment of each says what it becomes over HTTP.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// As the store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// 403.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// 409, with each thing that is missing.
    #[error("the approval gate is closed: {}", list(.0))]
    Gate(Vec<Missing>),
    /// 409.
    #[error("a version that is {0} cannot be deployed; it has to be approved first")]
    NotApproved(ModelVersionState),
    /// 409.
    #[error(
        "the version's artifact is {found} now, the work order is about {expected}; make a new one"
    )]
    DigestChanged { expected: String, found: String },
    /// 409, with each sum that is too large.
    #[error("the quota does not allow it: {}", list(.0))]
    Quota(Vec<Exceeded>),
    /// 409.
    #[error("work order {0} of this deployment is not finished; abort it, or wait")]
    Busy(WorkOrderId),
    /// 409.
    #[error("the deployment serves nothing")]
    NothingLive,
    /// 409.
    #[error("there is no earlier revision to go back to")]
    NothingEarlier,
    /// 422, of the field `to`.
    #[error(transparent)]
    Unnamed(#[from] Unnamed),
}

fn list<T: std::fmt::Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join("; ")
}
