//! The metrics, each equal to its reference implementation, behind one enum.
//!
//! A [`Metric`] is configuration: it scores one sample ([`Metric::score`]),
//! measures a run with an interval ([`Metric::measure`]) and compares two runs
//! of the same rows ([`Metric::compare`]). Its [`name`](Metric::name) carries
//! everything that changes its value, so that equal names can be compared.

pub mod bleu;
pub mod classification;
pub mod json_fields;
pub mod judge;
pub mod latency;
pub mod likelihood;
pub mod retrieval;
pub mod rouge;
pub mod text;
pub mod words;

mod measure;
#[cfg(test)]
pub(crate) mod tests;

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use self::classification::Average;
use self::latency::Percentile;
use self::likelihood::{Likelihood, LikelihoodSums};
use self::measure::Evidence;
use self::retrieval::Ranking;
use self::rouge::RougeKind;
use self::text::Normalisation;
use self::words::{BleuTokenizer, RougeWords};
use super::sample::{Sample, Score};

pub use self::measure::{Comparison, Measurement, compare_scores, measure_scores};

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Higher,
    Lower,
}

/// A metric with its configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Metric {
    /// Share of outputs equal to a reference.
    ExactMatch {
        #[serde(default)]
        normalisation: Normalisation,
    },
    /// Mean of SQuAD's F1 over tokens.
    TokenF1 {
        #[serde(default)]
        cjk: bool,
    },
    /// Mean share of right fields; all fields when none are declared.
    JsonFields {
        #[serde(default)]
        fields: Vec<String>,
    },
    /// sacreBLEU's corpus BLEU, 0 to 100.
    Bleu {
        #[serde(default)]
        tokenizer: BleuTokenizer,
    },
    /// sacreBLEU's corpus chrF2, 0 to 100.
    Chrf,
    /// Mean ROUGE F-measure, 0 to 1.
    Rouge {
        variant: RougeKind,
        #[serde(default)]
        words: RougeWords,
    },
    /// Share of right labels.
    Accuracy {
        #[serde(default)]
        normalisation: Normalisation,
    },
    /// F1 of the labels.
    LabelF1 {
        average: Average,
        #[serde(default)]
        normalisation: Normalisation,
    },
    Ndcg {
        k: NonZeroUsize,
    },
    Recall {
        k: NonZeroUsize,
    },
    /// Mean reciprocal rank.
    Mrr,
    /// Mean average precision.
    Map,
    Likelihood {
        unit: Likelihood,
    },
    /// A percentile of the total time, in microseconds.
    Latency {
        percentile: Percentile,
    },
    /// A percentile of the time to the first token, in microseconds.
    FirstToken {
        percentile: Percentile,
    },
}

