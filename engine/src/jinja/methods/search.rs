//! Finding, counting, replacing and splitting. Positions are characters, as Python's are.

use std::rc::Rc;

use super::{Called, int_of, is_space, keeps, like, required, text_of};
use crate::jinja::fault::{Fault, Out};
use crate::jinja::ledger::Ledger;
use crate::jinja::value::{ITEM, Text, Value};
use crate::jinja::walk;

/// What ends a line.
const ENDS: [char; 10] = [
    '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}',
];

/// A part of a text between two positions, and where it begins in characters.
struct Part<'a> {
    text: &'a str,
    from: usize,
    /// The first position lies behind the text's end: not even an empty text is there.
    beyond: bool,
}

fn part<'a>(text: &'a Text, start: Option<i128>, stop: Option<i128>) -> Out<Part<'a>> {
    if start.is_none() && stop.is_none() {
        return Ok(Part {
            text,
            from: 0,
            beyond: false,
        });
    }
    let length = text.length();
    let range = walk::bounds([start, stop, None], length)?;
    let from = usize::try_from(range.start).unwrap_or(0);
    let byte = |n: usize| match text.ascii {
        true => n,
        false => text.char_indices().nth(n).map_or(text.len(), |(at, _)| at),
    };
    Ok(Part {
        text: &text[byte(from)..byte(from + range.length)],
        from,
        beyond: start.is_some_and(|it| it > length as i128)
            || stop.is_some_and(|it| {
                let stop = if it < 0 { it + length as i128 } else { it };
                stop < from as i128
            }),
    })
}

/// Characters before a byte.
fn characters(text: &str, byte: usize) -> usize {
    text[..byte].chars().count()
}

/// `find` and what is like it.
pub(super) fn call(ledger: &Rc<Ledger>, text: &Rc<Text>, name: &str, called: Called) -> Out<Value> {
    if name == "replace" {
        let [old, new, count] = called.bind(name, ["old", "new", "count"])?;
        let (old, new) = (required(old, name, "old")?, required(new, name, "new")?);
        let most = int_of(count.as_ref(), name)?.filter(|it| *it >= 0);
        let (old, new) = (text_of(&old, name)?, text_of(&new, name)?);
        let made = replaced(ledger, text, old, new, most)?;
        return like(ledger, text, made);
    }
    let [what, start, stop] = called.bind(name, ["sub", "start", "end"])?;
    let what = required(what, name, "sub")?;
    let (start, stop) = (int_of(start.as_ref(), name)?, int_of(stop.as_ref(), name)?);
    let part = part(text, start, stop)?;
    if matches!(name, "startswith" | "endswith") {
        return affix(ledger, &part, name, &what);
    }
    let what = text_of(&what, name)?;
    if part.beyond {
        return found(name, None);
    }
    match name {
        "find" | "index" => {
            let at = memchr::memmem::find(part.text.as_bytes(), what.as_bytes());
            found(name, at.map(|at| part.from + characters(part.text, at)))
        }
        "rfind" | "rindex" => {
            let at = part.text.rfind(what);
            found(name, at.map(|at| part.from + characters(part.text, at)))
        }
        _ => Ok(Value::Int(match what {
            "" => part.text.chars().count() + 1,
            what => part.text.matches(what).count(),
        } as i128)),
    }
}

fn found(name: &str, at: Option<usize>) -> Out<Value> {
    match (name, at) {
        ("count", None) => Ok(Value::Int(0)),
        (_, Some(at)) => Ok(Value::Int(at as i128)),
        ("index" | "rindex", None) => Err(Fault::failed("substring not found")),
        (_, None) => Ok(Value::Int(-1)),
    }
}

fn affix(ledger: &Rc<Ledger>, part: &Part<'_>, name: &str, what: &Value) -> Out<Value> {
    let has = |affix: &Value| -> Out<bool> {
        let affix = text_of(affix, name)?;
        Ok(!part.beyond
            && match name {
                "startswith" => part.text.starts_with(affix),
                _ => part.text.ends_with(affix),
            })
    };
    if let Value::Tuple(any) = what {
        for affix in &any.items {
            ledger.step()?;
            if has(affix)? {
                return Ok(Value::Bool(true));
            }
        }
        return Ok(Value::Bool(false));
    }
    has(what).map(Value::Bool)
}

