//! What the made-up requests are like: a small file that an operator fills in from a dashboard, or recorded
//! requests with a change laid over them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_gateway::config::human;

/// A deployment's traffic and what the candidate does differently.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// Requests a second in the mean.
    pub rate: f64,
    /// The longest that a simulated release is watched.
    #[serde(with = "human::duration")]
    pub lasts: Duration,
    pub users: u32,
    /// 0: all users alike; 1: the busiest of a thousand sends 3 % of the requests.
    pub skew: f64,
    /// Whether a user's requests stay together; if not, each is picked by itself.
    pub sticky: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diurnal: Option<Diurnal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bursts: Option<Bursts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incidents: Option<Incidents>,
    /// Each side stops for a moment, by itself: everything that reaches it meanwhile fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pauses: Option<Stops>,
    /// Users are agents that make several requests at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<Agents>,
    /// The shares of the users that each key has; none: there are no keys.
    pub keys: Vec<f64>,
    /// What a request on stable meets.
    pub stable: Profile,
    /// What comes on top of it on the candidate.
    pub candidate: Change,
    pub noisy: Vec<Noisy>,
    /// Instead of made-up requests on stable. The file's lines are read by whoever calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<String>,
}

/// The rate goes up and down like a sine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diurnal {
    #[serde(with = "human::duration")]
    pub period: Duration,
    /// 0.5: between half and one and a half times the mean.
    pub swing: f64,
}

/// The rate jumps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bursts {
    #[serde(with = "human::duration")]
    pub every: Duration,
    #[serde(with = "human::duration")]
    pub last: Duration,
    pub times: f64,
}

/// Something that both revisions stand on has a bad moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incidents {
    #[serde(with = "human::duration")]
    pub every: Duration,
    #[serde(with = "human::duration")]
    pub last: Duration,
    /// The chance of an error meanwhile.
    pub error: f64,
    pub slower: f64,
}

/// Pauses of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stops {
    /// From the end of one to the beginning of the next, in the mean.
    #[serde(with = "human::duration")]
    pub every: Duration,
    #[serde(with = "human::duration")]
    pub shortest: Duration,
    #[serde(with = "human::duration")]
    pub longest: Duration,
    /// The chance that a request fails meanwhile.
    #[serde(default = "one")]
    pub error: f64,
}

/// Several requests of one unit, one after the other. What the candidate breaks is never the first of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    pub requests: u32,
    #[serde(with = "human::duration")]
    pub within: Duration,
}

/// How requests fare on stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Chances per request.
    pub error: f64,
    pub empty: f64,
    pub refusal: f64,
    /// Log-normal times.
    pub ttft: Spread,
    pub total: Spread,
    /// Chance that a copied request is answered differently by a candidate that is as good.
    pub disagree: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    #[serde(with = "human::duration")]
    pub p50: Duration,
    #[serde(with = "human::duration")]
    pub p99: Duration,
}

/// What the candidate does to a request that would have gone well on stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    pub error: f64,
    pub empty: f64,
    pub refusal: f64,
    pub disagree: f64,
    /// All its times, so many times as long.
    pub slower: f64,
}

/// A client whose own requests are bad on either revision, kept on one by its sticky key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noisy {
    /// Requests a second.
    pub rate: f64,
    pub on: Lands,
    #[serde(default)]
    pub error: f64,
    #[serde(default = "one")]
    pub slower: f64,
    /// A session id of its own making for each request.
    #[serde(default)]
    pub sessions: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lands {
    /// First to be moved, last to be taken back.
    Candidate,
    Stable,
}

const fn one() -> f64 {
    1.0
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            rate: 20.0,
            lasts: Duration::from_secs(7_200),
            users: 1_000,
            skew: 1.0,
            sticky: true,
            diurnal: None,
            bursts: None,
            incidents: None,
            pauses: None,
            agents: None,
            keys: Vec::new(),
            stable: Profile::default(),
            candidate: Change::default(),
            noisy: Vec::new(),
            recorded: None,
        }
    }
}

impl Default for Profile {
    fn default() -> Self {
        let spread = |p50, p99| Spread {
            p50: Duration::from_millis(p50),
            p99: Duration::from_millis(p99),
        };
        Self {
            error: 0.005,
            empty: 0.001,
            refusal: 0.01,
            ttft: spread(300, 1_000),
            total: spread(1_500, 6_000),
            disagree: 0.05,
        }
    }
}

impl Default for Change {
    fn default() -> Self {
        Self {
            error: 0.0,
            empty: 0.0,
            refusal: 0.0,
            disagree: 0.0,
            slower: 1.0,
        }
    }
}

