//! A generation as text: the last step of the engine, run on the request's own task.
//!
//! Tokens become text by the incremental [`Detokenizer`], pass [`StopStrings`], and
//! come out with their evidence: a token is reported once all of its text has been
//! delivered, so log-probabilities never run ahead of the text and those of a stop
//! string's tokens never show.

#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::generator::Generation;
use crate::request::{FinishReason, Finished, GenerationEvent, SampledToken};
use crate::tokenizer::TextTokenizer;
use crate::tokenizer::detokenizer::{Detokenizer, DetokenizerOptions};
use crate::tokenizer::stop::{StopOutcome, StopStrings};

/// What is shown of a generation, and where it ends.
#[derive(Debug, Clone, Default)]
pub struct TextOptions {
    /// The text ends before the first of these.
    pub stop: Vec<String>,
    /// Leave special tokens out.
    pub skip_special: bool,
    /// Special tokens that are shown nevertheless (the marks of tool calls).
    pub keep: Arc<HashSet<u32>>,
    /// Deliver the stop string too.
    pub include_stop: bool,
    /// The text continues the prompt's (completions): a leading space is kept.
    pub continuation: bool,
}

/// A token of the prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptToken {
    /// Token id.
    pub id: u32,
    /// Its log-probabilities; the first token has none.
    pub sampled: Option<SampledToken>,
}

/// Events in order: at most one `Prompt`, any number of `Delta`, then exactly one
/// `Finished` or `Failed`.
#[derive(Debug, Clone, PartialEq)]
pub enum TextEvent {
    /// The prompt's tokens, if their log-probabilities were asked for.
    Prompt(Vec<PromptToken>),
    /// New text and the tokens that are complete with it; either may be empty.
    Delta {
        /// Text to append.
        text: String,
        /// Tokens whose text has now been delivered.
        tokens: Vec<SampledToken>,
    },
    /// The end.
    Finished(Finished),
    /// The sequence was lost to a device failure.
    Failed(String),
}

/// See the module's text. Dropping it cancels the generation.
#[derive(Debug)]
pub struct TextStream {
    generation: Generation,
    tokenizer: Arc<TextTokenizer>,
    text: Text,
    ready: VecDeque<TextEvent>,
    /// Tokens received so far, those of a stop string included.
    received: usize,
    stopped: bool,
}

impl TextStream {
    /// Reads `generation` as text of `tokenizer`.
    #[must_use]
    pub fn new(
        generation: Generation,
        tokenizer: Arc<TextTokenizer>,
        options: TextOptions,
    ) -> Self {
        Self {
            generation,
            tokenizer,
            text: Text::new(options),
            ready: VecDeque::new(),
            received: 0,
            stopped: false,
        }
    }

    /// The next event; `None` after the last.
    ///
    /// Tokens that have arrived meanwhile come as one `Delta`, so a slow reader
    /// gets fewer and larger ones. Safe to drop between polls.
    pub async fn next(&mut self) -> Option<TextEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let mut event = self.generation.next().await?;
            loop {
                self.take(event);
                match self.generation.try_next() {
                    Some(next) => event = next,
                    None => break,
                }
            }
            if let Some(delta) = self.text.take_delta() {
                self.push_delta(delta);
            }
        }
    }

    fn take(&mut self, event: GenerationEvent) {
        match event {
            GenerationEvent::Prompt(tokens) => {
                let ids = self.generation.prompt().iter();
                let prompt = ids
                    .zip(tokens)
                    .map(|(&id, sampled)| PromptToken { id, sampled });
                self.ready.push_back(TextEvent::Prompt(prompt.collect()));
            }
            GenerationEvent::Token(_) if self.stopped => {}
            GenerationEvent::Token(token) => {
                self.received += 1;
                if self.text.push(&self.tokenizer, token) {
                    self.stopped = true;
                    self.generation.cancel();
                }
            }
            GenerationEvent::Finished(finished) => self.finish(finished),
            GenerationEvent::Failed(reason) => self.end(TextEvent::Failed(reason)),
        }
    }

    fn finish(&mut self, mut finished: Finished) {
        if !self.stopped {
            self.stopped = self.text.finish();
        }
        if self.stopped {
            // Steps that ran on until the cancellation arrived are not billed.
            finished.usage.completion = finished.usage.completion.min(self.received);
            finished.reason = FinishReason::Stop;
        }
        self.end(TextEvent::Finished(finished));
    }

    fn end(&mut self, last: TextEvent) {
        if let Some(delta) = self.text.take_delta() {
            self.push_delta(delta);
        }
        self.ready.push_back(last);
    }

    fn push_delta(&mut self, (text, tokens): (String, Vec<SampledToken>)) {
        // The prompt comes before any text, and an end after all of it.
        self.ready.push_back(TextEvent::Delta { text, tokens });
    }
}

