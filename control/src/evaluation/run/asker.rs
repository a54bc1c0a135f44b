//! Asking a model until it answers: again when it is busy, not when it is wrong.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use sluice_gateway::in_house::{Answered, InHouse};

use super::ask::{self, Case, Said};
use super::corpus::Corpus;
use super::plan::AskKind;
use crate::evaluation::sample::Output;

/// Tries of one request that the server is too busy for.
const TRIES: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A model with how it is asked.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) model: InHouse,
    pub(super) patience: Duration,
}

/// What came of a request, with its cost.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) said: Result<Said, Fault>,
    pub(super) answered: Answered,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) text: String,
    /// The server's, not the request's.
    pub(super) of_server: bool,
}

impl Asker {
    /// Asks a case.
    pub(super) async fn ask(
        &self,
        kind: AskKind,
        case: &Case,
        sampling: &Map<String, Value>,
        corpus: Option<&Arc<Corpus>>,
    ) -> Reply {
        if let (AskKind::Retrieve, Some(corpus)) = (kind, corpus) {
            return self.retrieve(case, corpus).await;
        }
        let (path, body) = ask::request(kind, self.model.model(), case, sampling);
        let answered = self.post(path, &body).await;
        let said = answer(&answered).and_then(|body| {
            ask::read(kind, case, body).map_err(|text| Fault {
                text,
                of_server: true,
            })
        });
        Reply { said, answered }
    }

    async fn retrieve(&self, case: &Case, corpus: &Arc<Corpus>) -> Reply {
        let query = ask::question(&case.input);
        let (vectors, answered) = self.embed(&[&query]).await;
        let said = match vectors {
            Ok(vectors) => {
                let corpus = Arc::clone(corpus);
                // Beside the runtime's workers: a large corpus takes a while.
                let found = move || corpus.nearest(vectors.first().map_or(&[], Vec::as_slice));
                let found = tokio::task::spawn_blocking(found).await;
                found.map_err(|panic| Fault {
                    text: format!("the corpus could not be searched: {panic}"),
                    of_server: true,
                })
            }
            Err(fault) => Err(fault),
        };
        let said = said.map(|ranking| Said {
            output: Output::Ranking(ranking),
            finish_reason: None,
        });
        Reply { said, answered }
    }

    /// The embeddings of texts, in their order.
    pub(super) async fn embed(&self, texts: &[&str]) -> (Result<Vec<Vec<f32>>, Fault>, Answered) {
        let body = serde_json::json!({"model": self.model.model(), "input": texts});
        let answered = self.post("/v1/embeddings", &body).await;
        let vectors = answer(&answered).and_then(|body| {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            let vectors: Option<Vec<Vec<f32>>> = body["data"].as_array().and_then(|items| {
                items
                    .iter()
                    .map(|item| serde_json::from_value(item["embedding"].clone()).ok())
                    .collect()
            });
            vectors
                .filter(|vectors| vectors.len() == texts.len())
                .ok_or_else(|| Fault {
                    text: "the answer does not hold an embedding for each text".into(),
                    of_server: true,
                })
        });
        (vectors, answered)
    }

    /// Sends until there is an answer that more patience would not change.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Answered {
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            let answered = self.model.post(path, body, self.patience).await;
            if !matches!(answered.status.as_u16(), 429 | 502 | 503) {
                return answered;
            }
            let asked = answered.retry_after.unwrap_or(wait);
            tokio::time::sleep(asked.clamp(wait, LONGEST_WAIT)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        self.model.post(path, body, self.patience).await
    }
}

/// The body of a success.
pub(super) fn answer(answered: &Answered) -> Result<&[u8], Fault> {
    if answered.status.is_success() {
        return Ok(&answered.body);
    }
    let status = answered.status.as_u16();
    Err(Fault {
        text: ask::error_text(status, &answered.body),
        of_server: status >= 500 || status == 429,
    })
}
