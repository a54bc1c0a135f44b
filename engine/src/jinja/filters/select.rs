//! Filters that take something of each item, or only some of the items.

use std::rc::Rc;

use crate::jinja::arguments::Called;
use crate::jinja::checks;
use crate::jinja::fault::{Fault, Out};
use crate::jinja::ledger::Ledger;
use crate::jinja::lookup;
use crate::jinja::value::{ITEM, Value};
use crate::jinja::walk;

/// A way into a value, such as `function.name`; where it is absent, the value itself.
pub(super) struct Path {
    parts: Vec<Part>,
    otherwise: Option<Value>,
}

enum Part {
    Index(i128),
    Name(Value),
}

impl Path {
    pub(super) fn new(attribute: Option<&Value>, otherwise: Option<Value>) -> Out<Self> {
        let parts = match attribute {
            None | Some(Value::None) => Vec::new(),
            Some(Value::Str(text)) => {
                let part = |it: &str| match it.parse() {
                    Ok(index) if it.bytes().all(|b| b.is_ascii_digit()) => Part::Index(index),
                    _ => Part::Name(Value::literal(&it.into())),
                };
                text.split('.').map(part).collect()
            }
            Some(other) => match other.as_int() {
                Some(index) => vec![Part::Index(index)],
                None => return Err(Fault::failed("an attribute must be a text or a number")),
            },
        };
        Ok(Self { parts, otherwise })
    }

    pub(super) fn get(&self, ledger: &Rc<Ledger>, value: Value) -> Out<Value> {
        let mut value = value;
        for part in &self.parts {
            value = match part {
                Part::Index(index) => lookup::item(ledger, &value, &Value::Int(*index))?,
                Part::Name(name) => lookup::item(ledger, &value, name)?,
            };
            if let (Value::Undefined(_), Some(otherwise)) = (&value, &self.otherwise) {
                value = otherwise.clone();
            }
        }
        Ok(value)
    }
}

pub(super) fn apply(ledger: &Rc<Ledger>, name: &str, value: &Value, called: Called) -> Out<Value> {
    // Jinja2 asks whether there is anything before it looks at the arguments.
    let nothing = !value.truth();
    let mut made = Vec::new();
    if !nothing {
        let mut items = walk::items(value)?;
        let mut room = ledger.enter(0)?;
        let mut reserved = 0;
        let step = Step::new(name, called)?;
        while let Some(item) = items.next(ledger)? {
            let Some(item) = step.take(ledger, item)? else {
                continue;
            };
            if made.len() == reserved {
                reserved = (reserved * 2).max(16);
                room = ledger.enter(reserved * ITEM)?;
            }
            made.push(item);
        }
        drop(room);
    }
    ledger.generator(made)
}

/// What is done with each item.
enum Step {
    Attribute(Path),
    Filter(String, Called),
    Keep {
        path: Path,
        /// Without a test, what is true is kept.
        test: Option<String>,
        called: Called,
        when: bool,
    },
}

impl Step {
    fn new(name: &str, mut called: Called) -> Out<Self> {
        let named = |called: &mut Called, name: &str| {
            let at = called.named.iter().position(|(it, _)| **it == *name)?;
            Some(called.named.remove(at).1)
        };
        if name == "map" {
            if called.positional.is_empty() {
                let attribute = named(&mut called, "attribute");
                let otherwise = named(&mut called, "default");
                if attribute.is_none() || !called.named.is_empty() {
                    return Err(Fault::failed("map requires a filter argument"));
                }
                return Ok(Self::Attribute(Path::new(attribute.as_ref(), otherwise)?));
            }
            let filter = called.positional.remove(0);
            let filter = filter.as_str().unwrap_or_default().to_owned();
            return Ok(Self::Filter(filter, called));
        }
        let by_attribute = name.ends_with("attr");
        let path = match by_attribute {
            false => Path::new(None, None)?,
            true if called.positional.is_empty() => {
                return Err(Fault::failed("Missing parameter for attribute name"));
            }
            true => Path::new(Some(&called.positional.remove(0)), None)?,
        };
        let test = match called.positional.is_empty() {
            true => None,
            false => {
                let test = called.positional.remove(0);
                Some(test.as_str().unwrap_or_default().to_owned())
            }
        };
        Ok(Self::Keep {
            path,
            test,
            called,
            when: name.starts_with("select"),
        })
    }

    fn take(&self, ledger: &Rc<Ledger>, item: Value) -> Out<Option<Value>> {
        match self {
            Self::Attribute(path) => path.get(ledger, item).map(Some),
            Self::Filter(filter, called) => {
                super::apply(ledger, filter, item, called.clone()).map(Some)
            }
            Self::Keep {
                path,
                test,
                called,
                when,
            } => {
                let value = path.get(ledger, item.clone())?;
                let holds = match test {
                    None => value.truth(),
                    Some(test) => checks::holds(ledger, test, &value, called.clone())?,
                };
                Ok((holds == *when).then_some(item))
            }
        }
    }
}
