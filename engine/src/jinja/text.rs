//! How Python writes values: `str`, `repr` and `json.dumps`.

use std::fmt::Write as _;
use std::rc::Rc;

use super::fault::{Fault, Out};
use super::ledger::{Draft, Ledger};
use super::methods::is_space;
use super::value::{Builtin, Key, Object, Value, ViewKind};

/// Levels that are written; a namespace may hold itself.
const MAX_LEVELS: usize = 250;

/// `str(value)`, borrowed from a text.
pub(super) fn with_str<T>(
    ledger: &Rc<Ledger>,
    value: &Value,
    take: impl FnOnce(&str) -> Out<T>,
) -> Out<T> {
    match value {
        Value::Str(text) => take(text),
        _ => {
            let mut draft = ledger.draft();
            write_str(value, &mut draft)?;
            take(&draft.text)
        }
    }
}

/// `str(value)` as a value; a text stays what it is.
pub(super) fn to_str(ledger: &Rc<Ledger>, value: &Value) -> Out<Value> {
    match value {
        Value::Str(_) => Ok(value.clone()),
        _ => with_str(ledger, value, |text| ledger.str(text)),
    }
}

/// Writes `str(value)`.
pub(super) fn write_str(value: &Value, out: &mut Draft) -> Out<()> {
    match value {
        Value::Undefined(_) => Ok(()),
        Value::Str(text) => out.push(text),
        _ => write_repr(value, 0, out),
    }
}

/// Writes `repr(value)`.
pub(super) fn write_repr(value: &Value, level: usize, out: &mut Draft) -> Out<()> {
    if level > MAX_LEVELS {
        return Err(Fault::too_much(
            "it writes a value that is nested too deeply",
        ));
    }
    out.ledger.step()?;
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(value) => out.push(if *value { "True" } else { "False" }),
        Value::Int(value) => out.push(&value.to_string()),
        Value::Float(value) => out.push(&float(*value)),
        Value::Str(text) if text.markup => {
            out.push("Markup(")?;
            repr_text(text, out)?;
            out.push(")")
        }
        Value::Str(text) => repr_text(text, out),
        Value::List(seq) => repr_items(["[", "]"], seq.items.iter(), level, out),
        Value::Tuple(seq) => match &seq.items[..] {
            [only] => {
                out.push("(")?;
                write_repr(only, level + 1, out)?;
                out.push(",)")
            }
            items => repr_items(["(", ")"], items.iter(), level, out),
        },
        Value::Dict(dict) => {
            let pairs = dict.map.iter().map(|(key, value)| (key.value(), value));
            repr_pairs(pairs, level, out)
        }
        Value::Object(object) => repr_object(object, level, out),
    }
}

fn repr_object(object: &Object, level: usize, out: &mut Draft) -> Out<()> {
    match object {
        Object::Namespace(namespace) => {
            out.push("<Namespace {")?;
            for (n, (name, value)) in namespace.attributes.borrow().iter().enumerate() {
                out.push(if n > 0 { ", " } else { "" })?;
                repr_text(name, out)?;
                out.push(": ")?;
                write_repr(value, level + 1, out)?;
            }
            out.push("}>")
        }
        Object::Loop(it) => {
            let state = it.state.borrow();
            let (index, length) = (state.index + 1, state.items.len());
            out.push(&format!("<LoopContext {index}/{length}>"))
        }
        Object::Macro(it) => {
            out.push("<Macro ")?;
            repr_text(&it.def.name, out)?;
            out.push(">")
        }
        Object::Builtin(builtin) => out.push(match builtin {
            Builtin::Range => "<function safe_range>",
            Builtin::Dict => "<TemplateDict>",
            Builtin::Namespace => "<class 'transformers.utils.chat_template_utils._cached_compile_jinja_template.<locals>.TemplateNamespace'>",
            Builtin::Cycler => "<class 'jinja2.utils.Cycler'>",
            Builtin::Joiner => "<class 'jinja2.utils.Joiner'>",
            Builtin::RaiseException => "<function raise_exception>",
            Builtin::StrftimeNow => "<function strftime_now>",
        }),
        Object::Method { receiver, name } => {
            let kind = receiver.type_name();
            out.push(&format!("<built-in method {name} of {kind} object>"))
        }
        Object::Generator { .. } => out.push("<generator object>"),
        Object::View(dict, ViewKind::Keys) => {
            let keys = dict.map.keys().map(Key::value);
            repr_items(["dict_keys([", "])"], keys, level, out)
        }
        Object::View(dict, ViewKind::Values) => {
            repr_items(["dict_values([", "])"], dict.map.values(), level, out)
        }
        Object::View(dict, ViewKind::Items) => {
            out.push("dict_items([")?;
            for (n, (key, value)) in dict.map.iter().enumerate() {
                out.push(if n > 0 { ", " } else { "" })?;
                repr_items(["(", ")"], [key.value(), value].into_iter(), level, out)?;
            }
            out.push("])")
        }
        Object::Range(range) => {
            let (start, stop) = (range.start, range.stop);
            match range.step {
                1 => out.push(&format!("range({start}, {stop})")),
                step => out.push(&format!("range({start}, {stop}, {step})")),
            }
        }
        Object::Cycler { .. } => out.push("<Cycler>"),
        Object::Joiner { .. } => out.push("<Joiner>"),
    }
}