/// `text.replace(old, new, most)`.
fn replaced(
    ledger: &Rc<Ledger>,
    text: &str,
    old: &str,
    new: &str,
    most: Option<i128>,
) -> Out<String> {
    let most = most.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
    let mut out = ledger.draft();
    let mut from = 0;
    for (at, found) in text.match_indices(old).take(most) {
        out.push(&text[from..at])?;
        out.push(new)?;
        from = at + found.len();
    }
    out.push(&text[from..])?;
    Ok(out.text)
}

/// `split` and what is like it.
pub(super) fn split(
    ledger: &Rc<Ledger>,
    text: &Rc<Text>,
    name: &str,
    called: Called,
) -> Out<Value> {
    let room = |pieces: usize| ledger.enter((pieces + 1) * (ITEM + size_of::<&str>()));
    let (_room, pieces): (_, Vec<&str>) = match name {
        "splitlines" => {
            let [keep] = called.bind(name, ["keepends"])?;
            (
                room(text.matches(ENDS).count())?,
                lines(text, keeps(keep.as_ref())),
            )
        }
        "partition" | "rpartition" => {
            let [separator] = called.bind(name, ["sep"])?;
            let separator = required(separator, name, "sep")?;
            let separator = text_of(&separator, name)?;
            if separator.is_empty() {
                return Err(Fault::failed("empty separator"));
            }
            let pieces = match (
                name,
                text.split_once(separator),
                text.rsplit_once(separator),
            ) {
                ("partition", Some((head, tail)), _) => [head, separator, tail],
                ("partition", None, _) => [text, "", ""],
                (_, _, Some((head, tail))) => [head, separator, tail],
                (_, _, None) => ["", "", text],
            };
            let piece = |it: &str| like(ledger, text, it.to_owned());
            let pieces: Out<Vec<Value>> = pieces.into_iter().map(piece).collect();
            return ledger.tuple(pieces?);
        }
        _ => {
            let [separator, most] = called.bind(name, ["sep", "maxsplit"])?;
            let most = int_of(most.as_ref(), name)?.filter(|it| *it >= 0);
            let most = most.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
            let right = name == "rsplit";
            match &separator {
                None | Some(Value::None) => {
                    let room = room(text.matches(is_space).count())?;
                    (room, words(text, most, right))
                }
                Some(separator) => {
                    let separator = text_of(separator, name)?;
                    let room = room(text.matches(separator).count())?;
                    (room, by(text, separator, most, right)?)
                }
            }
        }
    };
    ledger.work(pieces.len() * ITEM)?;
    let piece = |it: &&str| like(ledger, text, (*it).to_owned());
    let pieces: Out<Vec<Value>> = pieces.iter().map(piece).collect();
    ledger.list(pieces?)
}

fn by<'a>(text: &'a str, separator: &str, most: usize, right: bool) -> Out<Vec<&'a str>> {
    if separator.is_empty() {
        return Err(Fault::failed("empty separator"));
    }
    let most = most.saturating_add(1);
    if !right {
        return Ok(text.splitn(most, separator).collect());
    }
    let mut pieces: Vec<&str> = text.rsplitn(most, separator).collect();
    pieces.reverse();
    Ok(pieces)
}

/// Split at blanks: those at the ends are dropped, and there are no empty pieces.
fn words(text: &str, most: usize, right: bool) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    if !right {
        loop {
            rest = rest.trim_start_matches(is_space);
            if rest.is_empty() {
                return pieces;
            }
            let end = match pieces.len() == most {
                true => None,
                false => rest.find(is_space),
            };
            pieces.push(&rest[..end.unwrap_or(rest.len())]);
            rest = &rest[end.unwrap_or(rest.len())..];
        }
    }
    loop {
        rest = rest.trim_end_matches(is_space);
        if rest.is_empty() {
            break;
        }
        let blank = match pieces.len() == most {
            true => None,
            false => rest.char_indices().rfind(|(_, c)| is_space(*c)),
        };
        let begin = blank.map_or(0, |(at, c)| at + c.len_utf8());
        pieces.push(&rest[begin..]);
        rest = &rest[..begin];
    }
    pieces.reverse();
    pieces
}

/// `text.splitlines(keep)`.
pub(in crate::jinja) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ENDS) {
        let end = match rest[at..].strip_prefix("\r\n") {
            Some(_) => at + 2,
            None => at + rest[at..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push(&rest[..if keep { end } else { at }]);
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}
