//! One choice of a completion: what an event adds to it.

use std::sync::Arc;

use sluice_engine::language::LanguageModel;
use sluice_engine::request::SampledToken;
use sluice_engine::text::PromptToken;

use super::logprobs::Logprobs;

/// What one event adds to a choice.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) text: String,
    /// `None` when the request wants none.
    pub(super) logprobs: Option<Logprobs>,
    /// Ids of the generated tokens; `None` when the request wants none.
    pub(super) token_ids: Option<Vec<u32>>,
    /// Those of the prompt, with the first part.
    pub(super) prompt_ids: Option<Arc<[u32]>>,
}

/// Where one choice is.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) model: Arc<LanguageModel>,
    /// The prompt, to be echoed before anything else; taken when it is.
    pub(super) echo: Option<String>,
    pub(super) logprobs: bool,
    pub(super) token_ids: bool,
    /// The prompt's ids, to be told with the first part; taken when they are.
    pub(super) prompt_ids: Option<Arc<[u32]>>,
    /// Characters of the tokens reported so far.
    pub(super) offset: usize,
}

impl Progress {
    /// The prompt with its log-probabilities.
    pub(super) fn prompt(&mut self, tokens: &[PromptToken]) -> Part {
        let mut part = self.begin();
        if let Some(logprobs) = &mut part.logprobs {
            for token in tokens {
                let evidence = token.sampled.as_ref();
                self.offset = logprobs.push(&self.model.tokenizer, token.id, evidence, self.offset);
            }
        }
        part
    }

    /// A piece of generated text, after the echo if that is still due.
    pub(super) fn delta(&mut self, text: &str, tokens: &[SampledToken]) -> Part {
        let mut part = self.begin();
        part.text += text;
        if let Some(ids) = &mut part.token_ids {
            ids.extend(tokens.iter().map(|token| token.id));
        }
        if let Some(logprobs) = &mut part.logprobs {
            for token in tokens {
                let tokenizer = &self.model.tokenizer;
                self.offset = logprobs.push(tokenizer, token.id, Some(token), self.offset);
            }
        }
        part
    }

    fn begin(&mut self) -> Part {
        Part {
            text: self.echo.take().unwrap_or_default(),
            logprobs: self.logprobs.then(Logprobs::default),
            token_ids: self.token_ids.then(Vec::new),
            prompt_ids: self.prompt_ids.take(),
        }
    }
}
