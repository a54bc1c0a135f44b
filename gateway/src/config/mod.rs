//! `sluice.toml`.

/// The whole configuration, validated.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The HTTP server.
    pub server: ServerConfig,
}

/// `[server]`: limits of the HTTP server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// Largest request body, bytes.
    pub max_body: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { max_body: 8 << 20 }
    }
}
