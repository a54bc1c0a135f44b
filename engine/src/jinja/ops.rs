//! Python's operators.

use std::cmp::Ordering;
use std::rc::Rc;

use super::ast::{Comparison, Operator};
use super::fault::{Fault, Out};
use super::format;
use super::ledger::Ledger;
use super::text::{with_str, write_escaped, write_str};
use super::value::{ITEM, Object, Seq, Value};
use super::walk;

/// `left operator right`.
pub(super) fn binary(
    ledger: &Rc<Ledger>,
    operator: Operator,
    left: &Value,
    right: &Value,
) -> Out<Value> {
    if let Value::Undefined(why) = left {
        return Err(Fault::failed(&**why));
    }
    match (operator, left, right) {
        (Operator::Mod, Value::Str(text), _) => {
            return format::percent(ledger, text, std::slice::from_ref(right), None);
        }
        (_, _, Value::Undefined(why)) => return Err(Fault::failed(&**why)),
        (Operator::Add, Value::Str(_), Value::Str(_)) => return add_texts(ledger, left, right),
        (Operator::Add, Value::List(one), Value::List(two)) => {
            return ledger.list(joined(ledger, one, two)?);
        }
        (Operator::Add, Value::Tuple(one), Value::Tuple(two)) => {
            return ledger.tuple(joined(ledger, one, two)?);
        }
        (Operator::Mul, _, _) => {
            if let Some(repeated) = repeat(ledger, left, right)? {
                return Ok(repeated);
            }
        }
        _ => {}
    }
    if let (Some(one), Some(two)) = (left.as_int(), right.as_int()) {
        return int(operator, one, two);
    }
    match (left.as_float(), right.as_float()) {
        (Some(one), Some(two)) => real(operator, one, two),
        _ => Err(type_error(operator, left, right)),
    }
}

fn type_error(operator: Operator, left: &Value, right: &Value) -> Fault {
    let (one, two) = (left.type_name(), right.type_name());
    if operator == Operator::Add && matches!(left, Value::Str(_) | Value::List(_)) {
        return Fault::failed(format!(
            "can only concatenate {one} (not \"{two}\") to {one}"
        ));
    }
    let sign = match operator {
        Operator::Add => "+",
        Operator::Sub => "-",
        Operator::Mul => "*",
        Operator::Div => "/",
        Operator::FloorDiv => "//",
        Operator::Mod => "%",
        Operator::Pow => "** or pow()",
    };
    Fault::failed(format!(
        "unsupported operand type(s) for {sign}: '{one}' and '{two}'"
    ))
}

/// Two texts; where one is safe HTML, the other is escaped.
fn add_texts(ledger: &Rc<Ledger>, left: &Value, right: &Value) -> Out<Value> {
    let markup = left.is_markup() || right.is_markup();
    let (one, two) = (
        left.as_str().unwrap_or_default(),
        right.as_str().unwrap_or_default(),
    );
    if !markup {
        ledger.check_text(one.len() + two.len())?;
        return ledger.text([one, two].concat());
    }
    let mut out = ledger.draft();
    for value in [left, right] {
        let text = value.as_str().unwrap_or_default();
        match value.is_markup() {
            true => out.push(text)?,
            false => write_escaped(text, &mut out)?,
        }
    }
    ledger.text_like(out.text, true)
}

fn joined(ledger: &Rc<Ledger>, one: &Seq, two: &Seq) -> Out<Vec<Value>> {
    let length = one.items.len() + two.items.len();
    let _room = ledger.enter(length * ITEM)?;
    ledger.work(length * ITEM)?;
    Ok(one.items.iter().chain(&two.items).cloned().collect())
}

/// `'ab' * 3`, `[1] * 2`, in either order.
fn repeat(ledger: &Rc<Ledger>, left: &Value, right: &Value) -> Out<Option<Value>> {
    let (what, times) = match (left, right.as_int(), left.as_int(), right) {
        (Value::Str(_) | Value::List(_) | Value::Tuple(_), Some(times), _, _) => (left, times),
        (_, _, Some(times), Value::Str(_) | Value::List(_) | Value::Tuple(_)) => (right, times),
        _ => return Ok(None),
    };
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    if let Value::Str(text) = what {
        ledger.check_text(text.len().saturating_mul(times))?;
        let repeated = text.repeat(times);
        return ledger.text_like(repeated, text.markup).map(Some);
    }
    let (Value::List(seq) | Value::Tuple(seq)) = what else {
        return Ok(None);
    };
    let bytes = seq.items.len().saturating_mul(times).saturating_mul(ITEM);
    let _room = ledger.enter(bytes)?;
    ledger.work(bytes)?;
    let length = seq.items.len().saturating_mul(times);
    let items: Vec<Value> = seq.items.iter().cycle().take(length).cloned().collect();
    match what {
        Value::Tuple(_) => ledger.tuple(items).map(Some),
        _ => ledger.list(items).map(Some),
    }
}

