#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;

#[test]
fn no_library_is_no_driver() {
    assert_eq!(look_up(&["libcuda-of-nobody.so"]), Err(Absent::NoDriver));
}

#[test]
fn a_library_without_the_drivers_functions_is_refused_by_name() {
    // The C library is there on every machine, and is no driver.
    let error = look_up(&["libc.so.6"]).unwrap_err();
    assert!(error.to_string().contains("cuDriverGetVersion"), "{error}");
}

#[test]
fn an_old_driver_is_told_from_a_new_one() {
    assert_eq!(suffices(13_000), Ok(()));
    let error = suffices(12_040).unwrap_err().to_string();
    assert!(error.contains("12.4") && error.contains("13.0"), "{error}");
}

/// On a machine with a GPU this describes it, on one without it says why not.
#[test]
fn every_machine_has_an_answer() {
    match discover() {
        Ok(gpus) => assert!(
            gpus.iter()
                .all(|gpu| gpu.memory > 0 && gpu.capability.0 > 0)
        ),
        Err(absent) => assert!(!absent.to_string().contains('\n')),
    }
}
