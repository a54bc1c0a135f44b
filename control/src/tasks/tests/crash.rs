//! Worker processes killed by `kill -9` at random moments, a thousand times on each database: no task is
//! lost, and none is completed twice.

use std::io::Read as _;
use std::process::{Child, Stdio};
use std::time::Instant;

use rand::Rng as _;

use super::*;
use crate::store::{DatabaseUrl, StoreSettings, read as column};

const KILLS: u32 = 1000;
const WORKERS: usize = 8;

/// The variable that makes the test below a worker, and tells it the database.
const DATABASE: &str = "SLUICE_CRASH_TEST_DATABASE";

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
    let url = match std::env::var(DATABASE) {
        Ok(url) => url.parse::<DatabaseUrl>().unwrap(),
        // Run by hand with all the ignored ones.
        Err(_) => return,
    };
    let limits = StoreSettings {
        connections: 4,
        patience: Duration::from_secs(60),
        ..StoreSettings::default()
    };
    let store = Store::connect(&url, &limits).await.unwrap();
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
    // The one who started it waits for this byte.
    std::io::Write::write_all(&mut std::io::stderr(), b"!").unwrap();
    std::future::pending::<()>().await;
}

fn start_worker(url: &str) -> Child {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tasks::tests::crash::worker_process",
            "--ignored",
            "--nocapture",
        ])
        .env(DATABASE, url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte = [0];
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut byte)
        .unwrap();
    child
}

fn address(url: &DatabaseUrl) -> String {
    match url {
        DatabaseUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
        DatabaseUrl::Postgres(url) => url.clone(),
    }
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

async fn count(store: &Store, sql: &'static str) -> i64 {
    let row = sqlx::query(sql)
        .fetch_one(&mut *store.reader().await.unwrap())
        .await
        .unwrap();
    column(&row, "n").unwrap()
}

/// Keeps a place filled with a worker, which is killed soon after each start, until `kills` are done.
fn kill_workers(url: &str, kills: u32) {
    for _ in 0..kills {
        let mut worker = start_worker(url);
        std::thread::sleep(Duration::from_micros(rand::rng().random_range(0..200_000)));
        // SIGKILL.
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
}

async fn thousand_kills(fresh: &Fresh, at_least: usize) {
    let queue = Queue::new(fresh.store.clone(), crash_settings());
    fill(&queue, at_least).await;
    let url = address(&fresh.url);
    let began = Instant::now();
    let places: Vec<_> = (0..WORKERS)
        .map(|_| {
            let url = url.clone();
            tokio::task::spawn_blocking(move || kill_workers(&url, KILLS / WORKERS as u32))
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
    let mut survivors: Vec<Child> = (0..4).map(|_| start_worker(&url)).collect();
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
            "{KILLS} kills in {:.1} s, {lost} attempts lost; {left} of {tasks} tasks were left, all done after {:.1} s\n",
            killing.as_secs_f64(),
            began.elapsed().as_secs_f64()
        )
        .as_bytes(),
    )
    .unwrap();
    assert!(tasks >= at_least as i64);
    assert_eq!(
        count(&fresh.store, "SELECT COUNT(*) AS n FROM tasks").await,
        tasks
    );
    assert!(
        lost >= i64::from(KILLS) / 10,
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
async fn a_thousand_kills_lose_nothing_on_sqlite() {
    let fresh = Fresh::sqlite().await;
    thousand_kills(&fresh, 3000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_kills_lose_nothing_on_postgres() {
    if let Some(fresh) = Fresh::postgres().await {
        thousand_kills(&fresh, 10_000).await;
        fresh.discard().await;
    }
}
