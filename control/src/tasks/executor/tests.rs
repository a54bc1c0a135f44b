//! Real programs: shells, for what every machine has.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Instant;

use parking_lot::Mutex;
use uuid::Uuid;

use super::*;

/// What a program said and how it ended.
struct Said {
    exit: Exit,
    lines: Vec<String>,
    events: Vec<String>,
}

fn script(text: &str, folder: &std::path::Path) -> Command {
    Command::new("/bin/sh", folder).arg("-c").arg(text)
}

async fn run(command: Command, stop: &CancellationToken) -> Said {
    let said = Mutex::new((Vec::new(), Vec::new()));
    let sink = |output: Output<'_>| match output {
        Output::Line(line) => said.lock().0.push(line.to_owned()),
        Output::Event(line) => said.lock().1.push(line.to_owned()),
    };
    let mark = Uuid::now_v7().to_string();
    let exit = LocalExecutor
        .run(command, &mark, &sink, stop)
        .await
        .unwrap();
    let (lines, events) = said.into_inner();
    Said {
        exit,
        lines,
        events,
    }
}

async fn run_script(text: &str, limits: Limits) -> Said {
    let folder = tempfile::tempdir().unwrap();
    let mut command = script(text, folder.path());
    command.limits = limits;
    run(command, &CancellationToken::new()).await
}

/// Whether a process is there and not just waiting to be reaped.
fn lives(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit_once(')')
            .unwrap()
            .1
            .trim_start()
            .starts_with('Z')
    })
}

#[tokio::test]
async fn output_events_and_status_are_told_apart() {
    let said = run_script(
        "read nothing; echo one; echo two >&2; echo '{\"event\":\"x\"}' >&$SLUICE_EVENTS_FD; printf last; exit 7",
        Limits::default(),
    )
    .await;
    assert_eq!(said.lines, ["one", "two", "last"]);
    assert_eq!(said.events, [r#"{"event":"x"}"#]);
    assert_eq!(said.exit, Exit::Code(7));
    assert_eq!(
        run_script("kill -USR1 $$", Limits::default()).await.exit,
        Exit::Signal(10)
    );
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_told_by_its_status() {
    let folder = tempfile::tempdir().unwrap();
    let said = run(
        Command::new("/none/such", folder.path()),
        &CancellationToken::new(),
    )
    .await;
    assert_eq!(said.exit, Exit::Code(127));
    let missing = Command::new("/bin/true", folder.path().join("none"));
    let refused = LocalExecutor
        .run(
            missing,
            "mark",
            &|_: Output<'_>| {},
            &CancellationToken::new(),
        )
        .await;
    assert!(matches!(refused, Err(ExecutorError::Start { .. })));
}

#[tokio::test]
async fn the_environment_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = script("env", folder.path());
    command.variables.push(("GREETING".into(), "hello".into()));
    let said = run(command, &CancellationToken::new()).await;
    let names: Vec<&str> = said
        .lines
        .iter()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    assert!(said.lines.contains(&"GREETING=hello".to_owned()));
    assert!(names.contains(&"PATH"));
    let admitted: Vec<_> = Environment::Plain
        .variables()
        .map(|(name, _)| name.into_string().unwrap())
        .collect();
    // The executor's own, the test's, and what a shell sets by itself.
    let added = [
        "SLUICE_EVENTS_FD",
        "SLUICE_RUN_MARK",
        "GREETING",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
    ];
    let others: Vec<_> = names
        .iter()
        .filter(|name| !added.contains(name) && !admitted.iter().any(|it| it == *name))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Starts a grandchild in a session of its own, which ignores the polite signal, then waits.
const STUBBORN: &str = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.1; done' & \
                        echo $$; while :; do sleep 0.1; done";

async fn stop_when_two_lines(limits: Limits, text: &str, folder: &std::path::Path) -> Said {
    let stop = CancellationToken::new();
    let mut command = script(text, folder);
    command.limits = limits;
    let said = Mutex::new(Vec::new());
    let sink = |output: Output<'_>| {
        if let Output::Line(line) = output {
            let mut said = said.lock();
            said.push(line.to_owned());
            if said.len() == 2 {
                stop.cancel();
            }
        }
    };
    let mark = Uuid::now_v7().to_string();
    let exit = LocalExecutor
        .run(command, &mark, &sink, &stop)
        .await
        .unwrap();
    Said {
        exit,
        lines: said.into_inner(),
        events: Vec::new(),
    }
}

#[tokio::test]
async fn stopping_ends_grandchildren_in_other_sessions_too() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        grace: Duration::from_millis(200),
        ..Limits::default()
    };
    let said = stop_when_two_lines(limits, STUBBORN, folder.path()).await;
    assert_eq!(said.exit, Exit::Stopped);
    assert_eq!(said.lines.len(), 2);
    assert!(said.lines.iter().all(|pid| !lives(pid)), "{:?}", said.lines);
}

