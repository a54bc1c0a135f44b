//! One choice of a completion: what an event adds to it.

use std::sync::Arc;

use sluice_engine::language::LanguageModel;
use sluice_engine::request::SampledToken;
use sluice_engine::text::PromptToken;

use sluice_engine::tokenizer::TextTokenizer;
use sluice_engine::tokenizer::detokenizer::{Detokenizer, DetokenizerOptions};

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
    /// The same text as the engine makes of the tokens, to know where each begins.
    pub(super) ruler: Ruler,
}

/// Counts the characters of a text that tokens make.
#[derive(Debug, Clone)]
pub(super) struct Ruler {
    detokenizer: Detokenizer,
    characters: usize,
    piece: String,
}

impl Ruler {
    /// At the beginning of a text of this kind, behind so many characters.
    fn new(options: DetokenizerOptions, characters: usize) -> Self {
        Self {
            detokenizer: Detokenizer::new(options),
            characters,
            piece: String::new(),
        }
    }

    /// Over generated tokens.
    pub(super) fn of_answer(tokenizer: &TextTokenizer, skip_special: bool, before: usize) -> Self {
        let options = DetokenizerOptions {
            skip_special,
            keep: Arc::clone(tokenizer.tool_marks()),
            continuation: true,
        };
        Self::new(options, before)
    }

    /// Where the token begins; goes behind it.
    fn pass(&mut self, tokenizer: &TextTokenizer, id: u32) -> usize {
        let begin = self.characters;
        self.piece.clear();
        self.detokenizer.push(tokenizer, id, &mut self.piece);
        self.characters += self.piece.chars().count();
        begin
    }
}

impl Progress {
    /// The prompt with its log-probabilities.
    pub(super) fn prompt(&mut self, tokens: &[PromptToken]) -> Part {
        let tokenizer = &self.model.tokenizer;
        let mut offsets = Vec::with_capacity(tokens.len());
        if let (true, Some(echo)) = (self.logprobs, &self.echo) {
            offsets = offsets_in(tokenizer, echo, tokens);
        }
        let mut part = self.begin();
        if let Some(logprobs) = &mut part.logprobs {
            for (token, offset) in tokens.iter().zip(offsets) {
                let evidence = token.sampled.as_ref();
                logprobs.push(&self.model.tokenizer, token.id, evidence, offset);
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
                let offset = self.ruler.pass(tokenizer, token.id);
                logprobs.push(tokenizer, token.id, Some(token), offset);
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

/// Where the tokens of an echoed prompt begin in it. What the tokenizer added to the text
/// (a beginning of sequence) is not in it, and takes no room.
fn offsets_in(tokenizer: &TextTokenizer, echo: &str, tokens: &[PromptToken]) -> Vec<usize> {
    let mut ruler = Ruler::new(DetokenizerOptions::default(), 0);
    let most = echo.chars().count();
    let mut rest = echo;
    let offset = |token: &PromptToken| {
        let added = tokenizer.is_special(token.id)
            && !rest.starts_with(tokenizer.token_text(token.id).as_str());
        if added {
            return ruler.characters.min(most);
        }
        let begin = ruler.pass(tokenizer, token.id);
        let passed = ruler.characters - begin;
        let end = rest
            .char_indices()
            .nth(passed)
            .map_or(rest.len(), |(at, _)| at);
        rest = &rest[end..];
        begin.min(most)
    };
    tokens.iter().map(offset).collect()
}
