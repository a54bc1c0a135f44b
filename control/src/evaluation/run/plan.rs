//! What a run does, as people write it down: the `metrics`, `thresholds` and `settings` of an evaluation. Read
//! strictly and as a whole, so that a mistake is refused when the evaluation is defined and not after an hour of asking.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::evaluation::canonical_digest;
use crate::evaluation::metrics::judge::Rubric;
use crate::evaluation::metrics::{Direction, Metric};
use crate::evaluation::statistics::Bootstrap;
use crate::evaluation::verdict::Policy;
use crate::id::PromptVersionId;

/// Name of the judge's mean grade among the metrics, 0 (worst) to 1.
pub const JUDGE: &str = "judge";
/// Name of the share of pairs that the judge gives to the candidate rather than the live version.
pub const JUDGE_WINS: &str = "judge_wins";

/// A field and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidPlan {
    pub field: String,
    pub problem: String,
}

pub(super) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> InvalidPlan {
    InvalidPlan {
        field: field.into(),
        problem: problem.into(),
    }
}

/// What a row of the test set is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskKind {
    /// `/v1/chat/completions` with the row's messages, or those of a prompt version.
    #[default]
    Chat,
    /// `/v1/completions` with the row's prompt, or that of a prompt version.
    Completion,
    /// How likely the model finds the row's text (`/v1/completions` with `echo`), after a context if it has one.
    Likelihood,
    /// `/v1/rerank` of the row's own documents: rerankers, and embedding models by cosine.
    Rank,
    /// The nearest of one corpus for all rows, by cosine of `/v1/embeddings`.
    Retrieve,
    /// `/v1/classify`.
    Classify,
}

impl AskKind {
    /// The column with what is asked, unless named.
    const fn input(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Completion => "prompt",
            Self::Likelihood | Self::Classify => "text",
            Self::Rank | Self::Retrieve => "query",
        }
    }

    /// The column with what is right, unless named.
    const fn reference(self) -> &'static str {
        match self {
            Self::Rank | Self::Retrieve => "relevance",
            _ => "reference",
        }
    }

    const fn takes_prompts(self) -> bool {
        matches!(self, Self::Chat | Self::Completion)
    }
}

/// How rows become requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ask {
    pub kind: AskKind,
    /// The file of the test set's artifact that holds the rows; its only `.jsonl` if absent.
    pub file: Option<String>,
    /// The file with the documents of `retrieve`; `corpus.jsonl` if absent. Rows of `id` and `text`.
    pub corpus: Option<String>,
    pub columns: Columns,
    /// Further fields of the request: `temperature` (0 if absent), `max_tokens`, `response_format` …
    pub sampling: Map<String, Value>,
}

/// The test set's columns. A column that is named must be there; the usual ones may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The row's own name; `id`, or its number.
    pub id: Option<String>,
    /// `messages`, `prompt`, `text` or `query`, after the kind.
    pub input: Option<String>,
    /// `reference`, or `relevance` for documents.
    pub reference: Option<String>,
    /// `documents`, for `rank`.
    pub documents: Option<String>,
    /// `context`, for `likelihood`: is given, not scored.
    pub context: Option<String>,
    /// `tags`.
    pub tags: Option<String>,
}

impl Ask {
    pub fn input(&self) -> &str {
        let named = self.columns.input.as_deref();
        named.unwrap_or(self.kind.input())
    }

    pub fn reference(&self) -> &str {
        let named = self.columns.reference.as_deref();
        named.unwrap_or(self.kind.reference())
    }
}

/// When one sample counts as passed, for looking at those that did not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leading {
    /// The metric whose score stands for the sample: one of those measured.
    pub metric: String,
    /// The least good score that passes; wholly right (1) if absent.
    #[serde(default)]
    pub pass: Option<f64>,
}

/// A model that grades answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgePlan {
    /// The deployment that judges, by its endpoint.
    pub deployment: String,
    pub rubric: Rubric,
    /// Whether the judge is shown what is right.
    #[serde(default = "yes")]
    pub reference: bool,
    /// Whether it also compares each answer with the live version's, in both orders.
    #[serde(default)]
    pub pairwise: bool,
    /// Further fields of its requests.
    #[serde(default)]
    pub sampling: Map<String, Value>,
}

const fn yes() -> bool {
    true
}

/// An evaluation's `metrics`: how a version is asked and measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Measures {
    pub ask: Ask,
    pub measure: Vec<Metric>,
    pub leading: Option<Leading>,
    pub judge: Option<JudgePlan>,
    pub bootstrap: Bootstrap,
}

