//! Python's `json.dumps(value, ensure_ascii=False, …)`, as the `tojson` filter.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Rest, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind};

use super::limits::{MAX_TEXT, too_long};

/// Levels of a value that are written out.
pub(super) const MAX_DEPTH: usize = 128;

/// The refusal of what has more.
pub(super) fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, "nested too deeply")
}

/// Layout of the output.
struct Layout {
    indent: Option<usize>,
    item: String,
    key: String,
    sort_keys: bool,
    ascii: bool,
}

/// `{{ value | tojson(indent=…) }}` as `transformers` defines it: no escaping of
/// HTML, `", "` and `": "` between items, keys in their order.
#[expect(
    clippy::needless_pass_by_value,
    reason = "minijinja's filter signature"
)]
pub(super) fn tojson(value: &Value, arguments: Rest<Value>) -> Result<String, Error> {
    let (positional, options): (Option<&Value>, Kwargs) = from_args(&arguments)?;
    // transformers' signature: tojson(x, ensure_ascii, indent, separators, sort_keys);
    // positionally, templates only ever pass an indent to plain Jinja's.
    let indent: Option<Value> = options
        .get::<Option<Value>>("indent")?
        .or_else(|| positional.cloned());
    let indent = indent
        .and_then(|v| usize::try_from(v).ok())
        .map(|n| n.min(16));
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        _ if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        _ => (", ".to_owned(), ": ".to_owned()),
    };
    let layout = Layout {
        indent,
        item,
        key,
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
    };
    options.assert_all_used()?;
    let mut out = String::new();
    write_value(value, &layout, 0, &mut out)?;
    Ok(out)
}

fn write_value(
    value: &Value,
    layout: &Layout,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    if out.len() > MAX_TEXT {
        return Err(too_long());
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::String => write_text(value.as_str().unwrap_or_default(), layout.ascii, out),
        ValueKind::Number => match f64::try_from(value.clone()) {
            Ok(number) if !value.is_integer() => out.push_str(&python_float(number)),
            _ => _ = write!(out, "{value}"),
        },
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_items(out, ['[', ']'], items.len(), layout, depth, |n, out| {
                write_value(&items[n], layout, depth + 1, out)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if layout.sort_keys {
                keys.sort();
            }
            write_items(out, ['{', '}'], keys.len(), layout, depth, |n, out| {
                let key = &keys[n];
                write_text(&key.to_string(), layout.ascii, out);
                out.push_str(&layout.key);
                write_value(&value.get_item(key)?, layout, depth + 1, out)
            })?;
        }
        _ => {
            let message = format!("a value of type {} is not JSON", value.kind());
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    }
    Ok(())
}

fn write_items(
    out: &mut String,
    [open, close]: [char; 2],
    count: usize,
    layout: &Layout,
    depth: usize,
    mut item: impl FnMut(usize, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |out: &mut String, depth: usize| {
        if let Some(width) = layout.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
    };
    out.push(open);
    for n in 0..count {
        if n > 0 {
            out.push_str(&layout.item);
        }
        line(out, depth + 1);
        item(n, out)?;
    }
    if count > 0 {
        line(out, depth);
    }
    out.push(close);
    Ok(())
}

fn write_text(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c if ascii && !c.is_ascii() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Python's `repr(float)`: the shortest digits, with an exponent below 1e-4 and
/// from 1e16 on.
pub(super) fn python_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(rest) => ('-', rest),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{number:?}")
}
