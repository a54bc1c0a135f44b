//! Reading JSON with errors that name the field.
//!
//! serde's derived messages say "invalid type: string, expected f32 at line 1";
//! OpenAI's clients expect `param` and a sentence. So requests are read field by
//! field from a [`serde_json::Value`], which also decides in one place what
//! `null`, duplicate keys (the last wins), NaN (not JSON) and depth (128) mean.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::ApiError;

#[cfg(test)]
mod tests;

/// A JSON object that is being read. Fields are taken out; what is left was
/// not understood and is ignored.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    /// A request's body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Err(ApiError::malformed("the body is empty"));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self {
                path: String::new(),
                map,
            }),
            Ok(other) => Err(ApiError::malformed(format_args!(
                "expected an object, but got {}",
                kind(&other)
            ))),
            Err(error) => Err(ApiError::malformed(error)),
        }
    }

    /// An object inside another.
    pub(crate) fn nested(value: Value, path: String) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { path, map }),
            other => Err(wrong_type(path, "an object", &other)),
        }
    }

    /// The path of a field of this object: `messages[2].content`.
    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Takes a field as it is; `null` is the same as absent.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// A field that must be there.
    pub(crate) fn required(&mut self, key: &str) -> Result<Value, ApiError> {
        self.take(key)
            .ok_or_else(|| ApiError::missing(self.path_of(key)))
    }

    /// Reads no value, only tells.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }

    pub(crate) fn boolean(&mut self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(self.path_of(key), "a boolean", &other)),
        }
    }

    pub(crate) fn string(&mut self, key: &str) -> Result<Option<String>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(self.path_of(key), "a string", &other)),
        }
    }

    pub(crate) fn required_string(&mut self, key: &str) -> Result<String, ApiError> {
        self.string(key)?
            .ok_or_else(|| ApiError::missing(self.path_of(key)))
    }

    pub(crate) fn array(&mut self, key: &str) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Array(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(self.path_of(key), "an array", &other)),
        }
    }

    pub(crate) fn object(&mut self, key: &str) -> Result<Option<Self>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => Self::nested(value, self.path_of(key)).map(Some),
        }
    }

    /// A number within bounds.
    pub(crate) fn number(
        &mut self,
        key: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => number(&value, || self.path_of(key), range).map(Some),
        }
    }

    /// A whole number within bounds; `3.0` is one.
    pub(crate) fn integer(
        &mut self,
        key: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => integer(&value, || self.path_of(key), range).map(Some),
        }
    }

    /// A count within bounds.
    pub(crate) fn count(
        &mut self,
        key: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<usize>, ApiError> {
        let range = i64::from(*range.start())..=i64::from(*range.end());
        let value = self.integer(key, range)?;
        // The range lies within u32, so that the conversion keeps the value.
        Ok(value.map(|value| usize::try_from(value).unwrap_or(usize::MAX)))
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ApiError> {
        let Some(word) = self.string(key)? else {
            return Ok(None);
        };
        match choices.iter().find(|(name, _)| *name == word) {
            Some((_, value)) => Ok(Some(*value)),
            None => Err(unknown_word(
                self.path_of(key),
                &word,
                choices.iter().map(|(name, _)| *name),
            )),
        }
    }

    /// Token ids, each below 2³².
    pub(crate) fn token_ids(&mut self, key: &str) -> Result<Option<Vec<u32>>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => token_ids(&value, || self.path_of(key)).map(Some),
        }
    }

    /// What was not taken.
    pub(crate) fn left(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.map.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The object as it is now.
    pub(crate) fn into_map(self) -> Map<String, Value> {
        self.map
    }
}

/// A number within bounds.
pub(crate) fn number(
    value: &Value,
    path: impl Fn() -> String,
    range: RangeInclusive<f64>,
) -> Result<f64, ApiError> {
    let Some(number) = value.as_f64() else {
        let what = format!("a number between {} and {}", range.start(), range.end());
        return Err(wrong_type(path(), &what, value));
    };
    if number < *range.start() {
        return Err(below(path(), "decimal", range.start(), &number));
    }
    if number > *range.end() {
        return Err(above(path(), "decimal", range.end(), &number));
    }
    Ok(number)
}

