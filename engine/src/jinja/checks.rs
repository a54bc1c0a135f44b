//! Jinja2's tests: `value is name`.

use std::rc::Rc;

use super::arguments::{Called, required};
use super::ast::Comparison;
use super::fault::{Fault, Out};
use super::ledger::Ledger;
use super::methods;
use super::ops;
use super::text::with_str;
use super::value::{Object, Value};
use super::walk;

/// Whether the test holds.
pub(super) fn holds(ledger: &Rc<Ledger>, name: &str, value: &Value, called: Called) -> Out<bool> {
    ledger.step()?;
    if let Some(comparison) = comparison(name) {
        let [other] = called.bind(name, ["other"])?;
        let other = required(other, name, "other")?;
        return ops::compare(ledger, comparison, value, &other);
    }
    match name {
        "divisibleby" => {
            let [by] = called.bind(name, ["num"])?;
            let by = required(by, name, "num")?;
            let rest = ops::binary(ledger, super::ast::Operator::Mod, value, &by)?;
            return Ok(!rest.truth());
        }
        "sameas" => {
            let [other] = called.bind(name, ["other"])?;
            return Ok(same(value, &required(other, name, "other")?));
        }
        "odd" | "even" => {
            called.bind(name, [])?;
            let two = Value::Int(2);
            let rest = ops::binary(ledger, super::ast::Operator::Mod, value, &two)?;
            return Ok(rest.truth() == (name == "odd"));
        }
        "lower" | "upper" => {
            called.bind(name, [])?;
            return with_str(ledger, value, |text| {
                Ok(match name {
                    "lower" => methods::is_lower(text),
                    _ => methods::is_upper(text),
                })
            });
        }
        _ => called.bind(name, [])?,
    };
    kind(name, value).ok_or_else(|| Fault::failed(format!("No test named '{name}'.")))
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "==" | "eq" | "equalto" => Comparison::Eq,
        "!=" | "ne" => Comparison::Ne,
        ">" | "gt" | "greaterthan" => Comparison::Gt,
        ">=" | "ge" => Comparison::Ge,
        "<" | "lt" | "lessthan" => Comparison::Lt,
        "<=" | "le" => Comparison::Le,
        "in" => Comparison::In,
        _ => return None,
    })
}

/// Tests of what a value is.
fn kind(name: &str, value: &Value) -> Option<bool> {
    let is_object = |test: fn(&Object) -> bool| match value {
        Value::Object(object) => test(object),
        _ => false,
    };
    Some(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
        "string" => matches!(value, Value::Str(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        // Python's: something that has a length and items; Jinja2's `Undefined` has both.
        "sequence" => {
            let data = matches!(
                value,
                Value::Str(_)
                    | Value::List(_)
                    | Value::Tuple(_)
                    | Value::Dict(_)
                    | Value::Undefined(_)
            );
            data || is_object(|it| matches!(it, Object::Range(_)))
        }
        "iterable" => walk::items(value).is_ok() || is_object(|it| matches!(it, Object::Loop(_))),
        "callable" => {
            matches!(value, Value::Undefined(_))
                || is_object(|it| {
                    matches!(
                        it,
                        Object::Macro(_)
                            | Object::Builtin(_)
                            | Object::Method { .. }
                            | Object::Loop(_)
                            | Object::Joiner { .. }
                    )
                })
        }
        "escaped" => value.is_markup(),
        _ => return None,
    })
}

/// Python's `is`, as far as it can be told of values.
fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::None, Value::None) | (Value::Undefined(_), Value::Undefined(_)) => true,
        (Value::Bool(one), Value::Bool(two)) => one == two,
        (Value::Int(one), Value::Int(two)) => one == two,
        (Value::Str(one), Value::Str(two)) => one.as_str() == two.as_str(),
        (Value::List(one), Value::List(two)) | (Value::Tuple(one), Value::Tuple(two)) => {
            Rc::ptr_eq(one, two)
        }
        (Value::Dict(one), Value::Dict(two)) => Rc::ptr_eq(one, two),
        (Value::Object(one), Value::Object(two)) => Rc::ptr_eq(one, two),
        _ => false,
    }
}
