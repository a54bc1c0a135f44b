//! One promise of a release: what is counted, and against what it is held.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_gateway::config::human;

/// What must hold for the candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Words", into = "Words")]
pub enum Objective {
    /// How often something happens to its requests.
    Event {
        event: Event,
        rule: Rule,
        /// The chance that this objective takes a good release back, over its whole life, before it is shared
        /// among the objectives.
        alpha: f64,
    },
    /// How often its answer to a copied request agrees with stable's.
    ShadowAgreement { min: f64 },
    /// How its score in a named evaluation compares with the live version's.
    Evaluation { name: String, min_delta: f64 },
}

/// Longer than what is slow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    Time(Duration),
    /// So many times stable's 95th percentile, as known so far in this release; at least 100 ms.
    Stable(f64),
}

/// Something that happens to a request, or does not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// A 5xx, a timeout, a failure of the engine, a broken answer. Client faults and cancellations are nobody's.
    Error,
    /// An answer that is none: not what its endpoint answers, or a stream that breaks off.
    Broken,
    /// The model server refused what the gateway had let through.
    Rejected,
    /// The client left before the first token, after it had waited longer than stable's 95th percentile of that.
    Abandoned,
    /// The first token took longer.
    SlowTtft(Bar),
    /// A token after the first took longer, on average over the answer.
    SlowToken(Bar),
    /// The whole answer took longer.
    SlowRequest(Bar),
    /// More tokens than this.
    LongOutput(u32),
    /// Fewer tokens than this.
    ShortOutput(u32),
    /// An answer without content.
    Empty,
    Refusal,
    /// An answer that breaks the grammar or schema it was asked for.
    GrammarViolation,
}

/// Against what an event's ratio is held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// At most this share of the candidate's requests.
    MaxRatio(f64),
    /// No more often than on stable.
    CompareStable,
}

/// The chance of a false alarm when a strategy names none.
pub const DEFAULT_ALPHA: f64 = 0.01;

impl Objective {
    /// An objective on an event, with the default alpha.
    #[must_use]
    pub const fn event(event: Event, rule: Rule) -> Self {
        Self::Event {
            event,
            rule,
            alpha: DEFAULT_ALPHA,
        }
    }
}

impl Event {
    /// Whether it speaks of time, and so is not judged while caches are cold.
    #[must_use]
    pub const fn is_latency(self) -> bool {
        matches!(
            self,
            Self::SlowTtft(_) | Self::SlowToken(_) | Self::SlowRequest(_)
        )
    }

    /// Whether a server that stops for a moment makes its requests meet it. What an answer says is no pause's doing.
    #[must_use]
    pub const fn may_be_a_pause(self) -> bool {
        match self {
            Self::Error | Self::Broken | Self::Rejected | Self::Abandoned => true,
            Self::SlowTtft(_) | Self::SlowToken(_) | Self::SlowRequest(_) => true,
            Self::LongOutput(_) | Self::ShortOutput(_) => false,
            Self::Empty | Self::Refusal | Self::GrammarViolation => false,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => f.write_str(&human::format_duration(*time)),
            Self::Stable(times) => write!(f, "{times}x stable"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error => f.write_str("error"),
            Self::Broken => f.write_str("broken_answer"),
            Self::Rejected => f.write_str("rejected"),
            Self::Abandoned => f.write_str("abandoned"),
            Self::SlowTtft(bar) => write!(f, "slow_ttft over {bar}"),
            Self::SlowToken(bar) => write!(f, "slow_token over {bar}"),
            Self::SlowRequest(bar) => write!(f, "slow_request over {bar}"),
            Self::LongOutput(tokens) => write!(f, "long_output over {tokens}"),
            Self::ShortOutput(tokens) => write!(f, "short_output under {tokens}"),
            Self::Empty => f.write_str("empty"),
            Self::Refusal => f.write_str("refusal"),
            Self::GrammarViolation => f.write_str("grammar_violation"),
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event {
                event,
                rule: Rule::MaxRatio(ratio),
                ..
            } => write!(f, "{event}, at most {ratio}"),
            Self::Event { event, .. } => write!(f, "{event}, compared with stable"),
            Self::ShadowAgreement { min } => write!(f, "shadow agreement, at least {min}"),
            Self::Evaluation { name, min_delta } => {
                write!(f, "evaluation {name}, at least {min_delta:+}")
            }
        }
    }
}

/// An objective as it is written. One flat object, since that reads best; what does not belong together is
/// refused by [`Objective::try_from`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Words {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    over: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    under: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compare: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alpha: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow_agreement: Option<Agreement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_delta: Option<f64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agreement {
    min: f64,
}

/// `800ms`, `5x stable`, or a number of tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Bound {
    Tokens(u32),
    Time(String),
}

impl TryFrom<Words> for Objective {
    type Error = String;

    fn try_from(words: Words) -> Result<Self, String> {
        let event_fields = words.over.is_some()
            || words.under.is_some()
            || words.max_ratio.is_some()
            || words.compare.is_some()
            || words.alpha.is_some();
        match (&words.event, &words.shadow_agreement, &words.evaluation) {
            (Some(_), None, None) if words.min_delta.is_none() => event_objective(&words),
            (None, Some(agreement), None) if !event_fields && words.min_delta.is_none() => {
                let min = agreement.min;
                if !(0.0..1.0).contains(&min) || min == 0.0 {
                    return Err(format!(
                        "shadow_agreement.min: {min} is not between 0 and 1, such as 0.9"
                    ));
                }
                Ok(Self::ShadowAgreement { min })
            }
            (None, None, Some(name)) if !event_fields => {
                let min_delta = words.min_delta.unwrap_or(0.0);
                if name.trim().is_empty() || !min_delta.is_finite() {
                    return Err("evaluation: names nothing; an evaluation's name is right".into());
                }
                Ok(Self::Evaluation {
                    name: name.clone(),
                    min_delta,
                })
            }
            _ => Err(
                "an objective has one of event (with over, under, max_ratio, compare, alpha), \
                      shadow_agreement, or evaluation (with min_delta)"
                    .into(),
            ),
        }
    }
}

