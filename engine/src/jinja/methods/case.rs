//! Letters: what they are, and their case.

use super::is_space;
use crate::jinja::text::is_printable;

/// First characters of the blocks of ten decimal digits.
const ZEROS: [u32; 37] = [
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66,
    0xDE6, 0xE50, 0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90,
    0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
];

fn is_decimal(c: char) -> bool {
    let code = u32::from(c);
    let block = ZEROS.iter().any(|zero| (*zero..zero + 10).contains(&code));
    block || (0x1D7CE..=0x1D7FF).contains(&code)
}

/// Decimals, and digits set high, low or in circles.
fn is_digit(c: char) -> bool {
    let code = u32::from(c);
    is_decimal(c)
        || matches!(code, 0xB2 | 0xB3 | 0xB9 | 0x2070 | 0x2074..=0x2079 | 0x2080..=0x2089
            | 0x2460..=0x2468 | 0x2474..=0x247C | 0x2488..=0x2490 | 0x2776..=0x277E)
}

/// The predicates among the methods; false of an empty text. `None`: it is none of them.
pub(super) fn is(text: &str, name: &str) -> Option<bool> {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    Some(match name {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => text.is_ascii(),
        "isdecimal" => all(is_decimal),
        "isdigit" => all(is_digit),
        "isnumeric" => all(char::is_numeric),
        "isspace" => all(is_space),
        "isprintable" => text.chars().all(is_printable),
        "isidentifier" => {
            let word = |c: char| c == '_' || c.is_alphanumeric();
            all(word as fn(char) -> bool) && !text.starts_with(char::is_numeric)
        }
        "islower" => is_lower(text),
        "isupper" => is_upper(text),
        "istitle" => text.chars().any(is_cased) && titled(text) == text,
        _ => return None,
    })
}

/// Python's `str.islower`.
pub(in crate::jinja) fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
}

/// Python's `str.isupper`.
pub(in crate::jinja) fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
}

/// The methods that change case.
pub(super) fn change(text: &str, name: &str) -> String {
    match name {
        "upper" => text.to_uppercase(),
        "casefold" => text.to_lowercase().replace('ß', "ss").replace('ς', "σ"),
        "capitalize" => capitalized(text),
        "title" => titled(text),
        "swapcase" => {
            let mut out = String::with_capacity(text.len());
            for c in text.chars() {
                match c.is_uppercase() {
                    true => out.extend(c.to_lowercase()),
                    false => out.extend(c.to_uppercase()),
                }
            }
            out
        }
        _ => text.to_lowercase(),
    }
}

/// The first character in upper case, the others in lower case.
pub(in crate::jinja) fn capitalized(text: &str) -> String {
    let Some(first) = text.chars().next() else {
        return String::new();
    };
    let rest = text[first.len_utf8()..].to_lowercase();
    let mut out = title_case(first);
    out.push_str(&rest);
    out
}

/// One character at the beginning of a word: `ß` is `Ss` there.
fn title_case(c: char) -> String {
    let mut upper = c.to_uppercase();
    let mut out: String = upper.next().into_iter().collect();
    out.extend(upper.flat_map(char::to_lowercase));
    out
}

fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase()
}

/// Python's `str.title`: every letter after none.
pub(super) fn titled(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        let cased = is_cased(c);
        match inside && cased {
            true => out.extend(c.to_lowercase()),
            false if cased => out.push_str(&title_case(c)),
            false => out.push(c),
        }
        inside = cased;
    }
    out
}
