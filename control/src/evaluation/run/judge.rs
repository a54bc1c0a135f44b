//! Asking another deployment what it thinks of an answer.

use serde_json::{Map, Value, json};

use super::ask::{self, Case};
use super::asker::{Asker, answer};
use crate::evaluation::metrics::judge::{
    self, Better, Case as Judged, Grade, JudgeRequest, Rubric, preference,
};
use crate::evaluation::sample::{Reference, Score};

/// Long enough for a reason and a grade.
const MAX_TOKENS: u32 = 512;

/// A deployment that judges, by a rubric.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) asker: Asker,
    pub(super) rubric: Rubric,
    /// Whether it is shown what is right.
    pub(super) reference: bool,
    pub(super) sampling: Map<String, Value>,
}

/// A score, and what the judge said of it.
pub(super) struct Opinion {
    pub(super) score: Score,
    pub(super) detail: Value,
}

impl Judge {
    /// A grade of one answer, 0 to 1.
    pub(super) async fn grade(&self, case: &Case, given: &str) -> Opinion {
        let question = ask::question(&case.input);
        let request = self
            .rubric
            .grade_request(self.judged(case, &question), given);
        let grade = match self.say(&request).await {
            Ok(text) => self
                .rubric
                .parse_grade(&text)
                .map_err(|error| error.to_string()),
            Err(text) => Err(text),
        };
        match grade {
            Ok(grade) => Opinion {
                score: Score::Value(self.rubric.normalised(&grade)),
                detail: detail(&grade),
            },
            Err(why) => no_opinion(&why),
        }
    }

    /// Whether the answer is better than the live version's: asked in both orders.
    pub(super) async fn compare(&self, case: &Case, given: &str, live: &str) -> Opinion {
        let question = ask::question(&case.input);
        let judged = self.judged(case, &question);
        let [ours_first, live_first] = self.rubric.pairwise_requests(judged, given, live);
        let both = async {
            let first = self.better(&ours_first).await?;
            let second = self.better(&live_first).await?;
            Ok::<_, String>((first, second))
        };
        match both.await {
            Ok(((first, first_reason), (second, second_reason))) => {
                let preference = preference(first, second);
                Opinion {
                    score: Score::Value(preference.score()),
                    detail: json!({"preference": preference, "reasons": [first_reason, second_reason]}),
                }
            }
            Err(why) => no_opinion(&why),
        }
    }

    async fn better(&self, request: &JudgeRequest) -> Result<(Better, String), String> {
        let text = self.say(request).await?;
        let comparison = judge::parse_comparison(&text).map_err(|error| error.to_string())?;
        Ok((comparison.better, comparison.reason))
    }

    fn judged<'a>(&self, case: &'a Case, question: &'a str) -> Judged<'a> {
        let reference = match &case.reference {
            Reference::Texts(texts) if self.reference => texts.first().map(String::as_str),
            _ => None,
        };
        Judged {
            question,
            reference,
        }
    }

    async fn say(&self, request: &JudgeRequest) -> Result<String, String> {
        let mut body = Map::new();
        body.insert("temperature".into(), 0.into());
        body.insert("max_tokens".into(), MAX_TOKENS.into());
        body.extend(self.sampling.clone());
        body.insert("model".into(), self.asker.model.model().into());
        body.insert("messages".into(), json!(request.messages));
        body.insert("response_format".into(), request.response_format.clone());
        let answered = self
            .asker
            .post("/v1/chat/completions", &Value::Object(body))
            .await;
        let body = answer(&answered)
            .map_err(|fault| format!("the judge did not answer: {}", fault.text))?;
        let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        match &body["choices"][0]["message"]["content"] {
            Value::String(text) => Ok(text.clone()),
            _ => Err("the judge's answer has no text".into()),
        }
    }
}

fn detail(grade: &Grade) -> Value {
    json!({"grade": grade.grade, "reason": grade.reason})
}

fn no_opinion(why: &str) -> Opinion {
    Opinion {
        detail: json!({"error": why}),
        // The reasons are counted: one for all, without what differs from row to row.
        score: Score::NotApplicable("the judge gave no grade".into()),
    }
}
