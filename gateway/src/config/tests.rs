#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::human::{format_duration, format_size, parse_duration, parse_size};
use super::*;

fn parse(source: &str) -> Result<Config, String> {
    Config::parse(source, Path::new("sluice.toml")).map_err(|error| error.to_string())
}

#[test]
fn the_example_file_holds_every_default() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sluice.example.toml");
    let source = std::fs::read_to_string(&example).unwrap();
    let mut config = Config::parse(&source, &example).unwrap();
    // Its words are the control plane's: the binary holds them against the defaults.
    assert!(!std::mem::take(&mut config.control.artifacts).is_empty());
    assert_eq!(config, Config::default());

    let defaults = serde_json::to_value(Config::default()).unwrap();
    for (section, fields) in defaults.as_object().unwrap() {
        documented(&source, section, fields);
    }
}

/// Each field stands in the file, set or commented out, so that none is undocumented.
fn documented(source: &str, section: &str, fields: &serde_json::Value) {
    for (field, value) in fields.as_object().into_iter().flatten() {
        let stands = source.lines().any(|line| {
            let line = line.trim_start_matches("# ");
            line.starts_with(&format!("{field} = "))
                || line.starts_with(&format!("[{section}.{field}]"))
        });
        assert!(stands, "[{section}] {field} is not in sluice.example.toml");
        documented(source, &format!("{section}.{field}"), value);
    }
}

#[test]
fn the_commented_deployments_of_the_example_parse_too() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sluice.example.toml");
    let source = std::fs::read_to_string(&example).unwrap();
    let start = source.find("# [[deployment]]").unwrap();
    let uncommented: String = source[start..]
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.starts_with('[') || line.contains(" = "))
        .map(|line| format!("{line}\n"))
        .collect();
    let config = parse(&uncommented).unwrap();
    assert!(config.deployments.len() >= 3);
}

#[test]
fn an_unknown_field_is_named_with_its_line() {
    let message = parse("[server]\nthreads = 1\nmax_bdy = \"1MiB\"\n").unwrap_err();
    assert!(message.starts_with("sluice.toml:3: "), "{message}");
    assert!(
        message.contains("max_bdy") && message.contains("max_body"),
        "{message}"
    );
}

#[test]
fn a_bad_duration_says_what_would_be_right() {
    let message = parse("[limits]\ndefault_deadline = \"10 minutes\"\n").unwrap_err();
    assert!(message.starts_with("sluice.toml:2: "), "{message}");
    assert!(message.contains("\"30s\""), "{message}");
}

#[test]
fn a_value_out_of_range_is_named_with_its_line() {
    let message = parse("[upstream]\nretries = 1\nmax_ejected = 1.5\n").unwrap_err();
    assert_eq!(
        message,
        "sluice.toml:3: `upstream.max_ejected` must lie between 0 and 1"
    );
}

#[test]
fn a_deployment_needs_exactly_one_source() {
    let both = "[[deployment]]\nname = \"a\"\npath = \"m\"\nupstream = \"http://h/v1\"\n";
    assert!(
        parse(both)
            .unwrap_err()
            .starts_with("sluice.toml:4: `deployment.0.upstream`")
    );
    let none = "[[deployment]]\nname = \"a\"\n";
    assert!(
        parse(none)
            .unwrap_err()
            .contains("`deployment.0.path` or `upstream`")
    );
}

#[test]
fn names_are_unique() {
    let twice =
        "[[deployment]]\nname = \"a\"\npath = \"m\"\n[[deployment]]\nname = \"a\"\npath = \"n\"\n";
    assert!(
        parse(twice)
            .unwrap_err()
            .starts_with("sluice.toml:5: `deployment.1.name`")
    );
}

