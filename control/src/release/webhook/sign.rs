//! Signatures of *Standard Webhooks*: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// What a shared secret begins with; base64 follows.
const PREFIX: &str = "whsec_";
/// Bytes of a secret, by the specification.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// A key that only the receiver has, too. It cannot be shown.
pub struct Secret(hmac::Key);

/// Why a text holds no secrets. It does not show the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("holds no secret; it should be {PREFIX} and the base64 of {} to {} bytes", LENGTH.start(), LENGTH.end())]
    Missing,
    #[error("secret {0} should be {PREFIX} and base64")]
    Malformed(usize),
    #[error("secret {place} has {bytes} bytes; it should have {} to {}", LENGTH.start(), LENGTH.end())]
    Length { place: usize, bytes: usize },
}

impl Secret {
    /// Reads secrets with white space between them. Several are for the time in which a receiver changes its own: each
    /// makes a signature.
    ///
    /// # Errors
    /// The first that is none, or that there are none.
    pub fn read_all(text: &str) -> Result<Vec<Self>, SecretError> {
        let secrets = text.split_whitespace().zip(1..);
        let secrets: Result<Vec<Self>, _> = secrets
            .map(|(text, place)| Self::read(text, place))
            .collect();
        secrets.and_then(|secrets| match secrets.is_empty() {
            true => Err(SecretError::Missing),
            false => Ok(secrets),
        })
    }

    fn read(text: &str, place: usize) -> Result<Self, SecretError> {
        let bytes = text
            .strip_prefix(PREFIX)
            .and_then(|base64| STANDARD.decode(base64).ok())
            .ok_or(SecretError::Malformed(place))?;
        if !LENGTH.contains(&bytes.len()) {
            return Err(SecretError::Length {
                place,
                bytes: bytes.len(),
            });
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The value of `webhook-signature`: one signature for each secret. `timestamp` is in seconds since 1970.
#[must_use]
pub fn sign(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signatures = secrets.iter().map(|secret| {
        let mut context = hmac::Context::with_key(&secret.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    });
    signatures.collect::<Vec<_>>().join(" ")
}
