//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::context::RequestContext;
use crate::metrics::Metrics;
use crate::router::{Deployment, RouteError, RouteTable};

/// Shared state of the data plane. Always behind an [`Arc`].
#[derive(Debug)]
pub struct Gateway {
    routes: ArcSwap<RouteTable>,
    config: Config,
    metrics: Metrics,
    ready: AtomicBool,
}

impl Gateway {
    /// A gateway without routes yet, not ready.
    #[must_use]
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            routes: ArcSwap::from_pointee(RouteTable::default()),
            metrics: Metrics::new(),
            config,
            ready: AtomicBool::new(false),
        })
    }

    /// The current routes. Hold the guard for one request, not longer.
    #[must_use]
    pub fn routes(&self) -> arc_swap::Guard<Arc<RouteTable>> {
        self.routes.load()
    }

    /// Replaces the routes; requests in flight keep the target they have.
    pub fn publish(&self, routes: RouteTable) {
        self.routes.store(Arc::new(routes));
    }

    /// Finds the deployment for a request, checks that its key may use it and
    /// notes it in the request's outcome. Every handler starts here.
    ///
    /// # Errors
    /// The model does not exist, or the key may not use it.
    pub fn deployment(
        &self,
        context: &RequestContext,
        model: &str,
    ) -> Result<Arc<Deployment>, RouteError> {
        let routes = self.routes.load();
        let deployment = routes.find(model).ok_or(RouteError::NotFound)?;
        if let Some(principal) = &context.principal
            && !principal.may_use(model)
        {
            return Err(RouteError::Forbidden);
        }
        context.outcome.set_deployment(deployment);
        Ok(Arc::clone(deployment))
    }

    /// The configuration it was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counters, histograms and gauges.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What `/health/ready` answers: models are loaded and no drain has begun.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    /// Set true once models are loaded, false when draining begins.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
    }
}