#[tokio::test]
async fn a_program_that_obeys_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        grace: Duration::from_secs(3600),
        ..Limits::default()
    };
    let text = "trap 'echo bye; exit 0' TERM; echo a; echo b; while :; do sleep 0.05; done";
    let said = stop_when_two_lines(limits, text, folder.path()).await;
    // The shell may remark on the end of its `sleep`.
    assert_eq!(
        (&said.lines[..2], said.lines.last().unwrap().as_str()),
        (&["a".into(), "b".into()][..], "bye")
    );
    assert_eq!(said.exit, Exit::Code(0));
}

#[tokio::test]
async fn what_outlives_its_program_is_ended_and_holds_nothing_up() {
    let began = Instant::now();
    let said = run_script(
        "setsid sh -c 'echo $$; exec sleep 1000' & sleep 0.3; exit 0",
        Limits::default(),
    )
    .await;
    assert_eq!(said.exit, Exit::Code(0));
    assert_eq!(said.lines.len(), 1);
    assert!(!lives(&said.lines[0]));
    assert!(began.elapsed() < Duration::from_secs(900));
}

#[tokio::test]
async fn a_dropped_run_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pids = Mutex::new(Vec::new());
    let both = tokio::sync::Notify::new();
    let sink = |output: Output<'_>| {
        if let Output::Line(line) = output {
            let mut pids = pids.lock();
            pids.push(line.to_owned());
            if pids.len() == 2 {
                both.notify_one();
            }
        }
    };
    let never = CancellationToken::new();
    tokio::select! {
        _ = LocalExecutor.run(script(STUBBORN, folder.path()), "dropped", &sink, &never) => panic!("it ended"),
        () = both.notified() => {}
    }
    assert!(pids.lock().iter().all(|pid| !lives(pid)));
}

#[tokio::test]
async fn memory_of_the_whole_tree_is_limited() {
    // `tail` keeps a line that does not end, in a grandchild.
    let hungry = "sh -c 'head -c 200000000 /dev/zero | tail; sleep 1000'";
    let limits = Limits {
        memory: Some(50_000_000),
        ..Limits::default()
    };
    let said = run_script(hungry, limits).await;
    assert!(
        matches!(said.exit, Exit::OutOfMemory(50_000_001..)),
        "{}",
        said.exit
    );
}

#[tokio::test]
async fn the_kernel_keeps_address_space_and_processor_time() {
    let limits = Limits {
        address_space: Some(64 << 20),
        ..Limits::default()
    };
    let said = run_script("head -c 200000000 /dev/zero | tail", limits).await;
    assert!(
        said.lines.iter().any(|line| line.contains("memory")),
        "{:?}",
        said.lines
    );
    assert_ne!(said.exit, Exit::Code(0));
    let limits = Limits {
        cpu: Some(Duration::from_secs(1)),
        ..Limits::default()
    };
    assert_eq!(
        run_script("while :; do :; done", limits).await.exit,
        Exit::CpuTime
    );
}

#[tokio::test]
async fn wall_time_is_limited() {
    let limits = Limits {
        wall: Some(Duration::from_millis(100)),
        ..Limits::default()
    };
    assert_eq!(
        run_script("exec sleep 1000", limits).await.exit,
        Exit::WallTime
    );
}

/// A worker that was killed cannot end its programs; the next sweep on the machine does.
#[test]
fn orphans_of_killed_workers_are_ended() {
    let own = processes::mark("run");
    let (namespace, _) = own.split_once('/').unwrap();
    let start = |mark: &str| {
        std::process::Command::new("/bin/sleep")
            .arg("1000")
            .env(processes::MARK, mark)
            .spawn()
            .unwrap()
    };
    // No process is that old: its worker is gone.
    let mut orphan = start(&format!("{namespace}/{}/1/run", std::process::id()));
    let mut ours = start(&own);
    let mut foreign = start(&format!("pid:[1]/{}/1/run", std::process::id()));
    // The environment is the program's own from its exec on.
    for child in [&orphan, &ours, &foreign] {
        let environment = format!("/proc/{}/environ", child.id());
        while !String::from_utf8_lossy(&std::fs::read(&environment).unwrap())
            .contains(processes::MARK)
        {
            std::thread::yield_now();
        }
    }
    assert!(processes::end_orphans() >= 1);
    assert!(!orphan.wait().unwrap().success());
    assert!(ours.try_wait().unwrap().is_none() && foreign.try_wait().unwrap().is_none());
    for mut child in [ours, foreign] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
