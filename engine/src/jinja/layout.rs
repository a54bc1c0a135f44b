//! Lays values out: widths, signs, digits, as Python's formats say.

use super::fault::{Fault, Out};
use super::ledger::Draft;
use super::text::{exponent, float};

/// How one value is laid out.
#[derive(Debug, Clone, Default)]
pub(super) struct Spec {
    pub(super) fill: Option<char>,
    /// `<`, `>`, `^` or `=`.
    pub(super) align: Option<char>,
    /// `+` or a blank.
    pub(super) sign: Option<char>,
    pub(super) alternate: bool,
    pub(super) zero: bool,
    pub(super) width: usize,
    /// `,` or `_` between thousands.
    pub(super) group: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

impl Spec {
    /// Nothing is said.
    pub(super) fn is_plain(&self) -> bool {
        let marked = self.alternate || self.zero || self.width > 0;
        let laid_out = self
            .fill
            .or(self.align)
            .or(self.sign)
            .or(self.group)
            .or(self.kind);
        !marked && laid_out.is_none() && self.precision.is_none()
    }
}

/// `[[fill]align][sign][#][0][width][group][.precision][type]`
pub(super) fn parse_spec(text: &str) -> Out<Spec> {
    let mut spec = Spec::default();
    let mut chars: &[char] = &text.chars().collect::<Vec<_>>();
    let is_align = |c: &char| "<>=^".contains(*c);
    if let [fill, align, rest @ ..] = chars
        && is_align(align)
    {
        (spec.fill, spec.align) = (Some(*fill), Some(*align));
        chars = rest;
    } else if let [align, rest @ ..] = chars
        && is_align(align)
    {
        spec.align = Some(*align);
        chars = rest;
    }
    let take = |among: &str, chars: &mut &[char]| match chars {
        [c, rest @ ..] if among.contains(*c) => {
            let c = *c;
            *chars = rest;
            Some(c)
        }
        _ => None,
    };
    spec.sign = take("+- ", &mut chars).filter(|c| *c != '-');
    spec.alternate = take("#", &mut chars).is_some();
    spec.zero = take("0", &mut chars).is_some();
    let number = |chars: &mut &[char]| {
        let mut number = None;
        while let Some(digit) = take("0123456789", chars) {
            let digit = digit.to_digit(10).unwrap_or(0) as usize;
            number = Some(
                number
                    .unwrap_or(0_usize)
                    .saturating_mul(10)
                    .saturating_add(digit),
            );
        }
        number
    };
    spec.width = number(&mut chars).unwrap_or(0);
    if let [c @ (',' | '_'), rest @ ..] = chars {
        spec.group = Some(*c);
        chars = rest;
    }
    if let ['.', rest @ ..] = chars {
        chars = rest;
        spec.precision = number(&mut chars);
    }
    match chars {
        [] => Ok(spec),
        [kind] => {
            spec.kind = Some(*kind);
            Ok(spec)
        }
        _ => Err(Fault::failed("Invalid format specifier")),
    }
}

pub(super) fn write_text(out: &mut Draft, text: &str, spec: &Spec) -> Out<()> {
    let length = spec.precision.unwrap_or(usize::MAX);
    let end = text
        .char_indices()
        .nth(length)
        .map_or(text.len(), |(at, _)| at);
    let fill = spec.fill.unwrap_or(if spec.zero { '0' } else { ' ' });
    write_padded(
        out,
        ["", &text[..end]],
        fill,
        spec.align.unwrap_or('<'),
        spec.width,
    )
}

/// Writes a sign and a body, filled up to a width.
fn write_padded(
    out: &mut Draft,
    [sign, body]: [&str; 2],
    fill: char,
    align: char,
    width: usize,
) -> Out<()> {
    let missing = width.saturating_sub(sign.chars().count() + body.chars().count());
    let (before, between, after) = match align {
        '<' => (0, 0, missing),
        '^' => (missing / 2, 0, missing - missing / 2),
        '=' => (0, missing, 0),
        _ => (missing, 0, 0),
    };
    out.fill(fill, before)?;
    out.push(sign)?;
    out.fill(fill, between)?;
    out.push(body)?;
    out.fill(fill, after)
}

pub(super) fn write_int(out: &mut Draft, number: i128, spec: &Spec) -> Out<()> {
    let size = number.unsigned_abs();
    let (prefix, mut digits) = match spec.kind {
        Some('x') => ("0x", format!("{size:x}")),
        Some('X') => ("0X", format!("{size:X}")),
        Some('o') => ("0o", format!("{size:o}")),
        Some('b') => ("0b", format!("{size:b}")),
        _ => ("", size.to_string()),
    };
    if let Some(group) = spec.group {
        let every = if prefix.is_empty() { 3 } else { 4 };
        digits = grouped(&digits, group, every);
    }
    // `%.5d`: so many digits at least.
    if let Some(precision) = spec.precision {
        let zeros = precision.saturating_sub(digits.len());
        let mut draft = out.ledger.draft();
        draft.fill('0', zeros)?;
        draft.push(&digits)?;
        digits = draft.text;
    }
    let mut head = sign_of(number < 0, spec).to_owned();
    if spec.alternate {
        head.push_str(prefix);
    }
    write_number(out, &head, &digits, spec)
}

fn sign_of(negative: bool, spec: &Spec) -> &'static str {
    match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        (false, _) => "",
    }
}

