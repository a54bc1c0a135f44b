//! What records may not name of this machine and its network, by default and by a list.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::rig::{Person, Rig};
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::store::rig::{Fresh, on_both};

/// The field that a problem names, and what it says.
fn refused(answer: &Value) -> (String, String) {
    let error = &answer["errors"][0];
    let text = |name: &str| error[name].as_str().unwrap().to_owned();
    (text("field"), text("message"))
}

struct Desk {
    rig: Rig,
    dev: Person,
    op: Person,
}

async fn desk(fresh: &Fresh, upstreams: &[&str], env: &[&str]) -> Desk {
    let rig = Rig::allowing(&fresh.store, upstreams, env).await;
    let home = rig.department("home").await;
    let dev = rig
        .person(home, "dev", Role::Developer, Secrecy::Internal)
        .await;
    let op = rig
        .person(home, "op", Role::Operator, Secrecy::Internal)
        .await;
    rig.post(&dev.key, "/models", json!({ "name": "m" }))
        .await
        .expect(201);
    Desk { rig, dev, op }
}

#[tokio::test]
async fn a_record_names_no_variable_no_host_and_no_folder_that_is_not_listed() {
    on_both(async |fresh: Arc<Fresh>| {
        let desk = desk(&fresh, &[], &[]).await;
        let cases = [
            (json!({"upstream": ["http://127.0.0.1:9/v1"]}), "upstream"),
            (
                json!({"upstream": "https://api.example.com/v1"}),
                "upstream",
            ),
            (json!({"upstream": "http://169.254.169.254/v1"}), "upstream"),
            (
                json!({"provider": "tensorrt", "tensorrt": {"cache": "/etc/cron.d"}}),
                "tensorrt.cache",
            ),
        ];
        for (options, field) in cases {
            let fields = json!({"endpoint": "e", "model": "m", "engine_options": options});
            let made = desk
                .rig
                .post(&desk.op.key, "/deployments", fields.clone())
                .await;
            let (at, why) = refused(&made.expect(422));
            assert_eq!(at, format!("engine_options.{field}"));
            assert!(
                why.contains("control.allow.") && why.contains("whoever runs"),
                "{why}"
            );
            // By apply as by the collection.
            let mut item = fields;
            item["kind"] = json!("deployment");
            let applied = json!({"records": [item]});
            let made = desk.rig.post(&desk.op.key, "/apply", applied).await;
            assert!(refused(&made.expect(422)).0.ends_with(field));
            // By an evaluation's settings.
            let settings = json!({"engine_options": options});
            let metrics = json!({"measure": [{"kind": "token_f1"}]});
            let fields =
                json!({"model": "m", "name": "q", "metrics": metrics, "settings": settings});
            let made = desk.rig.post(&desk.dev.key, "/evaluations", fields).await;
            assert_eq!(
                refused(&made.expect(422)).0,
                format!("settings.engine_options.{field}")
            );
        }
        // A change is looked at as what is new.
        let plain = json!({"endpoint": "e", "model": "m"});
        desk.rig
            .post(&desk.op.key, "/deployments", plain)
            .await
            .expect(201);
        let change = json!({"engine_options": {"upstream": "http://[::1]:9/v1"}});
        let changed = desk.rig.patch(&desk.op.key, "/deployments/e", change).await;
        assert_eq!(refused(&changed.expect(422)).0, "engine_options.upstream");
    })
    .await;
}

#[tokio::test]
async fn what_is_listed_may_be_named_and_nothing_beside_it() {
    on_both(async |fresh: Arc<Fresh>| {
        let upstreams = ["https://gpu.example.com", "127.0.0.0/8"];
        let desk = desk(&fresh, &upstreams, &["UPSTREAM_KEY"]).await;
        let make = async |endpoint: &str, options: Value| {
            let fields = json!({"endpoint": endpoint, "model": "m", "engine_options": options});
            desk.rig.post(&desk.op.key, "/deployments", fields).await
        };
        let good = json!({"upstream": "https://gpu.example.com/v1", "api_key_env": "UPSTREAM_KEY"});
        make("a", good).await.expect(201);
        make("b", json!({"upstream": "http://127.0.0.1:9/v1"}))
            .await
            .expect(201);
        for (options, field) in [
            (
                json!({"upstream": "https://gpu.example.com/v1", "api_key_env": "HOME"}),
                "api_key_env",
            ),
            (json!({"upstream": "http://gpu.example.com/v1"}), "upstream"),
            (
                json!({"upstream": "http://me:pw@127.0.0.1:9/v1"}),
                "upstream",
            ),
            (
                json!({"upstream": ["http://127.0.0.1:9/v1", "http://10.0.0.1/v1"]}),
                "upstream",
            ),
        ] {
            let (at, why) = refused(&make("c", options).await.expect(422));
            assert_eq!(at, format!("engine_options.{field}"), "{why}");
            assert!(!why.contains("pw"), "{why}");
        }
    })
    .await;
}
