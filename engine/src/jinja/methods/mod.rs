//! Methods of Python's types: which there are, and what they do.

mod case;
mod search;

use std::rc::Rc;

use super::arguments::{Called, count, flag, int_of, required, text_of};
use super::fault::{Fault, Out};
use super::format;
use super::ledger::Ledger;
use super::ops;
use super::value::{Dict, Key, Object, Text, Value, ViewKind};
use super::walk;

pub(super) use case::{capitalized, is_lower, is_upper};
pub(super) use search::lines;

/// Python's `str.isspace` of a character.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

const TEXT: [&str; 42] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
];
const DICT: [&str; 5] = ["copy", "get", "items", "keys", "values"];
const SEQ: [&str; 3] = ["copy", "count", "index"];
/// What would change a value: transformers' sandbox does not give it out.
const UNSAFE_DICT: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];
const UNSAFE_LIST: [&str; 8] = [
    "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort",
];

/// Whether a value has a method of this name. `Err`: it has, and it must not be called.
pub(super) fn has(value: &Value, name: &str) -> Result<bool, ()> {
    let (safe, forbidden): (&[&str], &[&str]) = match value {
        Value::Str(_) => return Ok(TEXT.contains(&name) || ["upper", "zfill"].contains(&name)),
        Value::Dict(_) => (&DICT, &UNSAFE_DICT),
        Value::List(_) => (&SEQ, &UNSAFE_LIST),
        Value::Tuple(_) => (&SEQ[1..], &[]),
        Value::Object(object) => match &**object {
            Object::Loop(_) => (&["changed", "cycle"], &[]),
            Object::Cycler { .. } => (&["next", "reset"], &[]),
            Object::Range(_) => (&SEQ[1..], &[]),
            _ => (&[], &[]),
        },
        Value::Float(_) => (&["is_integer"], &[]),
        _ => (&[], &[]),
    };
    match forbidden.contains(&name) {
        true => Err(()),
        false => Ok(safe.contains(&name)),
    }
}

/// `receiver.name(…)`.
pub(super) fn call(
    ledger: &Rc<Ledger>,
    receiver: &Value,
    name: &str,
    called: Called,
) -> Out<Value> {
    match receiver {
        Value::Str(text) => {
            ledger.work(text.len())?;
            text_method(ledger, text, name, called)
        }
        Value::Dict(dict) => dict_method(receiver, dict, name, called),
        Value::List(_) | Value::Tuple(_) => seq_method(ledger, receiver, name, called),
        Value::Float(number) => Ok(Value::Bool(number.fract() == 0.0)),
        Value::Object(object) => match &**object {
            Object::Range(_) => seq_method(ledger, receiver, name, called),
            Object::Cycler { items, at } => {
                let index = if name == "next" { at.get() } else { 0 };
                let next = (index + 1) % items.items.len().max(1);
                at.set(if name == "next" { next } else { 0 });
                let item = items.items.get(index).cloned().unwrap_or(Value::None);
                Ok(if name == "next" { item } else { Value::None })
            }
            _ => Err(missing(receiver, name)),
        },
        _ => Err(missing(receiver, name)),
    }
}

fn missing(receiver: &Value, name: &str) -> Fault {
    let kind = receiver.type_name();
    Fault::failed(format!("'{kind} object' has no attribute '{name}'"))
}

fn dict_method(receiver: &Value, dict: &Rc<Dict>, name: &str, called: Called) -> Out<Value> {
    let view = |kind| Value::object(Object::View(Rc::clone(dict), kind));
    if name == "get" {
        let [key, otherwise] = called.bind("get", ["key", "default"])?;
        let key = Key::new(required(key, "get", "key")?)?;
        let found = dict.map.get(&key).cloned();
        return Ok(found.or(otherwise).unwrap_or(Value::None));
    }
    called.bind(name, [])?;
    match name {
        "keys" => Ok(view(ViewKind::Keys)),
        "values" => Ok(view(ViewKind::Values)),
        "items" => Ok(view(ViewKind::Items)),
        "copy" => Ok(receiver.clone()),
        _ => Err(missing(receiver, name)),
    }
}

fn seq_method(ledger: &Rc<Ledger>, receiver: &Value, name: &str, called: Called) -> Out<Value> {
    if name == "copy" {
        return Ok(receiver.clone());
    }
    let [item, start, stop] = called.bind(name, ["value", "start", "stop"])?;
    let item = required(item, name, "value")?;
    let length = walk::length(ledger, receiver)?;
    let bounds = [
        int_of(start.as_ref(), name)?,
        int_of(stop.as_ref(), name)?,
        None,
    ];
    let range = walk::bounds(bounds, length)?;
    let mut found = 0;
    for n in 0..range.length {
        ledger.step()?;
        let here = walk::at(ledger, receiver, range.at(n))?;
        if here.is_some_and(|it| ops::equal(&it, &item)) {
            if name == "index" {
                return Ok(Value::Int(range.at(n)));
            }
            found += 1;
        }
    }
    match name {
        "index" => Err(Fault::failed("the item is not in the list")),
        _ => Ok(Value::Int(found)),
    }
}

/// A text of the same kind as this one, safe HTML or not.
fn like(ledger: &Rc<Ledger>, text: &Text, made: String) -> Out<Value> {
    ledger.text_like(made, text.markup)
}

