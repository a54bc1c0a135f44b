//! A disk that takes no more. The test runs itself in a process whose files may not grow over a limit, which
//! a write meets in the same way as the end of a disk, and needs no right to mount one.

use std::process::Command;

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
