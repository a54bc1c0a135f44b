#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod fallback;
mod load;
mod rig;
mod shadow;