fn too_large() -> Fault {
    Fault::too_much("a number is too large")
}

fn int(operator: Operator, one: i128, two: i128) -> Out<Value> {
    let divides = matches!(operator, Operator::Div | Operator::FloorDiv | Operator::Mod);
    if divides && two == 0 {
        return Err(Fault::failed(match operator {
            Operator::Div => "division by zero",
            _ => "integer division or modulo by zero",
        }));
    }
    let result = match operator {
        Operator::Add => one.checked_add(two),
        Operator::Sub => one.checked_sub(two),
        Operator::Mul => one.checked_mul(two),
        Operator::Div => return Ok(Value::Float(one as f64 / two as f64)),
        Operator::FloorDiv => one.checked_div_euclid(two).map(|quotient| {
            // Euclid's quotient is the floor's but for a negative divisor.
            let exact = one.wrapping_rem(two) == 0;
            match two < 0 && !exact {
                true => quotient - 1,
                false => quotient,
            }
        }),
        Operator::Mod => {
            one.checked_rem(two)
                .map(|rest| match rest != 0 && (rest < 0) != (two < 0) {
                    true => rest + two,
                    false => rest,
                })
        }
        Operator::Pow if two < 0 => return real(operator, one as f64, two as f64),
        Operator::Pow => u32::try_from(two).ok().and_then(|two| one.checked_pow(two)),
    };
    result.map(Value::Int).ok_or_else(too_large)
}

fn real(operator: Operator, one: f64, two: f64) -> Out<Value> {
    let divides = matches!(operator, Operator::Div | Operator::FloorDiv | Operator::Mod);
    if divides && two == 0.0 {
        return Err(Fault::failed(match operator {
            Operator::Mod => "float modulo",
            Operator::FloorDiv => "float floor division by zero",
            _ => "float division by zero",
        }));
    }
    let modulo = || {
        let rest = one % two;
        match rest != 0.0 && (rest < 0.0) != (two < 0.0) {
            true => rest + two,
            false => rest,
        }
    };
    Ok(Value::Float(match operator {
        Operator::Add => one + two,
        Operator::Sub => one - two,
        Operator::Mul => one * two,
        Operator::Div => one / two,
        Operator::FloorDiv => ((one - modulo()) / two).round(),
        Operator::Mod => modulo(),
        Operator::Pow => one.powf(two),
    }))
}

/// `-value`, or `+value`.
pub(super) fn sign(value: &Value, negative: bool) -> Out<Value> {
    match (value, value.as_int()) {
        (Value::Undefined(why), _) => Err(Fault::failed(&**why)),
        (_, Some(number)) if negative => number.checked_neg().map(Value::Int).ok_or_else(too_large),
        (_, Some(number)) => Ok(Value::Int(number)),
        (Value::Float(number), _) if negative => Ok(Value::Float(-number)),
        (Value::Float(number), _) => Ok(Value::Float(*number)),
        _ => Err(Fault::failed(format!(
            "bad operand type for unary {}: '{}'",
            if negative { '-' } else { '+' },
            value.type_name()
        ))),
    }
}

/// `a ~ b ~ c`.
pub(super) fn concat(ledger: &Rc<Ledger>, pieces: &[Value]) -> Out<Value> {
    let mut out = ledger.draft();
    for piece in pieces {
        write_str(piece, &mut out)?;
    }
    ledger.text(out.text)
}

/// The whole number that a float is.
pub(super) fn whole(number: f64) -> Option<i128> {
    (number.fract() == 0.0 && number.abs() < 1e30).then_some(number as i128)
}

