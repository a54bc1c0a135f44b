//! What every record can do, tried on both databases.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;

use super::rig::{Fresh, Somebody, on_both, somebody, system};
use super::*;
use crate::domain::machine::Machine as _;
use crate::domain::model_version::{ModelVersionEvent, ModelVersionState};
use crate::domain::record::{Department, Model, ModelVersion, Principal};
use crate::domain::roles::Role;
use crate::id::{DepartmentId, Id as _, ModelId, PrincipalId};

pub(super) fn department(name: &str) -> Department {
    Department {
        name: name.into(),
        description: String::new(),
    }
}

pub(super) fn model(department: DepartmentId, name: &str) -> Model {
    Model {
        department,
        owner: None,
        name: name.into(),
        description: String::new(),
        train_framework: "pytorch".into(),
        inference_framework: "onnxruntime".into(),
        code_url: None,
        dashboard_url: None,
    }
}

pub(super) fn version(model: ModelId, author: Option<PrincipalId>) -> ModelVersion {
    ModelVersion {
        model,
        number: 0,
        author,
        state: ModelVersionState::INITIAL,
        artifact: None,
        digest: None,
        training_run: None,
        conversion_run: None,
        evidence: None,
        approver: None,
        approved_at: None,
        note: String::new(),
    }
}

/// A model version that nothing has happened to, and its author.
async fn draft(store: &Store) -> (Somebody, Stored<ModelVersion>) {
    let who = somebody(store, Role::Developer).await;
    let model = store
        .create(&system(), model(who.department, "m"))
        .await
        .unwrap();
    let mut tx = store.begin().await.unwrap();
    let made = version(model.id, Some(who.principal));
    let made = tx.add_model_version(&who.actor, made).await.unwrap();
    tx.commit().await.unwrap();
    (who, made)
}

#[tokio::test]
async fn a_record_lives_from_create_to_delete_and_each_step_is_audited() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let actor = system().because("a test").in_request("req-1");
        let made = store.create(&actor, department("helpdesk")).await.unwrap();
        assert_eq!(made.version, 1);
        assert_eq!(store.get::<Department>(made.id).await.unwrap(), made);

        let edited = store
            .update::<Department>(&actor, made.id, Some(1), |it| {
                it.description = "it's \"IT\" 帮助".into()
            })
            .await
            .unwrap();
        assert_eq!(
            (edited.version, edited.description.as_str()),
            (2, "it's \"IT\" 帮助")
        );
        assert_eq!(store.get::<Department>(made.id).await.unwrap(), edited);

        let unchanged = store
            .update::<Department>(&actor, made.id, Some(2), |_| ())
            .await
            .unwrap();
        assert_eq!(
            unchanged, edited,
            "an edit that changes nothing is no change"
        );

        store
            .delete::<Department>(&actor, made.id, Some(2))
            .await
            .unwrap();
        assert!(matches!(
            store.get::<Department>(made.id).await,
            Err(StoreError::NotFound {
                kind: "department",
                ..
            })
        ));
        assert!(matches!(
            store.delete::<Department>(&actor, made.id, None).await,
            Err(StoreError::NotFound { .. })
        ));
        let kept = store
            .list(&Listing::<Department>::new().with_deleted())
            .await
            .unwrap();
        assert!(kept.items[0].deleted_at.is_some());
        store
            .create(&actor, department("helpdesk"))
            .await
            .expect("its name is free again");

        let filter = AuditFilter {
            object: Some(made.id.to_string()),
            ..AuditFilter::default()
        };
        let events = store.audit_events(&filter, 10).await.unwrap();
        let verbs: Vec<&str> = events.iter().map(|event| event.verb.as_str()).collect();
        assert_eq!(verbs, ["delete", "update", "create"]);
        assert_eq!(events[1].before.as_ref().unwrap()["version"], 1);
        assert_eq!(
            events[1].after.as_ref().unwrap()["description"],
            "it's \"IT\" 帮助"
        );
        assert_eq!(events[1].reason.as_deref(), Some("a test"));
        assert_eq!(events[1].request.as_deref(), Some("req-1"));
    })
    .await;
}

