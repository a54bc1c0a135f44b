#![expect(clippy::unwrap_used, reason = "tests")]

mod collection;
mod crash;
mod disk;
mod remote;
mod uploads;

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::iter;

use super::*;
use crate::domain::record::Upload;
use crate::domain::roles::Role;
use crate::id::{Id as _, ModelVersionId, UploadId};
use crate::store::rig::{Fresh, Somebody, on_both, somebody};

/// Content in a folder of its own, and somebody who brings it.
pub(super) struct Bench {
    pub(super) artifacts: Artifacts,
    pub(super) who: Somebody,
    pub(super) folder: tempfile::TempDir,
}

impl Bench {
    pub(super) async fn new(store: &Store, edit: impl FnOnce(&mut ArtifactSettings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = ArtifactSettings::default();
        edit(&mut settings);
        Self {
            artifacts: Artifacts::open(store.clone(), settings, folder.path()).unwrap(),
            who: somebody(store, Role::Developer).await,
            folder,
        }
    }

    pub(super) fn named(&self, name: &str) -> NewArtifact {
        NewArtifact {
            department: self.who.department,
            kind: ArtifactKind::Model,
            name: name.into(),
            source: None,
        }
    }

    pub(super) async fn put(&self, path: &str, bytes: &[u8]) -> File {
        self.artifacts
            .put(path, pieces(bytes, 100_000))
            .await
            .unwrap()
    }

    /// Uploads as an artifact is made of them.
    pub(super) async fn uploaded(&self, ids: &[UploadId]) -> Vec<(Stored<Upload>, Option<String>)> {
        let mut found = Vec::new();
        for &id in ids {
            found.push((self.artifacts.0.store.get(id).await.unwrap(), None));
        }
        found
    }

    /// The files of the store of this kind, by their paths from its root.
    pub(super) fn lying(&self, below: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.path().join("artifacts").join(below)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path)
                } else {
                    files.push(path)
                }
            }
        }
        files
    }
}

pub(super) type Chunks = std::vec::IntoIter<Result<Bytes, ArtifactError>>;

pub(super) fn pieces(bytes: &[u8], size: usize) -> futures_util::stream::Iter<Chunks> {
    let pieces: Vec<_> = bytes
        .chunks(size)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    iter(pieces)
}

/// Bytes that do not repeat, of any length.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    use rand::{Rng as _, SeedableRng as _};
    let mut bytes = vec![0; length];
    rand::rngs::StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

pub(super) async fn all(artifacts: &Artifacts, digest: Digest) -> Result<Vec<u8>, ArtifactError> {
    let stream = std::pin::pin!(artifacts.read(digest).await?);
    stream
        .try_fold(Vec::new(), async |mut all, piece| {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}

#[test]
fn a_digest_reads_what_it_prints() {
    let digest = Digest::of(b"");
    let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(digest.to_string(), text);
    assert_eq!(text.parse(), Ok(digest));
    let wrong = [
        "",
        "e3b0c442",
        "md5:abc",
        &text.to_uppercase(),
        &text[..70],
        &text.replace('e', "é"),
    ];
    for text in wrong {
        assert!(text.parse::<Digest>().is_err(), "{text}");
    }
}

#[test]
fn the_order_of_files_does_not_change_an_artifact() {
    let file = |path: &str| File {
        path: path.into(),
        digest: Digest::of(path.as_bytes()),
        bytes: 1,
    };
    let json = |paths: &[&str]| {
        let files = paths.iter().copied().map(file).collect();
        Manifest::new(files).and_then(|list| list.to_json())
    };
    assert_eq!(
        json(&["b", "a/c", "a.b"]).unwrap(),
        json(&["a.b", "a/c", "b"]).unwrap()
    );
    assert_ne!(json(&["b", "a/c"]).unwrap(), json(&["b", "a/d"]).unwrap());
    assert!(matches!(json(&["b", "B"]), Err(ArtifactError::Path(_))));
    let form = r#"{"version":1,"files":[{"path":"a","digest":"sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","bytes":1}]}"#;
    assert_eq!(
        json(&["a"]).unwrap(),
        form.as_bytes(),
        "this form is what digests were made of: it never changes"
    );
}

#[tokio::test]
async fn what_was_put_comes_back_and_is_kept_once() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store, |_| ()).await;
        let weights = noise(1, 3_000_001);
        let first = bench.put("weights.bin", &weights).await;
        let again = bench.put("copy.bin", &weights).await;
        let empty = bench.put("empty", b"").await;
        assert_eq!(first.digest, again.digest);
        assert_eq!(bench.lying("blobs").len(), 2);
        assert!(bench.lying("spool").is_empty());
        assert_eq!(all(&bench.artifacts, first.digest).await.unwrap(), weights);

        let files = vec![first.clone(), again.clone(), empty];
        let actor = &bench.who.actor;
        let one = bench
            .artifacts
            .register(actor, bench.named("one"), files.clone())
            .await
            .unwrap();
        let turned = files.iter().rev().cloned().collect();
        let two = bench
            .artifacts
            .register(actor, bench.named("two"), turned)
            .await
            .unwrap();
        assert_eq!(one.id, two.id, "the order of files makes no other artifact");
        assert_eq!((one.files, one.bytes), (3, 6_000_002));
        assert_eq!(bench.artifacts.files(one.id).await.unwrap().len(), 3);

        let unknown = File {
            digest: Digest::of(b"nobody has this"),
            ..first
        };
        let error = bench
            .artifacts
            .register(actor, bench.named("no"), vec![unknown])
            .await
            .unwrap_err();
        assert!(matches!(error, ArtifactError::Collected { .. }), "{error}");
        let error = bench
            .artifacts
            .register(actor, bench.named("no"), Vec::new())
            .await
            .unwrap_err();
        assert!(matches!(error, ArtifactError::Empty), "{error}");
    })
    .await;
}

