#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::rig::{Fresh, on_both};
use super::*;
use crate::id::Id as _;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_repeated_write_gets_the_first_answer() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let store = &fresh.store;
        let (who, other) = (PrincipalId::new(), PrincipalId::new());
        let begin = async |who, key, digest| {
            store
                .begin_idempotent(who, key, digest, HOUR)
                .await
                .unwrap()
        };
        assert_eq!(begin(who, "k", "aa").await, Idempotency::New);
        assert_eq!(begin(who, "k", "aa").await, Idempotency::InProgress);
        assert_eq!(
            begin(other, "k", "aa").await,
            Idempotency::New,
            "keys are each principal's own"
        );
        store.finish_idempotent(who, "k", 201, "{}").await.unwrap();
        assert_eq!(
            begin(who, "k", "aa").await,
            Idempotency::Answered {
                status: 201,
                response: "{}".into()
            }
        );
        assert_eq!(begin(who, "k", "bb").await, Idempotency::OtherRequest);

        store.abandon_idempotent(other, "k").await.unwrap();
        assert_eq!(
            begin(other, "k", "aa").await,
            Idempotency::New,
            "given up, and so free"
        );
        store.abandon_idempotent(who, "k").await.unwrap();
        assert!(
            matches!(begin(who, "k", "aa").await, Idempotency::Answered { .. }),
            "an answer stays"
        );

        let tomorrow = Timestamp::now().after(24 * HOUR);
        assert_eq!(store.forget_idempotent(tomorrow).await.unwrap(), 2);
        assert_eq!(store.forget_idempotent(tomorrow).await.unwrap(), 0);
        assert_eq!(begin(who, "k", "bb").await, Idempotency::New);
    })
    .await;
}

#[tokio::test]
async fn a_claim_whose_process_died_ends_by_itself() {
    on_both(async |fresh: std::sync::Arc<Fresh>| {
        let who = PrincipalId::new();
        let begin = async |keep| {
            fresh
                .store
                .begin_idempotent(who, "k", "aa", keep)
                .await
                .unwrap()
        };
        assert_eq!(begin(Duration::ZERO).await, Idempotency::New);
        assert_eq!(begin(HOUR).await, Idempotency::New);
        assert_eq!(begin(HOUR).await, Idempotency::InProgress);
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
                tokio::spawn(
                    async move { store.begin_idempotent(who, "k", "aa", HOUR).await.unwrap() },
                )
            })
            .collect();
        let mut new = 0;
        for task in asked {
            new += usize::from(task.await.unwrap() == Idempotency::New);
        }
        assert_eq!(new, 1);
    })
    .await;
}
