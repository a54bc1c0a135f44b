//! From samples to a number with its interval, and to a comparison of two runs.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::bleu::{BleuCounts, ChrfCounts};
use super::likelihood::{Likelihood, LikelihoodSums};
use super::{Direction, Metric, classification};
use crate::evaluation::sample::{Sample, Score};
use crate::evaluation::statistics::{
    Bootstrap, Corpus, Interval, Labelled, McNemar, Mean, Method, Paired, Quantile, Statistic,
    Test, permutation_test,
};

/// What a metric keeps of one sample.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Evidence {
    Number(f64),
    Bleu(BleuCounts),
    Chrf(ChrfCounts),
    /// Actual and predicted.
    Labels(String, String),
    Likelihood(LikelihoodSums),
}

/// One metric of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    pub metric: String,
    pub direction: Direction,
    /// `None` when no sample could be scored.
    pub value: Option<f64>,
    /// `None` for fewer than two scored samples, or where the statistic is not finite.
    pub interval: Option<Interval>,
    pub scored: usize,
    /// Samples left out, by reason.
    pub unscored: BTreeMap<String, usize>,
}

/// One metric of two runs over the rows that both scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub metric: String,
    pub direction: Direction,
    /// `None` when fewer than two rows were scored by both.
    pub paired: Option<Paired>,
    /// Rows of either run that could not be paired.
    pub unpaired: usize,
}

impl Comparison {
    /// How much worse the candidate is: positive is worse whatever the direction.
    #[must_use]
    pub fn regression(&self) -> Option<f64> {
        let paired = self.paired.as_ref()?;
        Some(match self.direction {
            Direction::Higher => -paired.difference,
            Direction::Lower => paired.difference,
        })
    }

    /// The chance of a result this bad if the two were the same (one-sided).
    #[must_use]
    pub fn p_worse(&self) -> Option<f64> {
        let paired = self.paired.as_ref()?;
        Some(match self.direction {
            Direction::Higher => paired.lower,
            Direction::Lower => paired.higher,
        })
    }
}

impl Metric {
    /// The metric over a run, with its interval.
    #[must_use]
    pub fn measure(&self, samples: &[Sample], bootstrap: &Bootstrap) -> Measurement {
        let mut unscored = BTreeMap::new();
        let mut evidence = Vec::with_capacity(samples.len());
        for sample in samples {
            match self.evidence(sample) {
                Ok(found) => evidence.push(found),
                Err(reason) => *unscored.entry(reason).or_default() += 1,
            }
        }
        let labels = labels_of(&evidence);
        let statistic = self.statistic(&evidence, &labels);
        let value = (!evidence.is_empty()).then(|| statistic.point());
        Measurement {
            metric: self.name(),
            direction: self.direction(),
            value: value.filter(|value| value.is_finite()),
            interval: statistic.interval(bootstrap),
            scored: evidence.len(),
            unscored,
        }
    }

    /// The metric of a candidate beside the live version's, on the rows that both scored.
    ///
    /// Rows pair by id; of several samples of one row, the last counts.
    #[must_use]
    pub fn compare(
        &self,
        candidate: &[Sample],
        live: &[Sample],
        bootstrap: &Bootstrap,
    ) -> Comparison {
        let by_row = |samples: &[Sample]| -> BTreeMap<String, Evidence> {
            let scored = |sample: &Sample| Some((sample.row.clone(), self.evidence(sample).ok()?));
            samples.iter().filter_map(scored).collect()
        };
        let (candidate, live) = (by_row(candidate), by_row(live));
        let (of_candidate, of_live): (Vec<_>, Vec<_>) = candidate
            .iter()
            .filter_map(|(row, evidence)| Some((evidence.clone(), live.get(row)?.clone())))
            .unzip();
        let unpaired = candidate.len() + live.len() - 2 * of_candidate.len();
        let labels = labels_of(of_candidate.iter().chain(&of_live));
        let ours = self.statistic(&of_candidate, &labels);
        let theirs = self.statistic(&of_live, &labels);
        let mut paired = ours.compare(&theirs, bootstrap);
        if self.is_share_of_samples() {
            let scores = of_candidate.iter().zip(&of_live);
            let scores = scores.map(|(a, b)| (self.of_sample(a), self.of_sample(b)));
            paired = paired.map(|paired| exact(paired, McNemar::of(scores)));
        }
        Comparison {
            metric: self.name(),
            direction: self.direction(),
            paired,
            unpaired,
        }
    }

