//! Programs as children of this process.

use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Stdio};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;

use super::lines::Lines;
use super::processes::{MARK, Tree, mark};
use super::{Command, Executor, ExecutorError, Exit, Limits, Output};

/// Runs programs on this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalExecutor;

/// Sets the limits and moves the events' pipe from where we can pass it to where the program expects it,
/// then becomes the program. Processor time ends with a signal of its own, a second later with a kill: `sh -c START sh ADDRESS_SPACE_KIB CPU_SECONDS PROGRAM ARGUMENT…`.
const START: &str = "exec 3>&0 </dev/null; [ -z \"$1\" ] || ulimit -v \"$1\" || exit 126; \
                     [ -z \"$2\" ] || { ulimit -S -t \"$2\" && ulimit -H -t $(($2 + 1)); } || exit 126; shift 2; exec \"$@\"";
const EVENTS_DESCRIPTOR: &str = "3";

/// Between two looks at how much memory a program uses.
const LOOK: Duration = Duration::from_millis(200);
/// How long output may still come after the last process has ended.
const LATE_OUTPUT: Duration = Duration::from_secs(2);

impl Executor for LocalExecutor {
    fn run<'a>(
        &'a self,
        command: Command,
        run: &'a str,
        sink: &'a (dyn Fn(Output<'_>) + Send + Sync),
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Exit, ExecutorError>> {
        async move {
            let program = command.program.display().to_string();
            let limits = command.limits;
            let (running, pipes) =
                start(&command, mark(run)).map_err(|source| ExecutorError::Start {
                    program: program.clone(),
                    source,
                })?;
            follow(running, pipes, limits, sink, stop)
                .await
                .map_err(|source| ExecutorError::Follow { program, source })
        }
        .boxed()
    }
}

/// A program that is killed with all its processes if nobody follows it any more.
struct Running {
    tree: Tree,
    child: Option<Child>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.tree.kill();
            // It was killed, so this returns; without it a zombie would stay.
            _ = child.wait();
        }
    }
}

struct Pipes {
    output: Receiver,
    events: Receiver,
}

fn start(command: &Command, mark: String) -> std::io::Result<(Running, Pipes)> {
    let (output, output_end) = std::io::pipe()?;
    let (events, events_end) = std::io::pipe()?;
    let pipes = Pipes {
        output: Receiver::from_owned_fd(OwnedFd::from(output))?,
        events: Receiver::from_owned_fd(OwnedFd::from(events))?,
    };
    let limit = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let mut shell = std::process::Command::new("/bin/sh");
    shell
        .args(["-c", START, "sh"])
        .arg(limit(
            command
                .limits
                .address_space
                .map(|bytes| bytes.div_ceil(1024)),
        ))
        .arg(limit(command.limits.cpu.map(|cpu| cpu.as_secs().max(1))))
        .arg(&command.program)
        .args(&command.arguments)
        .current_dir(&command.folder)
        .env_clear()
        .envs(command.environment.variables())
        .envs(command.variables.iter().map(|(name, value)| (name, value)))
        .env(MARK, &mark)
        .env("SLUICE_EVENTS_FD", EVENTS_DESCRIPTOR)
        .process_group(0)
        .stdin(Stdio::from(events_end))
        .stdout(Stdio::from(output_end.try_clone()?))
        .stderr(Stdio::from(output_end));
    let child = shell.spawn()?;
    let leader = Pid::from_child(&child);
    let running = Running {
        tree: Tree { leader, mark },
        child: Some(child),
    };
    // Dropping `shell` closes our copies of the pipes' far ends: they end when the last process does.
    Ok((running, pipes))
}

/// Why we ended it.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Stopped,
    OutOfMemory(u64),
    WallTime,
}

