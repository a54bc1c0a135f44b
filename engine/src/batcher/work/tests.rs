#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::mpsc;

use super::*;

const BUDGET: Budget = Budget {
    tokens: 100,
    items: 4,
    padding: 100,
    max_age: Duration::from_secs(1),
};

type Queue = Arc<WorkQueue<u32, u32>>;

fn queue(max_waiting: usize) -> Queue {
    Arc::new(WorkQueue::new(max_waiting, 1))
}

fn terms() -> Terms {
    Terms {
        tokens: 10,
        ..Terms::default()
    }
}

/// A worker that doubles; it reports each batch and waits to be let on.
fn doubling(queue: &Queue) -> (mpsc::Receiver<Vec<u32>>, mpsc::Sender<()>) {
    let (seen, batches) = mpsc::channel();
    let (go, gate) = mpsc::channel();
    spawn_worker(Arc::clone(queue), "test".to_owned(), BUDGET, move |batch| {
        seen.send(batch.jobs().copied().collect()).unwrap();
        gate.recv().unwrap();
        assert!(!batch.jobs().any(|&job| job == 13), "unlucky");
        let results: Vec<_> = batch.jobs().map(|job| Ok(job * 2)).collect();
        batch.answer(results);
        Ok(())
    })
    .unwrap();
    (batches, go)
}

#[tokio::test]
async fn what_gathers_while_a_worker_is_busy_runs_as_one_batch() {
    let queue = queue(9);
    let (batches, go) = doubling(&queue);
    let first = queue.submit(1, terms()).unwrap();
    assert_eq!(batches.recv().unwrap(), [1]);
    let tickets: Vec<_> = (2..5)
        .map(|job| queue.submit(job, terms()).unwrap())
        .collect();
    assert_eq!(queue.load(), (3, 1));
    go.send(()).unwrap();
    assert_eq!(first.wait().await.unwrap().0, 2);
    assert_eq!(batches.recv().unwrap().len(), 3);
    go.send(()).unwrap();
    for (job, ticket) in (2..5).zip(tickets) {
        let (result, timings) = ticket.wait().await.unwrap();
        assert_eq!((result, timings.batch), (job * 2, 3));
    }
    assert_eq!(queue.stats.count.load(Relaxed), 4);
    assert_eq!(queue.stats.exec_count.load(Relaxed), 2);
    assert_eq!(queue.stats.tokens.load(Relaxed), 40);
}

#[tokio::test]
async fn a_dropped_ticket_never_runs() {
    let queue = queue(2);
    let (batches, go) = doubling(&queue);
    let first = queue.submit(1, terms()).unwrap();
    batches.recv().unwrap();
    drop(queue.submit(2, terms()).unwrap());
    assert_eq!(queue.load(), (0, 1));
    let third = queue.submit(3, terms()).unwrap();
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(batches.recv().unwrap(), [3]);
    assert_eq!(first.wait().await.unwrap().0, 2);
    assert_eq!(third.wait().await.unwrap().0, 6);
}

#[tokio::test]
async fn a_panic_fails_its_batch_and_everything_after_it() {
    let queue = queue(9);
    let (batches, go) = doubling(&queue);
    let unlucky = queue.submit(13, terms()).unwrap();
    batches.recv().unwrap();
    let waiting = queue.submit(2, terms()).unwrap();
    go.send(()).unwrap();
    assert!(matches!(unlucky.wait().await, Err(WorkError::Failed(_))));
    assert!(matches!(waiting.wait().await, Err(WorkError::NotBegun(_))));
    assert!(!queue.healthy());
    let refused = queue.submit(3, terms()).err();
    assert!(matches!(refused, Some(SubmitError::Unavailable(_))));
    assert_eq!(queue.stats.failure.load(Relaxed), 2);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let queue = queue(1);
    let _held = queue.submit(1, terms()).unwrap();
    let refused = queue.submit(2, terms()).err();
    assert!(matches!(
        refused,
        Some(SubmitError::QueueFull { waiting: 1, .. })
    ));
}

#[tokio::test]
async fn a_deadline_that_the_queue_alone_outlasts_is_refused() {
    let queue = queue(9);
    // 10 tokens in 10 s: one second a token.
    queue.note_pace(10, Duration::from_secs(10));
    let _ahead = queue.submit(1, terms()).unwrap();
    let soon = Terms {
        deadline: Some(Instant::now() + Duration::from_secs(5)),
        ..terms()
    };
    let refused = queue.submit(2, soon).err();
    assert!(matches!(
        refused,
        Some(SubmitError::DeadlineUnmeetable { .. })
    ));
    let urgent = Terms {
        priority: Priority::High,
        ..soon
    };
    assert!(
        queue.submit(3, urgent).is_ok(),
        "the lower class is behind it"
    );
}

#[tokio::test]
async fn the_caller_hears_of_its_deadline_while_workers_are_busy() {
    let queue = queue(9);
    let soon = Terms {
        deadline: Some(Instant::now() + Duration::from_millis(50)),
        ..terms()
    };
    let ticket = queue.submit(1, soon).unwrap();
    assert_eq!(ticket.wait().await, Err(WorkError::Deadline));
    assert_eq!(queue.load(), (0, 0));
}

#[tokio::test]
async fn closing_runs_what_waits() {
    let queue = queue(9);
    let ticket = queue.submit(4, terms()).unwrap();
    queue.close();
    assert!(matches!(
        queue.submit(5, terms()).err(),
        Some(SubmitError::Unavailable(_))
    ));
    let (batches, go) = doubling(&queue);
    go.send(()).unwrap();
    assert_eq!(ticket.wait().await.unwrap().0, 8);
    drop(batches);
    assert!(queue.healthy());
}