fn repr_items<'a>(
    [open, close]: [&str; 2],
    items: impl Iterator<Item = &'a Value>,
    level: usize,
    out: &mut Draft,
) -> Out<()> {
    out.push(open)?;
    for (n, item) in items.enumerate() {
        out.push(if n > 0 { ", " } else { "" })?;
        write_repr(item, level + 1, out)?;
    }
    out.push(close)
}

fn repr_pairs<'a>(
    pairs: impl Iterator<Item = (&'a Value, &'a Value)>,
    level: usize,
    out: &mut Draft,
) -> Out<()> {
    out.push("{")?;
    for (n, (key, value)) in pairs.enumerate() {
        out.push(if n > 0 { ", " } else { "" })?;
        write_repr(key, level + 1, out)?;
        out.push(": ")?;
        write_repr(value, level + 1, out)?;
    }
    out.push("}")
}

/// Python prefers single quotes, unless the text has some and no double ones.
pub(super) fn repr_text(text: &str, out: &mut Draft) -> Out<()> {
    out.ledger.work(text.len())?;
    let quote = match text.contains('\'') && !text.contains('"') {
        true => '"',
        false => '\'',
    };
    out.push_char(quote)?;
    for c in text.chars() {
        match c {
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            '\\' => out.push("\\\\")?,
            c if c == quote => {
                out.push("\\")?;
                out.push_char(c)?;
            }
            c if is_printable(c) => out.push_char(c)?,
            c => out.push(&match u32::from(c) {
                code @ 0..=0xFF => format!("\\x{code:02x}"),
                code @ 0x100..=0xFFFF => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            })?,
        }
    }
    out.push_char(quote)
}

/// Python's `str.isprintable` for one character, but for what Unicode has not assigned.
pub(super) fn is_printable(c: char) -> bool {
    let code = u32::from(c);
    let format = matches!(code,
        0xAD | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x890..=0x891 | 0x8E2 | 0x180E
        | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xFEFF | 0xFFF0..=0xFFFB
        | 0x110BD | 0x110CD | 0x13430..=0x1343F | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A
        | 0xE0000..=0xE00FF | 0xE01F0..=0x10_FFFF | 0xE000..=0xF8FF | 0xFFFE..=0xFFFF);
    c == ' ' || !(format || c.is_control() || is_space(c))
}

/// Python's `repr(float)`: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        return exponent(&format!("{number:e}"));
    }
    format!("{number:?}")
}

