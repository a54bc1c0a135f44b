//! Durations and sizes as people write them: `"30s"`, `"1m30s"`, `"8MiB"`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// A hundred years: added to the time of now, it still is a time.
const LONGEST_DAYS: u64 = 36_500;
const LONGEST: Duration = Duration::from_secs(LONGEST_DAYS * 86_400);

/// Reads `"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"1d"` and sums such as `"1m30s"`.
///
/// # Errors
/// The text is none of these; the message says what would be right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "`{text}` is not a duration; write for example \"500ms\", \"30s\", \"5m\" or \"1h30m\""
        )
    };
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .filter(|&end| end > 0)
            .ok_or_else(wrong)?;
        let count: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |end| digits + end);
        let milliseconds: u64 = match &rest[digits..unit_end] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = count.checked_mul(milliseconds).ok_or_else(wrong)?;
        total = total
            .checked_add(Duration::from_millis(part))
            .ok_or_else(wrong)?;
        rest = &rest[unit_end..];
    }
    Ok(total)
}

/// Reads a number of bytes: `"512"`, `"64KiB"`, `"8MiB"`, `"4GiB"`, also `KB`, `MB`,
/// `GB` as powers of ten.
///
/// # Errors
/// The text is none of these; the message says what would be right.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("`{text}` is not a size; write for example \"64KiB\", \"8MiB\" or \"4GiB\"");
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(trimmed.len());
    let count: u64 = trimmed[..digits].parse().map_err(|_| wrong())?;
    let factor: u64 = match trimmed[digits..].trim() {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    count.checked_mul(factor).ok_or_else(wrong)
}

/// The shortest text that [`parse_duration`] reads back.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ]
    .into_iter()
    .find(|(unit, _)| ms.is_multiple_of(*unit))
    .map_or_else(
        || format!("{ms}ms"),
        |(unit, name)| format!("{}{name}", ms / unit),
    )
}

/// The shortest text that [`parse_size`] reads back.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    [
        (1_u64 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ]
    .into_iter()
    .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit))
    .map_or_else(
        || bytes.to_string(),
        |(unit, name)| format!("{}{name}", bytes / unit),
    )
}

/// `#[serde(with = "human::duration")]` for a [`Duration`].
pub mod duration {
    use super::*;

    /// # Errors
    /// Those of [`parse_duration`].
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(input)?;
        let duration = parse_duration(&text).map_err(serde::de::Error::custom)?;
        if duration > LONGEST {
            let message = format!("`{text}` is longer than {LONGEST_DAYS}d, the longest there is");
            return Err(serde::de::Error::custom(message));
        }
        Ok(duration)
    }

    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&format_duration(*value))
    }
}

/// `#[serde(with = "human::size")]` for a number of bytes.
pub mod size {
    use super::*;

    /// # Errors
    /// Those of [`parse_size`], or more than this machine can address.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<usize, D::Error> {
        let text = String::deserialize(input)?;
        let bytes = parse_size(&text).map_err(serde::de::Error::custom)?;
        usize::try_from(bytes).map_err(serde::de::Error::custom)
    }

    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &usize, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&format_size(*value as u64))
    }
}

/// The same for an optional size.
pub mod optional_size {
    use super::*;

    /// # Errors
    /// Those of [`size`].
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<usize>, D::Error> {
        size::deserialize(input).map(Some)
    }

    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Option<usize>, output: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(bytes) => size::serialize(bytes, output),
            None => output.serialize_none(),
        }
    }
}
