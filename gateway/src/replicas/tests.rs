//! Executors that are lost and come back, seen by clients over real HTTP.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod device;
mod folder;
mod lost;
mod rig;

use super::*;
use rig::{Bench, Rack, until};