/// Rust's exponents as C and Python write them: a sign, and two digits at least.
pub(super) fn exponent(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(rest) => ('-', rest),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// How `json.dumps` lays its output out.
#[derive(Debug, Clone)]
pub(super) struct JsonLayout {
    pub(super) indent: Option<String>,
    pub(super) item: String,
    pub(super) key: String,
    pub(super) sort_keys: bool,
    pub(super) ascii: bool,
}

/// Writes `json.dumps(value, …)`.
pub(super) fn write_json(
    value: &Value,
    layout: &JsonLayout,
    level: usize,
    out: &mut Draft,
) -> Out<()> {
    if level > MAX_LEVELS {
        return Err(Fault::too_much(
            "it writes a value that is nested too deeply",
        ));
    }
    out.ledger.step()?;
    match value {
        Value::None => out.push("null"),
        Value::Bool(value) => out.push(if *value { "true" } else { "false" }),
        Value::Int(value) => out.push(&value.to_string()),
        Value::Float(value) => out.push(&json_float(*value)),
        Value::Str(text) => json_text(text, layout.ascii, out),
        Value::List(seq) | Value::Tuple(seq) => json_items(
            ["[", "]"],
            seq.items.iter(),
            layout,
            level,
            out,
            |item, out| write_json(item, layout, level + 1, out),
        ),
        Value::Dict(dict) => {
            let mut pairs = Vec::with_capacity(dict.map.len());
            for (key, value) in &dict.map {
                pairs.push((json_key(key)?, value));
            }
            if layout.sort_keys {
                pairs.sort_by(|(one, _), (two, _)| one.cmp(two));
            }
            json_items(
                ["{", "}"],
                pairs.iter(),
                layout,
                level,
                out,
                |(key, value), out| {
                    json_text(key, layout.ascii, out)?;
                    out.push(&layout.key)?;
                    write_json(value, layout, level + 1, out)
                },
            )
        }
        Value::Undefined(_) | Value::Object(_) => Err(Fault::failed(format!(
            "Object of type {} is not JSON serializable",
            value.type_name()
        ))),
    }
}

fn json_key(key: &Key) -> Out<std::borrow::Cow<'_, str>> {
    Ok(match key.value() {
        Value::Str(text) => text.as_str().into(),
        Value::None => "null".into(),
        Value::Bool(true) => "true".into(),
        Value::Bool(false) => "false".into(),
        Value::Int(value) => value.to_string().into(),
        Value::Float(value) => json_float(*value).into(),
        other => {
            return Err(Fault::failed(format!(
                "keys must be str, int, float, bool or None, not {}",
                other.type_name()
            )));
        }
    })
}

fn json_float(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ => float(number),
    }
}

fn json_items<T>(
    [open, close]: [&str; 2],
    items: impl ExactSizeIterator<Item = T>,
    layout: &JsonLayout,
    level: usize,
    out: &mut Draft,
    mut each: impl FnMut(T, &mut Draft) -> Out<()>,
) -> Out<()> {
    let line = |out: &mut Draft, level: usize| match &layout.indent {
        Some(indent) => {
            out.push("\n")?;
            (0..level).try_for_each(|_| out.push(indent))
        }
        None => Ok(()),
    };
    out.push(open)?;
    let count = items.len();
    for (n, item) in items.enumerate() {
        if n > 0 {
            out.push(&layout.item)?;
        }
        line(out, level + 1)?;
        each(item, out)?;
    }
    if count > 0 {
        line(out, level)?;
    }
    out.push(close)
}

fn json_text(text: &str, ascii: bool, out: &mut Draft) -> Out<()> {
    out.ledger.work(text.len())?;
    out.push("\"")?;
    for c in text.chars() {
        match c {
            '"' => out.push("\\\"")?,
            '\\' => out.push("\\\\")?,
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            '\u{8}' => out.push("\\b")?,
            '\u{c}' => out.push("\\f")?,
            c if c < ' ' || (ascii && (c > '~')) => {
                let mut escaped = String::new();
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    _ = write!(escaped, "\\u{unit:04x}");
                }
                out.push(&escaped)?;
            }
            c => out.push_char(c)?,
        }
    }
    out.push("\"")
}

/// `markupsafe.escape` of a text.
pub(super) fn write_escaped(text: &str, out: &mut Draft) -> Out<()> {
    for c in text.chars() {
        match c {
            '&' => out.push("&amp;")?,
            '<' => out.push("&lt;")?,
            '>' => out.push("&gt;")?,
            '\'' => out.push("&#39;")?,
            '"' => out.push("&#34;")?,
            c => out.push_char(c)?,
        }
    }
    Ok(())
}
