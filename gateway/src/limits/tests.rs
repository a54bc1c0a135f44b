#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn limiter(requests: Option<u32>, tokens: Option<u32>) -> (RateLimiter, Instant) {
    let start = Instant::now();
    (
        RateLimiter::new(
            RateLimits {
                requests,
                tokens,
                control: None,
            },
            start,
        ),
        start,
    )
}

#[test]
fn a_full_bucket_gives_its_limit_at_once_and_then_one_by_one() {
    let (limiter, start) = limiter(Some(60), None);
    for _ in 0..60 {
        limiter.take(start, 0).unwrap();
    }
    let exceeded = limiter.take(start, 0).unwrap_err();
    assert_eq!((exceeded.what, exceeded.limit), ("requests", 60));
    assert_eq!(exceeded.retry_after, Duration::from_secs(1));
    limiter.take(start + Duration::from_secs(1), 0).unwrap();
    limiter.take(start + Duration::from_secs(1), 0).unwrap_err();
}

#[test]
fn a_request_refused_for_its_tokens_gives_its_request_back() {
    let (limiter, start) = limiter(Some(2), Some(100));
    limiter.take(start, 100).unwrap();
    assert_eq!(limiter.take(start, 1).unwrap_err().what, "tokens");
    assert_eq!(limiter.levels(start)[0].unwrap().remaining, 1);
}

#[test]
fn settling_replaces_the_estimate() {
    let (limiter, start) = limiter(None, Some(1000));
    limiter.take(start, 100).unwrap();
    limiter.settle(start, 100, 700);
    assert_eq!(limiter.levels(start)[1].unwrap().remaining, 300);
    limiter.take(start, 300).unwrap();
    limiter.settle(start, 300, 0);
    assert_eq!(limiter.levels(start)[1].unwrap().remaining, 300);
}

#[test]
fn a_request_larger_than_the_bucket_passes_when_it_is_full() {
    let (limiter, start) = limiter(None, Some(10));
    limiter.take(start, 1_000_000).unwrap();
    assert_eq!(limiter.take(start, 1).unwrap_err().what, "tokens");
    limiter.take(start + MINUTE, 1_000_000).unwrap();
}

#[test]
fn resets_are_written_as_openai_writes_them() {
    for (ms, text) in [
        (0, "0ms"),
        (250, "250ms"),
        (1_000, "1s"),
        (59_001, "60s"),
        (360_000, "6m0s"),
    ] {
        assert_eq!(format_reset(Duration::from_millis(ms)), text);
    }
}

proptest! {
    /// Whatever the arrivals, no window of a minute sees more than twice the
    /// limit (a full bucket, and what comes back meanwhile).
    #[test]
    fn no_minute_exceeds_the_bucket_and_its_refill(
        per_minute in 1_u32..200,
        gaps in proptest::collection::vec(0_u64..3_000, 1..400),
    ) {
        let (limiter, start) = limiter(Some(per_minute), None);
        let mut now = start;
        let mut passed = Vec::new();
        for gap in gaps {
            now += Duration::from_millis(gap);
            if limiter.take(now, 0).is_ok() {
                passed.push(now);
            }
        }
        for (index, first) in passed.iter().enumerate() {
            let within = passed[index..].iter().take_while(|at| **at - *first < MINUTE).count();
            prop_assert!(within as u32 <= 2 * per_minute);
        }
    }

    /// `Retry-After` is honest: the request passes then, and not a millisecond before.
    #[test]
    fn retry_after_is_exact(per_minute in 1_u32..10_000, units in 1_u64..10_000, used in 0_u64..60_000_000_000) {
        let quota = Quota { per_minute };
        let now = 1_000_000_000_000;
        let arrival = now + used;
        if let Verdict::Exceeds { retry_after } = quota.judge(arrival, now, units) {
            let wait = u64::try_from(retry_after.as_nanos()).unwrap();
            let passes = |at| matches!(quota.judge(arrival, at, units), Verdict::Conforms { .. });
            prop_assert!(passes(now + wait));
            prop_assert!(wait < 1_000_000 || !passes(now + wait - 1_000_000));
        }
    }

    /// Reserving and settling to the same number changes nothing; settling never
    /// leaves more than a full bucket or a debt of more than a minute.
    #[test]
    fn settling_is_bounded(per_minute in 1_u32..10_000, reserved in 0_u64..20_000, used in 0_u64..1 << 40) {
        let quota = Quota { per_minute };
        let now = 1_000_000_000_000;
        if let Verdict::Conforms { arrival } = quota.judge(now, now, reserved) {
            let settled = quota.settle(arrival, now, reserved, used);
            prop_assert!(settled <= now + 120_000_000_000);
            prop_assert!(quota.remaining(settled, now) <= u64::from(per_minute));
            if used == reserved {
                prop_assert_eq!(settled, arrival);
            }
        }
    }
}
