//! `$ref`s of a schema, resolved and made finite.
//!
//! Each schema that is referred to becomes a definition of a plain name under `$defs`, however it was named before: by
//! a JSON pointer with escapes (RFC 6901, percent-encoded), an `$anchor` or an `$id`. A schema that refers to itself
//! would describe values without end, so each round of it is a definition of its own, and what would be one round too
//! many fits nothing (`false`): the compiler leaves out what cannot be had any more.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::GrammarError;
use super::walk::{children, children_mut, children_of};

/// Nodes that the rounds of one recursion may have together.
const MAX_ROUNDS_NODES: usize = 24_000;
/// Definitions within each other, rounds included: the compiler recurses over them.
const MAX_CHAIN: usize = 400;
/// References that lead to nothing but a further reference, in a row.
const MAX_ALIASES: usize = 64;
/// Where one round leads to several, rounds are fewer, so that a value has at most about so many of them in it.
const MAX_SPREAD: usize = 1024;

/// The schema with its references resolved. `depth`: rounds of a recursion at most.
///
/// # Errors
/// A reference that leads out of the schema or to nothing; a recursion that no value ends.
pub(super) fn resolve(schema: &Value, depth: usize) -> Result<Value, GrammarError> {
    let mut resolver = Resolver::new(schema);
    let mut root = schema.clone();
    resolver.take(&mut root)?;
    let mut next = 0;
    while let Some((target, _)) = resolver.targets.get(next) {
        next += 1;
        let mut body = (*target).clone();
        resolver.take(&mut body)?;
        resolver.bodies.push(body);
    }
    if resolver.bodies.is_empty() {
        return Ok(root);
    }
    resolver.check_chains()?;
    let mut rounds = Rounds::new(&resolver.bodies, depth);
    let mut defs = Map::new();
    let dead = rounds.fill(&mut root, None, &mut defs, 0)?;
    if dead {
        return Err(invalid(
            "no value fits it: its `$ref`s need each other without end".to_owned(),
        ));
    }
    if let Some(fields) = root.as_object_mut() {
        fields.insert("$defs".to_owned(), Value::Object(defs));
    }
    Ok(root)
}

fn invalid(reason: String) -> GrammarError {
    GrammarError::Invalid { reason }
}

/// Names the schemas that are referred to.
struct Resolver<'a> {
    root: &'a Value,
    /// Schemas by `$id` and by `#anchor`.
    named: HashMap<String, &'a Value>,
    /// What is referred to, in the order of the definitions, and how; told apart by where it lies.
    targets: Vec<(&'a Value, String)>,
    bodies: Vec<Value>,
}

impl<'a> Resolver<'a> {
    fn new(root: &'a Value) -> Self {
        let mut named = HashMap::new();
        collect_names(root, &mut named);
        Self {
            root,
            named,
            targets: Vec::new(),
            bodies: Vec::new(),
        }
    }

    /// Points each reference within `schema` to its definition, and leaves out the old ones.
    fn take(&mut self, schema: &mut Value) -> Result<(), GrammarError> {
        let Value::Object(fields) = schema else {
            return Ok(());
        };
        for key in ["$defs", "definitions", "$id", "id", "$anchor"] {
            // A draft-4 `id`; where it is no string it is somebody's own keyword.
            fields.shift_remove(key);
        }
        if let Some(reference) = fields.get("$ref") {
            let Some(reference) = reference.as_str() else {
                return Err(invalid("`$ref` must be a string".to_owned()));
            };
            let target = self.find(reference)?;
            let number = self.number(target, reference);
            fields.insert("$ref".to_owned(), json!(number));
        }
        children_mut(fields, |_, child| self.take(child))
    }

    /// The number of a target's definition.
    fn number(&mut self, target: &'a Value, reference: &str) -> usize {
        let is = |(known, _): &(&Value, String)| std::ptr::eq(*known, target);
        let known = self.targets.iter().position(is);
        known.unwrap_or_else(|| {
            self.targets.push((target, short(reference)));
            self.targets.len() - 1
        })
    }

    /// Refuses references that lead to references that lead back to them, with nothing between: they describe nothing.
    fn check_chains(&self) -> Result<(), GrammarError> {
        let next = |n: usize| {
            let number = self.bodies[n].get("$ref").and_then(Value::as_u64)?;
            usize::try_from(number).ok()
        };
        for start in 0..self.bodies.len() {
            let chain = std::iter::successors(next(start), |n| next(*n));
            for (length, n) in chain.enumerate() {
                if n == start {
                    let (_, reference) = &self.targets[start];
                    return Err(invalid(format!(
                        "`$ref` \"{reference}\" leads back to itself"
                    )));
                }
                if length >= MAX_ALIASES {
                    return Err(GrammarError::TooComplex {
                        reason: format!("a chain of over {MAX_ALIASES} `$ref`s"),
                    });
                }
            }
        }
        Ok(())
    }

