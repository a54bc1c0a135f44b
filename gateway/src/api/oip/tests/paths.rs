use http::Method;

use super::*;

fn model(name: &str, version: Option<&str>, action: OipAction) -> Option<Oip> {
    Some(Oip::Model {
        name: name.to_owned(),
        version: version.map(str::to_owned),
        action,
    })
}

#[test]
fn each_path_has_one_meaning() {
    for (path, meaning) in [
        ("/v2", Some(Oip::Server)),
        ("/v2/", Some(Oip::Server)),
        ("/v2/health/live", Some(Oip::Live)),
        ("/v2/health/ready", Some(Oip::Ready)),
        ("/v2/repository/index", Some(Oip::Index)),
        ("/v2/repository/models/m/load", Some(Oip::Repository)),
        ("/v2/repository/models/m/unload", Some(Oip::Repository)),
        ("/v2/models/stats", Some(Oip::AllStatistics)),
        ("/v2/models/m", model("m", None, OipAction::Metadata)),
        ("/v2/models/m/", model("m", None, OipAction::Metadata)),
        ("/v2/models/m/config", model("m", None, OipAction::Config)),
        ("/v2/models/m/ready", model("m", None, OipAction::Ready)),
        (
            "/v2/models/m/stats",
            model("m", None, OipAction::Statistics),
        ),
        ("/v2/models/m/infer", model("m", None, OipAction::Infer)),
        (
            "/v2/models/m/versions/3",
            model("m", Some("3"), OipAction::Metadata),
        ),
        (
            "/v2/models/m/versions/3/infer",
            model("m", Some("3"), OipAction::Infer),
        ),
        (
            "/v2/models/a%20b%2Fc/infer",
            model("a b/c", None, OipAction::Infer),
        ),
        (
            "/v2/models/%E4%BD%A0",
            model("你", None, OipAction::Metadata),
        ),
        (
            "/v2/models/ready/ready",
            model("ready", None, OipAction::Ready),
        ),
        (
            "/v2/models/m/versions/%31",
            model("m", Some("1"), OipAction::Metadata),
        ),
        ("/v2/models", None),
        ("/v2/models//infer", None),
        ("/v2/models/m/", model("m", None, OipAction::Metadata)),
        ("/v2/models/m/versions", None),
        ("/v2/models/m/versions//infer", None),
        ("/v2/models/m/generate", None),
        ("/v2/models/m/versions/1/infer/x", None),
        ("/v2/models/%FF", None),
        ("/v2/models/%4", None),
        ("/v2/models/%zz", None),
        ("/v2/health", None),
        ("/v1/models/m", None),
        ("", None),
    ] {
        assert_eq!(Oip::find(path), meaning, "{path}");
    }
}

#[test]
fn methods() {
    for (path, method, takes) in [
        ("/v2", Method::GET, true),
        ("/v2", Method::POST, false),
        ("/v2/repository/index", Method::POST, true),
        ("/v2/repository/index", Method::GET, true),
        ("/v2/models/m/infer", Method::POST, true),
        ("/v2/models/m/infer", Method::GET, false),
        ("/v2/models/m/ready", Method::HEAD, true),
        ("/v2/repository/models/m/load", Method::POST, true),
        ("/v2/models/m/stats", Method::DELETE, false),
    ] {
        assert_eq!(
            Oip::find(path).unwrap().takes(&method),
            takes,
            "{method} {path}"
        );
    }
}
