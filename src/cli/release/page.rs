//! A release on one page: where it stands, what it waits for, and what its objectives say.
//!
//! A pure function of what the API tells, so that the same page is printed by `status`, drawn by `--watch` and
//! held against snapshots in tests.

mod evidence;

use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use sluice_control::release::analysis::Measure;
use sluice_control::time::Timestamp;

pub(super) use self::evidence::assessed;
use super::view::{End, View};
use super::words;

/// Columns of a bar that is a whole line's.
const BAR: usize = 50;
/// Columns of a label at the beginning of a line.
const LABEL: usize = 11;

/// The page, without a last line end.
pub(super) fn text(lines: &[Line<'_>]) -> String {
    let lines = lines.iter().map(|line| line.to_string());
    let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Everything about a release at one moment.
pub(super) fn page(view: &View, now: Timestamp) -> Vec<Line<'static>> {
    let mut lines = head(view, now);
    lines.push(Line::default());
    lines.push(labelled("weight", percent_bar(view.weight, Color::Cyan)));
    if view.shadow > 0.0 {
        lines.push(labelled("copied", percent_bar(view.shadow, Color::Magenta)));
    }
    lines.push(Line::default());
    lines.extend(steps(view, now));
    lines.push(Line::default());
    match &view.evidence {
        Some(gathered) => lines.extend(assessed(gathered)),
        None => {
            let missing = match view.end() {
                Some(_) => "none was kept",
                None => "none yet: the process that answers has not loaded the candidate",
            };
            lines.push(labelled("evidence", [Span::from(missing)]));
        }
    }
    lines
}

/// A release in one line, but for what it waits for.
pub(super) fn line(view: &View) -> String {
    let mut parts = vec![view.endpoint.clone(), view.state.clone()];
    if view.end().is_none() {
        let count = view.step_count.max(view.steps.len());
        let moves_on = matches!(view.phase.as_deref(), Some("running" | "paused"));
        if moves_on && view.step < count {
            let number = view.step + 1;
            parts.push(format!("step {number} of {count} ({})", view.step_text));
        }
        parts.push(format!("weight {} %", view.weight));
    }
    parts.extend(words::because(view));
    parts.join("  ")
}

/// A release in one line, as commands and `--watch` write it.
pub(super) fn line_with_waits(view: &View) -> String {
    match view.waits_for.as_ref().filter(|_| view.end().is_none()) {
        Some(waits_for) => format!("{}  waits for {waits_for}", line(view)),
        None => line(view),
    }
}

fn head(view: &View, now: Timestamp) -> Vec<Line<'static>> {
    let stable = view.stable.as_ref().map_or("–", |it| it.name());
    let title = format!("  {stable} → {}", view.candidate.name());
    let mut lines = vec![Line::from(vec![
        Span::from(view.endpoint.clone()).bold(),
        Span::from(title),
        Span::from(format!("  {}", view.id)).dark_gray(),
    ])];
    let started = words::moment(view.started_at);
    let took = view.finished_at.unwrap_or(now).since(view.started_at);
    let took = words::lasting(took);
    let times = match view.finished_at {
        Some(_) => format!("started {started} UTC, took {took}"),
        None => format!("started {started} UTC, {took} ago"),
    };
    let state = Span::styled(view.state.replace('_', " "), state_style(&view.state));
    lines.push(labelled(
        "state",
        [state, Span::from(format!("  {times}")).dark_gray()],
    ));
    let texts = [
        ("because", words::because(view)),
        ("waits for", view.waits_for.clone()),
        ("reason", Some(view.reason.clone())),
    ];
    for (label, text) in texts {
        if let Some(text) = text.filter(|it| !it.is_empty()) {
            lines.push(labelled(label, [Span::from(text)]));
        }
    }
    lines
}

fn state_style(state: &str) -> Style {
    let color = match state {
        "promoted" => Color::Green,
        "paused" | "pending" => Color::Yellow,
        "rolling_back" | "rolled_back" | "rollback_failed" | "aborted" | "rejected" => Color::Red,
        _ => Color::Cyan,
    };
    Style::new().fg(color).bold()
}

