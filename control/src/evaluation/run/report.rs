//! From the stored samples of a run to its numbers and its verdict. Pure: the same samples give the same report.

use serde::Serialize;
use serde_json::{Map, Value};

use super::plan::{JUDGE, JUDGE_WINS, Measures};
use crate::evaluation::metrics::{
    Comparison, Direction, Measurement, Metric, compare_scores, measure_scores,
};
use crate::evaluation::sample::{Output, Sample, Score, Timings, Tokens};
use crate::evaluation::statistics::quantile;
use crate::evaluation::verdict::{Baseline, Judgement, Policy};
use crate::store::EvaluationSample;

/// A sample with the scores that were given from outside.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scored {
    /// The prompt version's id; empty where there is none.
    pub(super) prompt: String,
    pub(super) sample: Sample,
    pub(super) judge: Option<Score>,
    pub(super) wins: Option<Score>,
}

/// One prompt version's numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct PromptReport {
    /// Its id; empty where the test set's text was sent as it is.
    pub(super) prompt_version: String,
    /// As people call it.
    pub(super) prompt: String,
    pub(super) samples: usize,
    /// Requests without an answer.
    pub(super) failed: usize,
    pub(super) measurements: Vec<Measurement>,
    /// Against the live version, by row.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) against_live: Vec<Comparison>,
    /// Against the run's first prompt version, by row.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) against_first: Vec<Comparison>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) judgement: Option<Judgement>,
    /// From asking to the end of the answer.
    pub(super) latency_us: Option<Quantiles>,
    /// From asking to the first token.
    pub(super) first_token_us: Option<Quantiles>,
    pub(super) tokens: Tokens,
}

/// Exact quantiles, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Quantiles {
    fn of(micros: impl Iterator<Item = u64>) -> Option<Self> {
        let mut sorted: Vec<f64> = micros.map(|us| us as f64).collect();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            p50: quantile(&sorted, 0.5),
            p90: quantile(&sorted, 0.9),
            p99: quantile(&sorted, 0.99),
            max: *sorted.last()?,
        })
    }
}

/// What a prompt version is compared with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Others<'a> {
    /// The live version's samples by the same prompt; `None` where nothing else is live.
    pub(super) live: Option<&'a [Scored]>,
    /// Those of the run's first prompt version; `None` for itself.
    pub(super) first: Option<&'a [Scored]>,
}

/// The numbers of one prompt version. `policy` is absent for a baseline, which is not judged.
pub(super) fn of_prompt(
    (id, label): (&str, &str),
    samples: &[Scored],
    others: Others<'_>,
    measures: &Measures,
    policy: Option<&Policy>,
) -> PromptReport {
    let measurements = measure(samples, measures);
    let against_live = others.live.map(|live| compare(samples, live, measures));
    let judgement = policy.map(|policy| {
        let baseline = against_live
            .clone()
            .map_or(Baseline::NothingLive, Baseline::Live);
        policy.judge(&measurements, &baseline)
    });
    let all = || samples.iter().map(|scored| &scored.sample);
    let answered = || all().filter(|sample| sample.output.is_ok());
    let tokens = all().fold(Tokens::default(), |sum, sample| Tokens {
        input: sum.input + sample.tokens.input,
        output: sum.output + sample.tokens.output,
    });
    PromptReport {
        prompt_version: id.to_owned(),
        prompt: label.to_owned(),
        samples: samples.len(),
        failed: samples.len() - answered().count(),
        measurements,
        against_live: against_live.unwrap_or_default(),
        against_first: others
            .first
            .map(|first| compare(samples, first, measures))
            .unwrap_or_default(),
        judgement,
        latency_us: Quantiles::of(answered().filter_map(|sample| sample.timings.total)),
        first_token_us: Quantiles::of(answered().filter_map(|sample| sample.timings.first_token)),
        tokens,
    }
}

/// The judge's scores of a sample, by name.
type Given = fn(&Scored) -> Option<&Score>;

const GIVEN: [(&str, Given); 2] = [
    (JUDGE, |scored| scored.judge.as_ref()),
    (JUDGE_WINS, |scored| scored.wins.as_ref()),
];

fn missing() -> Score {
    Score::NotApplicable("it was not judged".into())
}

