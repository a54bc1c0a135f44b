use super::*;
use crate::store::StoreError;
use crate::tasks::attempt::Ending;
use crate::time::Timestamp;

#[tokio::test]
async fn a_task_goes_its_way_and_every_move_is_in_its_journal() {
    on_both(async |fresh| {
        let queue = Queue::new(fresh.store.clone(), settings());
        let id = enqueue(&queue, NewTask::new("k", json!({"a": 1}))).await;
        let mut claim = claim_one(&queue, "w").await;
        assert_eq!((claim.id, claim.attempt(), claim.token()), (id, 1, 1));
        queue.start(&mut claim).await.unwrap();
        assert_eq!(
            queue.heartbeat("w").await.unwrap(),
            [(id, 1, TaskState::Running)]
        );
        queue.succeed(&claim, json!({"b": 2})).await.unwrap();
        let task = read(&queue, id).await;
        assert_eq!(task.result.as_ref().unwrap().0, json!({"b": 2}));
        assert!(task.finished_at.is_some() && task.worker.is_none() && task.lease_until.is_none());
        assert_eq!(path(&queue, id).await, ["claimed", "running", "succeeded"]);
        let attempts = queue.attempts(id).await.unwrap();
        assert_eq!(attempts.len(), 1);
        assert_eq!(attempts[0].outcome.as_deref(), Some("succeeded"));
        assert!(matches!(
            queue.succeed(&claim, Json::Null).await,
            Err(TaskError::Fenced { .. })
        ));
    })
    .await;
}

#[tokio::test]
async fn failures_that_may_pass_are_tried_again_and_others_are_not() {
    on_both(async |fresh| {
        let queue = Queue::new(fresh.store.clone(), settings());
        let mut new = NewTask::new("k", Json::Null);
        new.max_attempts = 2;
        let id = enqueue(&queue, new).await;
        for expected in [TaskState::Retrying, TaskState::Failed] {
            let mut claim = loop {
                queue.sweep().await.unwrap();
                if let Some(claim) = queue.claim("w", &kinds(&["k"]), 1).await.unwrap().pop() {
                    break claim;
                }
            };
            queue.start(&mut claim).await.unwrap();
            let state = queue
                .fail(&claim, &TaskFailure::passing("flaky", "try again"))
                .await
                .unwrap();
            assert_eq!(state, expected);
        }
        let task = read(&queue, id).await;
        assert_eq!((task.attempt, task.finished_at.is_some()), (2, true));
        assert_eq!(task.error.as_ref().unwrap().0["code"], "flaky");

        let id = enqueue(&queue, NewTask::new("k", Json::Null)).await;
        let mut claim = claim_one(&queue, "w").await;
        queue.start(&mut claim).await.unwrap();
        let failure =
            TaskFailure::lasting("parity_failed", "max error 0.3 > 0.01").with(json!({"max": 0.3}));
        assert_eq!(
            queue.fail(&claim, &failure).await.unwrap(),
            TaskState::Failed
        );
        assert_eq!(
            read(&queue, id).await.error.as_ref().unwrap().0["details"]["max"],
            0.3
        );
    })
    .await;
}

#[tokio::test]
async fn a_worker_thought_dead_is_refused_everything() {
    on_both(async |fresh| {
        let queue = Queue::new(fresh.store.clone(), hasty());
        let id = enqueue(&queue, NewTask::new("k", Json::Null)).await;
        let mut dead = claim_one(&queue, "dead").await;
        queue.start(&mut dead).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(queue.sweep().await.unwrap().lost, 1);
        let mut alive = loop {
            queue.sweep().await.unwrap();
            if let Some(claim) = queue.claim("alive", &kinds(&["k"]), 1).await.unwrap().pop() {
                break claim;
            }
        };
        queue.start(&mut alive).await.unwrap();
        assert!(matches!(
            queue.succeed(&dead, json!("late")).await,
            Err(TaskError::Fenced { .. })
        ));
        let failure = TaskFailure::passing("x", "y");
        assert!(matches!(
            queue.fail(&dead, &failure).await,
            Err(TaskError::Fenced { .. })
        ));
        assert!(matches!(
            queue.start(&mut dead).await,
            Err(TaskError::Fenced { .. })
        ));
        let report = super::super::journal::Report {
            progress: Some((0.5, None)),
            events: Vec::new(),
        };
        let name = super::super::journal::ClaimName::from(&dead);
        assert!(matches!(
            queue.report(&name, &report).await,
            Err(TaskError::Fenced { .. })
        ));
        assert!(queue.heartbeat("dead").await.unwrap().is_empty());
        queue.succeed(&alive, json!("in time")).await.unwrap();
        assert_eq!(read(&queue, id).await.result.as_ref().unwrap().0, "in time");
        let outcomes: Vec<_> = queue
            .attempts(id)
            .await
            .unwrap()
            .into_iter()
            .map(|it| it.outcome.unwrap())
            .collect();
        assert_eq!(outcomes, ["lost", "succeeded"]);
    })
    .await;
}

