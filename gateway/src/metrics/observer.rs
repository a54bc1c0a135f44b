//! Off the path: a thread that takes finished requests from a bounded queue,
//! feeds the windows and writes the access log.
//!
//! The request path only pushes a pointer. The thread looks at the queue at a
//! fixed rhythm instead of waiting on it, so a push never pays for a wake-up.
//! When writing cannot follow, lines are dropped and counted; nothing waits.

use std::collections::HashMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use metrics::Counter;
use parking_lot::Mutex;

use super::window::{Sample, Window};
use super::{Completed, Metrics};
use crate::context::{Fault, RequestContext};
use crate::release::Watch;
use crate::stack::access_log;

/// One finished request.
#[derive(Debug)]
pub struct Record {
    /// Id, principal and outcome.
    pub context: RequestContext,
    /// Endpoint, status, time and fault.
    pub completed: Completed,
    /// As sent.
    pub method: http::Method,
    /// Bytes of the response's body that were handed to the connection.
    pub bytes: u64,
    /// When it ended.
    pub ended: SystemTime,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One JSON object a line.
    Json,
    /// Columns for people.
    Pretty,
}

/// Hears of every finished request, on the observer's thread: it may lock and
/// allocate, and must not wait.
pub trait UsageSink: std::fmt::Debug + Send + Sync {
    /// One request is over.
    fn record(&self, record: &Record);
}

/// Where the log goes.
pub type Sink = Box<dyn Write + Send>;

/// Windows by deployment and revision.
pub(super) type Windows = HashMap<(Arc<str>, Arc<str>), Window>;

