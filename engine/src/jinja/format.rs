//! Python's two ways of formatting: `'%s' % value` and `'{}'.format(value)`.

use std::rc::Rc;

use super::arguments::Called;
use super::fault::{Fault, Out};
use super::layout::{Spec, parse_spec, write_float, write_int, write_text};
use super::ledger::{Draft, Ledger};
use super::lookup;
use super::ops;
use super::text::{repr_text, write_repr, write_str};
use super::value::{Text, Value};

/// `text % value`: `values` are those of a tuple, `mapping` serves `%(name)s`.
pub(super) fn percent(
    ledger: &Rc<Ledger>,
    text: &Rc<Text>,
    values: &[Value],
    mapping: Option<&Value>,
) -> Out<Value> {
    let (values, single) = match values {
        [Value::Tuple(tuple)] => (&tuple.items[..], false),
        values => (values, values.len() == 1),
    };
    let mapping = mapping.or_else(|| values.first().filter(|it| matches!(it, Value::Dict(_))));
    let mut next = 0;
    let mut take = || {
        next += 1;
        let value = values.get(next - 1).cloned();
        value.ok_or_else(|| Fault::failed("not enough arguments for format string"))
    };
    let mut out = ledger.draft();
    let mut named = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push_char(c)?;
            continue;
        }
        let mut value = None;
        if chars.next_if_eq(&'(').is_some() {
            let name: String = chars.by_ref().take_while(|c| *c != ')').collect();
            let Some(mapping) = mapping else {
                return Err(Fault::failed("format requires a mapping"));
            };
            named = true;
            let name = ledger.text(name)?;
            let found = lookup::item(ledger, mapping, &name)?;
            if let Value::Undefined(_) = found {
                return Err(Fault::failed(format!(
                    "KeyError: {}",
                    name.as_str().unwrap_or_default()
                )));
            }
            value = Some(found);
        }
        let mut spec = Spec::default();
        let mut left = false;
        while let Some(flag) = chars.next_if(|c| "-+ #0".contains(*c)) {
            match flag {
                '-' => left = true,
                '+' => spec.sign = Some('+'),
                ' ' => spec.sign = spec.sign.or(Some(' ')),
                '#' => spec.alternate = true,
                _ => spec.zero = true,
            }
        }
        let mut number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            if chars.next_if_eq(&'*').is_some() {
                let value = take()?.as_int();
                return value.ok_or_else(|| Fault::failed("* wants int"));
            }
            let mut number = 0_i128;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                number = number.saturating_mul(10).saturating_add(digit.into());
                chars.next();
            }
            Ok(number)
        };
        let width = number(&mut chars)?;
        left |= width < 0;
        spec.width = usize::try_from(width.saturating_abs()).unwrap_or(usize::MAX);
        if chars.next_if_eq(&'.').is_some() {
            let precision = number(&mut chars)?.max(0);
            spec.precision = Some(usize::try_from(precision).unwrap_or(usize::MAX));
        }
        while chars.next_if(|c| "hlL".contains(*c)).is_some() {}
        let Some(kind) = chars.next() else {
            return Err(Fault::failed("incomplete format"));
        };
        if kind == '%' {
            out.push("%")?;
            continue;
        }
        let value = match value {
            Some(value) => value,
            None => take()?,
        };
        spec.align = Some(if left { '<' } else { '>' });
        // Zeros fill numbers only, and none that stands left.
        spec.zero &= !left;
        spec.kind = Some(kind);
        write_percent(&mut out, &value, spec)?;
    }
    let left_over = next < values.len() && !(named || (single && mapping.is_some()));
    if left_over && !values.is_empty() {
        let message = "not all arguments converted during string formatting";
        return Err(Fault::failed(message));
    }
    ledger.text_like(out.text, text.markup)
}

