//! Layer 5: who asks.

use std::sync::Arc;

use http::{Request, Response};

use super::around::{Inner, Middleware};
use crate::auth::AuthError;
use crate::endpoint::Access;
use crate::error::ApiError;
use crate::{Body, Gateway, RequestBody, RequestContext};

#[derive(Clone, Copy)]
pub(super) struct Authenticate;

impl Middleware for Authenticate {
    async fn handle<S: Inner>(
        gateway: Arc<Gateway>,
        mut request: Request<RequestBody>,
        rest: S,
    ) -> Response<Body> {
        let auth = &gateway.config().auth;
        let context = request.extensions().get::<RequestContext>();
        let access = context.map_or(Access::Full, |context| context.endpoint().access);
        // What is open to all is not the same for all: whoever shows a key is told more names.
        let open = match access {
            Access::Open => true,
            Access::Operations => auth.open_metrics,
            Access::Control | Access::Full => false,
        };
        if auth.required {
            match gateway.keys().authenticate(request.headers()) {
                Ok(account) => {
                    if let Some(context) = request.extensions_mut().get_mut::<RequestContext>() {
                        context.priority = account.principal.priority;
                        context.principal = Some(Arc::clone(&account.principal));
                        context.outcome.set_account(account);
                    }
                }
                // Not among the gateway's keys: it may be one of the control plane's own.
                Err(_) if access == Access::Control => {}
                // A probe with a key that has expired must not take the node out of rotation.
                Err(_) if access == Access::Open => {}
                Err(AuthError::Missing) if open => {}
                Err(AuthError::Missing) => return ApiError::missing_api_key().into_response(),
                Err(AuthError::Unknown) => return ApiError::invalid_api_key().into_response(),
            }
        }
        rest.run(request).await
    }
}
