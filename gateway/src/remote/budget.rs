//! Retries may add a share to the requests sent, no more: when everything
//! fails, retrying everything makes it worse.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// A bucket that each request fills by the share and each retry empties by one.
#[derive(Debug)]
pub(super) struct Budget {
    /// Thousandths of a retry.
    balance: AtomicI64,
    deposit: i64,
}

const RETRY: i64 = 1000;
/// Retries that are always possible after a quiet time.
const RESERVE: i64 = 10 * RETRY;

impl Budget {
    pub(super) fn new(share: f64) -> Self {
        Self {
            balance: AtomicI64::new(if share > 0.0 { RESERVE } else { 0 }),
            deposit: (share * RETRY as f64) as i64,
        }
    }

    /// A request was sent for the first time.
    pub(super) fn deposit(&self) {
        if self.balance.load(Relaxed) < RESERVE {
            self.balance.fetch_add(self.deposit, Relaxed);
        }
    }

    /// Takes one retry, if there is one.
    pub(super) fn withdraw(&self) -> bool {
        self.balance
            .fetch_update(Relaxed, Relaxed, |balance| {
                (balance >= RETRY).then(|| balance - RETRY)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_requests() {
        let budget = Budget::new(0.2);
        let reserve = (0..100).filter(|_| budget.withdraw()).count();
        assert_eq!(reserve, 10);
        let retried = (0..1000)
            .filter(|_| {
                budget.deposit();
                budget.withdraw()
            })
            .count();
        assert_eq!(retried, 200);
    }

    #[test]
    fn a_share_of_zero_retries_nothing() {
        let budget = Budget::new(0.0);
        budget.deposit();
        assert!(!budget.withdraw());
    }
}
