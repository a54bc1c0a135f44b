//! Retrieval: nDCG@k, recall@k, mean reciprocal rank, mean average precision.
//!
//! Documents with equal scores have no order, and a metric that picks one by
//! chance or by id rewards whoever names documents luckily. Each function gives
//! the exact expectation over all orders of the ties: McSherry & Najork,
//! "Computing Information Retrieval Performance Measures Efficiently in the
//! Presence of Tied Scores", ECIR 2008. Without ties they equal trec_eval's.

use std::collections::BTreeMap;

/// Documents of one score.
struct Tie {
    /// How many documents rank before them.
    before: usize,
    /// Their gains.
    gains: Vec<f64>,
}

impl Tie {
    fn relevant(&self) -> usize {
        self.gains.iter().filter(|gain| **gain > 0.0).count()
    }
}

/// The retrieved documents, best first; negative gains count as none.
pub struct Ranking {
    ties: Vec<Tie>,
    /// Gains of all relevant documents, retrieved or not, highest first.
    ideal: Vec<f64>,
}

impl Ranking {
    /// Ranks `retrieved` (document → score) against `relevant` (document → gain).
    ///
    /// # Errors
    /// A score that is not a number has no rank; without a relevant document no metric is defined.
    pub fn new(
        retrieved: &BTreeMap<String, f64>,
        relevant: &BTreeMap<String, f64>,
    ) -> Result<Self, String> {
        if let Some((document, _)) = retrieved.iter().find(|(_, score)| score.is_nan()) {
            return Err(format!(
                "the score of document `{document}` is not a number"
            ));
        }
        let mut ideal: Vec<f64> = relevant
            .values()
            .copied()
            .filter(|gain| *gain > 0.0)
            .collect();
        if ideal.is_empty() {
            return Err("the row has no relevant document".into());
        }
        ideal.sort_by(|a, b| b.total_cmp(a));
        let mut scored: Vec<(f64, f64)> = retrieved
            .iter()
            .map(|(document, score)| {
                (
                    *score,
                    relevant.get(document).copied().unwrap_or(0.0).max(0.0),
                )
            })
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut before = 0;
        let ties = scored
            .chunk_by(|a, b| a.0 == b.0)
            .map(|group| {
                let tie = Tie {
                    before,
                    gains: group.iter().map(|(_, gain)| *gain).collect(),
                };
                before += group.len();
                tie
            })
            .collect();
        Ok(Self { ties, ideal })
    }

    /// Normalised discounted cumulative gain of the first `k`, with linear gain and the
    /// discount 1 / log₂(rank + 1) (Järvelin & Kekäläinen, 2002; trec_eval's `ndcg_cut`).
    #[must_use]
    pub fn ndcg(&self, k: usize) -> f64 {
        let gained: f64 = self
            .ties
            .iter()
            .map(|tie| {
                let mean = tie.gains.iter().sum::<f64>() / tie.gains.len() as f64;
                let end = (tie.before + tie.gains.len()).min(k);
                (tie.before..end)
                    .map(|place| mean * discount(place))
                    .sum::<f64>()
            })
            .sum();
        let best: f64 = self
            .ideal
            .iter()
            .take(k)
            .enumerate()
            .map(|(place, gain)| gain * discount(place))
            .sum();
        gained / best
    }

    /// The share of the relevant documents among the first `k`.
    #[must_use]
    pub fn recall(&self, k: usize) -> f64 {
        let found: f64 = self
            .ties
            .iter()
            .map(|tie| {
                let taken = k.saturating_sub(tie.before).min(tie.gains.len());
                tie.relevant() as f64 * taken as f64 / tie.gains.len() as f64
            })
            .sum();
        found / self.ideal.len() as f64
    }

    /// One over the rank of the first relevant document; 0 when none was retrieved.
    #[must_use]
    pub fn reciprocal_rank(&self) -> f64 {
        let Some(tie) = self.ties.iter().find(|tie| tie.relevant() > 0) else {
            return 0.0;
        };
        let (size, relevant) = (tie.gains.len(), tie.relevant());
        let mut expected = 0.0;
        // The chance that none of the first `skipped` documents of the tie is relevant.
        let mut none_yet = 1.0;
        for skipped in 0..=(size - relevant) {
            let left = (size - skipped) as f64;
            expected += none_yet * (relevant as f64 / left) / (tie.before + skipped + 1) as f64;
            none_yet *= (left - relevant as f64) / left;
        }
        expected
    }

    /// The mean, over all relevant documents, of the precision at each one's rank; a
    /// document that was not retrieved contributes 0.
    #[must_use]
    pub fn average_precision(&self) -> f64 {
        let mut sum = 0.0;
        let mut found_before = 0_usize;
        for tie in &self.ties {
            let (size, relevant) = (tie.gains.len() as f64, tie.relevant());
            if relevant == 0 {
                continue;
            }
            // Given one relevant document at place j, the others of the tie lie evenly.
            let density = if size > 1.0 {
                (relevant - 1) as f64 / (size - 1.0)
            } else {
                0.0
            };
            for place in 0..tie.gains.len() {
                let found = found_before as f64 + 1.0 + place as f64 * density;
                sum += relevant as f64 / size * found / (tie.before + place + 1) as f64;
            }
            found_before += relevant;
        }
        sum / self.ideal.len() as f64
    }
}

/// `place` counts from 0.
fn discount(place: usize) -> f64 {
    1.0 / (place as f64 + 2.0).log2()
}
