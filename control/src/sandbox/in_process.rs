//! For tests of what asks models on trial: a test's program is not the one that becomes a child.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sluice_gateway::Gateway;
use sluice_gateway::config::DeploymentConfig;
use sluice_gateway::router::load;
use tokio::sync::watch;

use super::render::{HereRenderer, SharedRenderer};
use super::{End, Ended, Held, Hosted, Hosts};

/// Holds models in this process.
#[derive(Debug)]
pub(crate) struct InProcess(pub(crate) Arc<Gateway>);

impl Held for watch::Sender<Option<Ended>> {}

impl Hosts for InProcess {
    fn start<'a>(&'a self, config: DeploymentConfig) -> BoxFuture<'a, Result<Hosted, Ended>> {
        async move {
            let loaded = load::deployment(&self.0, &config).await;
            let loaded = loaded.map_err(|error| Ended {
                end: End::NotLoaded,
                why: error.to_string(),
            })?;
            let (sender, ended) = watch::channel(None);
            Ok(Hosted {
                target: Some(loaded.target.clone()),
                ended,
                _held: Box::new(sender),
            })
        }
        .boxed()
    }

    fn renderer(&self) -> BoxFuture<'_, Result<SharedRenderer, Ended>> {
        async { Ok(Arc::new(HereRenderer) as SharedRenderer) }.boxed()
    }
}
