//! What a template of the control plane may take: those of an evaluation's prompts, which minijinja renders. Chat
//! templates have an engine with limits of its own ([`crate::jinja`]).
//!
//! Minijinja counts steps, but one step may multiply a text, and each may nest a value one level deeper;
//! a value is dropped, compared and printed by recursion. So what multiplies is looked at before it is done, the steps
//! follow the size of the input, and a rendering has a stack that is deep enough for as many levels as it has steps.

use minijinja::value::{Rest, Value};
use minijinja::{Environment, Error, ErrorKind, State, filters};

/// Bytes of a text that a filter or a method makes.
pub const MAX_TEXT: usize = 16 << 20;
/// Widths and precisions of formats, and of indentations.
const MAX_WIDTH: usize = 10_000;
/// Bytes of stack for each step: what comparing one level of a value takes at most. Only what is used is ever taken.
const FRAME: u64 = 1 << 10;

/// Runs a rendering of so many steps, with all that it leaves behind, on a stack of its own.
pub fn on_deep_stack<T>(steps: u64, render: impl FnOnce() -> T) -> T {
    let bytes = usize::try_from(steps.saturating_mul(FRAME)).unwrap_or(usize::MAX);
    stacker::grow(bytes, render)
}

/// Puts checks before the filters that multiply texts.
pub fn guard(env: &mut Environment<'static>) {
    env.add_filter("unchecked_replace", filters::replace);
    env.add_filter("unchecked_join", filters::join);
    env.add_filter("unchecked_indent", filters::indent);
    env.add_filter("unchecked_format", filters::format);
    env.add_filter("replace", |state: &State<'_, '_>, args: Rest<Value>| {
        check("replace", &args)?;
        state.apply_filter("unchecked_replace", &args)
    });
    env.add_filter("join", |state: &State<'_, '_>, args: Rest<Value>| {
        check("join", &args)?;
        state.apply_filter("unchecked_join", &args)
    });
    env.add_filter("indent", |state: &State<'_, '_>, args: Rest<Value>| {
        check("indent", &args)?;
        state.apply_filter("unchecked_indent", &args)
    });
    env.add_filter("format", |state: &State<'_, '_>, args: Rest<Value>| {
        check("format", &args)?;
        state.apply_filter("unchecked_format", &args)
    });
}

/// Whether what a filter, or the method of the same name, would make of these is short enough. The first is what it is
/// applied to.
///
/// # Errors
/// It is not.
pub fn check(name: &str, args: &[Value]) -> Result<(), Error> {
    let text = |at: usize| args.get(at).and_then(Value::as_str).unwrap_or_default();
    let made = match name {
        "replace" => {
            let (whole, from, to) = (text(0), text(1), text(2));
            let found = match from {
                "" => whole.len() + 1,
                from => whole.matches(from).count(),
            };
            found.saturating_mul(to.len()).saturating_add(whole.len())
        }
        "join" => joined(args),
        "indent" => {
            let width = args.get(1).and_then(Value::as_usize).unwrap_or(4);
            let lines = text(0).lines().count() + 1;
            lines.saturating_mul(width).saturating_add(text(0).len())
        }
        "format" => formatted(text(0), &args[1.min(args.len())..]),
        _ => 0,
    };
    match made > MAX_TEXT {
        true => Err(too_long()),
        false => Ok(()),
    }
}

/// The refusal of a text that would be too long.
#[must_use]
pub fn too_long() -> Error {
    let detail = format!("a text of more than {MAX_TEXT} bytes");
    Error::new(ErrorKind::WriteFailure, detail)
}

/// `[…] | join("…")`, and `"…".join([…])`.
fn joined(args: &[Value]) -> usize {
    let (list, between) = match (args.first(), args.get(1)) {
        (Some(text), Some(list)) if text.as_str().is_some() => (list, text.as_str()),
        (Some(list), between) => (list, between.and_then(Value::as_str)),
        (None, _) => return 0,
    };
    let between = between.unwrap_or_default().len();
    let items = list.try_iter().into_iter().flatten();
    items.fold(0_usize, |sum, item| {
        let own = item.as_str().map_or(0, str::len);
        sum.saturating_add(between).saturating_add(own)
    })
}

/// Widths and precisions stand in the format, or for `*` among the arguments.
fn formatted(format: &str, args: &[Value]) -> usize {
    let mut widest = 0_usize;
    let mut number = 0_usize;
    for byte in format.bytes() {
        number = match byte {
            b'0'..=b'9' => number
                .saturating_mul(10)
                .saturating_add(usize::from(byte - b'0')),
            _ => 0,
        };
        widest = widest.max(number);
    }
    if format.contains('*') || format.contains('{') {
        let numbers = args.iter().filter_map(Value::as_usize);
        widest = numbers.fold(widest, usize::max);
    }
    let places = format
        .bytes()
        .filter(|byte| matches!(byte, b'%' | b'{'))
        .count();
    let longest = args.iter().filter_map(Value::as_str).map(str::len).max();
    match widest > MAX_WIDTH && (format.contains('%') || format.contains('{')) {
        true => usize::MAX,
        false => places
            .saturating_mul(widest.max(longest.unwrap_or(0)))
            .saturating_add(format.len()),
    }
}
