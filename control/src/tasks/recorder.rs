//! What an attempt reports, gathered in memory and written to the store twice a second: a chatty program
//! costs a row a moment, not a row a line. All of it is bounded; what does not fit is counted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use parking_lot::Mutex;
use serde_json::{Value as Json, json};

use super::journal::{EventKind, Report};
use crate::time::Timestamp;

/// Events kept until the next write; the oldest make room.
const EVENTS: usize = 1000;
/// Bytes of log text kept until the next write; the oldest lines make room.
const LOG: usize = 64 * 1024;

/// Where an attempt's reports meet on their way to the store.
#[derive(Debug)]
pub(super) struct Recorder {
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    progress: Option<(f64, Option<String>)>,
    events: VecDeque<(Timestamp, EventKind, Json)>,
    events_left_out: u64,
    log: String,
    log_left_out: usize,
    file: Option<LogFile>,
}

/// The whole log, on this machine's disk.
#[derive(Debug)]
struct LogFile {
    file: File,
    room: u64,
}

impl Recorder {
    /// `file` gets the log as a whole, up to `limit` bytes.
    pub(super) fn new(file: &Path, limit: u64) -> std::io::Result<Self> {
        let file = LogFile {
            file: File::create(file)?,
            room: limit,
        };
        let pending = Pending {
            file: Some(file),
            ..Pending::default()
        };
        Ok(Self {
            pending: Mutex::new(pending),
        })
    }

    pub(super) fn event(&self, kind: EventKind, body: Json) {
        self.pending.lock().push(kind, body);
    }

    pub(super) fn progress(&self, fraction: f64, message: Option<String>) {
        let fraction = if fraction.is_finite() {
            fraction.clamp(0.0, 1.0)
        } else {
            0.0
        };
        let mut pending = self.pending.lock();
        // A watcher wants to know where it stands now: of several, the last is written.
        pending
            .events
            .retain(|(_, kind, _)| *kind != EventKind::Progress);
        pending.push(
            EventKind::Progress,
            json!({"fraction": fraction, "message": message}),
        );
        pending.progress = Some((fraction, message));
    }

    /// A line of the log, without its end.
    pub(super) fn log(&self, line: &str) {
        let mut pending = self.pending.lock();
        if let Some(file) = &mut pending.file
            && file.write(line).is_err()
        {
            // A full disk should not stop the work.
            pending.file = None;
        }
        pending.log.push_str(line);
        pending.log.push('\n');
        pending.forget_old_lines();
    }

    /// What was taken and could not be written, before what came since. What has no room any more is counted.
    pub(super) fn put_back(&self, report: Report) {
        let mut pending = self.pending.lock();
        let room = EVENTS.saturating_sub(pending.events.len());
        let kept = report.events.len().min(room);
        pending.events_left_out += (report.events.len() - kept) as u64;
        for event in report.events.into_iter().rev().take(kept) {
            pending.events.push_front(event);
        }
        pending.progress = pending.progress.take().or(report.progress);
    }

    /// Everything since the last time.
    pub(super) fn take(&self) -> Report {
        let mut pending = self.pending.lock();
        if pending.events_left_out > 0 {
            let left_out = std::mem::take(&mut pending.events_left_out);
            pending.push(
                EventKind::Warning,
                json!({"message": format!("{left_out} events came too fast and were left out")}),
            );
        }
        if !pending.log.is_empty() {
            let mut text = std::mem::take(&mut pending.log);
            let left_out = std::mem::take(&mut pending.log_left_out);
            if left_out > 0 {
                text.insert_str(0, &format!("[{left_out} bytes left out]\n"));
            }
            pending.push(EventKind::Log, json!({"text": text}));
        }
        Report {
            progress: pending.progress.take(),
            events: std::mem::take(&mut pending.events).into(),
        }
    }
}

impl Pending {
    fn push(&mut self, kind: EventKind, body: Json) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
            self.events_left_out += 1;
        }
        self.events.push_back((Timestamp::now(), kind, body));
    }

    fn forget_old_lines(&mut self) {
        if self.log.len() <= LOG {
            return;
        }
        // Half at once, so that not every line moves the rest. A line ends somewhere after there.
        let from = self.log.len() - LOG / 2;
        let cut = self.log.as_bytes()[from..]
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(self.log.len(), |at| from + at + 1);
        self.log.drain(..cut);
        self.log_left_out += cut;
    }
}

impl LogFile {
    fn write(&mut self, line: &str) -> std::io::Result<()> {
        let bytes = line.len() as u64 + 1;
        if self.room >= bytes {
            self.room -= bytes;
            writeln!(self.file, "{line}")?;
        } else if self.room > 0 {
            self.room = 0;
            writeln!(
                self.file,
                "[the log is longer than its limit; the rest is left out]"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
