use super::*;
use crate::domain::record::Upload;
use crate::domain::upload::UploadState;
use crate::time::Timestamp;

fn no_grace(settings: &mut ArtifactSettings) {
    settings.collection.blob_grace_s = 0;
    settings.collection.artifact_grace_s = 0;
}

/// Sweeps until nothing is left to do.
async fn sweep(artifacts: &Artifacts) -> Collected {
    let mut total = Collected::default();
    loop {
        let done = artifacts.collect().await.unwrap();
        total.artifacts += done.artifacts;
        total.deleted_blobs += done.deleted_blobs;
        total.expired_uploads += done.expired_uploads;
        if done == Collected::default() {
            return total;
        }
    }
}

#[tokio::test]
async fn what_is_needed_stays_and_what_is_not_goes() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store, no_grace).await;
        let shared = bench.put("shared", &noise(10, 1000)).await;
        let own = bench.put("own", &noise(11, 1000)).await;
        let register = async |name: &str, files: Vec<File>| {
            let artifacts = &bench.artifacts;
            artifacts
                .register(&bench.who.actor, bench.named(name), files)
                .await
                .unwrap()
        };
        let kept = register("kept", vec![shared.clone()]).await;
        let unused = register("unused", vec![shared.clone(), own.clone()]).await;
        let owner = ModelVersionId::new();
        let mut tx = fresh.store.begin().await.unwrap();
        tx.hold_artifact(kept.id, owner).await.unwrap();
        tx.commit().await.unwrap();

        let done = sweep(&bench.artifacts).await;
        // The file of its own, and its list of files.
        assert_eq!((done.artifacts, done.deleted_blobs), (1, 2));
        assert_eq!(
            all(&bench.artifacts, shared.digest).await.unwrap(),
            noise(10, 1000)
        );
        assert_eq!(bench.lying("blobs").len(), 2);
        let mut tx = fresh.store.begin().await.unwrap();
        let gone = tx.hold_artifact(unused.id, owner).await.unwrap_err();
        assert!(
            matches!(gone, StoreError::NotFound { .. }),
            "what was put away cannot be held: {gone}"
        );
        drop(tx);

        // It comes again, as new.
        bench.put("own", &noise(11, 1000)).await;
        let again = register("unused", vec![own.clone(), shared.clone()]).await;
        assert_ne!(again.id, unused.id);
        let mut tx = fresh.store.begin().await.unwrap();
        tx.release_artifacts(owner).await.unwrap();
        tx.commit().await.unwrap();
        sweep(&bench.artifacts).await;
        assert!(bench.lying("blobs").is_empty());
    })
    .await;
}

#[tokio::test]
async fn grace_spares_what_is_young_and_a_use_spares_what_is_condemned() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store, |_| ()).await;
        let file = bench.put("young", b"young").await;
        let done = bench.artifacts.collect().await.unwrap();
        assert_eq!(done, Collected::default());

        let store = &fresh.store;
        let name = file.digest.to_string();
        let later = Timestamp::now().after(std::time::Duration::from_secs(1));
        let condemn = async || {
            let unused = store.unused_blobs(later, "", 10).await.unwrap();
            assert_eq!(unused, std::slice::from_ref(&name));
            let mut tx = store.begin().await.unwrap();
            assert!(tx.condemn_blob(&name, later).await.unwrap());
            tx.commit().await.unwrap();
        };
        condemn().await;
        bench.put("wanted", b"young").await;
        let mut tx = store.begin().await.unwrap();
        assert!(
            !tx.withdraw_blob(&name, later).await.unwrap(),
            "a use clears it"
        );
        tx.commit().await.unwrap();

        condemn().await;
        let mut tx = store.begin().await.unwrap();
        assert!(tx.withdraw_blob(&name, later).await.unwrap());
        tx.commit().await.unwrap();
        // Withdrawn, the bytes may be gone: they are brought again, and nobody deletes them.
        assert!(!store.has_blob(&name).await.unwrap());
        bench.put("wanted", b"young").await;
        let mut tx = store.begin().await.unwrap();
        assert!(!tx.delete_blob(&name, later).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(all(&bench.artifacts, file.digest).await.unwrap(), b"young");
    })
    .await;
}

