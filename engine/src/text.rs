//! A generation as text: detokenised, with stop strings.
//!
//! [`TextAssembler`] is the pure core: tokens in, text and the tokens behind it
//! out, both cut at the same place. [`TextStream`] feeds it from a [`Generation`].

use std::collections::VecDeque;
use std::sync::Arc;

#[cfg(test)]
mod tests;

use crate::generator::Generation;
use crate::request::{
    FinishReason, Finished, GenerationEvent, Meter, SampledToken, Timings, Usage,
};
use crate::tokenizer::TextTokenizer;
use crate::tokenizer::detokenizer::{Detokenizer, DetokenizerOptions};
use crate::tokenizer::stop::{StopOutcome, StopStrings};

/// How tokens become text.
#[derive(Debug, Clone, Default)]
pub struct TextOptions {
    /// Strings that end the text.
    pub stop: Vec<String>,
    /// Leave special tokens out (but for the marks of tool calls).
    pub skip_special: bool,
    /// Deliver the stop string that ended the text.
    pub include_stop: bool,
    /// Tokens whose text is no part of a stop string's end: it ends nothing before so many are out.
    pub min_tokens: usize,
}

/// A token of the prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptToken {
    /// Token id.
    pub id: u32,
    /// Its log-probability and alternatives; none for the first token.
    pub sampled: Option<SampledToken>,
}

/// What a [`TextStream`] delivers: at most one `Prompt`, any number of `Delta`,
/// then exactly one `Finished`, `Failed`, `NotBegun` or `Refused`.
#[derive(Debug, Clone, PartialEq)]
pub enum TextEvent {
    /// The prompt's tokens, when their log-probabilities were asked for.
    Prompt(Vec<PromptToken>),
    /// The next piece of text and the tokens that it completes. The texts of all
    /// tokens delivered cover the text delivered.
    Delta {
        /// Whole characters; may be empty.
        text: String,
        /// In order; may be empty.
        tokens: Vec<SampledToken>,
    },
    /// The end. A met stop string is [`FinishReason::Stop`].
    Finished(Finished),
    /// The sequence was lost to a device failure.
    Failed(String),
    /// As [`GenerationEvent::NotBegun`]: another executor may take the request.
    NotBegun(String),
    /// As [`GenerationEvent::Refused`]: the request's own grammar is too much.
    Refused(String),
}

/// One generation as text. Dropping it cancels the sequence.
#[derive(Debug)]
pub struct TextStream {
    generation: Generation,
    assembler: TextAssembler,
    /// Tokens generated up to and including the one that completed a stop string.
    stopped_after: Option<usize>,
    received: usize,
    /// What the tokens that have arrived make together.
    delta: TextPiece,
    ready: VecDeque<TextEvent>,
    ended: bool,
}

impl TextStream {
    /// The text of `generation`.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "options are made for one stream"
    )]
    pub fn new(
        generation: Generation,
        tokenizer: Arc<TextTokenizer>,
        options: TextOptions,
    ) -> Self {
        Self {
            generation,
            assembler: TextAssembler::new(tokenizer, &options),
            stopped_after: None,
            received: 0,
            delta: TextPiece::default(),
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// The text continues the prompt, whose last word it may complete: its leading
    /// space is kept, where a chat answer's is not.
    #[must_use]
    pub fn continuing(mut self) -> Self {
        self.assembler.continuing();
        self
    }

    /// The next event; `None` after the last. Tokens that have arrived meanwhile
    /// come as one `Delta`, so a slow reader gets fewer and larger ones.
    ///
    /// Cancel safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<TextEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            let event = self.generation.next().await;
            self.take(event);
            while !self.ended
                && let Some(event) = self.generation.try_next()
            {
                self.take(Some(event));
            }
            self.flush();
        }
    }

    /// Tokens of the prompt.
    #[must_use]
    pub fn prompt_tokens(&self) -> usize {
        self.generation.prompt().len()
    }

    /// What was computed so far, also after this was dropped.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        self.generation.meter()
    }

    /// Ends the sequence; [`TextEvent::Finished`] still follows.
    pub fn cancel(&self) {
        self.generation.cancel();
    }

    fn take(&mut self, event: Option<GenerationEvent>) {
        match event {
            Some(GenerationEvent::Prompt(tokens)) => {
                let prompt = self.prompt(tokens);
                self.ready.push_back(TextEvent::Prompt(prompt));
            }
            Some(GenerationEvent::Token(token)) => self.token(token),
            Some(GenerationEvent::Finished(finished)) => self.finish(finished),
            Some(GenerationEvent::Failed(reason)) => self.fail(reason),
            Some(GenerationEvent::NotBegun(reason)) => self.end(TextEvent::NotBegun(reason)),
            Some(GenerationEvent::Refused(reason)) => self.end(TextEvent::Refused(reason)),
            None => self.fail("the generation ended early".to_owned()),
        }
    }

    fn prompt(&self, tokens: Vec<Option<SampledToken>>) -> Vec<PromptToken> {
        let ids = self.generation.prompt().iter();
        let pair = |(&id, sampled)| PromptToken { id, sampled };
        ids.zip(tokens).map(pair).collect()
    }

    fn token(&mut self, token: SampledToken) {
        if self.stopped_after.is_some() {
            return;
        }
        self.received += 1;
        self.delta.append(self.assembler.push(token));
        if self.assembler.stopped() {
            self.stopped_after = Some(self.received);
            self.generation.cancel();
        }
    }

    /// What was held back is delivered first. After a stop string the device may
    /// have run a step too many, which is not the client's to pay for.
    fn finish(&mut self, mut finished: Finished) {
        self.delta.append(self.assembler.finish());
        if self.assembler.stopped() {
            finished.reason = FinishReason::Stop;
            finished.usage.completion = self.stopped_after.unwrap_or(self.received);
        }
        self.end(TextEvent::Finished(finished));
    }

    /// A failure after the stop string changes nothing: the text is complete.
    fn fail(&mut self, reason: String) {
        if self.stopped_after.is_none() {
            self.end(TextEvent::Failed(reason));
            return;
        }
        self.finish(Finished {
            reason: FinishReason::Stop,
            usage: Usage {
                prompt: self.generation.prompt().len(),
                ..Usage::default()
            },
            timings: Timings::default(),
        });
    }

    fn end(&mut self, last: TextEvent) {
        self.flush();
        self.ready.push_back(last);
        self.ended = true;
    }

    /// Makes an event of what has come together.
    fn flush(&mut self) {
        let TextPiece { text, tokens } = std::mem::take(&mut self.delta);
        if !text.is_empty() || !tokens.is_empty() {
            self.ready.push_back(TextEvent::Delta { text, tokens });
        }
    }
}