/// Fields of a request that the run sets itself.
const OWN: [&str; 10] = [
    "model",
    "messages",
    "prompt",
    "input",
    "query",
    "documents",
    "stream",
    "n",
    "echo",
    "logprobs",
];

impl Measures {
    /// Reads and checks an evaluation's `metrics`.
    ///
    /// # Errors
    /// Names the field below `metrics`.
    pub fn read(value: &Value) -> Result<Self, InvalidPlan> {
        let measures: Self = typed("metrics", value)?;
        if measures.measure.is_empty() && measures.judge.is_none() {
            let problem = "is empty and there is no judge; name a metric, such as {\"kind\": \"exact_match\"}";
            return Err(invalid("metrics.measure", problem));
        }
        let names = measures.names();
        if let Some(twice) = names
            .iter()
            .enumerate()
            .find(|(at, name)| names[..*at].contains(name))
        {
            return Err(invalid("metrics.measure", format!("has {} twice", twice.1)));
        }
        for (at, metric) in measures.measure.iter().enumerate() {
            measures
                .fits(metric)
                .map_err(|problem| invalid(format!("metrics.measure[{at}]"), problem))?;
        }
        if let Some(leading) = &measures.leading
            && !names.contains(&leading.metric)
        {
            let problem = format!(
                "is {}, which is not measured; there are {}",
                leading.metric,
                names.join(", ")
            );
            return Err(invalid("metrics.leading.metric", problem));
        }
        if measures.judge.is_some() && !measures.ask.kind.takes_prompts() {
            return Err(invalid(
                "metrics.judge",
                "grades texts, which chat and completion give",
            ));
        }
        check_sampling("metrics.ask.sampling", &measures.ask.sampling)?;
        if let Some(judge) = &measures.judge {
            check_sampling("metrics.judge.sampling", &judge.sampling)?;
        }
        Ok(measures)
    }

    /// Whether rows are asked by prompt versions.
    pub const fn take_prompts(&self) -> bool {
        self.ask.kind.takes_prompts()
    }

    /// What is measured, by name.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.measure.iter().map(Metric::name).collect();
        if let Some(judge) = &self.judge {
            names.push(JUDGE.into());
            if judge.pairwise {
                names.push(JUDGE_WINS.into());
            }
        }
        names
    }

    /// The name of the metric that stands for a sample: the first, unless said.
    pub fn leading(&self) -> String {
        let named = self.leading.as_ref().map(|leading| leading.metric.clone());
        named
            .or_else(|| self.measure.first().map(Metric::name))
            .unwrap_or_else(|| JUDGE.into())
    }

    /// Whether a sample of this leading score passes. Without a score it does not; where less is better and nothing
    /// is said, every score does.
    pub fn passes(&self, score: Option<f64>) -> bool {
        let name = self.leading();
        let metric = self.measure.iter().find(|metric| metric.name() == name);
        let direction = metric.map_or(Direction::Higher, Metric::direction);
        let pass = self.leading.as_ref().and_then(|leading| leading.pass);
        match (score, direction, pass) {
            (None, ..) => false,
            (Some(score), Direction::Higher, pass) => score >= pass.unwrap_or(1.0),
            (Some(score), Direction::Lower, Some(pass)) => score <= pass,
            (Some(_), Direction::Lower, None) => true,
        }
    }

    /// Whether a metric can be computed from what the kind's answers hold.
    fn fits(&self, metric: &Metric) -> Result<(), String> {
        let kind = self.ask.kind;
        let (fits, needs) = match metric {
            Metric::Latency { .. } => (true, ""),
            Metric::FirstToken { .. } => (kind.takes_prompts(), "chat or completion"),
            Metric::Ndcg { .. } | Metric::Recall { .. } | Metric::Mrr | Metric::Map => (
                matches!(kind, AskKind::Rank | AskKind::Retrieve),
                "rank or retrieve",
            ),
            Metric::Likelihood { .. } => (kind == AskKind::Likelihood, "likelihood"),
            _ => (
                kind.takes_prompts() || kind == AskKind::Classify,
                "chat, completion or classify",
            ),
        };
        if fits {
            return Ok(());
        }
        Err(format!("{} takes ask.kind {needs}", metric.name()))
    }
}