    fn find(&self, reference: &str) -> Result<&'a Value, GrammarError> {
        let missing = || {
            invalid(format!(
                "`$ref` \"{}\" leads to no schema",
                short(reference)
            ))
        };
        let (resource, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let root = match resource {
            "" => self.root,
            id => self.resource(id).ok_or_else(|| {
                invalid(format!(
                    "`$ref` \"{}\" leads out of the schema",
                    short(reference)
                ))
            })?,
        };
        let fragment = percent_decoded(fragment).ok_or_else(missing)?;
        let found = match fragment.as_str() {
            "" | "/" if fragment.is_empty() || root.get("").is_none() => Some(root),
            pointer if pointer.starts_with('/') => root.pointer(pointer),
            anchor => self.named.get(&format!("#{anchor}")).copied(),
        };
        found
            .filter(|schema| schema.is_object() || schema.is_boolean())
            .ok_or_else(missing)
    }

    /// The schema whose `$id` this is, whole or as the last part of an address.
    fn resource(&self, id: &str) -> Option<&'a Value> {
        self.named.get(id).copied().or_else(|| {
            let ends = |name: &&String| {
                let tail = name.strip_suffix(id.trim_start_matches('/'));
                tail.is_some_and(|before| before.ends_with('/'))
            };
            let name = self.named.keys().filter(ends).min()?;
            self.named.get(name).copied()
        })
    }
}

fn collect_names<'a>(schema: &'a Value, named: &mut HashMap<String, &'a Value>) {
    let Value::Object(fields) = schema else {
        return;
    };
    for key in ["$id", "id"] {
        if let Some(id) = fields.get(key).and_then(Value::as_str) {
            let id = id.trim_end_matches('#');
            // Drafts 4 to 7 have anchors like `"$id": "#name"`.
            named.entry(id.to_owned()).or_insert(schema);
        }
    }
    if let Some(anchor) = fields.get("$anchor").and_then(Value::as_str) {
        named.entry(format!("#{anchor}")).or_insert(schema);
    }
    for child in children(fields) {
        collect_names(child, named);
    }
}

/// `None`: no UTF-8, or half an escape.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Writes the definitions, round by round.
struct Rounds<'a> {
    bodies: &'a [Value],
    /// The recursion that each definition belongs to.
    group: Vec<usize>,
    /// Rounds of each recursion; 0 where a definition does not come back to itself.
    rounds: Vec<usize>,
    /// Whether a definition in a round has values; absent while it is not known.
    alive: HashMap<(usize, usize), bool>,
}

impl<'a> Rounds<'a> {
    fn new(bodies: &'a [Value], depth: usize) -> Self {
        let edges: Vec<Vec<usize>> = bodies.iter().map(references).collect();
        let group = groups(&edges);
        let mut rounds = vec![0; bodies.len()];
        for (n, targets) in edges.iter().enumerate() {
            let recursive = targets.iter().any(|m| group[*m] == group[n]);
            if recursive && rounds[group[n]] == 0 {
                let members: Vec<usize> = (0..bodies.len())
                    .filter(|m| group[*m] == group[n])
                    .collect();
                rounds[group[n]] = rounds_of(bodies, &members, depth);
            }
        }
        Self {
            bodies,
            group,
            rounds,
            alive: HashMap::new(),
        }
    }

    /// Points the references within `schema` to definitions, which it adds to `defs`. `within`: the definition and
    /// round that the schema is of. Returns whether no value fits the schema.
    fn fill(
        &mut self,
        schema: &mut Value,
        within: Option<(usize, usize)>,
        defs: &mut Map<String, Value>,
        chain: usize,
    ) -> Result<bool, GrammarError> {
        let Value::Object(fields) = schema else {
            return Ok(*schema == Value::Bool(false));
        };
        children_mut(fields, |_, child| {
            if self.fill(child, within, defs, chain)? {
                *child = Value::Bool(false);
            }
            Ok(())
        })?;
        if let Some(number) = fields.get("$ref").and_then(Value::as_u64) {
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            let round = match within {
                Some((from, round)) if self.group[from] == self.group[number] => {
                    // A round is once around: it ends where the order of the definitions is gone back.
                    round + usize::from(number <= from)
                }
                _ => 0,
            };
            if !self.define(number, round, defs, chain)? {
                return Ok(true);
            }
            fields.insert(
                "$ref".to_owned(),
                json!(format!("#/$defs/{}", name(number, round))),
            );
        }
        Ok(is_empty(fields))
    }

    /// Adds a definition in one round; whether it has values.
    fn define(
        &mut self,
        number: usize,
        round: usize,
        defs: &mut Map<String, Value>,
        chain: usize,
    ) -> Result<bool, GrammarError> {
        if let Some(alive) = self.alive.get(&(number, round)) {
            return Ok(*alive);
        }
        if round > 0 && round >= self.rounds[self.group[number]] {
            return Ok(false);
        }
        if chain > MAX_CHAIN {
            return Err(GrammarError::TooComplex {
                reason: format!("a chain of over {MAX_CHAIN} `$ref`s"),
            });
        }
        let mut body = self.bodies[number].clone();
        // Within a round the order only rises, so nothing asks for this one while it is made.
        self.alive.insert((number, round), false);
        let alive = !self.fill(&mut body, Some((number, round)), defs, chain + 1)?;
        if alive {
            defs.insert(name(number, round), body);
        }
        self.alive.insert((number, round), alive);
        Ok(alive)
    }
}

