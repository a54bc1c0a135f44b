//! The same on an S3: `moto`'s server, which `scripts/test.sh` starts and `SLUICE_TEST_S3` names. Its bytes are
//! real, its permissions are not.

use super::*;
use uuid::Uuid;

/// A bucket of the test's own, or nothing where there is no server and none is required.
async fn bucket() -> Option<(String, String)> {
    let Ok(endpoint) = std::env::var("SLUICE_TEST_S3") else {
        assert!(
            std::env::var_os("SLUICE_TEST_REQUIRE_S3").is_none(),
            "SLUICE_TEST_S3 names no server"
        );
        return None;
    };
    let name = format!("bucket-{}", Uuid::now_v7().simple());
    let client = guard::plain_client().unwrap();
    let made = client
        .put(format!("{endpoint}/{name}"))
        .send()
        .await
        .unwrap();
    assert!(made.status().is_success(), "{made:?}");
    Some((endpoint, name))
}

#[tokio::test]
async fn an_object_store_does_what_a_folder_does() {
    let Some((endpoint, name)) = bucket().await else {
        return;
    };
    on_both(async |fresh: Arc<Fresh>| {
        let prefix = Uuid::now_v7().simple().to_string();
        let bench = Bench::new(&fresh.store, |settings| {
            settings.location = format!("s3://{name}/{prefix}");
            settings.s3_endpoint = Some(endpoint.clone());
            settings.import.buckets = vec![name.clone()];
            settings.collection.blob_grace_s = 0;
            settings.collection.artifact_grace_s = 0;
        })
        .await;
        let actor = &bench.who.actor;
        // Over several pieces of a multipart upload.
        let content = noise(30, 20_000_001);
        let new = NewUpload {
            department: bench.who.department,
            principal: None,
            path: "weights.bin".into(),
            bytes: Some(20_000_001),
            digest: Some(Digest::of(&content)),
            part_bytes: Some(9_000_000),
        };
        let upload = bench.artifacts.create_upload(actor, new).await.unwrap().id;
        for number in [2, 0, 1] {
            let part = content.chunks(9_000_000).nth(number).unwrap();
            let at = PartAt::Number(number as u64);
            bench
                .artifacts
                .put_part(upload, at, None, pieces(part, 1 << 20))
                .await
                .unwrap();
        }
        bench
            .artifacts
            .complete_upload(actor, upload)
            .await
            .unwrap();
        let artifact = bench
            .artifacts
            .artifact_of_uploads(actor, bench.named("m"), bench.uploaded(&[upload]).await)
            .await
            .unwrap();
        let cache = bench.folder.path().join("cache");
        let folder = bench
            .artifacts
            .materialise(artifact.id, &cache)
            .await
            .unwrap();
        assert!(std::fs::read(folder.join("weights.bin")).unwrap() == content);

        let digest = Digest::of(&content);
        let operator = bench.artifacts.0.blobs.operator();
        operator
            .write(&blob_path(&digest), vec![1; 20_000_001])
            .await
            .unwrap();
        let error = bench.artifacts.verify(digest).await.unwrap_err();
        assert!(matches!(error, ArtifactError::Damaged(_)), "{error}");
        assert!(!operator.exists(&blob_path(&digest)).await.unwrap());
        bench.put("again", &content).await;
        assert_eq!(bench.artifacts.verify(digest).await.unwrap(), 20_000_001);

        // The same store is also a source.
        let import = Import {
            artifact: bench.named("imported"),
            from: format!("s3://{name}/{prefix}/blobs").parse().unwrap(),
            unpack: false,
            file_name: None,
        };
        let imported = bench
            .artifacts
            .import(actor, import, &|_| ())
            .await
            .unwrap();
        assert_eq!(imported.files, 2);

        let mut tx = fresh.store.begin().await.unwrap();
        sqlx::query("UPDATE uploads SET blob = NULL")
            .execute(tx.connection())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        while bench.artifacts.collect().await.unwrap() != Collected::default() {}
        let left: Vec<_> = operator
            .lister_with("blobs/")
            .recursive(true)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        assert!(left.is_empty(), "{left:?}");
    })
    .await;
}
