#![expect(clippy::unwrap_used, reason = "tests")]

mod deliver;
mod logged;
mod receiver;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::event::{Names, kind_of};
use super::*;
use crate::domain::record::DecisionKind;
use crate::id::{DeploymentId, Id as _, ReleaseDecisionId, WorkOrderId};
use crate::release::analysis::Share;
use crate::release::planner::{Action, Release, Why};
use crate::time::Timestamp;
use receiver::hmac_sha256;

const KEY: &[u8; 24] = b"open sesame, says the 40";

fn secret() -> String {
    format!("whsec_{}", STANDARD.encode(KEY))
}

fn hook(url: &str, events: &[&str]) -> WebhookConfig {
    WebhookConfig {
        url: url.to_owned(),
        secret_file: None,
        secret_env: Some("HOOK_SECRET".into()),
        events: events.iter().map(|it| (*it).to_owned()).collect(),
    }
}

fn webhook(url: &str, events: &[&str]) -> Webhook {
    let read = Webhook::read(&[hook(url, events)], |_| Some(secret()));
    read.unwrap().remove(0)
}

/// The specification's own example.
#[test]
fn signatures_are_those_of_the_specification() {
    let secrets = Secret::read_all("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let body = br#"{"test": 2432232314}"#;
    let signature = sign(
        &secrets,
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        body,
    );
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    // The receiver of these tests makes the same of it.
    let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let signed = [b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.".as_slice(), body].concat();
    assert_eq!(
        signature,
        format!("v1,{}", STANDARD.encode(hmac_sha256(&key, &signed)))
    );
}

#[test]
fn several_secrets_make_several_signatures_and_none_of_them_is_shown() {
    let other = format!("whsec_{}", STANDARD.encode([7; 64]));
    let secrets = Secret::read_all(&format!("{}\n{other}\n", secret())).unwrap();
    assert_eq!(sign(&secrets, "a", 1, b"b").split(' ').count(), 2);
    assert_eq!(format!("{secrets:?}"), "[Secret(…), Secret(…)]");
    let short = format!("whsec_{}", STANDARD.encode([7; 23]));
    for (text, expected) in [
        ("", SecretError::Missing),
        (" \n", SecretError::Missing),
        ("sesame", SecretError::Malformed(1)),
        ("whsec_sesame!", SecretError::Malformed(1)),
        (&format!("{other} sesame"), SecretError::Malformed(2)),
        (
            &short,
            SecretError::Length {
                place: 1,
                bytes: 23,
            },
        ),
    ] {
        let error = Secret::read_all(text).unwrap_err();
        assert_eq!(error, expected);
        assert!(!error.to_string().contains("sesame"), "{error}");
    }
}

#[test]
fn what_is_wrong_with_a_webhook_is_named_and_not_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let from_file = WebhookConfig {
        secret_file: Some(file.path().to_owned()),
        secret_env: None,
        ..hook("https://h/sesame", &[])
    };
    let missing = Webhook::read(std::slice::from_ref(&from_file), |_| None).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("control.releases.webhooks.0.secret_file: holds no secret"),
        "{missing}"
    );
    std::fs::write(file.path(), secret() + "\n").unwrap();
    let read = Webhook::read(&[from_file], |_| None).unwrap();
    let shown = format!("{read:?}");
    assert!(
        shown.contains("https://h") && !shown.contains("sesame") && !shown.contains(&secret()[6..]),
        "{shown}"
    );

    let unset = Webhook::read(&[hook("https://h/sesame", &[])], |_| None).unwrap_err();
    assert_eq!(
        unset.to_string(),
        "control.releases.webhooks.0.secret_env: the environment variable HOOK_SECRET is not set"
    );
    let wrong = Webhook::problems(&[
        hook("https://h/", &[]),
        hook("https://i/", &["release.gone"]),
        hook("https://j/", &["release.paused", "release.step"]),
    ]);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert_eq!(wrong[0].field, "control.releases.webhooks.1.events");
    let event = &wrong[0].message;
    assert!(event.starts_with("\"release.gone\" is no event"), "{event}");
    assert!(event.contains("release.rolled_back"), "{event}");
}

