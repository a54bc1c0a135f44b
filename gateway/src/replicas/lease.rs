//! A replica in the hands of one request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::body::{Frame, SizeHint};

use super::{LocalModel, Set};
use crate::{Body, BoxError};

/// No replica takes the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoReplica {
    /// Time until one does; `None` when all were given up.
    pub expected: Option<Duration>,
}

/// The replicas that one request has asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried(u64);

impl Tried {
    pub(super) fn holds(self, place: usize) -> bool {
        self.0 & 1 << place != 0
    }

    /// Adds the replica of a lease.
    pub fn add(&mut self, lease: &Lease) {
        self.0 |= 1 << lease.place;
    }
}

/// A replica that one request uses. Its load counts it until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Lease {
    model: Arc<LocalModel>,
    place: usize,
    counted: Option<Counted>,
}

impl Lease {
    pub(super) fn new(model: Arc<LocalModel>, place: usize, counted: Option<Counted>) -> Self {
        Self {
            model,
            place,
            counted,
        }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<LocalModel> {
        &self.model
    }

    /// Whether its executor was lost meanwhile.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        !self.model.healthy()
    }

    /// Goes on until the answer's last byte.
    pub fn follow(self, answer: Response<Body>) -> Response<Body> {
        match self.counted {
            None => answer,
            Some(_counted) => answer.map(|body| Body::new(Followed { body, _counted })),
        }
    }
}

/// One request in a replica's load.
#[derive(Debug)]
pub(super) struct Counted {
    set: Arc<Set>,
    place: usize,
}

impl Counted {
    pub(super) fn new(set: Arc<Set>, place: usize) -> Self {
        set.all[place].in_flight.fetch_add(1, Relaxed);
        Self { set, place }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set.all[self.place].in_flight.fetch_sub(1, Relaxed);
    }
}

/// A body that is counted until it ends or is dropped.
struct Followed {
    body: Body,
    _counted: Counted,
}

impl hyper::body::Body for Followed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
