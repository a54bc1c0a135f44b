//! What holds for every machine, whatever its events.

#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::domain::{
    model_version::{ModelVersionEvent, ModelVersionState},
    run::RunStatus,
    task::TaskState,
    upload::UploadState,
    work_order::WorkOrderState,
};

/// Walks `events` from the initial state; illegal ones must leave the state and name the legal ones.
fn walk<M: Machine>(events: &[M::Event]) -> Result<Vec<M>, TestCaseError> {
    let mut path = vec![M::INITIAL];
    let mut state = M::INITIAL;
    for &event in events {
        match state.apply(event) {
            Ok(next) => {
                prop_assert!(M::STATES.contains(&next));
                prop_assert!(!state.is_final(), "{state} is final and moved to {next}");
                state = next;
                path.push(state);
            }
            Err(illegal) => {
                let named: Vec<String> = state.legal().iter().map(ToString::to_string).collect();
                prop_assert_eq!(&illegal.legal, &named);
                prop_assert!(!named.contains(&event.to_string()));
                let message = illegal.to_string();
                for legal in named {
                    prop_assert!(message.contains(&legal), "{message} does not name {legal}");
                }
            }
        }
    }
    Ok(path)
}

fn words_read_back<M: Machine>() {
    for state in M::STATES {
        assert!(
            state
                .to_string()
                .parse::<M>()
                .is_ok_and(|read| read == *state)
        );
    }
    for event in M::EVENTS {
        assert!(
            event
                .to_string()
                .parse::<M::Event>()
                .is_ok_and(|read| read == *event)
        );
    }
}

fn every_state_is_reached<M: Machine>() {
    let mut reached = vec![M::INITIAL];
    let mut next = 0;
    while next < reached.len() {
        let state = reached[next];
        for event in state.legal() {
            let to = state.transition(event).unwrap();
            if !reached.contains(&to) {
                reached.push(to);
            }
        }
        next += 1;
    }
    reached.sort_unstable();
    assert_eq!(
        reached,
        M::STATES,
        "{}: states that nothing leads to, or out of order",
        M::NAME
    );
}

/// From everywhere an end can be reached: nothing can get stuck.
fn every_state_can_end<M: Machine>() {
    for &from in M::STATES {
        let mut seen = vec![from];
        let mut next = 0;
        while next < seen.len() {
            let state = seen[next];
            seen.extend(
                state
                    .legal()
                    .iter()
                    .filter_map(|&event| state.transition(event))
                    .filter(|to| !seen.contains(to))
                    .collect::<Vec<_>>(),
            );
            next += 1;
        }
        assert!(
            // What is archived rests, though it may be taken out again.
            seen.iter()
                .any(|state| state.is_final() || state.to_string() == "archived"),
            "{}: no end can be reached from {from}",
            M::NAME
        );
    }
}

macro_rules! for_every_machine {
    ($($name:ident: $machine:ty,)*) => {
        $(mod $name {
            use super::*;
            #[test]
            fn words_read_back() { super::words_read_back::<$machine>(); }
            #[test]
            fn every_state_is_reached() { super::every_state_is_reached::<$machine>(); }
            #[test]
            fn every_state_can_end() { super::every_state_can_end::<$machine>(); }
            proptest! {
                #[test]
                fn random_events_never_leave_the_machine(
                    events in prop::collection::vec(select(<$machine as Machine>::EVENTS), 0..60)
                ) {
                    super::walk::<$machine>(&events)?;
                }
            }
        })*
    };
}

for_every_machine! {
    model_version: ModelVersionState,
    task: TaskState,
    work_order: WorkOrderState,
    run: RunStatus,
    upload: UploadState,
}

proptest! {
    #[test]
    fn live_is_only_reached_from_approved_and_never_archived(
        // But by a return to what was live, which asks nothing.
        events in prop::collection::vec(
            select(ModelVersionState::EVENTS).prop_filter("no return", |it| *it != ModelVersionEvent::Return),
            0..200,
        )
    ) {
        use ModelVersionState::{Approved, Archived, Live, PendingApproval};
        for pair in walk::<ModelVersionState>(&events)?.windows(2) {
            prop_assert!(pair[1] != Live || pair[0] == Approved, "{} → live", pair[0]);
            prop_assert!(pair[0] != Live || pair[1] == Approved, "live → {}", pair[1]);
            prop_assert!(pair[1] != Approved || matches!(pair[0], PendingApproval | Live | Archived), "{} → approved", pair[0]);
            prop_assert!(pair[1] != Archived || pair[0] != Live);
        }
    }

    #[test]
    fn traffic_only_after_approval_and_preparation(
        events in prop::collection::vec(select(WorkOrderState::EVENTS), 0..100)
    ) {
        use WorkOrderState::{Aborted, Approved, Preparing};
        let path = walk::<WorkOrderState>(&events)?;
        if let Some(first) = path.iter().position(|state| state.takes_traffic()) {
            prop_assert!(path[..first].contains(&Approved) && path[..first].contains(&Preparing));
            prop_assert!(!path.contains(&Aborted), "aborted after it took traffic: {path:?}");
        }
    }

    #[test]
    fn a_task_that_succeeded_or_was_cancelled_never_moves(
        events in prop::collection::vec(select(TaskState::EVENTS), 0..200)
    ) {
        use TaskState::{Cancelled, Succeeded};
        let path = walk::<TaskState>(&events)?;
        let ends = path.iter().filter(|state| matches!(state, Succeeded | Cancelled)).count();
        prop_assert!(ends <= 1);
        prop_assert!(ends == 0 || matches!(path.last(), Some(Succeeded | Cancelled)));
    }
}
