//! What every state machine offers, so that one test, one store function and one page of the manual
//! serve them all.

use std::fmt::{Debug, Display, Write as _};
use std::hash::Hash;
use std::str::FromStr;

/// A state, and by it a machine. Pure: no clock, no I/O; what it needs to know is in state and event.
pub trait Machine:
    Copy + Eq + Ord + Hash + Debug + Display + FromStr + Send + Sync + 'static
{
    type Event: Copy + Eq + Ord + Debug + Display + FromStr + Send + Sync + 'static;

    /// The record it belongs to: `model version`.
    const NAME: &'static str;
    /// What the manual says about it, in a few sentences.
    const SUMMARY: &'static str;
    const INITIAL: Self;
    const STATES: &'static [Self];
    const EVENTS: &'static [Self::Event];

    /// The one `match` of the machine. `None` where the event is not legal in this state.
    fn transition(self, event: Self::Event) -> Option<Self>;

    /// The state after `event`.
    ///
    /// # Errors
    /// [`Illegal`], with the events that would be legal.
    fn apply(self, event: Self::Event) -> Result<Self, Illegal> {
        self.transition(event).ok_or_else(|| Illegal {
            machine: Self::NAME,
            state: self.to_string(),
            event: event.to_string(),
            legal: self.legal().iter().map(ToString::to_string).collect(),
        })
    }

    /// The events that may happen in this state.
    fn legal(self) -> Vec<Self::Event> {
        Self::EVENTS
            .iter()
            .copied()
            .filter(|&event| self.transition(event).is_some())
            .collect()
    }

    /// Whether nothing can happen any more.
    fn is_final(self) -> bool {
        self.legal().is_empty()
    }
}

/// An event that may not happen in the state that the record is in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a {machine} in state {state} does not take \"{event}\"; {}",
    legal_phrase(legal)
)]
pub struct Illegal {
    pub machine: &'static str,
    pub state: String,
    pub event: String,
    pub legal: Vec<String>,
}

fn legal_phrase(legal: &[String]) -> String {
    if legal.is_empty() {
        "the state is final".into()
    } else {
        format!("it takes: {}", legal.join(", "))
    }
}

/// The section of `docs/state-machines.md` about one machine: a diagram and a table, both from the code.
pub(crate) fn document<M: Machine>() -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = document_into::<M>(&mut page);
    page
}

fn document_into<M: Machine>(page: &mut String) -> std::fmt::Result {
    let mut title: Vec<char> = M::NAME.chars().collect();
    title[0].make_ascii_uppercase();
    writeln!(
        page,
        "## {}\n\n{}\n",
        title.iter().collect::<String>(),
        M::SUMMARY
    )?;
    writeln!(
        page,
        "```mermaid\nstateDiagram-v2\n    direction LR\n    [*] --> {}",
        M::INITIAL
    )?;
    for &state in M::STATES {
        for event in state.legal() {
            if let Some(next) = state.transition(event) {
                writeln!(page, "    {state} --> {next}: {event}")?;
            }
        }
        if state.is_final() {
            writeln!(page, "    {state} --> [*]")?;
        }
    }
    writeln!(
        page,
        "```\n\n| in state | the event | leads to |\n|---|---|---|"
    )?;
    for &state in M::STATES {
        for event in state.legal() {
            if let Some(next) = state.transition(event) {
                writeln!(page, "| `{state}` | `{event}` | `{next}` |")?;
            }
        }
        if state.is_final() {
            writeln!(page, "| `{state}` | none: it is final | |")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
