//! The same error in the form of the control plane: a problem of RFC 9457.
//!
//! Clients of `/api/v1` read one form of error, whoever refuses: the layers of the gateway or the control plane itself.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

use super::ApiError;
use crate::endpoint::{Access, Endpoint};
use crate::{Body, full};

/// Lies on the response that was made of an error.
#[derive(Debug, Clone)]
pub(super) struct MadeOf(pub Arc<ApiError>);

/// An answer in the form that clients of this endpoint read.
pub(crate) fn in_form_of(endpoint: &Endpoint, mut response: Response<Body>) -> Response<Body> {
    if endpoint.access != Access::Control {
        return response;
    }
    let Some(MadeOf(error)) = response.extensions_mut().remove::<MadeOf>() else {
        return response;
    };
    let media = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, media);
    response.map(|_| full(problem(&error)))
}

/// `type` and `title` are the code's, as in the control plane's own problems.
fn problem(error: &ApiError) -> String {
    let code = error.code.unwrap_or(match error.status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        _ => error.kind,
    });
    let mut problem = json!({
        "type": format!("urn:sluice:problem:{code}"),
        "title": code.replace('_', " "),
        "status": error.status.as_u16(),
        "detail": error.message,
    });
    if let Some(field) = &error.param {
        problem["errors"] = json!([{"field": field, "message": error.message}]);
    }
    problem.to_string()
}
