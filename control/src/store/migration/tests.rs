#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::rig::{Fresh, on_both};
use super::super::{DatabaseUrl, DatabaseUrlError, StoreSettings};
use super::*;

/// A step that lies in the folder and is not in the list would never be applied.
#[test]
fn every_step_of_the_folder_is_in_the_list() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".sql"))
        .collect();
    files.sort();
    let listed: Vec<String> = STEPS
        .iter()
        .map(|(version, what, _)| format!("{version:04}_{what}.sql"))
        .collect();
    assert_eq!(files, listed);
}

#[tokio::test]
async fn a_database_that_is_up_to_date_opens_again_and_several_open_at_once() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        assert_eq!(fresh.store.schema().await.unwrap(), Store::latest_schema());
        let opened = futures_util::future::join_all((0..4).map(|_| fresh.again())).await;
        for store in opened {
            store.ping().await.unwrap();
            store.close().await;
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::Sqlite(folder.path().join("new.db"));
    let settings = StoreSettings::default();
    let opened = futures_util::future::join_all((0..4).map(|_| Store::open(&url, &settings))).await;
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let fresh = Fresh::sqlite().await;
    let refused = sqlx::query("DELETE FROM departments")
        .execute(&mut *fresh.store.reader().await.unwrap())
        .await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_worth_another_try() {
    let url: DatabaseUrl = "postgres://nobody:secret@127.0.0.1:1/none".parse().unwrap();
    let settings = StoreSettings {
        patience: std::time::Duration::from_millis(200),
        ..StoreSettings::default()
    };
    let error = Store::open(&url, &settings).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert_eq!(
        format!("{url} {url:?}"),
        "postgres://127.0.0.1:1/none postgres://127.0.0.1:1/none"
    );
}

#[test]
fn a_database_is_a_file_or_a_server() {
    assert_eq!(
        "sqlite:a/b.db".parse(),
        Ok(DatabaseUrl::Sqlite("a/b.db".into()))
    );
    assert_eq!(
        "sqlite:///a/b.db".parse(),
        Ok(DatabaseUrl::Sqlite("/a/b.db".into()))
    );
    for text in ["", "sqlite:", "mysql://a/b", "a/b.db"] {
        assert_eq!(text.parse::<DatabaseUrl>(), Err(DatabaseUrlError), "{text}");
    }
}

/// A database that a later version has brought further: a table that this one does not know.
async fn of_a_later_version(store: &Store) {
    for sql in [
        "CREATE TABLE novelties (id TEXT PRIMARY KEY)",
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT 9000, 'novelties', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
    ] {
        let mut tx = store.begin().await.unwrap();
        sqlx::query(sql).execute(tx.connection()).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_versions_named() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let mut backup = Vec::new();
        fresh.store.back_up(&mut backup).await.unwrap();
        of_a_later_version(&fresh.store).await;
        let known = Store::latest_schema().to_string();
        let error = fresh.store.migrate().await.unwrap_err();
        assert!(
            matches!(error, StoreError::NewerSchema { found: 9000, .. }),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(text.contains("9000") && text.contains(&known), "{text}");
        let mut file = Vec::new();
        let refused = fresh.store.back_up(&mut file).await.unwrap_err();
        assert!(
            refused.to_string().contains("9000") && file.is_empty(),
            "{refused}"
        );
        let refused = fresh
            .store
            .restore(&mut backup.as_slice())
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("9000"), "{refused}");
    })
    .await;
}