    /// Whether the metric is the mean of samples' scores; F1 is not, though its samples are binary.
    fn is_share_of_samples(&self) -> bool {
        !matches!(
            self,
            Self::LabelF1 { .. }
                | Self::Bleu { .. }
                | Self::Chrf
                | Self::Likelihood { .. }
                | Self::Latency { .. }
                | Self::FirstToken { .. }
        )
    }

    fn statistic(&self, evidence: &[Evidence], labels: &[String]) -> AnyStatistic {
        fn pick<T: Clone>(evidence: &[Evidence], pick: impl Fn(&Evidence) -> Option<T>) -> Vec<T> {
            evidence.iter().filter_map(pick).collect()
        }
        let number = |evidence: &Evidence| match evidence {
            Evidence::Number(number) => Some(*number),
            _ => None,
        };
        let sums = |evidence: &Evidence| match evidence {
            Evidence::Likelihood(sums) => Some(*sums),
            _ => None,
        };
        let pairs = |evidence: &Evidence| match evidence {
            Evidence::Labels(actual, predicted) => Some((actual.clone(), predicted.clone())),
            _ => None,
        };
        match self {
            Self::Bleu { .. } => AnyStatistic::Bleu(Corpus {
                counts: pick(evidence, |e| match e {
                    Evidence::Bleu(counts) => Some(*counts),
                    _ => None,
                }),
                value: BleuCounts::corpus,
            }),
            Self::Chrf => AnyStatistic::Chrf(Corpus {
                counts: pick(evidence, |e| match e {
                    Evidence::Chrf(counts) => Some(*counts),
                    _ => None,
                }),
                value: ChrfCounts::score,
            }),
            Self::Accuracy { .. } => {
                AnyStatistic::Labelled(Labelled::new(&pick(evidence, pairs), labels, None))
            }
            Self::LabelF1 { average, .. } => AnyStatistic::Labelled(Labelled::new(
                &pick(evidence, pairs),
                labels,
                Some(*average),
            )),
            Self::Likelihood { unit } => AnyStatistic::Likelihood(Corpus {
                counts: pick(evidence, sums),
                value: match unit {
                    Likelihood::PerToken => |sums| sums.value(Likelihood::PerToken),
                    Likelihood::PerByte => |sums| sums.value(Likelihood::PerByte),
                    Likelihood::BitsPerByte => |sums| sums.value(Likelihood::BitsPerByte),
                },
            }),
            Self::Latency { percentile } | Self::FirstToken { percentile } => {
                AnyStatistic::Quantile(Quantile::new(&pick(evidence, number), percentile.share()))
            }
            _ => AnyStatistic::Mean(Mean(pick(evidence, number))),
        }
    }
}

fn labels_of<'a>(evidence: impl IntoIterator<Item = &'a Evidence>) -> Vec<String> {
    classification::labels(evidence.into_iter().filter_map(|evidence| match evidence {
        Evidence::Labels(actual, predicted) => Some((actual.as_str(), predicted.as_str())),
        _ => None,
    }))
}

/// One of the statistics; a `match` here keeps the resampling loops monomorphic.
enum AnyStatistic {
    Mean(Mean),
    Bleu(Corpus<BleuCounts>),
    Chrf(Corpus<ChrfCounts>),
    Likelihood(Corpus<LikelihoodSums>),
    Labelled(Labelled),
    Quantile(Quantile),
}

impl AnyStatistic {
    fn point(&self) -> f64 {
        match self {
            Self::Mean(statistic) => statistic.point(),
            Self::Bleu(statistic) => statistic.point(),
            Self::Chrf(statistic) => statistic.point(),
            Self::Likelihood(statistic) => statistic.point(),
            Self::Labelled(statistic) => statistic.point(),
            Self::Quantile(statistic) => statistic.point(),
        }
    }