fn text_method(ledger: &Rc<Ledger>, text: &Rc<Text>, name: &str, called: Called) -> Out<Value> {
    match name {
        "find" | "rfind" | "index" | "rindex" | "count" | "startswith" | "endswith" | "replace" => {
            search::call(ledger, text, name, called)
        }
        "split" | "rsplit" | "splitlines" | "partition" | "rpartition" => {
            search::split(ledger, text, name, called)
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = called.bind(name, ["chars"])?;
            like(
                ledger,
                text,
                stripped(text, name, chars.as_ref())?.to_owned(),
            )
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = called.bind(name, ["affix"])?;
            let affix = required(affix, name, "affix")?;
            let affix = text_of(&affix, name)?;
            let rest = match name {
                "removeprefix" => text.strip_prefix(affix),
                _ => text.strip_suffix(affix),
            };
            like(ledger, text, rest.unwrap_or(text).to_owned())
        }
        "join" => {
            let [items] = called.bind(name, ["iterable"])?;
            join(ledger, text, &required(items, name, "iterable")?)
        }
        "format" => format::braces(ledger, text, &called),
        "format_map" => {
            let [mapping] = called.bind(name, ["mapping"])?;
            let mut named = Called::default();
            if let Some(Value::Dict(dict)) = mapping {
                for (key, value) in &dict.map {
                    let name = key.as_str().unwrap_or_default();
                    named.named.push((name.into(), value.clone()));
                }
            }
            format::braces(ledger, text, &named)
        }
        "center" | "ljust" | "rjust" | "zfill" | "expandtabs" => pad(ledger, text, name, called),
        _ => {
            called.bind(name, [])?;
            if let Some(is) = case::is(text, name) {
                return Ok(Value::Bool(is));
            }
            like(ledger, text, case::change(text, name))
        }
    }
}

/// `text.strip(chars)` and its halves.
pub(super) fn stripped<'a>(text: &'a str, name: &str, chars: Option<&Value>) -> Out<&'a str> {
    let set = match chars {
        None | Some(Value::None) => None,
        Some(chars) => Some(text_of(chars, name)?),
    };
    let goes = |c: char| match set {
        Some(set) => set.contains(c),
        None => is_space(c),
    };
    Ok(match name {
        "lstrip" => text.trim_start_matches(goes),
        "rstrip" => text.trim_end_matches(goes),
        _ => text.trim_matches(goes),
    })
}

/// `text.join(items)`: all items must be texts.
fn join(ledger: &Rc<Ledger>, text: &Text, items: &Value) -> Out<Value> {
    let mut out = ledger.draft();
    let mut walker = walk::items(items)?;
    let mut n = 0;
    while let Some(item) = walker.next(ledger)? {
        let Some(piece) = item.as_str() else {
            return Err(Fault::failed(format!(
                "sequence item {n}: expected str instance, {} found",
                item.type_name()
            )));
        };
        if n > 0 {
            out.push(text)?;
        }
        match text.markup && !item.is_markup() {
            true => super::text::write_escaped(piece, &mut out)?,
            false => out.push(piece)?,
        }
        n += 1;
    }
    like(ledger, text, out.text)
}

fn pad(ledger: &Rc<Ledger>, text: &Rc<Text>, name: &str, called: Called) -> Out<Value> {
    if name == "expandtabs" {
        let [size] = called.bind(name, ["tabsize"])?;
        let size = count(int_of(size.as_ref(), name)?.unwrap_or(8));
        return expand_tabs(ledger, text, size);
    }
    let [width, fill] = called.bind(name, ["width", "fillchar"])?;
    let width = int_of(Some(&required(width, name, "width")?), name)?.unwrap_or(0);
    let fill = match &fill {
        Some(fill) => {
            let mut chars = text_of(fill, name)?.chars();
            match (chars.next(), chars.next()) {
                (Some(only), None) => only,
                _ => {
                    let message = "The fill character must be exactly one character long";
                    return Err(Fault::failed(message));
                }
            }
        }
        None if name == "zfill" => '0',
        None => ' ',
    };
    let missing = count(width).saturating_sub(text.length());
    let mut out = ledger.draft();
    let mut body: &str = text;
    // CPython's rounding: the odd one goes left where the width is odd.
    let (left, right) = match name {
        "ljust" => (0, missing),
        "center" => {
            let left = missing / 2 + (missing & count(width) & 1);
            (left, missing - left)
        }
        _ => (missing, 0),
    };
    if name == "zfill" && text.starts_with(['+', '-']) {
        out.push(&text[..1])?;
        body = &text[1..];
    }
    out.fill(fill, left)?;
    out.push(body)?;
    out.fill(fill, right)?;
    like(ledger, text, out.text)
}

fn expand_tabs(ledger: &Rc<Ledger>, text: &Text, size: usize) -> Out<Value> {
    let mut out = ledger.draft();
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' if size == 0 => {}
            '\t' => {
                let blanks = size - column % size;
                out.fill(' ', blanks)?;
                column += blanks;
            }
            _ => {
                out.push_char(c)?;
                column = if matches!(c, '\n' | '\r') {
                    0
                } else {
                    column + 1
                };
            }
        }
    }
    like(ledger, text, out.text)
}

/// Whether a flag among the arguments is set.
fn keeps(value: Option<&Value>) -> bool {
    flag(value, false)
}