/// How many rounds a recursion has: at most `depth`, and fewer where they would be too large.
fn rounds_of(bodies: &[Value], members: &[usize], depth: usize) -> usize {
    let nodes: usize = members.iter().map(|n| size(&bodies[*n])).sum();
    let most = depth.min(MAX_ROUNDS_NODES / nodes.max(1)).max(2);
    // Rounds within a value, from each member on, with so many rounds as are counted.
    let mut within: HashMap<usize, usize> = members.iter().map(|n| (*n, 0)).collect();
    for count in 1..=most {
        let before = within.clone();
        for n in members.iter().rev() {
            let inner = spread(&bodies[*n], &|m| {
                let counted = if m > *n { &within } else { &before };
                counted.get(&m).copied().unwrap_or(0)
            });
            within.insert(*n, inner.saturating_add(1));
        }
        if within.values().any(|values| *values > MAX_SPREAD) {
            return (count - 1).max(2);
        }
    }
    most
}

/// How many rounds a value of this schema has in it; of alternatives, the one with the most.
fn spread(schema: &Value, of: &impl Fn(usize) -> usize) -> usize {
    let Value::Object(fields) = schema else {
        return 0;
    };
    let number = fields.get("$ref").and_then(Value::as_u64);
    let own = number.and_then(|n| usize::try_from(n).ok()).map_or(0, of);
    fields.iter().fold(own, |sum, (key, value)| {
        let inner = children_of(key, value)
            .into_iter()
            .map(|child| spread(child, of));
        let more = match key.as_str() {
            "anyOf" | "oneOf" => inner.max().unwrap_or(0),
            _ => inner.fold(0, usize::saturating_add),
        };
        sum.saturating_add(more)
    })
}

fn name(number: usize, round: usize) -> String {
    format!("r{number}.{round}")
}

/// The definitions that a body refers to, each as often as it does.
fn references(body: &Value) -> Vec<usize> {
    let mut found = Vec::new();
    let mut left = vec![body];
    while let Some(schema) = left.pop() {
        let Value::Object(fields) = schema else {
            continue;
        };
        let number = fields.get("$ref").and_then(Value::as_u64);
        found.extend(number.and_then(|n| usize::try_from(n).ok()));
        left.extend(children(fields));
    }
    found
}

/// The strongly connected components (Kosaraju), each named by one of its nodes.
fn groups(edges: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(edges.len());
    let mut seen = vec![false; edges.len()];
    for start in 0..edges.len() {
        let mut stack = vec![(start, 0)];
        while let Some((node, next)) = stack.pop() {
            if next == 0 && std::mem::replace(&mut seen[node], true) {
                continue;
            }
            match edges[node].get(next) {
                Some(target) => stack.extend([(node, next + 1), (*target, 0)]),
                None => order.push(node),
            }
        }
    }
    let mut back = vec![Vec::new(); edges.len()];
    for (from, targets) in edges.iter().enumerate() {
        targets.iter().for_each(|to| back[*to].push(from));
    }
    let mut group = vec![usize::MAX; edges.len()];
    for start in order.into_iter().rev() {
        let mut stack = vec![start];
        while let Some(node) = stack.pop() {
            if group[node] == usize::MAX {
                group[node] = start;
                stack.extend(&back[node]);
            }
        }
    }
    group
}

/// Objects, arrays and scalars of a document.
fn size(value: &Value) -> usize {
    let inner: usize = match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.values().map(size).sum(),
        _ => 0,
    };
    inner + 1
}

/// Whether it is plain that no value fits. `false` schemas within count, references not.
fn is_empty(fields: &Map<String, Value>) -> bool {
    let never = |schema: &Value| *schema == Value::Bool(false);
    let list = |key: &str| fields.get(key).and_then(Value::as_array);
    let all = |key| list(key).is_some_and(|some| !some.is_empty() && some.iter().all(never));
    if all("anyOf") || all("oneOf") || list("allOf").is_some_and(|all| all.iter().any(never)) {
        return true;
    }
    match fields.get("type").and_then(Value::as_str) {
        Some("object") => {
            let properties = fields.get("properties").and_then(Value::as_object);
            let required = list("required")
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            let schema = |name| properties.and_then(|known| known.get(name));
            required
                .into_iter()
                .any(|name| schema(name).is_some_and(never))
        }
        Some("array") => {
            let least = fields
                .get("minItems")
                .and_then(Value::as_f64)
                .unwrap_or(0.0);
            let first = list("prefixItems").or(list("items"));
            let given = first.map_or(0, Vec::len) as f64;
            let needed = first.into_iter().flatten().enumerate();
            let missing = fields.get("items").is_some_and(never) && least > given;
            missing
                || needed
                    .into_iter()
                    .any(|(n, schema)| (n as f64) < least && never(schema))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
