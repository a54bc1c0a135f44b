//! The protocol on real graphs: bodies as clients send them, answers as they
//! read them.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;

mod bodies;
mod endpoints;
mod release;