async fn follow(
    mut running: Running,
    pipes: Pipes,
    limits: Limits,
    sink: &(dyn Fn(Output<'_>) + Send + Sync),
    stop: &CancellationToken,
) -> std::io::Result<Exit> {
    let Pipes { output, events } = pipes;
    let reading = async {
        tokio::join!(
            read(output, |line| sink(Output::Line(line))),
            read(events, |line| sink(Output::Event(line)))
        );
    };
    tokio::pin!(reading);
    let mut read_all = false;
    let leader = running.tree.leader;
    // Without reaping it: its number, and its group's, stay taken until nobody is left in it.
    let ended = tokio::task::spawn_blocking(move || {
        loop {
            match waitid(
                WaitId::Pid(leader),
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map(drop),
            }
        }
    });
    let verdict = {
        let supervised = supervise(&running.tree, limits, stop, ended);
        tokio::pin!(supervised);
        loop {
            tokio::select! {
                verdict = &mut supervised => break verdict?,
                () = &mut reading, if !read_all => read_all = true,
            }
        }
    };
    // Whoever is left has outlived the program.
    blocking(&running.tree, Tree::kill).await?;
    let status = match running.child.take() {
        Some(mut child) => child.wait()?,
        None => return Err(std::io::Error::other("the child was waited for twice")),
    };
    if !read_all {
        // A process that we could not find may hold the pipe.
        _ = tokio::time::timeout(LATE_OUTPUT, reading).await;
    }
    Ok(match (verdict, status.code(), status.signal()) {
        // It may have ended by itself in the same moment.
        (Some(_), Some(0), _) => Exit::Code(0),
        (Some(Verdict::Stopped), ..) => Exit::Stopped,
        (Some(Verdict::OutOfMemory(bytes)), ..) => Exit::OutOfMemory(bytes),
        (Some(Verdict::WallTime), ..) => Exit::WallTime,
        (None, Some(code), _) => Exit::Code(code),
        (None, None, Some(signal)) if signal == Signal::XCPU.as_raw() => Exit::CpuTime,
        (None, None, signal) => Exit::Signal(signal.unwrap_or(0)),
    })
}

/// Until the program has ended, by itself or because it had to.
async fn supervise(
    tree: &Tree,
    limits: Limits,
    stop: &CancellationToken,
    ended: tokio::task::JoinHandle<rustix::io::Result<()>>,
) -> std::io::Result<Option<Verdict>> {
    tokio::pin!(ended);
    let wall = async {
        match limits.wall {
            Some(wall) => tokio::time::sleep(wall).await,
            None => std::future::pending().await,
        }
    };
    let verdict = tokio::select! {
        result = &mut ended => {
            result.map_err(std::io::Error::other)??;
            return Ok(None);
        }
        () = stop.cancelled() => Verdict::Stopped,
        () = wall => Verdict::WallTime,
        used = memory_exceeded(tree, limits.memory) => Verdict::OutOfMemory(used?),
    };
    if !matches!(verdict, Verdict::OutOfMemory(_)) {
        blocking(tree, |tree| tree.signal(Signal::TERM)).await?;
        if tokio::time::timeout(limits.grace, &mut ended).await.is_ok() {
            return Ok(Some(verdict));
        }
    }
    blocking(tree, Tree::kill).await?;
    ended.await.map_err(std::io::Error::other)??;
    Ok(Some(verdict))
}

/// Resolves with the bytes in use, once they are more than the limit.
async fn memory_exceeded(tree: &Tree, limit: Option<u64>) -> std::io::Result<u64> {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(LOOK).await;
        let used = blocking(tree, Tree::memory).await?;
        if used > limit {
            return Ok(used);
        }
    }
}

/// Looking through /proc takes milliseconds, too long for an async worker.
async fn blocking<T: Send + 'static>(
    tree: &Tree,
    work: impl FnOnce(&Tree) -> T + Send + 'static,
) -> std::io::Result<T> {
    let tree = tree.clone();
    tokio::task::spawn_blocking(move || work(&tree))
        .await
        .map_err(std::io::Error::other)
}

async fn read(mut pipe: Receiver, mut line: impl FnMut(&str)) {
    let mut lines = Lines::default();
    let mut buffer = vec![0; 16 * 1024];
    // A pipe that cannot be read any more has ended.
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        lines.feed(&buffer[..count], &mut line);
    }
    lines.flush(&mut line);
}
