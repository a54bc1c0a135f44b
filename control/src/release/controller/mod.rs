//! Asks the planner what comes next, and does it.
//!
//! | part | what it does | needs the database |
//! |---|---|---|
//! | [`Watches`] | hears of every request under release, keeps the evidence, pulls the brake on a breach | no |
//! | [`Recorder`] | writes down what was taken back: to a journal at once, to the database when it answers | no |
//! | [`Controller`] | plans, checks the gate, moves the traffic on | yes |
//! | [`Releases`] | what people and the API ask | for all but taking back |
//!
//! A release is a work order with a strategy. Its state lies in the order's row; an action changes state, row and
//! history in one transaction, and the [`Publisher`](crate::publish::Publisher) of every process follows. Two
//! processes that decide at once are told apart by the row's version: one of them reads again.
//!
//! Only taking back is quicker than the database: the route table is swapped in the thread that saw the breach, and
//! the records follow. While the database does not answer nothing advances, since the gate could not be asked.

mod act;
mod back;
mod drive;
mod people;
mod record;
mod watch;

use sluice_gateway::router::split::{
    Cohort as Callers, Split, SplitConfig, SplitError, StickyKey, Weight,
};

pub use back::TakenBackTo;
pub use drive::Controller;
pub use people::{NewRelease, ReleaseError, Releases};
pub use record::{Recorder, TakenBack};
pub use watch::{Gathered, Watches};

use super::analysis::Share;
use super::planner::Release;
use super::strategy::{Cohort, Strategy};

/// How a release divides the traffic where it stands. `salt` differs from release to release, so that the first to
/// get one candidate are not the first to get every candidate.
///
/// # Errors
/// A header or a sticky key that no request can have.
pub fn split(strategy: &Strategy, state: &Release, salt: &str) -> Result<Split, SplitError> {
    let weight = |share: Share| Weight::percent(share.as_percent());
    let cohort = |cohort: &Cohort| match cohort {
        Cohort::Header(headers) => {
            Callers::headers(headers.iter().map(|(name, value)| (&**name, &**value)))
        }
        Cohort::Principal(names) => Ok(Callers::Principals(
            names.iter().map(|name| name.as_str().into()).collect(),
        )),
    };
    let sticky: Result<Vec<StickyKey>, _> = strategy.sticky.iter().map(|it| it.parse()).collect();
    let cohorts: Result<Vec<Callers>, _> = strategy.cohorts.iter().map(cohort).collect();
    Ok(Split::new(SplitConfig {
        salt: salt.to_owned(),
        weight: weight(state.share)?,
        shadow: weight(state.shadow)?,
        cohorts: cohorts?,
        sticky: sticky?,
    }))
}

#[cfg(test)]
mod tests;
