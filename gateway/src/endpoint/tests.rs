#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::HashSet;

use http::StatusCode;
use proptest::prelude::*;

use super::*;

/// A path that a row is for.
fn example(row: &Endpoint) -> String {
    row.pattern
        .replace("{model*}", "org/m")
        .replace("{model}", "m")
        .replace("{version}", "3")
        .replace("/models/{*}", "/models/%ff")
        .replace("{*}", "nothing-here")
}

#[test]
fn each_row_is_found_by_its_path_with_and_without_a_slash_at_the_end() {
    for row in Endpoint::all() {
        let path = example(row);
        let absolute = if path.starts_with('/') {
            path
        } else {
            format!("/{path}")
        };
        for path in [absolute.clone(), format!("{absolute}/")] {
            let found = Resolved::of(&path);
            assert_eq!(found.endpoint, row, "{path}");
            assert_eq!(found.model.is_some(), row.pattern.contains("{model"));
            assert_eq!(found.version.is_some(), row.pattern.contains("{version}"));
        }
    }
}

/// What follows from a row: label, access, whether the answer is a text that can be empty or
/// a refusal, whether two can be compared, whether it is billed.
type Judged = (&'static str, Access, bool, bool, bool);

fn alike(paths: &[&str], right: Judged) {
    for path in paths {
        let row = Resolved::of(path).endpoint;
        let kind = row.kind;
        let judged: Judged = (
            row.label.as_str(),
            row.access,
            kind.is_generation(),
            kind.is_comparable(),
            kind.is_use(),
        );
        assert_eq!(judged, right, "{path}");
    }
}

#[test]
fn twins_are_judged_alike() {
    let full = |label, generation, comparable| (label, Full, generation, comparable, true);
    alike(
        &["/v1/chat/completions", "/v1/chat/completions/"],
        full("chat", true, true),
    );
    alike(
        &["/v1/completions", "/v1/completions/"],
        full("completions", true, true),
    );
    alike(
        &["/v1/embeddings", "/v1/embeddings/"],
        full("embeddings", false, true),
    );
    alike(
        &["/v1/rerank", "/rerank", "/v2/rerank", "/v2/rerank/"],
        full("rerank", false, true),
    );
    alike(
        &["/v1/classify", "/classify", "/classify/"],
        full("classify", false, true),
    );
    alike(
        &["/tokenize", "/v1/tokenize", "/detokenize", "/v1/detokenize"],
        full("tokenize", false, false),
    );
    alike(
        &["/v2/models/m/infer", "/v2/models/m/versions/3/infer/"],
        full("v2", false, false),
    );
}

#[test]
fn what_asks_no_model_is_nobodys_use() {
    let other = |label, access| (label, access, false, false, false);
    let models = [
        "/v1/models",
        "/v1/models/",
        "/v1/models/a",
        "/v1/models/%ff",
    ];
    alike(&models, other("models", Full));
    alike(
        &["/v1/nothing", "/v1/chat", "/v1", "/v1/"],
        other("v1", Full),
    );
    let probes = [
        "/health",
        "/health/",
        "/health/live",
        "/health/ready",
        "/v2/health/ready/",
    ];
    alike(&probes, other("health", Open));
    let tensors = [
        "/v2",
        "/v2/",
        "/v2/models/m",
        "/v2/models/m/stats",
        "/v2/no",
    ];
    alike(&tensors, other("v2", Full));
    alike(&["/version", "/version/"], other("version", Full));
    alike(&["/metrics", "/metrics/"], other("metrics", Operations));
    let stats = ["/api/v1/stats", "/api/v1/stats/"];
    alike(&stats, other("stats", Operations));
    let control = ["/api", "/api/", "/api/v1/models", "/api/2.0/mlflow/runs"];
    alike(&control, other("control", Control));
    let nowhere = [
        "/",
        "",
        "/apis",
        "/healthy",
        "/v11/chat/completions",
        "//v1/models",
    ];
    alike(&nowhere, other("other", Full));
}

#[test]
fn names_in_a_path_are_decoded() {
    for (path, kind, model, version) in [
        ("/v1/models/a", Kind::OneModel, "a", None),
        ("/v1/models/org/a", Kind::OneModel, "org/a", None),
        ("/v1/models/org%2Fa", Kind::OneModel, "org/a", None),
        ("/v1/models/%E6%A8%A1", Kind::OneModel, "模", None),
        ("/v2/models/m", Kind::Tensor(Tensor::Metadata), "m", None),
        (
            "/v2/models/ready/ready",
            Kind::Tensor(Tensor::ModelReady),
            "ready",
            None,
        ),
        (
            "/v2/models/a%20b%2Fc/infer",
            Kind::Tensor(Tensor::Infer),
            "a b/c",
            None,
        ),
        (
            "/v2/models/m/versions/%31",
            Kind::Tensor(Tensor::Metadata),
            "m",
            Some("1"),
        ),
        (
            "/v2/models/m/versions/3/infer",
            Kind::Tensor(Tensor::Infer),
            "m",
            Some("3"),
        ),
    ] {
        let found = Resolved::of(path);
        assert_eq!(found.endpoint.kind, kind, "{path}");
        assert_eq!(found.model.as_deref(), Some(model), "{path}");
        assert_eq!(found.version.as_deref(), version, "{path}");
    }
}

#[test]
fn what_is_nowhere_is_nowhere() {
    for path in [
        "/v1/responses",
        "/v1/models/%ff",
        "/v1/models/%4",
        "/health/x",
        "/v2/models",
        "/v2/models//infer",
        "/v2/models/m/versions",
        "/v2/models/m/versions//infer",
        "/v2/models/m/generate",
        "/v2/models/m/versions/1/infer/x",
        "/v2/models/%FF",
        "/v2/models/%zz",
        "/v2/health",
        "/v2//",
        "",
    ] {
        let row = Resolved::of(path).endpoint;
        assert!(!row.is_known(), "{path}");
        let error = row.check(&Method::GET, path).unwrap_err();
        assert_eq!(error.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[test]
fn methods_are_checked() {
    for (path, method, right) in [
        ("/v1/chat/completions", Method::POST, true),
        ("/v1/chat/completions", Method::GET, false),
        ("/v1/models", Method::HEAD, true),
        ("/v1/models", Method::DELETE, false),
        ("/v2", Method::POST, false),
        ("/v2/repository/index", Method::POST, true),
        ("/v2/models/m/infer", Method::GET, false),
        ("/metrics", Method::POST, false),
        ("/api/v1/models", Method::DELETE, true),
    ] {
        let checked = Resolved::of(path).endpoint.check(&method, path);
        assert_eq!(checked.is_ok(), right, "{method} {path}");
        if let Err(error) = checked {
            assert_eq!(error.status(), StatusCode::METHOD_NOT_ALLOWED);
        }
    }
}

#[test]
fn labels_are_a_bounded_set_in_order() {
    for (index, label) in RouteLabel::ALL.into_iter().enumerate() {
        assert_eq!(label as usize, index, "ALL is in the order of the variants");
    }
    let names: HashSet<_> = RouteLabel::ALL.map(RouteLabel::as_str).into();
    assert_eq!(names.len(), RouteLabel::COUNT);
    let used: HashSet<_> = Endpoint::all().iter().map(|row| row.label).collect();
    assert_eq!(used.len(), RouteLabel::COUNT);
}

proptest! {
    #[test]
    fn any_path_has_a_row(path in "(/v[12]/models/)?.{0,40}") {
        let found = Resolved::of(&path);
        prop_assert!(found.model.is_none_or(|name| !name.is_empty()));
    }
}
