//! What the platform is about: records, their states, and the rules between them. Values only; no SQL,
//! no clock and no I/O, so that every rule is tested by handing it values.

pub mod apply;
pub mod frameworks;
pub mod gate;
pub mod machine;
pub mod model_version;
pub mod record;
pub mod roles;
pub mod run;
pub mod secrecy;
pub mod task;
pub mod upload;
pub mod words;
pub mod work_order;

use words::words;

words! {
    /// What an evaluation run concludes about a version.
    pub enum Verdict ("verdict") {
        Passed = "passed",
        Failed = "failed",
        /// The confidence intervals allow both.
        Inconclusive = "inconclusive",
    }
}

/// The text of `docs/state-machines.md`, written by the machines themselves.
pub fn document() -> String {
    format!(
        "# States and rights\n\n\
         Generated from `control/src/domain`; do not edit. `make docs` writes it anew, and a test fails while it\n\
         differs from the code. An event that a state does not take is refused with 409 and the events that it\n\
         does take. Every step is logged with who made it and why.\n\n\
         {}\n{}\n{}\n{}\n{}\n## Roles\n\nA role holds inside its principal's department; an admin's holds in all.\n\n{}",
        machine::document::<model_version::ModelVersionState>(),
        machine::document::<work_order::WorkOrderState>(),
        machine::document::<task::TaskState>(),
        machine::document::<run::RunStatus>(),
        machine::document::<upload::UploadState>(),
        roles::document(),
    )
}

#[cfg(test)]
mod tests;
