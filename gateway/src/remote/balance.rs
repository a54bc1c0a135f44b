//! The power of two choices (Mitzenmacher 2001): of two replicas drawn at
//! random, the less loaded one. Pure.

use std::time::Duration;

/// How loaded a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Requests in flight.
    pub in_flight: u32,
    /// Smoothed time to the head of an answer; zero when not known yet.
    pub latency: Duration,
}

impl Load {
    /// What the next request would wait for, in arbitrary units. Latencies below
    /// a millisecond count as one: between such replicas only the queue matters.
    #[must_use]
    pub fn cost(self) -> u64 {
        let latency = u64::try_from(self.latency.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        latency.saturating_mul(u64::from(self.in_flight) + 1)
    }
}

/// Draws two different members of `mask` (one, if it has only one) by two random
/// numbers.
#[must_use]
pub fn draw(mask: u64, first: u32, second: u32) -> Option<(usize, usize)> {
    let members = mask.count_ones();
    if members == 0 {
        return None;
    }
    let a = first % members;
    // Any member but the first: shift by one to members − 1 places.
    let b = match members {
        1 => a,
        _ => (a + 1 + second % (members - 1)) % members,
    };
    Some((nth(mask, a), nth(mask, b)))
}

/// Index of the `n`-th set bit.
fn nth(mut mask: u64, n: u32) -> usize {
    for _ in 0..n {
        mask &= mask - 1;
    }
    mask.trailing_zeros() as usize
}

/// Smoothed latency after another sample: three tenths of it are the new one.
#[must_use]
pub fn smooth(old: Duration, sample: Duration) -> Duration {
    if old.is_zero() {
        sample
    } else {
        (old * 7 + sample * 3) / 10
    }
}

/// What an old latency still says: half as much after each tenth of a second
/// without a new sample, so that a replica that was slow once is soon tried again.
#[must_use]
pub fn fade(latency: Duration, age: Duration) -> Duration {
    let halvings = u32::try_from(age.as_millis() / 100)
        .unwrap_or(u32::MAX)
        .min(31);
    latency / (1 << halvings)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_queue_decides_between_equals_and_latency_between_queues() {
        let load = |in_flight, ms| Load {
            in_flight,
            latency: Duration::from_millis(ms),
        };
        assert!(load(1, 10).cost() < load(2, 10).cost());
        assert!(load(3, 10).cost() < load(0, 100).cost());
        assert!(load(0, 0).cost() < load(1, 0).cost());
    }

    #[test]
    fn an_old_latency_fades() {
        let latency = Duration::from_millis(800);
        let after = |tenths: u64| fade(latency, Duration::from_millis(tenths * 100));
        assert_eq!(
            [after(0), after(1), after(3)],
            [latency, latency / 2, latency / 8]
        );
        assert!(after(1000) < Duration::from_micros(1));
    }

    proptest! {
        #[test]
        fn two_different_members_are_drawn(mask in any::<u64>(), a in any::<u32>(), b in any::<u32>()) {
            match draw(mask, a, b) {
                None => prop_assert_eq!(mask, 0),
                Some((x, y)) => {
                    prop_assert!(mask >> x & 1 == 1 && mask >> y & 1 == 1);
                    prop_assert_eq!(x == y, mask.count_ones() == 1);
                }
            }
        }

        /// Greedy two-choice placement keeps the fullest bin near the mean.
        #[test]
        fn placement_spreads(replicas in 2_usize..16, seed in any::<u64>()) {
            use rand::{RngCore as _, SeedableRng as _};
            let mut random = rand::rngs::StdRng::seed_from_u64(seed);
            let mut loads = vec![0_u32; replicas];
            let mask = (1_u64 << replicas) - 1;
            for _ in 0..replicas * 100 {
                let (a, b) = draw(mask, random.next_u32(), random.next_u32()).unwrap();
                let chosen = if loads[b] < loads[a] { b } else { a };
                loads[chosen] += 1;
            }
            prop_assert!(loads.iter().all(|load| (90..=110).contains(load)), "{loads:?}");
        }

        #[test]
        fn smoothing_stays_between_old_and_new(old in 1_u64..1 << 40, new in 1_u64..1 << 40) {
            let (old, new) = (Duration::from_nanos(old), Duration::from_nanos(new));
            let smoothed = smooth(old, new);
            prop_assert!(old.min(new) - Duration::from_nanos(1).min(old.min(new)) <= smoothed && smoothed <= old.max(new));
        }
    }
}
