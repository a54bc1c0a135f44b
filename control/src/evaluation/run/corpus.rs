//! The documents that all queries of a run are looked up in, as one version embeds them.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::asker::Asker;
use crate::tasks::TaskFailure;

/// Texts in one request.
const BATCH: usize = 32;
/// Documents kept of each query: what lies behind is not retrieved. Above every usual `k`.
const KEPT: usize = 100;

/// Embedded documents, each of length 1.
#[derive(Debug)]
pub(super) struct Corpus {
    ids: Vec<String>,
    vectors: Vec<Vec<f32>>,
}

impl Corpus {
    /// Embeds the documents, some requests at once. Not kept: a later attempt does it again.
    pub(super) async fn embed(
        asker: &Asker,
        documents: &[(String, String)],
        concurrency: usize,
    ) -> Result<Self, TaskFailure> {
        let batches = (0..documents.len()).step_by(BATCH);
        let embedded: Vec<Vec<Vec<f32>>> = stream::iter(batches)
            .map(|begin| embed(asker, &documents[begin..documents.len().min(begin + BATCH)]))
            .buffered(concurrency)
            .try_collect()
            .await?;
        Ok(Self {
            ids: documents.iter().map(|(id, _)| id.clone()).collect(),
            vectors: embedded.into_iter().flatten().map(unit).collect(),
        })
    }

    /// The nearest documents by cosine.
    pub(super) fn nearest(&self, query: &[f32]) -> BTreeMap<String, f64> {
        let query = unit(query.to_vec());
        let mut scored: Vec<(f64, &String)> = self
            .vectors
            .iter()
            .zip(&self.ids)
            .map(|(vector, id)| (dot(vector, &query), id))
            .collect();
        if scored.len() > KEPT {
            scored.select_nth_unstable_by(KEPT, |a, b| b.0.total_cmp(&a.0));
            scored.truncate(KEPT);
        }
        scored
            .into_iter()
            .map(|(score, id)| (id.clone(), score))
            .collect()
    }
}

async fn embed(asker: &Asker, batch: &[(String, String)]) -> Result<Vec<Vec<f32>>, TaskFailure> {
    let texts: Vec<&str> = batch.iter().map(|(_, text)| &**text).collect();
    let (vectors, _) = asker.embed(&texts).await;
    vectors.map_err(|fault| {
        let message = format!("the corpus cannot be embedded: {}", fault.text);
        match fault.of_server {
            true => TaskFailure::passing("no_answer", message),
            false => TaskFailure::lasting("no_answer", message),
        }
    })
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum()
}

/// Of length 1, unless it has none.
fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}
