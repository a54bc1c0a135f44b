//! What still needs a version: where it serves, where it is about to, and where a roll-back would bring it back. Archiving
//! one of those would close the way back, or leave traffic with what nobody may serve.

use std::fmt;

use super::returns::History;
use super::service::HISTORY;
use crate::domain::model_version::ModelVersionState;
use crate::domain::record::{Deployment, ModelVersion};
use crate::id::WorkOrderId;
use crate::store::{Listing, MAX_LIMIT, Store, StoreError, Stored, Tx};

/// Who needs a version, by the deployment's endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    Live(String),
    Candidate(String, WorkOrderId),
    WayBack(String),
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live(endpoint) => write!(f, "it is live at {endpoint}; serve another one first"),
            Self::Candidate(endpoint, order) => write!(
                f,
                "it is the candidate of work order {order} of {endpoint}; end that first"
            ),
            Self::WayBack(endpoint) => write!(
                f,
                "a roll-back of {endpoint} would bring it back; it can be archived once {endpoint} has served two others since, or is stopped"
            ),
        }
    }
}

/// Everybody who needs `version`. The deployments of its model stay as they are until the transaction ends.
///
/// # Errors
/// Only the database's own.
pub(crate) async fn held(
    store: &Store,
    tx: &mut Tx,
    version: &Stored<ModelVersion>,
) -> Result<Vec<Held>, StoreError> {
    let listing = Listing::<Deployment>::new()
        .is("model", &version.model)
        .oldest_first()
        .limit(MAX_LIMIT);
    let mut held = Vec::new();
    for deployment in store.list(&listing).await?.items {
        tx.lock_deployment(deployment.id).await?;
        let deployment = tx.get::<Deployment>(deployment.id).await?;
        let endpoint = || deployment.endpoint.clone();
        if deployment.live_version == Some(version.id) {
            held.push(Held::Live(endpoint()));
        }
        if let Some(active) = store.active_work_order(deployment.id).await?
            && active.candidate == version.id
        {
            held.push(Held::Candidate(endpoint(), active.id));
        }
        let Some(live) = deployment.live_work_order else {
            continue;
        };
        let live = store.revision_of(live).await?;
        let history = History {
            returns: store.returns(deployment.id, HISTORY).await?,
            taken_back: None,
        };
        let back = history.before(&live).next();
        if back.is_some_and(|it| it.revision.version == version.id) {
            held.push(Held::WayBack(endpoint()));
        }
    }
    if held.is_empty() && version.state == ModelVersionState::Live {
        // By the records alone: a deployment that is not listed any more.
        held.push(Held::Live("a deployment".into()));
    }
    Ok(held)
}
