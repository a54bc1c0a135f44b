#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;

fn checkout() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/lib/libonnxruntime.so")
}

/// Whatever this machine has: each part is accounted for, in single lines, and what
/// is missing for a provider is the reason why that is not ready.
#[test]
fn every_machine_has_an_inventory() {
    let library = init_runtime(None).map(|found| found.path);
    let inventory = Inventory::take(Some(&library.unwrap_or_else(|_| checkout())));
    let of = |part: &str| inventory.findings.iter().find(|f| f.part == part).unwrap();
    for finding in &inventory.findings {
        let lines = [Some(&finding.detail), finding.remedy.as_ref()];
        assert!(lines.into_iter().flatten().all(|line| !line.contains('\n')));
        assert!(!finding.detail.is_empty(), "{}", finding.part);
    }
    let ready: Vec<bool> = inventory.providers.iter().map(|p| p.ready).collect();
    assert!(ready[0], "{:?}", of("ONNX Runtime"));
    assert_eq!(of("GPU").state == State::Found, !inventory.gpus.is_empty());
    if inventory.gpus.is_empty() {
        assert_eq!(ready, [true, false, false, false]);
    }
    for readiness in &inventory.providers {
        assert_eq!(readiness.ready, readiness.reason.is_none());
    }
}

/// A part that is misspelt would never be lacking.
#[test]
fn what_a_provider_needs_is_a_part() {
    let inventory = Inventory::take(Some(&checkout()));
    for need in NEEDS.iter().flat_map(|(_, needs)| *needs) {
        let found = inventory.findings.iter().any(|f| f.part == *need);
        assert!(found, "{need}");
    }
}

#[test]
fn the_first_lack_is_the_reason() {
    let findings = [
        finding("a", State::Found, "1".to_owned(), None),
        finding("b", State::Unusable, "broken".to_owned(), None),
        finding("c", State::Missing, "gone".to_owned(), None),
    ];
    let reason = |needs: &[&str]| readiness("x", needs, &findings).reason;
    assert_eq!(reason(&["a"]), None);
    assert_eq!(reason(&["a", "b", "c"]).unwrap(), "b: broken");
    assert_eq!(reason(&["c", "b"]).unwrap(), "c: gone");
}

#[test]
fn a_gpu_without_a_driver_is_seen_on_the_bus() {
    let bus = tempfile::tempdir().unwrap();
    let add = |name: &str, vendor: &str, class: &str| {
        let folder = bus.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("vendor"), vendor).unwrap();
        fs::write(folder.join("class"), class).unwrap();
    };
    assert!(!on_the_bus(bus.path()));
    add("0", "0x8086\n", "0x030000\n");
    // NVIDIA's network adapters are no GPUs.
    add("1", "0x10de\n", "0x020000\n");
    assert!(!on_the_bus(bus.path()));
    add("2", "0x10de\n", "0x030200\n");
    assert!(on_the_bus(bus.path()));
}
