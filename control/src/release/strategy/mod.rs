//! How a deployment wants its releases done: the words of `strategy:` in YAML or JSON.
//!
//! The words follow Argo Rollouts and Flagger where they exist. Whatever is left out has a default, so that `{}`
//! is a strategy too; whatever is wrong names its field and what would be right, since a strategy is
//! written once and trusted for years.

mod objective;
mod pauses;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_gateway::config::human;

pub use objective::{Bar, DEFAULT_ALPHA, Event, Objective, Rule};
pub use pauses::Pauses;

/// A checked strategy. Made by [`Strategy::parse`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Strategy {
    pub steps: Vec<Step>,
    /// Who gets the candidate whatever the weight.
    pub cohorts: Vec<Cohort>,
    /// What keeps a caller on one revision; the first that a request has wins.
    pub sticky: Vec<String>,
    pub objectives: Vec<Objective>,
    pub on_breach: OnBreach,
    pub on_inconclusive: OnInconclusive,
    /// How long the old stable stays loaded after promotion.
    #[serde(with = "human::duration")]
    pub keep_warm: Duration,
    /// How long after a change of weight latencies are not judged: a fresh share of the traffic meets cold caches.
    #[serde(with = "human::duration")]
    pub settle: Duration,
    /// How many different units must have met an event before it may count as the candidate's fault.
    pub min_units: u32,
    /// How failures of one side may hang together in time.
    pub pauses: Pauses,
    /// How long after `settle` promoting waits, at most, for objectives that have not judged enough.
    #[serde(with = "human::duration")]
    pub watch: Duration,
}

/// One step of a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A copy of so many percent of the requests goes to the candidate; its answers reach nobody.
    Shadow(Shadow),
    /// Percent of the units that the candidate serves from now on.
    Weight(f64),
    /// Wait for the objectives' verdict.
    Analyse(Analyse),
    /// Wait for a person, or for a time.
    Pause(Pause),
    /// All traffic to the candidate. May be left out: a release that has passed its steps promotes.
    Promote(Promote),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shadow {
    pub percent: f64,
    #[serde(rename = "for", with = "human::duration")]
    pub lasts: Duration,
    /// How long it may go on copying where `shadow_agreement` has not passed by then.
    #[serde(
        default = "longest_copying",
        with = "human::duration",
        skip_serializing_if = "is_longest_copying"
    )]
    pub max_duration: Duration,
}

const fn longest_copying() -> Duration {
    Duration::from_secs(30 * 60)
}

fn is_longest_copying(duration: &Duration) -> bool {
    *duration == longest_copying()
}

impl Shadow {
    /// How long the step may last.
    #[must_use]
    pub fn most(&self) -> Duration {
        self.lasts.max(self.max_duration)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Analyse {
    /// The step ends as soon as every objective has judged that many of the candidate's requests. Without it
    /// the step lasts for all of `max_duration`, and asks for [`DEFAULT_MIN_REQUESTS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u64>,
    #[serde(with = "human::duration")]
    pub max_duration: Duration,
}

/// What an analysis without `min_requests` needs to have judged at its end.
pub const DEFAULT_MIN_REQUESTS: u64 = 100;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Absent: until a person resumes it.
    #[serde(
        rename = "for",
        default,
        with = "optional_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub lasts: Option<Duration>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {}

/// Callers that always get the candidate. They were not picked at random, so that
/// comparisons with stable leave them out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cohort {
    /// Requests with all of these headers, by exact value.
    Header(BTreeMap<String, String>),
    /// Requests of these principals.
    Principal(Vec<String>),
}

/// What follows when an objective is broken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBreach {
    #[default]
    Rollback,
    /// Hold the weight and wait for a person.
    Freeze,
}

