#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/releases")
}

/// What a newcomer copies must work.
#[test]
fn the_shipped_examples_are_understood() {
    let mut traffic = 0;
    for file in fs::read_dir(examples()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|it| it != "yaml") {
            continue;
        }
        let mut value = read(&path).unwrap();
        if let Some(inner) = value.get_mut("strategy") {
            Strategy::parse(inner.take()).unwrap();
        } else {
            Traffic::parse(value).unwrap();
            traffic += 1;
        }
    }
    assert!(traffic >= 3);
}

#[test]
fn recorded_requests_are_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.jsonl");
    let line = |at: u64| format!("{{\"at_ms\": {at}, \"unit\": \"ada\", \"total_ms\": 300}}\n");
    fs::write(&path, line(1) + "\n" + &line(2)).unwrap();
    assert_eq!(read_recorded(&path).unwrap().len(), 2);
    for (text, message) in [
        (line(2) + &line(1), "at_ms goes back"),
        (line(1) + "{}", "requests.jsonl, line 2"),
        (String::new(), "has no requests"),
    ] {
        fs::write(&path, text).unwrap();
        let error = read_recorded(&path).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

/// Every field of a serialised value, and of what is in it.
fn fields(value: &serde_json::Value) -> Vec<String> {
    let object = value.as_object().into_iter().flatten();
    let inner = object.flat_map(|(name, inner)| [vec![name.clone()], fields(inner)].concat());
    let items = value.as_array().into_iter().flatten().flat_map(fields);
    inner.chain(items).collect()
}

#[test]
fn the_example_of_traffic_has_every_field_and_every_default() {
    let text = Example::Traffic.text();
    let value: serde_json::Value = serde_norway::from_str(text).unwrap();
    assert_eq!(Traffic::parse(value).unwrap(), Traffic::default());
    // What is absent by default stands there as a comment, and is right when it is made none.
    let whole: String = text
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line))
        .filter(|line| {
            let (name, rest) = line.split_once(':').unwrap_or_default();
            let begins = name.trim().chars().next();
            let is_field =
                begins.is_some_and(|c| c.is_ascii_lowercase()) && !name.trim().contains(' ');
            is_field && (rest.is_empty() || rest.starts_with(' '))
                || line.trim_start().starts_with("- ")
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let value: serde_json::Value = serde_norway::from_str(&whole).unwrap();
    let traffic = Traffic::parse(value).unwrap();
    let named = fields(&serde_json::to_value(&traffic).unwrap());
    for field in [
        "diurnal",
        "bursts",
        "incidents",
        "pauses",
        "agents",
        "keys",
        "noisy",
        "recorded",
    ] {
        assert!(named.iter().any(|it| it == field), "{field} is not there");
    }
    assert_eq!(traffic.noisy.len(), 1);
    let page = include_str!("../../../../docs/release-analysis.md");
    for field in named {
        assert!(
            text.contains(&format!("{field}:")),
            "{field} is not in the example"
        );
        assert!(
            page.contains(&format!("`{field}`")),
            "{field} is not in the page"
        );
    }
}

#[test]
fn a_strategy_alone_is_enough() {
    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        simulate: Simulate,
    }
    let file = examples().join("strategy.yaml");
    let typed = [
        "sluice",
        "--strategy",
        &file.display().to_string(),
        "-n",
        "1",
    ];
    let typed = <Typed as clap::Parser>::try_parse_from(typed).unwrap();
    typed.simulate.run().unwrap();
}
