//! Filters on lists.

use std::rc::Rc;

use super::select::Path;
use crate::jinja::arguments::{Called, count, int_of, required};
use crate::jinja::fault::{Fault, Out};
use crate::jinja::ledger::Ledger;
use crate::jinja::text::{write_escaped, write_str};
use crate::jinja::value::{Object, Value};
use crate::jinja::walk;

pub(super) fn apply(ledger: &Rc<Ledger>, name: &str, value: Value, called: Called) -> Out<Value> {
    match name {
        "batch" => batch(ledger, &value, called),
        "slice" => slice(ledger, &value, called),
        "join" => join(ledger, &value, called),
        _ => {
            called.bind(name, [])?;
            match name {
                "first" => {
                    let first = walk::items(&value)?.next(ledger)?;
                    let none = || Value::undefined("No first item, sequence was empty.");
                    Ok(first.unwrap_or_else(none))
                }
                "last" => last(ledger, &value),
                "reverse" => reverse(ledger, value),
                _ => {
                    let (items, _room) = walk::collect(ledger, &value)?;
                    ledger.list(items)
                }
            }
        }
    }
}

fn last(ledger: &Rc<Ledger>, value: &Value) -> Out<Value> {
    let none = || Value::undefined("No last item, sequence was empty.");
    let found = match value {
        Value::Str(_) | Value::List(_) | Value::Tuple(_) => walk::at(ledger, value, -1)?,
        _ => {
            let (mut items, _room) = walk::collect(ledger, &reversible(value)?)?;
            items.pop()
        }
    };
    Ok(found.unwrap_or_else(none))
}

/// A generator has no end to begin at.
fn reversible(value: &Value) -> Out<Value> {
    match value {
        Value::Object(object) if matches!(**object, Object::Generator { .. }) => {
            Err(Fault::failed("'generator' object is not reversible"))
        }
        _ => Ok(value.clone()),
    }
}

fn reverse(ledger: &Rc<Ledger>, value: Value) -> Out<Value> {
    if let Value::Str(_) = value {
        let turned = walk::slice(ledger, &value, [None, None, Some(-1)])?;
        return Ok(turned.unwrap_or(value));
    }
    let (mut items, _room) = walk::collect(ledger, &value)?;
    items.reverse();
    // What cannot be walked backwards was made a list first.
    match reversible(&value) {
        Ok(_) => ledger.generator(items),
        Err(_) => ledger.list(items),
    }
}

fn join(ledger: &Rc<Ledger>, value: &Value, called: Called) -> Out<Value> {
    let [between, attribute] = called.bind("join", ["d", "attribute"])?;
    let path = Path::new(attribute.as_ref(), None)?;
    let mut separator = ledger.draft();
    if let Some(between) = &between {
        write_str(between, &mut separator)?;
    }
    // A separator that is safe HTML makes the whole so.
    let markup = between.as_ref().is_some_and(Value::is_markup);
    let mut out = ledger.draft();
    let mut items = walk::items(value)?;
    let mut first = true;
    while let Some(item) = items.next(ledger)? {
        let item = path.get(ledger, item)?;
        if !std::mem::take(&mut first) {
            out.push(&separator.text)?;
        }
        match markup && !item.is_markup() {
            true => {
                let mut text = ledger.draft();
                write_str(&item, &mut text)?;
                write_escaped(&text.text, &mut out)?;
            }
            false => write_str(&item, &mut out)?,
        }
    }
    ledger.text_like(out.text, markup)
}

fn batch(ledger: &Rc<Ledger>, value: &Value, called: Called) -> Out<Value> {
    let [size, fill] = called.bind("batch", ["linecount", "fill_with"])?;
    let size = int_of(Some(&required(size, "batch", "linecount")?), "batch")?;
    let size = count(size.unwrap_or(0)).max(1);
    let (items, _room) = walk::collect(ledger, value)?;
    let mut batches = Vec::new();
    for batch in items.chunks(size) {
        let mut batch = batch.to_vec();
        if let Some(fill) = fill.as_ref().filter(|it| !matches!(it, Value::None)) {
            let _room = ledger.enter(size.saturating_mul(size_of::<Value>()))?;
            batch.resize(size, fill.clone());
        }
        batches.push(ledger.list(batch)?);
    }
    ledger.generator(batches)
}

fn slice(ledger: &Rc<Ledger>, value: &Value, called: Called) -> Out<Value> {
    let [slices, fill] = called.bind("slice", ["slices", "fill_with"])?;
    let slices = int_of(Some(&required(slices, "slice", "slices")?), "slice")?;
    let slices = count(slices.unwrap_or(0)).max(1);
    let (items, _room) = walk::collect(ledger, value)?;
    let _made = ledger.enter(slices.saturating_mul(100))?;
    let (each, more) = (items.len() / slices, items.len() % slices);
    let mut made = Vec::new();
    let mut from = 0;
    for n in 0..slices {
        ledger.step()?;
        let length = each + usize::from(n < more);
        let mut slice = items[from..from + length].to_vec();
        from += length;
        if let Some(fill) = fill.as_ref().filter(|it| !matches!(it, Value::None))
            && n >= more
        {
            slice.push(fill.clone());
        }
        made.push(ledger.list(slice)?);
    }
    ledger.generator(made)
}
