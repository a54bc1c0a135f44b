//! How an answer fails.

use crate::release::Class;
use crate::validate::Defect;

/// Why an answer is none, or not all of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::remote) enum Flaw {
    /// The connection was lost.
    Lost,
    /// Nothing came for too long.
    Idle,
    /// The request's deadline passed.
    Deadline,
    /// It is no answer.
    Defect(Defect),
}

impl Flaw {
    pub(in crate::remote) fn message(self) -> &'static str {
        match self {
            Self::Lost => "The upstream closed its connection in the middle of the answer.",
            Self::Idle => "The upstream stopped sending in the middle of the answer.",
            Self::Deadline => "The request's deadline passed in the middle of the answer.",
            Self::Defect(defect) => defect.message(),
        }
    }

    pub(super) fn class(self) -> Class {
        match self {
            Self::Lost => Class::Failed,
            Self::Idle | Self::Deadline => Class::Timeout,
            Self::Defect(_) => Class::Broken,
        }
    }
}
