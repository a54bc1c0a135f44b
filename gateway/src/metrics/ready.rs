//! Which deployments would answer, and which would not.

use std::sync::Arc;

use metrics::Label;

use super::exposition::{Exposition, Kind, Value};
use crate::absent::Absentees;
use crate::api::health;
use crate::router::RouteTable;

const READY: &str = "sluice_model_ready";

/// Adds a series for each deployment that is served or is meant to be.
pub(super) fn collect(into: &mut Exposition, routes: &RouteTable, absent: Option<&Arc<Absentees>>) {
    into.declare(
        READY,
        Kind::Gauge,
        "1 while a deployment would answer here; 0 while its model is lost, cannot be loaded, or is being loaded.",
    );
    let mut push = |name: &Arc<str>, ready: bool| {
        let labels = vec![Label::new("deployment", name.to_string())];
        into.push(READY, labels, Value::Number(f64::from(u8::from(ready))));
    };
    for deployment in routes.deployments() {
        push(&deployment.name, health::healthy(deployment));
    }
    for absent in absent.iter().flat_map(|all| all.beside(routes)) {
        push(&absent.name, false);
    }
}
