#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

type Change = fn(&mut Origin);

fn plan() -> Plan {
    Plan {
        origin: Origin {
            tensorrt: Version::new(11, 4, 0),
            model: digest(b"model"),
            specification: digest(b"profiles"),
            device: "NVIDIA H200 (9.0)".to_owned(),
        },
        engine: vec![7; 1000],
    }
}

#[test]
fn a_plan_is_read_as_it_was_stored() {
    let plan = plan();
    let bytes = plan.to_bytes().unwrap();
    assert_eq!(Plan::from_bytes(&bytes), Ok(plan.clone()));
    assert_eq!(Plan::expect(&bytes, &plan.origin), Ok(plan));
}

#[test]
fn a_stale_plan_is_refused_by_the_part_that_differs() {
    let bytes = plan().to_bytes().unwrap();
    let change: [(&str, Change); 4] = [
        ("TensorRT", |o| o.tensorrt.minor += 1),
        ("model", |o| o.model = digest(b"another")),
        ("build specification", |o| {
            o.specification = digest(b"wider");
        }),
        ("device", |o| "NVIDIA A100 (8.0)".clone_into(&mut o.device)),
    ];
    for (part, change) in change {
        let mut wanted = plan().origin;
        change(&mut wanted);
        match Plan::expect(&bytes, &wanted) {
            Err(PlanError::Stale { what, .. }) => assert_eq!(what, part),
            other => panic!("{part}: {other:?}"),
        }
    }
}

#[test]
fn no_byte_can_change_and_none_be_missing() {
    let bytes = plan().to_bytes().unwrap();
    for length in 0..bytes.len() {
        assert!(
            Plan::from_bytes(&bytes[..length]).is_err(),
            "cut at {length}"
        );
    }
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        // A changed origin may still be one; it is then not the one that is wanted.
        assert!(
            Plan::expect(&changed, &plan().origin).is_err(),
            "changed at {place}"
        );
    }
}

#[test]
fn foreign_bytes_and_absurd_lengths_are_refused() {
    assert_eq!(Plan::from_bytes(b"GGUF"), Err(PlanError::NotAPlan));
    let mut absurd = MAGIC.to_vec();
    absurd.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        Plan::from_bytes(&absurd),
        Err(PlanError::Damaged(_))
    ));
    let mut long = plan();
    long.origin.device = "x".repeat(LARGEST_ORIGIN);
    assert!(long.to_bytes().is_err());
}