fn measure(samples: &[Scored], measures: &Measures) -> Vec<Measurement> {
    let plain: Vec<Sample> = samples.iter().map(|scored| scored.sample.clone()).collect();
    let bootstrap = &measures.bootstrap;
    let mut all: Vec<Measurement> = measures
        .measure
        .iter()
        .map(|metric| metric.measure(&plain, bootstrap))
        .collect();
    let names = measures.names();
    for (name, given) in GIVEN
        .iter()
        .filter(|(name, _)| names.iter().any(|it| it == name))
    {
        let scores: Vec<Score> = samples
            .iter()
            .map(|scored| given(scored).cloned().unwrap_or_else(missing))
            .collect();
        all.push(measure_scores(name, Direction::Higher, &scores, bootstrap));
    }
    all
}

fn compare(ours: &[Scored], theirs: &[Scored], measures: &Measures) -> Vec<Comparison> {
    let plain = |samples: &[Scored]| -> Vec<Sample> {
        samples.iter().map(|scored| scored.sample.clone()).collect()
    };
    let (our_samples, their_samples) = (plain(ours), plain(theirs));
    let bootstrap = &measures.bootstrap;
    let mut all: Vec<Comparison> = measures
        .measure
        .iter()
        .map(|metric| metric.compare(&our_samples, &their_samples, bootstrap))
        .collect();
    // Wins are a comparison with the live version already.
    if measures.judge.is_some() {
        let judged = |samples: &[Scored]| -> Vec<(String, Score)> {
            samples
                .iter()
                .map(|scored| {
                    let score = scored.judge.clone().unwrap_or_else(missing);
                    (scored.sample.row.clone(), score)
                })
                .collect()
        };
        let (ours, theirs) = (judged(ours), judged(theirs));
        all.push(compare_scores(
            JUDGE,
            Direction::Higher,
            &ours,
            &theirs,
            bootstrap,
        ));
    }
    all
}

/// A sample's scores by name, `null` where a metric cannot be computed of it. Times have columns of their own.
pub(super) fn scores(
    sample: &Sample,
    given: [Option<&Score>; 2],
    measures: &Measures,
) -> Map<String, Value> {
    let timed =
        |metric: &&Metric| !matches!(metric, Metric::Latency { .. } | Metric::FirstToken { .. });
    let number = |score: &Score| score.value().filter(|value| value.is_finite()).into();
    let mut scores: Map<String, Value> = measures
        .measure
        .iter()
        .filter(timed)
        .map(|metric| (metric.name(), number(&metric.score(sample))))
        .collect();
    for ((name, _), score) in GIVEN.iter().zip(given) {
        if let Some(score) = score {
            scores.insert((*name).to_owned(), number(score));
        }
    }
    scores
}

/// Reads a stored sample back.
///
/// # Errors
/// It was not written by a run: what is unreadable, in words.
pub(super) fn scored(stored: &EvaluationSample) -> Result<Scored, String> {
    fn part<T: serde::de::DeserializeOwned>(name: &str, value: &Value) -> Result<T, String> {
        serde_json::from_value(value.clone()).map_err(|error| format!("{name}: {error}"))
    }
    let output = match (&stored.error, &stored.output) {
        (Some(error), _) => Err(error.clone()),
        (None, Some(output)) => Ok(part::<Output>("output", &output.0)?),
        (None, None) => return Err("output: is missing".into()),
    };
    let expected = stored.expected.as_ref().map_or(&Value::Null, |it| &it.0);
    let given = |name: &str| {
        let value = stored.scores.0.get(name)?;
        Some(value.as_f64().map_or_else(
            || Score::NotApplicable("the judge gave no grade".into()),
            Score::Value,
        ))
    };
    Ok(Scored {
        prompt: stored.prompt_version.clone(),
        judge: given(JUDGE),
        wins: given(JUDGE_WINS),
        sample: Sample {
            row: stored.item.clone(),
            input: part("input", &stored.input.0)?,
            reference: match expected {
                Value::Null => crate::evaluation::sample::Reference::Nothing,
                value => part("expected", value)?,
            },
            output,
            timings: Timings {
                first_token: stored.first_token_us.and_then(|us| u64::try_from(us).ok()),
                total: u64::try_from(stored.latency_us).ok(),
            },
            tokens: Tokens {
                input: stored.input_tokens.unsigned_abs(),
                output: stored.output_tokens.unsigned_abs(),
            },
        },
    })
}
