//! What lies on the disk between the process and the database.

use std::io::Write as _;

use super::super::*;
use super::requests;
use crate::id::{Id as _, UsageId};
use crate::store::rig::{Fresh, on_both};
use crate::store::{Amounts, Store, StoreSettings, UsageEntry, UsageFilter};
use crate::time::Timestamp;

fn entries(count: usize) -> Vec<UsageEntry> {
    (0..count)
        .map(|_| UsageEntry {
            id: UsageId::new(),
            at: Timestamp::now(),
            department: "dep_a".into(),
            principal: "usr_a".into(),
            api_key: String::new(),
            deployment: "dpl_a".into(),
            model_version: String::new(),
            request: String::new(),
            status: 200,
            amounts: Amounts {
                requests: 1,
                ..Amounts::default()
            },
        })
        .collect()
}

#[test]
fn segments_survive_and_go_in_order_and_a_torn_line_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let lines = entries(5);
    let mut journal = Journal::open(folder.path(), u64::MAX).unwrap();
    assert_eq!(journal.append(&lines[..2]).unwrap(), 0);
    let first = journal.oldest().unwrap();
    journal.append(&lines[2..4]).unwrap();
    drop(journal);
    // Killed in the middle of a line.
    let second = folder.path().join(format!("{:020}.jsonl", 1));
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&second)
        .unwrap();
    file.write_all(b"{\"id\":\"usg_").unwrap();

    let mut journal = Journal::open(folder.path(), u64::MAX).unwrap();
    assert_eq!(journal.oldest().as_ref(), Some(&first));
    assert_eq!(Journal::read(&first).unwrap().entries, lines[..2]);
    journal.append(&lines[4..]).unwrap();
    journal.remove(&first).unwrap();
    assert_eq!(journal.oldest().as_ref(), Some(&second));
    let read = Journal::read(&second).unwrap();
    assert_eq!((&read.entries[..], read.torn), (&lines[2..4], 1));
    journal.remove(&second).unwrap();
    let third = journal.oldest().unwrap();
    assert_eq!(Journal::read(&third).unwrap().entries, lines[4..]);
    journal.remove(&third).unwrap();
    assert_eq!((journal.oldest(), journal.bytes()), (None, 0));
}

#[test]
fn the_oldest_are_kept_when_it_is_full_and_segments_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let lines = entries(10_000);
    let mut journal = Journal::open(folder.path(), 1_500_000).unwrap();
    let mut dropped = 0;
    for some in lines.chunks(1000) {
        dropped += journal.append(some).unwrap();
    }
    assert!(dropped > 0 && journal.bytes() <= 1_500_000);
    let mut found = Vec::new();
    while let Some(path) = journal.oldest() {
        let read = Journal::read(&path).unwrap();
        assert!(path.metadata().unwrap().len() < 2 << 20);
        found.extend(read.entries);
        journal.remove(&path).unwrap();
    }
    assert_eq!(found, lines[..lines.len() - dropped]);
}

#[test]
fn what_a_failed_write_left_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let lines = entries(2);
    let mut journal = Journal::open(folder.path(), u64::MAX).unwrap();
    journal.append(&lines[..1]).unwrap();
    let path = folder.path().join(format!("{:020}.jsonl", 0));
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap();
    file.write_all(b"half a li").unwrap();
    journal.append(&lines[1..]).unwrap();
    let read = Journal::read(&path).unwrap();
    assert_eq!((&read.entries, read.torn), (&lines, 0));
}

#[tokio::test]
async fn a_segment_that_is_sent_again_counts_once() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), u64::MAX).unwrap();
        journal.append(&entries(700)).unwrap();
        let path = journal.oldest().unwrap();
        let copy = std::fs::read(&path).unwrap();
        let ledger = Ledger::open(folder.path(), LedgerSettings::default()).unwrap();
        assert_eq!(ledger.send(&fresh.store).await.unwrap(), 700);
        assert!(!path.exists());
        // Killed between the commit and the removal.
        std::fs::write(&path, &copy).unwrap();
        let ledger = Ledger::open(folder.path(), LedgerSettings::default()).unwrap();
        ledger.send(&fresh.store).await.unwrap();
        assert_eq!(requests(&fresh.store).await, 700);
        let page = fresh
            .store
            .usage_entries(&UsageFilter::default(), None, 500)
            .await;
        assert!(page.unwrap().next.is_some());
    })
    .await;
}

#[tokio::test]
async fn lines_wait_for_a_database_that_is_away() {
    let fresh = Fresh::sqlite().await;
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(folder.path(), u64::MAX).unwrap();
    journal.append(&entries(3)).unwrap();
    drop(journal);
    let ledger = Ledger::open(folder.path(), LedgerSettings::default()).unwrap();
    let away = Store::open(&fresh.url, &StoreSettings::default())
        .await
        .unwrap();
    away.close().await;
    assert!(ledger.send(&away).await.unwrap_err().is_retryable());
    let waiting = ledger.state().waiting_bytes;
    assert!(waiting > 0);
    ledger.send(&fresh.store).await.unwrap();
    assert_eq!(requests(&fresh.store).await, 3);
    assert_eq!(ledger.state().waiting_bytes, 0);
}
