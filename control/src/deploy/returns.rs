//! What a deployment can be taken back to, and what `rollback` means by it: pure functions of what was live.
//!
//! `rollback` goes back one step and is asked for twice, by two people, or right after the analysis has done the same. So it
//! goes from what is live to what was live before, once: what was taken back already is left as it is, and only a revision
//! that is named goes further.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::replicas::label;
use crate::store::LiveRevision;
use crate::time::Timestamp;

/// A revision that was live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Return {
    pub revision: LiveRevision,
    /// When it was live first.
    pub since: Timestamp,
}

/// What of a deployment was live.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// The latest first, each once.
    pub returns: Vec<Return>,
    /// When a release beside what is live was last taken back.
    pub taken_back: Option<Timestamp>,
}

/// What a roll-back amounts to.
#[derive(Debug, Clone, PartialEq)]
pub enum Aim {
    /// It was done before: nothing moves.
    Already(Already),
    Bring(Box<Return>),
}

/// Why nothing moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Already {
    /// What answers, as `x-sluice-revision` says it.
    pub answers: String,
    pub because: String,
    /// What `to` could name to go further, the nearest first.
    pub further: Vec<String>,
}

/// The revision that was named cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; live here were {}", list(.known))]
pub struct Unnamed {
    pub problem: String,
    /// Revisions and versions that are right, the latest first.
    pub known: Vec<String>,
}

fn list(known: &[String]) -> String {
    match known {
        [] => "none".to_owned(),
        known => known.join(", "),
    }
}

impl Return {
    /// `v2-k3x9qa`.
    pub fn label(&self) -> String {
        label(self.revision.number, &self.revision.origin().to_string())
    }

    /// With the time, for lists.
    fn described(&self) -> String {
        let since = self.since.to_string();
        let since = since.get(..16).unwrap_or(&since).replace('T', " ");
        format!("{} (since {since} UTC)", self.label())
    }

    /// Whether going to it would change nothing.
    fn is_like(&self, live: &LiveRevision) -> bool {
        self.revision.version == live.version && self.revision.snapshot == live.snapshot
    }
}

/// `v2-k3x9qa` of what is live.
pub fn label_of(live: &LiveRevision) -> String {
    label(live.number, &live.origin().to_string())
}

impl History {
    /// What was live before `live` was for the first time, and differs from it.
    pub(super) fn before(&self, live: &LiveRevision) -> impl Iterator<Item = &Return> {
        let origin = live.origin();
        let place = self
            .returns
            .iter()
            .position(|it| it.revision.origin() == origin);
        // One that has become live this moment is the latest of all.
        let earlier = self.returns.get(place.map_or(0, |at| at + 1)..);
        let live = live.clone();
        earlier
            .unwrap_or_default()
            .iter()
            .filter(move |it| !it.is_like(&live))
    }

    /// What a roll-back amounts to. `to`: what it shall lead to. Without, a release that was taken back within `repeats`
    /// is what was meant. `None`: there is nothing earlier.
    ///
    /// # Errors
    /// [`Unnamed`].
    pub fn aim(
        &self,
        live: &LiveRevision,
        to: Option<&str>,
        repeats: Duration,
        now: Timestamp,
    ) -> Result<Option<Aim>, Unnamed> {
        let answers = label_of(live);
        if let Some(to) = to {
            let named = self.named(to, live)?;
            return Ok(Some(match named.revision.origin() == live.origin() {
                true => Aim::Already(self.already(live, format!("{answers} answers"))),
                false => Aim::Bring(Box::new(named.clone())),
            }));
        }
        if live.restores.is_some() {
            let because = format!("{answers} was brought back and answers");
            return Ok(Some(Aim::Already(self.already(live, because))));
        }
        if let Some(at) = self.taken_back.filter(|at| now < at.after(repeats)) {
            let at = at.to_string();
            let at = at.get(..19).unwrap_or(&at).replace('T', " ");
            let because = format!("a release was taken back at {at} UTC, and {answers} answers");
            return Ok(Some(Aim::Already(self.already(live, because))));
        }
        let before = self.before(live).next();
        Ok(before.map(|it| Aim::Bring(Box::new(it.clone()))))
    }

    /// Nothing moves, and this is how to go further.
    pub fn already(&self, live: &LiveRevision, because: String) -> Already {
        Already {
            answers: label_of(live),
            because,
            further: self.before(live).map(Return::label).collect(),
        }
    }

    /// The revision that a text means: its own name or the beginning of it, a version's newest, or the work order that
    /// brought it.
    fn named(&self, text: &str, live: &LiveRevision) -> Result<&Return, Unnamed> {
        let refuse = |problem: String, found: &[&Return]| {
            let known = match found {
                [] => self.returns.iter().map(Return::described).collect(),
                found => found.iter().map(|it| it.described()).collect(),
            };
            Err(Unnamed { problem, known })
        };
        let version = text.rsplit('@').next().unwrap_or(text);
        let number = version.strip_prefix('v').unwrap_or(version);
        let number: Option<i64> = number.parse().ok();
        let found: Vec<&Return> = self
            .returns
            .iter()
            .filter(|it| match number {
                Some(number) => it.revision.number == number,
                None => {
                    let order = it.revision.origin().to_string();
                    version.len() > 1 && (it.label().starts_with(version) || order == version)
                }
            })
            .collect();
        let exact = found.iter().find(|it| it.label() == version);
        match (exact, found.as_slice(), number) {
            (Some(exact), _, _) | (None, [exact], _) => Ok(exact),
            (None, [newest, ..], Some(_)) => Ok(newest),
            (None, [], _) if version == label_of(live) => {
                refuse(format!("{text} is what answers"), &[])
            }
            (None, [], _) => refuse(format!("{text} was never live here"), &[]),
            (None, several, None) => refuse(format!("{text} may be any of several"), several),
        }
    }
}

#[cfg(test)]
mod tests;
