//! A template's text to tokens, as Jinja2's lexer cuts it with `trim_blocks` and `lstrip_blocks` on.

use std::sync::Arc;

use super::fault::{Fault, Out};
use super::methods::is_space;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Text outside of tags.
    Data(Arc<str>),
    /// `{{`
    PrintBegin,
    /// `}}`
    PrintEnd,
    /// `{%`
    TagBegin,
    /// `%}`
    TagEnd,
    Name(Arc<str>),
    Str(String),
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

/// Longest first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";",
];

/// The tokens, each with its line.
pub(super) fn tokens(source: &str) -> Out<Vec<(Token, u32)>> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer {
        source: &source,
        at: 0,
        line: 1,
        line_starting: true,
        tokens: Vec::new(),
    };
    lexer.root()?;
    lexer.emit(Token::End);
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
    /// What was read last ended a line.
    line_starting: bool,
    tokens: Vec<(Token, u32)>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn emit(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    /// Goes on by so many bytes.
    fn skip(&mut self, bytes: usize) {
        let passed = &self.rest()[..bytes];
        self.line += u32::try_from(passed.matches('\n').count()).unwrap_or(0);
        if !passed.is_empty() {
            self.line_starting = passed.ends_with('\n');
        }
        self.at += bytes;
    }

    fn skip_spaces(&mut self) {
        let spaces = self.rest().len() - self.rest().trim_start_matches(is_space).len();
        self.skip(spaces);
    }

    fn root(&mut self) -> Out<()> {
        while !self.rest().is_empty() {
            let rest = self.rest();
            let Some(start) = next_tag(rest) else {
                self.data(rest);
                self.skip(rest.len());
                return Ok(());
            };
            let (text, tag) = rest.split_at(start);
            let sign = tag[2..].chars().next().filter(|c| "+-".contains(*c));
            let text = match sign {
                Some('-') => text.trim_end_matches(is_space),
                Some('+') => text,
                _ if tag.starts_with("{{") => text,
                _ => self.without_indent(text),
            };
            self.data(text);
            self.skip(start + 2 + usize::from(sign.is_some()));
            match &tag[..2] {
                "{{" => self.tag(Token::PrintBegin, "}}", Token::PrintEnd)?,
                "{#" => self.comment()?,
                _ if self.raw_begins() => self.raw()?,
                _ => self.tag(Token::TagBegin, "%}", Token::TagEnd)?,
            }
        }
        Ok(())
    }

    /// The text before a tag, less the blanks of the line on which the tag is the first.
    fn without_indent(&self, text: &'a str) -> &'a str {
        let line = text.rfind('\n').map_or(0, |at| at + 1);
        let blank = line < text.len() && text[line..].chars().all(is_space);
        match blank && (line > 0 || self.line_starting) {
            true => &text[..line],
            false => text,
        }
    }

    fn data(&mut self, text: &str) {
        if !text.is_empty() {
            self.emit(Token::Data(text.into()));
        }
    }

    /// If a tag ends here, goes behind it and the blanks that it takes with it.
    fn ends(&mut self, end: &str) -> bool {
        let rest = self.rest();
        if let Some(behind) = rest.strip_prefix('-')
            && behind.starts_with(end)
        {
            let spaces = behind[2..].len() - behind[2..].trim_start_matches(is_space).len();
            self.skip(3 + spaces);
            return true;
        }
        if end != "}}" && rest.strip_prefix('+').is_some_and(|it| it.starts_with(end)) {
            self.skip(3);
            return true;
        }
        if rest.starts_with(end) {
            let newline = end != "}}" && rest[2..].starts_with('\n');
            self.skip(2 + usize::from(newline));
            return true;
        }
        false
    }

    fn comment(&mut self) -> Out<()> {
        while !self.rest().is_empty() {
            if self.ends("#}") {
                return Ok(());
            }
            self.skip(self.rest().chars().next().map_or(0, char::len_utf8));
        }
        Err(Fault::syntax("Missing end of comment tag", self.line))
    }

    /// Whether `{%` is followed by `raw %}`; if so, goes behind it.
    fn raw_begins(&mut self) -> bool {
        let Some(rest) = self
            .rest()
            .trim_start_matches(is_space)
            .strip_prefix("raw")
            .map(|rest| rest.trim_start_matches(is_space))
        else {
            return false;
        };
        let behind = match rest.strip_prefix("-%}") {
            Some(behind) => Some(behind.trim_start_matches(is_space)),
            None => rest.strip_prefix("%}"),
        };
        if let Some(behind) = behind {
            self.skip(self.rest().len() - behind.len());
        }
        behind.is_some()
    }

    fn raw(&mut self) -> Out<()> {
        let rest = self.rest();
        let mut from = 0;
        while let Some(found) = rest[from..].find("{%") {
            let at = from + found;
            let sign = rest[at + 2..].chars().next().filter(|c| "+-".contains(*c));
            let inside = &rest[at + 2 + usize::from(sign.is_some())..];
            let behind = inside
                .trim_start_matches(is_space)
                .strip_prefix("endraw")
                .map(|it| it.trim_start_matches(is_space));
            if let Some(end) = behind
                && ["%}", "-%}", "+%}"].iter().any(|it| end.starts_with(it))
            {
                let text = match sign {
                    Some('-') => rest[..at].trim_end_matches(is_space),
                    Some(_) => &rest[..at],
                    None => self.without_indent(&rest[..at]),
                };
                self.data(text);
                self.skip(rest.len() - end.len());
                self.ends("%}");
                return Ok(());
            }
            from = at + 2;
        }
        Err(Fault::syntax("Missing end of raw directive", self.line))
    }

    fn tag(&mut self, begin: Token, end: &str, end_token: Token) -> Out<()> {
        self.emit(begin);
        let mut open: Vec<&str> = Vec::new();
        loop {
            self.skip_spaces();
            let Some(first) = self.rest().chars().next() else {
                // The parser says what is missing.
                return Ok(());
            };
            let line = self.line;
            if open.is_empty() && self.ends(end) {
                self.tokens.push((end_token, line));
                return Ok(());
            }
            match first {
                '0'..='9' => self.number()?,
                '"' | '\'' => self.string(first)?,
                c if c == '_' || c.is_alphabetic() => self.name(),
                _ => {
                    let operator = self.operator()?;
                    balance(&mut open, operator, line)?;
                }
            }
        }
    }

    fn name(&mut self) {
        let rest = self.rest();
        let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric());
        let name = &rest[..end.unwrap_or(rest.len())];
        self.emit(Token::Name(name.into()));
        self.skip(name.len());
    }

    fn operator(&mut self) -> Out<&'static str> {
        let rest = self.rest();
        let Some(found) = OPERATORS.iter().find(|it| rest.starts_with(**it)) else {
            let c = rest.chars().next().unwrap_or(' ');
            return Err(Fault::syntax(format!("unexpected char {c:?}"), self.line));
        };
        self.emit(Token::Op(found));
        self.skip(found.len());
        Ok(found)
    }

    fn number(&mut self) -> Out<()> {
        let rest = self.rest();
        let radix = match rest.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("0x") => 16,
            Some("0o") => 8,
            Some("0b") => 2,
            _ => 10,
        };
        if radix != 10 {
            let digits = |c: char| c == '_' || c.is_digit(radix);
            let end = rest[2..].find(|c| !digits(c)).map_or(rest.len(), |n| n + 2);
            let text = rest[2..end].replace('_', "");
            return self.integer(&text, radix, end);
        }
        let digits = |from: usize| {
            let text = &rest[from..];
            let more = |c: char| c != '_' && !c.is_ascii_digit();
            from + text.find(more).unwrap_or(text.len())
        };
        let whole = digits(0);
        let mut end = whole;
        let is_digit = |at: usize| rest.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        // In `x.0.5` there is no fraction.
        let after_dot = matches!(self.tokens.last(), Some((Token::Op("."), _)));
        if !after_dot {
            if rest[end..].starts_with('.') && is_digit(end + 1) {
                end = digits(end + 1);
            }
            if rest[end..].starts_with(['e', 'E']) {
                let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
                if is_digit(end + 1 + sign) {
                    end = digits(end + 1 + sign);
                }
            }
        }
        let text = rest[..end].replace('_', "");
        if end == whole {
            return self.integer(&text, 10, end);
        }
        let bad = |_| Fault::syntax("not a number", self.line);
        let number = text.parse().map_err(bad)?;
        self.emit(Token::Float(number));
        self.skip(end);
        Ok(())
    }

    fn integer(&mut self, digits: &str, radix: u32, bytes: usize) -> Out<()> {
        let bad = |_| Fault::syntax("not a number, or too large a one", self.line);
        let number = i128::from_str_radix(digits, radix).map_err(bad)?;
        self.emit(Token::Int(number));
        self.skip(bytes);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Out<()> {
        let rest = &self.rest()[1..];
        let mut escaped = false;
        let end = rest.find(|c: char| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            let message = format!("unexpected char {quote:?}");
            return Err(Fault::syntax(message, self.line));
        };
        let text = unescape(&rest[..end]).map_err(|why| Fault::syntax(why, self.line))?;
        self.emit(Token::Str(text));
        self.skip(end + 2);
        Ok(())
    }
}

