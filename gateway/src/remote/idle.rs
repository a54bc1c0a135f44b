//! How long an unused connection may be kept: less than its server keeps it. Pure.
//!
//! A server that closes a connection at the moment at which a request is sent on it loses that
//! request. Few say how long they wait (`Keep-Alive: timeout=5`); of the others it is learned
//! from the connections that they close.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};

/// A close sooner than this is no limit to unused connections: a server that ends, or that counts
/// the requests of a connection.
const SHORTEST: Duration = Duration::from_millis(200);
/// How long what was learned holds: a server that is restarted closes all its connections, however
/// long it keeps them otherwise.
const LEARNED_FOR: Duration = Duration::from_secs(600);

/// What was learned of one upstream.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Learned {
    limit: Option<(Duration, Instant)>,
}

impl Learned {
    /// A connection was found closed that had been unused for `unused` now, and was still open
    /// less than `before` ago.
    pub(super) fn closed(&mut self, unused: Duration, before: Duration, now: Instant) {
        let open = unused.saturating_sub(before) * 9 / 10;
        if unused < SHORTEST {
            return;
        }
        let found = open.max(SHORTEST);
        let known = self.limit(now).unwrap_or(Duration::MAX);
        self.limit = Some((found.min(known), now));
    }

    /// How long this upstream keeps unused connections at least.
    pub(super) fn limit(&self, now: Instant) -> Option<Duration> {
        let (limit, learned) = self.limit?;
        (now.saturating_duration_since(learned) < LEARNED_FOR).then_some(limit)
    }
}

/// How long a server says that it keeps this connection, less what a request takes to get there.
pub(super) fn announced(headers: &HeaderMap) -> Option<Duration> {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const LEAST_MARGIN: Duration = Duration::from_millis(500);
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let seconds = value.split(',').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let named = name.trim().eq_ignore_ascii_case("timeout");
        named.then(|| value.trim().trim_matches('"').parse::<u32>().ok())?
    })?;
    let limit = Duration::from_secs(seconds.into());
    Some(limit.saturating_sub((limit / 5).max(LEAST_MARGIN)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_a_server_says_is_kept_below() {
        for (value, expected) in [
            ("timeout=5", Some(4000)),
            ("max=100, Timeout = \"60\"", Some(48_000)),
            ("timeout=1", Some(500)),
            ("timeout=0", Some(0)),
            ("max=100", None),
            ("timeout=soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("keep-alive", HeaderValue::from_static(value));
            let found = announced(&headers).map(|it| it.as_millis());
            assert_eq!(found, expected, "{value}");
        }
        assert_eq!(announced(&HeaderMap::new()), None);
    }

    #[test]
    fn what_it_closes_teaches_for_a_while() {
        let start = Instant::now();
        let seconds = Duration::from_secs;
        let mut learned = Learned::default();
        // Closed after 5 s, which is noticed at the next look.
        learned.closed(Duration::from_millis(5900), seconds(1), start);
        let limit = learned.limit(start);
        assert!(
            limit.is_some_and(|it| it < seconds(5) && it > seconds(4)),
            "{limit:?}"
        );
        learned.closed(seconds(20), seconds(1), start);
        assert_eq!(learned.limit(start), limit);
        // A server that counts requests.
        learned.closed(Duration::from_millis(20), seconds(1), start);
        assert_eq!(learned.limit(start), limit);
        assert_eq!(learned.limit(start + LEARNED_FOR), None);
    }
}
