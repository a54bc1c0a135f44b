//! Jinja2's filters, and `fromjson`, which some models' templates ask of their server.

mod lists;
mod numbers;
mod order;
mod select;
mod texts;

use std::rc::Rc;
use std::sync::Arc;

use super::arguments::{Called, flag, required};
use super::fault::{Fault, Out};
use super::ledger::Ledger;
use super::lookup;
use super::text;
use super::value::{Key, Value, ViewKind};
use super::walk;

/// `value | name(…)`.
pub(super) fn apply(ledger: &Rc<Ledger>, name: &str, value: Value, called: Called) -> Out<Value> {
    ledger.step()?;
    match name {
        "default" | "d" => default(value, called),
        "attr" => {
            let [attribute] = called.bind(name, ["name"])?;
            let attribute = required(attribute, name, "name")?;
            let attribute: Arc<str> = attribute.as_str().unwrap_or_default().into();
            Ok(match &value {
                // Only what the type has, not the items.
                Value::Dict(_) => {
                    let is_method = super::methods::has(&value, &attribute) == Ok(true);
                    match is_method {
                        true => lookup::attribute(&value, &attribute),
                        false => Value::undefined(format!(
                            "'dict object' has no attribute '{attribute}'"
                        )),
                    }
                }
                _ => lookup::attribute(&value, &attribute),
            })
        }
        "items" => items(ledger, &value, called),
        "length" | "count" => {
            called.bind(name, [])?;
            Ok(Value::Int(walk::length(ledger, &value)? as i128))
        }
        "tojson" => tojson(ledger, &value, called),
        "fromjson" | "from_json" => fromjson(ledger, value, called),
        "abs" | "float" | "int" | "round" | "sum" => numbers::apply(ledger, name, &value, called),
        "batch" | "slice" | "first" | "last" | "list" | "reverse" | "join" => {
            lists::apply(ledger, name, value, called)
        }
        "map" | "select" | "reject" | "selectattr" | "rejectattr" => {
            select::apply(ledger, name, &value, called)
        }
        "dictsort" | "groupby" | "max" | "min" | "sort" | "unique" => {
            order::apply(ledger, name, &value, called)
        }
        _ => texts::apply(ledger, name, &value, called),
    }
}

fn default(value: Value, called: Called) -> Out<Value> {
    let [otherwise, boolean] = called.bind("default", ["default_value", "boolean"])?;
    let absent = matches!(value, Value::Undefined(_));
    match absent || (flag(boolean.as_ref(), false) && !value.truth()) {
        true => Ok(otherwise.unwrap_or_else(|| Value::literal(&"".into()))),
        false => Ok(value),
    }
}

fn items(ledger: &Rc<Ledger>, value: &Value, called: Called) -> Out<Value> {
    called.bind("items", [])?;
    match value {
        Value::Undefined(_) => ledger.generator(Vec::new()),
        Value::Dict(dict) => {
            let view = super::value::Object::View(Rc::clone(dict), ViewKind::Items);
            let (items, _room) = walk::collect(ledger, &Value::object(view))?;
            ledger.generator(items)
        }
        _ => Err(Fault::failed("Can only get item pairs from a mapping.")),
    }
}

/// `json.dumps` with the arguments that transformers gives it.
fn tojson(ledger: &Rc<Ledger>, value: &Value, called: Called) -> Out<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sort_keys] = called.bind("tojson", names)?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text.to_string()),
        Some(number) => {
            let width = number.as_int().ok_or_else(|| {
                Fault::failed(format!(
                    "tojson(): an indent of type '{}'",
                    number.type_name()
                ))
            })?;
            let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
            ledger.check_text(width)?;
            Some(" ".repeat(width))
        }
    };
    let separators = match separators {
        None | Some(Value::None) => None,
        Some(pair) => {
            let (pair, _room) = walk::collect(ledger, &pair)?;
            match (
                pair.first().and_then(Value::as_str),
                pair.get(1).and_then(Value::as_str),
            ) {
                (Some(item), Some(key)) => Some((item.to_owned(), key.to_owned())),
                _ => return Err(Fault::failed("tojson(): separators must be two texts")),
            }
        }
    };
    let (item, key) = separators.unwrap_or_else(|| {
        let item = if indent.is_some() { "," } else { ", " };
        (item.to_owned(), ": ".to_owned())
    });
    let layout = text::JsonLayout {
        indent,
        item,
        key,
        sort_keys: flag(sort_keys.as_ref(), false),
        ascii: flag(ascii.as_ref(), false),
    };
    let mut out = ledger.draft();
    text::write_json(value, &layout, 0, &mut out)?;
    ledger.text(out.text)
}

/// `json.loads`. What is no text has been read already.
fn fromjson(ledger: &Rc<Ledger>, value: Value, called: Called) -> Out<Value> {
    called.bind("fromjson", [])?;
    let Value::Str(text) = &value else {
        return Ok(value);
    };
    ledger.work(text.len())?;
    // What JSON becomes in memory is many times as long.
    let _room = ledger.enter(text.len().saturating_mul(8))?;
    let read: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| Fault::failed(format!("fromjson(): {error}")))?;
    made(ledger, &read)
}

/// A value that the template pays for.
fn made(ledger: &Rc<Ledger>, value: &serde_json::Value) -> Out<Value> {
    ledger.step()?;
    match value {
        serde_json::Value::String(text) => ledger.str(text),
        serde_json::Value::Array(items) => {
            let items: Out<Vec<Value>> = items.iter().map(|item| made(ledger, item)).collect();
            ledger.list(items?)
        }
        serde_json::Value::Object(fields) => {
            let entry = |(name, value): (&String, &serde_json::Value)| {
                Ok((Key::new(ledger.str(name)?)?, made(ledger, value)?))
            };
            let map: Out<indexmap::IndexMap<Key, Value>> = fields.iter().map(entry).collect();
            ledger.dict(map?)
        }
        other => Ok(Value::given(other)),
    }
}
