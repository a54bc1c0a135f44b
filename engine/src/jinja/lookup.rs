//! `value.name` and `value[key]`, as Jinja2's sandbox finds them.

use std::rc::Rc;
use std::sync::Arc;

use super::fault::{Fault, Out};
use super::ledger::Ledger;
use super::methods;
use super::value::{Key, Object, Value};
use super::walk;

/// `value.name`: what Python's type has under this name, then the item of this key.
pub(super) fn attribute(value: &Value, name: &Arc<str>) -> Value {
    match own(value, name) {
        Some(found) => found,
        None => match value {
            Value::Dict(dict) => match dict.map.get(&**name) {
                Some(found) => found.clone(),
                None => missing(value, name),
            },
            _ => missing(value, name),
        },
    }
}

/// What the value's type has under a name.
fn own(value: &Value, name: &Arc<str>) -> Option<Value> {
    match methods::has(value, name) {
        Ok(true) => {
            return Some(Value::object(Object::Method {
                receiver: value.clone(),
                name: Arc::clone(name),
            }));
        }
        Err(()) => {
            let kind = value.type_name();
            let why = format!("access to attribute '{name}' of '{kind}' object is unsafe.");
            return Some(Value::undefined(why));
        }
        Ok(false) => {}
    }
    match value {
        Value::Object(object) => match &**object {
            Object::Namespace(namespace) => namespace.attributes.borrow().get(name).cloned(),
            Object::Loop(it) => of_loop(&it.state.borrow(), name),
            Object::Macro(it) if **name == *"name" => Some(Value::literal(&it.def.name)),
            Object::Cycler { items, at } if **name == *"current" => {
                items.items.get(at.get()).cloned()
            }
            _ => None,
        },
        // What `groupby` returns is a tuple with two names.
        Value::Tuple(pair) => match (&**name, &pair.items[..]) {
            ("grouper", [first, Value::List(_)]) => Some(first.clone()),
            ("list", [_, second @ Value::List(_)]) => Some(second.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn of_loop(state: &super::value::LoopState, name: &str) -> Option<Value> {
    let number = |value: usize| Some(Value::Int(value as i128));
    let length = state.items.len();
    let item = |at: Option<usize>, why: &str| {
        let found = at.and_then(|at| state.items.get(at)).cloned();
        Some(found.unwrap_or_else(|| Value::undefined(why)))
    };
    match name {
        "index" => number(state.index + 1),
        "index0" => number(state.index),
        "revindex" => number(length - state.index),
        "revindex0" => number(length - state.index - 1),
        "first" => Some(Value::Bool(state.index == 0)),
        "last" => Some(Value::Bool(state.index + 1 == length)),
        "length" => number(length),
        "depth" => number(state.depth + 1),
        "depth0" => number(state.depth),
        "previtem" => item(state.index.checked_sub(1), "there is no previous item"),
        "nextitem" => item(Some(state.index + 1), "there is no next item"),
        _ => None,
    }
}

fn missing(value: &Value, name: &str) -> Value {
    match value {
        Value::None => Value::undefined(format!("'None' has no attribute '{name}'")),
        _ => {
            let kind = value.type_name();
            Value::undefined(format!("'{kind} object' has no attribute '{name}'"))
        }
    }
}

/// `value[key]`: the item, then for a text what Python's type has under this name.
pub(super) fn item(ledger: &Rc<Ledger>, value: &Value, key: &Value) -> Out<Value> {
    if let Value::Undefined(why) = value {
        return Err(Fault::failed(&**why));
    }
    let found = match value {
        // A key that cannot be one is not there.
        Value::Dict(dict) => match Key::new(key.clone()) {
            Ok(key) => dict.map.get(&key).cloned(),
            Err(_) => None,
        },
        _ => match key.as_int() {
            Some(index) if indexed(value) => walk::at(ledger, value, index)?,
            _ => None,
        },
    };
    if let Some(found) = found {
        return Ok(found);
    }
    if let Some(name) = key.as_str() {
        let name: Arc<str> = name.into();
        return Ok(own(value, &name).unwrap_or_else(|| missing(value, &name)));
    }
    let kind = value.type_name();
    Ok(Value::undefined(match key.as_int() {
        Some(index) => format!("{kind} object has no element {index}"),
        None => format!("{kind} object has no such element"),
    }))
}

fn indexed(value: &Value) -> bool {
    match value {
        Value::Str(_) | Value::List(_) | Value::Tuple(_) => true,
        Value::Object(object) => matches!(**object, Object::Range(_)),
        _ => false,
    }
}

/// `value[start:stop:step]`.
pub(super) fn slice(ledger: &Rc<Ledger>, value: &Value, parts: &[Value; 3]) -> Out<Value> {
    if let Value::Undefined(why) = value {
        return Err(Fault::failed(&**why));
    }
    let mut bounds = [None; 3];
    for (bound, part) in bounds.iter_mut().zip(parts) {
        *bound = match (part, part.as_int()) {
            (Value::None, _) => None,
            (_, Some(number)) => Some(number),
            _ => {
                let message = "slice indices must be integers or None";
                return Err(Fault::failed(message));
            }
        };
    }
    walk::slice(ledger, value, bounds)?.ok_or_else(|| {
        let kind = value.type_name();
        Fault::failed(format!("'{kind}' object is not subscriptable"))
    })
}
