//! Keeps an import from being a way into the network that the server stands in: somebody who may name a URL must
//! not reach the metadata service of a cloud or an unguarded neighbour through it.
//!
//! The check is made on the addresses that are connected to, after the name was resolved, for every redirect
//! anew; a name that resolves differently the second time changes nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Attempt, Policy};
use sluice_gateway::remote::reach::is_public;

use super::error::ArtifactError;
use super::settings::ImportSettings;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// Which hosts may be reached.
#[derive(Debug, Clone)]
pub(super) struct Guard(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    private: bool,
    trusted: Vec<String>,
}

/// A place that may not be reached.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is a private address, which imports may not reach; import.trusted_hosts or import.private_addresses would allow it"
)]
struct Refused(String);

impl Guard {
    pub(super) fn new(settings: &ImportSettings) -> Self {
        Self(Arc::new(Rules {
            private: settings.private_addresses,
            trusted: settings.trusted_hosts.clone(),
        }))
    }

    fn trusts(&self, host: &str) -> bool {
        self.0.private
            || self
                .0
                .trusted
                .iter()
                .any(|trusted| trusted.eq_ignore_ascii_case(host))
    }

    /// Names are checked when they are resolved; an address in the URL itself is not resolved.
    fn check_literal(&self, host: &str) -> Result<(), Refused> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) if !is_public(address) && !self.trusts(bare) => {
                Err(Refused(bare.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Checks the host of a URL before the first request.
    pub(super) fn check_url(&self, url: &reqwest::Url) -> Result<(), ArtifactError> {
        let host = url.host_str().unwrap_or_default();
        self.check_literal(host)
            .map_err(|refused| ArtifactError::Forbidden(refused.to_string()))
    }

    /// Checks `HOST:PORT` for a protocol whose client resolves by itself. Weaker than the rest of this module: the
    /// client may see another address a moment later.
    pub(super) async fn check_host(&self, host: &str) -> Result<(), ArtifactError> {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if self.trusts(name) {
            return Ok(());
        }
        let found = tokio::net::lookup_host((name, 0)).await;
        let addresses = found.map_err(|error| ArtifactError::Source {
            place: host.to_owned(),
            problem: error.to_string(),
        })?;
        for address in addresses {
            if !is_public(address.ip()) {
                return Err(ArtifactError::Forbidden(
                    Refused(name.to_owned()).to_string(),
                ));
            }
        }
        Ok(())
    }

    fn follow(&self, attempt: Attempt<'_>, most: usize) -> reqwest::redirect::Action {
        if attempt.previous().len() > most {
            return attempt.error(format!("more than {most} redirects (import.max_redirects)"));
        }
        let url = attempt.url();
        if !matches!(url.scheme(), "http" | "https") {
            return attempt.error("a redirect leads away from http and https");
        }
        let secure = attempt
            .previous()
            .last()
            .is_some_and(|last| last.scheme() == "https");
        if secure && url.scheme() == "http" {
            return attempt.error("a redirect leads from https to http");
        }
        match self.check_literal(url.host_str().unwrap_or_default()) {
            Ok(()) => attempt.follow(),
            Err(refused) => attempt.error(refused),
        }
    }

    /// An HTTP client that reaches only what may be reached.
    ///
    /// # Errors
    /// If the machine's root certificates cannot be read.
    pub(super) fn client(
        &self,
        settings: &ImportSettings,
    ) -> Result<reqwest::Client, ArtifactError> {
        let (guard, most) = (self.clone(), settings.max_redirects);
        base_client()
            .redirect(Policy::custom(move |attempt| guard.follow(attempt, most)))
            .dns_resolver(self.clone())
            .read_timeout(Duration::from_secs(settings.idle_s))
            // A proxy would resolve names in our stead.
            .no_proxy()
            .build()
            .map_err(unusable)
    }
}

/// A client for places that the configuration names, which need no guard.
///
/// # Errors
/// If the machine's root certificates cannot be read.
pub(super) fn plain_client() -> Result<reqwest::Client, ArtifactError> {
    base_client().build().map_err(unusable)
}

/// A client with the settings that all of ours share; proxies are those of the environment.
pub(crate) fn base_client() -> reqwest::ClientBuilder {
    // Two libraries that each assume a provider would fail at the first connection; the first to say so wins.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().connect_timeout(CONNECT)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unusable(error: reqwest::Error) -> ArtifactError {
    ArtifactError::Invalid {
        field: "artifacts",
        problem: format!("no HTTP client can be made: {error}"),
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            // All or nothing: which of several is taken is not ours to say.
            if !guard.trusts(host) && found.iter().any(|address| !is_public(address.ip())) {
                return Err(Refused(host.to_owned()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
