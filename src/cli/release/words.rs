//! Decisions, times and numbers in words.

use std::time::Duration;

use sluice_control::domain::record::DecisionKind;
use sluice_control::release::analysis::Ratio;
use sluice_control::release::planner::{Action, Phase, Why};
use sluice_control::time::Timestamp;

use super::view::{Decision, View};

/// What a pause or a roll-back is for.
pub(super) fn why(why: &Why) -> String {
    match why {
        Why::Step => "the strategy pauses here".to_owned(),
        Why::Person => "a person asked for it".to_owned(),
        Why::Breach(because) | Why::Inconclusive(because) => because.clone(),
        Why::Gate(missing) => format!("the approval gate is closed: {}", missing.join("; ")),
    }
}

/// Why a release stands where it does, or ended as it did.
pub(super) fn because(view: &View) -> Option<String> {
    let ended = view.ended_because.clone().filter(|it| !it.is_empty());
    ended
        .or_else(|| paused(view))
        .or_else(|| view.why.as_ref().map(why))
}

fn paused(view: &View) -> Option<String> {
    let by = view.paused_by.as_ref()?;
    Some(match &view.paused_because {
        Some(reason) => format!("{by} paused it: {reason}"),
        None => format!("{by} paused it"),
    })
}

/// What was decided.
pub(super) fn decided(decision: &Decision, steps: &[String]) -> String {
    let reason = decision.reason.as_deref().filter(|it| !it.is_empty());
    let text = match (&decision.action, decision.kind) {
        (Some(action), _) => acted(action, &decision.state.phase, steps),
        (None, DecisionKind::Refused) => {
            return format!("was refused: {}", reason.unwrap_or("no reason given"));
        }
        (None, _) => return reason.unwrap_or("made a note").to_owned(),
    };
    match reason {
        Some(reason) => format!("{text} — {reason}"),
        None => text,
    }
}

fn acted(action: &Action, after: &Phase, steps: &[String]) -> String {
    let for_that = |verb: &str, reason: &Why| match reason {
        // Who decided it stands beside.
        Why::Person => verb.to_owned(),
        reason => format!("{verb}: {}", why(reason)),
    };
    match action {
        Action::Wait { .. } => "waits".to_owned(),
        Action::Enter {
            step,
            share,
            shadow,
        } => {
            let number = step + 1;
            let text = steps.get(*step).map(String::as_str).unwrap_or("?");
            let traffic = match (share.as_percent(), shadow.as_percent()) {
                // The step says it itself.
                _ if text.starts_with("weight") || text.starts_with("shadow") => String::new(),
                (weight, 0.0) => format!(" (weight {weight} %)"),
                (weight, copied) => format!(" (weight {weight} %, {copied} % copied)"),
            };
            format!("begins step {number} of {}: {text}{traffic}", steps.len())
        }
        Action::Extend { because } => format!("gives the analysis its time once more: {because}"),
        Action::Pause { why } => for_that("pauses", why),
        Action::Resume => "resumes".to_owned(),
        Action::Promote => "promotes: all traffic to the candidate".to_owned(),
        Action::RollBack { why } => for_that("takes it back", why),
        Action::Finish => match after {
            Phase::Promoted => "ends it: the candidate is live",
            Phase::RolledBack { .. } => "ends it: stable has all traffic",
            _ => "ends it",
        }
        .to_owned(),
        Action::Abort => "aborts it before anything reached the candidate".to_owned(),
    }
}

/// Who decided: a person's name, or the part of the system.
pub(super) fn actor(decision: &Decision) -> &str {
    let name = decision.actor.as_str();
    name.strip_prefix("system: ").unwrap_or(name)
}

/// `2026-11-26 18:21:03`, UTC.
pub(super) fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// `2026-11-26 18:21:03.123`, UTC.
pub(super) fn moment_ms(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..23).unwrap_or(&text).replace('T', " ")
}

/// `18:21:03`, UTC.
pub(super) fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(11..19).unwrap_or(&text).to_owned()
}

/// Two units are enough: `1h 12m`.
pub(super) fn lasting(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

/// A share of requests in percent, with as many digits as tell something.
pub(super) fn share(ratio: Ratio) -> String {
    if ratio.of == 0 {
        return "–".to_owned();
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2⁵² requests")]
    let percent = 100.0 * ratio.events as f64 / ratio.of as f64;
    let percent = match percent {
        0.0 => "0".to_owned(),
        percent if percent < 10.0 => format!("{percent:.2}"),
        percent => format!("{percent:.1}"),
    };
    format!("{percent} %  {ratio}")
}

/// An e-value: three digits, or a power of ten.
pub(super) fn e_value(value: f64) -> String {
    match value {
        value if value >= 99_999.5 => format!("{value:.1e}"),
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// Seconds with a unit.
pub(super) fn seconds(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 0.0 => format!("−{}", seconds(-value)),
        value => crate::cli::top::milliseconds(value * 1e3),
    }
}

#[cfg(test)]
mod tests;