fn write_percent(out: &mut Draft, value: &Value, mut spec: Spec) -> Out<()> {
    let kind = spec.kind.unwrap_or('s');
    match kind {
        's' | 'r' | 'a' => {
            let text = converted(&out.ledger, value, kind)?;
            spec.zero = false;
            spec.kind = None;
            write_text(out, &text, &spec)
        }
        'c' => {
            let text = match (value.as_str(), value.as_int()) {
                (Some(text), _) if text.chars().count() == 1 => text.to_owned(),
                (_, Some(code)) => character(code)?,
                _ => return Err(Fault::failed("%c requires int or char")),
            };
            spec.kind = None;
            write_text(out, &text, &spec)
        }
        'd' | 'i' | 'u' => {
            let number = match (value.as_int(), value) {
                (Some(number), _) => number,
                (None, Value::Float(number)) if number.is_finite() => number.trunc() as i128,
                _ => return Err(not_a_number(kind, value)),
            };
            spec.kind = Some('d');
            write_int(out, number, &spec)
        }
        'x' | 'X' | 'o' => match value.as_int() {
            Some(number) => write_int(out, number, &spec),
            None => Err(not_a_number(kind, value)),
        },
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match value.as_float() {
            Some(number) => write_float(out, number, &spec),
            None => Err(Fault::failed(format!(
                "must be real number, not {}",
                value.type_name()
            ))),
        },
        other => Err(Fault::failed(format!(
            "unsupported format character '{other}'"
        ))),
    }
}

fn not_a_number(kind: char, value: &Value) -> Fault {
    Fault::failed(format!(
        "%{kind} format: a real number is required, not {}",
        value.type_name()
    ))
}

fn character(code: i128) -> Out<String> {
    let c = u32::try_from(code).ok().and_then(char::from_u32);
    match c {
        Some(c) => Ok(c.to_string()),
        None => Err(Fault::failed("character code not in range(0x110000)")),
    }
}

/// A value after `!s`, `!r` or `!a`.
fn converted(ledger: &Rc<Ledger>, value: &Value, kind: char) -> Out<String> {
    let mut draft = ledger.draft();
    match (kind, value) {
        ('s', _) => write_str(value, &mut draft)?,
        (_, Value::Str(text)) => repr_text(text, &mut draft)?,
        _ => write_repr(value, 0, &mut draft)?,
    }
    if kind != 'a' || draft.text.is_ascii() {
        return Ok(draft.text);
    }
    let mut ascii = ledger.draft();
    for c in draft.text.chars() {
        match u32::from(c) {
            0..=0x7F => ascii.push_char(c)?,
            code @ 0x80..=0xFF => ascii.push(&format!("\\x{code:02x}"))?,
            code @ 0x100..=0xFFFF => ascii.push(&format!("\\u{code:04x}"))?,
            code => ascii.push(&format!("\\U{code:08x}"))?,
        }
    }
    Ok(ascii.text)
}

/// `text.format(…)`.
pub(super) fn braces(ledger: &Rc<Ledger>, text: &Rc<Text>, called: &Called) -> Out<Value> {
    let mut out = ledger.draft();
    let mut next = 0;
    write_braces(&mut out, text, called, &mut next, 2)?;
    ledger.text_like(out.text, text.markup)
}

fn write_braces(
    out: &mut Draft,
    text: &str,
    called: &Called,
    next: &mut usize,
    levels: usize,
) -> Out<()> {
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out.push(&rest[..at])?;
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if rest.starts_with(brace) {
            out.push(brace)?;
            rest = &rest[1..];
            continue;
        }
        if brace == "}" {
            return Err(Fault::failed("Single '}' encountered in format string"));
        }
        let mut depth = 1;
        let end = rest.find(|c| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0
        });
        let Some(end) = end else {
            return Err(Fault::failed("expected '}' before end of string"));
        };
        if levels == 0 {
            return Err(Fault::failed("Max string recursion exceeded"));
        }
        write_field(out, &rest[..end], called, next, levels)?;
        rest = &rest[end + 1..];
    }
    out.push(rest)
}

