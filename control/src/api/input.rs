//! From bytes to typed values, strictly: what a request holds is either understood or refused by the
//! name of the field.

use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::Problem;

/// A JSON document as a `T`. The error names the field, what is wrong, and for an unknown one those that it
/// might have been.
pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string();
        let (field, message) = explain(&path, &message);
        Problem::field(field, message)
    })
}

/// The JSON of a body. An absent one is an empty object, so that verbs without arguments need none.
pub(super) fn document(bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Object(Map::new()));
    }
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| Problem::bad_request(format!("the body is not JSON: {error}")))?;
    if !value.is_object() {
        return Err(Problem::bad_request("the body should be a JSON object"));
    }
    refuse_nul(&value, "")?;
    Ok(value)
}

/// PostgreSQL's texts cannot hold NUL; refused for both, so that records move between the two.
fn refuse_nul(value: &Value, path: &str) -> Result<(), Problem> {
    match value {
        Value::String(text) if text.contains('\0') => {
            Err(Problem::field(path, "must not hold a NUL character"))
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| refuse_nul(item, &format!("{path}[{index}]"))),
        Value::Object(fields) => fields.iter().try_for_each(|(name, item)| {
            if name.contains('\0') {
                return Err(Problem::field(path, "must not hold a NUL character"));
            }
            let dot = if path.is_empty() { "" } else { "." };
            refuse_nul(item, &format!("{path}{dot}{name}"))
        }),
        _ => Ok(()),
    }
}

/// The query as the JSON object that `schema` describes: numbers and booleans are read as such.
pub(super) fn query(text: &str, schema: &Value) -> Result<Value, Problem> {
    let known = schema["properties"].as_object();
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let Some(property) = known.and_then(|known| known.get(&*name)) else {
            let names: Vec<&str> = known
                .map(|known| known.keys().map(String::as_str).collect())
                .unwrap_or_default();
            return Err(bad_parameter(&name, unknown(&name, &names)));
        };
        if value.contains('\0') {
            return Err(bad_parameter(&name, "must not hold a NUL character".into()));
        }
        let value = coerced(&value, property).map_err(|wanted| {
            let shown: String = value.chars().take(64).collect();
            bad_parameter(&name, format!("\"{shown}\" is not {wanted}"))
        })?;
        if fields.insert(name.to_string(), value).is_some() {
            return Err(bad_parameter(&name, "is given twice".into()));
        }
    }
    Ok(Value::Object(fields))
}

fn bad_parameter(name: &str, message: String) -> Problem {
    let shown: String = name.chars().take(64).collect();
    let problem = Problem::new(
        StatusCode::BAD_REQUEST,
        "bad_request",
        format!("query parameter {shown}: {message}"),
    );
    problem.and(shown, message)
}

fn coerced(text: &str, property: &Value) -> Result<Value, &'static str> {
    let is = |kind: &str| match &property["type"] {
        Value::String(one) => one == kind,
        Value::Array(several) => several.iter().any(|one| one == kind),
        _ => false,
    };
    if is("integer") {
        let number = text.parse::<i64>().map_err(|_| "a whole number")?;
        Ok(number.into())
    } else if is("number") {
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        number.map(Value::from).ok_or("a number")
    } else if is("boolean") {
        let truth = text.parse::<bool>().map_err(|_| "true or false")?;
        Ok(truth.into())
    } else {
        Ok(text.into())
    }
}

/// serde's message in the words of a person who wrote JSON.
fn explain(path: &str, message: &str) -> (String, String) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let join = |name: &str| match path {
        "." | "" => name.to_owned(),
        path if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        path => format!("{path}.{name}"),
    };
    if message.starts_with("unknown field")
        && let Some((name, known)) = quoted.split_first()
    {
        let shown: String = name.chars().take(64).collect();
        return (join(&shown), unknown(&shown, known));
    }
    if message.starts_with("missing field")
        && let Some(name) = quoted.first()
    {
        return (join(name), "is missing".to_owned());
    }
    let field = if path == "." { "body" } else { path };
    (field.to_owned(), message.to_owned())
}

/// "is not known" with the names that it resembles, or all of them.
fn unknown(name: &str, known: &[&str]) -> String {
    let mut near: Vec<&str> = known
        .iter()
        .copied()
        .filter(|known| strsim::jaro_winkler(name, known) > 0.8)
        .collect();
    near.sort_by(|a, b| strsim::jaro_winkler(name, b).total_cmp(&strsim::jaro_winkler(name, a)));
    match (near.first(), known.is_empty()) {
        (Some(near), _) => format!("is not known; did you mean {near}?"),
        (None, true) => "is not known; there are none".to_owned(),
        (None, false) => format!("is not known; there are {}", known.join(", ")),
    }
}

/// RFC 7396: `patch` over `base`. `null` clears a field.
pub(super) fn merged(mut base: Value, patch: Value) -> Value {
    let (Value::Object(fields), Value::Object(changes)) = (&mut base, patch) else {
        return base;
    };
    for (name, change) in changes {
        fields.insert(name, change);
    }
    base
}

/// Names stand in paths and in `model@version`, and are typed by people.
pub(super) fn check_name(field: &str, name: &str) -> Result<(), Problem> {
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let legal = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !begins || !legal || name.len() > 128 {
        return Err(Problem::field(
            field,
            "should be 1 to 128 letters, digits, dots, hyphens and underscores, the first a letter or digit",
        ));
    }
    let looks_like_id = name.rsplit_once('_').is_some_and(|(prefix, digits)| {
        digits.len() == 26 && crate::id::KINDS.iter().any(|(known, _)| *known == prefix)
    });
    if looks_like_id {
        return Err(Problem::field(field, "looks like an id; choose another"));
    }
    Ok(())
}

/// Longest free text.
const TEXT_BYTES: usize = 64 << 10;

pub(super) fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    if text.len() > TEXT_BYTES {
        return Err(Problem::field(
            field,
            format!(
                "is {} bytes long, should be at most {TEXT_BYTES}",
                text.len()
            ),
        ));
    }
    Ok(())
}

/// A name that people choose freely, in one line. It is shown in lists and logs: what commands a terminal or turns the
/// direction of text has no business in it.
pub(super) fn check_label(field: &str, text: &str) -> Result<(), Problem> {
    let is_unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    if text.contains(is_unseen) {
        return Err(Problem::field(
            field,
            "should hold no control characters, and none that turn the direction of text or are not seen",
        ));
    }
    check_text(field, text)
}

/// An http(s) URL: it is shown as a link, and `javascript:` must not be one.
pub(super) fn check_url(field: &str, url: Option<&str>) -> Result<(), Problem> {
    let fine = url.is_none_or(|url| {
        url.len() <= 2048
            && (url.starts_with("https://") || url.starts_with("http://"))
            && url
                .parse::<http::Uri>()
                .is_ok_and(|uri| uri.host().is_some())
    });
    if fine {
        Ok(())
    } else {
        Err(Problem::field(
            field,
            "should be a URL that begins with https:// or http://",
        ))
    }
}

pub(super) fn check_object(field: &str, value: &Value) -> Result<(), Problem> {
    if value.is_object() {
        Ok(())
    } else {
        Err(Problem::field(field, "should be a JSON object"))
    }
}
