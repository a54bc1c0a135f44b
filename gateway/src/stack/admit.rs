//! Whether there is room.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, header};

use super::around::{Inner, Middleware};
use super::limit::takes_back;
use crate::endpoint::Access;
use crate::error::ApiError;
use crate::limits::admission::Admission;
use crate::metrics::Shed;
use crate::{Body, Gateway, RequestBody, RequestContext};

/// What a shed client is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
pub(super) struct Admit;

impl Middleware for Admit {
    async fn handle<S: Inner>(
        gateway: Arc<Gateway>,
        mut request: Request<RequestBody>,
        rest: S,
    ) -> Response<Body> {
        let Some(context) = request.extensions().get::<RequestContext>() else {
            return rest.run(request).await;
        };
        let whose = (context.shares.clone(), context.principal.clone());
        match context.endpoint().access {
            Access::Open | Access::Operations => return rest.run(request).await,
            Access::Control => {
                let is_urgent = takes_back(request.method(), request.uri().path());
                let Some(_place) = Place::take(gateway.control_admission(), is_urgent) else {
                    return refuse(&gateway);
                };
                request.body_mut().count_among(whose);
                return rest.run(request).await;
            }
            Access::Full => {}
        }
        if let Some(refused) = too_large(&gateway, &request) {
            return refused.into_response();
        }
        // The permit is given back when the response's last byte has left.
        if !context.outcome.admit(gateway.admission()) {
            return refuse(&gateway);
        }
        request.body_mut().count_among(whose);
        rest.run(request).await
    }
}

fn refuse(gateway: &Gateway) -> Response<Body> {
    gateway.metrics().shed(Shed::Concurrency);
    let message = "The server is handling too many requests, please try again later.";
    ApiError::overloaded(message, RETRY_AFTER).into_response()
}

/// A place among the requests to the control plane, until the answer's head is there: what comes
/// after it may be a stream of events without an end.
struct Place<'a>(Option<&'a Admission>);

impl<'a> Place<'a> {
    /// Takes one if there is one. Who takes a revision back needs none.
    fn take(admission: &'a Admission, is_urgent: bool) -> Option<Self> {
        match is_urgent {
            true => Some(Self(None)),
            false => admission.enter().then_some(Self(Some(admission))),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(admission) = self.0 {
            admission.leave();
        }
    }
}

/// A body that says that it is too large is refused before it is read. (One that
/// does not say is refused while it is read.)
fn too_large(gateway: &Gateway, request: &Request<RequestBody>) -> Option<ApiError> {
    let length = request.headers().get(header::CONTENT_LENGTH)?;
    let bytes: u64 = length.to_str().ok()?.parse().ok()?;
    let limit = gateway.config().server.max_body;
    (bytes > limit as u64).then(|| ApiError::too_large(limit))
}
