//! One child from its start to its end, watched by a thread of its own: the signal by which the child dies with us is
//! sent when the thread that started it ends, and the threads of a runtime come and go.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use sluice_engine::backend::onnx::Bytes;
use tokio::sync::{oneshot, watch};

use super::host::{Order, REQUEST_TOO_LONG, Said};
use super::{End, Ended, HostProgram};

/// Between two looks at a child. A model can fill some hundred megabytes in that time.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of its last words that are kept.
const WORDS: usize = 4096;
/// Variables that a child is given: where libraries lie, and which GPUs there are. None holds a secret.
const VARIABLES: [&str; 5] = [
    "ORT_DYLIB_PATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "RUST_BACKTRACE",
];

/// What a process is started with.
pub(super) struct Start {
    pub(super) program: HostProgram,
    /// How people call it: `the model's process`.
    pub(super) name: &'static str,
    pub(super) order: Order,
    pub(super) load_timeout: Duration,
    /// Dropped when it has ended.
    pub(super) until_its_end: Box<dyn FnOnce(End) + Send>,
}

/// A running child. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Process {
    _wanted: Sender<()>,
    pub(super) ended: watch::Receiver<Option<Ended>>,
}

/// Starts it. What it says first comes by the receiver; nothing comes if it ends before.
///
/// # Errors
/// There is no thread for it.
pub(super) fn start(start: Start) -> std::io::Result<(Process, oneshot::Receiver<Said>)> {
    let (wanted, unwanted) = channel();
    let (tell, ended) = watch::channel(None);
    let (say, said) = oneshot::channel();
    std::thread::Builder::new()
        .name("model-host".into())
        .spawn(move || {
            let found = match Watched::begin(&start) {
                Ok(child) => child.watch(&start, &unwanted, say),
                Err(error) => Ended {
                    end: End::NotLoaded,
                    why: format!("{} cannot be started: {error}", start.name),
                },
            };
            (start.until_its_end)(found.end);
            _ = tell.send(Some(found));
        })?;
    let process = Process {
        _wanted: wanted,
        ended,
    };
    Ok((process, said))
}

struct Watched {
    child: Child,
    lines: Receiver<String>,
    words: Arc<Mutex<VecDeque<u8>>>,
    began: Instant,
}

impl Watched {
    fn begin(start: &Start) -> std::io::Result<Self> {
        let passed = VARIABLES
            .iter()
            .filter_map(|name| Some((*name, std::env::var_os(name)?)));
        let mut child = Command::new(&start.program.program)
            .args(&start.program.arguments)
            .env_clear()
            .envs(passed)
            // Threads of its own for every arena would count as much memory.
            .env("MALLOC_ARENA_MAX", "2")
            .current_dir(&start.order.scratch)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (say, lines) = channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                // One line is all that is read: a child that goes on talking is not listened to.
                let mut line = String::new();
                let mut output = BufReader::new(output.take(1 << 20));
                if output.read_line(&mut line).is_ok_and(|read| read > 0) {
                    _ = say.send(line);
                }
                _ = std::io::copy(&mut output.into_inner().into_inner(), &mut std::io::sink());
            });
        }
        let words: Arc<Mutex<VecDeque<u8>>> = Arc::default();
        if let Some(mut errors) = child.stderr.take() {
            let kept = Arc::clone(&words);
            std::thread::spawn(move || {
                let mut piece = [0; 1024];
                while let Ok(read @ 1..) = errors.read(&mut piece) {
                    let mut kept = kept.lock();
                    kept.extend(&piece[..read]);
                    let surplus = kept.len().saturating_sub(WORDS);
                    kept.drain(..surplus);
                }
            });
        }
        let mut line = serde_json::to_vec(&start.order)?;
        line.push(b'\n');
        let mut watched = Self {
            child,
            lines,
            words,
            began: Instant::now(),
        };
        let told = match &mut watched.child.stdin {
            Some(input) => input.write_all(&line),
            None => Ok(()),
        };
        if let Err(error) = told {
            watched.kill();
            return Err(error);
        }
        Ok(watched)
    }

    /// Until its end, however that comes.
    fn watch(
        mut self,
        start: &Start,
        unwanted: &Receiver<()>,
        say: oneshot::Sender<Said>,
    ) -> Ended {
        let mut say = Some(say);
        let mut not_loaded = None;
        loop {
            match unwanted.recv_timeout(LOOK) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                    self.kill();
                    return start.ended(End::Stopped, "is needed no more");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Ok(line) = self.lines.try_recv() {
                match serde_json::from_str(&line) {
                    Ok(said @ Said::Loaded { .. }) => _ = say.take().map(|say| say.send(said)),
                    Ok(Said::NotLoaded { why }) => not_loaded = Some(why),
                    Err(error) => not_loaded = Some(format!("it said something else: {error}")),
                }
            }
            if let Some(why) = not_loaded {
                self.kill();
                return Ended {
                    end: End::NotLoaded,
                    why,
                };
            }
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    // What it started is no longer wanted either.
                    self.kill_group();
                    return self.explain(start, status);
                }
                Err(error) => {
                    self.kill();
                    return start.ended(End::Crashed, &format!("cannot be watched: {error}"));
                }
            }
            if used(self.child.id()).is_some_and(|bytes| bytes > start.order.memory) {
                self.kill();
                let limit = Bytes(start.order.memory);
                let why = format!("exceeded {limit} of memory (sandbox.memory)");
                return start.ended(End::Memory, &why);
            }
            if say.is_some() && self.began.elapsed() > start.load_timeout {
                self.kill();
                let limit = start.load_timeout.as_secs_f64();
                let why = format!("took longer than {limit} s to load (sandbox.load_timeout)");
                return start.ended(End::Time, &why);
            }
        }
    }

    /// Why it ended by itself.
    fn explain(&self, start: &Start, status: ExitStatus) -> Ended {
        let ended = |end, why: &str| start.ended(end, why);
        let words: Vec<u8> = self.words.lock().iter().copied().collect();
        let words = String::from_utf8_lossy(&words);
        let last = words.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.unwrap_or("it left no word").trim();
        if last.ends_with(REQUEST_TOO_LONG) {
            return ended(End::Time, last);
        }
        if words.contains("memory allocation of") {
            return ended(
                End::Memory,
                &format!("ran out of the memory it may use ({last})"),
            );
        }
        if words.contains("overflowed its stack") {
            return ended(
                End::Crashed,
                "overflowed its stack: something in it is nested too deeply",
            );
        }
        match status.signal() {
            Some(signal) => ended(End::Crashed, &format!("ended by signal {signal}: {last}")),
            None => ended(End::Crashed, &format!("ended with {status}: {last}")),
        }
    }

    fn kill(&mut self) {
        self.kill_group();
        _ = self.child.kill();
        // Reaped, so that its number means nobody else.
        _ = self.child.wait();
    }

    fn kill_group(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Gone already: nothing to do.
            _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Start {
    fn ended(&self, end: End, why: &str) -> Ended {
        Ended {
            end,
            why: format!("{} {why}", self.name),
        }
    }
}

/// Memory of its own: files that it maps, such as weights, can be taken from it at any time.
fn used(pid: u32) -> Option<u64> {
    own_memory(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn own_memory(status: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let own = ["RssAnon:", "RssShmem:", "VmSwap:"].map(kib);
    own.iter().any(Option::is_some).then(|| {
        let kib: u64 = own.iter().flatten().sum();
        kib * 1024
    })
}

#[cfg(test)]
mod tests;
