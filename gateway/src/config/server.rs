//! What types cannot check of `[server]` and of the limits that every request meets.

use super::Config;

impl Config {
    pub(super) fn validate_server(&self) -> Result<(), (String, String)> {
        let server = &self.server;
        let positive = [
            ("server.max_body", server.max_body),
            ("server.max_connections", server.max_connections),
            ("server.max_streams", server.max_streams as usize),
            ("log.buffer", self.log.buffer),
            ("control.connections", self.control.connections as usize),
            ("control.max_body", self.control.max_body),
            ("limits.max_in_flight", self.limits.max_in_flight),
            (
                "limits.max_control_in_flight",
                self.limits.max_control_in_flight,
            ),
            ("limits.max_bodies_per_key", self.limits.max_bodies_per_key),
            ("limits.max_tokenize", self.limits.max_tokenize),
        ];
        if let Some((field, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(((*field).to_owned(), "must be at least 1".to_owned()));
        }
        if !(8 << 10..=1 << 20).contains(&server.max_head) {
            return Err((
                "server.max_head".to_owned(),
                "must lie between 8KiB and 1MiB".to_owned(),
            ));
        }
        let timeouts = [
            ("server.head_timeout", server.head_timeout),
            ("server.body_timeout", server.body_timeout),
            ("server.idle_timeout", server.idle_timeout),
            ("server.write_timeout", server.write_timeout),
            ("limits.default_deadline", self.limits.default_deadline),
            ("limits.max_deadline", self.limits.max_deadline),
            ("upstream.connect_timeout", self.upstream.connect_timeout),
            (
                "upstream.first_byte_timeout",
                self.upstream.first_byte_timeout,
            ),
            ("upstream.idle_timeout", self.upstream.idle_timeout),
            ("upstream.resolve_every", self.upstream.resolve_every),
            ("upstream.eject_for", self.upstream.eject_for),
            ("control.idempotency_keep", self.control.idempotency_keep),
            ("control.idempotency_lease", self.control.idempotency_lease),
        ];
        if let Some((field, _)) = timeouts.iter().find(|(_, value)| value.is_zero()) {
            return Err(((*field).to_owned(), "must be longer than zero".to_owned()));
        }
        for (index, origin) in server.cors_origins.iter().enumerate() {
            if !is_origin(origin) {
                return Err((
                    format!("server.cors_origins.{index}"),
                    format!("`{origin}` must look like https://app.example.com, or be `*`"),
                ));
            }
        }
        for (index, host) in server.allowed_hosts.iter().enumerate() {
            if !is_host(host) {
                return Err((
                    format!("server.allowed_hosts.{index}"),
                    format!(
                        "`{host}` must look like sluice.example.com or sluice.example.com:8080"
                    ),
                ));
            }
        }
        match (&server.tls_cert, &server.tls_key) {
            (Some(_), None) => Err((
                "server.tls_key".into(),
                "is missing: `tls_cert` needs it".into(),
            )),
            (None, Some(_)) => Err((
                "server.tls_cert".into(),
                "is missing: `tls_key` needs it".into(),
            )),
            _ => Ok(()),
        }
    }
}

/// As browsers send it: scheme, host and port, nothing behind.
fn is_origin(text: &str) -> bool {
    let uri = text.parse::<http::Uri>().ok();
    let parts = uri.as_ref().and_then(|uri| {
        let host = uri.authority()?;
        Some(format!("{}://{host}", uri.scheme_str()?))
    });
    text == "*" || parts.is_some_and(|origin| origin == text)
}

/// A name or an address, and maybe a port.
fn is_host(text: &str) -> bool {
    let authority = text.parse::<http::uri::Authority>().ok();
    authority.is_some_and(|it| !it.host().is_empty() && !text.contains('@'))
}
