#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[test]
fn ids_sort_by_creation_as_values_and_as_text() {
    let made: Vec<ModelId> = (0..10_000).map(|_| ModelId::new()).collect();
    assert!(made.is_sorted());
    assert!(made.iter().map(ToString::to_string).is_sorted());
    assert_eq!(made.iter().collect::<HashSet<_>>().len(), made.len());
}

#[test]
fn the_id_of_another_kind_is_refused_by_name() {
    let dataset = DatasetId::new().to_string();
    let error = dataset.parse::<ModelId>().unwrap_err().to_string();
    assert_eq!(
        error,
        format!("\"{dataset}\" is the id of a dataset; a model's id (mdl_…) is needed")
    );
}

#[test]
fn prefixes_are_unique() {
    let prefixes: HashSet<_> = KINDS.iter().map(|(prefix, _)| prefix).collect();
    assert_eq!(prefixes.len(), KINDS.len());
}

#[test]
fn a_known_uuid_has_a_known_text() {
    let id = ModelId(Uuid::from_u128(u128::MAX));
    assert_eq!(id.to_string(), "mdl_7zzzzzzzzzzzzzzzzzzzzzzzzz");
    assert_eq!(
        ModelId(Uuid::from_u128(33)).to_string(),
        "mdl_00000000000000000000000011"
    );
}

#[test]
fn json_is_the_text() {
    let id = WorkOrderId::new();
    let json = serde_json::to_string(&id).unwrap();
    assert_eq!(json, format!("\"{id}\""));
    assert_eq!(serde_json::from_str::<WorkOrderId>(&json).unwrap(), id);
    assert!(
        serde_json::from_str::<TaskId>(&json)
            .unwrap_err()
            .to_string()
            .contains("work order")
    );
}

proptest! {
    #[test]
    fn every_uuid_survives_the_text(bits: u128) {
        let id = ModelId(Uuid::from_u128(bits));
        prop_assert_eq!(id.to_string().parse::<ModelId>(), Ok(id));
    }

    #[test]
    fn order_of_text_is_order_of_value(a: u128, b: u128) {
        let (a, b) = (ModelId(Uuid::from_u128(a)), ModelId(Uuid::from_u128(b)));
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
    }

    #[test]
    fn what_parses_prints_the_same(text in "(mdl_)?[0-9a-zA-Z_é]{0,30}") {
        if let Ok(id) = text.parse::<ModelId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }
}
