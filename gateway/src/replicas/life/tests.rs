use proptest::prelude::*;

use super::*;

fn policy() -> RestartPolicy {
    RestartPolicy {
        restarts: 4,
        window: Duration::from_secs(600),
        pause: Duration::from_secs(1),
        pause_max: Duration::from_secs(3),
    }
}

/// Loses a replica and fails to load it until it is given up; the pauses.
fn pauses(policy: RestartPolicy, mut now: Instant) -> Vec<u64> {
    let mut life = Life::new(policy);
    let mut pauses = Vec::new();
    let mut state = life.lose(now);
    while let State::Waiting(until) = state {
        pauses.push((until - now).as_secs());
        now = until;
        assert!(life.begin(now), "it is due");
        state = life.end(false, now);
    }
    assert_eq!(state, State::GivenUp);
    pauses
}

#[test]
fn pauses_double_up_to_the_longest_and_end() {
    assert_eq!(pauses(policy(), Instant::now()), [0, 1, 2, 3]);
    let never = RestartPolicy {
        restarts: 0,
        ..policy()
    };
    assert_eq!(pauses(never, Instant::now()), [0_u64; 0]);
}

#[test]
fn what_lies_outside_the_window_is_forgotten() {
    let mut now = Instant::now();
    let mut life = Life::new(policy());
    for _ in 0..20 {
        assert_eq!(
            life.lose(now),
            State::Waiting(now),
            "the first in its window"
        );
        assert!(life.begin(now));
        assert_eq!(life.end(true, now), State::Serving);
        now += policy().window;
    }
}

#[test]
fn the_wait_is_told() {
    let (now, load) = (Instant::now(), Duration::from_secs(9));
    let mut life = Life::new(policy());
    assert_eq!(life.expected(now, load), Some(load));
    life.lose(now);
    assert!(life.begin(now));
    let later = now + Duration::from_secs(4);
    assert_eq!(life.expected(later, load), Some(Duration::from_secs(5)));
    let State::Waiting(until) = life.end(false, later) else {
        panic!("one failure is not the end");
    };
    assert_eq!(life.expected(later, load), Some(until - later + load));
    let mut given_up = Life::new(RestartPolicy {
        restarts: 0,
        ..policy()
    });
    given_up.lose(now);
    assert_eq!(given_up.expected(now, load), None);
}

#[test]
fn what_is_put_off_counts_for_nothing() {
    let now = Instant::now();
    let mut life = Life::new(policy());
    life.lose(now);
    for _ in 0..100 {
        assert!(life.begin(now));
        life.put_off(now);
    }
    assert_eq!(life.state(), State::Waiting(now));
}

proptest! {
    /// Whatever happens in whatever order: no window holds more restarts than allowed,
    /// loading begins only when it is due, and what was given up stays so.
    #[test]
    fn the_limits_hold(events in prop::collection::vec((0..5_u8, 0..200_u64), 1..300)) {
        let policy = policy();
        let mut life = Life::new(policy.clone());
        let mut now = Instant::now();
        let mut begun: Vec<Instant> = Vec::new();
        for (event, seconds) in events {
            now += Duration::from_secs(seconds);
            let before = life.state();
            match event {
                0 => drop(life.lose(now)),
                1 => {
                    let due = matches!(before, State::Waiting(until) if until <= now);
                    prop_assert_eq!(life.begin(now), due);
                    if due {
                        begun.push(now);
                    }
                }
                2 => drop(life.end(true, now)),
                3 => drop(life.end(false, now)),
                _ => {
                    life.put_off(now);
                    if matches!(before, State::Loading(_)) {
                        begun.pop();
                    }
                }
            }
            if before == State::GivenUp {
                prop_assert_eq!(life.state(), State::GivenUp);
            }
            if let State::Waiting(until) = life.state() {
                prop_assert!(until <= now + policy.pause_max);
            }
            let recent = begun.iter().filter(|at| now - **at < policy.window).count();
            prop_assert!(recent <= policy.restarts as usize, "{} restarts in a window", recent);
        }
    }
}
