//! Loads that can be ended from another thread: reading, optimising and trying a graph may take as long as the graph wants.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::LoadError;

/// Ends a load that runs in [`Self::during`], from any thread. Clones are of the same load.
#[derive(Clone, Default)]
pub struct LoadCanceller(Arc<Mutex<Loading>>);

#[derive(Default)]
struct Loading {
    cancelled: bool,
    /// What ends the sessions that it has begun so far.
    ends: Vec<Box<dyn Fn() + Send>>,
}

thread_local! {
    static CURRENT: RefCell<Option<LoadCanceller>> = const { RefCell::new(None) };
}

impl LoadCanceller {
    /// The one of the load that runs on this thread; where there is none, one that nobody cancels.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.with_borrow(Option::clone).unwrap_or_default()
    }

    /// Runs a load, or a part of it on a thread of its own, so that [`Self::cancel`] ends it.
    pub fn during<T>(&self, load: impl FnOnce() -> T) -> T {
        let _outer = Outer(CURRENT.replace(Some(self.clone())));
        load()
    }

    /// What has begun of the load ends soon, and what comes next of it fails. Not to be called for a model that is in
    /// use: its runs fail too.
    pub fn cancel(&self) {
        let mut loading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loading.cancelled = true;
        for end in &loading.ends {
            end();
        }
    }

    /// Whether somebody has given up the load.
    ///
    /// # Errors
    /// [`LoadError::Cancelled`]
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let loading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if loading.cancelled {
            return Err(LoadError::Cancelled);
        }
        Ok(())
    }

    /// Tells how to end what begins now.
    ///
    /// # Errors
    /// [`LoadError::Cancelled`]: it is not to begin.
    pub(crate) fn begin(&self, end: impl Fn() + Send + 'static) -> Result<(), LoadError> {
        let mut loading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if loading.cancelled {
            return Err(LoadError::Cancelled);
        }
        loading.ends.push(Box::new(end));
        Ok(())
    }
}

impl fmt::Debug for LoadCanceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoadCanceller")
    }
}

/// Puts back what was there, whatever the load does.
struct Outer(Option<LoadCanceller>);

impl Drop for Outer {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[test]
    fn what_begins_is_ended_and_nothing_more_begins() {
        let ended = Arc::new(AtomicUsize::new(0));
        let canceller = LoadCanceller::default();
        let begin = || {
            let ended = Arc::clone(&ended);
            LoadCanceller::current().begin(move || _ = ended.fetch_add(1, SeqCst))
        };
        canceller.during(|| begin().expect("nobody has cancelled it"));
        begin().expect("outside of it nobody can");
        canceller.cancel();
        assert_eq!(ended.load(SeqCst), 1);
        let again = canceller.during(begin);
        assert!(matches!(again, Err(LoadError::Cancelled)));
    }

    #[test]
    fn a_load_that_panics_leaves_its_thread_as_it_was() {
        let canceller = LoadCanceller::default();
        let load = std::panic::AssertUnwindSafe(|| canceller.during(|| panic!("no")));
        assert!(std::panic::catch_unwind(load).is_err());
        canceller.cancel();
        assert!(LoadCanceller::current().check().is_ok());
    }
}
