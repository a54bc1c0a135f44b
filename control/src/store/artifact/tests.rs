#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::rig::{Fresh, on_both, somebody};
use super::*;
use crate::domain::record::ArtifactKind;
use crate::domain::roles::Role;
use crate::id::ModelVersionId;

#[tokio::test]
async fn the_same_content_is_the_same_artifact() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let who = somebody(store, Role::Developer).await;
        let artifact = |digest: &str| Artifact {
            department: who.department,
            owner: Some(who.principal),
            kind: ArtifactKind::Model,
            name: "model".into(),
            digest: digest.into(),
            bytes: 30,
            files: 2,
            source: None,
        };
        let file = |path: &str, blob: &str| ArtifactFile {
            path: path.into(),
            blob: blob.into(),
            bytes: 10,
        };
        let files = [
            file("model.onnx", "sha256:02"),
            file("config.json", "sha256:01"),
        ];

        let mut tx = store.begin().await.unwrap();
        let unknown = tx
            .register_artifact(&who.actor, artifact("sha256:aa"), &files)
            .await
            .unwrap_err();
        assert!(matches!(unknown, StoreError::Reference), "{unknown:?}");
        drop(tx);

        let mut tx = store.begin().await.unwrap();
        for blob in ["sha256:01", "sha256:02", "sha256:01", "sha256:aa"] {
            let touched = tx.touch_blob(blob, 10).await.unwrap();
            tx.blob_stored(blob, touched).await.unwrap();
        }
        let first = tx
            .register_artifact(&who.actor, artifact("sha256:aa"), &files)
            .await
            .unwrap();
        let again = tx
            .register_artifact(&who.actor, artifact("sha256:aa"), &files)
            .await
            .unwrap();
        let other = tx
            .register_artifact(
                &who.actor,
                Artifact {
                    owner: None,
                    ..artifact("sha256:aa")
                },
                &files,
            )
            .await
            .unwrap();
        assert_ne!(
            first.id, other.id,
            "another's is another, over the same blobs"
        );
        let owner = ModelVersionId::new();
        tx.hold_artifact(first.id, owner).await.unwrap();
        tx.hold_artifact(first.id, owner).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(first, again);
        let [model, config] = files;
        assert_eq!(
            store.artifact_files(first.id).await.unwrap(),
            [config, model],
            "by path"
        );
        assert_eq!(
            store.artifact_references(first.id).await.unwrap(),
            [Reference {
                owner_kind: "model version".into(),
                owner_id: owner.to_string()
            }]
        );

        let mut tx = store.begin().await.unwrap();
        tx.release_artifacts(owner).await.unwrap();
        tx.commit().await.unwrap();
        assert!(
            store
                .artifact_references(first.id)
                .await
                .unwrap()
                .is_empty()
        );
        assert!(matches!(
            store.artifact_files(ArtifactId::new()).await,
            Err(StoreError::NotFound { .. })
        ));
    })
    .await;
}

#[tokio::test]
async fn bytes_are_stored_for_the_row_that_they_were_put_for() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let blob = "sha256:0b";
        let touch = async || {
            let mut tx = store.begin().await.unwrap();
            let touched = tx.touch_blob(blob, 10).await.unwrap();
            tx.commit().await.unwrap();
            touched
        };
        let first = touch().await;
        assert_eq!(touch().await, first, "the row is the same");
        let later = crate::time::Timestamp::now().after(std::time::Duration::from_secs(60));
        let mut tx = store.begin().await.unwrap();
        assert!(tx.condemn_blob(blob, later).await.unwrap());
        assert!(tx.withdraw_blob(blob, later).await.unwrap());
        assert!(tx.delete_blob(blob, later).await.unwrap());
        tx.commit().await.unwrap();

        // Somebody else makes the row again; what was put for the first may be gone.
        let second = touch().await;
        let mut tx = store.begin().await.unwrap();
        assert!(!tx.blob_stored(blob, first).await.unwrap());
        assert!(!tx.keep_blob(blob).await.unwrap());
        assert!(tx.blob_stored(blob, second).await.unwrap());
        assert!(tx.keep_blob(blob).await.unwrap());
    })
    .await;
}