fn write_number(out: &mut Draft, head: &str, digits: &str, spec: &Spec) -> Out<()> {
    let (fill, align) = match spec.zero && spec.fill.is_none() {
        true => ('0', '='),
        false => (spec.fill.unwrap_or(' '), spec.align.unwrap_or('>')),
    };
    write_padded(out, [head, digits], fill, align, spec.width)
}

fn grouped(digits: &str, by: char, every: usize) -> String {
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(every) {
            out.push(by);
        }
        out.push(digit);
    }
    out
}

pub(super) fn write_float(out: &mut Draft, number: f64, spec: &Spec) -> Out<()> {
    const MOST: usize = 400;
    let size = number.abs();
    let kind = spec.kind.unwrap_or('r');
    let precision = spec.precision.unwrap_or(6);
    if precision > MOST {
        return Err(Fault::too_much("a number of too many digits"));
    }
    let mut digits = match kind {
        _ if !number.is_finite() => if number.is_nan() { "nan" } else { "inf" }.to_owned(),
        'e' | 'E' => exponent(&format!("{size:.precision$e}")),
        'f' | 'F' => format!("{size:.precision$}"),
        '%' => format!("{:.precision$}%", size * 100.0),
        'g' | 'G' => general(size, precision.max(1), spec.alternate),
        // Without a type: as `str`, or as `g` with a dot.
        _ => match spec.precision {
            None => float(size),
            Some(precision) => {
                let text = general(size, precision.max(1), false);
                match text.contains(['.', 'e']) {
                    true => text,
                    false => text + ".0",
                }
            }
        },
    };
    if kind.is_ascii_uppercase() {
        digits.make_ascii_uppercase();
    }
    if let Some(group) = spec.group {
        let end = digits.find(['.', 'e', '%']).unwrap_or(digits.len());
        digits = grouped(&digits[..end], group, 3) + &digits[end..];
    }
    let head = sign_of(number.is_sign_negative() && !number.is_nan(), spec);
    write_number(out, head, &digits, spec)
}

/// C's `%g`: so many digits, without zeros at the end.
fn general(number: f64, digits: usize, keep_zeros: bool) -> String {
    let scientific = format!("{number:.*e}", digits - 1);
    let power: i32 = scientific
        .split_once('e')
        .and_then(|(_, power)| power.parse().ok())
        .unwrap_or(0);
    let trim = |text: &str| match text.contains('.') && !keep_zeros {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let most = i32::try_from(digits).unwrap_or(i32::MAX);
    if (-4..most).contains(&power) {
        let decimals = usize::try_from(most - 1 - power).unwrap_or(0);
        return trim(&format!("{number:.decimals$}"));
    }
    let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    exponent(&format!("{}e{power}", trim(mantissa)))
}
