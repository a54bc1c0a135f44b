//! Loops that must not end before the process does: publishing, driving work orders, the ledger. Each meets its errors
//! itself and goes on; a panic would end it silently, and with it whatever it keeps up to date, until a restart.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;

/// Before a loop that panicked begins anew.
const PAUSE: Duration = if cfg!(test) {
    Duration::from_millis(1)
} else {
    Duration::from_secs(1)
};

/// Runs what `begin` makes to its end, and begins anew whenever it panics.
pub(crate) async fn until_it_ends<F: Future<Output = ()>>(
    name: &'static str,
    mut begin: impl FnMut() -> F,
) {
    // What the loops hold is behind locks that a panic does not poison, and is read anew each round.
    while AssertUnwindSafe(begin()).catch_unwind().await.is_err() {
        tracing::error!(
            name,
            "the program has an error here: it panicked, and begins anew"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_panics_begins_anew() {
        let mut begun = 0;
        until_it_ends("test", || {
            begun += 1;
            let round = begun;
            async move { assert_eq!(round, 3, "the first two fail") }
        })
        .await;
        assert_eq!(begun, 3);
    }
}
