#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use sqlx::{Column as _, Row as _};

use super::super::rig::{Fresh, on_both, somebody, system};
use super::super::{AuditFilter, DatabaseUrl, Dialect};
use super::*;
use crate::domain::record::Modality;
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;

/// Every text of every column of every table.
async fn everything(store: &Store) -> String {
    let tables = match store.dialect() {
        Dialect::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table'",
        Dialect::Postgres => {
            "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = 'public'"
        }
    };
    let mut reader = store.reader().await.unwrap();
    let mut all = String::new();
    for row in sqlx::query(tables).fetch_all(&mut *reader).await.unwrap() {
        let table: String = read(&row, "name").unwrap();
        if table.starts_with('_') || table.starts_with("sqlite_") {
            continue;
        }
        let sql = format!("SELECT * FROM {table}");
        for row in sqlx::query(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *reader)
            .await
            .unwrap()
        {
            let texts = row
                .columns()
                .iter()
                .filter_map(|column| row.try_get::<String, _>(column.name()).ok());
            all.extend(texts.flat_map(|text| [text, "\n".to_owned()]));
        }
    }
    all
}

#[tokio::test]
async fn a_secret_is_shown_once_and_nowhere_kept() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let who = somebody(store, Role::Developer).await;
        let issued = store
            .issue_key(
                &who.actor,
                who.principal,
                "laptop",
                vec![Scope::Inference],
                None,
            )
            .await
            .unwrap();
        assert!(issued.secret.starts_with(&issued.key.prefix));
        assert_eq!(issued.secret.len(), KEY_MARK.len() + 43, "256 bits");
        assert!(!format!("{issued:?}").contains(&issued.secret));

        let kept = everything(store).await;
        assert!(
            kept.contains(&issued.key.prefix),
            "the search finds what is there"
        );
        assert!(
            !kept.contains(&issued.secret),
            "the secret is in the database"
        );
        if let DatabaseUrl::Sqlite(path) = &fresh.url {
            let mut wal = path.clone().into_os_string();
            wal.push("-wal");
            for file in [path.as_os_str(), &wal] {
                let bytes = std::fs::read(file).unwrap_or_default();
                let secret = issued.secret.as_bytes();
                assert!(
                    !bytes.windows(secret.len()).any(|part| part == secret),
                    "the secret is in {file:?}"
                );
            }
        }
        let filter = AuditFilter {
            object: Some(issued.key.id.to_string()),
            ..AuditFilter::default()
        };
        let log = serde_json::to_string(&store.audit_events(&filter, 10).await.unwrap()).unwrap();
        assert!(
            log.contains("laptop") && !log.contains(&issued.key.hash),
            "not even its hash is in the log"
        );
    })
    .await;
}

#[tokio::test]
async fn a_key_is_in_force_until_it_expires_is_withdrawn_or_its_owner_goes() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let now = Timestamp::now();
        let who = somebody(store, Role::Developer).await;
        let end = now.after(Duration::from_secs(60));
        let issue = async |name| {
            store
                .issue_key(&who.actor, who.principal, name, Vec::new(), Some(end))
                .await
                .unwrap()
        };
        let first = issue("first").await;
        let second = issue("second").await;

        let owner = store
            .key_owner(&first.secret, now)
            .await
            .unwrap()
            .expect("in force");
        assert_eq!(
            (owner.key.id, owner.principal.id),
            (first.key.id, who.principal)
        );
        assert_eq!(store.keys_in_force(now).await.unwrap().len(), 2);
        for forged in [
            "",
            "sk-sluice-",
            &first.secret[..first.secret.len() - 1],
            &first.key.hash,
            "' OR '1'='1",
        ] {
            assert_eq!(
                store.key_owner(forged, now).await.unwrap(),
                None,
                "{forged}"
            );
        }
        assert_eq!(
            store.key_owner(&first.secret, end).await.unwrap(),
            None,
            "expired"
        );
        assert!(store.keys_in_force(end).await.unwrap().is_empty());

        store
            .delete::<ApiKey>(&who.actor, first.key.id, None)
            .await
            .unwrap();
        assert_eq!(
            store.key_owner(&first.secret, now).await.unwrap(),
            None,
            "withdrawn"
        );
        store
            .update::<Principal>(&system(), who.principal, None, |it| it.disabled = true)
            .await
            .unwrap();
        assert_eq!(
            store.key_owner(&second.secret, now).await.unwrap(),
            None,
            "disabled"
        );
        assert!(store.keys_in_force(now).await.unwrap().is_empty());
        store
            .update::<Principal>(&system(), who.principal, None, |it| it.disabled = false)
            .await
            .unwrap();
        assert!(
            store
                .key_owner(&second.secret, now)
                .await
                .unwrap()
                .is_some()
        );
        store
            .delete::<Principal>(&system(), who.principal, None)
            .await
            .unwrap();
        assert_eq!(
            store.key_owner(&second.secret, now).await.unwrap(),
            None,
            "gone"
        );
        assert!(store.keys_in_force(now).await.unwrap().is_empty());
    })
    .await;
}

