//! How far failures may hang together in time without being the candidate's fault.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_gateway::config::human;

use super::{StrategyError, wrong};

/// The pauses that a good candidate is allowed: stable has them too, but each side has them by itself, and a pause meets all
/// units of its side at once. Which of the two pauses first is a coin that knows nothing of the weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pauses {
    /// How often the candidate may pause, in the mean.
    #[serde(with = "human::duration")]
    pub every: Duration,
    /// How long a pause lasts at most.
    #[serde(with = "human::duration")]
    pub longest: Duration,
    /// Whether failures are one event also where requests that began between them went well, and whether a candidate that has
    /// never answered is given the time of a pause. Fewer good releases are taken back, and bad ones later.
    pub strict: bool,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(60),
            longest: Duration::from_secs(2),
            strict: false,
        }
    }
}

impl Pauses {
    pub(super) fn check(&self) -> Result<(), StrategyError> {
        if self.every < Duration::from_secs(1) {
            return Err(wrong(
                "pauses.every",
                "is less than 1s; 1m is usual, and what never pauses may say 365d".into(),
            ));
        }
        if self.longest > Duration::from_millis(2_500) || self.longest > self.every / 2 {
            return Err(wrong(
                "pauses.longest",
                "is more than 2500ms, or than half of pauses.every; what is broken for 3s is no pause".into(),
            ));
        }
        Ok(())
    }
}
