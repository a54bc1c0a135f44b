//! One sequence as the device thread's shell sees it: its client, its sampling,
//! its clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::Place;
use crate::backend::Outputs;
use crate::grammar::Matcher;
use crate::request::{
    FinishReason, Finished, GenerateRequest, GenerationEvent, Meter, Priority, SampledToken,
    SamplingParams, Timings, Usage,
};
use crate::restriction::Restricted;
use crate::sampler::{Draw, SampleError, SequenceSampling, logprobs_of};
use crate::scheduler::{Drawn, PlannedRow, Sequence, SequenceId};

/// A request on its way to the device thread.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) request: GenerateRequest,
    pub(super) events: Sender<GenerationEvent>,
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) meter: Meter,
    pub(super) place: Place,
    pub(super) submitted: Instant,
}

/// Why a sequence cannot go on.
#[derive(Debug)]
pub(super) enum Lost {
    /// Nothing could be drawn from the model's logits.
    Failed(String),
    /// What the request asks for cannot be gone on with: a limit of the grammar's matcher, or
    /// nothing that all of it allows.
    Refused(String),
}

/// Why a request with restrictions is refused in the middle.
const NOTHING_LEFT: &str =
    "'bad_words' and 'allowed_token_ids' leave no token that could come next";

/// See the module's text.
#[derive(Debug)]
pub(super) struct Stream {
    events: Sender<GenerationEvent>,
    cancelled: Arc<AtomicBool>,
    meter: Meter,
    params: SamplingParams,
    pub(super) priority: Priority,
    sampling: SequenceSampling,
    /// The random number of the draw that is being made ready.
    uniform: f64,
    matcher: Option<Matcher>,
    restricted: Option<Restricted>,
    stop: Arc<[u32]>,
    prompt: Arc<[u32]>,
    /// Collected until the prompt is through.
    prompt_logprobs: Option<Vec<Option<SampledToken>>>,
    /// Drawn in this step, not yet published.
    drawn: Option<SampledToken>,
    /// Held while it waits.
    pub(super) place: Option<Place>,
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

impl Stream {
    /// Splits a submission into what the scheduler needs and what stays here.
    pub(super) fn open(submission: Submission, id: SequenceId, eos: &[u32]) -> (Sequence, Self) {
        let GenerateRequest {
            prompt,
            params,
            grammar,
            restriction,
            priority,
            tenant,
            salt,
            deadline,
            whole: _,
        } = submission.request;
        let stop: Arc<[u32]> = if params.ignore_eos {
            Arc::clone(&params.stop_token_ids)
        } else {
            eos.iter()
                .chain(params.stop_token_ids.iter())
                .copied()
                .collect()
        };
        let sequence = Sequence {
            id,
            prompt: Arc::clone(&prompt),
            max_tokens: params.max_tokens,
            stop: Arc::clone(&stop),
            min_tokens: params.min_tokens,
            prompt_logits: params.prompt_logprobs.is_some(),
            priority,
            tenant,
            salt,
            deadline,
        };
        let stream = Self {
            events: submission.events,
            cancelled: submission.cancelled,
            meter: submission.meter,
            sampling: SequenceSampling::new(&params, &prompt, &stop),
            uniform: 0.0,
            matcher: grammar.as_ref().map(crate::grammar::Grammar::matcher),
            restricted: restriction.map(|restriction| restriction.begin(eos)),
            stop,
            priority,
            prompt_logprobs: params.prompt_logprobs.map(|_| vec![None]),
            drawn: None,
            place: Some(submission.place),
            submitted: submission.submitted,
            started: None,
            first_token: None,
            prompt,
            params,
        };
        (sequence, stream)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    pub(super) fn start(&mut self, cached: usize, now: Instant) {
        self.place = None;
        self.started = Some(now);
        self.meter.found_cached(cached);
    }

    /// A step has computed a row of it.
    pub(super) fn computed(&self, row: &PlannedRow) {
        let so_far = (row.past + row.tokens).min(self.prompt.len());
        self.meter.computed_up_to(so_far);
    }

    /// Reads the log-probabilities of the prompt tokens that follow the row's, and
    /// publishes them when they are complete. `outputs` holds the row's logits.
    pub(super) fn read_prompt(&mut self, row: &PlannedRow, first: usize, outputs: &Outputs) {
        let (Some(collected), Some(top)) =
            (self.prompt_logprobs.as_mut(), self.params.prompt_logprobs)
        else {
            return;
        };
        for offset in 0..row.tokens {
            if let Some(&next) = self.prompt.get(row.past + offset + 1) {
                let logits = outputs.row(first + offset);
                collected.push(Some(logprobs_of(logits, next, top)));
            }
        }
        if row.past + row.tokens >= self.prompt.len()
            && let Some(all) = self.prompt_logprobs.take()
        {
            self.send(GenerationEvent::Prompt(all));
        }
    }

    /// Gets ready to draw: the mask of what is allowed, and the sequence's next random number.
    /// `Err`: why no token can follow; the sequence is lost.
    pub(super) fn prepare(&mut self) -> Result<(), Lost> {
        if let Some(matcher) = &mut self.matcher {
            matcher
                .mask()
                .map_err(|error| Lost::Refused(error.to_string()))?;
        }
        if let Some(restricted) = &mut self.restricted
            && !restricted.compute(self.matcher.as_ref().map(Matcher::last_mask))
        {
            return Err(Lost::Refused(NOTHING_LEFT.to_owned()));
        }
        self.uniform = self.sampling.draw_number(&self.params);
        Ok(())
    }

    /// What it got ready, for a row of logits.
    pub(super) fn draw(&self, row: u32) -> Draw<'_> {
        Draw {
            row,
            params: &self.params,
            state: &self.sampling,
            mask: match &self.restricted {
                Some(restricted) => Some(restricted.mask()),
                None => self.matcher.as_ref().map(Matcher::last_mask),
            },
            uniform: self.uniform,
        }
    }

