//! `sluice release history`: what was released, newest first.

use sluice_control::time::Timestamp;

use super::view::View;
use super::words;

pub(super) const HEADINGS: [&str; 8] = [
    "ID",
    "DEPLOYMENT",
    "CANDIDATE",
    "STABLE",
    "STATE",
    "STARTED",
    "TOOK",
    "WHY",
];

/// Columns of the reason: the whole of it is on the release's own page.
const WIDEST: usize = 60;

/// One cell a heading.
pub(super) fn row(view: &View, now: Timestamp) -> Vec<String> {
    let took = view.finished_at.unwrap_or(now).since(view.started_at);
    let took = words::lasting(took);
    vec![
        view.id.clone(),
        view.endpoint.clone(),
        view.candidate.name().to_owned(),
        view.stable
            .as_ref()
            .map_or_else(|| "–".to_owned(), |it| it.name().to_owned()),
        view.state.clone(),
        words::moment(view.started_at),
        match view.finished_at {
            Some(_) => took,
            None => format!("{took} so far"),
        },
        why(view),
    ]
}

fn why(view: &View) -> String {
    let waits = || view.waits_for.as_ref().map(|it| format!("waits for {it}"));
    let given = || Some(view.reason.clone());
    let text = words::because(view).or_else(waits).or_else(given);
    let text = text.unwrap_or_default();
    if text.chars().count() > WIDEST {
        return text.chars().take(WIDEST - 1).chain(['…']).collect();
    }
    text
}

#[cfg(test)]
mod tests;
