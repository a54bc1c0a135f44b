//! What a model's process gives up, in the order in which it can: the death of its parent is its own, limits, rights on
//! files and the network (Landlock), system calls (seccomp). What the kernel lacks is left out and said; the limits of
//! memory and time, which the parent watches, hold in any case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{
    Resource, Rlimit, Signal, getpid, getppid, nice, set_parent_process_death_signal, setrlimit,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use sluice_control::sandbox::host::Order;
use sluice_gateway::config::ProviderConfig;

/// What is asked of Landlock; an older kernel does what it can.
const LANDLOCK: ABI = ABI::V6;
/// Address space beyond what may be used: reserved by allocators and stacks, never touched.
const RESERVED: u64 = 16 << 30;
/// Open files.
const FILES: u64 = 1024;
/// How much others come first.
const NICE: i32 = 10;

/// Gives it all up. What holds now, in words.
///
/// # Errors
/// Limits that every kernel has cannot be set.
pub(super) fn confine(order: &Order) -> Result<String> {
    // Raised to the folder's paths: relative ones would mean something else by now.
    ensure!(order.data.is_absolute(), "data: must be an absolute path");
    set_parent_process_death_signal(Some(Signal::KILL)).context("the parent's death")?;
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent != Some(order.parent) {
        bail!("the process that asked is gone");
    }
    limits(order)?;
    let gpu = on_gpu(order);
    let mut holds = vec!["memory", "time"];
    match restrict_files(order, gpu) {
        Ok(RulesetStatus::FullyEnforced) => holds.extend(["files", "network"]),
        Ok(RulesetStatus::PartiallyEnforced) => holds.push("files"),
        Ok(RulesetStatus::NotEnforced) | Err(_) => {}
    }
    // Drivers of GPUs do more than can be listed here.
    if !gpu && restrict_calls().is_ok() {
        holds.push("system calls");
    }
    Ok(holds.join(", "))
}

/// Which isolation this machine has, found out on a thread that is thrown away.
pub(in crate::cli) fn available() -> Vec<(&'static str, bool)> {
    let found = std::thread::spawn(|| {
        let files = ruleset()
            .and_then(|rules| Ok(rules.restrict_self()?.ruleset))
            .unwrap_or(RulesetStatus::NotEnforced);
        let calls = restrict_calls().is_ok();
        vec![
            ("memory and time", true),
            ("files", files != RulesetStatus::NotEnforced),
            ("network", files == RulesetStatus::FullyEnforced || calls),
            ("system calls", calls),
        ]
    });
    found.join().unwrap_or_default()
}

fn on_gpu(order: &Order) -> bool {
    let mut model = order.config.iter();
    model.any(|config| config.provider != ProviderConfig::Cpu)
}

fn limits(order: &Order) -> Result<()> {
    let at_most = |bytes: u64| Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    let space = order.memory.saturating_mul(2).saturating_add(RESERVED);
    // CUDA reserves the address space of all GPUs.
    if !on_gpu(order) {
        setrlimit(Resource::As, at_most(space)).context("RLIMIT_AS")?;
        setrlimit(Resource::Fsize, at_most(0)).context("RLIMIT_FSIZE")?;
    }
    setrlimit(Resource::Core, at_most(0)).context("RLIMIT_CORE")?;
    setrlimit(Resource::Nofile, at_most(FILES)).context("RLIMIT_NOFILE")?;
    // Others' requests come first, and where memory is short this process goes first. Neither is needed to be safe.
    _ = nice(NICE);
    _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

fn ruleset() -> Result<landlock::RulesetCreated> {
    Ok(Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?)
}

/// Reading: the model, and what libraries need. Writing: nothing, but for builds of a GPU's engines.
fn restrict_files(order: &Order, gpu: bool) -> Result<RulesetStatus> {
    let read = AccessFs::from_read(LANDLOCK);
    let mut readable: Vec<PathBuf> = [
        "/usr",
        "/lib",
        "/lib64",
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/proc/self",
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/proc/sys/vm/overcommit_memory",
        "/sys/devices/system",
        "/sys/fs/cgroup",
        "/dev/urandom",
    ]
    .map(PathBuf::from)
    .into();
    readable.extend(order.config.iter().filter_map(|config| config.path.clone()));
    readable.push(order.data.join("lib"));
    let named = |name: &str| std::env::var_os(name);
    let library = named("ORT_DYLIB_PATH").map(PathBuf::from);
    readable.extend(
        library
            .as_deref()
            .and_then(Path::parent)
            .map(Path::to_owned),
    );
    readable.extend(
        named("LD_LIBRARY_PATH")
            .iter()
            .flat_map(std::env::split_paths),
    );
    let mut writable = vec![PathBuf::from("/dev/null")];
    if gpu {
        readable.extend(["/sys", "/opt", "/proc/driver", "/proc/devices"].map(PathBuf::from));
        writable.extend([PathBuf::from("/dev"), order.scratch.clone()]);
    }
    // What a link leads to is what is opened.
    let real = |paths: Vec<PathBuf>| {
        paths
            .into_iter()
            .filter_map(|path| path.canonicalize().ok())
    };
    let status = ruleset()?
        .add_rules(path_beneath_rules(real(readable), read))?
        .add_rules(path_beneath_rules(
            real(writable),
            AccessFs::from_all(LANDLOCK),
        ))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// No sockets, no programs, no processes, and no look at those of others.
fn restrict_calls() -> Result<()> {
    let own = u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
    let others = |argument| -> Result<SeccompRule> {
        let is_other =
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)?;
        Ok(SeccompRule::new(vec![is_other])?)
    };
    let when = |argument, operator, value| -> Result<SeccompRule> {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)?;
        Ok(SeccompRule::new(vec![condition])?)
    };
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = [
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_send_signal,
        libc::SYS_pidfd_getfd,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_tkill,
        libc::SYS_setrlimit,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_userfaultfd,
        libc::SYS_open_by_handle_at,
        // Would open sockets past this list.
        libc::SYS_io_uring_setup,
    ]
    .map(|call| (call, Vec::new()))
    .into();
    #[cfg(target_arch = "x86_64")]
    refused.extend([libc::SYS_fork, libc::SYS_vfork].map(|call| (call, Vec::new())));
    // Its own threads may be made and ended, and its own limits read.
    let thread = libc::CLONE_THREAD as u64;
    refused.insert(libc::SYS_kill, vec![others(0)?]);
    refused.insert(libc::SYS_tgkill, vec![others(0)?]);
    refused.insert(
        libc::SYS_clone,
        vec![when(0, SeccompCmpOp::MaskedEq(thread), 0)?],
    );
    refused.insert(libc::SYS_prlimit64, vec![when(2, SeccompCmpOp::Ne, 0)?]);
    filter(refused, libc::EPERM)?;
    // Its flags lie in memory, where no filter can look; without it, threads are made by `clone`.
    filter([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)
}

fn filter(calls: BTreeMap<i64, Vec<SeccompRule>>, error: i32) -> Result<()> {
    let filter = SeccompFilter::new(
        calls,
        SeccompAction::Allow,
        SeccompAction::Errno(error.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}
