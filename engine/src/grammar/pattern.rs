//! Patterns that a client writes, looked at without understanding all of them.

/// What a quantifier in a pattern applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Atom {
    /// Digits, and signs between them: a number.
    Digits,
    /// What leaves out little: any text.
    Text,
    Other,
}

/// Bounds runs of digits without a bound to `most`, as the digits of a number are. The rest stays to the letter.
pub(super) fn bound_digits(pattern: &str, most: usize) -> String {
    let mut bounded = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while !rest.is_empty() {
        let (atom, length) = atom(rest);
        let (head, tail) = rest.split_at(length);
        bounded.push_str(head);
        rest = tail;
        if atom != Atom::Digits {
            continue;
        }
        if let Some((least, length)) = open_quantifier(rest) {
            bounded.push_str(&format!("{{{least},{}}}", most.max(least)));
            rest = &rest[length..];
        }
    }
    bounded
}

/// Whether strings under this pattern are texts, and not names, numbers or codes.
pub(super) fn is_text(pattern: &str) -> bool {
    let mut rest = pattern;
    while !rest.is_empty() {
        let (atom, length) = atom(rest);
        if atom == Atom::Text {
            return true;
        }
        rest = &rest[length..];
    }
    false
}

/// The first atom or sign of a pattern that is not empty, and its length in bytes.
fn atom(pattern: &str) -> (Atom, usize) {
    let mut characters = pattern.char_indices();
    let first = characters.next().map(|(_, c)| c);
    let second = characters.next();
    let end = second.map_or(pattern.len(), |(at, _)| at);
    match (first, second) {
        (Some('\\'), Some((at, escaped))) => {
            let atom = match escaped {
                'd' => Atom::Digits,
                'D' | 'S' | 'W' => Atom::Text,
                _ => Atom::Other,
            };
            (atom, at + escaped.len_utf8())
        }
        (Some('.'), _) => (Atom::Text, end),
        (Some('['), _) => class(pattern),
        _ => (Atom::Other, end),
    }
}

/// A class in brackets.
fn class(pattern: &str) -> (Atom, usize) {
    let negated = pattern.starts_with("[^");
    let (mut digits, mut letters) = (false, false);
    let mut characters = pattern.char_indices().skip(if negated { 2 } else { 1 });
    while let Some((at, character)) = characters.next() {
        match character {
            ']' => {
                let atom = match (negated, digits, letters) {
                    (true, ..) => Atom::Text,
                    (false, true, false) => Atom::Digits,
                    _ => Atom::Other,
                };
                return (atom, at + 1);
            }
            '\\' => match characters.next() {
                Some((_, 'd')) => digits = true,
                Some((_, escaped)) if escaped.is_alphanumeric() => letters = true,
                _ => {}
            },
            '0'..='9' => digits = true,
            // Nested classes and what is beyond ASCII is left alone.
            '[' => letters = true,
            other if other.is_alphanumeric() || !other.is_ascii() => letters = true,
            _ => {}
        }
    }
    (Atom::Other, pattern.len())
}

/// `*`, `+` or `{n,}`: the least count, and the length in bytes.
fn open_quantifier(pattern: &str) -> Option<(usize, usize)> {
    match pattern.as_bytes().first()? {
        b'*' => Some((0, 1)),
        b'+' => Some((1, 1)),
        b'{' => {
            let (inner, _) = pattern[1..].split_once('}')?;
            let least = inner.strip_suffix(',')?.parse().ok()?;
            Some((least, inner.len() + 2))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_digits_get_a_bound() {
        let cases = [
            (r"^\d+$", r"^\d{1,9}$"),
            (r"^[0-9]*\.[0-9]{2,}?$", r"^[0-9]{0,9}\.[0-9]{2,9}?$"),
            (r"[0-9.,-]+", r"[0-9.,-]{1,9}"),
            (r"\d{12,}", r"\d{12,12}"),
        ];
        for (pattern, bounded) in cases {
            assert_eq!(bound_digits(pattern, 9), bounded);
        }
    }

    #[test]
    fn all_else_stays() {
        for pattern in [
            "",
            "a+b*",
            r"\\d+",
            r"[a-z0-9]+",
            r"[^0-9]+",
            r"\d{3}",
            r"\d{3,4}",
            r"\d",
            r"[0-9",
            "\\",
            "é*",
            r"[[:digit:]]+",
            r"(\d)+",
            r"[\]a0]+",
        ] {
            assert_eq!(bound_digits(pattern, 9), pattern);
        }
    }

    #[test]
    fn texts_are_told_from_codes() {
        for text in ["^.+$", r"\S+", r"[^,]*,", r"a\D"] {
            assert!(is_text(text), "{text}");
        }
        for code in [r"^[A-Z]{2}\d+$", r"a\.b", r"[.]+", r"\w+", ""] {
            assert!(!is_text(code), "{code}");
        }
    }
}
