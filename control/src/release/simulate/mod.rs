//! Releases that never happen: planner and analyser on made-up or recorded traffic, so that alpha, steps and
//! minimum counts can be chosen with open eyes before a release depends on them.
//!
//! Every run follows from its seed.

mod frontier;
mod grid;
mod report;
mod rival;
mod run;
mod source;
mod traffic;

pub use frontier::{PARTS, Point, WEIGHTS, point, settings};
pub use grid::{Cell, Grid, Row};
pub use report::{Chance, Spent, Summary, Tick, simulate};
pub use run::{Ended, Run, Taken, run};
pub use source::Recorded;
pub use traffic::{
    Agents, Bursts, Change, Diurnal, Incidents, Lands, Noisy, Profile, Spread, Stops, Traffic,
    TrafficError,
};

#[cfg(test)]
mod tests;
