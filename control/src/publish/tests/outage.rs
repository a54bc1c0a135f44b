//! A real PostgreSQL, stopped and started under load.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use crate::deploy::tests::Rig;
use crate::deploy::tests::rig::*;
use crate::deploy::{Deployments, NewWorkOrder};
use crate::serving::{Serving, ServingSettings};
use crate::store::{Store, StoreSettings, UsageFilter};

/// A server of the test's own.
struct Server {
    bin: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    /// `None` where PostgreSQL is not installed, unless the test script says that it must be.
    fn start() -> Option<Self> {
        let Some(bin) = bin() else {
            assert!(
                std::env::var_os("SLUICE_TEST_REQUIRE_POSTGRES").is_none(),
                "PostgreSQL is not installed"
            );
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            let mut chown = Command::new("chown");
            assert!(
                chown
                    .arg("postgres:")
                    .arg(folder.path())
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let server = Self { bin, folder, port };
        let data = server.data();
        let initdb = [
            "-U",
            "test",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "-D",
        ];
        server.run("initdb", &[&initdb[..], &[&data]].concat());
        server.up();
        Some(server)
    }

    fn data(&self) -> String {
        self.folder.path().join("data").to_str().unwrap().to_owned()
    }

    fn up(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c fsync=off",
            self.port,
            self.folder.path().display()
        );
        let log = self.folder.path().join("log");
        let (data, log) = (self.data(), log.to_str().unwrap());
        self.run(
            "pg_ctl",
            &["-D", &data, "-w", "-s", "-l", log, "-o", &options, "start"],
        );
    }

    /// As a power cut would.
    fn down(&self) {
        let data = self.data();
        self.run(
            "pg_ctl",
            &["-D", &data, "-w", "-s", "-m", "immediate", "stop"],
        );
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.bin.join(program);
        let mut command = if is_root() {
            // PostgreSQL refuses to run as root.
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        let status = command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{arguments:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
    }
}

fn bin() -> Option<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|version| version.unwrap().path().join("bin"))
        .collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.reverse();
    found.extend(std::env::split_paths(&path));
    found
        .into_iter()
        .find(|bin| bin.join("initdb").is_file() && bin.join("pg_ctl").is_file())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    Path::new("/proc/self").metadata().unwrap().uid() == 0
}

async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    // A guard against waiting for ever, no measure.
    let patience = tokio::time::timeout(Duration::from_secs(300), async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(patience.await.is_ok(), "never: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_answer_while_the_database_is_stopped_and_follow_it_when_it_is_back() {
    let Some(server) = Server::start() else {
        return;
    };
    let url = format!("postgres://test@127.0.0.1:{}/postgres", server.port);
    let settings = StoreSettings {
        connections: 6,
        patience: Duration::from_secs(2),
        ..StoreSettings::default()
    };
    let store = Store::open(&url.parse().unwrap(), &settings).await.unwrap();
    let rig = Rig::new(&store).await;
    let folder = tempfile::tempdir().unwrap();
    let artifacts = Arc::new(Folders::helpdesk().await);
    let wake = Arc::default();
    let serving = Serving::start(
        Arc::clone(&rig.gateway),
        artifacts,
        Arc::clone(&wake),
        folder.path(),
        ServingSettings::default(),
    )
    .unwrap();
    serving.publisher().restore().await;
    serving.follow(store.clone());
    let people = people(&store).await;
    let product = product(&store, &people).await;
    let at = deployment(&store, &people, &product, "helpdesk", small()).await;
    let versions = [
        passed(&store, &people, &product, "v1").await,
        passed(&store, &people, &product, "v2").await,
    ];
    let calls = Deployments::new(store.clone(), wake);
    let deploy = async |candidate| {
        let new = NewWorkOrder::new(at.id, candidate, "a test");
        let order = calls.order(&people.developer, new).await.unwrap();
        calls
            .approve(&people.approver, order.id, None, None)
            .await
            .unwrap();
    };
    deploy(versions[0]).await;
    let serves = async |version: &str| {
        let found = rig.gateway.routes().find("helpdesk").cloned();
        found.is_some_and(|it| it.revision.starts_with(version))
    };
    until("v1 is served", || serves("v1-")).await;

    let (answered, over) = (AtomicI64::new(0), AtomicBool::new(false));
    let load = async {
        while !over.load(SeqCst) {
            let (status, revision) = rig.chat("helpdesk", None).await;
            assert_eq!(status, 200, "{revision}");
            answered.fetch_add(1, SeqCst);
        }
    };
    let story = async {
        until("use is in the ledger", || async {
            let sums = store.usage(&UsageFilter::default(), None).await.unwrap();
            sums[0].amounts.requests > 0
        })
        .await;
        tokio::task::block_in_place(|| server.down());
        assert!(store.ping().await.is_err());
        let before = answered.load(SeqCst);
        until("use waits on the disk", || async {
            serving.ledger().state().waiting_bytes > 0 && answered.load(SeqCst) > before + 10
        })
        .await;
        tokio::task::block_in_place(|| server.up());
        until("the database answers", || async {
            store.ping().await.is_ok()
        })
        .await;
        deploy(versions[1]).await;
        until("v2 is served", || serves("v2-")).await;
        over.store(true, SeqCst);
    };
    tokio::join!(load, story);

    rig.gateway.observer().finish();
    serving.stop().await;
    let sums = store.usage(&UsageFilter::default(), None).await.unwrap();
    assert_eq!(sums[0].amounts.requests, answered.load(SeqCst), "each once");
    let state = serving.ledger().state();
    assert_eq!((state.waiting_bytes, state.dropped), (0, 0));
    store.close().await;
}