/// Text and the tokens that it completes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextPiece {
    /// Whole characters.
    pub text: String,
    /// In order.
    pub tokens: Vec<SampledToken>,
}

impl TextPiece {
    fn append(&mut self, next: Self) {
        self.text.push_str(&next.text);
        self.tokens.extend(next.tokens);
    }
}

/// Turns tokens into text that may be delivered. Positions are bytes of the
/// detokenised text; a token is delivered with the text that contains its end.
#[derive(Debug)]
pub struct TextAssembler {
    tokenizer: Arc<TextTokenizer>,
    detokenizer: Detokenizer,
    detokenizer_options: DetokenizerOptions,
    stops: StopStrings,
    include_stop: bool,
    stopped: bool,
    /// Tokens that no stop string may end with yet.
    unstoppable: usize,
    /// Bytes detokenised.
    produced: usize,
    /// Bytes delivered.
    delivered: usize,
    /// Tokens not yet delivered.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    token: SampledToken,
    start: usize,
    /// Unknown while the token ends within a character.
    end: Option<usize>,
}

impl TextAssembler {
    /// At the beginning of a text.
    #[must_use]
    pub fn new(tokenizer: Arc<TextTokenizer>, options: &TextOptions) -> Self {
        let detokenizer_options = DetokenizerOptions {
            skip_special: options.skip_special,
            keep: Arc::clone(tokenizer.tool_marks()),
            continuation: false,
        };
        Self {
            tokenizer,
            detokenizer: Detokenizer::new(detokenizer_options.clone()),
            detokenizer_options,
            stops: StopStrings::new(&options.stop),
            include_stop: options.include_stop,
            stopped: false,
            unstoppable: options.min_tokens,
            produced: 0,
            delivered: 0,
            waiting: VecDeque::new(),
        }
    }

    /// See [`TextStream::continuing`]. Before the first token.
    pub fn continuing(&mut self) {
        self.detokenizer_options.continuation = true;
        self.detokenizer = Detokenizer::new(self.detokenizer_options.clone());
    }

    /// Whether a stop string was met; nothing follows then.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes a token; returns what may be delivered now.
    pub fn push(&mut self, token: SampledToken) -> TextPiece {
        if self.stopped {
            return TextPiece::default();
        }
        let mut text = String::new();
        self.detokenizer.push(&self.tokenizer, token.id, &mut text);
        let stoppable = self.unstoppable == 0;
        self.unstoppable = self.unstoppable.saturating_sub(1);
        self.waiting.push_back(Waiting {
            token,
            start: self.produced,
            end: None,
        });
        self.advance(&text, stoppable)
    }

    /// Ends the text: delivers what was held back for a stop string, and an
    /// unfinished character as U+FFFD.
    pub fn finish(&mut self) -> TextPiece {
        if self.stopped {
            return TextPiece::default();
        }
        let mut text = String::new();
        self.detokenizer.finish(&mut text);
        let mut piece = self.advance(&text, self.unstoppable == 0);
        if !self.stopped {
            let held = self.stops.finish();
            piece.append(self.deliver(held, self.produced));
        }
        piece
    }

    fn advance(&mut self, text: &str, stoppable: bool) -> TextPiece {
        self.produced += text.len();
        if !self.detokenizer.is_pending() {
            for waiting in &mut self.waiting {
                waiting.end.get_or_insert(self.produced);
            }
        }
        let outcome = match stoppable {
            true => self.stops.push(text),
            false => StopOutcome::Continue(self.stops.pass(text)),
        };
        match outcome {
            StopOutcome::Continue(text) => {
                let until = self.delivered + text.len();
                self.deliver(text, until)
            }
            StopOutcome::Stopped { mut text, stop } => {
                self.stopped = true;
                if self.include_stop {
                    text.push_str(&stop);
                }
                self.deliver_last(text)
            }
        }
    }

    /// Delivers `text` and the tokens that end at or before `until`.
    fn deliver(&mut self, text: String, until: usize) -> TextPiece {
        self.delivered = until;
        let mut tokens = Vec::new();
        while let Some(first) = self.waiting.front()
            && first.end.is_some_and(|end| end <= until)
        {
            tokens.extend(self.waiting.pop_front().map(|first| first.token));
        }
        TextPiece { text, tokens }
    }

    /// The end at a stop string: a token that lies partly before the cut belongs to
    /// the text, one that begins at or behind it does not.
    fn deliver_last(&mut self, text: String) -> TextPiece {
        self.delivered += text.len();
        let cut = self.delivered;
        let waiting = self.waiting.drain(..);
        let tokens = waiting.filter(|w| w.start < cut).map(|w| w.token).collect();
        TextPiece { text, tokens }
    }
}