/// The pure part: tokens in, text and finished tokens out.
#[derive(Debug)]
struct Text {
    detokenizer: Detokenizer,
    stops: StopStrings,
    include_stop: bool,
    /// Tokens not reported yet, each with the length of the text once it is in.
    open: VecDeque<(SampledToken, usize)>,
    /// Bytes made of tokens so far, and of these delivered.
    made: usize,
    delivered: usize,
    /// Not handed out yet.
    text: String,
    tokens: Vec<SampledToken>,
}

impl Text {
    fn new(options: TextOptions) -> Self {
        let detokenizer = DetokenizerOptions {
            skip_special: options.skip_special,
            keep: options.keep,
            continuation: options.continuation,
        };
        Self {
            detokenizer: Detokenizer::new(detokenizer),
            stops: StopStrings::new(&options.stop),
            include_stop: options.include_stop,
            open: VecDeque::new(),
            made: 0,
            delivered: 0,
            text: String::new(),
            tokens: Vec::new(),
        }
    }

    /// Adds a token; `true` when a stop string is complete.
    fn push(&mut self, tokenizer: &TextTokenizer, token: SampledToken) -> bool {
        let mut piece = String::new();
        self.detokenizer.push(tokenizer, token.id, &mut piece);
        self.made += piece.len();
        self.open.push_back((token, self.made));
        self.deliver(&piece)
    }

    /// No more tokens come: an unfinished character and held text come out.
    /// `true` when that completed a stop string.
    fn finish(&mut self) -> bool {
        let mut rest = String::new();
        self.detokenizer.finish(&mut rest);
        self.made += rest.len();
        if self.deliver(&rest) {
            return true;
        }
        let held = self.stops.finish();
        self.append(&held);
        let tokens = self.open.drain(..).map(|(token, _)| token);
        self.tokens.extend(tokens);
        false
    }

    fn deliver(&mut self, piece: &str) -> bool {
        match self.stops.push(piece) {
            StopOutcome::Continue(text) => {
                self.append(&text);
                self.report(self.detokenizer.is_pending());
                false
            }
            StopOutcome::Stopped { mut text, stop } => {
                if self.include_stop {
                    text.push_str(&stop);
                }
                self.append(&text);
                self.report(false);
                self.open.clear();
                true
            }
        }
    }

    fn append(&mut self, text: &str) {
        self.delivered += text.len();
        self.text.push_str(text);
    }

    /// Reports the tokens whose text is out. While a character is unfinished, its
    /// tokens wait for it.
    fn report(&mut self, pending: bool) {
        while let Some((_, end)) = self.open.front() {
            let unfinished = pending && *end == self.made;
            if *end > self.delivered || unfinished {
                break;
            }
            self.tokens
                .extend(self.open.pop_front().map(|(token, _)| token));
        }
    }

    fn take_delta(&mut self) -> Option<(String, Vec<SampledToken>)> {
        if self.text.is_empty() && self.tokens.is_empty() {
            return None;
        }
        Some((
            std::mem::take(&mut self.text),
            std::mem::take(&mut self.tokens),
        ))
    }
}