#[test]
fn every_decision_has_its_event() {
    let now = Timestamp::from_micros(1_764_000_000_000_000);
    let enter = |step| Action::Enter {
        step,
        share: Share::percent(5.0),
        shadow: Share::NONE,
    };
    let mut state = Release::new(now);
    let why = || Why::Breach("error, at most 0.01: 9 of 100".into());
    for (action, expected) in [
        (Action::Wait { until: None }, None),
        (enter(0), Some("release.started")),
        (enter(1), Some("release.step")),
        (
            Action::Extend {
                because: "no_data".into(),
            },
            Some("release.extended"),
        ),
        (Action::Pause { why: Why::Step }, Some("release.paused")),
        (Action::Resume, Some("release.resumed")),
        (Action::Promote, Some("release.promoting")),
        (Action::Finish, Some("release.promoted")),
        (
            Action::RollBack { why: why() },
            Some("release.rolling_back"),
        ),
        (Action::Finish, Some("release.rolled_back")),
        (Action::Abort, Some("release.aborted")),
    ] {
        state = state.after(&action, now);
        let found = kind_of(DecisionKind::Action, Some(&action), &state);
        assert_eq!(found.map(EventKind::word), expected);
        assert_eq!(kind_of(DecisionKind::Command, Some(&action), &state), found);
        assert_eq!(
            kind_of(DecisionKind::Refused, Some(&action), &state),
            Some(EventKind::Refused)
        );
        assert_eq!(
            kind_of(DecisionKind::Note, None, &state),
            Some(EventKind::Note)
        );
    }
}

#[test]
fn a_receiver_is_told_what_why_and_on_what_evidence() {
    let now: Timestamp = "2026-11-26T18:00:00Z".parse().unwrap();
    let enter = Action::Enter {
        step: 1,
        share: Share::percent(5.0),
        shadow: Share::NONE,
    };
    let why = Why::Breach("error, at most 0.01: 9 of 100".into());
    let action = Action::RollBack { why };
    let event = ReleaseEvent {
        id: ReleaseDecisionId::new(),
        at: now,
        release: WorkOrderId::new(),
        deployment: DeploymentId::new(),
        endpoint: "helpdesk".into(),
        candidate: "v2-k3x9qa".into(),
        stable: Some("v1-ab12cd".into()),
        actor: "system: analysis".into(),
        kind: DecisionKind::Action,
        state: Release::new(now).after(&enter, now).after(&action, now),
        action: Some(action),
        reason: None,
        evidence: Some(json!({
            "process": "process 1", "at": "2026-11-26T18:00:00Z", "verdict": "breach",
            "requests": {"stable": 900, "candidate": 100},
            "objectives": [{
                "objective": "error, at most 0.01", "verdict": "breach", "because": "9 of 100",
                "measure": {"kind": "requests", "e_value": 1e9},
            }],
            "quantiles": [{"latency": "ttft", "p": 0.5}],
        })),
    };
    assert_eq!(
        serde_json::to_value(event.event().unwrap()).unwrap(),
        json!({
            "type": "release.rolling_back",
            "timestamp": "2026-11-26T18:00:00.000000Z",
            "data": {
                "release": event.release, "deployment": event.deployment, "endpoint": "helpdesk",
                "candidate": "v2-k3x9qa", "stable": "v1-ab12cd", "phase": "rolling_back", "step": 1,
                "weight": 0.0, "shadow": 0.0,
                "action": {
                    "action": "roll_back",
                    "why": {"why": "breach", "because": "error, at most 0.01: 9 of 100"},
                },
                "why": "error, at most 0.01: 9 of 100", "actor": "system: analysis", "reason": null,
                "evidence": {
                    "at": "2026-11-26T18:00:00Z", "verdict": "breach", "requests": {"stable": 900, "candidate": 100},
                    "objectives": [{"objective": "error, at most 0.01", "verdict": "breach", "because": "9 of 100"}],
                },
            },
        })
    );
    // Of a row that somebody else's version wrote.
    let names = Names {
        deployment: event.deployment,
        endpoint: String::new(),
        candidate: String::new(),
        stable: None,
    };
    let row = deliver::row(event.release, json!({"action": "teleport"}), &event.state);
    assert_eq!(ReleaseEvent::of(&row, names), None);
}
