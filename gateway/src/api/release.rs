//! A request for a deployment under release: put to one of the two revisions, with the
//! stable one to fall back on.

use std::sync::Arc;

use http::Response;
use tokio::runtime::Handle;

use super::ask::{Told, ask_released};
use super::call::Asked;
use crate::context::RequestContext;
use crate::endpoint::Kind;
use crate::metrics::Shadowing;
use crate::release::shadow::{self, ShadowRequest};
use crate::release::{Placement, body};
use crate::{Body, Gateway};

/// Bytes of an answer from which emptiness and refusal can be told.
const OPENING: usize = 4 << 10;

/// Answers a request that a release has put somewhere.
pub(super) async fn answer(
    gateway: &Arc<Gateway>,
    context: &RequestContext,
    placement: &Placement,
    asked: Asked,
) -> Result<Response<Body>, Told> {
    let deployment = placement.deployment();
    let response = ask_released(&asked, context, Some(placement), deployment).await?;
    let watch = gateway.releases();
    if !watch.has_listener() {
        return Ok(response);
    }
    let structured = asked.envelope.structured;
    let copied = placement.pick().shadow && is_copied(gateway, &asked);
    let limit = match structured || copied {
        true => watch.config().max_answer,
        false => OPENING,
    };
    if copied {
        let mut asked = asked;
        shadow::mark(&mut asked.parts.headers);
        placement.keep_copy(Box::new(ShadowRequest {
            asked,
            gateway: Arc::downgrade(gateway),
            runtime: Handle::current(),
        }));
    }
    Ok(body::keep(response, &context.outcome, structured, limit))
}

/// Whether a copy of a request will be asked for.
fn is_copied(gateway: &Gateway, asked: &Asked) -> bool {
    let watch = gateway.releases();
    if !Kind::Model(asked.protocol).is_comparable() || watch.config().shadow_concurrency == 0 {
        return false;
    }
    let obstacle = if asked.body.len() > watch.config().shadow_max_body {
        Shadowing::Large
    } else if gateway.admission().is_busy() {
        Shadowing::Busy
    } else {
        return true;
    };
    gateway.metrics().shadow(obstacle);
    false
}
