#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::{DatabaseUrl, StoreSettings};
use super::*;
use crate::domain::record::Department;
use crate::store::{Actor, Listing};

async fn open(path: &Path) -> Store {
    let settings = StoreSettings {
        patience: Duration::from_secs(2),
        ..StoreSettings::default()
    };
    Store::open(&DatabaseUrl::Sqlite(path.to_owned()), &settings)
        .await
        .unwrap()
}

async fn write(store: &Store, name: &str) -> Result<(), StoreError> {
    let department = Department {
        name: name.into(),
        description: "x".repeat(10_000),
    };
    let made = store.create(&Actor::system("test"), department).await;
    made.map(drop)
}

fn fault_of(result: Result<(), StoreError>) -> StorageFault {
    match result {
        Err(StoreError::Storage { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_that_was_deleted_or_replaced_takes_no_writes_until_it_is_back() {
    for suffix in ["", "-wal"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let store = open(&path).await;
        write(&store, "before").await.unwrap();
        let (victim, aside) = (with_suffix(&path, suffix), folder.path().join("aside"));
        std::fs::rename(&victim, &aside).unwrap();
        assert_eq!(
            fault_of(write(&store, "lost").await),
            StorageFault::Replaced
        );
        assert_eq!(store.trouble().unwrap().code, "database_replaced");
        std::fs::write(&victim, "another").unwrap();
        assert_eq!(
            fault_of(write(&store, "lost").await),
            StorageFault::Replaced
        );
        let read = store.list(&Listing::<Department>::new()).await.unwrap();
        assert!(
            read.items.iter().any(|it| it.name == "before"),
            "reading goes on"
        );
        std::fs::rename(&aside, &victim).unwrap();
        write(&store, "after").await.unwrap();
        assert_eq!(store.trouble(), None);
        store.close().await;
        let again = open(&path).await;
        let kept = again.list(&Listing::<Department>::new()).await.unwrap();
        let names: Vec<_> = kept.items.iter().map(|it| it.name.as_str()).collect();
        assert!(
            names.contains(&"after") && !names.contains(&"lost"),
            "{names:?}"
        );
    }
}

#[tokio::test]
async fn the_heartbeat_finds_a_deleted_file_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let store = open(&path).await;
    store.look().await;
    assert_eq!(store.trouble(), None);
    std::fs::remove_file(&path).unwrap();
    store.look().await;
    assert_eq!(store.trouble().unwrap().code, "database_replaced");
}

#[tokio::test]
async fn the_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let modes = || {
        ["", "-wal", "-shm"].map(|suffix| {
            let found = std::fs::metadata(with_suffix(&path, suffix)).unwrap();
            found.permissions().mode() & 0o777
        })
    };
    let store = open(&path).await;
    write(&store, "x").await.unwrap();
    assert_eq!(modes(), [0o600; 3]);
    for suffix in ["", "-wal", "-shm"] {
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(with_suffix(&path, suffix), open).unwrap();
    }
    let second = open_again(&path).await;
    assert_eq!(
        modes(),
        [0o600; 3],
        "those of an earlier version are tightened"
    );
    second.close().await;
    write(&store, "y").await.unwrap();
}

async fn open_again(path: &Path) -> Store {
    open(path).await
}

const MARK: &str = "SLUICE_TEST_FULL_DATABASE";

/// In a process of its own: the limit on the size of files is a process's, and a write meets it as it meets a full disk.
#[test]
fn writes_work_again_when_there_is_room_again() {
    if std::env::var_os(MARK).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(on_the_full_disk());
    }
    let name = "store::health::tests::writes_work_again_when_there_is_room_again";
    let run = Command::new("bash")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(MARK, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(
        run.status.success() && said.contains("1 passed"),
        "{said}{errors}"
    );
}

async fn on_the_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("s.db")).await;
    write(&store, "before").await.unwrap();
    let free = getrlimit(Resource::Fsize);
    for round in 0..3 {
        setrlimit(
            Resource::Fsize,
            Rlimit {
                current: Some(4096),
                ..free
            },
        )
        .unwrap();
        for _ in 0..3 {
            assert_eq!(fault_of(write(&store, "refused").await), StorageFault::Full);
        }
        assert_eq!(store.trouble().unwrap().code, "storage_full");
        store.look().await;
        assert_eq!(
            store.trouble().unwrap().code,
            "storage_full",
            "the heartbeat says so, too"
        );
        setrlimit(Resource::Fsize, free).unwrap();
        if round == 0 {
            store.look().await;
        } else {
            write(&store, &format!("after-{round}")).await.unwrap();
        }
        assert_eq!(store.trouble(), None);
    }
}
