#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

fn name(text: &str) -> Arc<str> {
    text.into()
}

#[test]
fn a_refusal_spells_the_addition_out() {
    let mut ledger = Ledger::default();
    let gpu = [(0, 72 * GIB)];
    let alone = ledger.enter(&name("c"), 80 * GIB, &gpu).unwrap_err();
    assert_eq!(
        alone.to_string(),
        "GPU 0: nothing of 72.0 GiB is held; c needs 80.0 GiB"
    );
    ledger.enter(&name("a"), 40 * GIB, &gpu).unwrap();
    ledger.enter(&name("b"), 20 * GIB, &gpu).unwrap();
    let full = ledger.enter(&name("c"), 15 * GIB, &gpu).unwrap_err();
    assert_eq!(
        full.to_string(),
        "GPU 0: 60.0 GiB of 72.0 GiB are held by a (40.0 GiB), b (20.0 GiB); c needs 15.0 GiB"
    );
    ledger.enter(&name("c"), 12 * GIB, &gpu).unwrap();
    assert_eq!(ledger.free(0, 72 * GIB), 0);
}

#[test]
fn on_several_devices_it_is_all_or_nothing() {
    let mut ledger = Ledger::default();
    let gpus = [(0, 10), (1, 10)];
    ledger.enter(&name("a"), 5, &[(1, 10)]).unwrap();
    let full = ledger.enter(&name("b"), 6, &gpus).unwrap_err();
    assert_eq!((full.device, ledger.held(0), ledger.held(1)), (1, 0, 5));
    // Twice on one device is twice as much.
    assert!(ledger.enter(&name("b"), 6, &[(0, 10), (0, 10)]).is_err());
    assert_eq!(ledger.held(0), 0);
}

#[test]
fn a_hundred_models_come_and_go_and_nothing_is_left() {
    let mut ledger = Ledger::default();
    for _ in 0..100 {
        let held = ledger.enter(&name("a"), 7, &[(0, 10), (1, 10)]).unwrap();
        assert!(ledger.enter(&name("b"), 7, &[(0, 10)]).is_err());
        held.into_iter().for_each(|id| ledger.remove(id));
        assert_eq!((ledger.held(0), ledger.held(1)), (0, 0));
    }
    assert!(ledger.entries.is_empty());
}

proptest! {
    /// Never more than the limit, and exactly what is entered.
    #[test]
    fn the_limit_holds(steps in prop::collection::vec((0..2_u32, 0..60_u64, any::<bool>()), 1..200)) {
        let mut ledger = Ledger::default();
        let mut held: Vec<(EntryId, u32, u64)> = Vec::new();
        for (device, bytes, leaves) in steps {
            if leaves && !held.is_empty() {
                let (id, ..) = held.swap_remove(bytes as usize % held.len());
                ledger.remove(id);
            } else if let Ok(ids) = ledger.enter(&name("m"), bytes, &[(device, 100)]) {
                held.extend(ids.into_iter().map(|id| (id, device, bytes)));
            }
            for device in 0..2 {
                let sum: u64 = held.iter().filter(|it| it.1 == device).map(|it| it.2).sum();
                prop_assert_eq!(ledger.held(device), sum);
                prop_assert!(sum <= 100);
            }
        }
    }
}