/// `name.attribute[key]!conversion:spec`
fn write_field(
    out: &mut Draft,
    field: &str,
    called: &Called,
    next: &mut usize,
    levels: usize,
) -> Out<()> {
    let (head, spec) = field.split_once(':').unwrap_or((field, ""));
    let (head, conversion) = head.split_once('!').unwrap_or((head, ""));
    let value = field_value(&out.ledger, head, called, next)?;
    let mut layout = out.ledger.draft();
    write_braces(&mut layout, spec, called, next, levels - 1)?;
    let spec = parse_spec(&layout.text)?;
    if let Some(kind) = conversion.chars().next() {
        let text = converted(&out.ledger, &value, kind)?;
        return write_text(out, &text, &spec);
    }
    write_spec(out, &value, &spec)
}

fn field_value(ledger: &Rc<Ledger>, head: &str, called: &Called, next: &mut usize) -> Out<Value> {
    let end = head.find(['.', '[']).unwrap_or(head.len());
    let (name, mut path) = head.split_at(end);
    let index = match name {
        "" => {
            *next += 1;
            Some(*next - 1)
        }
        name => name.parse().ok(),
    };
    let found = match index {
        Some(index) => called.positional.get(index),
        None => {
            let named = called.named.iter().find(|(it, _)| **it == *name);
            named.map(|(_, value)| value)
        }
    };
    let mut value = found.cloned().ok_or_else(|| match index {
        Some(index) => Fault::failed(format!(
            "Replacement index {index} out of range for positional args tuple"
        )),
        None => Fault::failed(format!("KeyError: '{name}'")),
    })?;
    while !path.is_empty() {
        ledger.step()?;
        if let Some(key) = path.strip_prefix('[') {
            let (key, rest) = key.split_once(']').unwrap_or((key, ""));
            let key = match key.parse() {
                Ok(index) => Value::Int(index),
                Err(_) => ledger.str(key)?,
            };
            value = lookup::item(ledger, &value, &key)?;
            path = rest;
        } else {
            let end = path[1..].find(['.', '[']).map_or(path.len(), |at| at + 1);
            value = lookup::attribute(&value, &path[1..end].into());
            path = &path[end..];
        }
    }
    Ok(value)
}

/// `format(value, spec)`.
fn write_spec(out: &mut Draft, value: &Value, spec: &Spec) -> Out<()> {
    match (value, spec.kind) {
        (Value::Str(_), None | Some('s')) if spec.sign.is_some() => {
            let message = "Sign not allowed in string format specifier";
            Err(Fault::failed(message))
        }
        (Value::Str(text), None | Some('s')) => write_text(out, text, spec),
        (Value::Bool(_), None) if spec.is_plain() => {
            let text = ops::str_of(&out.ledger, value)?;
            out.push(&text)
        }
        (Value::Int(number), None | Some('d' | 'x' | 'X' | 'o' | 'b' | 'n')) => {
            write_int(out, *number, spec)
        }
        (Value::Bool(value), None | Some('d' | 'x' | 'X' | 'o' | 'b' | 'n')) => {
            write_int(out, i128::from(*value), spec)
        }
        (Value::Int(code), Some('c')) => {
            let text = character(*code)?;
            write_text(
                out,
                &text,
                &Spec {
                    kind: None,
                    ..spec.clone()
                },
            )
        }
        (_, Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')) | (Value::Float(_), None) => {
            match value.as_float() {
                Some(number) => write_float(out, number, spec),
                None => Err(bad_code(value, spec)),
            }
        }
        (Value::Str(_) | Value::Int(_) | Value::Bool(_) | Value::Float(_), Some(_)) => {
            Err(bad_code(value, spec))
        }
        // Other types have no layout of their own.
        _ => {
            let text = ops::str_of(&out.ledger, value)?;
            match spec.is_plain() {
                true => out.push(&text),
                false => Err(Fault::failed(format!(
                    "unsupported format string passed to {}.__format__",
                    value.type_name()
                ))),
            }
        }
    }
}

fn bad_code(value: &Value, spec: &Spec) -> Fault {
    Fault::failed(format!(
        "Unknown format code '{}' for object of type '{}'",
        spec.kind.unwrap_or(' '),
        value.type_name()
    ))
}
