//! One row of an evaluation run: what was asked, what was expected, what came back.
//!
//! Everything a score depends on is in the sample, so that a run can be stored,
//! filtered, scored again by a new metric and compared with another run without
//! asking the model a second time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

/// What was sent to the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    Messages(Vec<Message>),
    Prompt(String),
    /// Embedding, reranking and classification take one text or several.
    Texts(Vec<String>),
}

/// What the test set says is right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// Any one of these is right; for classification, the first is the label.
    Texts(Vec<String>),
    /// The gain of each relevant document; documents not listed have none.
    Relevance(BTreeMap<String, f64>),
    /// The metric needs no reference (latency, perplexity, a judge without one).
    Nothing,
}

/// What the model answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    Text(String),
    /// The score of each retrieved document; higher is better.
    Ranking(BTreeMap<String, f64>),
    /// The natural log-probability of each scored token of `bytes` bytes of text.
    Logprobs {
        tokens: Vec<f64>,
        bytes: u64,
    },
}

/// Durations in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// From sending the request to the first token; absent when not streamed.
    pub first_token: Option<u64>,
    /// From sending the request to the end of the answer.
    pub total: Option<u64>,
}

/// Tokens as the server counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    pub input: u64,
    pub output: u64,
}

/// One row of a test set, asked once with one prompt version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The row's id in the test set; pairs samples of two runs.
    pub row: String,
    pub input: Input,
    pub reference: Reference,
    /// `Err` holds why there is no answer.
    pub output: Result<Output, String>,
    #[serde(default)]
    pub timings: Timings,
    #[serde(default)]
    pub tokens: Tokens,
}

/// What one metric says about one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    Value(f64),
    /// The metric cannot be computed here, and why; never counted as zero, never as a pass.
    NotApplicable(String),
}

impl Score {
    /// The number, when there is one.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        match self {
            Self::Value(value) => Some(*value),
            Self::NotApplicable(_) => None,
        }
    }
}

impl Sample {
    /// The answer as text with the accepted references, or why there is no such pair.
    pub(super) fn texts(&self) -> Result<(&str, &[String]), String> {
        let output = match self.answer()? {
            Output::Text(text) => text,
            Output::Ranking(_) => return Err("the output is a ranking, not text".into()),
            Output::Logprobs { .. } => {
                return Err("the output is log-probabilities, not text".into());
            }
        };
        match &self.reference {
            Reference::Texts(texts) if !texts.is_empty() => Ok((output, texts)),
            Reference::Texts(_) | Reference::Nothing => Err("the row has no reference text".into()),
            Reference::Relevance(_) => Err("the row's reference is relevance, not text".into()),
        }
    }

    /// The retrieved documents with the relevant ones, or why there is no such pair.
    pub(super) fn ranking(&self) -> Result<Ranked<'_>, String> {
        let Output::Ranking(retrieved) = self.answer()? else {
            return Err("the output is not a ranking".into());
        };
        match &self.reference {
            Reference::Relevance(relevant) => Ok((retrieved, relevant)),
            _ => Err("the row's reference is not relevance".into()),
        }
    }

    /// The log-probabilities with the bytes they cover, or why there are none.
    pub(super) fn logprobs(&self) -> Result<(&[f64], u64), String> {
        match self.answer()? {
            Output::Logprobs { tokens, bytes } => Ok((tokens, *bytes)),
            _ => Err("the output holds no log-probabilities".into()),
        }
    }

    /// The answer, or that the request failed.
    pub(super) fn answer(&self) -> Result<&Output, String> {
        self.output
            .as_ref()
            .map_err(|error| format!("the request failed: {error}"))
    }
}

type Ranked<'a> = (&'a BTreeMap<String, f64>, &'a BTreeMap<String, f64>);