fn labelled(label: &str, rest: impl IntoIterator<Item = Span<'static>>) -> Line<'static> {
    let label = Span::from(format!("{label:LABEL$}")).dark_gray();
    std::iter::once(label).chain(rest).collect()
}

fn percent_bar(percent: f64, color: Color) -> Vec<Span<'static>> {
    let mut spans = bar(percent / 100.0, BAR, Style::new().fg(color));
    spans.push(Span::from(format!("  {percent} %")).bold());
    spans
}

/// `fraction` of `columns` filled; anything above zero shows.
fn bar(fraction: f64, columns: usize, style: Style) -> Vec<Span<'static>> {
    let fraction = fraction.clamp(0.0, 1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "between 0 and a few columns"
    )]
    let full = (fraction * columns as f64).round() as usize;
    let full = full.max(usize::from(fraction > 0.0));
    vec![
        Span::styled("█".repeat(full), style),
        Span::from("·".repeat(columns - full)).dark_gray(),
    ]
}

fn steps(view: &View, now: Timestamp) -> Vec<Line<'static>> {
    let mut texts = view.steps();
    if texts.last().is_none_or(|last| last != "promote") {
        texts.push("promote".to_owned());
    }
    let last = texts.len() - 1;
    // Promoting is the last step, whether it is written or not.
    let phase = view.phase.as_deref();
    let (at, mark) = match (view.end(), phase) {
        (Some(End::Promoted), _) => (texts.len(), '▶'),
        (_, None | Some("prepared" | "aborted")) => (0, '·'),
        (Some(End::NotPromoted), _) | (_, Some("rolling_back")) => (view.step, '✗'),
        (_, Some("promoting")) => (last, '▶'),
        _ => (view.step, '▶'),
    };
    // A person who promotes leaves out what would have come.
    let promotes = matches!(phase, Some("promoting" | "promoted"));
    let is_left_out = |index| promotes && index > view.step && index < last;
    let lines = texts.into_iter().enumerate().map(|(index, text)| {
        let label = if index == 0 { "steps" } else { "" };
        let (mark, style) = match index {
            index if is_left_out(index) => ('–', Style::new().fg(Color::DarkGray)),
            index if index < at => ('✓', Style::new().fg(Color::Green)),
            index if index > at || mark == '·' => ('·', Style::new().fg(Color::DarkGray)),
            _ if mark == '✗' => ('✗', Style::new().fg(Color::Red)),
            _ => ('▶', Style::new().fg(Color::Cyan).bold()),
        };
        let mut spans = vec![Span::styled(format!("{mark} {text}"), style)];
        if mark == '▶' {
            spans.push(Span::from(format!("   {}", progress(view, now))).dark_gray());
        }
        labelled(label, spans)
    });
    lines.collect()
}

/// How far the step is that is being done.
fn progress(view: &View, now: Timestamp) -> String {
    let mut parts = Vec::new();
    let analyses = view.steps.get(view.step).map(|step| &step["analyse"]);
    let promoting = view.phase.as_deref() == Some("promoting");
    if let Some(analyse) = analyses.filter(|it| it.is_object() && !promoting)
        && let Some(gathered) = &view.evidence
    {
        let judged = gathered
            .objectives
            .iter()
            .filter_map(|it| match it.measure {
                Measure::Requests { judged_in_step, .. } => Some(judged_in_step),
                Measure::Evaluation { .. } => None,
            });
        // The slowest objective decides when the step may end.
        if let Some(judged) = judged.min() {
            parts.push(match analyse["min_requests"].as_u64() {
                Some(wanted) => format!("{judged} of {wanted} requests judged"),
                None => format!("{judged} requests judged"),
            });
        }
    }
    if let Some(since) = view.since {
        parts.push(format!("for {}", words::lasting(now.since(since))));
    }
    parts.join(", ")
}

#[cfg(test)]
pub(super) mod tests;
