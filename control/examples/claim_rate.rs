//! How fast tasks go through the queue: claims alone, then whole lives.
//!
//!     cargo run --release -p sluice-control --example claim_rate -- sqlite:/tmp/rate.db
//!     cargo run --release -p sluice-control --example claim_rate -- postgres://test@localhost/rate 20000
//!
//! The database is filled with tasks of a kind of its own; use one that may be thrown away.

#![expect(clippy::print_stdout, reason = "its result")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_control::store::{Actor, Store, StoreSettings};
use sluice_control::tasks::executor::LocalExecutor;
use sluice_control::tasks::{
    KindLimit, Kinds, NewTask, Queue, QueueSettings, Task, TaskContext, TaskFailure, Worker,
    WorkerSettings,
};

struct Nothing;

impl Task for Nothing {
    const NAME: &'static str = "nothing";
    type Params = Value;
    type Output = Value;

    async fn run(&self, params: Value, _context: &TaskContext) -> Result<Value, TaskFailure> {
        Ok(params)
    }
}

async fn fill(queue: &Queue, kind: &str, tasks: usize) -> anyhow::Result<()> {
    let actor = Actor::system("claim rate");
    let mut tx = queue.store().begin().await?;
    for n in 0..tasks {
        queue
            .enqueue_in(&mut tx, &actor, NewTask::new(kind, json!(n)))
            .await?;
    }
    Ok(tx.commit().await?)
}

fn rate(what: &str, tasks: usize, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{what}: {tasks} tasks in {seconds:.2} s, {:.0} a second",
        tasks as f64 / seconds
    );
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "sqlite:claim-rate.db".into());
    let tasks: usize = arguments.next().as_deref().unwrap_or("10000").parse()?;
    let store = Store::open(&url.parse()?, &StoreSettings::default()).await?;
    let queue = Queue::new(store, QueueSettings::default());

    for batch in [1, 8, 64] {
        // A kind each, so that what another run left is not counted.
        let kind = format!("claimed-{}-{batch}", std::process::id());
        let kinds = [KindLimit {
            kind: kind.clone(),
            limit: None,
        }];
        let count = tasks / if batch == 1 { 10 } else { 1 };
        fill(&queue, &kind, count).await?;
        let began = Instant::now();
        let mut claimed = 0;
        while claimed < count {
            claimed += queue.claim("rate", &kinds, batch).await?.len();
        }
        rate(&format!("claims, {batch} at once"), claimed, began);
    }

    fill(&queue, "nothing", tasks).await?;
    let scratch = std::env::temp_dir().join(format!("sluice-claim-rate-{}", std::process::id()));
    let began = Instant::now();
    let settings = WorkerSettings {
        slots: 8,
        ..WorkerSettings::new(&scratch)
    };
    let kinds = Kinds::new().with(Nothing);
    let worker = Worker::start(queue.clone(), kinds, Arc::new(LocalExecutor), settings);
    while queue.waiting("nothing").await? > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.drain().await;
    rate("enqueued to done, 8 slots", tasks, began);
    std::fs::remove_dir_all(scratch)?;
    Ok(())
}
