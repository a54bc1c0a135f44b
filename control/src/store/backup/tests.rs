#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use super::*;
use crate::domain::record::Model;
use crate::domain::roles::Role;
use crate::store::rig::{Fresh, on_both, somebody};
use crate::store::{Listing, StoreSettings};

/// An empty database beside the rig's: SQLite, which takes every backup.
async fn empty(folder: &tempfile::TempDir) -> Store {
    let url = super::super::DatabaseUrl::Sqlite(folder.path().join("restored.db"));
    Store::connect(&url, &StoreSettings::default())
        .await
        .unwrap()
}

async fn backup_of(store: &Store) -> Vec<u8> {
    let mut file = Vec::new();
    store.back_up(&mut file).await.unwrap();
    file
}

/// Without the header, which says when.
fn rows_of(backup: &[u8]) -> Vec<u8> {
    let start = backup.iter().position(|byte| *byte == b'\n').unwrap();
    backup[start..].to_vec()
}

async fn model(store: &Store, name: &str) {
    let who = somebody(store, Role::Developer).await;
    let model = Model {
        department: who.department,
        owner: Some(who.principal),
        name: name.into(),
        description: "ä \" \\ \n 漢".into(),
        train_framework: String::new(),
        inference_framework: String::new(),
        code_url: None,
        dashboard_url: None,
    };
    store.create(&who.actor, model).await.unwrap();
}

#[tokio::test]
async fn the_migrations_name_every_table_and_column() {
    on_both(async |fresh: Arc<Fresh>| {
        let sql = match fresh.store.dialect() {
            Dialect::Sqlite => {
                "SELECT m.name || '.' || c.name AS found FROM sqlite_master m, pragma_table_info(m.name) c \
                 WHERE m.type = 'table'"
            }
            Dialect::Postgres => {
                "SELECT CAST(table_name || '.' || column_name AS TEXT) AS found FROM information_schema.columns \
                 WHERE table_schema = 'public'"
            }
        };
        let rows = sqlx::query(sql).fetch_all(&mut *fresh.store.reader().await.unwrap()).await.unwrap();
        let mut there: Vec<String> = rows.iter().map(|row| read(row, "found").unwrap()).collect();
        there.retain(|name| !name.starts_with('_') && !name.starts_with("sqlite_"));
        let mut known: Vec<String> = tables(Store::latest_schema())
            .iter()
            .flat_map(|table| table.columns.iter().map(move |(column, _)| format!("{}.{column}", table.name)))
            .collect();
        there.sort();
        known.sort();
        assert_eq!(there, known);
    })
    .await;
}

#[tokio::test]
async fn a_backup_restores_into_either_database() {
    let folder = tempfile::tempdir().unwrap();
    let source = Fresh::sqlite().await;
    for name in ["a", "b", "c"] {
        model(&source.store, name).await;
    }
    let backup = backup_of(&source.store).await;
    on_both(async |fresh: Arc<Fresh>| {
        let rows = fresh.store.restore(&mut backup.as_slice()).await.unwrap();
        assert!(rows > 9, "{rows}");
        assert_eq!(rows_of(&backup_of(&fresh.store).await), rows_of(&backup));
        let models = fresh.store.list(&Listing::<Model>::new()).await.unwrap();
        assert_eq!(models.items.len(), 3);
        // And from either into a new one.
        let place = tempfile::tempdir_in(folder.path()).unwrap();
        let again = empty(&place).await;
        again
            .restore(&mut backup_of(&fresh.store).await.as_slice())
            .await
            .unwrap();
        assert_eq!(rows_of(&backup_of(&again).await), rows_of(&backup));
        again.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_backup_is_of_one_instant_while_others_write() {
    on_both(async |fresh: Arc<Fresh>| {
        model(&fresh.store, "first").await;
        let writer = fresh.store.clone();
        let writing = tokio::spawn(async move {
            for number in 0..30 {
                model(&writer, &format!("m{number}")).await;
            }
        });
        let folder = tempfile::tempdir().unwrap();
        for round in 0..5 {
            let backup = backup_of(&fresh.store).await;
            // A model without its owner or department would be refused.
            let place = tempfile::tempdir_in(folder.path()).unwrap();
            let copy = empty(&place).await;
            copy.restore(&mut backup.as_slice())
                .await
                .unwrap_or_else(|error| panic!("{round}: {error}"));
            copy.close().await;
        }
        writing.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_damaged_or_in_the_way_changes_nothing() {
    let source = Fresh::sqlite().await;
    model(&source.store, "m").await;
    let backup = backup_of(&source.store).await;
    let text = String::from_utf8(backup.clone()).unwrap();
    let half = &backup[..backup.len() / 2];
    let other = text.replacen(
        "\"table\":\"models\"",
        "\"table\":\"models; DROP TABLE models\"",
        1,
    );
    let fewer: String = text
        .lines()
        .filter(|line| !line.contains("漢"))
        .map(|line| format!("{line}\n"))
        .collect();
    for broken in [half, other.as_bytes(), fewer.as_bytes(), b"", b"{}\n"] {
        let folder = tempfile::tempdir().unwrap();
        let target = empty(&folder).await;
        let error = target.restore(&mut &*broken).await.unwrap_err();
        assert!(matches!(error, BackupError::Damaged { .. }), "{error}");
        // A right one can follow.
        target.restore(&mut backup.as_slice()).await.unwrap();
        target.close().await;
    }
    let full = source
        .store
        .restore(&mut backup.as_slice())
        .await
        .unwrap_err();
    assert!(matches!(full, BackupError::NotEmpty), "{full}");
    let newer = text.replacen(
        &format!("\"schema\":{}", Store::latest_schema()),
        "\"schema\":9999",
        1,
    );
    let error = source
        .store
        .restore(&mut newer.as_bytes())
        .await
        .unwrap_err();
    assert!(matches!(error, BackupError::Newer { .. }), "{error}");
}