    /// Takes the token that was drawn. `Err`: as in [`Self::prepare`].
    pub(super) fn take(&mut self, drawn: Result<SampledToken, SampleError>) -> Result<Drawn, Lost> {
        let sampled = drawn.map_err(|error| Lost::Failed(error.to_string()))?;
        let id = sampled.id;
        self.sampling.observe(id);
        if let Some(restricted) = &mut self.restricted {
            restricted.observe(id);
        }
        self.drawn = Some(sampled);
        let Some(matcher) = &mut self.matcher else {
            return Ok(Drawn::Token(id));
        };
        // Where `min_tokens` are not out, it ends nothing, and the grammar goes on behind it.
        if self.sampling.generated() > self.params.min_tokens && self.stop.contains(&id) {
            return Ok(Drawn::Token(id));
        }
        matcher
            .accept(id)
            .map_err(|error| Lost::Refused(error.to_string()))?;
        Ok(match matcher.is_finished() {
            true => Drawn::Last(id),
            false => Drawn::Token(id),
        })
    }

    /// Publishes the token drawn in this step.
    pub(super) fn publish(&mut self, now: Instant) {
        if let Some(token) = self.drawn.take() {
            self.first_token.get_or_insert(now);
            self.meter.generated();
            self.send(GenerationEvent::Token(token));
        }
    }

    /// Publishes the end.
    pub(super) fn finish(&mut self, reason: FinishReason, usage: Usage, now: Instant) {
        self.place = None;
        self.send(GenerationEvent::Finished(Finished {
            reason,
            usage,
            timings: self.timings(now),
        }));
    }

    /// Publishes why it cannot go on.
    pub(super) fn give_up(&mut self, why: Lost) {
        match why {
            Lost::Failed(reason) => self.fail(&reason),
            Lost::Refused(reason) => {
                self.place = None;
                self.send(GenerationEvent::Refused(reason));
            }
        }
    }

    pub(super) fn fail(&mut self, reason: &str) {
        self.place = None;
        self.send(GenerationEvent::Failed(reason.to_owned()));
    }

    /// The executor is lost. Who never had a step may try another.
    pub(super) fn lose(&mut self, reason: &str) {
        if self.started.is_some() {
            return self.fail(reason);
        }
        self.place = None;
        self.send(GenerationEvent::NotBegun(reason.to_owned()));
    }

    /// Time since its first step.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.started?))
    }

    pub(super) fn prompt_tokens(&self) -> usize {
        self.prompt.len()
    }

    fn timings(&self, now: Instant) -> Timings {
        let started = self.started.unwrap_or(now);
        let first = self.first_token.unwrap_or(now);
        Timings {
            queue: started.saturating_duration_since(self.submitted),
            prefill: first.saturating_duration_since(started),
            decode: now.saturating_duration_since(first),
        }
    }

    fn send(&self, event: GenerationEvent) {
        // The channel holds every event of the sequence, so the only failure is a
        // client that is gone, and its cancellation is on the way.
        let _ = self.events.try_send(event);
    }
}
