//! Filters on numbers.

use std::rc::Rc;

use crate::jinja::arguments::{Called, int_of};
use crate::jinja::ast::Operator;
use crate::jinja::fault::{Fault, Out};
use crate::jinja::ledger::Ledger;
use crate::jinja::methods::is_space;
use crate::jinja::ops;
use crate::jinja::value::Value;
use crate::jinja::walk;

use super::select::Path;

pub(super) fn apply(ledger: &Rc<Ledger>, name: &str, value: &Value, called: Called) -> Out<Value> {
    match name {
        "abs" => {
            called.bind(name, [])?;
            match (value.as_int(), value) {
                (Some(number), _) => Ok(Value::Int(number.saturating_abs())),
                (None, Value::Float(number)) => Ok(Value::Float(number.abs())),
                (None, Value::Undefined(why)) => Err(Fault::failed(&**why)),
                _ => Err(Fault::failed(format!(
                    "bad operand type for abs(): '{}'",
                    value.type_name()
                ))),
            }
        }
        "float" => {
            let [otherwise] = called.bind(name, ["default"])?;
            let number = match value {
                Value::Str(text) => parse_float(text),
                _ => value.as_float(),
            };
            Ok(match number {
                Some(number) => Value::Float(number),
                None => otherwise.unwrap_or(Value::Float(0.0)),
            })
        }
        "int" => {
            let [otherwise, base] = called.bind(name, ["default", "base"])?;
            let base = int_of(base.as_ref(), name)?.unwrap_or(10);
            Ok(match to_int(value, base) {
                Some(number) => Value::Int(number),
                None => otherwise.unwrap_or(Value::Int(0)),
            })
        }
        "round" => round(value, called),
        _ => sum(ledger, value, called),
    }
}

fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(is_space).replace('_', "");
    match text.to_ascii_lowercase().trim_start_matches(['+', '-']) {
        "nan" | "inf" | "infinity" => text.parse().ok(),
        rest if rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') => text.parse().ok(),
        _ => None,
    }
}

fn to_int(value: &Value, base: i128) -> Option<i128> {
    match value {
        Value::Str(text) => {
            let plain = text.trim_matches(is_space).replace('_', "");
            let (negative, digits) = match plain.strip_prefix('-') {
                Some(rest) => (true, rest),
                None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
            };
            let digits = digits.to_ascii_lowercase();
            let prefix = match base {
                2 => "0b",
                8 => "0o",
                16 => "0x",
                _ => "",
            };
            let digits = digits.strip_prefix(prefix).unwrap_or(&digits);
            let radix = u32::try_from(base)
                .ok()
                .filter(|it| (2..=36).contains(it))?;
            let whole = match digits.starts_with(['+', '-']) {
                true => None,
                false => i128::from_str_radix(digits, radix).ok(),
            };
            let whole = whole.map(|it| if negative { -it } else { it });
            whole.or_else(|| truncated(parse_float(text)?))
        }
        _ => value.as_int().or_else(|| truncated(value.as_float()?)),
    }
}

fn truncated(number: f64) -> Option<i128> {
    ops::whole(number.trunc())
}

fn round(value: &Value, called: Called) -> Out<Value> {
    let [precision, method] = called.bind("round", ["precision", "method"])?;
    let precision = int_of(precision.as_ref(), "round")?.unwrap_or(0);
    let method = method.as_ref().and_then(Value::as_str).unwrap_or("common");
    let Some(number) = value.as_float() else {
        return Err(Fault::failed(format!(
            "type {} doesn't define __round__ method",
            value.type_name()
        )));
    };
    let places = precision.clamp(-30, 300);
    let power = 10_f64.powi(i32::try_from(places).unwrap_or(0));
    match (method, value.as_int()) {
        ("common", Some(whole)) if places >= 0 => Ok(Value::Int(whole)),
        ("common", whole) => {
            let rounded = match usize::try_from(places) {
                // The text of a float is exact, so that halves fall as Python's do.
                Ok(places) => format!("{number:.places$}").parse().unwrap_or(number),
                Err(_) => (number * power).round_ties_even() / power,
            };
            match whole {
                Some(_) => Ok(Value::Int(rounded as i128)),
                None => Ok(Value::Float(rounded)),
            }
        }
        ("ceil", _) => Ok(Value::Float((number * power).ceil() / power)),
        ("floor", _) => Ok(Value::Float((number * power).floor() / power)),
        _ => Err(Fault::failed("method must be common, ceil or floor")),
    }
}

fn sum(ledger: &Rc<Ledger>, value: &Value, called: Called) -> Out<Value> {
    let [attribute, start] = called.bind("sum", ["attribute", "start"])?;
    let path = Path::new(attribute.as_ref(), None)?;
    let mut sum = start.unwrap_or(Value::Int(0));
    let mut items = walk::items(value)?;
    while let Some(item) = items.next(ledger)? {
        let item = path.get(ledger, item)?;
        sum = ops::binary(ledger, Operator::Add, &sum, &item)?;
    }
    Ok(sum)
}
