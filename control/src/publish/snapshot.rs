//! What is published, as a value.

use serde::{Deserialize, Serialize};

use sluice_gateway::auth::KeyEntry;

use super::standing::{Standing, both};
use crate::deploy::{History, Return, Settings};
use crate::domain::record::{Department, Quota, Scope};
use crate::domain::roles::{Role, Verb};
use crate::domain::secrecy::Secrecy;
use crate::id::{ApiKeyId, DepartmentId, DeploymentId, PrincipalId, QuotaId};
use crate::release::planner::Release;
use crate::release::strategy::Strategy;
use crate::store::{
    DeploymentAudience, KeyLimits, KeyOwner, Listing, LiveRevision, MAX_LIMIT, ReleasedRevision,
    Store, StoreError, WarmRevision,
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
    /// Who may use what of `revisions`. One that is not told of is its department's alone.
    #[serde(default)]
    pub audiences: Vec<DeploymentAudience>,
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
    pub expires_at: Option<Timestamp>,
    /// What an earlier binary wrote has no role, and takes nothing back while the database is away.
    #[serde(default)]
    pub role: Option<Role>,
    #[serde(default)]
    pub scopes: Vec<Scope>,
    #[serde(default = "internal")]
    pub clearance: Secrecy,
    /// As configuration files call it; what an earlier binary wrote goes by the id.
    #[serde(default)]
    pub department_name: Option<String>,
    #[serde(default)]
    pub models: Option<Vec<String>>,
    #[serde(default)]
    pub limits: KeyLimits,
    /// The key's line, by which its month is counted.
    #[serde(default)]
    pub line: Option<ApiKeyId>,
    /// The key that made it, whose limits hold for it too.
    #[serde(default)]
    pub made_by: Option<String>,
}

fn internal() -> Secrecy {
    Secrecy::Internal
}

/// What the keys file says of the key with an id.
pub type FileKeys<'a> = &'a (dyn Fn(&str) -> Option<KeyEntry> + Send + Sync);

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
    pub async fn take(
        store: &Store,
        before: &Self,
        file: FileKeys<'_>,
    ) -> Result<Self, StoreError> {
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
        let departments = departments(store).await?;
        let mut keys: Vec<_> = store
            .keys_in_force(Timestamp::now())
            .await?
            .into_iter()
            .filter_map(|owner| PublishedKey::of(&owner, &departments, file))
            .collect();
        keys.sort_by_key(|key| key.key);
        let audiences = store.deployment_audiences().await?;
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
            audiences,
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

impl PublishedKey {
    /// `None` for one of a principal that was a key of the keys file, and is none any more.
    fn of(
        owner: &KeyOwner,
        departments: &[(DepartmentId, String)],
        file: FileKeys<'_>,
    ) -> Option<Self> {
        let KeyOwner { key, principal } = owner;
        let standing = Standing::of(principal, file)?;
        let role = standing.role;
        let own_models = key.models.as_ref().map(|models| models.0.clone());
        let department = departments
            .iter()
            .find(|(id, _)| *id == principal.department);
        Some(Self {
            role: Some(role),
            scopes: key.scopes.0.clone(),
            clearance: standing.clearance,
            department_name: department.map(|(_, name)| name.clone()),
            models: both(own_models, standing.models),
            limits: KeyLimits::of(key),
            line: Some(key.line()),
            made_by: key.made_by.clone(),
            key: owner.key.id,
            principal: owner.principal.id,
            department: owner.principal.department,
            name: owner.principal.name.clone(),
            hash: owner.key.hash.clone(),
            // Whose role may not infer still may what was granted by name.
            inference: owner.key.scopes.0.contains(&Scope::Inference),
            operator: role.may(Verb::OperateRelease),
            expires_at: owner.key.expires_at,
        })
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
