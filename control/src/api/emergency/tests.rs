use super::*;

#[test]
fn what_takes_back_and_what_needs_the_records() {
    let post = |path: &str| target(&Method::POST, path);
    let of = |asked, name: &str| Some((asked, name.to_owned()));
    for (path, found) in [
        (
            "/api/v1/deployments/desk/rollback",
            of(Asked::Deployment, "desk"),
        ),
        (
            "/api/v1/deployments/a%2Fb/rollback",
            of(Asked::Deployment, "a/b"),
        ),
        (
            "/api/v1/deployments/desk/stop",
            of(Asked::Steer("stopped"), "desk"),
        ),
        ("/api/v1/releases/desk/rollback", of(Asked::Release, "desk")),
        ("/api/v1/releases/wo_1/abort", of(Asked::Release, "wo_1")),
        (
            "/api/v1/releases/desk/pause",
            of(Asked::Steer("paused"), "desk"),
        ),
        (
            "/api/v1/releases/desk/promote",
            of(Asked::Steer("promoted"), "desk"),
        ),
        ("/api/v1/releases/desk/decisions", None),
        ("/api/v1/models/desk/rollback", None),
        ("/v1/rollback", None),
    ] {
        assert_eq!(post(path), found, "{path}");
    }
    assert_eq!(target(&Method::GET, "/api/v1/releases/desk/rollback"), None);
}
