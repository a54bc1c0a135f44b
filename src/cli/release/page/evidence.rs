//! What is known of a candidate: a table of objectives, and the latencies of both revisions side by side.

use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use sluice_control::release::analysis::{Evidence, Measure, Quantile, QuantilePair, Verdict};

use super::{bar, labelled};
use crate::cli::release::view::Gathered;
use crate::cli::release::words;

/// Columns of an objective's bar.
const BAR: usize = 12;

type Cells = Vec<Line<'static>>;

/// Verdict, objectives and quantiles.
pub(in crate::cli::release) fn assessed(gathered: &Gathered) -> Vec<Line<'static>> {
    let requests = gathered.requests;
    let seen = format!(
        "  {} requests of stable and {} of the candidate, as {} saw them at {} UTC",
        requests.stable,
        requests.candidate,
        gathered.process,
        words::clock(gathered.at)
    );
    let verdict = verdict(gathered.verdict);
    let mut lines = vec![labelled(
        "evidence",
        [verdict, Span::from(seen).dark_gray()],
    )];
    if requests.stable + requests.candidate == 0 {
        return lines;
    }
    lines.extend(objectives(&gathered.objectives));
    if gathered.quantiles.iter().any(is_known) {
        lines.push(Line::default());
        lines.extend(latencies(&gathered.quantiles));
    }
    lines
}

fn verdict(verdict: Verdict) -> Span<'static> {
    Span::styled(verdict.word().replace('_', " "), verdict_style(verdict))
}

fn verdict_style(verdict: Verdict) -> Style {
    let color = match verdict {
        Verdict::Pass => Color::Green,
        Verdict::Breach => Color::Red,
        Verdict::Inconclusive => Color::Yellow,
        Verdict::NoData => Color::DarkGray,
    };
    Style::new().fg(color).bold()
}

fn objectives(objectives: &[Evidence]) -> Vec<Line<'static>> {
    let rows: Vec<Cells> = objectives.iter().map(objective).collect();
    let headings = ["OBJECTIVE", "VERDICT", "EVIDENCE", "CANDIDATE", "STABLE"];
    let mut table = table(&headings, &rows).into_iter();
    let mut lines: Vec<Line<'static>> = table.by_ref().take(1).collect();
    for (row, evidence) in table.zip(objectives) {
        lines.push(row);
        let because = format!("  {}", evidence.because);
        lines.push(Line::from(because).dark_gray());
    }
    lines
}

fn objective(evidence: &Evidence) -> Cells {
    let found = verdict(evidence.verdict);
    let mut cells = vec![Line::from(evidence.objective.clone()), Line::from(found)];
    match &evidence.measure {
        Measure::Requests {
            stable,
            candidate,
            e_value,
            limit,
            ..
        } => {
            // Evidence multiplies: half of the way is the root of the limit.
            let way = e_value.ln() / limit.ln();
            let mut spans = bar(way, BAR, verdict_style(evidence.verdict));
            let (value, limit) = (words::e_value(*e_value), words::e_value(*limit));
            spans.push(Span::from(format!("  {value} of {limit}")));
            cells.push(Line::from(spans));
            cells.push(Line::from(words::share(*candidate)));
            cells.push(Line::from(words::share(*stable)));
        }
        Measure::Evaluation { delta, min_delta } => {
            let least = format!("at least {min_delta:+.3}");
            cells.push(Line::from(match delta {
                Some(delta) => format!("{delta:+.3}, {least}"),
                None => least,
            }));
        }
    }
    cells
}

fn is_known(pair: &QuantilePair) -> bool {
    pair.stable.is_some() || pair.candidate.is_some()
}

fn latencies(pairs: &[QuantilePair]) -> Vec<Line<'static>> {
    let known: Vec<&QuantilePair> = pairs.iter().filter(|it| is_known(it)).collect();
    let rows: Vec<Cells> = known
        .iter()
        .enumerate()
        .map(|(index, pair)| {
            let before = index.checked_sub(1).and_then(|it| known.get(it));
            let is_first = before.is_none_or(|before| before.latency != pair.latency);
            let latency = match is_first {
                true => pair.latency.replace('_', " "),
                false => String::new(),
            };
            vec![
                Line::from(latency),
                Line::from(format!("P{:.0}", pair.p * 100.0)),
                Line::from(quantile(pair.candidate)),
                Line::from(quantile(pair.stable)),
                difference(pair.difference),
            ]
        })
        .collect();
    let headings = ["LATENCY", "", "CANDIDATE", "STABLE", "DIFFERENCE"];
    table(&headings, &rows)
}

fn quantile(quantile: Option<Quantile>) -> String {
    let Some(Quantile { low, value, high }) = quantile else {
        return "–".to_owned();
    };
    if low <= 0.0 && high.is_none() {
        // Too few requests to bound it at all.
        return words::seconds(value);
    }
    format!("{}  {}", words::seconds(value), interval(low, high))
}

/// Where it surely lies.
fn interval(low: f64, high: Option<f64>) -> String {
    let high = high.map_or_else(|| "∞".to_owned(), words::seconds);
    format!("({} … {high})", words::seconds(low))
}

/// Coloured where it is surely one: both ends on one side of zero.
fn difference(between: Option<(f64, Option<f64>)>) -> Line<'static> {
    let Some((low, high)) = between else {
        return Line::from("–");
    };
    let text = Line::from(interval(low, high));
    match high {
        _ if low > 0.0 => text.red(),
        Some(high) if high < 0.0 => text.green(),
        _ => text,
    }
}

/// Rows under headings, columns padded to their widest cell.
fn table(headings: &[&'static str], rows: &[Cells]) -> Vec<Line<'static>> {
    let heads: Cells = headings.iter().map(|it| Line::from(*it)).collect();
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(Line::width).max().unwrap_or(0)
    };
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(column, head)| head.width().max(widest(column)))
        .collect();
    let padded = |cells: &Cells| {
        let mut spans = Vec::new();
        for (cell, wide) in cells.iter().zip(&widths) {
            let style = cell.style;
            let patched = cell
                .spans
                .iter()
                .map(|span| span.clone().patch_style(style));
            spans.extend(patched);
            spans.push(Span::from(" ".repeat(wide - cell.width() + 2)));
        }
        Line::from(spans)
    };
    std::iter::once(padded(&heads).dark_gray())
        .chain(rows.iter().map(padded))
        .collect()
}
