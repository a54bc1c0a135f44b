//! Two answers to one request, kept for people to read side by side.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::WorkOrderId;
use crate::store::Json;
use crate::time::Timestamp;

/// A copied request with what both revisions answered. Content: for those who may see it, and for no log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReleasePair {
    #[serde(rename = "release")]
    pub work_order: WorkOrderId,
    /// When the live request ended.
    pub at: Timestamp,
    /// The live request's id.
    pub request_id: String,
    /// Hash of the unit that it was routed by, in hexadecimal.
    pub unit: String,
    /// Whether the answers say the same.
    pub agrees: bool,
    /// From 0, nothing in common, to 1, equal.
    pub similarity: f64,
    /// By which rule they were compared.
    pub how: String,
    /// Drawn at random: of too many pairs, those with the greatest go.
    #[serde(skip)]
    pub draw: i64,
    /// The request's body, or the beginning of it.
    pub request: String,
    /// What the client got.
    pub live: Json<PairAnswer>,
    /// What the candidate answered.
    pub candidate: Json<PairAnswer>,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairAnswer {
    pub revision: String,
    pub status: u16,
    /// A 5xx, no answer in time, or one that broke.
    pub failed: bool,
    /// Text and calls, or the beginning of them.
    pub text: String,
    /// The text goes on.
    pub cut: bool,
    /// It begins like a refusal.
    pub refuses: bool,
    /// Generated tokens.
    pub tokens: usize,
    /// Why the generation ended: `stop`, `length`, `cancelled`, `deadline`.
    pub finish: Option<String>,
    /// From the request to the first token.
    pub ttft_us: Option<i64>,
    /// From the request to the end.
    pub total_us: i64,
}