#[tokio::test]
async fn a_stale_write_is_refused_with_both_versions() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let made = store.create(&system(), department("a")).await.unwrap();
        store
            .update::<Department>(&system(), made.id, Some(1), |it| it.name = "b".into())
            .await
            .unwrap();
        let stale = store
            .update::<Department>(&system(), made.id, Some(1), |it| it.name = "c".into())
            .await;
        assert!(
            matches!(
                stale,
                Err(StoreError::Stale {
                    expected: 1,
                    found: 2,
                    ..
                })
            ),
            "{stale:?}"
        );
        let stale = store
            .delete::<Department>(&system(), made.id, Some(1))
            .await;
        assert!(
            matches!(
                stale,
                Err(StoreError::Stale {
                    expected: 1,
                    found: 2,
                    ..
                })
            ),
            "{stale:?}"
        );
        assert_eq!(store.get::<Department>(made.id).await.unwrap().name, "b");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_at_once_none_overwrites_another() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        const WRITERS: usize = 8;
        const EACH: usize = 10;
        let made = fresh
            .store
            .create(&system(), department("counter"))
            .await
            .unwrap();
        let other = fresh.again().await;
        let tasks: Vec<_> = (0..WRITERS)
            .map(|n| {
                // Half of them through connections of another process.
                let store = if n % 2 == 0 {
                    fresh.store.clone()
                } else {
                    other.clone()
                };
                tokio::spawn(async move {
                    let mut done = 0;
                    while done < EACH {
                        let seen = store.get::<Department>(made.id).await.unwrap();
                        let add = |it: &mut Department| it.description.push('x');
                        match store
                            .update(&system(), made.id, Some(seen.version), add)
                            .await
                        {
                            Ok(_) => done += 1,
                            Err(StoreError::Stale { .. }) => (),
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let end = fresh.store.get::<Department>(made.id).await.unwrap();
        assert_eq!(end.description.len(), WRITERS * EACH, "an update was lost");
        assert_eq!(end.version as usize, 1 + WRITERS * EACH);
        other.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_make_the_same_transition_one_wins() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let (_, made) = draft(store).await;
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    store
                        .transition::<ModelVersion>(
                            &system(),
                            made.id,
                            None,
                            ModelVersionEvent::Register,
                            |_| (),
                        )
                        .await
                })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => won += 1,
                Err(StoreError::Stale { .. } | StoreError::IllegalTransition(_)) => (),
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(won, 1);
        let now = store.get::<ModelVersion>(made.id).await.unwrap();
        assert_eq!(
            (now.state, now.version),
            (ModelVersionState::Registering, 2)
        );
    })
    .await;
}

#[tokio::test]
async fn an_illegal_event_changes_nothing_and_names_the_legal_ones() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let (who, made) = draft(store).await;
        let refused = store
            .transition::<ModelVersion>(
                &who.actor,
                made.id,
                Some(1),
                ModelVersionEvent::GoLive,
                |_| (),
            )
            .await
            .unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a model version in state draft does not take \"go_live\"; it takes: register"
        );
        assert_eq!(store.get::<ModelVersion>(made.id).await.unwrap(), made);
    })
    .await;
}

#[tokio::test]
async fn a_transition_is_logged_twice_or_not_at_all() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let (who, made) = draft(store).await;

        let count = async |table: &'static str| {
            let sql = format!("SELECT COUNT(*) AS n FROM {table} WHERE object_id = $1");
            let row = sqlx::query_with(
                sqlx::AssertSqlSafe(sql),
                arguments([made.id.to_value()]).unwrap(),
            )
            .fetch_one(&mut *store.reader().await.unwrap())
            .await
            .unwrap();
            read::<i64>(&row, "n").unwrap()
        };
        let mut tx = store.begin().await.unwrap();
        tx.transition::<ModelVersion>(
            &who.actor,
            made.id,
            None,
            ModelVersionEvent::Register,
            |_| (),
        )
        .await
        .unwrap();
        drop(tx);
        assert_eq!(
            (count("transitions").await, count("audit_events").await),
            (0, 1),
            "undone with its transaction"
        );

        let moved = store
            .transition::<ModelVersion>(
                &who.actor,
                made.id,
                None,
                ModelVersionEvent::Register,
                |it| {
                    it.digest = Some("sha256:aa".into());
                },
            )
            .await
            .unwrap();
        assert_eq!(moved.digest.as_deref(), Some("sha256:aa"));
        assert_eq!(
            (count("transitions").await, count("audit_events").await),
            (1, 2)
        );
    })
    .await;
}

