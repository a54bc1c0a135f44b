//! Limits of a department or a person.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{DepartmentId, PrincipalId};

/// For exactly one of department and principal. `None` is without limit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Quota {
    pub department: Option<DepartmentId>,
    pub principal: Option<PrincipalId>,
    pub requests_per_minute: Option<i64>,
    pub tokens_per_minute: Option<i64>,
    pub requests_per_month: Option<i64>,
    pub tokens_per_month: Option<i64>,
    pub cpu_millis: Option<i64>,
    pub gpus: Option<i64>,
    pub memory_bytes: Option<i64>,
    pub storage_bytes: Option<i64>,
    /// Millionths of the currency that the operator counts in.
    pub cost_micros_per_month: Option<i64>,
}
