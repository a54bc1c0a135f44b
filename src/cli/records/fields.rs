//! `field=value` on the command line, as the JSON that the API takes.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

/// The fields of `arguments`, over those of `file`. A value is JSON where it reads as such and text otherwise;
/// `@FILE` is the content of a file, as JSON or YAML by its ending, else as text.
pub(super) fn document(file: Option<&Path>, arguments: &[String]) -> Result<Value> {
    let mut fields = match file {
        Some(path) => match read(path)? {
            Value::Object(fields) => fields,
            _ => bail!("{}: should hold one object", path.display()),
        },
        None => Map::new(),
    };
    for argument in arguments {
        let (name, text) = split(argument)?;
        let value = match text.strip_prefix('@') {
            Some(path) => read(Path::new(path))?,
            None => value(text),
        };
        fields.insert(name.to_owned(), value);
    }
    Ok(Value::Object(fields))
}

/// `?name=value&…`; empty without arguments.
pub(super) fn query(arguments: &[String]) -> Result<String> {
    let mut text = String::new();
    for argument in arguments {
        let (name, value) = split(argument)?;
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(&format!("{}={}", encoded(name), encoded(value)));
    }
    Ok(text)
}

/// One `name=value` as name and JSON.
pub(super) fn pair(argument: &str) -> Result<(&str, Value)> {
    let (name, text) = split(argument)?;
    Ok((name, value(text)))
}

fn split(argument: &str) -> Result<(&str, &str)> {
    argument
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .with_context(|| format!("`{argument}` should be FIELD=VALUE"))
}

/// JSON's numbers, truths, null, lists and objects; anything else is text. Text that should stay text although it looks
/// like a number is quoted: `note='"1"'`.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("json") => serde_json::from_str(&text).with_context(|| path.display().to_string()),
        Some("yaml" | "yml") => {
            serde_norway::from_str(&text).with_context(|| path.display().to_string())
        }
        _ => Ok(Value::String(text)),
    }
}

/// A text as one segment of a path, or a value of a query.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_json_where_they_read_as_such() {
        let arguments = ["a=1", "b=x y", "c=null", "d=[1]", "e=a=b", "f=\"1\""].map(String::from);
        assert_eq!(
            document(None, &arguments).unwrap(),
            json!({ "a": 1, "b": "x y", "c": null, "d": [1], "e": "a=b", "f": "1" })
        );
        assert!(document(None, &["x".to_owned()]).is_err());
        assert!(document(None, &["=x".to_owned()]).is_err());
    }

    #[test]
    fn queries_hold_any_text() {
        let arguments = ["name=a b&c".to_owned(), "x=é".to_owned()];
        assert_eq!(query(&arguments).unwrap(), "?name=a%20b%26c&x=%C3%A9");
    }
}
