//! Filters on texts.

use std::rc::Rc;

use crate::jinja::arguments::{Called, count, flag, int_of, required};
use crate::jinja::fault::{Fault, Out};
use crate::jinja::format;
use crate::jinja::ledger::Ledger;
use crate::jinja::methods;
use crate::jinja::text::{to_str, write_escaped};
use crate::jinja::value::{Text, Value};

pub(super) fn apply(ledger: &Rc<Ledger>, name: &str, value: &Value, called: Called) -> Out<Value> {
    if !KNOWN.contains(&name) {
        return Err(Fault::failed(format!("No filter named '{name}'.")));
    }
    // Of the filters on texts these two do not make one of their value first.
    if matches!(name, "indent" | "truncate") && value.as_str().is_none() {
        return Err(Fault::failed(format!(
            "the filter '{name}' takes a text, not '{}'",
            value.type_name()
        )));
    }
    let text = to_str(ledger, value)?;
    let Value::Str(text) = &text else {
        return Ok(text);
    };
    ledger.work(text.len())?;
    match name {
        "trim" => {
            let [chars] = called.bind(name, ["chars"])?;
            let trimmed = methods::stripped(text, "strip", chars.as_ref())?;
            ledger.text_like(trimmed.to_owned(), text.markup)
        }
        "replace" => replace(ledger, text, called),
        "format" => format(ledger, text, called),
        "indent" => indent(ledger, text, called),
        "center" => {
            let [width] = called.bind(name, ["width"])?;
            let width = width.unwrap_or(Value::Int(80));
            let receiver = Value::Str(Rc::clone(text));
            methods::call(ledger, &receiver, name, Called::with(vec![width]))
        }
        "truncate" => truncate(ledger, text, called),
        _ => {
            called.bind(name, [])?;
            plain(ledger, name, text)
        }
    }
}

const KNOWN: [&str; 18] = [
    "trim",
    "replace",
    "format",
    "indent",
    "center",
    "truncate",
    "string",
    "upper",
    "lower",
    "title",
    "capitalize",
    "safe",
    "e",
    "escape",
    "forceescape",
    "wordcount",
    "urlencode",
    "striptags",
];

/// Filters without arguments.
fn plain(ledger: &Rc<Ledger>, name: &str, text: &Rc<Text>) -> Out<Value> {
    let made = match name {
        "string" => return Ok(Value::Str(Rc::clone(text))),
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        "capitalize" => methods::capitalized(text),
        "title" => title(text),
        "safe" => return ledger.text_like(text.to_string(), true),
        "e" | "escape" if text.markup => return Ok(Value::Str(Rc::clone(text))),
        "e" | "escape" | "forceescape" => {
            let mut out = ledger.draft();
            write_escaped(text, &mut out)?;
            return ledger.text_like(out.text, true);
        }
        "wordcount" => {
            let word = |c: char| c.is_alphanumeric() || c == '_';
            let words = text.split(|c| !word(c)).filter(|it| !it.is_empty());
            return Ok(Value::Int(words.count() as i128));
        }
        "striptags" => stripped_of_tags(text),
        _ => url_encoded(text),
    };
    ledger.text_like(made, text.markup)
}

/// Jinja2's `title`: a word begins after a blank, a hyphen or an opening bracket.
fn title(text: &str) -> String {
    let begins = |c: char| methods::is_space(c) || "-({[<".contains(c);
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(begins) {
        out.push_str(&match word.chars().next() {
            Some(first) => {
                let upper: String = first.to_uppercase().collect();
                upper + &word[first.len_utf8()..].to_lowercase()
            }
            None => String::new(),
        });
    }
    out
}

/// Without comments and tags, each run of blanks one blank.
fn stripped_of_tags(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let end = match rest[at..].strip_prefix("<!--") {
            Some(_) => rest[at..].find("-->").map(|end| end + 3),
            None => rest[at..].find('>').map(|end| end + 1),
        };
        let Some(end) = end else {
            break;
        };
        out.push_str(&rest[..at]);
        rest = &rest[at + end..];
    }
    out.push_str(rest);
    let words: Vec<&str> = out
        .split(methods::is_space)
        .filter(|it| !it.is_empty())
        .collect();
    words.join(" ")
}

fn url_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn replace(ledger: &Rc<Ledger>, text: &Rc<Text>, called: Called) -> Out<Value> {
    let [old, new, most] = called.bind("replace", ["old", "new", "count"])?;
    let old = to_str(ledger, &required(old, "replace", "old")?)?;
    let new = to_str(ledger, &required(new, "replace", "new")?)?;
    let mut arguments = vec![old, new];
    arguments.extend(most.filter(|it| !matches!(it, Value::None)));
    let receiver = Value::Str(Rc::clone(text));
    methods::call(ledger, &receiver, "replace", Called::with(arguments))
}

fn format(ledger: &Rc<Ledger>, text: &Rc<Text>, called: Called) -> Out<Value> {
    if called.named.is_empty() {
        let tuple = ledger.tuple(called.positional)?;
        return format::percent(ledger, text, &[tuple], None);
    }
    if !called.positional.is_empty() {
        let message = "can't handle positional and keyword arguments at the same time";
        return Err(Fault::failed(message));
    }
    let mut map = indexmap::IndexMap::new();
    for (name, value) in called.named {
        let key = crate::jinja::value::Key::new(Value::literal(&name))?;
        map.insert(key, value);
    }
    let mapping = ledger.dict(map)?;
    format::percent(ledger, text, std::slice::from_ref(&mapping), Some(&mapping))
}

fn indent(ledger: &Rc<Ledger>, text: &Rc<Text>, called: Called) -> Out<Value> {
    let [width, first, blank] = called.bind("indent", ["width", "first", "blank"])?;
    let mut indentation = ledger.draft();
    match &width {
        None => indentation.fill(' ', 4)?,
        Some(Value::Str(text)) => indentation.push(text)?,
        Some(width) => indentation.fill(' ', count(int_of(Some(width), "indent")?.unwrap_or(0)))?,
    }
    let (first, blank) = (flag(first.as_ref(), false), flag(blank.as_ref(), false));
    // A line break more, so that one at the end counts as a line.
    let whole = format!("{}\n", text.as_str());
    let mut out = ledger.draft();
    for (n, line) in methods::lines(&whole, false).into_iter().enumerate() {
        if n > 0 {
            out.push("\n")?;
        }
        let indented = match n {
            0 => first,
            _ => blank || !line.is_empty(),
        };
        if indented {
            out.push(&indentation.text)?;
        }
        out.push(line)?;
    }
    ledger.text_like(out.text, text.markup)
}

fn truncate(ledger: &Rc<Ledger>, text: &Rc<Text>, called: Called) -> Out<Value> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, kill, end, leeway] = called.bind("truncate", names)?;
    let length = count(int_of(length.as_ref(), "truncate")?.unwrap_or(255));
    let leeway = count(int_of(leeway.as_ref(), "truncate")?.unwrap_or(5));
    let end = match &end {
        Some(end) => end.as_str().unwrap_or_default(),
        None => "...",
    };
    if text.length() <= length.saturating_add(leeway) {
        return Ok(Value::Str(Rc::clone(text)));
    }
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return Err(Fault::failed(
            "truncate(): the length is less than that of its end",
        ));
    };
    let mut cut: String = text.chars().take(kept).collect();
    if !flag(kill.as_ref(), false)
        && let Some((words, _)) = cut.rsplit_once(' ')
    {
        cut.truncate(words.len());
    }
    cut.push_str(end);
    ledger.text_like(cut, text.markup)
}
