//! Where Hugging Face's Jinja differs from minijinja.
//!
//! `transformers` renders with Jinja2, `trim_blocks` and `lstrip_blocks` on, loop
//! controls, a `tojson` that is Python's `json.dumps(ensure_ascii=False)`, the
//! functions `raise_exception` and `strftime_now`, and `{% generation %}` tags that
//! mark the assistant's tokens in training. Values print as Python prints them.
//!
//! Known to differ: tuples print as lists, and `~` quotes the strings of a list with
//! double quotes. No template met so far does either.

use std::fmt::Write as _;
use std::io;

use minijinja::value::{Kwargs, Rest, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use super::json::{MAX_DEPTH, too_deep};
use super::limits::{self, MAX_TEXT, too_long};
use super::{json, strftime};

/// What `raise_exception` was called with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RaisedException(pub(super) String);

/// An environment without templates.
pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_recursion_limit(64);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_formatter(format_python);
    env.set_unknown_method_callback(python_method);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime::now);
    env.add_filter("tojson", json::tojson);
    env.add_filter("string", |value: Value| python_str(&value));
    limits::guard(&mut env);
    // To Jinja2 strings are iterable, and strings and mappings are sequences.
    env.add_test("iterable", |v: &Value| v.try_iter().is_ok() || is_text(v));
    env.add_test("sequence", |v: &Value| {
        is_text(v) || matches!(v.kind(), ValueKind::Seq | ValueKind::Map)
    });
    env
}

fn is_text(value: &Value) -> bool {
    value.kind() == ValueKind::String
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, message.to_owned());
    Err(error.with_source(RaisedException(message.to_owned())))
}

/// `{% generation %}` … `{% endgeneration %}` only matter for training: they become
/// a condition that is always true, which keeps their whitespace control.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let Some(length) = rest[at..].find("%}") else {
            break;
        };
        let inside = &rest[at + 2..at + length];
        let word = inside.trim_matches(|c: char| c.is_whitespace() || "-+".contains(c));
        let replacement = match word {
            "generation" => Some("if true"),
            "endgeneration" => Some("endif"),
            _ => None,
        };
        result.push_str(&rest[..at + 2]);
        match replacement {
            Some(tag) => result.push_str(&inside.replace(word, tag)),
            None => result.push_str(inside),
        }
        rest = &rest[at + length..];
    }
    result.push_str(rest);
    result
}

fn format_python(out: &mut Output<'_>, _: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    let written = match value.as_str() {
        Some(text) => out.write_str(text),
        None => out.write_str(&python_str(value)?),
    };
    written.map_err(|_| Error::new(ErrorKind::WriteFailure, "the prompt is too long"))
}

/// Python's `str(value)`.
fn python_str(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => {
            let mut text = String::new();
            python_repr(value, 0, &mut text)?;
            Ok(text)
        }
    }
}

/// Python's `repr(value)`.
fn python_repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    if out.len() > MAX_TEXT {
        return Err(too_long());
    }
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => repr_text(value.as_str().unwrap_or_default(), out),
        ValueKind::Number => match f64::try_from(value.clone()) {
            Ok(number) if !value.is_integer() => out.push_str(&json::python_float(number)),
            _ => _ = write!(out, "{value}"),
        },
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().into_iter().flatten();
            list(out, ['[', ']'], items, |item, out| {
                python_repr(&item, depth + 1, out)
            })?;
        }
        ValueKind::Map => {
            let keys = value.try_iter().into_iter().flatten();
            list(out, ['{', '}'], keys, |key, out| {
                python_repr(&key, depth + 1, out)?;
                out.push_str(": ");
                python_repr(&value.get_item(&key).unwrap_or_default(), depth + 1, out)
            })?;
        }
        _ => _ = write!(out, "{value}"),
    }
    Ok(())
}

fn list(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl Iterator<Item = Value>,
    mut each: impl FnMut(Value, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    out.push(open);
    for (n, item) in items.enumerate() {
        if n > 0 {
            out.push_str(", ");
        }
        each(item, out)?;
    }
    out.push(close);
    Ok(())
}

/// Python prefers single quotes, unless the text has some and no double ones.
fn repr_text(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => _ = write!(out, "\\x{:02x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// Methods of Python's `str`, `dict` and `list`.
fn python_method(
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let all: Vec<Value> = std::iter::once(value.clone())
        .chain(args.iter().cloned())
        .collect();
    limits::check(method, &all)?;
    if let Some(text) = value.as_str() {
        match method {
            // Python's `is…` are false for an empty string.
            "isdigit" | "isnumeric" | "isalpha" | "isalnum" | "isspace" | "islower" | "isupper"
                if text.is_empty() =>
            {
                return Ok(Value::from(false));
            }
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)));
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)));
            }
            "rsplit" => return rsplit(text, args),
            "partition" => {
                let (separator,): (&str,) = from_args(args)?;
                let (head, tail) = text.split_once(separator).unwrap_or((text, ""));
                let found = if head.len() == text.len() {
                    ""
                } else {
                    separator
                };
                return Ok([head, found, tail].into_iter().map(Value::from).collect());
            }
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// `str.rsplit(separator, maxsplit)`.
fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, rest): (&str, Rest<Value>) = from_args(args)?;
    let most = match rest.first() {
        Some(value) if value.kind() == ValueKind::Number => usize::try_from(value.clone()).ok(),
        Some(value) => Kwargs::try_from(value.clone())?.get("maxsplit").ok(),
        None => None,
    };
    let mut parts: Vec<&str> = match most {
        Some(most) => text.rsplitn(most.saturating_add(1), separator).collect(),
        None => text.rsplit(separator).collect(),
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

/// A buffer that refuses to grow beyond its limit.
pub(super) struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Bounded {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
        }
    }

    pub(super) fn into_string(self) -> String {
        // Templates write whole strings, so this never replaces anything.
        String::from_utf8(self.bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }
}

impl io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > self.limit {
            return Err(io::Error::other("the prompt is too long"));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
