#![expect(clippy::unwrap_used, reason = "tests")]

mod kinds;
mod rig;
mod runs;
mod stops;
