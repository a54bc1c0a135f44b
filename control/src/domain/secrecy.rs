//! How secret data is, and how secret what somebody may see.

use super::words::words;

words! {
    /// Ordered from least to most secret.
    pub enum Secrecy ("secrecy level") {
        Public = "public",
        Internal = "internal",
        Confidential = "confidential",
        Secret = "secret",
    }
}

impl Secrecy {
    /// Whether something of this level may be shown to, or used by, one cleared for `clearance`.
    pub fn within(self, clearance: Self) -> bool {
        self <= clearance
    }
}
