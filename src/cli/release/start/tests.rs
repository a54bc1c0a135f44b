#![expect(clippy::unwrap_used, reason = "tests")]

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Typed {
    #[command(flatten)]
    start: Start,
}

fn typed(arguments: &[&str]) -> Result<Start, clap::Error> {
    let all = ["start", "helpdesk"].iter().chain(arguments);
    Typed::try_parse_from(all).map(|typed| typed.start)
}

#[test]
fn a_strategy_is_checked_before_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        strategy(&path)
    };
    let steps = json!([{ "weight": 5 }]);
    let sent = written("plain.yaml", "steps:\n  - weight: 5\n").unwrap();
    assert_eq!(sent["steps"], steps);
    let sent = written(
        "deployment.json",
        r#"{"strategy": {"steps": [{"weight": 5}]}}"#,
    )
    .unwrap();
    assert_eq!(sent, json!({ "steps": steps }));
    let wrong = written("wrong.yaml", "steps:\n  - weight: 500\n").unwrap_err();
    let wrong = crate::cli::in_full(&wrong);
    assert!(wrong.contains("wrong.yaml"), "{wrong}");
    assert!(
        wrong.contains("steps[0].weight: 500 is not between"),
        "{wrong}"
    );
    let broken = crate::cli::in_full(&written("broken.yaml", "steps: [").unwrap_err());
    assert!(broken.contains("broken.yaml"), "{broken}");
}

#[test]
fn the_body_says_what_was_typed_and_no_more() {
    let body = |arguments: &[&str]| typed(arguments).unwrap().body(None);
    assert_eq!(
        body(&["--to", "v2"]),
        json!({ "deployment": "helpdesk", "version": "v2", "reason": "", "approve": true })
    );
    let two = [
        "--upstream",
        "http://a/v1",
        "--upstream",
        "http://b/v1",
        "--no-approve",
        "-r",
        "new",
    ];
    let mut expected = json!({ "deployment": "helpdesk", "reason": "new", "approve": false });
    expected["upstream"] = json!(["http://a/v1", "http://b/v1"]);
    assert_eq!(body(&two), expected);
}

#[test]
fn something_has_to_be_released() {
    let error = typed(&["--reason", "none"]).unwrap_err().to_string();
    assert!(
        error.contains("--to") && error.contains("--upstream"),
        "{error}"
    );
    assert!(typed(&["--to", "v2", "--upstream", "http://a/v1"]).is_ok());
}
