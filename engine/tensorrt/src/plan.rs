//! Engines at rest: what TensorRT serialised, and what it was made from.
//!
//! A serialised engine runs on the version of TensorRT and the kind of device it was built for, and nothing in it
//! says which model it came from. A cache that answers with a stale one serves wrong results, so a [`Plan`] carries
//! its origin in front and is refused when any part of it differs.
//!
//! Layout: the 8 bytes `SLUICTRT`, the length of the origin as `u32` (little-endian), the origin as JSON, the engine.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::version::Version;

const MAGIC: &[u8; 8] = b"SLUICTRT";
const PREFIX: usize = MAGIC.len() + size_of::<u32>();
/// More than this is not an origin but a damaged length.
const LARGEST_ORIGIN: usize = 64 * 1024;

/// What an engine was made from, and for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The library that built it.
    pub tensorrt: Version,
    /// SHA-256 of the model, in hexadecimal.
    pub model: String,
    /// SHA-256 of what it was built with (profiles, precision, limits), in hexadecimal.
    pub specification: String,
    /// The device that it was built on, as the driver names it, with its compute capability.
    pub device: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    origin: Origin,
    /// SHA-256 of the engine, in hexadecimal.
    engine: String,
}

/// A serialised engine and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where it comes from.
    pub origin: Origin,
    /// TensorRT's own bytes.
    pub engine: Vec<u8>,
}

/// Why stored bytes are not the plan that is wanted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// Not a plan at all.
    #[error("these bytes are not an engine that sluice stored")]
    NotAPlan,
    /// A plan once.
    #[error("the stored engine is damaged: {0}")]
    Damaged(String),
    /// An intact plan of something else.
    #[error("the stored engine is for another {what}: it has {found}, wanted is {wanted}")]
    Stale {
        /// Which part of the origin differs.
        what: &'static str,
        /// What the plan says.
        found: String,
        /// What was asked for.
        wanted: String,
    },
}

impl Plan {
    /// The bytes to store.
    ///
    /// # Errors
    /// The origin is too long to be read again.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PlanError> {
        let sealed = Sealed {
            origin: self.origin.clone(),
            engine: digest(&self.engine),
        };
        let too_long = || PlanError::Damaged("its origin is too long".to_owned());
        let origin = serde_json::to_vec(&sealed).map_err(|e| PlanError::Damaged(e.to_string()))?;
        if origin.len() > LARGEST_ORIGIN {
            return Err(too_long());
        }
        let length = u32::try_from(origin.len()).map_err(|_| too_long())?;
        let mut bytes = Vec::with_capacity(PREFIX + origin.len() + self.engine.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&origin);
        bytes.extend_from_slice(&self.engine);
        Ok(bytes)
    }

    /// Reads stored bytes, whatever they were made for.
    ///
    /// # Errors
    /// They are no plan, or not all of one, or not as they were stored.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PlanError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(PlanError::NotAPlan)?;
        let damaged = |what: &str| PlanError::Damaged(what.to_owned());
        let (length, rest) = rest
            .split_first_chunk()
            .ok_or_else(|| damaged("it ends within its length"))?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > LARGEST_ORIGIN {
            return Err(damaged("its origin is too long"));
        }
        let (origin, engine) = rest
            .split_at_checked(length)
            .ok_or_else(|| damaged("it ends within its origin"))?;
        let sealed: Sealed =
            serde_json::from_slice(origin).map_err(|e| PlanError::Damaged(e.to_string()))?;
        if digest(engine) != sealed.engine {
            return Err(damaged("its engine does not match its digest"));
        }
        Ok(Self {
            origin: sealed.origin,
            engine: engine.to_vec(),
        })
    }

    /// Reads stored bytes that have to be of this origin.
    ///
    /// # Errors
    /// As [`Plan::from_bytes`], or the plan is of another origin.
    pub fn expect(bytes: &[u8], wanted: &Origin) -> Result<Self, PlanError> {
        let plan = Self::from_bytes(bytes)?;
        let found = &plan.origin;
        let parts = [
            (
                "TensorRT",
                found.tensorrt.to_string(),
                wanted.tensorrt.to_string(),
            ),
            ("model", found.model.clone(), wanted.model.clone()),
            (
                "build specification",
                found.specification.clone(),
                wanted.specification.clone(),
            ),
            ("device", found.device.clone(), wanted.device.clone()),
        ];
        match parts.into_iter().find(|(_, found, wanted)| found != wanted) {
            Some((what, found, wanted)) => Err(PlanError::Stale {
                what,
                found,
                wanted,
            }),
            None => Ok(plan),
        }
    }
}

/// SHA-256 in hexadecimal, as [`Origin`] wants it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests;
