#![expect(clippy::unwrap_used, reason = "tests")]

mod archives;
mod network;

use std::sync::{Arc, Mutex};

use super::super::tests::{Bench, all, noise};
use super::super::{ArtifactSettings, Digest};
use super::*;
use crate::store::rig::Fresh;

pub(super) async fn import(
    bench: &Bench,
    from: &str,
    unpack: bool,
) -> Result<Stored<Artifact>, ArtifactError> {
    let import = Import {
        artifact: bench.named("imported"),
        from: from.parse()?,
        unpack,
        file_name: None,
    };
    // As a task would run it, on any thread.
    let running: futures_util::future::BoxFuture<'_, _> =
        Box::pin(bench.artifacts.import(&bench.who.actor, import, &|_| ()));
    running.await
}

pub(super) async fn contents(bench: &Bench, artifact: &Stored<Artifact>) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for file in bench.artifacts.files(artifact.id).await.unwrap() {
        found.push((file.path, all(&bench.artifacts, file.digest).await.unwrap()));
    }
    found
}

#[tokio::test]
async fn a_folder_is_imported_with_progress_and_links_that_stay_inside() {
    let fresh = Fresh::sqlite().await;
    let outside = tempfile::tempdir().unwrap();
    let inside = tempfile::tempdir().unwrap();
    let allowed = inside.path().to_owned();
    let bench = Bench::new(&fresh.store, |settings: &mut ArtifactSettings| {
        settings.import.folders = vec![allowed];
        settings.import.max_files = 10;
    })
    .await;
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    let model = inside.path().join("snapshots/main");
    std::fs::create_dir_all(model.join("onnx")).unwrap();
    std::fs::create_dir_all(inside.path().join("blobs")).unwrap();
    std::fs::write(model.join("config.json"), "{}").unwrap();
    std::fs::write(inside.path().join("blobs/1"), noise(1, 3_000_000)).unwrap();
    std::os::unix::fs::symlink("../../../blobs/1", model.join("onnx/model.onnx")).unwrap();

    let seen = Arc::new(Mutex::new(Vec::new()));
    let import_of = |path: &Path| Import {
        artifact: bench.named("imported"),
        from: path.to_str().unwrap().parse().unwrap(),
        unpack: true,
        file_name: None,
    };
    let note = {
        let seen = seen.clone();
        move |progress: Progress| seen.lock().unwrap().push(progress)
    };
    let actor = &bench.who.actor;
    let artifact = bench
        .artifacts
        .import(actor, import_of(&model), &note)
        .await
        .unwrap();
    assert_eq!(
        artifact.source.as_deref(),
        Some(format!("file://{}", model.display()).as_str())
    );
    let found = contents(&bench, &artifact).await;
    assert_eq!(found[0], ("config.json".into(), b"{}".to_vec()));
    assert_eq!(found[1].0, "onnx/model.onnx");
    assert_eq!(Digest::of(&found[1].1), Digest::of(&noise(1, 3_000_000)));
    let last = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!((last.of_bytes, last.bytes), (Some(3_000_002), 3_000_002));

    let refused = async |path: &Path| {
        bench
            .artifacts
            .import(actor, import_of(path), &|_| ())
            .await
            .unwrap_err()
    };
    for path in [
        outside.path().to_owned(),
        outside.path().join("secret"),
        model.join("../../../../etc"),
    ] {
        let error = refused(&path).await;
        assert!(
            matches!(
                error,
                ArtifactError::Forbidden(_) | ArtifactError::Source { .. }
            ),
            "{error}"
        );
    }
    std::os::unix::fs::symlink(outside.path().join("secret"), model.join("out")).unwrap();
    let error = refused(&model).await;
    assert!(matches!(error, ArtifactError::Forbidden(_)), "{error}");
    std::fs::remove_file(model.join("out")).unwrap();
    std::os::unix::fs::symlink(inside.path(), model.join("loop")).unwrap();
    let error = refused(&model).await;
    assert!(
        error
            .to_string()
            .contains("\"loop\": is a link to a folder"),
        "{error}"
    );
    std::fs::remove_file(model.join("loop")).unwrap();
    for extra in 0..9 {
        std::fs::write(model.join(format!("extra{extra}")), "").unwrap();
    }
    let error = refused(&model).await;
    assert!(
        matches!(error, ArtifactError::TooLarge { limit: 10, .. }),
        "{error}"
    );
}

#[test]
fn a_source_says_what_it_should_be() {
    for (text, shown) in [
        ("/models/a", "file:///models/a"),
        ("file:///models/a", "file:///models/a"),
        ("https://host/a.zip?sig=secret#x", "https://host/a.zip"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("webhdfs://nn:9870/a", "webhdfs://nn:9870/a"),
        ("hdfs://nn:8020/a", "hdfs://nn:8020/a"),
    ] {
        assert_eq!(text.parse::<Source>().unwrap().to_string(), shown);
    }
    for text in [
        "models/a",
        "",
        "ftp://host/a",
        "https://me:secret@host/a",
        "s3://",
        "s3://key:secret@b/a",
        "webhdfs://nn/../x",
        "fs:/x",
    ] {
        let error = text.parse::<Source>().unwrap_err().to_string();
        assert!(
            error.starts_with("from: ") && !error.contains("me:secret"),
            "{text}: {error}"
        );
    }
}