fn event_objective(words: &Words) -> Result<Objective, String> {
    let alpha = words.alpha.unwrap_or(DEFAULT_ALPHA);
    if !(1e-9..=0.5).contains(&alpha) {
        return Err(format!(
            "alpha: {alpha} is not between 1e-9 and 0.5; 0.01 is usual"
        ));
    }
    let rule = match (words.max_ratio, words.compare.as_deref()) {
        (Some(ratio), None) if ratio > 0.0 && ratio < 1.0 => Rule::MaxRatio(ratio),
        (Some(ratio), None) => {
            return Err(format!(
                "max_ratio: {ratio} is not between 0 and 1, such as 0.01"
            ));
        }
        (None, Some("stable")) => Rule::CompareStable,
        (None, Some(other)) => {
            return Err(format!(
                "compare: \"{other}\" is nothing to compare with; stable is"
            ));
        }
        _ => {
            return Err(
                "has max_ratio or compare: stable, one of them; write two objectives for both"
                    .into(),
            );
        }
    };
    Ok(Objective::Event {
        event: read_event(words)?,
        rule,
        alpha,
    })
}

fn read_bar(text: &str) -> Result<Bar, String> {
    let Some(times) = text.trim().strip_suffix("x stable") else {
        return human::parse_duration(text).map(Bar::Time);
    };
    match times.trim().parse::<f64>() {
        Ok(times) if (1.0..=1_000.0).contains(&times) => Ok(Bar::Stable(times)),
        _ => Err(format!(
            "\"{text}\" is not between 1x stable and 1000x stable, such as 5x stable"
        )),
    }
}

fn read_event(words: &Words) -> Result<Event, String> {
    let name = words.event.as_deref().unwrap_or_default();
    let time = || match &words.over {
        Some(Bound::Time(text)) => read_bar(text).map_err(|why| format!("over: {why}")),
        _ => Err(format!(
            "over: {name} needs a time, such as 800ms or 5x stable"
        )),
    };
    let tokens = |field: &str, bound: &Option<Bound>| match bound {
        Some(Bound::Tokens(count)) => Ok(*count),
        _ => Err(format!(
            "{field}: {name} needs a number of tokens, such as 500"
        )),
    };
    let plain = |event| match (&words.over, &words.under) {
        (None, None) => Ok(event),
        _ => Err(format!("over, under: {name} has no bound")),
    };
    match name {
        "error" => plain(Event::Error),
        "broken_answer" => plain(Event::Broken),
        "rejected" => plain(Event::Rejected),
        "abandoned" => plain(Event::Abandoned),
        "empty" => plain(Event::Empty),
        "refusal" => plain(Event::Refusal),
        "grammar_violation" => plain(Event::GrammarViolation),
        "slow_ttft" => Ok(Event::SlowTtft(time()?)),
        "slow_token" => Ok(Event::SlowToken(time()?)),
        "slow_request" => Ok(Event::SlowRequest(time()?)),
        "long_output" => Ok(Event::LongOutput(tokens("over", &words.over)?)),
        "short_output" => Ok(Event::ShortOutput(tokens("under", &words.under)?)),
        other => Err(format!(
            "event: \"{other}\" is none; it is one of error, broken_answer, rejected, abandoned, slow_ttft, slow_token, \
             slow_request, long_output, short_output, empty, refusal, grammar_violation"
        )),
    }
}

impl From<Objective> for Words {
    fn from(objective: Objective) -> Self {
        match objective {
            Objective::Event { event, rule, alpha } => {
                let mut words = Self {
                    alpha: Some(alpha),
                    ..event_words(event)
                };
                match rule {
                    Rule::MaxRatio(ratio) => words.max_ratio = Some(ratio),
                    Rule::CompareStable => words.compare = Some("stable".into()),
                }
                words
            }
            Objective::ShadowAgreement { min } => Self {
                shadow_agreement: Some(Agreement { min }),
                ..Self::default()
            },
            Objective::Evaluation { name, min_delta } => Self {
                evaluation: Some(name),
                min_delta: Some(min_delta),
                ..Self::default()
            },
        }
    }
}

fn event_words(event: Event) -> Words {
    let time = |bar: Bar| Some(Bound::Time(bar.to_string()));
    let (name, over, under) = match event {
        Event::Error => ("error", None, None),
        Event::Broken => ("broken_answer", None, None),
        Event::Rejected => ("rejected", None, None),
        Event::Abandoned => ("abandoned", None, None),
        Event::Empty => ("empty", None, None),
        Event::Refusal => ("refusal", None, None),
        Event::GrammarViolation => ("grammar_violation", None, None),
        Event::SlowTtft(limit) => ("slow_ttft", time(limit), None),
        Event::SlowToken(limit) => ("slow_token", time(limit), None),
        Event::SlowRequest(limit) => ("slow_request", time(limit), None),
        Event::LongOutput(tokens) => ("long_output", Some(Bound::Tokens(tokens)), None),
        Event::ShortOutput(tokens) => ("short_output", None, Some(Bound::Tokens(tokens))),
    };
    Words {
        event: Some(name.into()),
        over,
        under,
        ..Words::default()
    }
}