#[tokio::test]
async fn damage_is_found_put_aside_and_healed_by_the_next_upload() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store, |_| ()).await;
        let content = noise(2, 500_000);
        let file = bench.put("x", &content).await;
        let artifact = bench
            .artifacts
            .register(&bench.who.actor, bench.named("x"), vec![file.clone()])
            .await
            .unwrap();
        let place = bench.artifacts.0.blobs.file(&file.digest).unwrap();
        let rot = |bytes: &[u8]| {
            std::fs::remove_file(&place).unwrap();
            std::fs::write(&place, bytes).unwrap();
        };
        let mut flipped = content.clone();
        flipped[400_000] ^= 1;
        for damaged in [flipped, content[..499_999].to_vec(), Vec::new()] {
            rot(&damaged);
            let cache = bench.folder.path().join("cache");
            let error = bench
                .artifacts
                .materialise(artifact.id, &cache)
                .await
                .unwrap_err();
            assert!(
                matches!(error, ArtifactError::Damaged(digest) if digest == file.digest),
                "{error}"
            );
            assert_eq!(
                std::fs::read_dir(&cache).unwrap().count(),
                0,
                "no folder of damaged files"
            );
            let error = all(&bench.artifacts, file.digest).await.unwrap_err();
            assert!(matches!(error, ArtifactError::Missing(_)), "{error}");
            assert_eq!(bench.lying("quarantine").len(), 1);
            // The store knows that it is away, so the same content is taken again.
            bench.put("again", &content).await;
            assert_eq!(all(&bench.artifacts, file.digest).await.unwrap(), content);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_who_want_a_folder_share_one() {
    let fresh = Fresh::sqlite().await;
    let bench = Bench::new(&fresh.store, |_| ()).await;
    let files = vec![
        bench.put("model.onnx", &noise(3, 900_000)).await,
        bench.put("a/b/config.json", b"{}").await,
    ];
    let artifact = bench
        .artifacts
        .register(&bench.who.actor, bench.named("m"), files)
        .await
        .unwrap();
    let cache = bench.folder.path().join("cache");
    let wanted = (0..16).map(|_| {
        let (artifacts, cache) = (bench.artifacts.clone(), cache.clone());
        tokio::spawn(async move { artifacts.materialise(artifact.id, &cache).await.unwrap() })
    });
    let mut places: Vec<_> = futures_util::future::join_all(wanted)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    places.dedup();
    assert_eq!(places.len(), 1);
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
    assert_eq!(
        std::fs::read(places[0].join("a/b/config.json")).unwrap(),
        b"{}"
    );
    assert_eq!(
        std::fs::read(places[0].join("model.onnx")).unwrap(),
        noise(3, 900_000)
    );
    assert!(
        std::fs::metadata(places[0].join("model.onnx"))
            .unwrap()
            .permissions()
            .readonly()
    );
    assert!(bench.artifacts.0.being_made.lock().unwrap().len() <= 1);
}
