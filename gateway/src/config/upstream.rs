//! `[upstream]`: servers elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::{Problems, human};

/// `[upstream]`: how to treat servers elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamConfig {
    /// Time to connect, TLS included.
    #[serde(with = "human::duration")]
    pub connect_timeout: Duration,
    /// Time to the head of the answer. Without streaming that is the whole generation.
    #[serde(with = "human::duration")]
    pub first_byte_timeout: Duration,
    /// Time between two pieces of an answer.
    #[serde(with = "human::duration")]
    pub idle_timeout: Duration,
    /// Bytes of one answer that are held at most until it is known to be one: all of an
    /// answer in one piece, of a stream what comes before its first output. A larger answer
    /// is judged by its beginning and its end.
    #[serde(with = "human::size")]
    pub max_held: usize,
    /// Unused connections are closed after this, or sooner: an upstream that says how long it
    /// keeps them, or that was seen to close them, is not waited for.
    #[serde(with = "human::duration")]
    pub keep_alive: Duration,
    /// Ask for the usage of a stream also where the client does not, and leave it out of what the
    /// client gets. Without it, such streams are counted by an estimate.
    pub ask_usage: bool,
    /// Further headers of upstreams that clients get: names, or beginnings with a `*` behind.
    pub pass_headers: Vec<String>,
    /// Speak HTTP/2 with prior knowledge (over TLS it is negotiated anyway).
    pub http2: bool,
    /// PEM file with authorities to trust instead of the built-in ones.
    pub ca_file: Option<PathBuf>,
    /// Names are resolved again this often, in the background.
    #[serde(with = "human::duration")]
    pub resolve_every: Duration,
    /// Further attempts for one request, each on another replica, before the
    /// first output only.
    pub retries: u32,
    /// Retries may add this share to the requests sent; 0.2 is one in five.
    pub retry_budget: f64,
    /// Failures in a row (5xx, no connection, time-out, no answer) that eject a replica; 0 is never.
    pub eject_after: u32,
    /// First ejection; each further one doubles it.
    #[serde(with = "human::duration")]
    pub eject_for: Duration,
    /// Longest ejection.
    #[serde(with = "human::duration")]
    pub eject_for_max: Duration,
    /// At most this share of a deployment's replicas is ejected at once.
    pub max_ejected: f64,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            first_byte_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(120),
            max_held: 4 << 20,
            keep_alive: Duration::from_secs(30),
            ask_usage: true,
            pass_headers: Vec::new(),
            http2: false,
            ca_file: None,
            resolve_every: Duration::from_secs(30),
            retries: 2,
            retry_budget: 0.2,
            eject_after: 5,
            eject_for: Duration::from_secs(10),
            eject_for_max: Duration::from_secs(300),
            max_ejected: 0.5,
        }
    }
}

impl UpstreamConfig {
    pub(super) fn check_pass_headers(&self, problems: &mut Problems) {
        for (number, name) in self.pass_headers.iter().enumerate() {
            let plain = name.strip_suffix('*').unwrap_or(name);
            problems.expect(
                plain.parse::<HeaderName>().is_ok(),
                &format!("upstream.pass_headers.{number}"),
                "must be a header's name, or the beginning of one with a * behind",
            );
        }
    }
}
