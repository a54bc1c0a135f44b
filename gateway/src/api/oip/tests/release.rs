//! Two revisions of a tensor model behind one name.

use super::endpoints::{affine, deployment, get, post};
use super::*;
use crate::config::Config;
use crate::router::split::{Split, SplitConfig, Weight};
use crate::router::{Release, Source};

#[tokio::test]
async fn a_candidate_that_is_closed_is_replaced_unless_it_was_named() {
    let gateway = Gateway::new(Config::default()).unwrap();
    gateway.set_ready(true);
    let (stable, mut candidate) = (
        deployment(&gateway, "affine"),
        deployment(&gateway, "affine"),
    );
    let renamed = Arc::get_mut(&mut candidate).unwrap();
    renamed.revision = "r2".into();
    renamed.series = gateway.metrics().series("affine", "r2");
    let split = Split::new(SplitConfig {
        weight: Weight::ALL,
        ..SplitConfig::default()
    });
    let release = Release::new("rel-1", stable, Arc::clone(&candidate), split).unwrap();
    let entries = vec![Arc::new(release)];
    gateway.publish_from(Source::Control, entries).unwrap();
    let path = "/v2/models/affine/infer";
    let named = "/v2/models/affine/versions/r2/infer";
    for path in [path, named] {
        let answer = post(&gateway, path, &affine()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["model_version"], "r2");
    }
    let metadata = get(&gateway, "/v2/models/affine").await;
    assert_eq!(metadata.headers["x-sluice-revision"], "r1");
    let metadata = get(&gateway, "/v2/models/affine/versions/r2").await;
    assert_eq!(metadata.headers["x-sluice-revision"], "r2");
    describe::tensor_model(&candidate).unwrap().close();
    let answer = post(&gateway, path, &affine()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["model_version"], "r1");
    assert_eq!(answer.headers["x-sluice-revision"], "r1");
    let answer = post(&gateway, named, &affine()).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.headers["x-sluice-revision"], "r2");
    let unknown = "/v2/models/affine/versions/r3/infer";
    assert_eq!(post(&gateway, unknown, &affine()).await.status, 404);
}