async fn viewer(store: &Store, who: PrincipalId) -> Viewer {
    let person = store.get::<Principal>(who).await.unwrap();
    Viewer {
        principal: who,
        department: Some(person.department),
        clearance: person.clearance,
        admin: false,
    }
}

#[tokio::test]
async fn a_dataset_takes_clearance_and_grant() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let owner = somebody(store, Role::Developer).await;
        let other = somebody(store, Role::Developer).await;
        let dataset = |name: &str, secrecy| Dataset {
            department: owner.department,
            owner: Some(owner.principal),
            name: name.into(),
            description: String::new(),
            source: String::new(),
            modality: Modality::Text,
            secrecy,
        };
        let open = store
            .create(&system(), dataset("tickets", Secrecy::Internal))
            .await
            .unwrap();
        let secret = store
            .create(&system(), dataset("salaries", Secrecy::Secret))
            .await
            .unwrap();
        let access = async |who, data| {
            let viewer = viewer(store, who).await;
            store.dataset_access(viewer, data).await.unwrap()
        };
        assert_eq!(access(owner.principal, open.id).await, Some(Access::Edit));
        assert_eq!(
            access(owner.principal, secret.id).await,
            None,
            "not even its owner, without clearance"
        );
        assert_eq!(access(other.principal, open.id).await, None);

        let grant = |data: DatasetId, principal, department, access| Grant {
            object_kind: DatasetId::KIND.into(),
            object_id: data.to_string(),
            principal,
            department,
            access,
        };
        let both = grant(
            open.id,
            Some(other.principal),
            Some(other.department),
            Access::Read,
        );
        assert!(matches!(
            store.grant(&system(), both).await,
            Err(StoreError::Invalid { .. })
        ));
        store
            .grant(
                &system(),
                grant(open.id, None, Some(other.department), Access::Read),
            )
            .await
            .unwrap();
        assert_eq!(access(other.principal, open.id).await, Some(Access::Read));
        let more = store
            .grant(
                &system(),
                grant(open.id, Some(other.principal), None, Access::Use),
            )
            .await
            .unwrap();
        assert_eq!(
            access(other.principal, open.id).await,
            Some(Access::Use),
            "the greater of the two"
        );
        store
            .delete::<Grant>(&system(), more.id, None)
            .await
            .unwrap();
        assert_eq!(access(other.principal, open.id).await, Some(Access::Read));

        store
            .grant(
                &system(),
                grant(secret.id, Some(other.principal), None, Access::Use),
            )
            .await
            .unwrap();
        assert_eq!(
            access(other.principal, secret.id).await,
            None,
            "a grant without clearance opens nothing"
        );
        store
            .update::<Principal>(&system(), other.principal, None, |it| {
                it.clearance = Secrecy::Secret
            })
            .await
            .unwrap();
        assert_eq!(access(other.principal, secret.id).await, Some(Access::Use));
    })
    .await;
}
