//! kill -9 under load, and what the ledger knows of it afterwards.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use super::super::*;
use super::requests;
use crate::deploy::tests::rig::*;
use crate::store::rig::Fresh;
use crate::store::{DatabaseUrl, Store, StoreSettings};

const DATABASE: &str = "SLUICE_TEST_CHILD_DATABASE";
const FOLDER: &str = "SLUICE_TEST_CHILD_FOLDER";

/// The process that is killed. It says where it listens, and when it begins each flush.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the test below"]
async fn a_process_to_be_killed() {
    let (Some(database), Some(folder)) = (std::env::var_os(DATABASE), std::env::var_os(FOLDER))
    else {
        return;
    };
    let url = DatabaseUrl::Sqlite(database.into());
    let store = Store::open(&url, &StoreSettings::default()).await.unwrap();
    let rig = Rig::new(&store).await;
    rig.publisher.tick().await;
    let ledger = Ledger::open(folder, LedgerSettings::default()).unwrap();
    rig.gateway.observer().tell(ledger.tally());
    say(&format!("listens {}", rig.address));
    loop {
        say("flushes");
        let flushed = Arc::clone(&ledger);
        tokio::task::spawn_blocking(move || flushed.flush())
            .await
            .unwrap();
        ledger.send(&store).await.unwrap();
        tokio::time::sleep(LedgerSettings::default().flush).await;
    }
}

/// Past the test harness, which would keep it.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

/// Whatever was answered before the last flush but one began is in the ledger, and nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_under_load_loses_what_was_not_flushed_and_no_more() {
    let fresh = Fresh::sqlite().await;
    let store = &fresh.store;
    let rig = Rig::new(store).await;
    let people = people(store).await;
    let product = product(store, &people).await;
    let at = deployment(store, &people, &product, "helpdesk", small()).await;
    let v1 = passed(store, &people, &product, "v1").await;
    rig.deploy(&people, &at, v1).await;
    let DatabaseUrl::Sqlite(database) = &fresh.url else {
        unreachable!()
    };
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "usage::tests::kill::a_process_to_be_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(DATABASE, database)
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (said, mut lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            _ = said.send(line);
        }
    });
    let mut next = async |word: &'static str| loop {
        let line = lines.recv().await.expect("the child lives");
        if line.starts_with(word) {
            return line;
        }
    };
    let address = next("listens").await;
    let mut rig = rig;
    rig.address = address.strip_prefix("listens ").unwrap().parse().unwrap();

    let (sent, answered, over) = (AtomicI64::new(0), AtomicI64::new(0), AtomicBool::new(false));
    let client = async || {
        while !over.load(SeqCst) {
            sent.fetch_add(1, SeqCst);
            // Fails when the process is gone.
            if rig.try_chat("helpdesk").await != Some(http::StatusCode::OK) {
                return;
            }
            answered.fetch_add(1, SeqCst);
        }
    };
    let killing = async {
        let mut at_flush = Vec::new();
        while at_flush.len() < 5 || at_flush[at_flush.len() - 2] < 4 {
            next("flushes").await;
            at_flush.push(answered.load(SeqCst));
        }
        // Somewhere between two flushes.
        tokio::time::sleep(Duration::from_millis(150)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        over.store(true, SeqCst);
        at_flush[at_flush.len() - 2]
    };
    let ((), (), (), certain) = tokio::join!(client(), client(), client(), killing);

    let ledger = Ledger::open(folder.path(), LedgerSettings::default()).unwrap();
    ledger.send(store).await.unwrap();
    let recorded = requests(store).await;
    let (sent, answered) = (sent.load(SeqCst), answered.load(SeqCst));
    assert!(
        certain <= recorded && recorded <= sent,
        "{certain} flushed for certain, {recorded} recorded, {answered} answered, {sent} sent"
    );
}
