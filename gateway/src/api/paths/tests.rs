use http::Method;
use proptest::prelude::*;

use super::{Endpoint, Health};

#[test]
fn paths_mean_endpoints() {
    let id = |id: &str| Some(Endpoint::Model(id.into()));
    let cases = [
        ("/v1/chat/completions", Some(Endpoint::Chat)),
        ("/v1/chat/completions/", Some(Endpoint::Chat)),
        ("/v1/responses", None),
        ("/v1/models", Some(Endpoint::Models)),
        ("/v1/models/a", id("a")),
        ("/v1/models/org/a", id("org/a")),
        ("/v1/models/org%2Fa", id("org/a")),
        ("/v1/models/%E6%A8%A1", id("模")),
        ("/v1/models/%ff", None),
        ("/v1/models/%4", None),
        ("/rerank", Some(Endpoint::Rerank)),
        ("/health", Some(Endpoint::Health(Health::Ready))),
        ("/", None),
        ("", None),
    ];
    for (path, endpoint) in cases {
        assert_eq!(Endpoint::find(path), endpoint, "{path}");
    }
}

#[test]
fn methods_are_checked() {
    assert!(Endpoint::Chat.takes(&Method::POST));
    assert!(!Endpoint::Chat.takes(&Method::GET));
    assert!(Endpoint::Models.takes(&Method::HEAD));
    assert!(!Endpoint::Models.takes(&Method::DELETE));
}

proptest! {
    #[test]
    fn any_path_is_understood_or_not(path in "(/v[12]/models/)?.{0,40}") {
        _ = Endpoint::find(&path);
    }
}
