use super::*;

#[test]
fn the_last_attempt_is_not_retried() {
    assert!(may_retry(1, 2, true));
    assert!(!may_retry(2, 2, true));
    assert!(
        !may_retry(1, 2, false),
        "what cannot pass is not tried again"
    );
}

#[test]
fn a_lease_that_runs_out_before_the_start_costs_no_attempt_and_after_it_one() {
    assert_eq!(
        TaskState::Claimed.transition(TaskEvent::LeaseExpire),
        Some(TaskState::Queued)
    );
    assert_eq!(TaskState::Running.transition(TaskEvent::LeaseExpire), None);
    assert_eq!(
        TaskState::Running.transition(TaskEvent::Lose),
        Some(TaskState::Lost)
    );
    assert_eq!(TaskState::Lost.legal(), [TaskEvent::Fail, TaskEvent::Retry]);
}
