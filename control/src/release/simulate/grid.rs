//! The map of what is found how fast: true differences against weights and rates.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::report::{Summary, Tick, simulate};
use super::traffic::{Change, Spread, Traffic};
use crate::release::strategy::{Analyse, Bar, Event, Objective, Rule, Step, Strategy};

/// Stable's error ratio in the grid.
const ERRORS: f64 = 0.005;

/// Which cells to simulate, and how often each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// The candidate's error ratio, where stable has 0.5 %.
    pub errors: Vec<f64>,
    /// How many times as long everything takes.
    pub slower: Vec<f64>,
    /// Percent.
    pub weights: Vec<f64>,
    pub rates: Vec<f64>,
    /// How long a release is watched.
    pub minutes: u64,
    pub releases: u64,
}

/// One true difference, at one weight and rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The candidate's error ratio.
    pub error: f64,
    pub slower: f64,
    pub weight: f64,
    pub rate: f64,
}

/// A cell and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub cell: Cell,
    pub summary: Summary,
}

impl Default for Grid {
    fn default() -> Self {
        Self {
            errors: vec![0.01, 0.02, 0.05, 0.2],
            slower: vec![1.2, 1.5, 3.0],
            weights: vec![1.0, 5.0, 10.0, 50.0],
            rates: vec![1.0, 10.0, 100.0, 1_000.0],
            minutes: 30,
            releases: 100,
        }
    }
}

impl Grid {
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        let errors = self.errors.iter().map(|error| (*error, 1.0));
        let slower = self.slower.iter().map(|slower| (ERRORS, *slower));
        let mut cells = Vec::new();
        for (error, slower) in errors.chain(slower) {
            for &rate in &self.rates {
                cells.extend(self.weights.iter().map(|&weight| Cell {
                    error,
                    slower,
                    weight,
                    rate,
                }));
            }
        }
        cells
    }

    /// Simulates one cell, beside the rules of Flagger and Argo on the same traffic.
    #[must_use]
    pub fn row(&self, cell: Cell, seed: u64, tick: Tick<'_>) -> Row {
        let lasts = Duration::from_secs(60 * self.minutes);
        let summary = simulate(
            &cell.strategy(lasts),
            &cell.traffic(lasts),
            &[],
            self.releases,
            seed,
            true,
            tick,
        );
        Row { cell, summary }
    }
}

impl Cell {
    /// One weight, held; five objectives compared with stable, as `releases` in practice have.
    fn strategy(self, lasts: Duration) -> Strategy {
        let compared = |event| Objective::event(event, Rule::CompareStable);
        Strategy {
            steps: vec![
                Step::Weight(self.weight),
                Step::Analyse(Analyse {
                    min_requests: None,
                    max_duration: lasts * 2,
                }),
            ],
            objectives: vec![
                compared(Event::Error),
                compared(Event::SlowRequest(Bar::Time(slow()))),
                compared(Event::SlowTtft(Bar::Time(Duration::from_secs(5)))),
                compared(Event::Empty),
                compared(Event::Refusal),
            ],
            settle: if self.slower > 1.0 {
                Strategy::default().settle
            } else {
                Duration::ZERO
            },
            ..Strategy::default()
        }
    }

    fn traffic(self, lasts: Duration) -> Traffic {
        let mut traffic = Traffic {
            rate: self.rate,
            lasts,
            users: 100_000,
            candidate: Change {
                // What is to be added so that the ratio is right.
                error: (self.error - ERRORS) / (1.0 - ERRORS),
                slower: self.slower,
                ..Change::default()
            },
            ..Traffic::default()
        };
        traffic.stable.error = ERRORS;
        traffic.stable.total = Spread {
            p50: Duration::from_millis(400),
            p99: Duration::from_millis(1_600),
        };
        traffic.stable.ttft = Spread {
            p50: Duration::from_millis(100),
            p99: Duration::from_millis(400),
        };
        traffic
    }
}

/// A limit as people set it: a quarter above stable's 99th percentile.
const fn slow() -> Duration {
    Duration::from_millis(2_000)
}