/// A traffic file that makes no traffic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct TrafficError {
    pub field: String,
    pub message: String,
}

impl Traffic {
    /// Reads traffic from JSON, or from YAML turned into it.
    ///
    /// # Errors
    /// The field that is wrong, and what would be right.
    pub fn parse(value: serde_json::Value) -> Result<Self, TrafficError> {
        let traffic: Self = serde_path_to_error::deserialize(value)
            .map_err(|error| wrong(&error.path().to_string(), error.inner().to_string()))?;
        traffic.check()?;
        Ok(traffic)
    }

    fn check(&self) -> Result<(), TrafficError> {
        let positive = [
            ("rate", self.rate),
            ("candidate.slower", self.candidate.slower),
        ];
        for (field, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return Err(wrong(field, format!("{value} is not above 0")));
            }
        }
        let chances = [
            ("stable.error", self.stable.error),
            ("stable.empty", self.stable.empty),
            ("stable.refusal", self.stable.refusal),
            ("stable.disagree", self.stable.disagree),
            ("candidate.error", self.candidate.error),
            ("candidate.empty", self.candidate.empty),
            ("candidate.refusal", self.candidate.refusal),
            ("candidate.disagree", self.candidate.disagree),
            (
                "diurnal.swing",
                self.diurnal.as_ref().map_or(0.0, |it| it.swing),
            ),
            (
                "incidents.error",
                self.incidents.as_ref().map_or(0.0, |it| it.error),
            ),
        ];
        for (field, value) in chances {
            if !(0.0..=1.0).contains(&value) {
                return Err(wrong(field, format!("{value} is not between 0 and 1")));
            }
        }
        if !(0.0..=5.0).contains(&self.skew) {
            return Err(wrong(
                "skew",
                format!("{} is not between 0 and 5", self.skew),
            ));
        }
        if self.users == 0 || self.lasts.is_zero() {
            return Err(wrong(
                "users, lasts",
                "are 0; there would be no traffic".into(),
            ));
        }
        for (field, spread) in [("ttft", &self.stable.ttft), ("total", &self.stable.total)] {
            if spread.p50.is_zero() || spread.p99 < spread.p50 {
                return Err(wrong(
                    &format!("stable.{field}"),
                    "p50 is 0 or above p99".into(),
                ));
            }
        }
        let periods = [
            self.diurnal.as_ref().map(|it| it.period),
            self.bursts.as_ref().map(|it| it.every),
            self.incidents.as_ref().map(|it| it.every),
        ];
        if periods.into_iter().flatten().any(|it| it.is_zero()) {
            return Err(wrong("period, every", "is 0s; 10m is right".into()));
        }
        let factors = [
            ("bursts.times", self.bursts.as_ref().map(|it| it.times)),
            (
                "incidents.slower",
                self.incidents.as_ref().map(|it| it.slower),
            ),
        ];
        for (field, factor) in factors {
            if factor.is_some_and(|it| !(it > 0.0 && it.is_finite())) {
                return Err(wrong(field, "is not above 0".into()));
            }
        }
        self.check_more()?;
        for (at, noisy) in self.noisy.iter().enumerate() {
            if !(noisy.rate > 0.0 && noisy.slower > 0.0 && (0.0..=1.0).contains(&noisy.error)) {
                return Err(wrong(
                    &format!("noisy[{at}]"),
                    "needs a rate and slower above 0, and an error between 0 and 1".into(),
                ));
            }
        }
        Ok(())
    }
}

impl Traffic {
    fn check_more(&self) -> Result<(), TrafficError> {
        if let Some(stops) = &self.pauses
            && (stops.every.is_zero()
                || stops.longest < stops.shortest
                || !(0.0..=1.0).contains(&stops.error))
        {
            return Err(wrong(
                "pauses",
                "need every above 0s, longest of at least shortest, and an error between 0 and 1"
                    .into(),
            ));
        }
        if let Some(agents) = &self.agents
            && !(2..=1_000).contains(&agents.requests)
        {
            return Err(wrong(
                "agents.requests",
                format!("{} is not between 2 and 1000", agents.requests),
            ));
        }
        if self.keys.iter().any(|it| !(*it > 0.0 && it.is_finite())) {
            return Err(wrong("keys", "has a share that is not above 0".into()));
        }
        Ok(())
    }
}

fn wrong(field: &str, message: String) -> TrafficError {
    TrafficError {
        field: field.to_owned(),
        message,
    }
}
