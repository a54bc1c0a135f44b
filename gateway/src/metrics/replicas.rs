//! How the models of this process stand, each on its device, and what they hold there.

use std::collections::BTreeSet;
use std::sync::Arc;

use metrics::Label;

use super::exposition::{Exposition, Kind, Value};
use super::series::with;
use crate::replicas::{Cause, Devices, Replica, State};
use crate::router::{RouteTable, Target};

const UP: &str = "sluice_replica_up";
const RESTARTS: &str = "sluice_executor_restarts_total";
const FAILURES: &str = "sluice_executor_restart_failures_total";
const LIMIT: &str = "sluice_device_memory_limit_bytes";
const HELD: &str = "sluice_device_memory_held_bytes";

/// Adds the families of all replicas in this process, and of the devices that they use.
pub(super) fn collect(into: &mut Exposition, routes: &RouteTable, devices: Option<&Arc<Devices>>) {
    into.declare(UP, Kind::Gauge, "1 while a replica takes requests.");
    into.declare(
        RESTARTS,
        Kind::Counter,
        "Replicas that serve again after their executor was lost, by what it was lost to.",
    );
    into.declare(
        FAILURES,
        Kind::Counter,
        "Lost replicas that could not be loaded again.",
    );
    let mut used = BTreeSet::new();
    for deployment in routes.revisions() {
        let Target::Local(replicas) = &deployment.target else {
            continue;
        };
        for replica in replicas.all() {
            let device = Label::new("device", replica.label());
            one(into, replica, &with(&deployment.series.labels, device));
            used.extend(replica.device());
        }
    }
    if let Some(devices) = devices {
        memory(into, devices, used);
    }
}

fn one(into: &mut Exposition, replica: &Replica, labels: &[Label]) {
    let up = f64::from(u8::from(replica.state() == State::Serving));
    into.push(UP, labels.to_vec(), Value::Number(up));
    for cause in Cause::ALL {
        let labels = with(labels, Label::new("reason", cause.as_str()));
        let count = replica.restarts(cause) as f64;
        into.push(RESTARTS, labels, Value::Number(count));
    }
    let failures = replica.failed_restarts() as f64;
    into.push(FAILURES, labels.to_vec(), Value::Number(failures));
}

fn memory(into: &mut Exposition, devices: &Devices, used: BTreeSet<u32>) {
    into.declare(LIMIT, Kind::Gauge, "What models may hold of a GPU.");
    into.declare(
        HELD,
        Kind::Gauge,
        "What models are counted with on a GPU: weights, K/V and workspace.",
    );
    for occupancy in devices.occupancy(used) {
        let labels = vec![Label::new("device", occupancy.device.to_string())];
        let limit = Value::Number(occupancy.limit as f64);
        into.push(LIMIT, labels.clone(), limit);
        into.push(HELD, labels, Value::Number(occupancy.held as f64));
    }
}