/// What follows when an analysis ends without a verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    /// Hold the weight and wait for a person.
    #[default]
    Pause,
    /// Look for another `max_duration`, as often as it takes.
    Extend,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = human::format_duration;
        match self {
            Self::Shadow(Shadow { percent, lasts, .. }) => {
                write!(f, "shadow: {percent} % for {}", time(*lasts))
            }
            Self::Weight(percent) => write!(f, "weight: {percent} %"),
            Self::Analyse(analyse) => {
                let most = time(analyse.max_duration);
                match analyse.min_requests {
                    Some(wanted) => write!(f, "analyse: {wanted} requests, at most {most}"),
                    None => write!(f, "analyse: for {most}"),
                }
            }
            Self::Pause(Pause { lasts: Some(lasts) }) => write!(f, "pause: for {}", time(*lasts)),
            Self::Pause(Pause { lasts: None }) => f.write_str("pause: until somebody resumes it"),
            Self::Promote(_) => f.write_str("promote"),
        }
    }
}

/// A strategy that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct StrategyError {
    /// Where: `steps[2].weight`.
    pub field: String,
    pub message: String,
}

impl Default for Strategy {
    /// Five, twenty-five and fifty percent, each judged. Errors, empty answers, refusals of the model server, clients that
    /// leave before the first token and late first tokens are compared with stable, and one error in ten is too many
    /// wherever stable stands.
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let analyse = |min_requests, max| {
            Step::Analyse(Analyse {
                min_requests,
                max_duration: minutes(max),
            })
        };
        Self {
            steps: vec![
                Step::Weight(5.0),
                analyse(Some(200), 30),
                Step::Weight(25.0),
                analyse(Some(1_000), 30),
                Step::Weight(50.0),
                analyse(None, 10),
            ],
            cohorts: Vec::new(),
            sticky: ["x-session-id", "user", "api_key"]
                .map(str::to_owned)
                .to_vec(),
            objectives: vec![
                Objective::event(Event::Error, Rule::CompareStable),
                Objective::event(Event::Empty, Rule::CompareStable),
                Objective::event(Event::Rejected, Rule::CompareStable),
                Objective::event(Event::Abandoned, Rule::CompareStable),
                Objective::event(Event::SlowTtft(Bar::Stable(5.0)), Rule::CompareStable),
                Objective::event(Event::Error, Rule::MaxRatio(0.1)),
            ],
            on_breach: OnBreach::default(),
            on_inconclusive: OnInconclusive::default(),
            keep_warm: minutes(24 * 60),
            settle: Duration::from_secs(15),
            min_units: 3,
            pauses: Pauses::default(),
            watch: Duration::from_secs(30),
        }
    }
}

impl Strategy {
    /// Reads a strategy as it stands in a deployment, from JSON or from YAML turned into it.
    ///
    /// # Errors
    /// The field that is wrong, and what would be right.
    pub fn parse(value: serde_json::Value) -> Result<Self, StrategyError> {
        let strategy: Self =
            serde_path_to_error::deserialize(value).map_err(|error| StrategyError {
                field: match error.path().to_string() {
                    path if path == "." => "strategy".to_owned(),
                    path => path,
                },
                message: error.inner().to_string(),
            })?;
        strategy.check()?;
        Ok(strategy)
    }

    /// The evaluations that objectives name, with the place of each: `objectives[1].evaluation`.
    pub fn evaluations(&self) -> impl Iterator<Item = (String, &str)> {
        let objectives = self.objectives.iter().enumerate();
        objectives.filter_map(|(at, objective)| match objective {
            Objective::Evaluation { name, .. } => {
                Some((format!("objectives[{at}].evaluation"), name.as_str()))
            }
            Objective::Event { .. } | Objective::ShadowAgreement { .. } => None,
        })
    }

    /// How long promoting may wait for objectives after `settle`: the slowest needs what is too slow to have gone by.
    #[must_use]
    pub fn longest_watch(&self) -> Duration {
        let longest = self.objectives.iter().filter_map(|it| match it {
            Objective::Event {
                event:
                    Event::SlowTtft(Bar::Time(time))
                    | Event::SlowToken(Bar::Time(time))
                    | Event::SlowRequest(Bar::Time(time)),
                ..
            } => Some(*time * 2),
            _ => None,
        });
        longest.fold(self.watch, Duration::max)
    }

