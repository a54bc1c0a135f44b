//! Versions of TensorRT, and which of them work together.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version of TensorRT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// Changes when the interface does.
    pub major: u32,
    /// Grows when the interface does.
    pub minor: u32,
    /// Repairs.
    pub patch: u32,
}

impl Version {
    /// A version from its parts.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Reads TensorRT's own form, `major * 10000 + minor * 100 + patch`; before 10 it was
    /// `major * 1000 + minor * 100 + patch`. `None` for what is neither.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        let number = u32::try_from(number).ok().filter(|number| *number > 0)?;
        // TensorRT 10.0.0 is 100000 and 9.9.9 was 9909; TensorRT-RTX 1.0.0 is 10000.
        let thousand = if number < 10_000 { 1_000 } else { 10_000 };
        Some(Self::new(
            number / thousand,
            number % thousand / 100,
            number % 100,
        ))
    }

    /// Whether code compiled with the headers of version `headers` may call a library of this version.
    ///
    /// TensorRT's classes are tables of functions that only grow at their end within a major version.
    #[must_use]
    pub fn serves(self, headers: Self) -> bool {
        self.major == headers.major && self.minor >= headers.minor
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        match parts.as_deref() {
            Some(&[major, minor, patch]) => Ok(Self::new(major, minor, patch)),
            _ => Err(format!("{text:?} is not a version like 11.4.0")),
        }
    }
}

#[cfg(test)]
mod tests;