#[tokio::test]
async fn uploads_that_nobody_goes_on_with_are_given_up() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store, |settings| {
            no_grace(settings);
            settings.upload.expires_s = 0;
        })
        .await;
        let new = NewUpload {
            department: bench.who.department,
            principal: None,
            path: "x".into(),
            bytes: Some(4),
            digest: None,
            part_bytes: Some(4),
        };
        let actor = &bench.who.actor;
        let left = bench
            .artifacts
            .create_upload(actor, new.clone())
            .await
            .unwrap();
        bench
            .artifacts
            .put_part(left.id, PartAt::Number(0), None, pieces(b"left", 4))
            .await
            .unwrap();
        let completed = bench.artifacts.create_upload(actor, new).await.unwrap();
        bench
            .artifacts
            .put_part(completed.id, PartAt::Number(0), None, pieces(b"done", 4))
            .await
            .unwrap();
        bench
            .artifacts
            .complete_upload(actor, completed.id)
            .await
            .unwrap();

        let done = sweep(&bench.artifacts).await;
        assert_eq!((done.expired_uploads, done.deleted_blobs), (1, 1));
        assert!(bench.lying("uploads").is_empty() && bench.lying("blobs").is_empty());
        let left = fresh.store.get::<Upload>(left.id).await.unwrap();
        assert_eq!(left.state, UploadState::Expired);
        assert!(fresh.store.upload_parts(left.id).await.unwrap().is_empty());
    })
    .await;
}

/// An artifact that is there at the end of the look was there all the time, so its bytes had to be.
async fn whole_or_gone(artifacts: &Artifacts, artifact: ArtifactId) {
    let look = async {
        for file in artifacts.files(artifact).await? {
            artifacts.verify(file.digest).await?;
        }
        Ok::<_, ArtifactError>(())
    };
    if let Err(error) = look.await {
        let there = artifacts.0.store.get::<Artifact>(artifact).await;
        assert!(
            there.is_err(),
            "{artifact} is registered and not whole: {error}"
        );
    }
}

/// Without any grace at all, uploads and sweeps in each other's way: an artifact that was registered and held is
/// whole at every moment, and what was refused was refused in words that say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_and_sweeps_at_once_lose_nothing() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Arc::new(
            Bench::new(&fresh.store, |settings| {
                no_grace(settings);
                // Held in the next transaction, so it must live that long.
                settings.collection.artifact_grace_s = 3600;
            })
            .await,
        );
        let sweeping = tokio::spawn({
            let artifacts = bench.artifacts.clone();
            async move {
                loop {
                    artifacts.collect().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let writers = (0..4u64).map(|writer| {
            let (bench, store) = (bench.clone(), fresh.store.clone());
            tokio::spawn(async move {
                let mut held = Vec::new();
                for round in 0..12 {
                    // The same few contents over and over, so that they are collected and come again.
                    let seeds = [round % 3, writer % 2 + 10];
                    let mut files = Vec::new();
                    for seed in seeds {
                        let (path, bytes) = (format!("f{seed}"), noise(seed, 2000));
                        let put = bench.artifacts.put(&path, pieces(&bytes, 500)).await;
                        match put {
                            Ok(file) => files.push(file),
                            Err(error) => {
                                assert!(matches!(error, ArtifactError::Collected { .. }), "{error}")
                            }
                        }
                    }
                    let name = format!("{writer}");
                    let registered = bench
                        .artifacts
                        .register(&bench.who.actor, bench.named(&name), files)
                        .await;
                    let artifact = match registered {
                        Ok(artifact) => artifact.id,
                        Err(ArtifactError::Collected { .. } | ArtifactError::Empty) => {
                            continue;
                        }
                        Err(error) => panic!("{error}"),
                    };
                    whole_or_gone(&bench.artifacts, artifact).await;
                    held.push(artifact);
                    if round % 4 == 3 {
                        // Makes room for the sweep.
                        let mut tx = store.begin().await.unwrap();
                        let gone = tx
                            .delete::<Artifact>(&bench.who.actor, artifact, None)
                            .await;
                        if gone.is_ok() {
                            tx.commit().await.unwrap();
                        }
                    }
                }
                held
            })
        });
        let mut registered = 0;
        for done in futures_util::future::join_all(writers).await {
            let held = done.unwrap();
            registered += held.len();
            for artifact in held {
                whole_or_gone(&bench.artifacts, artifact).await;
            }
        }
        assert!(registered > 0, "the sweep let nothing through");
        sweeping.abort();
    })
    .await;
}
