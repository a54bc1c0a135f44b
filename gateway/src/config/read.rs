//! From the text of a file to a [`Config`], with everything that is wrong in it.
//!
//! The parser stops at the first value that it cannot read. So what it stops at is noted, taken out or
//! replaced, and the rest is read again, until nothing is left to complain of: then values that can be read and
//! make no sense are found beside those that cannot.

use serde_path_to_error::{Path, Segment};
use toml::{Table, Value};

use super::{Config, Problem, Problems};

/// Fields that cannot be read, of one file: more than anybody mends at once.
const MOST: usize = 100;

/// A text that is no TOML, and from which byte on.
pub(super) struct Unreadable {
    pub message: String,
    pub offset: usize,
}

/// The configuration with what could be read of it, and what is wrong.
///
/// # Errors
/// The text is no TOML at all.
pub(super) fn config(source: &str) -> Result<(Config, Vec<Problem>), Unreadable> {
    let table: Table = toml::from_str(source).map_err(|error| Unreadable {
        message: error.message().to_owned(),
        offset: error.span().map_or(0, |span| span.start),
    })?;
    let mut whole = Value::Table(table);
    let mut problems = Problems::default();
    for _ in 0..MOST {
        let error = match serde_path_to_error::deserialize(whole.clone()) {
            Ok(config) => {
                let config: Config = config;
                problems.extend(unless_known(&problems, config.problems()));
                return Ok((config, problems.into_inner()));
            }
            Err(error) => error,
        };
        let path = parts(error.path());
        let fault = Fault::of(path, error.inner().message());
        problems.add(fault.path.join("."), fault.message.clone());
        if !fault.mend(&mut whole) {
            break;
        }
    }
    Ok((Config::default(), problems.into_inner()))
}

/// What was found beside what could not be read. A value that stands for one that could not is no news.
fn unless_known(known: &Problems, found: Vec<Problem>) -> Vec<Problem> {
    let is_news = |it: &Problem| !known.concern(&it.field);
    found.into_iter().filter(is_news).collect()
}

/// A field that cannot be read.
struct Fault {
    path: Vec<String>,
    message: String,
    /// It is not there, and must be.
    missing: bool,
}

impl Fault {
    fn of(mut path: Vec<String>, message: &str) -> Self {
        let name = message.split('`').nth(1).unwrap_or_default();
        let (unknown, missing) = (
            message.starts_with("unknown field"),
            message.starts_with("missing field"),
        );
        if (unknown || missing) && path.last().is_none_or(|last| last != name) {
            path.push(name.to_owned());
        }
        let message = if missing {
            "is missing".to_owned()
        } else if unknown {
            let known = message.split_once(", ").map_or("", |(_, known)| known);
            format!("is not known: {known}")
        } else {
            format!("cannot be read: {}", plain(message))
        };
        Self {
            path,
            message,
            missing,
        }
    }

    /// Takes it out, or puts something in its place, so that the rest can be read. `false` where that is not possible.
    fn mend(&self, whole: &mut Value) -> bool {
        let Some((last, above)) = self.path.split_last() else {
            return false;
        };
        match at(whole, above) {
            Some(Value::Table(table)) => {
                // Of some kind; where it must be of the other one that there is, that is found next, and taken for this.
                let stand_in = Value::String(format!("http://{last}"));
                let next = match table.remove(last) {
                    None if self.missing => Some(stand_in),
                    Some(value) if value == stand_in => Some(Value::Array(Vec::new())),
                    Some(_) => None,
                    None => return false,
                };
                if let Some(next) = next {
                    table.insert(last.clone(), next);
                }
                true
            }
            // An element of a list: the list goes as a whole, since the places of the others are to stay what they are.
            Some(Value::Array(_)) => match above.split_last() {
                Some((list, above)) => at(whole, above)
                    .and_then(|it| it.as_table_mut()?.remove(list))
                    .is_some(),
                None => false,
            },
            _ => false,
        }
    }
}

fn at<'a>(value: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |here, part| match here {
        Value::Table(table) => table.get_mut(part),
        Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?),
        _ => None,
    })
}

fn parts(path: &Path) -> Vec<String> {
    let parts = path.iter().filter_map(|segment| match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    parts.collect()
}

/// The parser's message in words that are not Rust's.
fn plain(message: &str) -> String {
    let kinds = [
        ("a whole number", &["usize", "u32", "u64", "u8"][..]),
        ("a number", &["f64"]),
    ];
    let mut message = message.to_owned();
    for (words, types) in kinds {
        for name in types {
            message = message.replace(&format!("expected {name}"), &format!("expected {words}"));
        }
    }
    message
}
