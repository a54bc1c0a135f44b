use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use super::*;
use crate::tasks::executor::{Command, Exit};

/// What one test kind does, told by its parameters.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Play {
    Echo(u32),
    /// Waits until it is told to stop.
    Wait,
    Panic,
    /// Two steps; the second fails on the first attempt.
    Steps,
    /// A shell script.
    Run(String),
}

#[derive(Default)]
struct Plays {
    first_steps: Arc<AtomicU32>,
}

impl Task for Plays {
    const NAME: &'static str = "k";
    type Params = Play;
    type Output = Json;

    async fn run(&self, play: Play, context: &TaskContext) -> Result<Json, TaskFailure> {
        match play {
            Play::Echo(n) => Ok(json!(n)),
            Play::Wait => {
                context.progress(0.5, "waiting");
                let reason = context.stopped().await;
                Err(TaskFailure::passing("stopped", format!("{reason:?}")))
            }
            Play::Panic => panic!("on purpose"),
            Play::Steps => {
                let one: u32 = context
                    .step("one", async {
                        context.log("first step");
                        Ok(self.first_steps.fetch_add(1, Ordering::Relaxed) + 1)
                    })
                    .await?;
                let two: u32 = context
                    .step("two", async {
                        if context.attempt() == 1 {
                            return Err(TaskFailure::passing("flaky", "the first time"));
                        }
                        Ok(one + 1)
                    })
                    .await?;
                Ok(json!([one, two]))
            }
            Play::Run(script) => {
                let command = Command::new("/bin/sh", context.scratch())
                    .arg("-c")
                    .arg(script);
                match context.execute(command).await? {
                    Exit::Code(0) => Ok(Json::Null),
                    exit => Err(TaskFailure::passing("program", exit.to_string())),
                }
            }
        }
    }
}

struct Shop {
    queue: Queue,
    _scratch: tempfile::TempDir,
    worker: Worker,
}

fn shop(store: &Store, change: impl FnOnce(&mut WorkerSettings)) -> Shop {
    let queue = Queue::new(store.clone(), settings());
    let scratch = tempfile::tempdir().unwrap();
    let mut settings = WorkerSettings {
        heartbeat: Duration::from_millis(20),
        sweep: Duration::from_millis(20),
        report: Duration::from_millis(20),
        ..WorkerSettings::new(scratch.path())
    };
    change(&mut settings);
    let kinds = Kinds::new().with(Plays::default());
    let worker = Worker::start(queue.clone(), kinds, Arc::new(LocalExecutor), settings);
    Shop {
        queue,
        _scratch: scratch,
        worker,
    }
}

fn play(play: &Play) -> NewTask {
    NewTask::new("k", serde_json::to_value(play).unwrap())
}

/// Waits for an event of a task that satisfies `wanted`.
async fn seen(queue: &Queue, id: TaskId, wanted: impl Fn(&TaskLogEvent) -> bool) {
    let mut watch = queue.watch(id, 0);
    loop {
        let events = watch.next().await.unwrap();
        assert!(!events.is_empty(), "the task ended before");
        if events.iter().any(&wanted) {
            return;
        }
    }
}

