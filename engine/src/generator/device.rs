//! The device thread: the only owner of the backend, the K/V slots and the
//! schedule. It blocks when there is nothing to do and never waits for a client.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::stream::{Stream, Submission};
use super::{GeneratorOptions, GeneratorStats, Place, Shared, WAKES};
use crate::backend::{Backend, BackendFactory, Batch, FailedRuns, Outputs, Row, Wanted};
use crate::cache::SlotCache;
use crate::cancel::LoadCanceller;
use crate::error::{BackendError, LoadError};
use crate::request::{FinishReason, SampledToken};
use crate::sampler::{SampleError, Sampler};
use crate::scheduler::{
    Drawn, Sampled, Scheduler, SchedulerOptions, SequenceEvent, SequenceId, StepPlan,
};

/// What handles send to the thread.
#[derive(Debug)]
pub(super) enum Command {
    /// A new sequence.
    Submit(Box<Submission>),
    /// A flag has changed.
    Wake,
}

/// Starts the thread; returns when the backend is built and warm.
pub(super) fn start(
    name: &str,
    factory: BackendFactory,
    options: GeneratorOptions,
) -> Result<(SyncSender<Command>, Arc<Shared>), LoadError> {
    let (ready, started) = sync_channel(1);
    let name = name.to_owned();
    let load = LoadCanceller::current();
    std::thread::Builder::new()
        .name(format!("sluice {name}"))
        .spawn(move || {
            let built = catch_unwind(AssertUnwindSafe(|| load.during(|| build(factory))))
                .unwrap_or_else(|panic| Err(LoadError::Runtime(message(&*panic).to_owned())));
            let mut device = match built {
                Ok(backend) => Device::new(&name, backend, options),
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            // Of the standard library: `crossbeam_channel` keeps what a lost receiver has not
            // read as long as there is a sender, and its clients would wait.
            let (commands, receiver) = sync_channel(device.shared.channel_capacity());
            if ready
                .send(Ok((commands, Arc::clone(&device.shared))))
                .is_ok()
            {
                device.run(&receiver);
                // Before the channel, by whose end others know that the memory is free.
                drop(device);
            }
        })
        .map_err(|error| LoadError::Runtime(format!("cannot start a device thread: {error}")))?;
    started
        .recv()
        .unwrap_or_else(|_| Err(LoadError::Runtime("the device thread ended".to_owned())))
}

fn build(factory: BackendFactory) -> Result<Box<dyn Backend>, LoadError> {
    let mut backend = factory()?;
    backend
        .warmup()
        .map_err(|error| LoadError::Runtime(format!("warm-up failed: {error}")))?;
    Ok(backend)
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic without a message")
}

impl Shared {
    fn channel_capacity(&self) -> usize {
        self.options.max_waiting + self.capabilities.slots as usize + WAKES
    }
}

/// Whether the loop goes on.
enum Turn {
    Continue,
    Stop,
    /// The backend is lost, with the reason.
    Collapse(String),
}

/// A token to be drawn in this step.
struct Due {
    /// Its entry in `sampled`.
    place: usize,
    sequence: SequenceId,
    /// Row of the logits.
    row: u32,
}

struct Device {
    shared: Arc<Shared>,
    backend: Box<dyn Backend>,
    cache: SlotCache,
    scheduler: Scheduler,
    streams: HashMap<SequenceId, Stream>,
    sampler: Sampler,
    outputs: Outputs,
    sampled: Vec<Sampled>,
    due: Vec<Due>,
    tokens: Vec<Result<SampledToken, SampleError>>,
    events: Vec<SequenceEvent>,
    next_id: u64,
    failed_steps: FailedRuns,
    /// Cancellations looked at so far.
    cancellations: u64,
}

impl Device {
    fn new(name: &str, backend: Box<dyn Backend>, options: GeneratorOptions) -> Self {
        let capabilities = backend.capabilities().clone();
        let failed_steps = FailedRuns::new(options.failed_steps);
        let row_bytes = capabilities.vocab.max(1) as usize * size_of::<f32>();
        let scheduler = Scheduler::new(SchedulerOptions {
            step_budget: options.step_budget,
            prefill_chunk: options.prefill_chunk,
            logits_budget: (options.logits_bytes / row_bytes).max(1),
            inter_token_target: options.inter_token_target,
            ageing: options.ageing,
            preemption: options.preemption,
            ragged: capabilities.ragged,
        });
        let capacity = capabilities.capacity as usize;
        let cache = SlotCache::new(capabilities.slots, capacity, options.prefix_reuse);
        let stats = GeneratorStats::default();
        let cells = u64::from(capabilities.slots) * u64::from(capabilities.capacity);
        stats.kv_tokens_capacity.store(cells, Relaxed);
        tracing::info!(
            model = name,
            provider = capabilities.provider,
            slots = capabilities.slots,
            tokens_per_slot = capabilities.capacity,
            kv_bytes = capabilities.kv_bytes,
            weight_bytes = capabilities.weight_bytes,
            max_waiting = options.max_waiting,
            "generator ready"
        );
        Self {
            shared: Arc::new(Shared {
                name: name.to_owned(),
                options,
                capabilities,
                stats,
                places: AtomicU64::new(0),
                closing: AtomicBool::new(false),
                aborting: AtomicBool::new(false),
                cancellations: AtomicU64::new(0),
                failure: OnceLock::new(),
                epoch: Instant::now(),
                step_began: AtomicU64::new(0),
            }),
            backend,
            cache,
            scheduler,
            streams: HashMap::new(),
            sampler: Sampler::new(),
            outputs: Outputs::default(),
            sampled: Vec::new(),
            due: Vec::new(),
            tokens: Vec::new(),
            events: Vec::new(),
            next_id: 0,
            failed_steps,
            cancellations: 0,
        }
    }

    fn run(&mut self, commands: &Receiver<Command>) {
        let end = loop {
            // After a panic nothing of the device is used but the clients' channels.
            match catch_unwind(AssertUnwindSafe(|| self.turn(commands))) {
                Ok(Turn::Continue) => {}
                Ok(Turn::Stop) => break None,
                Ok(Turn::Collapse(reason)) => break Some(reason),
                Err(panic) => break Some(format!("panic in the backend: {}", message(&*panic))),
            }
        };
        self.shared.closing.store(true, SeqCst);
        if let Some(reason) = end {
            tracing::error!(model = self.shared.name, reason, "generator lost");
            let _ = self.shared.failure.set(reason);
        }
        self.shared.step_began.store(0, Relaxed);
        // Those still in the channel are told when it is dropped with this thread.
        self.fail_all();
        let stats = &self.shared.stats;
        stats.running.store(0, Relaxed);
        stats.kv_tokens_used.store(0, Relaxed);
        stats.kv_tokens_cached.store(0, Relaxed);
    }

    /// One round of the loop: at most one step.
    fn turn(&mut self, commands: &Receiver<Command>) -> Turn {
        if !self.receive(commands) || self.shared.aborting.load(SeqCst) {
            return Turn::Stop;
        }
        self.drop_cancelled();
        let now = Instant::now();
        let plan = self.scheduler.schedule(&mut self.cache, now);
        self.events.extend_from_slice(&plan.events);
        self.publish(now);
        if plan.is_empty() {
            return Turn::Continue;
        }
        let run = self.step(&plan);
        let verdict = self.failed_steps.note(&run);
        if let Err(BackendError::Step(reason)) = run {
            self.fail_step(&plan, &reason);
        }
        match verdict {
            Ok(()) => Turn::Continue,
            Err(reason) => Turn::Collapse(reason),
        }
    }

    /// Takes in what was submitted; blocks while there is nothing else to do.
    /// False: nothing will ever come, and nothing is left.
    fn receive(&mut self, commands: &Receiver<Command>) -> bool {
        let mut next = commands.try_recv().ok();
        if next.is_none() && self.scheduler.is_idle() {
            if self.shared.closing.load(SeqCst) {
                return false;
            }
            let Ok(command) = commands.recv() else {
                return false;
            };
            next = Some(command);
        }
        while let Some(command) = next {
            if let Command::Submit(submission) = command {
                self.open(*submission);
            }
            next = commands.try_recv().ok();
        }
        true
    }

    fn open(&mut self, submission: Submission) {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let submitted = submission.submitted;
        let (sequence, stream) = Stream::open(submission, id, &self.shared.options.eos);
        self.streams.insert(id, stream);
        self.scheduler.add(sequence, submitted);
    }

    fn drop_cancelled(&mut self) {
        let cancellations = self.shared.cancellations.load(SeqCst);
        if cancellations == self.cancellations {
            return;
        }
        self.cancellations = cancellations;
        let cancelled = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.is_cancelled());
        for id in cancelled.map(|(id, _)| *id).collect::<Vec<_>>() {
            let event = self
                .scheduler
                .abort(id, FinishReason::Cancelled, &mut self.cache);
            self.events.extend(event);
        }
        self.publish(Instant::now());
    }

    fn step(&mut self, plan: &StepPlan) -> Result<(), BackendError> {
        let began = Instant::now();
        let since_epoch = began.saturating_duration_since(self.shared.epoch);
        let mark = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        self.shared.step_began.store(mark.max(1), Relaxed);
        // A device may still compute when the run is asked for; the draw waits for it.
        let run = self.execute(plan).and_then(|()| self.sample(plan));
        let time = began.elapsed();
        self.shared.step_began.store(0, Relaxed);
        run?;
        self.shared
            .stats
            .count_step(plan.rows.len(), plan.tokens(), time);
        for row in &plan.rows {
            if let Some(stream) = self.streams.get(&row.sequence) {
                stream.computed(row);
            }
        }
        self.scheduler.observe(plan, time);
        self.scheduler
            .update(plan, &self.sampled, &mut self.cache, &mut self.events);
        self.publish(Instant::now());
        Ok(())
    }

    fn execute(&mut self, plan: &StepPlan) -> Result<(), BackendError> {
        for copy in &plan.copies {
            self.backend.copy_prefix(copy.from, copy.to, copy.tokens)?;
            let copied = &self.shared.stats.copied_tokens;
            copied.fetch_add(u64::from(copy.tokens), Relaxed);
        }
        let rows = plan.rows.iter().map(|row| Row {
            slot: row.slot,
            past: row.past as u32,
            tokens: self.scheduler.tokens_of(row),
            wanted: row.wanted,
        });
        let batch = Batch {
            rows: rows.collect(),
        };
        self.backend.execute(&batch, &mut self.outputs)?;
        if self.outputs.ranges.len() == batch.rows.len() {
            Ok(())
        } else {
            Err(BackendError::Fatal(format!(
                "{} rows were run and {} came back",
                batch.rows.len(),
                self.outputs.ranges.len()
            )))
        }
    }

    /// Draws for every row that is to have a token.
    fn sample(&mut self, plan: &StepPlan) -> Result<(), BackendError> {
        self.read_prompts(plan)?;
        self.prepare_draws(plan);
        let draws: Vec<_> = self
            .due
            .iter()
            .filter_map(|due| Some(self.streams.get(&due.sequence)?.draw(due.row)))
            .collect();
        self.backend.draw(
            &mut self.sampler,
            &mut self.outputs,
            &draws,
            &mut self.tokens,
        )?;
        for (due, token) in self.due.iter().zip(self.tokens.drain(..)) {
            if let Some(stream) = self.streams.get_mut(&due.sequence) {
                let taken = stream.take(token);
                self.sampled[due.place].drawn = taken.unwrap_or_else(|why| {
                    stream.give_up(why);
                    Drawn::Nothing
                });
            }
        }
        Ok(())
    }

    /// Log-probabilities of prompts, before anything changes their logits.
    fn read_prompts(&mut self, plan: &StepPlan) -> Result<(), BackendError> {
        for (place, row) in plan.rows.iter().enumerate() {
            if row.wanted != Wanted::All {
                continue;
            }
            let logits = self.outputs.ranges[place].clone();
            if let Some(stream) = self.streams.get_mut(&row.sequence) {
                self.backend.fetch(logits.clone(), &mut self.outputs)?;
                stream.read_prompt(row, logits.start, &self.outputs);
            }
        }
        Ok(())
    }

    /// Fills `sampled` with nothing drawn yet, and `due` with what is to be drawn.
    fn prepare_draws(&mut self, plan: &StepPlan) {
        self.sampled.clear();
        self.due.clear();
        for (row, logits) in plan.rows.iter().zip(&self.outputs.ranges) {
            if row.wanted == Wanted::Nothing {
                continue;
            }
            let sequence = row.sequence;
            let place = self.sampled.len();
            match self.streams.get_mut(&sequence) {
                None => {}
                Some(_) if !row.draws => continue,
                Some(stream) => match stream.prepare() {
                    Err(why) => stream.give_up(why),
                    Ok(()) => self.due.push(Due {
                        place,
                        sequence,
                        row: (logits.end - 1) as u32,
                    }),
                },
            }
            self.sampled.push(Sampled {
                sequence,
                drawn: Drawn::Nothing,
            });
        }
    }

    /// Tells clients what has happened. The gauges come first, so that whoever has
    /// seen a sequence end finds it gone from them.
    fn publish(&mut self, now: Instant) {
        self.set_gauges();
        let stats = &self.shared.stats;
        for event in self.events.drain(..) {
            match event {
                SequenceEvent::Started { sequence, cached } => {
                    if let Some(stream) = self.streams.get_mut(&sequence) {
                        stream.start(cached, now);
                        stats.count_start(stream.prompt_tokens(), cached);
                    }
                }
                SequenceEvent::Resumed { sequence } => {
                    if let Some(stream) = self.streams.get_mut(&sequence) {
                        stream.place = None;
                    }
                }
                SequenceEvent::Preempted { sequence } => {
                    stats.preemptions.fetch_add(1, Relaxed);
                    if let Some(stream) = self.streams.get_mut(&sequence) {
                        stream.place = Some(Place::again(&self.shared, stream.priority));
                    }
                }
                SequenceEvent::Token { sequence, .. } => {
                    if let Some(stream) = self.streams.get_mut(&sequence) {
                        stats.generated_tokens.fetch_add(1, Relaxed);
                        stream.publish(now);
                    }
                }
                SequenceEvent::Finished {
                    sequence,
                    reason,
                    usage,
                } => {
                    if let Some(mut stream) = self.streams.remove(&sequence) {
                        stats.count_finished(reason, stream.age(now), usage.completion);
                        stream.finish(reason, usage, now);
                    }
                }
                SequenceEvent::Lost { sequence } => {
                    self.streams.remove(&sequence);
                    stats.failed.fetch_add(1, Relaxed);
                }
            }
        }
    }

    fn set_gauges(&self) {
        let stats = &self.shared.stats;
        let (used, cached) = self.cache.tokens_held();
        stats
            .running
            .store(self.scheduler.running() as u64, Relaxed);
        stats.kv_tokens_used.store(used as u64, Relaxed);
        stats.kv_tokens_cached.store(cached as u64, Relaxed);
    }

    fn fail_step(&mut self, plan: &StepPlan, reason: &str) {
        let lost = self.scheduler.fail(plan, &mut self.cache);
        tracing::error!(
            model = self.shared.name,
            reason,
            sequences = lost.len(),
            "step failed"
        );
        self.set_gauges();
        for id in lost {
            self.shared.stats.failed.fetch_add(1, Relaxed);
            if let Some(mut stream) = self.streams.remove(&id) {
                stream.fail(reason);
            }
        }
    }

    fn fail_all(&mut self) {
        let reason = self.shared.unavailable().to_string();
        for (_, mut stream) in self.streams.drain() {
            self.shared.stats.failed.fetch_add(1, Relaxed);
            stream.lose(&reason);
        }
    }
}
