//! What types cannot check of `[server]`.

use super::check::{places, times};
use super::problem::Below;
use super::{Config, Problems};

/// Threads at most: more than any machine has use for.
const MAX_THREADS: usize = 4096;

impl Config {
    pub(super) fn check_server(&self, problems: &mut Problems) {
        let server = &self.server;
        problems.expect(
            server.threads <= MAX_THREADS,
            "server.threads",
            "must be at most 4096; 0 is one per CPU",
        );
        places(
            problems,
            &[
                ("server.max_connections", server.max_connections),
                ("server.max_streams", server.max_streams as usize),
            ],
        );
        problems.expect(server.max_body > 0, "server.max_body", "must be at least 1");
        problems.expect(
            (8 << 10..=1 << 20).contains(&server.max_head),
            "server.max_head",
            "must lie between 8KiB and 1MiB",
        );
        times(
            problems,
            &[
                ("server.head_timeout", server.head_timeout),
                ("server.body_timeout", server.body_timeout),
                ("server.idle_timeout", server.idle_timeout),
                ("server.write_timeout", server.write_timeout),
            ],
        );
        let mut here = Below {
            problems,
            above: "server".to_owned(),
        };
        for (index, origin) in server.cors_origins.iter().enumerate() {
            if !is_origin(origin) {
                let field = format!("cors_origins.{index}");
                let message =
                    format!("`{origin}` must look like https://app.example.com, or be `*`");
                here.add(&field, message);
            }
        }
        for (index, host) in server.allowed_hosts.iter().enumerate() {
            if !is_host(host) {
                let field = format!("allowed_hosts.{index}");
                let message = format!(
                    "`{host}` must look like sluice.example.com or sluice.example.com:8080"
                );
                here.add(&field, message);
            }
        }
        match (&server.tls_cert, &server.tls_key) {
            (Some(_), None) => here.add("tls_key", "is missing: `tls_cert` needs it"),
            (None, Some(_)) => here.add("tls_cert", "is missing: `tls_key` needs it"),
            _ => {}
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