/// The queue and the thread behind it. Dropping it writes what is left.
#[derive(Debug)]
pub struct Observer {
    queue: Sender<Box<Record>>,
    metrics: Arc<Metrics>,
    windows: Arc<Mutex<Windows>>,
    usage: Arc<OnceLock<Arc<dyn UsageSink>>>,
    releases: Arc<OnceLock<Arc<Watch>>>,
    stop: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Rhythm at which the queue is emptied.
const TICK: Duration = Duration::from_millis(20);
/// Batches of lines that may wait for the writer.
const BATCHES: usize = 64;
/// Bytes at which a batch is handed to the writer.
const BATCH: usize = 64 << 10;

impl Observer {
    /// Starts the thread. `log` is `None` to keep windows only.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        metrics: Arc<Metrics>,
        capacity: usize,
        log: Option<(Style, Sink)>,
    ) -> std::io::Result<Self> {
        let (queue, records) = crossbeam_channel::bounded(capacity);
        let windows = Arc::new(Mutex::new(Windows::new()));
        let usage = Arc::new(OnceLock::new());
        let releases = Arc::new(OnceLock::new());
        let stop = Arc::new(AtomicBool::new(false));
        let reopen = Arc::new(AtomicBool::new(false));
        let writer = log
            .map(|(style, sink)| Writer::start(style, sink, metrics.dropped_records.clone()))
            .transpose()?;
        let thread = std::thread::Builder::new()
            .name("observer".to_owned())
            .spawn({
                let mut drain = Drain {
                    records,
                    metrics: Arc::clone(&metrics),
                    windows: Arc::clone(&windows),
                    usage: Arc::clone(&usage),
                    releases: Arc::clone(&releases),
                    reopen: Arc::clone(&reopen),
                    writer,
                };
                let stop = Arc::clone(&stop);
                move || {
                    while !stop.load(Relaxed) {
                        // A fault in one record must not end the log, the ledger and the analysis of all others.
                        let done = catch_unwind(AssertUnwindSafe(|| drain.once()));
                        if done.is_err() {
                            tracing::error!("a finished request could not be accounted for");
                        }
                        std::thread::park_timeout(TICK);
                    }
                    drain.once();
                }
            })?;
        Ok(Self {
            queue,
            metrics,
            windows,
            usage,
            releases,
            stop,
            reopen,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Hands a finished request over, or drops and counts it.
    pub fn push(&self, record: Record) {
        if let Err(TrySendError::Full(record) | TrySendError::Disconnected(record)) =
            self.queue.try_send(Box::new(record))
        {
            self.metrics.dropped_records.increment(1);
            if record.context.outcome.placement().is_some() {
                self.metrics.dropped_outcomes.increment(1);
            }
        }
    }

    /// Hands requests under release on to `releases`. Once.
    pub(crate) fn follow(&self, releases: Arc<Watch>) {
        _ = self.releases.set(releases);
    }

    /// Tells `sink` of every request from now on. Once; a second sink is ignored.
    pub fn tell(&self, sink: Arc<dyn UsageSink>) {
        _ = self.usage.set(sink);
    }

    /// Has the access log look where its file's name leads now, and open that: its file was moved away.
    pub fn reopen_log(&self) {
        self.reopen.store(true, Relaxed);
    }

    /// Reads the windows.
    pub(super) fn with_windows<T>(&self, read: impl FnOnce(&Windows) -> T) -> T {
        read(&self.windows.lock())
    }

    /// Writes what is queued and ends the thread. Later records are dropped.
    pub fn finish(&self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.lock().take() {
            thread.thread().unpark();
            _ = thread.join();
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.finish();
    }
}

struct Drain {
    records: Receiver<Box<Record>>,
    metrics: Arc<Metrics>,
    windows: Arc<Mutex<Windows>>,
    usage: Arc<OnceLock<Arc<dyn UsageSink>>>,
    releases: Arc<OnceLock<Arc<Watch>>>,
    reopen: Arc<AtomicBool>,
    writer: Option<Writer>,
}

impl Drain {
    fn once(&mut self) {
        let mut lines = Vec::new();
        let mut count = 0;
        while let Ok(record) = self.records.try_recv() {
            self.note(&record);
            if let Some(usage) = self.usage.get() {
                usage.record(&record);
            }
            if let Some(releases) = self.releases.get() {
                releases.finished(&record);
            }
            if let Some(writer) = &self.writer {
                access_log::format(&mut lines, &record, writer.style);
                count += 1;
                if lines.len() >= BATCH {
                    self.write(&mut lines, &mut count);
                }
            }
        }
        self.write(&mut lines, &mut count);
        if self.reopen.swap(false, Relaxed)
            && let Some(writer) = &self.writer
        {
            // Nothing to write, but its end, where the file is looked for. Where the queue is full, there is more to come.
            _ = writer.batches.try_send(Vec::new());
        }
    }

    fn note(&self, record: &Record) {
        let Some(deployment) = record.context.outcome.deployment() else {
            return;
        };
        let usage = record.context.outcome.usage();
        let sample = Sample {
            total: record.completed.total,
            ttft: record.context.outcome.ttft(),
            prompt_tokens: usage.prompt as u64,
            completion_tokens: usage.completion as u64,
            failed: record.completed.fault == Some(Fault::Server),
        };
        let now = Instant::now().saturating_duration_since(self.metrics.started);
        let key = (
            Arc::clone(&deployment.name),
            Arc::clone(&deployment.revision),
        );
        self.windows
            .lock()
            .entry(key)
            .or_default()
            .add(now, &sample);
    }

    fn write(&self, lines: &mut Vec<u8>, count: &mut u64) {
        let Some(writer) = &self.writer else { return };
        if lines.is_empty() {
            return;
        }
        if writer.batches.try_send(std::mem::take(lines)).is_err() {
            self.metrics.dropped_records.increment(*count);
        }
        *count = 0;
    }
}

/// A thread that may block on its sink (a full pipe) without anyone noticing.
struct Writer {
    style: Style,
    batches: Sender<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(style: Style, mut sink: Sink, dropped: Counter) -> std::io::Result<Self> {
        let (batches, incoming) = crossbeam_channel::bounded::<Vec<u8>>(BATCHES);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                let mut torn = false;
                for batch in incoming {
                    // After a write that broke off, on a full disk, the rest of its line is missing.
                    let began = if torn { sink.write_all(b"\n") } else { Ok(()) };
                    // A closed pipe or a full disk is no reason to stop serving.
                    let written = began
                        .and_then(|()| sink.write_all(&batch))
                        .and_then(|()| sink.flush());
                    torn = written.is_err();
                    if torn {
                        let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                        dropped.increment(lines as u64);
                    }
                }
            })?;
        Ok(Self {
            style,
            batches,
            thread: Some(thread),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Closing the channel lets the thread finish what it holds.
        self.batches = crossbeam_channel::bounded(0).0;
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}
