//! When failures that cost one run each add up to a backend that is lost.

use crate::error::BackendError;

/// Runs that fail in a row, by default, before a backend counts as lost. A request
/// that fails by itself is sent three times by the usual clients, so two of those do
/// not end an executor that nobody else uses.
pub const FAILED_RUNS: u32 = 8;

/// Counts runs that failed one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailedRuns {
    /// 0: there is no limit.
    limit: u32,
    in_row: u32,
}

impl FailedRuns {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, in_row: 0 }
    }

    /// A run has ended. `Err`: why the backend is lost by now.
    pub(crate) fn note<T>(&mut self, run: &Result<T, BackendError>) -> Result<(), String> {
        match run {
            Ok(_) => {
                self.in_row = 0;
                Ok(())
            }
            // It says nothing of the backend, good or bad.
            Err(BackendError::Refused(_)) => Ok(()),
            Err(BackendError::Fatal(reason)) => Err(reason.clone()),
            Err(BackendError::Step(reason)) => {
                self.in_row = self.in_row.saturating_add(1);
                match self.limit {
                    0 => Ok(()),
                    limit if self.in_row < limit => Ok(()),
                    limit => Err(format!("{limit} runs in a row failed, the last: {reason}")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> Result<(), BackendError> {
        Err(BackendError::Step("out of memory".into()))
    }

    #[test]
    fn only_failures_in_a_row_add_up() {
        let mut runs = FailedRuns::new(3);
        for _ in 0..10 {
            assert_eq!((runs.note(&step()), runs.note(&step())), (Ok(()), Ok(())));
            assert_eq!(runs.note(&Ok(())), Ok(()));
        }
        assert_eq!((runs.note(&step()), runs.note(&step())), (Ok(()), Ok(())));
        let lost = Err("3 runs in a row failed, the last: out of memory".to_owned());
        assert_eq!(runs.note(&step()), lost);
    }

    #[test]
    fn what_clients_ask_wrongly_does_not_count() {
        let mut runs = FailedRuns::new(2);
        let refused = Err::<(), _>(BackendError::Refused("no such shape".into()));
        assert!((0..10).all(|_| runs.note(&refused) == Ok(())));
        assert_eq!(runs.note(&step()), Ok(()));
        assert_eq!(runs.note(&refused), Ok(()));
        assert!(runs.note(&step()).is_err());
    }

    #[test]
    fn a_lost_device_is_lost_at_once_and_zero_is_no_limit() {
        let mut runs = FailedRuns::new(0);
        assert!((0..1000).all(|_| runs.note(&step()) == Ok(())));
        let fatal = Err::<(), _>(BackendError::Fatal("gone".into()));
        assert_eq!(runs.note(&fatal), Err("gone".to_owned()));
    }
}
