//! What of a client's headers an upstream may see, and the reverse.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::RequestContext;
use crate::stack::{REQUEST_ID, REVISION};

/// Whether a header concerns one connection only (RFC 9110 §7.6.1).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether a client's header stays here: who it is, and what we say ourselves.
fn is_private(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "authorization" | "api-key" | "x-api-key" | "cookie" | "openai-organization"
            | "openai-project" | "host" | "content-length" | "expect" | "x-request-id"
            | "x-request-timeout-ms"
            // An upstream that compresses an event stream holds it back.
            | "accept-encoding"
    )
}

/// What of an upstream's headers describes its answer, and passes. All others are about itself,
/// or orders to the client's browser or to a proxy in front of this server: which pages may read
/// an answer, where its reader is sent and what is kept for this host's name is decided here.
const PASS: [&str; 9] = [
    "cache-control",
    "content-language",
    "content-type",
    "openai-processing-ms",
    "openai-version",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "content-length",
];
/// The same, by their beginning: how much our account there has left.
const PASS_PREFIXES: [&str; 2] = ["x-ratelimit-", "ratelimit"];

/// Which headers of an upstream's answer a client gets: [`PASS`], and what the configuration adds.
#[derive(Debug, Clone, Default)]
pub(super) struct Passing {
    names: Vec<Box<str>>,
    prefixes: Vec<Box<str>>,
}

impl Passing {
    /// `more` are names, or beginnings of names with a `*` behind.
    pub(super) fn new(more: &[String]) -> Self {
        let mut passing = Self::default();
        for name in more {
            let name = name.to_ascii_lowercase();
            match name.strip_suffix('*') {
                Some(prefix) => passing.prefixes.push(prefix.into()),
                None => passing.names.push(name.into()),
            }
        }
        passing
    }

    fn admits(&self, name: &HeaderName) -> bool {
        let text = name.as_str();
        let known = PASS.contains(&text) || PASS_PREFIXES.iter().any(|it| text.starts_with(it));
        let added = self.names.iter().any(|it| **it == *text)
            || self.prefixes.iter().any(|it| text.starts_with(&**it));
        (known || added) && !is_hop_by_hop(name) && name != REQUEST_ID && name != REVISION
    }

    /// Takes out of an upstream's response what a client must not see.
    pub(super) fn clean(&self, headers: &mut HeaderMap) {
        let dropped: Vec<HeaderName> = headers
            .keys()
            .filter(|name| !self.admits(name) || is_named(headers, name))
            .cloned()
            .collect();
        for name in dropped {
            headers.remove(name);
        }
    }
}

/// Whether a header describes a body.
pub(super) fn describes_body(name: &HeaderName) -> bool {
    name.as_str().starts_with("content-")
}

/// Headers that `Connection` names are hop-by-hop too.
fn is_named(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|token| {
            token
                .trim_ascii()
                .eq_ignore_ascii_case(name.as_str().as_bytes())
        })
    })
}

/// The upstream's request headers. `traceparent` and `tracestate` (W3C Trace
/// Context) pass as they are.
pub(super) fn request(
    client: &HeaderMap,
    context: &RequestContext,
    authorization: Option<&HeaderValue>,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(client.len() + 2);
    let names_others = client.contains_key(header::CONNECTION);
    for (name, value) in client {
        let dropped =
            is_hop_by_hop(name) || is_private(name) || (names_others && is_named(client, name));
        if !dropped {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(authorization) = authorization {
        headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    if let Ok(id) = HeaderValue::from_str(&context.id) {
        headers.insert(REQUEST_ID, id);
    }
    headers
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn credentials_and_connection_headers_stay_here() {
        let client = map(&[
            ("authorization", "Bearer mine"),
            ("api-key", "mine"),
            ("x-api-key", "mine"),
            ("cookie", "a=b"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("host", "here"),
            ("content-type", "application/json"),
            ("traceparent", "00-1-2-01"),
            ("x-request-id", "theirs"),
        ]);
        let key = HeaderValue::from_static("Bearer upstreams");
        let sent = request(&client, &RequestContext::new("ours", "/"), Some(&key));
        let expected = map(&[
            ("content-type", "application/json"),
            ("traceparent", "00-1-2-01"),
            ("authorization", "Bearer upstreams"),
            ("x-request-id", "ours"),
        ]);
        assert_eq!(sent, expected);
    }

    #[test]
    fn an_upstreams_connection_and_cookies_stay_there() {
        let mut headers = map(&[
            ("connection", "keep-alive, x-hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("location", "http://10.0.0.5/"),
            ("www-authenticate", "Basic"),
            ("x-accel-redirect", "/secret"),
            ("x-sluice-revision", "theirs"),
            ("x-request-id", "theirs"),
            ("server", "uvicorn"),
            ("x-internal-host", "10.0.0.5"),
            ("openai-organization", "ours"),
            ("x-compute-time", "3"),
            ("content-type", "text/event-stream"),
            ("retry-after", "3"),
            ("x-ratelimit-remaining-tokens", "7"),
        ]);
        let kept = [
            ("content-type", "text/event-stream"),
            ("retry-after", "3"),
            ("x-ratelimit-remaining-tokens", "7"),
        ];
        let mut more = headers.clone();
        Passing::default().clean(&mut headers);
        assert_eq!(headers, map(&kept));
        let asked = ["X-Compute-*", "Server", "X-Request-Id", "Connection"].map(String::from);
        Passing::new(&asked).clean(&mut more);
        let mut all = map(&kept);
        all.extend(map(&[("server", "uvicorn"), ("x-compute-time", "3")]));
        assert_eq!(more, all);
    }
}