    fn interval(&self, bootstrap: &Bootstrap) -> Option<Interval> {
        match self {
            Self::Mean(statistic) => bootstrap.interval(statistic, Method::Bca),
            Self::Bleu(statistic) => bootstrap.interval(statistic, Method::Bca),
            Self::Chrf(statistic) => bootstrap.interval(statistic, Method::Bca),
            Self::Likelihood(statistic) => bootstrap.interval(statistic, Method::Bca),
            Self::Labelled(statistic) => bootstrap.interval(statistic, Method::Bca),
            Self::Quantile(statistic) => bootstrap.interval(statistic, Method::Percentile),
        }
    }

    fn compare(&self, live: &Self, bootstrap: &Bootstrap) -> Option<Paired> {
        match (self, live) {
            (Self::Mean(a), Self::Mean(b)) => permutation_test(bootstrap, a, b),
            (Self::Bleu(a), Self::Bleu(b)) => permutation_test(bootstrap, a, b),
            (Self::Chrf(a), Self::Chrf(b)) => permutation_test(bootstrap, a, b),
            (Self::Likelihood(a), Self::Likelihood(b)) => permutation_test(bootstrap, a, b),
            (Self::Labelled(a), Self::Labelled(b)) => permutation_test(bootstrap, a, b),
            (Self::Quantile(a), Self::Quantile(b)) => permutation_test(bootstrap, a, b),
            _ => None,
        }
    }
}

/// The exact test in place of the sampled one, where every score is right or wrong.
fn exact(paired: Paired, counts: Option<McNemar>) -> Paired {
    match counts {
        None => paired,
        Some(counts) => Paired {
            test: Test::McNemar,
            two_sided: counts.two_sided(),
            lower: counts.lower(),
            higher: counts.higher(),
            ..paired
        },
    }
}

/// The mean of scores that were given from outside (a judge's, a person's), with its interval.
#[must_use]
pub fn measure_scores(
    name: &str,
    direction: Direction,
    scores: &[Score],
    bootstrap: &Bootstrap,
) -> Measurement {
    let mut unscored = BTreeMap::new();
    for score in scores {
        if let Score::NotApplicable(reason) = score {
            *unscored.entry(reason.clone()).or_default() += 1;
        }
    }
    let mean = Mean(scores.iter().filter_map(Score::value).collect());
    let value = (!mean.is_empty()).then(|| mean.point());
    Measurement {
        metric: name.to_owned(),
        direction,
        value: value.filter(|value| value.is_finite()),
        interval: bootstrap.interval(&mean, Method::Bca),
        scored: mean.len(),
        unscored,
    }
}

/// As [`Metric::compare`], for scores given from outside: pairs of row id and score.
#[must_use]
pub fn compare_scores(
    name: &str,
    direction: Direction,
    candidate: &[(String, Score)],
    live: &[(String, Score)],
    bootstrap: &Bootstrap,
) -> Comparison {
    let values = |scores: &[(String, Score)]| -> HashMap<String, f64> {
        let scored = |(row, score): &(String, Score)| Some((row.clone(), score.value()?));
        scores.iter().filter_map(scored).collect()
    };
    let (candidate, live) = (values(candidate), values(live));
    // Sorted by row, so that the same samples give the same draws.
    let candidate: BTreeMap<_, _> = candidate.into_iter().collect();
    let pairs: Vec<(f64, f64)> = candidate
        .iter()
        .filter_map(|(row, score)| Some((*score, *live.get(row)?)))
        .collect();
    let unpaired = candidate.len() + live.len() - 2 * pairs.len();
    let (ours, theirs) = pairs.iter().copied().unzip();
    let paired = permutation_test(bootstrap, &Mean(ours), &Mean(theirs))
        .map(|paired| exact(paired, McNemar::of(pairs)));
    Comparison {
        metric: name.to_owned(),
        direction,
        paired,
        unpaired,
    }
}
