//! A durable task as it lies in the queue.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::domain::task::TaskState;
use crate::id::{DepartmentId, PrincipalId, TaskId};
use crate::store::Document;
use crate::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    pub kind: String,
    pub department: Option<DepartmentId>,
    pub principal: Option<PrincipalId>,
    pub parent: Option<TaskId>,
    /// The record that it works for: kind and id.
    pub subject_kind: Option<String>,
    pub subject_id: Option<String>,
    #[serde(serialize_with = "without_queries")]
    pub params: Document,
    pub result: Option<Document>,
    pub error: Option<Document>,
    pub state: TaskState,
    /// Higher goes first.
    pub priority: i64,
    /// Not before.
    pub run_at: Timestamp,
    /// Not worth starting any more after this.
    pub expires_at: Option<Timestamp>,
    /// The latest attempt's number; 0 before the first claim.
    pub attempt: u32,
    pub max_attempts: u32,
    pub worker: Option<String>,
    pub lease_until: Option<Timestamp>,
    /// Goes up with every claim; a write that names an older one is refused.
    pub fencing_token: i64,
    pub heartbeat_at: Option<Timestamp>,
    /// How long one attempt may take.
    pub timeout_us: Option<i64>,
    pub deadline_at: Option<Timestamp>,
    pub progress_fraction: Option<f64>,
    pub progress_message: Option<String>,
    pub cancel_requested: bool,
    pub idempotency_key: Option<String>,
    pub started_at: Option<Timestamp>,
    /// Set when nothing more will happen to it.
    pub finished_at: Option<Timestamp>,
}

/// The query of a URL may carry a signature: that is for the worker alone.
fn without_queries<S: Serializer>(params: &Document, serializer: S) -> Result<S::Ok, S::Error> {
    let mut shown = params.0.clone();
    hide_queries(&mut shown);
    shown.serialize(serializer)
}

fn hide_queries(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with("http://") || text.starts_with("https://") => {
            if let Some((place, _)) = text.split_once(['?', '#']) {
                *text = format!("{place}?…");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_queries),
        Value::Object(fields) => fields.values_mut().for_each(hide_queries),
        _ => {}
    }
}