impl Metric {
    /// A stable name with everything that changes the value, for example `bleu/13a`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::ExactMatch { normalisation } => format!("exact_match/{}", word(normalisation)),
            Self::TokenF1 { cjk } => format!("token_f1{}", if *cjk { "/cjk" } else { "" }),
            Self::JsonFields { fields } if fields.is_empty() => "json_fields".into(),
            Self::JsonFields { fields } => format!("json_fields/{}", fields.join(",")),
            Self::Bleu { tokenizer } => format!("bleu/{}", tokenizer.name()),
            Self::Chrf => "chrf".into(),
            Self::Rouge { variant, words } => match words {
                RougeWords::Latin => format!("rouge_{}", word(variant)),
                RougeWords::Cjk => format!("rouge_{}/cjk", word(variant)),
            },
            Self::Accuracy { normalisation } => format!("accuracy/{}", word(normalisation)),
            Self::LabelF1 {
                average,
                normalisation,
            } => {
                format!("f1_{}/{}", word(average), word(normalisation))
            }
            Self::Ndcg { k } => format!("ndcg@{k}"),
            Self::Recall { k } => format!("recall@{k}"),
            Self::Mrr => "mrr".into(),
            Self::Map => "map".into(),
            Self::Likelihood { unit } => match unit {
                Likelihood::PerToken => "perplexity".into(),
                Likelihood::PerByte => "byte_perplexity".into(),
                Likelihood::BitsPerByte => "bits_per_byte".into(),
            },
            Self::Latency { percentile } => format!("latency_us/p{percentile}"),
            Self::FirstToken { percentile } => format!("first_token_us/p{percentile}"),
        }
    }

    #[must_use]
    pub fn direction(&self) -> Direction {
        match self {
            Self::Likelihood { .. } | Self::Latency { .. } | Self::FirstToken { .. } => {
                Direction::Lower
            }
            _ => Direction::Higher,
        }
    }

    /// Scores one sample: BLEU and chrF by sentence, classification as right or wrong, times in
    /// microseconds.
    #[must_use]
    pub fn score(&self, sample: &Sample) -> Score {
        match self.evidence(sample) {
            Ok(evidence) => Score::Value(self.of_sample(&evidence)),
            Err(reason) => Score::NotApplicable(reason),
        }
    }

    /// What the metric needs to know of one sample, or why it cannot be applied to it.
    fn evidence(&self, sample: &Sample) -> Result<Evidence, String> {
        Ok(match self {
            Self::ExactMatch { normalisation } => {
                let (output, references) = sample.texts()?;
                Evidence::Number(text::exact_match(output, references, *normalisation))
            }
            Self::TokenF1 { cjk } => {
                let (output, references) = sample.texts()?;
                Evidence::Number(text::token_f1(output, references, *cjk))
            }
            Self::JsonFields { fields } => {
                let (output, references) = sample.texts()?;
                Evidence::Number(best_fields(output, references, fields)?)
            }
            Self::Bleu { tokenizer } => {
                let (output, references) = sample.texts()?;
                Evidence::Bleu(bleu::BleuCounts::of(output, references, *tokenizer))
            }
            Self::Chrf => {
                let (output, references) = sample.texts()?;
                Evidence::Chrf(bleu::ChrfCounts::of(output, references))
            }
            Self::Rouge { variant, words } => {
                let (output, references) = sample.texts()?;
                Evidence::Number(rouge::rouge(output, references, *variant, *words))
            }
            Self::Accuracy { normalisation } | Self::LabelF1 { normalisation, .. } => {
                let (output, references) = sample.texts()?;
                let label = |text: &str| normalisation.apply(text);
                Evidence::Labels(label(&references[0]), label(output))
            }
            Self::Ndcg { .. } | Self::Recall { .. } | Self::Mrr | Self::Map => {
                let (retrieved, relevant) = sample.ranking()?;
                Evidence::Number(self.of_ranking(&Ranking::new(retrieved, relevant)?))
            }
            Self::Likelihood { .. } => {
                let (tokens, bytes) = sample.logprobs()?;
                Evidence::Likelihood(LikelihoodSums::of(tokens, bytes)?)
            }
            Self::Latency { .. } => Evidence::Number(latency::total(sample)?),
            Self::FirstToken { .. } => Evidence::Number(latency::first_token(sample)?),
        })
    }

    fn of_ranking(&self, ranking: &Ranking) -> f64 {
        match self {
            Self::Ndcg { k } => ranking.ndcg(k.get()),
            Self::Recall { k } => ranking.recall(k.get()),
            Self::Mrr => ranking.reciprocal_rank(),
            _ => ranking.average_precision(),
        }
    }

    fn of_sample(&self, evidence: &Evidence) -> f64 {
        match evidence {
            Evidence::Number(number) => *number,
            Evidence::Bleu(counts) => counts.sentence(),
            Evidence::Chrf(counts) => counts.score(),
            Evidence::Labels(actual, predicted) => f64::from(u8::from(actual == predicted)),
            Evidence::Likelihood(sums) => match self {
                Self::Likelihood { unit } => sums.value(*unit),
                _ => f64::NAN,
            },
        }
    }
}

/// The best of the references that can be compared; the first one's fault when none can.
fn best_fields(output: &str, references: &[String], fields: &[String]) -> Result<f64, String> {
    let scores: Vec<_> = references
        .iter()
        .map(|reference| Ok(json_fields::compare(output, reference, fields)?.accuracy()))
        .collect();
    let best = scores.iter().flatten().copied().reduce(f64::max);
    best.map_or_else(
        || {
            scores
                .into_iter()
                .next()
                .unwrap_or(Err("the row has no reference text".into()))
        },
        Ok,
    )
}

/// The harmonic mean of precision and recall; 0 when both are.
fn f1(precision: f64, recall: f64) -> f64 {
    if precision + recall > 0.0 {
        2.0 * precision * recall / (precision + recall)
    } else {
        0.0
    }
}

/// The word that serde writes for a variant without fields.
fn word(variant: &impl Serialize) -> String {
    serde_json::to_value(variant)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}