/// Python's `==`.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Str(one), Value::Str(two)) => one.as_str() == two.as_str(),
        (Value::List(one), Value::List(two)) | (Value::Tuple(one), Value::Tuple(two)) => {
            let pairs = || one.items.iter().zip(&two.items);
            one.items.len() == two.items.len() && pairs().all(|(one, two)| equal(one, two))
        }
        (Value::Dict(one), Value::Dict(two)) => {
            let same = |(key, value): (_, &Value)| {
                two.map.get(key).is_some_and(|other| equal(value, other))
            };
            one.map.len() == two.map.len() && one.map.iter().all(same)
        }
        (Value::Object(one), Value::Object(two)) => match (&**one, &**two) {
            (Object::Range(one), Object::Range(two)) => one == two,
            _ => Rc::ptr_eq(one, two),
        },
        _ => match (left.as_int(), right.as_int()) {
            (Some(one), Some(two)) => one == two,
            _ => match (left.as_float(), right.as_float()) {
                (Some(one), Some(two)) => one == two,
                _ => false,
            },
        },
    }
}

/// Python's order, where there is one.
pub(super) fn order(left: &Value, right: &Value, sign: &str) -> Out<Ordering> {
    match (left, right) {
        (Value::Str(one), Value::Str(two)) => Ok(one.as_str().cmp(two.as_str())),
        (Value::List(one), Value::List(two)) | (Value::Tuple(one), Value::Tuple(two)) => {
            for (one, two) in one.items.iter().zip(&two.items) {
                if !equal(one, two) {
                    return order(one, two, sign);
                }
            }
            Ok(one.items.len().cmp(&two.items.len()))
        }
        (Value::Undefined(why), _) | (_, Value::Undefined(why)) => Err(Fault::failed(&**why)),
        _ => {
            if let (Some(one), Some(two)) = (left.as_int(), right.as_int()) {
                return Ok(one.cmp(&two));
            }
            match (left.as_float(), right.as_float()) {
                // NaN is neither less nor more than anything; nothing here makes one.
                (Some(one), Some(two)) => Ok(one.partial_cmp(&two).unwrap_or(Ordering::Greater)),
                _ => Err(Fault::failed(format!(
                    "'{sign}' not supported between instances of '{}' and '{}'",
                    left.type_name(),
                    right.type_name()
                ))),
            }
        }
    }
}

/// `left comparison right`.
pub(super) fn compare(
    ledger: &Rc<Ledger>,
    comparison: Comparison,
    left: &Value,
    right: &Value,
) -> Out<bool> {
    Ok(match comparison {
        Comparison::Eq => {
            work_of_equal(ledger, left)?;
            equal(left, right)
        }
        Comparison::Ne => {
            work_of_equal(ledger, left)?;
            !equal(left, right)
        }
        Comparison::Lt => order(left, right, "<")?.is_lt(),
        Comparison::Le => order(left, right, "<=")?.is_le(),
        Comparison::Gt => order(left, right, ">")?.is_gt(),
        Comparison::Ge => order(left, right, ">=")?.is_ge(),
        Comparison::In => contains(ledger, right, left)?,
        Comparison::NotIn => !contains(ledger, right, left)?,
    })
}

fn work_of_equal(ledger: &Ledger, value: &Value) -> Out<()> {
    ledger.work(match value {
        Value::Str(text) => text.len(),
        Value::List(seq) | Value::Tuple(seq) => seq.items.len() * ITEM,
        Value::Dict(dict) => dict.map.len() * ITEM,
        _ => 0,
    })
}

/// `item in container`.
pub(super) fn contains(ledger: &Rc<Ledger>, container: &Value, item: &Value) -> Out<bool> {
    match container {
        Value::Str(text) => {
            let Some(part) = item.as_str() else {
                if let Value::Undefined(why) = item {
                    return Err(Fault::failed(&**why));
                }
                return Err(Fault::failed(format!(
                    "'in <string>' requires string as left operand, not {}",
                    item.type_name()
                )));
            };
            ledger.work(text.len())?;
            Ok(memchr::memmem::find(text.as_bytes(), part.as_bytes()).is_some())
        }
        Value::Dict(dict) => {
            let key = super::value::Key::new(item.clone())?;
            Ok(dict.map.contains_key(&key))
        }
        Value::Undefined(_) | Value::List(_) | Value::Tuple(_) | Value::Object(_) => {
            let mut items = walk::items(container)?;
            while let Some(other) = items.next(ledger)? {
                work_of_equal(ledger, &other)?;
                if equal(&other, item) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            Err(Fault::failed(format!(
                "argument of type '{}' is not iterable",
                container.type_name()
            )))
        }
    }
}

/// `str(value)` of two values next to each other, for messages.
pub(super) fn str_of(ledger: &Rc<Ledger>, value: &Value) -> Out<String> {
    with_str(ledger, value, |text| Ok(text.to_owned()))
}
