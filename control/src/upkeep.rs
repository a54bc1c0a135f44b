//! What has to be done now and then so that nothing grows without end: content that nobody needs, answers that are
//! kept for those who repeat a request.

use std::time::Duration;

use uuid::Uuid;

use crate::artifacts::ArtifactError;
use crate::control::Open;
use crate::time::Timestamp;

const EVERY: Duration = Duration::from_secs(3600);
/// After a round that was not finished: the disk was full, perhaps, and this is what makes room.
const AGAIN: Duration = Duration::from_secs(60);
/// A process that does it keeps others from it for so long: once is enough.
const TURN: Duration = Duration::from_secs(1800);

/// Does it each hour until `stop` is over, in turn with other processes on the database. Failures are said, and the
/// next round goes on.
pub async fn run(open: &Open, stop: impl Future<Output = ()>) {
    let holder = format!("upkeep {}", Uuid::now_v7().simple());
    let rounds = async {
        loop {
            let pause = match round(open, &holder).await {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::warn!(%error, "upkeep was not finished; tried again soon");
                    AGAIN
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = rounds => {}
        () = stop => {}
    }
}

async fn round(open: &Open, holder: &str) -> Result<(), ArtifactError> {
    if open
        .store
        .take_lease("upkeep", holder, TURN)
        .await?
        .is_none()
    {
        return Ok(());
    }
    let answers = open.store.forget_idempotent(Timestamp::now()).await?;
    let collected = open.artifacts.collect().await?;
    tracing::info!(?collected, answers, "upkeep");
    Ok(())
}
