#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

fn quota(limits: QuotaLimits) -> Arc<Quota> {
    let quota = Quota::new("quota of department helpdesk", limits, Instant::now());
    quota.begin_month(u64::from(u32::MAX));
    Arc::new(quota)
}

fn month(requests: Option<u64>, tokens: Option<u64>) -> QuotaLimits {
    QuotaLimits {
        month_requests: requests,
        month_tokens: tokens,
        ..QuotaLimits::default()
    }
}

#[test]
fn keys_share_a_quota_and_a_refusal_names_it() {
    let shared = [quota(month(Some(2), None))];
    let keys = [(); 2].map(|()| RateLimiter::new(RateLimits::default(), Instant::now()));
    let now = Instant::now();
    for key in &keys {
        let purse = Purse {
            key,
            quotas: &shared,
        };
        purse.take(now, 10).unwrap();
    }
    let purse = Purse {
        key: &keys[0],
        quotas: &shared,
    };
    let refusal = purse.take(now, 10).unwrap_err();
    assert_eq!(
        refusal.quota.as_deref(),
        Some("quota of department helpdesk")
    );
    assert_eq!((refusal.what, refusal.period), ("requests", "month"));
    assert!(refusal.retry_after > Duration::from_secs(3600));
    assert_eq!(purse.levels(now)[0].unwrap().remaining, 0);
}

#[test]
fn a_refusal_takes_nothing_from_any() {
    let per_minute = RateLimits {
        requests: Some(10),
        tokens: Some(100),
        control: None,
    };
    let key = RateLimiter::new(per_minute, Instant::now());
    let person = quota(QuotaLimits {
        minute: per_minute,
        ..month(Some(100), Some(1000))
    });
    let department = quota(month(Some(0), None));
    let quotas = [Arc::clone(&person), department];
    let purse = Purse {
        key: &key,
        quotas: &quotas,
    };
    let now = Instant::now();
    purse.take(now, 50).unwrap_err();
    assert_eq!(person.used(), (0, 0));
    let left = |levels: [Option<Level>; 2]| levels.map(|level| level.unwrap().remaining);
    assert_eq!(left(key.levels(now)), [10, 100]);
    assert_eq!(left(person.minute.levels(now)), [10, 100]);
}

#[test]
fn tokens_are_settled_and_a_month_begins_at_nothing() {
    let shared = quota(month(None, Some(100)));
    let key = RateLimiter::new(RateLimits::default(), Instant::now());
    let quotas = [Arc::clone(&shared)];
    let purse = Purse {
        key: &key,
        quotas: &quotas,
    };
    let now = Instant::now();
    purse.take(now, 10).unwrap();
    purse.settle(now, 10, 120);
    assert_eq!(shared.used(), (1, 120));
    assert_eq!(purse.take(now, 1).unwrap_err().what, "tokens");
    shared.begin_month(u64::from(u32::MAX));
    assert_eq!(shared.used(), (1, 120), "the same month");
    shared.begin_month(u64::from(u32::MAX) + 1);
    purse.take(now, 1).unwrap();
    // What was taken last month is given back in this one.
    purse.settle(now, 50, 0);
    assert_eq!(shared.used(), (1, 0));
}

#[test]
fn the_books_of_all_processes_only_raise_the_count() {
    let shared = quota(month(Some(10), None));
    shared.at_least(7, 70);
    shared.at_least(3, 90);
    assert_eq!(shared.used(), (7, 90));
    let edited = shared.with_limits("q", month(Some(8), None));
    assert_eq!(edited.used(), (7, 90));
    edited.take(Instant::now(), 0).unwrap();
    edited.take(Instant::now(), 0).unwrap_err();
}