/// Refuses fields of a request that the run sets itself.
///
/// # Errors
/// Names the field below `field`.
pub fn check_sampling(field: &str, sampling: &Map<String, Value>) -> Result<(), InvalidPlan> {
    match OWN.iter().find(|own| sampling.contains_key(**own)) {
        Some(own) => Err(invalid(
            format!("{field}.{own}"),
            "is set by the run itself",
        )),
        None => Ok(()),
    }
}

/// An evaluation's `settings`: how the work is done. Nothing here changes what a number means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// The deployment by whose settings the version is loaded, and whose live version it is compared with. Absent: the
    /// model's only one, or none.
    pub deployment: Option<String>,
    /// Over those of the deployment: `{"slots": 4}`.
    pub engine_options: Map<String, Value>,
    /// Requests at once.
    pub concurrency: u16,
    /// How long one answer may take, in seconds.
    pub timeout_s: u32,
    /// Prompt versions that are compared unless the run names others: `name@v1`, or ids.
    pub prompts: Vec<String>,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            deployment: None,
            engine_options: Map::new(),
            concurrency: 4,
            timeout_s: 120,
            prompts: Vec::new(),
        }
    }
}

/// Most requests at once.
const MOST_AT_ONCE: u16 = 256;

impl RunSettings {
    /// # Errors
    /// Names the field below `settings`.
    pub fn read(value: &Value) -> Result<Self, InvalidPlan> {
        let settings: Self = typed("settings", value)?;
        if !(1..=MOST_AT_ONCE).contains(&settings.concurrency) {
            let problem = format!("is {}, should be 1 to {MOST_AT_ONCE}", settings.concurrency);
            return Err(invalid("settings.concurrency", problem));
        }
        if settings.timeout_s == 0 {
            return Err(invalid("settings.timeout_s", "is 0, should be 1 or more"));
        }
        Ok(settings)
    }
}

/// Reads an evaluation's `thresholds`; those on what is not measured could never be met.
///
/// # Errors
/// Names the field below `thresholds`.
pub fn read_policy(value: &Value, measures: &Measures) -> Result<Policy, InvalidPlan> {
    let policy: Policy = typed("thresholds", value)?;
    let names = measures.names();
    match policy
        .rules()
        .iter()
        .find(|rule| !names.contains(&rule.metric))
    {
        Some(rule) => Err(invalid(
            "thresholds.rules",
            format!(
                "names the metric {}, which is not measured; there are {}",
                rule.metric,
                names.join(", ")
            ),
        )),
        None => Ok(policy),
    }
}

fn typed<T: DeserializeOwned>(field: &str, value: &Value) -> Result<T, InvalidPlan> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." {
            field.to_owned()
        } else {
            format!("{field}.{path}")
        };
        invalid(field, error.into_inner().to_string())
    })
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To judge a version.
    Verdict,
    /// To have something to compare with: the live version, measured the same way.
    Baseline,
}

/// A run's `plan`: the evaluation as it was when the run was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub purpose: Purpose,
    /// Side by side; the verdict is the first one's.
    pub prompt_versions: Vec<PromptVersionId>,
    pub metrics: Value,
    pub thresholds: Value,
    pub settings: Value,
    /// Whoever asked for the run chose other prompts than the evaluation's: it is a trial, and no evidence.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prompts_chosen: bool,
}

/// A digest of what in an evaluation's `settings` decides what is asked of whom: prompts, deployment and engine options,
/// not how fast. Evidence has to agree in it with what was required.
pub fn asked_as(settings: &Value) -> String {
    let decides = ["prompts", "deployment", "engine_options"];
    let said: Map<String, Value> = decides
        .into_iter()
        .filter(|field| !is_empty(&settings[*field]))
        .map(|field| (field.to_owned(), settings[field].clone()))
        .collect();
    canonical_digest(&said)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

impl Plan {
    /// # Errors
    /// As [`Measures::read`], [`read_policy`] and [`RunSettings::read`]; prompts where the kind takes none.
    pub fn check(&self) -> Result<(Measures, Policy, RunSettings), InvalidPlan> {
        let measures = Measures::read(&self.metrics)?;
        let policy = read_policy(&self.thresholds, &measures)?;
        let settings = RunSettings::read(&self.settings)?;
        if !self.prompt_versions.is_empty() && !measures.ask.kind.takes_prompts() {
            let problem =
                "are for chat and completion; this evaluation sends the test set's text as it is";
            return Err(invalid("prompt_versions", problem));
        }
        Ok((measures, policy, settings))
    }
}

#[cfg(test)]
mod tests;
