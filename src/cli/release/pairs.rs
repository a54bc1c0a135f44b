//! `sluice release pairs`: what both revisions answered to the same request, side by side.

use serde_json::Value;

use super::view::{Answer, Pair};
use super::words;
use crate::cli::output::{self, width};

/// Between the two columns.
const GAP: &str = " │ ";

/// Pairs one below the other, for a page of so many columns.
pub(super) fn pairs(pairs: &[Pair], columns: usize) -> String {
    if pairs.is_empty() {
        return "No pairs are kept.".to_owned();
    }
    let pairs: Vec<String> = pairs.iter().map(|it| pair(it, columns)).collect();
    pairs.join("\n\n")
}

fn pair(pair: &Pair, columns: usize) -> String {
    let agrees = match pair.agrees {
        true => "agree",
        false => "differ",
    };
    let mut lines = vec![format!(
        "{}  {agrees}  similarity {:.2} by {}  {}",
        words::moment(pair.at),
        pair.similarity,
        clean(&pair.how),
        clean(&pair.request_id)
    )];
    let asked = format!("> {}", asked(&pair.request));
    lines.extend(wrapped(&asked, columns));
    let half = columns.saturating_sub(width(GAP)) / 2;
    let (live, candidate) = (answer(&pair.live, half), answer(&pair.candidate, half));
    for index in 0..live.len().max(candidate.len()) {
        let side = |lines: &[String]| lines.get(index).cloned().unwrap_or_default();
        let left = side(&live);
        let padding = " ".repeat(half.saturating_sub(width(&left)));
        let line = format!("{left}{padding}{GAP}{}", side(&candidate));
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

fn answer(answer: &Answer, columns: usize) -> Vec<String> {
    #[expect(clippy::cast_precision_loss, reason = "a request ends within hours")]
    let time = |us: u64| words::seconds(us as f64 / 1e6);
    let mut facts = vec![clean(&answer.revision)];
    if answer.failed || answer.status >= 400 {
        facts.push(format!("failed with {}", answer.status));
    }
    facts.push(format!("{} tokens", answer.tokens));
    facts.extend(answer.finish.as_deref().map(clean));
    facts.extend(answer.ttft_us.map(|us| format!("ttft {}", time(us))));
    facts.push(format!("total {}", time(answer.total_us)));
    let mut lines = wrapped(&facts.join(", "), columns);
    let more = if answer.cut { " …" } else { "" };
    lines.extend(wrapped(&format!("{}{more}", answer.text), columns));
    lines
}

/// What a person asked, where the request reads as one; else its body.
fn asked(request: &str) -> String {
    let Ok(body) = serde_json::from_str::<Value>(request) else {
        return request.to_owned();
    };
    let last = body["messages"].as_array().and_then(|it| it.last());
    let text = match last {
        Some(message) => &message["content"],
        None if !body["prompt"].is_null() => &body["prompt"],
        None => &body["input"],
    };
    match text {
        Value::Null => request.to_owned(),
        Value::String(text) => text.clone(),
        parts => parts.to_string(),
    }
}

/// Without what a terminal would take for a command.
fn clean(text: &str) -> String {
    let shown = text.chars().map(|c| match c {
        '\t' => ' ',
        c if output::is_unsafe(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    });
    shown.collect()
}

/// Lines of at most so many columns, broken between words where there are some.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(8);
    let mut lines = Vec::new();
    for paragraph in text.lines().map(clean) {
        let mut line = String::new();
        let mut taken = 0;
        for word in paragraph.split_inclusive(' ') {
            if taken > 0 && taken + width(word.trim_end()) > columns {
                lines.push(std::mem::take(&mut line));
                taken = 0;
            }
            for c in word.chars() {
                let wide = width(c.encode_utf8(&mut [0; 4]));
                if taken + wide > columns {
                    if c == ' ' {
                        continue;
                    }
                    lines.push(std::mem::take(&mut line));
                    taken = 0;
                }
                line.push(c);
                taken += wide;
            }
        }
        lines.push(line);
    }
    lines.iter_mut().for_each(|line| {
        line.truncate(line.trim_end().len());
    });
    lines
}

#[cfg(test)]
mod tests;
