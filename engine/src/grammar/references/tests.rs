#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn a_schema_without_references_only_loses_its_definitions() {
    let schema = json!({"$id": "x", "type": "object", "$defs": {"a": {"$ref": "#/nowhere"}}});
    assert_eq!(resolve(&schema, 4).unwrap(), json!({"type": "object"}));
}

#[test]
fn a_recursion_has_so_many_rounds_and_then_what_ends_it() {
    let schema = json!({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {
        "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}}, "required": ["next"]}}});
    let resolved = resolve(&schema, 3).unwrap();
    assert_eq!(resolved["$ref"], "#/$defs/r0.0");
    let next =
        |round: usize| &resolved["$defs"][format!("r0.{round}")]["properties"]["next"]["anyOf"][0];
    assert_eq!(next(0)["$ref"], "#/$defs/r0.1");
    assert_eq!(next(1)["$ref"], "#/$defs/r0.2");
    assert_eq!(*next(2), Value::Bool(false));
    assert_eq!(resolved["$defs"].as_object().unwrap().len(), 3);
}

#[test]
fn a_definition_that_is_shared_is_one() {
    let schema = json!({"type": "array", "items": {"$ref": "#/definitions/a"},
        "contains": {"$ref": "#/definitions/a"}, "definitions": {"a": {"type": "null"}}});
    let resolved = resolve(&schema, 4).unwrap();
    assert_eq!(resolved["$defs"], json!({"r0.0": {"type": "null"}}));
    assert_eq!(resolved["items"], resolved["contains"]);
}

#[test]
fn what_cannot_be_had_any_more_is_left_out_all_the_way() {
    let expression = json!({"anyOf": [{"$ref": "#/$defs/sum"}, {"type": "number"}]});
    let sum = json!({"type": "object", "required": ["left"], "properties": {"left": {"$ref": "#/$defs/e"}}});
    let schema = json!({"$ref": "#/$defs/e", "$defs": {"e": expression, "sum": sum}});
    let resolved = resolve(&schema, 4).unwrap();
    let definitions = resolved["$defs"].as_object().unwrap();
    let dead: Vec<&String> = definitions
        .iter()
        .filter(|(_, d)| d.is_boolean())
        .map(|(n, _)| n)
        .collect();
    assert!(dead.is_empty(), "{dead:?}");
    // Every reference leads to a definition.
    let text = resolved.to_string();
    for part in text.split("#/$defs/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(definitions.contains_key(name), "{name} in {text}");
    }
    assert!(text.contains("false"), "{text}");
}

#[test]
fn groups_are_what_leads_back_to_itself() {
    let group = groups(&[vec![1], vec![2], vec![0, 3], vec![4], vec![], vec![5]]);
    assert!(group[0] == group[1] && group[1] == group[2]);
    let others: std::collections::HashSet<usize> = [0, 3, 4, 5].map(|n| group[n]).into();
    assert_eq!(others.len(), 4);
}
