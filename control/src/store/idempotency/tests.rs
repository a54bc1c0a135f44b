#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::rig::{Fresh, on_both};
use super::*;
use crate::domain::record::Department;
use crate::id::Id as _;
use crate::store::{Actor, Listing};

const HOUR: Duration = Duration::from_secs(3600);
const LONG: IdempotencyTimes = IdempotencyTimes {
    lease: HOUR,
    keep: HOUR,
};

async fn begin(store: &Store, who: PrincipalId, key: &str, digest: &str) -> Idempotency {
    store
        .begin_idempotent(who, key, digest, LONG)
        .await
        .unwrap()
}

/// A claim that is held for no time at all: as one whose process died.
async fn dead_claim(store: &Store, who: PrincipalId) -> Claim {
    let times = IdempotencyTimes {
        lease: Duration::ZERO,
        ..LONG
    };
    new(store.begin_idempotent(who, "k", "aa", times).await.unwrap())
}

fn new(known: Idempotency) -> Claim {
    match known {
        Idempotency::New(claim) => claim,
        other => panic!("{other:?}"),
    }
}

async fn departments(store: &Store) -> Vec<String> {
    let found = store.list(&Listing::<Department>::new()).await.unwrap();
    found.items.into_iter().map(|it| it.record.name).collect()
}

async fn make(store: &Store, name: &str) {
    let department = Department {
        name: name.into(),
        description: String::new(),
    };
    store
        .create(&Actor::system("test"), department)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_repeated_write_gets_the_first_answer() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let (who, other) = (PrincipalId::new(), PrincipalId::new());
        let first = new(begin(store, who, "k", "aa").await);
        let again = begin(store, who, "k", "aa").await;
        assert!(matches!(again, Idempotency::InProgress));
        // Keys are each principal's own.
        let others = new(begin(store, other, "k", "aa").await);
        assert!(store.finish_idempotent(&first, 201, "{}").await.unwrap());
        let again = begin(store, who, "k", "aa").await;
        let Idempotency::Answered { status, response } = again else {
            panic!("{again:?}");
        };
        assert_eq!((status, response.as_str()), (201, "{}"));
        let again = begin(store, who, "k", "bb").await;
        assert!(matches!(again, Idempotency::OtherRequest));

        store.abandon_idempotent(&others).await.unwrap();
        // Given up, and so free.
        new(begin(store, other, "k", "aa").await);
        store.abandon_idempotent(&first).await.unwrap();
        let again = begin(store, who, "k", "aa").await;
        assert!(
            matches!(again, Idempotency::Answered { .. }),
            "an answer stays"
        );

        let tomorrow = Timestamp::now().after(24 * HOUR);
        assert_eq!(store.forget_idempotent(tomorrow).await.unwrap(), 2);
        assert_eq!(store.forget_idempotent(tomorrow).await.unwrap(), 0);
        new(begin(store, who, "k", "bb").await);
    })
    .await;
}

#[tokio::test]
async fn a_claim_whose_process_died_is_taken_over_and_the_late_one_changes_nothing() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let (store, who) = (&fresh.store, PrincipalId::new());
        let late = dead_claim(store, who).await;
        let other = begin(store, who, "k", "bb").await;
        assert!(
            matches!(other, Idempotency::OtherRequest),
            "only the same request"
        );
        let second = new(begin(store, who, "k", "aa").await);
        assert!(!store.renew_idempotent(&late, HOUR).await.unwrap());
        assert!(store.renew_idempotent(&second, HOUR).await.unwrap());
        make(&store.holding(late.clone()), "late").await;
        assert!(!store.finish_idempotent(&late, 201, "{}").await.unwrap());
        store.abandon_idempotent(&late).await.unwrap();
        make(&store.holding(second.clone()), "second").await;
        assert!(store.finish_idempotent(&second, 201, "{}").await.unwrap());
        assert_eq!(departments(store).await, ["second"]);
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_renewed_stays() {
    let fresh = Fresh::sqlite().await;
    let (store, who) = (&fresh.store, PrincipalId::new());
    let claim = dead_claim(store, who).await;
    assert!(store.renew_idempotent(&claim, HOUR).await.unwrap());
    let again = begin(store, who, "k", "aa").await;
    assert!(matches!(again, Idempotency::InProgress));
}

/// What a killed process leaves: the claim, and nothing of what it had written.
#[tokio::test]
async fn a_record_and_its_answer_are_written_together() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let (store, who) = (&fresh.store, PrincipalId::new());
        let claim = dead_claim(store, who).await;
        make(&store.holding(claim.clone()), "x").await;
        drop(claim);
        assert!(departments(store).await.is_empty());
        let claim = new(begin(store, who, "k", "aa").await);
        let holding = store.holding(claim.clone());
        make(&holding, "x").await;
        // What it reads, it has written.
        assert_eq!(departments(&holding).await, ["x"]);
        make(&holding, "y").await;
        assert!(store.finish_idempotent(&claim, 201, "{}").await.unwrap());
        assert_eq!(departments(store).await.len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_goes_on() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let who = PrincipalId::new();
        let asked: Vec<_> = (0..10)
            .map(|_| {
                let store = fresh.store.clone();
                tokio::spawn(async move { begin(&store, who, "k", "aa").await })
            })
            .collect();
        let mut claimed = 0;
        for task in asked {
            claimed += usize::from(matches!(task.await.unwrap(), Idempotency::New(_)));
        }
        assert_eq!(claimed, 1);
    })
    .await;
}
