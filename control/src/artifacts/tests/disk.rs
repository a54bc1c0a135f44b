//! A disk that takes no more. The test runs itself in a process whose files may not grow over a limit, which
//! a write meets in the same way as the end of a disk, and needs no right to mount one.

use std::process::Command;
use std::time::Duration;

use super::*;

const MARK: &str = "SLUICE_TEST_FULL_DISK";
const LIMIT_KIB: usize = 4096;

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing_behind() {
    if std::env::var_os(MARK).is_some() {
        return on_the_full_disk().await;
    }
    let run = Command::new("bash")
        .args([
            "-c",
            &format!("trap '' XFSZ; ulimit -f {LIMIT_KIB}; exec \"$0\" \"$@\""),
        ])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "artifacts::tests::disk::a_full_disk_is_said_and_leaves_nothing_behind",
        ])
        .env(MARK, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

async fn on_the_full_disk() {
    let fresh = Fresh::sqlite().await;
    let bench = Bench::new(&fresh.store, |_| ()).await;
    let too_much = noise(20, LIMIT_KIB * 1024 + 1_000_000);
    for _ in 0..3 {
        let error = bench
            .artifacts
            .put("big", pieces(&too_much, 1 << 20))
            .await
            .unwrap_err();
        assert!(matches!(error, ArtifactError::NoSpace), "{error:?}");
        assert!(error.is_retryable());
        assert!(bench.lying("spool").is_empty() && bench.lying("blobs").is_empty());
        assert!(
            !fresh
                .store
                .has_blob(&Digest::of(&too_much).to_string())
                .await
                .unwrap()
        );
    }
    let fits = bench.put("small", &too_much[..1_000_000]).await;
    assert_eq!(
        bench.artifacts.verify(fits.digest).await.unwrap(),
        1_000_000
    );
}

/// The one thread that blocks is busy: what waited for it too long is not done once it is free.
#[test]
fn a_deletion_that_was_given_up_is_not_done_later() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let location = Location::Folder(folder.path().to_owned());
    let settings = ArtifactSettings::default();
    let blobs = Blobs::open(&location, &settings, guard::plain_client().unwrap()).unwrap();
    let file = folder.path().join("a");
    std::fs::write(&file, "bytes").unwrap();
    runtime.block_on(async {
        let (go, waits) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || waits.recv());
        let patience = Duration::from_millis(20);
        assert!(!blobs.delete_within("a", patience).await.unwrap());
        go.send(()).unwrap();
        busy.await.unwrap().unwrap();
        // It comes behind the one that was given up.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert!(file.exists());
        assert!(
            blobs
                .delete_within("a", Duration::from_secs(9))
                .await
                .unwrap()
        );
        assert!(
            blobs
                .delete_within("a", Duration::from_secs(9))
                .await
                .unwrap()
        );
        assert!(!file.exists());
    });
}
