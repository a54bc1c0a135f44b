#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use sluice_gateway::config::{DeploymentConfig, DevicesConfig, GrammarConfig, TemplatesConfig};

use super::*;

/// A shell script in the place of the program.
fn script(text: &str, memory: u64, load: Duration) -> (Start, std::sync::mpsc::Receiver<End>) {
    let (tell, told) = channel();
    let start = Start {
        program: HostProgram {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), text.into()],
        },
        name: "the model's process",
        order: Order {
            config: Some(DeploymentConfig::of_folder("m", "/nowhere")),
            data: PathBuf::from("/"),
            devices: DevicesConfig::default(),
            grammar: GrammarConfig::default(),
            templates: TemplatesConfig::default(),
            socket: PathBuf::from("/nowhere/socket"),
            scratch: std::env::temp_dir(),
            memory,
            request_ms: 1000,
            parent: 0,
        },
        load_timeout: load,
        until_its_end: Box::new(move |end| _ = tell.send(end)),
    };
    (start, told)
}

const LONG: Duration = Duration::from_secs(60);
const READY: &str = r#"read order; echo '{"loaded":{"digest":"d","isolation":""}}'; "#;

async fn end_of(process: &Process) -> Ended {
    let mut ended = process.ended.clone();
    let found = ended.wait_for(Option::is_some).await.unwrap();
    found.clone().unwrap()
}

#[tokio::test]
async fn a_child_that_takes_too_much_memory_is_killed_and_says_so() {
    let hungry = format!("{READY} x=0123456789abcdef; while :; do x=$x$x; done");
    let (start, told) = script(&hungry, 64 << 20, LONG);
    let (process, said) = super::start(start).unwrap();
    assert!(matches!(said.await, Ok(Said::Loaded { .. })));
    let ended = end_of(&process).await;
    assert_eq!(
        (ended.end, &*ended.why),
        (
            End::Memory,
            "the model's process exceeded 64.0 MiB of memory (sandbox.memory)"
        )
    );
    assert_eq!(told.recv().unwrap(), End::Memory);
}

#[tokio::test]
async fn a_load_that_takes_too_long_is_killed_with_all_that_it_started() {
    let (start, _) = script(
        "sleep 1000 & sleep 1000",
        1 << 30,
        Duration::from_millis(50),
    );
    let (process, said) = super::start(start).unwrap();
    let ended = end_of(&process).await;
    assert_eq!(ended.end, End::Time);
    assert!(ended.why.contains("sandbox.load_timeout"), "{ended}");
    assert!(said.await.is_err());
}

#[tokio::test]
async fn what_is_given_up_ends() {
    let (start, told) = script("sleep 1000", 1 << 30, LONG);
    let (process, _said) = super::start(start).unwrap();
    drop(process);
    assert_eq!(told.recv().unwrap(), End::Stopped);
}

#[tokio::test]
async fn its_last_words_say_why_it_ended() {
    for (text, end, why) in [
        (
            "read o; echo 'thread main has overflowed its stack' >&2; kill -ABRT $$",
            End::Crashed,
            "nested too deeply",
        ),
        (
            "read o; echo 'memory allocation of 9 bytes failed' >&2; kill -ABRT $$",
            End::Memory,
            "ran out",
        ),
        (
            "read o; echo 'took longer (sandbox.request_timeout)' >&2; kill -KILL $$",
            End::Time,
            "took longer",
        ),
        ("read o; kill -SEGV $$", End::Crashed, "signal 11"),
        (
            "read o; echo '{\"not_loaded\":{\"why\":\"no graph\"}}'; sleep 1000",
            End::NotLoaded,
            "no graph",
        ),
    ] {
        let (start, _) = script(text, 1 << 30, LONG);
        let (process, _said) = super::start(start).unwrap();
        let ended = end_of(&process).await;
        assert_eq!(ended.end, end, "{ended}");
        assert!(ended.why.contains(why), "{ended}");
    }
}

#[tokio::test]
async fn a_child_has_no_secrets_of_ours() {
    let text = r#"read o; printf '{"not_loaded":{"why":"%s"}}\n' "$(env | cut -d= -f1 | sort | tr '\n' ' ')"; sleep 1000"#;
    let (start, _) = script(text, 1 << 30, LONG);
    let (process, _said) = super::start(start).unwrap();
    let names = end_of(&process).await.why;
    for name in names.split_whitespace() {
        // The last three are the shell's own.
        let known = VARIABLES.contains(&name)
            || ["MALLOC_ARENA_MAX", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name);
        assert!(known, "{name} of {names}");
    }
}

#[test]
fn mapped_files_are_not_its_own_memory() {
    let status = "VmRSS:\t  900 kB\nRssAnon:\t  100 kB\nRssFile:\t  700 kB\nRssShmem:\t  20 kB\nVmSwap:\t  3 kB\n";
    assert_eq!(own_memory(status), Some(123 * 1024));
    assert_eq!(own_memory("Name: x\n"), None);
    assert!(used(std::process::id()).unwrap() > 0);
}
