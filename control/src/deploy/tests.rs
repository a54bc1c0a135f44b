//! Work orders with real models behind real HTTP, on both databases.
#![expect(clippy::unwrap_used, reason = "tests")]

mod crash;
mod gate;
mod held;
mod resume;
pub(crate) mod rig;
mod switch;

pub(crate) use rig::Rig;
