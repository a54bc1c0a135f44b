use super::*;

#[test]
fn each_fault_is_known_by_its_word() {
    for fault in [
        StorageFault::Full,
        StorageFault::ReadOnly,
        StorageFault::Failed,
        StorageFault::Replaced,
    ] {
        assert_eq!(StorageFault::of_code(fault.code()), Some(fault));
    }
    assert_eq!(StorageFault::of_code("unavailable"), None);
}