#[tokio::test]
async fn lost_attempts_count_and_given_back_or_unstarted_ones_do_not() {
    on_both(async |fresh| {
        let queue = Queue::new(fresh.store.clone(), hasty());
        let mut new = NewTask::new("k", Json::Null);
        new.max_attempts = 1;
        let id = enqueue(&queue, new).await;
        let next = async || loop {
            queue.sweep().await.unwrap();
            if let Some(claim) = queue.claim("w", &kinds(&["k"]), 1).await.unwrap().pop() {
                break claim;
            }
        };
        let mut claim = next().await;
        queue.start(&mut claim).await.unwrap();
        queue.finish(&claim, Ending::GivenBack).await.unwrap();
        let _unstarted = next().await;
        let mut claim = next().await;
        assert_eq!(claim.attempt(), 3);
        queue.start(&mut claim).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        queue.sweep().await.unwrap();
        let task = read(&queue, id).await;
        assert_eq!(
            (task.state, task.error.as_ref().unwrap().0["code"].as_str()),
            (TaskState::Failed, Some("lost"))
        );
        assert!(task.finished_at.is_some());
    })
    .await;
}

#[tokio::test]
async fn the_same_key_is_the_same_task() {
    on_both(async |fresh| {
        let queue = Queue::new(fresh.store.clone(), settings());
        let keyed = |params| {
            let mut new = NewTask::new("k", params);
            new.idempotency_key = Some("once".into());
            new
        };
        let many = (0..8).map(|_| {
            let (queue, new) = (queue.clone(), keyed(json!(1)));
            tokio::spawn(async move { enqueue(&queue, new).await })
        });
        let mut ids = Vec::new();
        for one in many.collect::<Vec<_>>() {
            ids.push(one.await.unwrap());
        }
        ids.dedup();
        assert_eq!(ids.len(), 1);
        let other = queue.enqueue(&system(), keyed(json!(2))).await;
        assert!(matches!(other, Err(TaskError::OtherParams { .. })));
        let mut elsewhere = keyed(json!(2));
        elsewhere.kind = "other".into();
        assert_ne!(enqueue(&queue, elsewhere).await, ids[0]);
    })
    .await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name() {
    let fresh = Fresh::sqlite().await;
    let queue = Queue::new(fresh.store.clone(), settings());
    let mut never = NewTask::new("k", Json::Null);
    never.max_attempts = 0;
    let mut urgent = NewTask::new("k", Json::Null);
    urgent.priority = 1_000_000;
    for (new, named) in [(never, "max_attempts"), (urgent, "priority")] {
        match queue.enqueue(&system(), new).await {
            Err(TaskError::Store(StoreError::Invalid { field, .. })) => assert_eq!(field, named),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn urgent_tasks_go_first_and_waiting_ones_are_not_forgotten() {
    on_both(async |fresh| {
        let queue = Queue::new(fresh.store.clone(), settings());
        let now = Timestamp::now();
        let ago = |minutes: u64| now.before(Duration::from_secs(60 * minutes));
        let mut expected = Vec::new();
        // In the order they should be claimed: a level is a minute.
        for (priority, minutes) in [(0, 12), (10, 1), (5, 5), (0, 9), (-5, 10), (0, 1)] {
            let mut new = NewTask::new("k", Json::Null);
            new.priority = priority;
            new.run_at = Some(ago(minutes));
            expected.push(enqueue(&queue, new).await);
        }
        let mut later = NewTask::new("k", Json::Null);
        later.priority = 1000;
        later.run_at = Some(now.after(Duration::from_secs(3600)));
        enqueue(&queue, later).await;
        let claimed: Vec<_> = queue
            .claim("w", &kinds(&["k"]), 100)
            .await
            .unwrap()
            .iter()
            .map(|it| it.id)
            .collect();
        assert_eq!(claimed, expected);
    })
    .await;
}

#[tokio::test]
async fn a_limited_kind_leaves_room_for_others() {
    on_both(async |fresh| {
        let queue = Queue::new(fresh.store.clone(), settings());
        for _ in 0..5 {
            enqueue(&queue, NewTask::new("heavy", Json::Null)).await;
            enqueue(&queue, NewTask::new("k", Json::Null)).await;
        }
        let mut limits = kinds(&["heavy", "k"]);
        limits[0].limit = Some(2);
        let other = fresh.again().await;
        let queues = [queue.clone(), Queue::new(other.clone(), settings())];
        // Two processes at once do not both take the last place.
        let (first, second) = tokio::join!(
            queues[0].claim("a", &limits, 4),
            queues[1].claim("b", &limits, 4),
        );
        let claims: Vec<_> = first.unwrap().into_iter().chain(second.unwrap()).collect();
        assert_eq!(
            claims.iter().filter(|it| it.task.kind == "heavy").count(),
            2
        );
        assert!(claims.iter().any(|it| it.task.kind == "k"));
        assert!(queue.claim("c", &limits[..1], 4).await.unwrap().is_empty());
        other.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_waiting_task_is_cancelled_at_once_and_a_running_one_by_its_worker() {
    on_both(async |fresh| {
        let queue = Queue::new(fresh.store.clone(), settings());
        let waiting = enqueue(&queue, NewTask::new("k", Json::Null)).await;
        let task = queue.cancel(&system(), waiting).await.unwrap();
        assert_eq!(
            (task.state, task.finished_at.is_some()),
            (TaskState::Cancelled, true)
        );
        let again = queue.cancel(&system(), waiting).await;
        assert!(matches!(
            again,
            Err(TaskError::Store(StoreError::IllegalTransition(_)))
        ));

        let running = enqueue(&queue, NewTask::new("k", Json::Null)).await;
        let mut claim = claim_one(&queue, "w").await;
        queue.start(&mut claim).await.unwrap();
        assert_eq!(
            queue.cancel(&system(), running).await.unwrap().state,
            TaskState::Cancelling
        );
        assert_eq!(
            queue.cancel(&system(), running).await.unwrap().state,
            TaskState::Cancelling
        );
        assert_eq!(
            queue.heartbeat("w").await.unwrap()[0].2,
            TaskState::Cancelling
        );
        // Too late for a result: whoever cancelled was told that it would end so.
        assert_eq!(
            queue.succeed(&claim, json!(1)).await.unwrap(),
            TaskState::Cancelled
        );
        let task = read(&queue, running).await;
        assert!(task.result.is_none() && task.cancel_requested && task.finished_at.is_some());
        assert_eq!(
            path(&queue, running).await,
            ["claimed", "running", "cancelling", "cancelled"]
        );
    })
    .await;
}

#[tokio::test]
async fn the_sweeper_ends_what_no_worker_will() {
    on_both(async |fresh| {
        let queue = Queue::new(fresh.store.clone(), hasty());
        let mut impatient = NewTask::new("other", Json::Null);
        impatient.queue_timeout = Some(Duration::ZERO);
        let impatient = enqueue(&queue, impatient).await;
        let cancelled = enqueue(&queue, NewTask::new("k", Json::Null)).await;
        let mut claim = claim_one(&queue, "dead").await;
        queue.start(&mut claim).await.unwrap();
        queue.cancel(&system(), cancelled).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        let swept = queue.sweep().await.unwrap();
        assert_eq!((swept.expired, swept.lost), (1, 1));
        assert_eq!(read(&queue, cancelled).await.state, TaskState::Cancelled);
        let task = read(&queue, impatient).await;
        assert_eq!(task.error.as_ref().unwrap().0["code"], "queue_timeout");
        assert_eq!(queue.sweep().await.unwrap(), Swept::default());
    })
    .await;
}

/// Its worker renews the lease and does nothing else.
#[tokio::test]
async fn a_hung_attempt_times_out() {
    on_both(async |fresh| {
        let queue = Queue::new(fresh.store.clone(), settings());
        let mut new = NewTask::new("k", Json::Null);
        new.timeout = Some(Duration::from_micros(1));
        new.max_attempts = 1;
        let id = enqueue(&queue, new).await;
        let mut claim = claim_one(&queue, "w").await;
        queue.start(&mut claim).await.unwrap();
        let strict = Queue::new(
            fresh.store.clone(),
            QueueSettings {
                lease: Duration::ZERO,
                ..settings()
            },
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(strict.sweep().await.unwrap().timed_out, 1);
        let task = read(&queue, id).await;
        assert_eq!(
            (task.state, task.finished_at.is_some()),
            (TaskState::TimedOut, true)
        );
    })
    .await;
}

#[tokio::test]
async fn of_a_long_log_the_end_is_kept() {
    on_both(async |fresh| {
        use super::super::journal::{ClaimName, Report};
        let queue = Queue::new(fresh.store.clone(), settings());
        let id = enqueue(&queue, NewTask::new("k", Json::Null)).await;
        let mut claim = claim_one(&queue, "w").await;
        queue.start(&mut claim).await.unwrap();
        for n in 0..30 {
            let text = format!("{n} {}", "x".repeat(1000));
            let events = vec![
                (Timestamp::now(), EventKind::Log, json!({"text": text})),
                (
                    Timestamp::now(),
                    EventKind::Metric,
                    json!({"name": "n", "value": n}),
                ),
            ];
            let report = Report {
                progress: Some((0.1, Some("busy".into()))),
                events,
            };
            queue
                .report(&ClaimName::from(&claim), &report)
                .await
                .unwrap();
        }
        let events = queue.events(id, 0, 1000).await.unwrap();
        let logs: Vec<_> = events
            .iter()
            .filter(|it| it.kind == EventKind::Log)
            .collect();
        assert!((5..=10).contains(&logs.len()), "{}", logs.len());
        assert!(
            logs.last().unwrap().body["text"]
                .as_str()
                .unwrap()
                .starts_with("29 ")
        );
        assert_eq!(
            events
                .iter()
                .filter(|it| it.kind == EventKind::Metric)
                .count(),
            30
        );
        assert!(events.is_sorted_by_key(|it| it.sequence));
        let task = read(&queue, id).await;
        assert_eq!(
            (task.progress_fraction, task.progress_message.as_deref()),
            (Some(0.1), Some("busy"))
        );
        // Reports are no edits: a person's change made against this version still holds.
        assert_eq!(task.version, 3);
    })
    .await;
}
