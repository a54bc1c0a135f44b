//! A process that uploads, registers and sweeps is killed at any moment; what it had reported stays true.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::Rng as _;

use super::*;
use crate::domain::record::Upload;
use crate::domain::upload::UploadState;
use crate::id::UploadId;
use crate::store::{DatabaseUrl, Listing, StoreSettings};

const FOLDER: &str = "SLUICE_TEST_CRASH_FOLDER";
const ROUNDS: usize = 12;

async fn open(folder: &Path) -> (Store, Artifacts) {
    let url = DatabaseUrl::Sqlite(folder.join("sluice.db"));
    let store = Store::open(&url, &StoreSettings::default()).await.unwrap();
    let mut settings = ArtifactSettings::default();
    settings.collection.blob_grace_s = 0;
    let artifacts = Artifacts::open(store.clone(), settings, folder).unwrap();
    (store, artifacts)
}

/// The process that is killed: only run by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "is a process of the other test"]
async fn child() {
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let (store, artifacts) = open(&folder).await;
    let who = Arc::new(somebody(&store, Role::Developer).await);
    for worker in 0..3u64 {
        let (store, artifacts, who) = (store.clone(), artifacts.clone(), who.clone());
        tokio::spawn(async move {
            for round in 0.. {
                let _ = bring(&store, &artifacts, &who, (worker, round)).await;
            }
        });
    }
    loop {
        artifacts.collect().await.unwrap();
        tokio::task::yield_now().await;
    }
}

#[expect(clippy::print_stdout, reason = "the word of one process to the other")]
async fn bring(
    store: &Store,
    artifacts: &Artifacts,
    who: &Somebody,
    (worker, round): (u64, u64),
) -> Result<(), ArtifactError> {
    let content = noise(round % 5, 60_000);
    let new = NewUpload {
        department: who.department,
        principal: None,
        path: "weights".into(),
        bytes: Some(60_000),
        digest: Some(Digest::of(&content)),
        part_bytes: Some(25_000),
    };
    let upload = artifacts.create_upload(&who.actor, new).await?.id;
    for (number, part) in content.chunks(25_000).enumerate() {
        artifacts
            .put_part(
                upload,
                PartAt::Number(number as u64),
                None,
                pieces(part, 9_000),
            )
            .await?;
        println!("part {upload} {number}");
    }
    artifacts.complete_upload(&who.actor, upload).await?;
    println!("completed {upload}");
    let note = artifacts
        .put("note", pieces(format!("{worker} {round}").as_bytes(), 8))
        .await?;
    let whole = File {
        path: "weights".into(),
        digest: Digest::of(&content),
        bytes: 60_000,
    };
    let new = NewArtifact {
        department: who.department,
        kind: ArtifactKind::Model,
        name: "m".into(),
        source: None,
    };
    let artifact = artifacts
        .register(&who.actor, new, vec![whole, note])
        .await?
        .id;
    println!("registered {artifact}");
    if round % 3 == 0 {
        println!("deleting {artifact}");
        let mut tx = store.begin().await?;
        tx.delete::<Artifact>(&who.actor, artifact, None).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Runs the child until it has said something, and kills it a moment later.
fn run_and_kill(folder: &Path) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "artifacts::tests::crash::child",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    let enough = rand::rng().random_range(1..60);
    while said.len() < enough {
        let line = lines.next().expect("the child ended by itself").unwrap();
        said.extend(line.contains('_').then_some(line));
    }
    std::thread::sleep(Duration::from_micros(rand::rng().random_range(0..20_000)));
    child.kill().unwrap();
    child.wait().unwrap();
    // The last line may be cut short.
    said.extend(lines.map_while(Result::ok));
    said
}

#[tokio::test]
async fn killed_at_any_moment_it_loses_nothing_that_it_had_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (mut alive, mut parts) = (
        HashSet::<ArtifactId>::new(),
        HashMap::<UploadId, HashSet<i64>>::new(),
    );
    let mut over = HashSet::<UploadId>::new();
    let mut reported = 0;
    for _ in 0..ROUNDS {
        let said = run_and_kill(folder.path());
        reported += said.len();
        for line in said {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["part", upload, number] => {
                    let number = number.parse().unwrap();
                    parts
                        .entry(upload.parse().unwrap())
                        .or_default()
                        .insert(number);
                }
                ["completed", upload] => drop(over.insert(upload.parse().unwrap())),
                ["registered", artifact] => drop(alive.insert(artifact.parse().unwrap())),
                ["deleting", artifact] => drop(alive.remove(&artifact.parse().unwrap())),
                _ => {}
            }
        }
        let (store, artifacts) = open(folder.path()).await;
        check(&store, &artifacts, &alive, &parts, &over).await;
        store.close().await;
    }
    assert!(reported >= ROUNDS && !alive.is_empty());
    leaves_nothing_behind(folder.path()).await;
}

async fn check(
    store: &Store,
    artifacts: &Artifacts,
    alive: &HashSet<ArtifactId>,
    parts: &HashMap<UploadId, HashSet<i64>>,
    over: &HashSet<UploadId>,
) {
    for &artifact in alive {
        for file in artifacts.files(artifact).await.unwrap() {
            artifacts.verify(file.digest).await.unwrap();
        }
    }
    let actor = Actor::system("test");
    for (&upload, numbers) in parts {
        let record = store.get::<Upload>(upload).await.unwrap();
        match record.state {
            UploadState::Completed => {}
            UploadState::Open => {
                assert!(!over.contains(&upload));
                let there: HashSet<i64> = store
                    .upload_parts(upload)
                    .await
                    .unwrap()
                    .iter()
                    .map(|part| part.part)
                    .collect();
                assert!(there.is_superset(numbers), "{there:?} of {numbers:?}");
            }
            // Cut short: whoever asks again gets it.
            UploadState::Completing => {
                let done = artifacts.complete_upload(&actor, upload).await.unwrap();
                assert_eq!(done.state, UploadState::Completed);
            }
            other => panic!("{other}"),
        }
    }
}

async fn leaves_nothing_behind(folder: &Path) {
    let (store, _) = open(folder).await;
    let mut settings = ArtifactSettings::default();
    (
        settings.collection.blob_grace_s,
        settings.collection.artifact_grace_s,
    ) = (0, 0);
    let artifacts = Artifacts::open(store.clone(), settings, folder).unwrap();
    let actor = Actor::system("test");
    let mut cursor: Option<String> = None;
    loop {
        let listing = Listing::<Upload>::new().limit(200).after(cursor);
        let page = store.list(&listing).await.unwrap();
        for upload in &page.items {
            match upload.state {
                UploadState::Completed => store
                    .delete::<Upload>(&actor, upload.id, None)
                    .await
                    .unwrap(),
                UploadState::Open | UploadState::Completing => {
                    artifacts.abort_upload(&actor, upload.id).await.unwrap();
                }
                _ => {}
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let mut tx = store.begin().await.unwrap();
    sqlx::query("UPDATE uploads SET blob = NULL")
        .execute(tx.connection())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    while artifacts.collect().await.unwrap() != Collected::default() {}
    artifacts.0.spool.sweep(Duration::ZERO).unwrap();
    let mut folders = vec![folder.join("artifacts")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.is_dir(), "{} is left", path.display());
            folders.push(path);
        }
    }
}