#[test]
fn upstreams_are_one_or_many_and_must_be_urls() {
    let one = parse("[[deployment]]\nname = \"a\"\nupstream = \"http://h:1/v1\"\n").unwrap();
    assert_eq!(one.deployments[0].upstream, ["http://h:1/v1"]);
    let many =
        parse("[[deployment]]\nname = \"a\"\nupstream = [\"http://h:1/v1\", \"https://i/v1\"]\n")
            .unwrap();
    assert_eq!(many.deployments[0].upstream.len(), 2);
    for bad in ["ftp://h/v1", "h:1", "http://", "http://h/v1?x=1"] {
        let source = format!("[[deployment]]\nname = \"a\"\nupstream = \"{bad}\"\n");
        assert!(
            parse(&source)
                .unwrap_err()
                .contains("deployment.0.upstream"),
            "{bad}"
        );
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = Config::default()
        .with_environment(|name| match name {
            "SLUICE_LISTEN" => Some("127.0.0.1:9".to_owned()),
            "SLUICE_DATA" => Some("/srv/sluice".to_owned()),
            _ => None,
        })
        .unwrap();
    assert_eq!(config.listen.port(), 9);
    assert_eq!(config.data, Path::new("/srv/sluice"));
    let bad = Config::default().with_environment(|_| Some("nowhere".to_owned()));
    assert!(bad.unwrap_err().to_string().contains("127.0.0.1:8080"));
}

#[test]
fn durations_and_sizes_read_as_written() {
    assert_eq!(parse_duration("1m30s").unwrap(), Duration::from_secs(90));
    assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
    assert_eq!(parse_size("8MiB").unwrap(), 8 << 20);
    assert_eq!(parse_size("5 MB").unwrap(), 5_000_000);
    for bad in [
        "",
        "s",
        "10",
        "10x",
        "-1s",
        "1.5s",
        "99999999999999999999s",
        "99999999999999d",
    ] {
        assert!(parse_duration(bad).is_err(), "{bad}");
    }
    for bad in ["", "MiB", "1QiB", "-1", "99999999999GiB", "99999999999TiB"] {
        assert!(parse_size(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn durations_and_sizes_round_trip(ms in 0_u64..1 << 40, bytes in any::<u64>()) {
        let duration = Duration::from_millis(ms);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        _ = parse_duration(&text);
        _ = parse_size(&text);
        _ = parse(&text);
    }
}

#[test]
fn types_are_named_as_a_reader_knows_them() {
    for (source, message) in [
        (
            "[server]\nthreads = \"many\"\n",
            "sluice.toml:2: `server.threads` cannot be read: invalid type: string \"many\", expected a whole number",
        ),
        (
            "[upstream]\nretry_budget=\"x\"\n",
            "sluice.toml:2: `upstream.retry_budget` cannot be read: invalid type: string \"x\", expected a number",
        ),
    ] {
        assert_eq!(parse(source).unwrap_err(), message);
    }
}

#[test]
fn origins_are_checked() {
    let config = |origin: &str| parse(&format!("[server]\ncors_origins = [\"{origin}\"]\n"));
    for right in ["*", "https://app.example.com", "http://localhost:3000"] {
        assert!(config(right).is_ok(), "{right}");
    }
    for wrong in [
        "",
        "example.com",
        "https://a.example.com/",
        "https://a/b",
        "null",
    ] {
        let message = config(wrong).unwrap_err();
        assert!(message.contains("`server.cors_origins.0`"), "{message}");
    }
}

#[test]
fn limits_of_templates_are_checked() {
    let right =
        parse("[templates]\nmax_text = \"4KiB\"\nmax_memory = \"4KiB\"\nmax_steps = 1000\n");
    assert_eq!(right.unwrap().templates.limits().text, 4096);
    for (field, value) in [
        ("max_text", "\"1B\""),
        ("max_memory", "\"1MiB\""),
        ("max_steps", "999"),
    ] {
        let message = parse(&format!("[templates]\n{field} = {value}\n")).unwrap_err();
        assert!(
            message.contains(&format!("`templates.{field}`")),
            "{message}"
        );
    }
}

#[test]
fn webhooks_are_checked_and_no_message_holds_their_url() {
    let config = |hooks: &str| parse(&format!("[control.releases]\nwebhooks = [{hooks}]\n"));
    let right = config(
        "{url = \"http://h:1/a?token=sesame\", secret_env = \"A\", events = [\"release.paused\"]}, \
         {url = \"https://h/b\", secret_file = \"s\"}",
    )
    .unwrap();
    assert_eq!(right.control.releases.webhooks.len(), 2);
    let shown = format!("{right:?}");
    assert!(
        shown.contains("h:1") && !shown.contains("sesame"),
        "{shown}"
    );
    for (hooks, field) in [
        ("{url = \"sesame\", secret_env = \"A\"}", "0.url"),
        ("{url = \"ftp://h/sesame\", secret_env = \"A\"}", "0.url"),
        (
            "{url = \"http://me:sesame@h/\", secret_env = \"A\"}",
            "0.url",
        ),
        ("{url = \"http://h/sesame\"}", "0.secret_file"),
        (
            "{url = \"http://h/\", secret_env = \"A\", secret_file = \"s\"}",
            "0.secret_env",
        ),
        (
            "{url = \"http://h/sesame\", secret_env = \"A\"}, {url = \"http://h/sesame\", secret_env = \"B\"}",
            "1.url",
        ),
    ] {
        let message = config(hooks).unwrap_err();
        assert!(
            message.contains(&format!("`control.releases.webhooks.{field}`")),
            "{message}"
        );
        assert!(!message.contains("sesame"), "{message}");
    }
    let many = parse("[control.releases]\npairs = 20000\n").unwrap_err();
    assert!(
        many.contains("control.releases.pairs") && many.contains("10000"),
        "{many}"
    );
}

fn on(provider: &str, rest: &str) -> Result<Config, String> {
    parse(&format!(
        "[[deployment]]\nname = \"a\"\npath = \"models/a\"\nprovider = \"{provider}\"\n{rest}"
    ))
}

#[test]
fn options_of_a_gpu_reach_the_engine() {
    let config = on(
        "tensorrt",
        "[deployment.cuda]\narena_limit = \"4GiB\"\ngraphs = true\n[deployment.tensorrt]\nfp16 = true\n\
         profiles = [{ input = \"ids\", min = [1, 1], opt = [4, 64], max = [8, 512] }]\n",
    )
    .unwrap();
    let options = gpu_options(&config.deployments[0], Path::new("data"));
    assert_eq!(options.arena_limit, Some(4 << 30));
    assert!(options.cuda_graphs && !options.tf32 && options.tensorrt.fp16);
    assert_eq!(options.tensorrt.profiles[0].max, [8, 512]);
    let cache = options.tensorrt.cache.unwrap();
    assert_eq!(cache, Path::new("data/tensorrt/engines"));
}

#[test]
fn tensorrt_itself_takes_what_it_can_do() {
    let config = on(
        "tensorrt-native",
        "memory = \"8GiB\"\n[deployment.tensorrt]\nworkspace = \"2GiB\"\nkeep = 3\n",
    )
    .unwrap();
    let deployment = &config.deployments[0];
    assert_eq!(deployment.provider, ProviderConfig::TensorrtNative);
    assert_eq!(deployment.places(), [Some(0)]);
    assert_eq!(gpu_options(deployment, Path::new("data")).tensorrt.keep, 3);
    for (rest, field) in [
        ("[deployment.tensorrt]\nfp16 = true\n", "tensorrt.fp16"),
        ("[deployment.tensorrt]\nint8 = true\n", "tensorrt.int8"),
        ("[deployment.cuda]\ntf32 = true\n", "cuda"),
    ] {
        let error = on("tensorrt-native", rest).unwrap_err();
        assert!(error.contains(field) && error.contains("is for"), "{error}");
    }
    assert!(
        on("tensorrt-natives", "")
            .unwrap_err()
            .contains("tensorrt-native")
    );
}

#[test]
fn options_of_a_gpu_that_do_not_fit_are_refused_by_name() {
    let profile = |shapes: &str| {
        format!("[deployment.tensorrt]\nprofiles = [{{ input = \"ids\", {shapes} }}]\n")
    };
    for (provider, rest, named) in [
        (
            "cpu",
            "[deployment.cuda]\ngraphs = true\n".to_owned(),
            "cuda",
        ),
        (
            "cuda",
            "[deployment.tensorrt]\nfp16 = true\n".to_owned(),
            "tensorrt",
        ),
        (
            "tensorrt",
            "[deployment.tensorrt]\noptimization_level = 6\n".to_owned(),
            "0 to 5",
        ),
        (
            "tensorrt",
            "[deployment.tensorrt]\nkeep = 0\n".to_owned(),
            "tensorrt.keep",
        ),
        (
            "tensorrt",
            profile("min = [1], opt = [1, 2], max = [1, 2]"),
            "as many dimensions",
        ),
        (
            "tensorrt",
            profile("min = [2, 2], opt = [1, 2], max = [4, 4]"),
            "min <= opt",
        ),
        (
            "tensorrt",
            profile("min = [0, 1], opt = [1, 2], max = [4, 4]"),
            "1 <= min",
        ),
        (
            "tensorrt",
            profile("min = [], opt = [], max = []"),
            "as many dimensions",
        ),
        (
            "tensorrt",
            "[deployment.tensorrt]\nprofiles = [{ input = \"a\", min = [1], opt = [1], max = [1] }, \
             { input = \"a\", min = [1], opt = [1], max = [1] }]\n"
                .to_owned(),
            "`a` twice",
        ),
        (
            "tensorrt",
            "[deployment.tensorrt]\nworkspace = \"0\"\n".to_owned(),
            "tensorrt.workspace",
        ),
        (
            "cuda",
            "[deployment.cuda]\narena_limit = \"0\"\n".to_owned(),
            "cuda.arena_limit",
        ),
        (
            "cuda",
            "[deployment.cuda]\ngraph = true\n".to_owned(),
            "graphs",
        ),
        (
            "cuda",
            "[deployment.cuda]\narena_limit = \"much\"\n".to_owned(),
            "4GiB",
        ),
    ] {
        let message = on(provider, &rest).unwrap_err();
        assert!(message.contains(named), "{named}: {message}");
    }
}

/// The fields that are wrong with a file, in order.
fn wrong(source: &str) -> Vec<String> {
    let (_, problems) = Config::examine(source, Path::new("sluice.toml")).unwrap();
    problems.into_iter().map(|it| it.field).collect()
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let source = "lissten = 1\n[server]\nthreads = \"many\"\nmax_connections = 0\nmax_bdy = 1\n\
                  [upstream]\neject_for = \"10m\"\nidle_timeout = \"soon\"\n\
                  [[deployment]]\nupstream = \"http://h/v1\"\nslots = 0\n\
                  [[deployment]]\nname = 7\nupstream = \"ftp://h/v1\"\nprovider = \"tpu\"\n";
    let mut found = wrong(source);
    found.sort();
    assert_eq!(
        found,
        [
            "deployment.0.name",
            "deployment.0.slots",
            "deployment.1.name",
            "deployment.1.provider",
            "deployment.1.upstream",
            "lissten",
            "server.max_bdy",
            "server.max_connections",
            "server.threads",
            "upstream.eject_for",
            "upstream.idle_timeout",
        ]
    );
    let message = parse(source).unwrap_err();
    assert_eq!(message.lines().count(), 11, "{message}");
    assert!(message.contains("sluice.toml:7: `upstream.eject_for` must not exceed"));
}

#[test]
fn what_contradicts_itself_is_refused_by_name() {
    for (source, field) in [
        ("[upstream]\neject_for = \"10m\"\n", "upstream.eject_for"),
        (
            "[upstream]\neject_for_max = \"0s\"\n",
            "upstream.eject_for_max",
        ),
        ("[upstream]\nmax_held = \"0\"\n", "upstream.max_held"),
        (
            "[server]\nmax_connections = 99999999999\n",
            "server.max_connections",
        ),
        ("[server]\nthreads = 100000\n", "server.threads"),
        (
            "[server]\ndrain_timeout = \"999999d\"\n",
            "server.drain_timeout",
        ),
        ("[devices]\nmemory = \"0\"\n", "devices.memory"),
        ("[log]\nbuffer = 0\n", "log.buffer"),
        ("[log]\nbuffer = 99999999999\n", "log.buffer"),
        (
            "[release]\nshadow_timeout = \"0s\"\n",
            "release.shadow_timeout",
        ),
        (
            "[release]\nshadow_max_body = \"0\"\n",
            "release.shadow_max_body",
        ),
        ("[release]\nmax_answer = \"0\"\n", "release.max_answer"),
        (
            "[control]\nidempotency_keep = \"1s\"\n",
            "control.idempotency_lease",
        ),
        ("[control]\nmemory = \"0\"\n", "control.memory"),
        ("[control.tasks]\nmemory = \"0\"\n", "control.tasks.memory"),
        (
            "[control.releases]\npairs_keep = \"0s\"\n",
            "control.releases.pairs_keep",
        ),
        (
            "[replicas]\nrestart_pause = \"1h\"\n",
            "replicas.restart_pause",
        ),
        (
            "[limits]\nrequests_per_minute = -1\n",
            "limits.requests_per_minute",
        ),
    ] {
        assert_eq!(wrong(source), [field], "{source}");
    }
    let deployment = |fields: &str| {
        format!("[[deployment]]\nname = \"a\"\nupstream = [\"http://h/v1\"]\n{fields}\n")
    };
    for (fields, field) in [
        ("memory = \"0\"", "memory"),
        ("model = \"\"", "model"),
        ("department = \"\"", "department"),
        ("revision = \"a\\nb\"", "revision"),
        ("api_key_env = \"A=B\"", "api_key_env"),
    ] {
        assert_eq!(
            wrong(&deployment(fields)),
            [format!("deployment.0.{field}")]
        );
    }
    let twice = "[[deployment]]\nname = \"a\"\nupstream = [\"http://h/v1\", \"http://h/v1\"]\n";
    assert_eq!(wrong(twice), ["deployment.0.upstream"]);
    assert_eq!(
        wrong("[release]\nshadow_concurrency = 0\nshadow_max_body = \"0\"\n"),
        Vec::<String>::new()
    );
}
