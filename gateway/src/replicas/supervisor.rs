//! The task that brings lost replicas back.
//!
//! One for each deployment. It holds it by a weak reference: what was replaced, drained
//! or rolled back meanwhile is let go, also in the middle of being loaded again.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::devices::Devices;
use super::life::State;
use super::{Cause, Loader, LocalModel, Replica, Set};

/// How often is looked where no request came upon a lost executor.
const LOOK: Duration = Duration::from_millis(250);
/// How long a lost executor may take to end.
const ENDING: Duration = Duration::from_secs(60);

/// Watches a deployment for as long as somebody holds it.
pub(super) async fn watch(set: Weak<Set>, devices: Arc<Devices>) {
    while let Some(held) = set.upgrade() {
        for index in 0..held.all.len() {
            look_after(&held, index, &devices);
        }
        let lost = Arc::clone(&held.lost);
        drop(held);
        // Looking again is right whether something was reported or time has passed.
        _ = tokio::time::timeout(LOOK, lost.notified()).await;
    }
}

fn look_after(set: &Arc<Set>, index: usize, devices: &Arc<Devices>) {
    let replica = &set.all[index];
    let now = Instant::now();
    let mut life = replica.life.lock();
    let model = replica.model.load();
    if life.state() == State::Serving && !model.healthy() {
        // Whatever of it still runs.
        model.abort();
        let next = life.lose(now);
        report(set, replica, next);
    }
    if set.is_wanted() && life.begin(now) {
        tokio::spawn(restart(Arc::downgrade(set), index, Arc::clone(devices)));
    }
}

fn report(set: &Set, replica: &Replica, next: State) {
    let (deployment, device) = (&*set.name, replica.label());
    match next {
        State::GivenUp => tracing::error!(
            deployment,
            device,
            "a replica is given up: it was restarted too often ([replicas] max_restarts); \
             SIGHUP or a new deployment loads it again"
        ),
        State::Waiting(until) => {
            let pause = until
                .saturating_duration_since(Instant::now())
                .as_secs_f64();
            tracing::warn!(
                deployment,
                device,
                "a replica is lost; loaded again in {pause:.1} s"
            );
        }
        State::Serving | State::Loading(_) => {}
    }
}

/// Loads a replica again and puts it back.
async fn restart(set: Weak<Set>, index: usize, devices: Arc<Devices>) {
    let Some((lost, device, loader)) = set.upgrade().and_then(|set| {
        let replica = &set.all[index];
        let loader = Arc::clone(set.loader.as_ref()?);
        Some((replica.model.load_full(), replica.device, loader))
    }) else {
        return;
    };
    let began = Instant::now();
    let loaded = reload(&lost, device, loader, &devices).await;
    drop(lost);
    // Nobody serves it any more: what was loaded goes as it came.
    let Some(set) = set.upgrade() else { return };
    let replica = &set.all[index];
    let (deployment, on) = (&*set.name, replica.label());
    let now = Instant::now();
    let mut life = replica.life.lock();
    match loaded {
        Ok(_) if !set.is_wanted() => life.put_off(now),
        Ok((model, cause)) => {
            replica.put_back(model, cause, began.elapsed());
            life.end(true, now);
            let seconds = began.elapsed().as_secs_f64();
            tracing::info!(
                deployment,
                device = on,
                cause = cause.as_str(),
                "a replica serves again, after {seconds:.1} s"
            );
        }
        Err(why) => {
            replica.count_failure();
            tracing::error!(
                deployment,
                device = on,
                why,
                "a replica could not be loaded again"
            );
            let next = life.end(false, now);
            report(&set, replica, next);
        }
    }
    drop(life);
    set.lost.notify_one();
}

/// The model anew, warm and probed as at the first load, and what it had been lost to.
async fn reload(
    lost: &LocalModel,
    device: Option<u32>,
    loader: Loader,
    devices: &Arc<Devices>,
) -> Result<(LocalModel, Cause), String> {
    let ended = async {
        while !lost.ended() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(ENDING, ended).await.map_err(|_| {
        format!(
            "the lost executor did not end within {} s",
            ENDING.as_secs()
        )
    })?;
    let mut cause = Cause::Executor;
    if let Some(device) = device
        && devices.recover(device).await?
    {
        cause = Cause::Device;
    }
    let _loading = match device {
        Some(device) => Some(devices.loading(device).await),
        None => None,
    };
    match tokio::task::spawn_blocking(move || loader(device)).await {
        Ok(Ok(model)) => Ok((model, cause)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(format!("loading failed: {panic}")),
    }
}
