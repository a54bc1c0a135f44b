//! Worker processes killed by `kill -9` at random moments: no task is lost, and none is completed twice. A hundred
//! kills on each database, or as many as `SLUICE_TEST_KILLS` says.

use std::process::Child;
use std::time::Instant;

use rand::Rng as _;

use super::*;
use crate::store::rig::{
    count, kills, process_is_ready, process_store, start_and_kill, start_process,
};

const WORKERS: u32 = 8;
const WORKER: &str = "tasks::tests::crash::worker_process";

fn crash_settings() -> QueueSettings {
    QueueSettings {
        lease: Duration::from_secs(2),
        ..settings()
    }
}

/// Sleeps for some of the milliseconds within which a worker is killed.
struct Nap;

impl Task for Nap {
    const NAME: &'static str = "k";
    type Params = u64;
    type Output = u32;

    async fn run(&self, micros: u64, context: &TaskContext) -> Result<u32, TaskFailure> {
        tokio::time::sleep(Duration::from_micros(micros)).await;
        Ok(context.attempt())
    }
}

/// Not a test: what the processes do that the tests below start and kill.
#[tokio::test(flavor = "current_thread")]
#[ignore = "the tests of this file run it as a process"]
async fn worker_process() {
    let Some(store) = process_store().await else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let settings = WorkerSettings {
        slots: 8,
        heartbeat: Duration::from_millis(200),
        sweep: Duration::from_millis(300),
        poll: Duration::from_millis(50),
        ..WorkerSettings::new(scratch.path())
    };
    let queue = Queue::new(store, crash_settings());
    let _worker = Worker::start(
        queue,
        Kinds::new().with(Nap),
        Arc::new(LocalExecutor),
        settings,
    );
    process_is_ready();
    std::future::pending::<()>().await;
}

async fn fill(queue: &Queue, count: usize) {
    let mut tx = queue.store().begin().await.unwrap();
    for _ in 0..count {
        let mut new = NewTask::new("k", json!(rand::rng().random_range(0..10_000)));
        new.max_attempts = 10_000;
        queue.enqueue_in(&mut tx, &system(), new).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn many_kills(fresh: &Fresh, tasks_a_kill: u32) {
    let queue = Queue::new(fresh.store.clone(), crash_settings());
    let each = kills().div_ceil(WORKERS);
    let kills = each * WORKERS;
    let at_least = kills * tasks_a_kill;
    fill(&queue, at_least as usize).await;
    let began = Instant::now();
    let places: Vec<_> = (0..WORKERS)
        .map(|_| {
            let url = fresh.url.clone();
            let life = Duration::from_millis(200);
            tokio::task::spawn_blocking(move || start_and_kill(WORKER, &url, each, life))
        })
        .collect();
    let unfinished = "SELECT COUNT(*) AS n FROM tasks WHERE finished_at IS NULL";
    let unclaimed = "SELECT COUNT(*) AS n FROM tasks WHERE state = 'queued'";
    while !places.iter().all(tokio::task::JoinHandle::is_finished) {
        // A worker that is killed while it has nothing to do proves nothing.
        if count(&fresh.store, unclaimed).await < 200 {
            fill(&queue, 1000).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for place in places {
        place.await.unwrap();
    }
    let killing = began.elapsed();
    let left = count(&fresh.store, unfinished).await;
    // Those that live on finish what is left.
    let mut survivors: Vec<Child> = (0..4).map(|_| start_process(WORKER, &fresh.url)).collect();
    while count(&fresh.store, unfinished).await > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for survivor in &mut survivors {
        survivor.kill().unwrap();
        survivor.wait().unwrap();
    }
    let tasks = count(
        &fresh.store,
        "SELECT COUNT(*) AS n FROM tasks WHERE state = 'succeeded'",
    )
    .await;
    let lost = count(
        &fresh.store,
        "SELECT COUNT(*) AS n FROM task_attempts WHERE outcome = 'lost'",
    )
    .await;
    std::io::Write::write_all(
        &mut std::io::stderr(),
        format!(
            "{kills} kills in {:.1} s, {lost} attempts lost; {left} of {tasks} tasks were left, all done after {:.1} s\n",
            killing.as_secs_f64(),
            began.elapsed().as_secs_f64()
        )
        .as_bytes(),
    )
    .unwrap();
    assert!(tasks >= i64::from(at_least));
    assert_eq!(
        count(&fresh.store, "SELECT COUNT(*) AS n FROM tasks").await,
        tasks
    );
    assert!(
        lost >= i64::from(kills) / 10,
        "only {lost} attempts were lost: the kills hit nothing"
    );
    let ends = "SELECT COUNT(*) AS n FROM task_events WHERE kind = 'state' AND body LIKE '%\"to\":\"succeeded\"%'";
    assert_eq!(count(&fresh.store, ends).await, tasks);
    let completed =
        "SELECT COUNT(DISTINCT task) AS n FROM task_attempts WHERE outcome = 'succeeded'";
    assert_eq!(count(&fresh.store, completed).await, tasks);
    let successes = "SELECT COUNT(*) AS n FROM task_attempts WHERE outcome = 'succeeded'";
    assert_eq!(count(&fresh.store, successes).await, tasks);
    let open = "SELECT COUNT(*) AS n FROM task_attempts WHERE finished_at IS NULL";
    assert_eq!(count(&fresh.store, open).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_kills_lose_nothing_on_sqlite() {
    let fresh = Fresh::sqlite().await;
    many_kills(&fresh, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_kills_lose_nothing_on_postgres() {
    if let Some(fresh) = Fresh::postgres().await {
        many_kills(&fresh, 10).await;
        fresh.discard().await;
    }
}
