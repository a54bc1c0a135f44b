//! Who may use which deployment, as the data plane is told.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::domain::secrecy::Secrecy;
use crate::id::{DepartmentId, DeploymentId, PrincipalId};
use crate::store::{Store, StoreError, read};

/// Who may use a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentAudience {
    pub deployment: DeploymentId,
    pub department: DepartmentId,
    pub department_name: String,
    pub clearance: Secrecy,
    pub open_to_all: bool,
    /// It may stand in for what the configuration serves under its name.
    pub adopted: bool,
    /// Whom it was granted to.
    pub people: Vec<PrincipalId>,
    /// Those of them that are keys of the keys file, by their ids there.
    pub file_keys: Vec<String>,
    /// Departments that it was granted to, by name.
    pub departments: Vec<String>,
}

#[derive(Default)]
struct Granted {
    people: Vec<PrincipalId>,
    file_keys: Vec<String>,
    departments: Vec<String>,
}

impl Store {
    /// Of every deployment that is not put away, in the order of their ids.
    ///
    /// # Errors
    /// Only the database's own.
    pub async fn deployment_audiences(&self) -> Result<Vec<DeploymentAudience>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "SELECT d.id AS id, d.department AS department, p.name AS name, d.clearance AS clearance, \
             d.open_to_all AS open_to_all, d.adopted AS adopted FROM deployments d \
             JOIN departments p ON p.id = d.department WHERE d.deleted_at IS NULL ORDER BY d.id",
        )
        .fetch_all(&mut *reader)
        .await?;
        let grants = sqlx::query(
            "SELECT g.object_id AS id, g.principal AS principal, w.file_key AS file_key, p.name AS name FROM grants g \
             LEFT JOIN principals w ON w.id = g.principal AND w.deleted_at IS NULL \
             LEFT JOIN departments p ON p.id = g.department AND p.deleted_at IS NULL \
             WHERE g.object_kind = 'deployment' AND g.deleted_at IS NULL AND g.access IN ('use', 'edit') ORDER BY g.id",
        )
        .fetch_all(&mut *reader)
        .await?;
        let mut granted: HashMap<String, Granted> = HashMap::new();
        for row in &grants {
            let to = granted.entry(read(row, "id")?).or_default();
            to.people
                .extend(read::<Option<PrincipalId>>(row, "principal")?);
            to.file_keys
                .extend(read::<Option<String>>(row, "file_key")?);
            to.departments.extend(read::<Option<String>>(row, "name")?);
        }
        rows.iter()
            .map(|row| {
                let deployment: DeploymentId = read(row, "id")?;
                let Granted {
                    people,
                    file_keys,
                    departments,
                } = granted.remove(&deployment.to_string()).unwrap_or_default();
                Ok(DeploymentAudience {
                    deployment,
                    department: read(row, "department")?,
                    department_name: read(row, "name")?,
                    clearance: read(row, "clearance")?,
                    open_to_all: read(row, "open_to_all")?,
                    adopted: read(row, "adopted")?,
                    people,
                    file_keys,
                    departments,
                })
            })
            .collect()
    }
}
