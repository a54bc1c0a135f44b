//! What is published, as a value.

use serde::{Deserialize, Serialize};

use crate::deploy::{History, Return, Settings};
use crate::domain::record::{Department, Quota, Scope};
use crate::domain::roles::{Role, Verb};
use crate::id::{ApiKeyId, DepartmentId, DeploymentId, PrincipalId, QuotaId};
use crate::release::planner::Release;
use crate::release::strategy::Strategy;
use crate::store::{
    KeyOwner, Listing, LiveRevision, MAX_LIMIT, ReleasedRevision, Store, StoreError, WarmRevision,
};
use crate::time::Timestamp;

/// How many revisions that were live are published of each deployment: those that it may be taken back to while the
/// database is away.
const RETURNS: u32 = 8;

/// All that the data plane needs to know of the records.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    pub revisions: Vec<LiveRevision>,
    #[serde(default)]
    pub releases: Vec<PublishedRelease>,
    #[serde(default)]
    pub warm: Vec<PublishedWarm>,
    /// Of each deployment that serves something: what was live here, the latest first.
    #[serde(default)]
    pub returns: Vec<Return>,
    /// When a release beside what is live was last taken back.
    #[serde(default)]
    pub taken_back: Vec<(DeploymentId, Timestamp)>,
    pub keys: Vec<PublishedKey>,
    pub quotas: Vec<PublishedQuota>,
}

/// A release that is not over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedRelease {
    pub candidate: LiveRevision,
    pub state: Release,
    pub strategy: Strategy,
}

/// A revision that is kept to be taken back to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedWarm {
    pub revision: LiveRevision,
    pub until: Timestamp,
}

/// A key that is in force, and whose it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedKey {
    pub key: ApiKeyId,
    pub principal: PrincipalId,
    pub department: DepartmentId,
    /// The principal's, as it stands in logs.
    pub name: String,
    /// Hexadecimal sha256 of the secret.
    pub hash: String,
    /// May ask models.
    pub inference: bool,
    /// May ask revisions on trial.
    pub operator: bool,
    /// The role by which it may steer releases; `None` where role or scope do not let it.
    #[serde(default)]
    pub steers_as: Option<Role>,
    pub expires_at: Option<Timestamp>,
}

/// A quota, and how refusals call it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedQuota {
    pub id: QuotaId,
    pub name: String,
    pub quota: Quota,
}

impl Snapshot {
    /// What a deployment may be taken back to in no time.
    pub fn warm(&self, deployment: DeploymentId) -> Option<&LiveRevision> {
        let now = Timestamp::now();
        let warm = self.warm.iter().map(|it| (&it.revision, it.until));
        let mut warm = warm.filter(|(it, until)| it.deployment == deployment && now < *until);
        warm.next().map(|(revision, _)| revision)
    }

    /// What a deployment serves.
    pub fn live(&self, deployment: DeploymentId) -> Option<&LiveRevision> {
        let mut live = self.revisions.iter();
        live.find(|it| it.deployment == deployment)
    }

    /// The release of a deployment that is not over.
    pub fn release(&self, deployment: DeploymentId) -> Option<&PublishedRelease> {
        let mut releases = self.releases.iter();
        releases.find(|it| it.candidate.deployment == deployment)
    }

    /// What of a deployment was live, as far as it is published.
    pub fn history(&self, deployment: DeploymentId) -> History {
        let returns = self.returns.iter();
        let of_it = returns.filter(|it| it.revision.deployment == deployment);
        let mut taken_back = self.taken_back.iter();
        History {
            returns: of_it.cloned().collect(),
            taken_back: taken_back
                .find(|(id, _)| *id == deployment)
                .map(|(_, at)| *at),
        }
    }

    /// Snapshots of older versions have none.
    fn has_returns(&self) -> bool {
        self.revisions.is_empty() || !self.returns.is_empty()
    }

    /// As the database has it now. `before`: what was published before it.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn take(store: &Store, before: &Self) -> Result<Self, StoreError> {
        let revisions = store.live_revisions().await?;
        // It changes with what is live, and with nothing else.
        let returns = if revisions == before.revisions && before.has_returns() {
            before.returns.clone()
        } else {
            store.latest_returns(RETURNS).await?
        };
        let taken_back = store.taken_back_beside_live().await?;
        let releases = store.releases_under_way().await?;
        let releases = releases.into_iter().filter_map(published).collect();
        let warm = store.warm_revisions().await?;
        let warm = warm.into_iter().filter_map(kept_warm).collect();
        let mut keys: Vec<_> = store
            .keys_in_force(Timestamp::now())
            .await?
            .into_iter()
            .map(PublishedKey::from)
            .collect();
        keys.sort_by_key(|key| key.key);
        let departments = departments(store).await?;
        let quotas = store.all_quotas().await?;
        let quotas = quotas
            .into_iter()
            .map(|stored| PublishedQuota {
                id: stored.id,
                name: name(&stored.record, &departments),
                quota: stored.record,
            })
            .collect();
        Ok(Self {
            revisions,
            releases,
            warm,
            returns,
            taken_back,
            keys,
            quotas,
        })
    }
}

/// What was written by a newer binary, or by hand, is said and left out: the stable revision goes on.
fn published(released: ReleasedRevision) -> Option<PublishedRelease> {
    let ReleasedRevision { revision, state } = released;
    let read = || -> Result<_, String> {
        let state = serde_json::from_value(state.0).map_err(|error| error.to_string())?;
        let settings = Settings::read(&revision.snapshot).map_err(|error| error.to_string())?;
        let strategy = settings.strategy().map_err(|error| error.to_string())?;
        Ok((state, strategy))
    };
    match read() {
        Ok((state, strategy)) => Some(PublishedRelease {
            candidate: revision,
            state,
            strategy,
        }),
        Err(error) => {
            tracing::error!(release = %revision.work_order, error, "a release cannot be read");
            None
        }
    }
}

fn kept_warm(warm: WarmRevision) -> Option<PublishedWarm> {
    let strategy = Settings::read(&warm.replaced_by).ok()?.strategy().ok()?;
    Some(PublishedWarm {
        until: warm.since.after(strategy.keep_warm),
        revision: warm.revision,
    })
}

impl From<KeyOwner> for PublishedKey {
    fn from(owner: KeyOwner) -> Self {
        let role: Role = owner.principal.role;
        Self {
            key: owner.key.id,
            principal: owner.principal.id,
            department: owner.principal.department,
            name: owner.principal.name.clone(),
            hash: owner.key.hash.clone(),
            inference: owner.key.scopes.0.contains(&Scope::Inference) && role.may(Verb::Infer),
            operator: role.may(Verb::OperateRelease),
            steers_as: (role.may(Verb::OperateRelease)
                && owner.key.scopes.0.contains(&Scope::Write))
            .then_some(role),
            expires_at: owner.key.expires_at,
        }
    }
}

async fn departments(store: &Store) -> Result<Vec<(DepartmentId, String)>, StoreError> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let listing = Listing::<Department>::new().limit(MAX_LIMIT).after(cursor);
        let page = store.list(&listing).await?;
        all.extend(page.items.iter().map(|it| (it.id, it.name.clone())));
        cursor = page.next;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

fn name(quota: &Quota, departments: &[(DepartmentId, String)]) -> String {
    match (quota.department, quota.principal) {
        (Some(id), _) => {
            let found = departments.iter().find(|(known, _)| *known == id);
            let name = found.map_or_else(|| id.to_string(), |(_, name)| name.clone());
            format!("quota of department {name}")
        }
        (None, Some(_)) => "quota of your own".into(),
        (None, None) => "quota".into(),
    }
}
