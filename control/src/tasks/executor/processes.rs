//! Finding and ending every process that a program has started, also those that left its process group.
//!
//! A program's processes are those of its group, those that carry its mark in their environment, and the
//! descendants of either. A process that wipes its environment, leaves the group and loses its parent would
//! escape; that takes intent. Linux only: elsewhere there is only the group.

use std::collections::HashSet;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The variable that carries the mark: `NAMESPACE/WORKER/START/RUN`, where the first three name the worker's process.
pub(super) const MARK: &str = "SLUICE_RUN_MARK";

/// A process as /proc shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    pid: Pid,
    parent: i32,
    group: i32,
    /// Ticks since the machine started; with the pid it names a process for good.
    start: u64,
    zombie: bool,
}

fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    Some(Process {
        pid: Pid::from_raw(pid)?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// The mark in a process's environment, if we may read it.
fn mark_of(pid: Pid) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment
        .split(|&byte| byte == 0)
        .find_map(|variable| {
            std::str::from_utf8(variable)
                .ok()?
                .strip_prefix(MARK)?
                .strip_prefix('=')
        })
        .map(str::to_owned)
}

/// This process, so that others can tell whether it is still there.
fn self_name() -> Option<String> {
    // A container's process 7 is not the machine's.
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let pid = i32::try_from(std::process::id()).ok()?;
    Some(format!(
        "{}/{pid}/{}",
        namespace.display(),
        process(pid)?.start
    ))
}

/// The whole mark of a run of this process.
pub(super) fn mark(run: &str) -> String {
    format!(
        "{}/{run}",
        self_name().unwrap_or_else(|| "unknown/0/0".into())
    )
}

/// The processes of one program.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) leader: Pid,
    pub(super) mark: String,
}

impl Tree {
    fn processes(&self) -> Vec<Process> {
        let everyone = all();
        let own = |process: &Process| {
            process.group == self.leader.as_raw_nonzero().get()
                || mark_of(process.pid).is_some_and(|mark| mark == self.mark)
        };
        let mut found: HashSet<Pid> = everyone
            .iter()
            .filter(|it| own(it))
            .map(|it| it.pid)
            .collect();
        // Parents first or not: repeat until nobody's child is new.
        loop {
            let before = found.len();
            for process in &everyone {
                if Pid::from_raw(process.parent).is_some_and(|parent| found.contains(&parent)) {
                    found.insert(process.pid);
                }
            }
            if found.len() == before {
                break;
            }
        }
        everyone
            .into_iter()
            .filter(|process| found.contains(&process.pid) && !process.zombie)
            .collect()
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.processes()
            .iter()
            .for_each(|process| send(process, signal));
    }

    /// Kills until nobody is left; those that start others while they are killed are met again.
    pub(super) fn kill(&self) {
        for _ in 0..KILLS {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            processes
                .iter()
                .for_each(|process| send(process, Signal::KILL));
            std::thread::sleep(Duration::from_millis(2));
        }
        tracing::error!(leader = %self.leader, "processes of a task could not be killed");
    }

    /// Bytes of memory in use, without mapped files, which the kernel can take back.
    pub(super) fn memory(&self) -> u64 {
        self.processes().iter().filter_map(memory).sum()
    }
}

/// Rounds of killing: a fork bomb loses within a few, a process in an uninterruptible wait needs patience.
const KILLS: u32 = 500;

/// Sends by a handle, so that a process that took over the number meanwhile is not hit.
fn send(target: &Process, signal: Signal) {
    let Ok(handle) = pidfd_open(target.pid, PidfdFlags::empty()) else {
        return;
    };
    if process(target.pid.as_raw_nonzero().get()).is_some_and(|now| now.start == target.start) {
        // Fails if it has just ended, which is what is wanted.
        _ = pidfd_send_signal(&handle, signal);
    }
}

fn memory(process: &Process) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).ok()?;
    let kib = |line: &str| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
    let lines = status.lines().filter(|line| {
        line.starts_with("RssAnon:") || line.starts_with("RssShmem:") || line.starts_with("VmSwap:")
    });
    Some(lines.filter_map(kib).sum::<u64>() * 1024)
}

/// Ends what workers of this machine left behind when they were killed; returns how many processes that were.
pub fn end_orphans() -> usize {
    let Some(own) = self_name() else { return 0 };
    let Some((namespace, _)) = own.split_once('/') else {
        return 0;
    };
    let mut ended = 0;
    for process in all() {
        let Some(mark) = mark_of(process.pid) else {
            continue;
        };
        if !process.zombie && worker_is_gone(&mark, namespace) {
            send(&process, Signal::KILL);
            ended += 1;
        }
    }
    ended
}

fn worker_is_gone(mark: &str, namespace: &str) -> bool {
    let mut parts = mark.splitn(4, '/');
    let (Some(theirs), Some(pid), Some(start)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let (Ok(pid), Ok(start)) = (pid.parse::<i32>(), start.parse::<u64>()) else {
        return false;
    };
    theirs == namespace && pid > 0 && process(pid).is_none_or(|it| it.start != start || it.zombie)
}
