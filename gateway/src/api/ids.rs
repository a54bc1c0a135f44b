//! Names and times of answers.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng as _;
use rand::distr::Alphanumeric;

/// `chatcmpl-…`, `cmpl-…`, `call_…`: a prefix and 24 random characters.
pub(crate) fn random(prefix: &str) -> String {
    let mut id = String::with_capacity(prefix.len() + 24);
    id.push_str(prefix);
    id.extend(
        rand::rng()
            .sample_iter(Alphanumeric)
            .take(24)
            .map(char::from),
    );
    id
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// `system_fingerprint`: changes with the model's revision and with this
/// program's version, as `seed` promises nothing across either.
pub(crate) fn fingerprint(deployment: &str, revision: &str) -> String {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    for part in [deployment, revision, env!("CARGO_PKG_VERSION")] {
        hash.update(part);
        hash.update([0]);
    }
    let digest = hash.finalize();
    let head: String = digest[..5]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("fp_{head}")
}
