//! Typed ids: a model's id cannot be handed where a dataset's is wanted, neither by the compiler nor
//! in a request.
//!
//! An id is a prefix that names its kind and a UUIDv7 as 26 characters of Crockford's base32, in lower
//! case: `mdl_06ncmfpxg5z9a8v7k0hq2p3r4t`. Those made by one process sort by creation, as text too, so
//! that the id is also the key that lists are paged by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Crockford's alphabet: digits first, and neither `i`, `l`, `o` nor `u`.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 26 × 5 bits hold the 128 of a UUID; the topmost two are zero.
const LENGTH: usize = 26;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("\"{text}\" is the id of a {found}; a {expected}'s id ({prefix}_…) is needed")]
    OtherKind {
        text: String,
        found: &'static str,
        expected: &'static str,
        prefix: &'static str,
    },
    #[error(
        "\"{text}\" is not a {expected}'s id: it should be {prefix}_ and 26 characters of 0-9, a-z without i, l, o, u"
    )]
    Malformed {
        text: String,
        expected: &'static str,
        prefix: &'static str,
    },
}

/// What all ids share.
pub trait Id:
    Copy + Eq + Ord + fmt::Debug + fmt::Display + FromStr<Err = IdError> + Send + Sync + 'static
{
    /// The kind in the words of a message: `model version`.
    const KIND: &'static str;
    const PREFIX: &'static str;
    /// A new id, greater than every earlier one of this process.
    fn new() -> Self;
}

fn encode(uuid: Uuid) -> String {
    let bits = uuid.as_u128();
    (0..LENGTH)
        .rev()
        .map(|place| char::from(ALPHABET[(bits >> (5 * place)) as usize & 31]))
        .collect()
}

fn decode(text: &str) -> Option<Uuid> {
    if text.len() != LENGTH || text.as_bytes()[0] > b'7' {
        return None;
    }
    text.bytes()
        .try_fold(0u128, |bits, byte| {
            let digit = ALPHABET.iter().position(|&letter| letter == byte)?;
            Some(bits << 5 | digit as u128)
        })
        .map(Uuid::from_u128)
}

fn parse(text: &str, expected: &'static str, prefix: &'static str) -> Result<Uuid, IdError> {
    let malformed = || IdError::Malformed {
        text: shortened(text),
        expected,
        prefix,
    };
    let (found_prefix, digits) = text.rsplit_once('_').ok_or_else(malformed)?;
    if found_prefix != prefix {
        return Err(match kind_of_prefix(found_prefix) {
            Some(found) => IdError::OtherKind {
                text: shortened(text),
                found,
                expected,
                prefix,
            },
            None => malformed(),
        });
    }
    decode(digits).ok_or_else(malformed)
}

/// Whatever a client sent goes back to it, but not megabytes of it.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

macro_rules! ids {
    ($($name:ident $prefix:literal $kind:literal,)*) => {
        $(
            #[doc = concat!("The id of a ", $kind, ": `", $prefix, "_…`.")]
            #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name(Uuid);

            impl Id for $name {
                const KIND: &'static str = $kind;
                const PREFIX: &'static str = $prefix;
                fn new() -> Self {
                    Self(Uuid::now_v7())
                }
            }
            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    write!(f, "{}_{}", $prefix, encode(self.0))
                }
            }
            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    fmt::Display::fmt(self, f)
                }
            }
            impl FromStr for $name {
                type Err = IdError;
                fn from_str(text: &str) -> Result<Self, IdError> {
                    parse(text, $kind, $prefix).map(Self)
                }
            }
            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }
            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                }
            }
            impl schemars::JsonSchema for $name {
                fn schema_name() -> std::borrow::Cow<'static, str> {
                    stringify!($name).into()
                }
                fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                    schemars::json_schema!({
                        "type": "string",
                        "description": concat!("The id of a ", $kind, "."),
                        "pattern": concat!("^", $prefix, "_[0-7][0-9a-hjkmnp-tv-z]{25}$"),
                    })
                }
            }
            crate::store::text_column!($name);
        )*

        fn kind_of_prefix(prefix: &str) -> Option<&'static str> {
            match prefix {
                $($prefix => Some($kind),)*
                _ => None,
            }
        }

        /// Prefix and kind of every id, for the documentation.
        pub const KINDS: &[(&str, &str)] = &[$(($prefix, $kind)),*];
    };
}

ids! {
    DepartmentId "dep" "department",
    PrincipalId "usr" "principal",
    ApiKeyId "key" "api key",
    GrantId "grt" "grant",
    AuditEventId "aud" "audit event",
    TransitionId "trn" "transition",
    ArtifactId "art" "artifact",
    UploadId "upl" "upload",
    DatasetId "dst" "dataset",
    DatasetVersionId "dsv" "dataset version",
    ModelId "mdl" "model",
    ModelVersionId "mdv" "model version",
    TrainingId "trg" "training",
    TrainingRunId "trr" "training run",
    ConversionRunId "cnr" "conversion run",
    EvaluationId "evl" "evaluation",
    EvaluationRunId "evr" "evaluation run",
    PromptVersionId "prv" "prompt version",
    DeploymentId "dpl" "deployment",
    WorkOrderId "wo" "work order",
    WorkOrderStepId "wos" "work order step",
    ReleaseDecisionId "rdc" "release decision",
    ReleasePairId "rpr" "release pair",
    TaskId "tsk" "task",
    QuotaId "quo" "quota",
    UsageId "usg" "usage entry",
}

#[cfg(test)]
mod tests;
