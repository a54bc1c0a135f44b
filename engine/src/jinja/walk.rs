//! Walking values, taking them apart, slices.

use std::rc::Rc;

use super::fault::{Fault, Out};
use super::ledger::{Charge, Ledger};
use super::value::{Dict, ITEM, Object, Range, Seq, Text, Value, ViewKind};

/// The items of a value, one after the other, as they are asked for.
#[derive(Debug)]
pub(super) enum Items {
    Nothing,
    Seq(Rc<Seq>, usize),
    /// Where the next character begins.
    Chars(Rc<Text>, usize),
    Dict(Rc<Dict>, ViewKind, usize),
    Range(Range, usize),
    Generator(Rc<Object>),
}

/// Python's `iter(value)`.
pub(super) fn items(value: &Value) -> Out<Items> {
    Ok(match value {
        Value::Undefined(_) => Items::Nothing,
        Value::List(seq) | Value::Tuple(seq) => Items::Seq(Rc::clone(seq), 0),
        Value::Str(text) => Items::Chars(Rc::clone(text), 0),
        Value::Dict(dict) => Items::Dict(Rc::clone(dict), ViewKind::Keys, 0),
        Value::Object(object) => match &**object {
            Object::Generator { .. } => Items::Generator(Rc::clone(object)),
            Object::View(dict, kind) => Items::Dict(Rc::clone(dict), *kind, 0),
            Object::Range(range) => Items::Range(*range, 0),
            _ => return Err(not_iterable(value)),
        },
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            return Err(not_iterable(value));
        }
    })
}

fn not_iterable(value: &Value) -> Fault {
    Fault::failed(format!("'{}' object is not iterable", value.type_name()))
}

impl Items {
    pub(super) fn next(&mut self, ledger: &Rc<Ledger>) -> Out<Option<Value>> {
        ledger.step()?;
        Ok(match self {
            Self::Nothing => None,
            Self::Seq(seq, at) => {
                *at += 1;
                seq.items.get(*at - 1).cloned()
            }
            Self::Chars(text, at) => match text[*at..].chars().next() {
                Some(c) => {
                    *at += c.len_utf8();
                    let c = c.encode_utf8(&mut [0; 4]).to_owned();
                    Some(ledger.text_like(c, text.markup)?)
                }
                None => None,
            },
            Self::Dict(dict, kind, at) => {
                *at += 1;
                match (dict.map.get_index(*at - 1), kind) {
                    (None, _) => None,
                    (Some((key, _)), ViewKind::Keys) => Some(key.value().clone()),
                    (Some((_, value)), ViewKind::Values) => Some(value.clone()),
                    (Some((key, value)), ViewKind::Items) => {
                        Some(ledger.tuple(vec![key.value().clone(), value.clone()])?)
                    }
                }
            }
            Self::Range(range, at) => {
                *at += 1;
                (*at <= range.length).then(|| Value::Int(range.at(*at - 1)))
            }
            Self::Generator(object) => match &**object {
                Object::Generator { items, .. } => items.borrow_mut().next(),
                _ => None,
            },
        })
    }
}

/// All items, entered in the ledger for as long as the second value lives.
pub(super) fn collect(ledger: &Rc<Ledger>, value: &Value) -> Out<(Vec<Value>, Charge)> {
    let mut walker = items(value)?;
    let mut charge = ledger.enter(0)?;
    let mut made = Vec::new();
    let mut room = 0;
    while let Some(item) = walker.next(ledger)? {
        if made.len() == room {
            room = (room * 2).max(16);
            charge = ledger.enter(room * ITEM)?;
        }
        made.push(item);
    }
    Ok((made, charge))
}

/// Python's `len(value)`.
pub(super) fn length(ledger: &Ledger, value: &Value) -> Out<usize> {
    Ok(match value {
        Value::Undefined(_) => 0,
        Value::Str(text) => {
            if !text.ascii {
                ledger.work(text.len())?;
            }
            text.length()
        }
        Value::List(seq) | Value::Tuple(seq) => seq.items.len(),
        Value::Dict(dict) => dict.map.len(),
        Value::Object(object) => match &**object {
            Object::View(dict, _) => dict.map.len(),
            Object::Range(range) => range.length,
            Object::Loop(it) => it.state.borrow().items.len(),
            _ => return Err(no_length(value)),
        },
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            return Err(no_length(value));
        }
    })
}

fn no_length(value: &Value) -> Fault {
    Fault::failed(format!(
        "object of type '{}' has no len()",
        value.type_name()
    ))
}

