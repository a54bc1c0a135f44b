//! Whether the control plane can write its records, and why not.

use metrics::Label;

use super::exposition::{Exposition, Kind, Value};
use crate::control_health::ControlHealth;

const READY: &str = "sluice_control_ready";
const FAULT: &str = "sluice_control_fault";

/// Adds what `/health/ready?of=control` says. Nothing in a process without a control plane.
pub(super) fn collect(into: &mut Exposition, health: &ControlHealth) {
    let Some(faults) = health.faults() else {
        return;
    };
    into.declare(
        READY,
        Kind::Gauge,
        "1 while the control plane reads and writes its records.",
    );
    into.declare(
        FAULT,
        Kind::Gauge,
        "1 for what keeps the control plane from writing its records now.",
    );
    let ready = f64::from(u8::from(faults.is_empty()));
    into.push(READY, Vec::new(), Value::Number(ready));
    for fault in faults.iter() {
        let labels = vec![Label::new("reason", fault.code)];
        into.push(FAULT, labels, Value::Number(1.0));
    }
}
