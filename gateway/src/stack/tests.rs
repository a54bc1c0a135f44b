use http::Method;

use super::limit::{DrawsOn, drawn_on};
use crate::endpoint::Resolved;

#[test]
fn only_inference_draws_on_its_limits_and_taking_back_on_none() {
    let (get, post) = (Method::GET, Method::POST);
    for (method, path, drawn) in [
        (&post, "/v1/chat/completions", DrawsOn::Inference),
        (&post, "/tokenize", DrawsOn::Inference),
        (&post, "/v2/models/m/infer", DrawsOn::Inference),
        (&get, "/v2/models/m/ready", DrawsOn::Control),
        (&get, "/v1/models", DrawsOn::Control),
        (&get, "/api/v1/models", DrawsOn::Control),
        (&post, "/api/v1/releases/r/pause", DrawsOn::Control),
        (&get, "/api/v1/releases/rollback", DrawsOn::Control),
        (&post, "/api/v1/releases/r/rollback", DrawsOn::Nothing),
        (&post, "/api/v1/releases/r/abort", DrawsOn::Nothing),
        (&post, "/api/v1/deployments/d/rollback", DrawsOn::Nothing),
        (&post, "/api/v1/deployments/d/stop", DrawsOn::Nothing),
        (&post, "/v1/rollback", DrawsOn::Inference),
        (&get, "/health/ready", DrawsOn::Nothing),
        (&get, "/metrics", DrawsOn::Nothing),
        (&get, "/api/v1/stats", DrawsOn::Nothing),
    ] {
        assert_eq!(
            drawn_on(method, path, Resolved::of(path).endpoint),
            drawn,
            "{method} {path}"
        );
    }
}
