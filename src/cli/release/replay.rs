//! `sluice release replay`: every decision again, with the evidence that it was made on.

use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use sluice_control::domain::record::DecisionKind;

use super::page::assessed;
use super::view::{Decision, View};
use super::words;

/// The history of a release, oldest first.
pub(super) fn replay(view: &View, decisions: &[Decision]) -> Vec<Line<'static>> {
    let stable = view.stable.as_ref().map_or("–", |it| it.name());
    let mut lines = vec![Line::from(format!(
        "{}  {stable} → {}  {}",
        view.endpoint,
        view.candidate.name(),
        view.id
    ))];
    let steps = view.steps();
    for decision in decisions {
        lines.push(Line::default());
        lines.push(decided(decision, &steps));
        let evidence = decision.evidence.iter().flat_map(assessed);
        lines.extend(evidence.map(indented));
    }
    if decisions.is_empty() {
        lines.push(Line::from("Nothing has been decided yet."));
    }
    if let Some(waits_for) = view.waits_for.as_ref().filter(|_| view.end().is_none()) {
        lines.push(Line::default());
        lines.push(Line::from(format!("It waits for {waits_for}.")));
    }
    lines
}

fn decided(decision: &Decision, steps: &[String]) -> Line<'static> {
    let color = match decision.kind {
        DecisionKind::Action => Color::Cyan,
        DecisionKind::Command => Color::Green,
        DecisionKind::Refused => Color::Yellow,
        DecisionKind::Note => Color::DarkGray,
    };
    Line::from(vec![
        Span::from(words::moment_ms(decision.at)).dark_gray(),
        Span::styled(
            format!("  {:12}  ", words::actor(decision)),
            Style::new().fg(color),
        ),
        Span::from(words::decided(decision, steps)).bold(),
    ])
}

fn indented(mut line: Line<'static>) -> Line<'static> {
    line.spans.insert(0, Span::from("    "));
    line
}

#[cfg(test)]
mod tests;
