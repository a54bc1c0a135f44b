//! Where a release put one request, and what it left there.

use std::sync::{Arc, OnceLock};

use http::StatusCode;
use parking_lot::Mutex;

use super::Class;
use super::body::Kept;
use super::shadow::ShadowRequest;
use crate::router::split::{Pick, Side};
use crate::router::{Deployment, Release};

/// Stays with a request under release to its end, in its [`crate::Outcome`].
#[derive(Debug)]
pub struct Placement {
    release: Arc<Release>,
    pick: Pick,
    /// How the candidate failed; stable was asked then.
    failure: OnceLock<(Class, StatusCode)>,
    left: Mutex<Left>,
}

/// What is taken when the request is over.
#[derive(Debug, Default)]
struct Left {
    answer: Option<Kept>,
    copy: Option<Box<ShadowRequest>>,
}

impl Placement {
    /// The request goes where `pick` says.
    pub(crate) fn new(release: Arc<Release>, pick: Pick) -> Self {
        Self {
            release,
            pick,
            failure: OnceLock::new(),
            left: Mutex::default(),
        }
    }

    /// The release as it was when the request was routed.
    #[must_use]
    pub fn release(&self) -> &Arc<Release> {
        &self.release
    }

    /// Where the request was put.
    #[must_use]
    pub fn pick(&self) -> &Pick {
        &self.pick
    }

    /// How the candidate failed, where stable was asked instead.
    #[must_use]
    pub fn failure(&self) -> Option<(Class, StatusCode)> {
        self.failure.get().copied()
    }

    /// Who answers: whom the request was put to, unless that failed.
    #[must_use]
    pub fn deployment(&self) -> &Arc<Deployment> {
        match self.failure.get() {
            None => self.release.side(self.pick.side),
            Some(_) => self.release.side(Side::Stable),
        }
    }

    /// From now on stable answers.
    pub(crate) fn fall_back(&self, class: Class, status: StatusCode) {
        _ = self.failure.set((class, status));
    }

    /// Leaves what was answered.
    pub(super) fn keep_answer(&self, answer: Kept) {
        self.left.lock().answer = Some(answer);
    }

    /// Leaves a copy of the request for the candidate.
    pub(crate) fn keep_copy(&self, copy: Box<ShadowRequest>) {
        self.left.lock().copy = Some(copy);
    }

    /// Takes what was left.
    pub(super) fn take(&self) -> (Option<Kept>, Option<Box<ShadowRequest>>) {
        let left = std::mem::take(&mut *self.left.lock());
        (left.answer, left.copy)
    }
}
