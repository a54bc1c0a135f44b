//! What a deployment's resources mean: each counts or is refused, and none says other than the engine's options. What an
//! earlier version took stays until it is changed.

use serde_json::Value;
use sluice_gateway::config::human::parse_size;

use super::deployments::DeploymentFields;
use crate::api::problem::Problem;
use crate::domain::record::Deployment;

/// Refuses what nothing would act on.
pub(super) fn check_used(
    fields: &DeploymentFields,
    current: Option<&Deployment>,
) -> Result<(), Problem> {
    if fields.replicas != 1 && current.is_none_or(|it| it.replicas != fields.replicas) {
        return Err(Problem::field(
            "replicas",
            format!(
                "is {}, and nothing would run them: each serving process holds one. Leave it out; devices and upstream of \
                 engine_options serve a deployment by several",
                fields.replicas
            ),
        ));
    }
    if fields.zone.is_some() && current.is_none_or(|it| it.zone != fields.zone) {
        return Err(Problem::field(
            "zone",
            "is not used yet, so it is not taken: a deployment is served by every serving process; leave it out",
        ));
    }
    check_memory(fields, current)
}

/// One limit said twice has to be the same.
fn check_memory(fields: &DeploymentFields, current: Option<&Deployment>) -> Result<(), Problem> {
    let kept = current.is_some_and(|it| {
        it.memory_bytes == fields.memory_bytes
            && it.engine_options.0["memory"] == fields.engine_options["memory"]
    });
    let said = match &fields.engine_options["memory"] {
        Value::String(text) => parse_size(text).ok().and_then(|it| i64::try_from(it).ok()),
        Value::Number(bytes) => bytes.as_i64(),
        _ => None,
    };
    match said.filter(|it| !kept && fields.memory_bytes > 0 && *it != fields.memory_bytes) {
        Some(said) => Err(Problem::field(
            "memory_bytes",
            format!(
                "is {}, and engine_options.memory is {said}; say it once",
                fields.memory_bytes
            ),
        )),
        None => Ok(()),
    }
}

/// The GPUs that count against quotas: those that the options name, where this server computes. Of upstreams the record
/// says.
pub(super) fn gpus(
    fields: &DeploymentFields,
    current: Option<&Deployment>,
) -> Result<i64, Problem> {
    let Some(used) = used(&fields.engine_options) else {
        return Ok(fields.gpus.unwrap_or(0));
    };
    let Some(said) = fields.gpus.filter(|said| *said != used) else {
        return Ok(used);
    };
    match current.filter(|it| it.gpus == said) {
        Some(current) if self::used(&current.engine_options.0) == Some(used) => Ok(said),
        // What is new is in the options.
        Some(_) => Ok(used),
        None => Err(Problem::field(
            "gpus",
            format!(
                "is {said}, and engine_options say {used}: provider says whether GPUs compute it, devices which; leave gpus out"
            ),
        )),
    }
}

/// How many GPUs the options take here; `None` where other servers compute it.
fn used(options: &Value) -> Option<i64> {
    if options.get("upstream").is_some() {
        return None;
    }
    let on_gpus = options["provider"].as_str().is_some_and(|it| it != "cpu");
    let named = options["devices"].as_array().map_or(0, Vec::len).max(1);
    Some(match on_gpus {
        true => i64::try_from(named).unwrap_or(i64::MAX),
        false => 0,
    })
}