/// `value[index]` for a text, a list, a tuple or a range. `None`: there is no such item.
pub(super) fn at(ledger: &Rc<Ledger>, value: &Value, index: i128) -> Out<Option<Value>> {
    let length = length(ledger, value)?;
    let from_end = index + length as i128;
    let index = if index < 0 { from_end } else { index };
    let Some(index) = usize::try_from(index).ok().filter(|it| *it < length) else {
        return Ok(None);
    };
    Ok(match value {
        Value::Str(text) => {
            let found = match text.ascii {
                true => Some(char::from(text.as_bytes()[index])),
                false => text.chars().nth(index),
            };
            let c = found.map(String::from).unwrap_or_default();
            Some(ledger.text_like(c, text.markup)?)
        }
        Value::List(seq) | Value::Tuple(seq) => seq.items.get(index).cloned(),
        Value::Object(object) => match &**object {
            Object::Range(range) => Some(Value::Int(range.at(index))),
            _ => None,
        },
        _ => None,
    })
}

/// The bounds of a slice over so many items: where it begins, its step, how many it takes.
pub(super) fn bounds(parts: [Option<i128>; 3], length: usize) -> Out<Range> {
    let [start, stop, step] = parts;
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Fault::failed("slice step cannot be zero"));
    }
    let length = length as i128;
    let (least, most) = match step > 0 {
        true => (0, length),
        false => (-1, length - 1),
    };
    let bound = |given: Option<i128>, otherwise: i128| match given {
        None => otherwise,
        Some(at) if at < 0 => at.saturating_add(length).max(least),
        Some(at) => at.min(most),
    };
    let (first, last) = match step > 0 {
        true => (least, most),
        false => (most, least),
    };
    let (start, stop) = (bound(start, first), bound(stop, last));
    let distance = if step > 0 { stop - start } else { start - stop };
    let count = match distance > 0 {
        // Larger steps than there are items take the first alone.
        true => (distance - 1) / step.saturating_abs() + 1,
        false => 0,
    };
    Ok(Range {
        start,
        stop,
        step,
        length: usize::try_from(count).unwrap_or(0),
    })
}

/// `value[start:stop:step]`. `None`: it has no slices.
pub(super) fn slice(
    ledger: &Rc<Ledger>,
    value: &Value,
    parts: [Option<i128>; 3],
) -> Out<Option<Value>> {
    match value {
        Value::Str(text) => {
            let range = bounds(parts, length(ledger, value)?)?;
            ledger.work(text.len())?;
            ledger.text_like(slice_text(text, range), text.markup)
        }
        Value::List(seq) | Value::Tuple(seq) => {
            let range = bounds(parts, seq.items.len())?;
            let _room = ledger.enter(range.length * ITEM)?;
            ledger.work(range.length * ITEM)?;
            let item = |n| {
                usize::try_from(range.at(n))
                    .ok()
                    .and_then(|n| seq.items.get(n))
            };
            let taken: Vec<Value> = (0..range.length).filter_map(item).cloned().collect();
            match value {
                Value::Tuple(_) => ledger.tuple(taken),
                _ => ledger.list(taken),
            }
        }
        Value::Object(object) => match &**object {
            Object::Range(of) => {
                let range = bounds(parts, of.length)?;
                let at = |index: i128| of.start.saturating_add(of.step.saturating_mul(index));
                Ok(Value::object(Object::Range(Range {
                    start: at(range.start),
                    stop: at(range.stop),
                    step: of.step.saturating_mul(range.step),
                    length: range.length,
                })))
            }
            _ => return Ok(None),
        },
        _ => return Ok(None),
    }
    .map(Some)
}

fn slice_text(text: &Text, range: Range) -> String {
    if range.step == 1 {
        let start = usize::try_from(range.start).unwrap_or(0);
        if text.ascii {
            return text[start..start + range.length].to_owned();
        }
        return text.chars().skip(start).take(range.length).collect();
    }
    if text.ascii {
        let byte = |n| text.as_bytes()[usize::try_from(range.at(n)).unwrap_or(0)];
        return (0..range.length).map(|n| char::from(byte(n))).collect();
    }
    // Forwards from the lowest, then turned round if need be.
    let Some(last) = range.length.checked_sub(1) else {
        return String::new();
    };
    let lowest = range.start.min(range.at(last));
    let skip = usize::try_from(lowest).unwrap_or(0);
    let step = usize::try_from(range.step.unsigned_abs()).unwrap_or(usize::MAX);
    let taken = text.chars().skip(skip).step_by(step).take(range.length);
    match range.step > 0 {
        true => taken.collect(),
        false => {
            let mut taken: Vec<char> = taken.collect();
            taken.reverse();
            taken.into_iter().collect()
        }
    }
}