/// A whole number within bounds.
pub(crate) fn integer(
    value: &Value,
    path: impl Fn() -> String,
    range: RangeInclusive<i64>,
) -> Result<i64, ApiError> {
    // 2⁵³: up to there every whole f64 is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let whole = match value {
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Some(whole),
            (None, Some(float)) if float.fract() == 0.0 && float.abs() <= EXACT => {
                Some(float as i64)
            }
            // Beyond i64 either way: out of any range that is asked for.
            (None, Some(float)) if float.fract() == 0.0 => {
                Some(if float < 0.0 { i64::MIN } else { i64::MAX })
            }
            _ => None,
        },
        _ => None,
    };
    let Some(whole) = whole else {
        return Err(wrong_type(path(), "an integer", value));
    };
    if whole < *range.start() {
        return Err(below(path(), "integer", range.start(), value));
    }
    if whole > *range.end() {
        return Err(above(path(), "integer", range.end(), value));
    }
    Ok(whole)
}

/// An array of token ids, each below 2³².
pub(crate) fn token_ids(value: &Value, path: impl Fn() -> String) -> Result<Vec<u32>, ApiError> {
    let Value::Array(items) = value else {
        return Err(wrong_type(path(), "an array of token ids", value));
    };
    let mut ids = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let id = integer(
            item,
            || format!("{}[{index}]", path()),
            0..=i64::from(u32::MAX),
        )?;
        ids.push(u32::try_from(id).unwrap_or(u32::MAX));
    }
    Ok(ids)
}

/// "Invalid type for 'temperature': expected a number, but got a string instead."
pub(crate) fn wrong_type(path: String, expected: &str, found: &Value) -> ApiError {
    ApiError::bad_request(
        "invalid_type",
        format!(
            "Invalid type for '{path}': expected {expected}, but got {} instead.",
            kind(found)
        ),
    )
    .with_param(path)
}

/// "Invalid value: 'wizard'. Supported values are: 'system', 'user'."
pub(crate) fn unknown_word<'a>(
    path: String,
    word: &str,
    choices: impl Iterator<Item = &'a str>,
) -> ApiError {
    let choices: Vec<String> = choices.map(|name| format!("'{name}'")).collect();
    let word: String = word.chars().take(80).collect();
    ApiError::invalid_value(
        path,
        format!(
            "Invalid value: '{word}'. Supported values are: {}.",
            choices.join(", ")
        ),
    )
}

/// An array that must have items and has none.
pub(crate) fn empty_array(path: String) -> ApiError {
    ApiError::bad_request(
        "empty_array",
        format!(
            "Invalid '{path}': empty array. Expected an array with minimum length 1, \
             but got an empty array instead."
        ),
    )
    .with_param(path)
}

/// A string that must have characters and has none.
pub(crate) fn empty_string(path: String) -> ApiError {
    ApiError::bad_request(
        "empty_string",
        format!(
            "Invalid '{path}': empty string. Expected a string with minimum length 1, \
             but got an empty string instead."
        ),
    )
    .with_param(path)
}

/// More items than are allowed.
pub(crate) fn long_array(path: String, limit: usize, found: usize) -> ApiError {
    ApiError::bad_request(
        "array_above_max_length",
        format!(
            "Invalid '{path}': array too long. Expected an array with maximum length {limit}, \
             but got an array with length {found} instead."
        ),
    )
    .with_param(path)
}

fn below(path: String, what: &str, limit: &dyn Display, found: &dyn Display) -> ApiError {
    let code = if what == "integer" {
        "integer_below_min_value"
    } else {
        "decimal_below_min_value"
    };
    ApiError::bad_request(
        code,
        format!(
            "Invalid '{path}': {what} below minimum value. \
             Expected a value >= {limit}, but got {found} instead."
        ),
    )
    .with_param(path)
}

fn above(path: String, what: &str, limit: &dyn Display, found: &dyn Display) -> ApiError {
    let code = if what == "integer" {
        "integer_above_max_value"
    } else {
        "decimal_above_max_value"
    };
    ApiError::bad_request(
        code,
        format!(
            "Invalid '{path}': {what} above maximum value. \
             Expected a value <= {limit}, but got {found} instead."
        ),
    )
    .with_param(path)
}

/// The kind of a JSON value, with its article.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
