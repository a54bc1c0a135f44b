//! Where keys come from: `keys.toml` and `SLUICE_API_KEYS`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use sluice_engine::request::Priority;

use crate::access::{Clearance, Reach, Rights};
use crate::context::Owner;
use crate::limits::RateLimits;
use crate::limits::quota::Quota;

/// One key as configured.
#[derive(Debug, Clone)]
pub struct KeyEntry {
    /// Whose it is; unique.
    pub name: String,
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// Class in the waiting queues.
    pub priority: Priority,
    /// Models it may use; `None` is all.
    pub models: Option<Arc<[Box<str>]>>,
    /// What it may do in the control plane, in that one's words; nothing if absent.
    pub role: Option<Arc<str>>,
    /// Its own limits; what is `None` follows `[limits]`. 0 in the file is unlimited.
    pub limits: RateLimits,
    /// Whose it is in a control plane's records.
    pub owner: Option<Arc<Owner>>,
    /// What it shares with other keys.
    pub quotas: Vec<Arc<Quota>>,
    /// Which deployments it reaches.
    pub rights: Rights,
}

/// What is wrong with the keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not as described in `sluice.example.toml`.
    #[error("{path}:{line}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong and what would be right.
        message: String,
    },
    /// `SLUICE_API_KEYS` is not `name:key,name:key`. The text itself is secret.
    #[error("SLUICE_API_KEYS: entry {0} must look like name:key")]
    Environment(usize),
    /// Two keys of one name, or one key twice.
    #[error("the key `{0}` is given twice; names and keys must be unique")]
    Duplicate(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<FileKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    name: String,
    #[serde(deserialize_with = "digest")]
    sha256: [u8; 32],
    #[serde(default)]
    priority: FilePriority,
    models: Option<Vec<Box<str>>>,
    role: Option<Arc<str>>,
    requests_per_minute: Option<u32>,
    tokens_per_minute: Option<u32>,
    department: Option<Arc<str>>,
    clearance: Option<Clearance>,
    #[serde(default)]
    metrics: bool,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum FilePriority {
    Low,
    #[default]
    Normal,
    High,
}

/// Reads `keys.toml`.
///
/// # Errors
/// [`KeysError::Read`] or [`KeysError::Parse`].
pub fn read_file(path: &Path) -> Result<Vec<KeyEntry>, KeysError> {
    let source = std::fs::read_to_string(path).map_err(|source| KeysError::Read {
        path: path.to_owned(),
        source,
    })?;
    let file: File = toml::from_str(&source).map_err(|error| KeysError::Parse {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| {
            1 + source[..span.start]
                .bytes()
                .filter(|byte| *byte == b'\n')
                .count()
        }),
        message: error.message().to_owned(),
    })?;
    Ok(file.key.into_iter().map(FileKey::into_entry).collect())
}

/// Reads the value of `SLUICE_API_KEYS`.
///
/// # Errors
/// [`KeysError::Environment`].
pub fn from_environment(value: &str) -> Result<Vec<KeyEntry>, KeysError> {
    value
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .enumerate()
        .map(|(index, entry)| match entry.split_once(':') {
            Some((name, key)) if !name.is_empty() && !key.is_empty() => Ok(KeyEntry {
                name: name.to_owned(),
                digest: Sha256::digest(key).into(),
                priority: Priority::Normal,
                models: None,
                role: None,
                limits: RateLimits::default(),
                owner: None,
                quotas: Vec::new(),
                rights: rights(&Sha256::digest(key).into(), None, None, None, false),
            }),
            _ => Err(KeysError::Environment(index + 1)),
        })
        .collect()
}

/// The first 12 hex digits of a digest: enough to tell keys apart, too little to find one.
#[must_use]
pub fn key_id(digest: &[u8; 32]) -> Arc<str> {
    let mut id = String::with_capacity(12);
    for byte in &digest[..6] {
        id.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        id.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    }
    id.into()
}

/// What a key of the configuration reaches: an administrator everything, one of a department what is that one's, one of none
/// what is open to all, and each what was granted to it. The two roles that reach further or less far than others are known by their words.
fn rights(
    digest: &[u8; 32],
    role: Option<&str>,
    department: Option<Arc<str>>,
    clearance: Option<Clearance>,
    metrics: bool,
) -> Rights {
    let (reach, usual) = match role {
        Some("admin") => (Reach::Everywhere, Clearance::Secret),
        Some("annotator") => (Reach::Named, Clearance::Internal),
        _ => (Reach::Department, Clearance::Internal),
    };
    Rights {
        reach,
        clearance: clearance.unwrap_or(usual),
        department,
        person: Some(format!("file:{}", key_id(digest)).into()),
        metrics,
        looks_only: false,
    }
}

impl FileKey {
    fn into_entry(self) -> KeyEntry {
        let role = self.role.as_deref();
        KeyEntry {
            rights: rights(
                &self.sha256,
                role,
                self.department,
                self.clearance,
                self.metrics,
            ),
            name: self.name,
            digest: self.sha256,
            priority: match self.priority {
                FilePriority::Low => Priority::Low,
                FilePriority::Normal => Priority::Normal,
                FilePriority::High => Priority::High,
            },
            models: self.models.map(Arc::from),
            role: self.role,
            limits: RateLimits {
                requests: self.requests_per_minute,
                tokens: self.tokens_per_minute,
                control: None,
            },
            owner: None,
            quotas: Vec::new(),
        }
    }
}

fn digest<'de, D: serde::Deserializer<'de>>(input: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(input)?;
    parse_digest(&text).ok_or_else(|| {
        serde::de::Error::custom(
            "`sha256` must be 64 hex digits; write the output of: printf %s KEY | sha256sum",
        )
    })
}

fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(digest)
}
