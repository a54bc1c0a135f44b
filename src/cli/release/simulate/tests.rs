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
