//! Filters that put items in order.

use std::cmp::Ordering;
use std::rc::Rc;

use super::select::Path;
use crate::jinja::arguments::{Called, flag, required};
use crate::jinja::fault::{Fault, Out};
use crate::jinja::ledger::Ledger;
use crate::jinja::ops;
use crate::jinja::value::{Key, Value};
use crate::jinja::walk;

pub(super) fn apply(ledger: &Rc<Ledger>, name: &str, value: &Value, called: Called) -> Out<Value> {
    match name {
        "dictsort" => dictsort(ledger, value, called),
        "groupby" => groupby(ledger, value, called),
        "sort" => sort(ledger, value, called),
        "unique" => unique(ledger, value, called),
        _ => extreme(ledger, name, value, called),
    }
}

/// Texts are compared in lower case, unless their case counts.
fn folded(ledger: &Rc<Ledger>, value: Value, case: bool) -> Out<Value> {
    match &value {
        Value::Str(text) if !case => ledger.text(text.to_lowercase()),
        _ => Ok(value),
    }
}

/// Puts items with their keys in order; the first comparison that fails is the error.
fn sort_by_keys(ledger: &Ledger, pairs: &mut [(Value, Value)], reverse: bool) -> Out<()> {
    let mut failure = None;
    pairs.sort_by(|(one, _), (two, _)| {
        // Python asks first whether two keys are equal: those that are absent are.
        let ordered = ledger.step().and_then(|()| match ops::equal(one, two) {
            true => Ok(Ordering::Equal),
            false => ops::order(one, two, "<"),
        });
        match ordered {
            Ok(ordering) if reverse => ordering.reverse(),
            Ok(ordering) => ordering,
            Err(error) => {
                failure.get_or_insert(error);
                Ordering::Equal
            }
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Sorts by several keys: those of `attribute="a,b"`, the last first, as each order is kept by the next.
fn sort(ledger: &Rc<Ledger>, value: &Value, called: Called) -> Out<Value> {
    let names = ["reverse", "case_sensitive", "attribute"];
    let [reverse, case, attribute] = called.bind("sort", names)?;
    let (case, reverse) = (flag(case.as_ref(), false), flag(reverse.as_ref(), false));
    let (mut items, _room) = walk::collect(ledger, value)?;
    let attributes: Vec<Option<Value>> = match attribute.as_ref().and_then(Value::as_str) {
        Some(several) => {
            let one = |it: &str| ledger.str(it).map(Some);
            several.split(',').map(one).collect::<Out<_>>()?
        }
        None => vec![attribute],
    };
    for attribute in attributes.iter().rev() {
        let path = Path::new(attribute.as_ref(), None)?;
        let mut pairs = keyed(ledger, &path, items, case)?;
        sort_by_keys(ledger, &mut pairs, reverse)?;
        items = pairs.into_iter().map(|(_, item)| item).collect();
    }
    ledger.list(items)
}

fn keyed(
    ledger: &Rc<Ledger>,
    path: &Path,
    items: Vec<Value>,
    case: bool,
) -> Out<Vec<(Value, Value)>> {
    let key = |item: Value| {
        let key = path.get(ledger, item.clone())?;
        Ok((folded(ledger, key, case)?, item))
    };
    items.into_iter().map(key).collect()
}

fn dictsort(ledger: &Rc<Ledger>, value: &Value, called: Called) -> Out<Value> {
    let names = ["case_sensitive", "by", "reverse"];
    let [case, by, reverse] = called.bind("dictsort", names)?;
    let Value::Dict(dict) = value else {
        let kind = value.type_name();
        return Err(Fault::failed(format!(
            "'{kind} object' has no attribute 'items'"
        )));
    };
    let by_value = match by.as_ref().and_then(Value::as_str) {
        None | Some("key") => false,
        Some("value") => true,
        Some(_) => {
            return Err(Fault::failed(
                "You can only sort by either \"key\" or \"value\"",
            ));
        }
    };
    let mut pairs = Vec::new();
    for (key, value) in &dict.map {
        let sorted_by = if by_value { value } else { key.value() };
        let sorted_by = folded(ledger, sorted_by.clone(), flag(case.as_ref(), false))?;
        let pair = ledger.tuple(vec![key.value().clone(), value.clone()])?;
        pairs.push((sorted_by, pair));
    }
    sort_by_keys(ledger, &mut pairs, flag(reverse.as_ref(), false))?;
    ledger.list(pairs.into_iter().map(|(_, pair)| pair).collect())
}

fn groupby(ledger: &Rc<Ledger>, value: &Value, called: Called) -> Out<Value> {
    let names = ["attribute", "default", "case_sensitive"];
    let [attribute, otherwise, case] = called.bind("groupby", names)?;
    let attribute = required(attribute, "groupby", "attribute")?;
    let path = Path::new(Some(&attribute), otherwise)?;
    let (items, _room) = walk::collect(ledger, value)?;
    let mut pairs = keyed(ledger, &path, items, flag(case.as_ref(), false))?;
    sort_by_keys(ledger, &mut pairs, false)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in pairs {
        match groups.last_mut().filter(|(last, _)| ops::equal(last, &key)) {
            Some((_, group)) => group.push(item),
            None => groups.push((key, vec![item])),
        }
    }
    let mut made = Vec::new();
    for (_, group) in groups {
        // The key as it stands in the first item, not folded.
        let key = path.get(ledger, group[0].clone())?;
        let group = ledger.list(group)?;
        made.push(ledger.tuple(vec![key, group])?);
    }
    ledger.list(made)
}

fn unique(ledger: &Rc<Ledger>, value: &Value, called: Called) -> Out<Value> {
    let [case, attribute] = called.bind("unique", ["case_sensitive", "attribute"])?;
    let path = Path::new(attribute.as_ref(), None)?;
    let (items, _room) = walk::collect(ledger, value)?;
    let mut seen = indexmap::IndexSet::new();
    let mut made = Vec::new();
    for (key, item) in keyed(ledger, &path, items, flag(case.as_ref(), false))? {
        if seen.insert(Key::new(key)?) {
            made.push(item);
        }
    }
    ledger.generator(made)
}

fn extreme(ledger: &Rc<Ledger>, name: &str, value: &Value, called: Called) -> Out<Value> {
    let [case, attribute] = called.bind(name, ["case_sensitive", "attribute"])?;
    let path = Path::new(attribute.as_ref(), None)?;
    let (items, _room) = walk::collect(ledger, value)?;
    let mut best: Option<(Value, Value)> = None;
    for (key, item) in keyed(ledger, &path, items, flag(case.as_ref(), false))? {
        let better = match &best {
            None => true,
            Some((other, _)) if name == "max" => ops::order(&key, other, ">")?.is_gt(),
            Some((other, _)) => ops::order(&key, other, "<")?.is_lt(),
        };
        if better {
            best = Some((key, item));
        }
    }
    let none = || Value::undefined("No aggregated item, sequence was empty.");
    Ok(best.map_or_else(none, |(_, item)| item))
}