#[tokio::test]
async fn fields_that_are_set_once_stay() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let (who, made) = draft(store).await;
        let by_edit = store
            .update::<ModelVersion>(&who.actor, made.id, None, |it| {
                it.state = ModelVersionState::Live
            })
            .await;
        assert!(
            matches!(by_edit, Err(StoreError::Fixed { field: "state", .. })),
            "{by_edit:?}"
        );
        let along = store
            .transition::<ModelVersion>(
                &who.actor,
                made.id,
                None,
                ModelVersionEvent::Register,
                |it| it.number = 9,
            )
            .await;
        assert!(
            matches!(
                along,
                Err(StoreError::Fixed {
                    field: "number",
                    ..
                })
            ),
            "{along:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn collisions_and_dangling_references_name_themselves() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        store.create(&system(), department("a")).await.unwrap();
        let again = store.create(&system(), department("a")).await.unwrap_err();
        assert_eq!(
            again.to_string(),
            "there is another department with this name"
        );
        let nowhere = store
            .create(&system(), model(DepartmentId::new(), "m"))
            .await
            .unwrap_err();
        assert!(matches!(nowhere, StoreError::Reference), "{nowhere:?}");
        assert!(!nowhere.is_retryable());
        let missing = store.get::<Model>(ModelId::new()).await.unwrap_err();
        assert!(
            missing.to_string().starts_with("there is no model mdl_"),
            "{missing}"
        );
    })
    .await;
}

#[tokio::test]
async fn text_is_data_whatever_it_says() {
    const NASTY: &[&str] = &[
        "'; DROP TABLE departments; --",
        "\" OR 1=1 --",
        "$1",
        "%_\\",
        "a\\'b",
        "?1 ?2",
        "\u{202e}𝄞 \r\n\t",
        "'||(SELECT hash FROM api_keys LIMIT 1)||'",
    ];
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        for text in NASTY {
            let made = store.create(&system(), department(text)).await.unwrap();
            let found = store
                .list(&Listing::<Department>::new().is("name", &(*text).to_owned()))
                .await
                .unwrap();
            assert_eq!(found.items, std::slice::from_ref(&made), "{text}");
            let found = store
                .list(&Listing::<Department>::new().contains("name", text))
                .await
                .unwrap();
            assert!(found.items.contains(&made), "{text}");
            let as_field = store
                .list(&Listing::<Department>::new().is(text, &1i64))
                .await;
            assert!(
                matches!(as_field, Err(StoreError::Invalid { .. })),
                "{text} was taken as a field"
            );
        }
        let all = store.list(&Listing::<Department>::new()).await.unwrap();
        assert_eq!(all.items.len(), NASTY.len());
        let literal = store
            .list(&Listing::<Department>::new().contains("name", "%_"))
            .await
            .unwrap();
        assert_eq!(literal.items.len(), 1, "wildcards are taken as they are");
    })
    .await;
}

#[tokio::test]
async fn every_column_type_survives_in_the_extremes() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let who = somebody(store, Role::Viewer).await;
        let read_back = store.get::<Principal>(who.principal).await.unwrap();
        assert!(!read_back.disabled && read_back.email.is_none());
        let edited = store
            .update::<Principal>(&system(), who.principal, None, |it| {
                it.disabled = true;
                it.email = Some(String::new());
            })
            .await
            .unwrap();
        let read_back = store.get::<Principal>(who.principal).await.unwrap();
        assert_eq!(read_back, edited, "an empty text is not a null");
        let ids: HashSet<_> = store
            .list(&Listing::<Principal>::new())
            .await
            .unwrap()
            .items
            .iter()
            .map(|it| it.id)
            .collect();
        assert!(ids.contains(&who.principal));
    })
    .await;
}
