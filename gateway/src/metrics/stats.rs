//! `/api/v1/stats`: what `sluice top` shows.

use std::time::{Duration, Instant};

use serde::Serialize;
use sluice_engine::backend::builds::{Build, Done, builds};

use super::observer::Observer;
use super::window::{Summary, Window};
use super::{Metrics, Reader, engine};
use crate::replicas::{Cause, Replica};
use crate::router::{RouteTable, Target};

#[derive(Serialize)]
struct Stats<'a> {
    uptime_seconds: f64,
    deployments: Vec<DeploymentStats<'a>>,
    /// Engines that are being built for models that are being loaded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    builds: Vec<BuildStats>,
}

#[derive(Serialize)]
struct BuildStats {
    model: String,
    /// What is done of the engine, where its builder tells.
    percent: Option<u8>,
    seconds: f64,
    /// The same in words.
    progress: String,
}

impl From<Build> for BuildStats {
    fn from(build: Build) -> Self {
        Self {
            progress: build.to_string(),
            percent: match build.done {
                Done::Percent(percent) => Some(percent),
                Done::Engines { .. } => None,
            },
            seconds: build.elapsed.as_secs_f64(),
            model: build.model,
        }
    }
}

#[derive(Serialize)]
struct DeploymentStats<'a> {
    name: &'a str,
    revision: &'a str,
    /// The last minute.
    #[serde(flatten)]
    minute: Summary,
    /// The last five.
    five_minutes: Summary,
    #[serde(flatten)]
    engine: engine::Gauges,
    /// The models of this process; none of a deployment on upstreams.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replicas: Vec<ReplicaStats>,
}

#[derive(Serialize)]
struct ReplicaStats {
    /// `cpu`, or the GPU's number.
    device: String,
    /// `serving`, `waiting` (for its next restart), `loading` or `given_up`.
    state: &'static str,
    restarts: u64,
    failed_restarts: u64,
}

impl ReplicaStats {
    fn of(target: &Target) -> Vec<Self> {
        let Target::Local(replicas) = target else {
            return Vec::new();
        };
        let one = |replica: &Replica| Self {
            device: replica.label(),
            state: replica.state().as_str(),
            restarts: Cause::ALL
                .iter()
                .map(|&cause| replica.restarts(cause))
                .sum(),
            failed_restarts: replica.failed_restarts(),
        };
        replicas.all().iter().map(one).collect()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

impl Metrics {
    /// The answer as JSON, of what `reader` may see: rates per second, times in milliseconds.
    #[must_use]
    pub fn stats(&self, routes: &RouteTable, observer: &Observer, reader: Reader<'_>) -> Vec<u8> {
        let now = Instant::now().saturating_duration_since(self.started);
        let empty = Window::default();
        observer.with_windows(|windows| {
            let deployments = routes
                .all_served()
                .iter()
                .filter(|served| reader.sees(served))
                .flat_map(|served| served.revisions())
                .map(|deployment| {
                    let key = (deployment.name.clone(), deployment.revision.clone());
                    let window = windows.get(&key).unwrap_or(&empty);
                    DeploymentStats {
                        name: &deployment.name,
                        revision: &deployment.revision,
                        minute: window.summary(now, MINUTE),
                        five_minutes: window.summary(now, 5 * MINUTE),
                        engine: engine::Gauges::of(&deployment.target),
                        replicas: ReplicaStats::of(&deployment.target),
                    }
                })
                .collect();
            let stats = Stats {
                uptime_seconds: now.as_secs_f64(),
                deployments,
                builds: builds()
                    .into_iter()
                    .filter(|build| reader.sees_name(routes, &build.model))
                    .map(BuildStats::from)
                    .collect(),
            };
            serde_json::to_vec(&stats).unwrap_or_default()
        })
    }
}