#[tokio::test]
async fn tasks_are_done() {
    on_both(async |fresh| {
        let shop = shop(&fresh.store, |_| {});
        let mut ids = Vec::new();
        for n in 0..20 {
            ids.push(enqueue(&shop.queue, play(&Play::Echo(n))).await);
        }
        for (n, id) in ids.into_iter().enumerate() {
            let task = ended(&shop.queue, id).await;
            assert_eq!(task.state, TaskState::Succeeded);
            assert_eq!(task.result.as_ref().unwrap().0, json!(n));
        }
        shop.worker.drain().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_task_ends_it_and_not_the_worker() {
    on_both(async |fresh| {
        let shop = shop(&fresh.store, |_| {});
        let panics = enqueue(&shop.queue, play(&Play::Panic)).await;
        let wrong = enqueue(&shop.queue, NewTask::new("k", json!({"dance": 1}))).await;
        let fine = enqueue(&shop.queue, play(&Play::Echo(1))).await;
        assert_eq!(
            ended(&shop.queue, panics).await.error.as_ref().unwrap().0["code"],
            "panicked"
        );
        let wrong = ended(&shop.queue, wrong).await;
        assert_eq!(wrong.error.as_ref().unwrap().0["code"], "bad_params");
        assert!(
            wrong.error.as_ref().unwrap().0["message"]
                .as_str()
                .unwrap()
                .contains("dance")
        );
        assert_eq!(ended(&shop.queue, fine).await.state, TaskState::Succeeded);
        shop.worker.drain().await;
    })
    .await;
}

#[tokio::test]
async fn a_later_attempt_goes_on_after_the_last_step() {
    on_both(async |fresh| {
        let shop = shop(&fresh.store, |_| {});
        let id = enqueue(&shop.queue, play(&Play::Steps)).await;
        let task = ended(&shop.queue, id).await;
        assert_eq!(task.result.as_ref().unwrap().0, json!([1, 2]));
        assert_eq!(task.attempt, 2);
        let events = shop.queue.events(id, 0, 1000).await.unwrap();
        let resumed = events
            .iter()
            .filter(|it| it.body["resumed"] == true)
            .count();
        let logs = events.iter().filter(|it| it.kind == EventKind::Log).count();
        assert_eq!((resumed, logs), (1, 1));
        shop.worker.drain().await;
    })
    .await;
}

#[tokio::test]
async fn cancelling_stops_the_program_with_its_children() {
    on_both(async |fresh| {
        let shop = shop(&fresh.store, |_| {});
        let script = "setsid sh -c 'echo $$; exec sleep 1000' & echo $$; wait";
        let id = enqueue(&shop.queue, play(&Play::Run(script.into()))).await;
        let mut pids = String::new();
        let mut watch = shop.queue.watch(id, 0);
        while pids.lines().count() < 2 {
            for event in watch.next().await.unwrap() {
                pids.push_str(event.body["text"].as_str().unwrap_or(""));
            }
        }
        shop.queue.cancel(&system(), id).await.unwrap();
        assert_eq!(ended(&shop.queue, id).await.state, TaskState::Cancelled);
        for pid in pids.lines() {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            // Ended; perhaps not yet reaped by the system's first process.
            assert!(stat.is_err() || stat.unwrap().contains(") Z "), "{pid}");
        }
        shop.worker.drain().await;
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_ended() {
    on_both(async |fresh| {
        let shop = shop(&fresh.store, |_| {});
        let mut new = play(&Play::Run("exec sleep 1000".into()));
        new.timeout = Some(Duration::from_millis(50));
        new.max_attempts = 2;
        let id = enqueue(&shop.queue, new).await;
        let task = ended(&shop.queue, id).await;
        assert_eq!((task.state, task.attempt), (TaskState::TimedOut, 2));
        assert!(
            task.error.as_ref().unwrap().0["message"]
                .as_str()
                .unwrap()
                .contains("0.05 s")
        );
        shop.worker.drain().await;
    })
    .await;
}

#[tokio::test]
async fn a_leaving_worker_gives_back_what_it_has_and_another_goes_on() {
    on_both(async |fresh| {
        let leaving = shop(&fresh.store, |settings| settings.drain = Duration::ZERO);
        let mut new = play(&Play::Wait);
        // Given back, it has not used its only attempt.
        new.max_attempts = 1;
        let id = enqueue(&leaving.queue, new).await;
        seen(&leaving.queue, id, |event| {
            event.kind == EventKind::Progress
        })
        .await;
        leaving.worker.drain().await;
        assert_eq!(read(&leaving.queue, id).await.state, TaskState::Retrying);

        let next = shop(&fresh.store, |_| {});
        seen(&next.queue, id, |event| {
            event.attempt == 2 && event.kind == EventKind::Progress
        })
        .await;
        next.queue.cancel(&system(), id).await.unwrap();
        assert_eq!(ended(&next.queue, id).await.state, TaskState::Cancelled);
        next.worker.drain().await;
    })
    .await;
}

/// What a fenced worker notices: its task is dropped, and the other's result stands.
#[tokio::test]
async fn an_attempt_whose_lease_was_lost_is_stopped() {
    on_both(async |fresh| {
        let shop = shop(&fresh.store, |_| {});
        let id = enqueue(&shop.queue, play(&Play::Wait)).await;
        seen(&shop.queue, id, |event| event.kind == EventKind::Progress).await;
        // Another machine's clock is ahead: the lease is over there, and its worker has the task.
        let mut tx = fresh.store.begin().await.unwrap();
        sqlx::query("UPDATE tasks SET fencing_token = fencing_token + 1, worker = 'theirs'")
            .execute(tx.connection())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        // Returns, though the work would wait for ever: it was told to stop.
        shop.worker.drain().await;
        let task = read(&shop.queue, id).await;
        assert_eq!(
            (task.state, task.worker.as_deref()),
            (TaskState::Running, Some("theirs"))
        );
    })
    .await;
}