    fn check(&self) -> Result<(), StrategyError> {
        self.check_steps()?;
        if self.objectives.len() > MAX_OBJECTIVES {
            return Err(wrong(
                "objectives",
                format!(
                    "{} are too many; at most {MAX_OBJECTIVES}, since each makes the others slower to decide",
                    self.objectives.len()
                ),
            ));
        }
        if self.objectives.is_empty() && self.steps.iter().any(|it| matches!(it, Step::Analyse(_)))
        {
            return Err(wrong(
                "objectives",
                "are empty, and a step analyses; name at least one".into(),
            ));
        }
        if let Some(at) = self.sticky.iter().position(|it| it.trim().is_empty()) {
            return Err(wrong(
                &format!("sticky[{at}]"),
                "is empty; a header's name, user or api_key is right".into(),
            ));
        }
        for (at, cohort) in self.cohorts.iter().enumerate() {
            let empty = match cohort {
                Cohort::Header(headers) => headers.is_empty(),
                Cohort::Principal(names) => names.is_empty(),
            };
            if empty {
                return Err(wrong(&format!("cohorts[{at}]"), "names nobody".into()));
            }
        }
        if !(1..=100).contains(&self.min_units) {
            return Err(wrong(
                "min_units",
                format!("{} is not between 1 and 100", self.min_units),
            ));
        }
        self.pauses.check()
    }

    fn check_steps(&self) -> Result<(), StrategyError> {
        if self.steps.is_empty() {
            return Err(wrong(
                "steps",
                "are empty, which would be all traffic at once; leave them out for the usual ones, or say \
                 [{\"promote\": {}}]"
                    .into(),
            ));
        }
        let mut weight = 0.0;
        let last = self.steps.len().saturating_sub(1);
        for (at, step) in self.steps.iter().enumerate() {
            let field = |name: &str| format!("steps[{at}].{name}");
            match step {
                Step::Weight(percent) => {
                    check_percent(&field("weight"), *percent)?;
                    if *percent < weight {
                        let message = format!(
                            "{percent} is less than the {weight} before it; weights only rise"
                        );
                        return Err(wrong(&field("weight"), message));
                    }
                    weight = *percent;
                }
                Step::Shadow(shadow) => {
                    check_percent(&field("shadow.percent"), shadow.percent)?;
                    if weight > 0.0 {
                        return Err(wrong(
                            &field("shadow"),
                            "stands after a weight; a candidate that already answers needs no copies"
                                .into(),
                        ));
                    }
                    check_lasting(&field("shadow.for"), shadow.lasts)?;
                    check_lasting(&field("shadow.max_duration"), shadow.max_duration)?;
                }
                Step::Analyse(analyse) => {
                    check_lasting(&field("analyse.max_duration"), analyse.max_duration)?;
                    if analyse.min_requests == Some(0) {
                        return Err(wrong(
                            &field("analyse.min_requests"),
                            "0 would pass without a look; 1 or more is right".into(),
                        ));
                    }
                }
                Step::Promote(_) if at != last => {
                    return Err(wrong(&field("promote"), "is not the last step".into()));
                }
                Step::Pause(_) | Step::Promote(_) => {}
            }
        }
        Ok(())
    }
}

/// The most objectives of one strategy.
pub const MAX_OBJECTIVES: usize = 16;

fn wrong(field: &str, message: String) -> StrategyError {
    StrategyError {
        field: field.to_owned(),
        message,
    }
}

fn check_percent(field: &str, percent: f64) -> Result<(), StrategyError> {
    // Finer than the split's unit it would round to nothing.
    if (0.01..=100.0).contains(&percent) {
        return Ok(());
    }
    Err(wrong(
        field,
        format!("{percent} is not between 0.01 and 100 percent"),
    ))
}

fn check_lasting(field: &str, lasts: Duration) -> Result<(), StrategyError> {
    if lasts.is_zero() {
        return Err(wrong(field, "0s is no time; 10m is right".into()));
    }
    Ok(())
}

mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};
    use sluice_gateway::config::human;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<String>::deserialize(input)?
            .map(|text| human::parse_duration(&text).map_err(serde::de::Error::custom))
            .transpose()
    }

    #[expect(
        clippy::ref_option,
        reason = "the signature that serde's `with` asks for"
    )]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => output.serialize_str(&human::format_duration(*duration)),
            None => output.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests;