/// Brackets within a tag close in order.
fn balance(open: &mut Vec<&'static str>, operator: &'static str, line: u32) -> Out<()> {
    match operator {
        "{" => open.push("}"),
        "(" => open.push(")"),
        "[" => open.push("]"),
        "}" | ")" | "]" => match open.pop() {
            Some(expected) if expected == operator => {}
            Some(expected) => {
                let message = format!("unexpected '{operator}', expected '{expected}'");
                return Err(Fault::syntax(message, line));
            }
            None => return Err(Fault::syntax(format!("unexpected '{operator}'"), line)),
        },
        _ => {}
    }
    Ok(())
}

/// Where the next `{{`, `{%` or `{#` begins.
fn next_tag(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'{', bytes)
        .find(|at| matches!(bytes.get(at + 1), Some(b'{' | b'%' | b'#')))
}

/// Python's escapes in a string. What is none stays as it is.
fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else {
            return Err("\\ at end of string".to_owned());
        };
        rest = &rest[c.len_utf8()..];
        let simple = match c {
            '\n' => Some(""),
            '\\' => Some("\\"),
            '\'' => Some("'"),
            '"' => Some("\""),
            'a' => Some("\u{7}"),
            'b' => Some("\u{8}"),
            'f' => Some("\u{c}"),
            'n' => Some("\n"),
            'r' => Some("\r"),
            't' => Some("\t"),
            'v' => Some("\u{b}"),
            _ => None,
        };
        if let Some(simple) = simple {
            out.push_str(simple);
            continue;
        }
        let digits = match c {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            '0'..='7' => {
                let more = rest.chars().take(2).take_while(|c| c.is_digit(8)).count();
                let octal = format!("{c}{}", &rest[..more]);
                let code = u32::from_str_radix(&octal, 8).unwrap_or(0);
                out.extend(char::from_u32(code));
                rest = &rest[more..];
                continue;
            }
            _ => {
                out.extend(['\\', c]);
                continue;
            }
        };
        let code = rest.get(..digits).map(|it| u32::from_str_radix(it, 16));
        let Some(Ok(mut code)) = code else {
            return Err(format!("truncated \\{c} escape"));
        };
        rest = &rest[digits..];
        // Two escapes that are one character in UTF-16.
        if (0xD800..0xDC00).contains(&code)
            && let Some(low) = rest.strip_prefix("\\u").and_then(|it| it.get(..4))
            && let Ok(low @ 0xDC00..0xE000) = u32::from_str_radix(low, 16)
        {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            rest = &rest[6..];
        }
        out.push(char::from_u32(code).ok_or("illegal Unicode character")?);
    }
    out.push_str(rest);
    Ok(out)
}
