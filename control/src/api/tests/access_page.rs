//! The table of `docs/access.md`: every operation, asked by everybody. It is not written down what should come of it but
//! measured, over HTTP, and compared with the page; what must hold whatever the page says is asserted beside it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod world;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use sluice_gateway::endpoint::{self, Kind};

use self::world::{ENDPOINT, World};
use crate::api::openapi;
use crate::domain::roles::{Role, Verb};
use crate::store::rig::Fresh;

/// One operation.
#[derive(Debug, Clone)]
struct Operation {
    method: String,
    /// As the documents write it: `/api/v1/models/{id}`.
    path: String,
    right: Verb,
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// Let in; of a list, with what the world holds in it.
    Done,
    /// 401 or 403.
    Refused,
    /// As if it were not there; of a list, without it.
    NotThere,
}

impl Seen {
    const fn sign(self) -> &'static str {
        match self {
            Self::Done => "✓",
            Self::Refused => "–",
            Self::NotThere => "∅",
        }
    }
}

/// Whose department and clearance somebody has, compared with the object's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stand {
    Own,
    OwnBelow,
    Other,
}

fn operations() -> Vec<Operation> {
    let document = openapi();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            all.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                right: operation["x-verb"].as_str().unwrap().parse().unwrap(),
            });
        }
    }
    for row in endpoint::table() {
        let of_models = match row.kind {
            Kind::Model(_) | Kind::Models | Kind::OneModel => true,
            // Loading and unloading is refused to everybody, whatever the model.
            Kind::Tensor(tensor) => !matches!(
                tensor,
                endpoint::Tensor::Unknown | endpoint::Tensor::Repository
            ),
            _ => false,
        };
        let needs_key = row.access == endpoint::Access::Full;
        if of_models && needs_key {
            let method = match row.methods.contains("POST") {
                true => "POST",
                false => "GET",
            };
            all.push(Operation {
                method: method.into(),
                path: row.pattern.replace("{model*}", "{model}"),
                right: Verb::Infer,
            });
        }
    }
    all
}

/// The body of an operation, on objects of the world. What is made is called by a name of its own.
fn body(operation: &Operation, world: &World, turn: usize) -> Value {
    let name = format!("made-{turn}");
    let path = operation.path.trim_start_matches("/api/v1");
    match (operation.method.as_str(), path) {
        ("POST", "/artifacts") => {
            json!({"name": name, "kind": "dataset", "files": [{"upload": world.id("upload")}]})
        }
        ("POST", "/apply") => {
            json!({"records": [{"kind": "model", "name": "m", "description": name}]})
        }
        ("POST", "/datasets" | "/departments") => json!({ "name": name }),
        ("POST", "/datasets/{id}/versions")
        | ("POST", "/models/{id}/versions/{version}/register") => {
            json!({"digest": world::DIGEST})
        }
        ("POST", "/deployments") => {
            json!({"endpoint": name, "model": "m", "clearance": "confidential"})
        }
        ("POST", "/evaluations") => {
            json!({"name": name, "model": "m", "metrics": {"measure": [{"kind": "token_f1"}]}})
        }
        ("POST", "/trainings") => json!({"name": name, "model": "m"}),
        ("POST", "/evaluations/{id}/runs") => json!({"model_version": "m@v1"}),
        ("POST", "/grants") => {
            json!({"deployment": ENDPOINT, "department": "sales", "access": "use"})
        }
        ("POST", "/imports") => json!({"from": world.folder(), "name": name, "kind": "dataset"}),
        ("POST", "/keys") => json!({"name": name}),
        ("POST", "/models") => json!({"name": name}),
        ("POST", "/models/{id}/conversions") => {
            json!({"pipeline": "none", "source": world.id("artifact")})
        }
        ("POST", "/models/{id}/prompts") => json!({"name": name, "template": "{{ text }}"}),
        ("POST", "/models/{id}/versions/{version}/datasets") => {
            json!({"dataset": "tickets@v1"})
        }
        (
            "POST",
            "/models/{id}/versions/{version}/request_override"
            | "/models/{id}/versions/{version}/reject"
            | "/models/{id}/versions/{version}/invalidate"
            | "/evaluation_runs/{id}/withdraw"
            | "/deployments/{id}/stop"
            | "/work_orders/{id}/reject"
            | "/work_orders/{id}/abort",
        ) => json!({"reason": "a test"}),
        (
            "POST",
            "/models/{id}/require"
            | "/models/{id}/unrequire"
            | "/deployments/{id}/require"
            | "/deployments/{id}/unrequire",
        ) => json!({"evaluation": "e", "reason": "a test"}),
        ("POST", "/departments/{id}/gate_policy") => json!({"allows": [], "reason": "a test"}),
        ("POST", "/principals") => {
            json!({"name": name, "role": "viewer", "clearance": "confidential"})
        }
        ("POST", "/quotas") => json!({"department": "it", "requests_per_month": 1_000_000}),
        ("POST", "/releases" | "/work_orders") => json!({"deployment": ENDPOINT, "version": "v1"}),
        ("POST", "/trainings/{id}/datasets") => json!({"dataset_version": "tickets@v1"}),
        ("POST", "/uploads") => {
            json!({"path": name, "bytes": 1, "digest": format!("sha256:{}", "0".repeat(64))})
        }
        ("POST", path) if !operation.path.starts_with("/api/") => {
            let model = json!({"model": ENDPOINT, "messages": [{"role": "user", "content": "x"}]});
            let mut body = model;
            for (field, value) in [
                ("prompt", json!("x")),
                ("input", json!("x")),
                ("query", json!("x")),
                ("documents", json!(["x"])),
                ("tokens", json!([1])),
                ("inputs", json!([])),
            ] {
                if path != "/v2/repository/index" {
                    body[field] = value;
                }
            }
            body
        }
        _ => json!({}),
    }
}

/// Asks, and says what was seen.
async fn ask(world: &World, operation: &Operation, key: &str, turn: usize) -> (Seen, String) {
    let path = world.filled(&operation.path, turn);
    let body = (operation.method != "GET").then(|| body(operation, world, turn));
    // A version that nothing has: what would change something ends with 409, after all rights were asked.
    let answered = world
        .send(key, &operation.method, &path, body, "\"999\"")
        .await;
    let text = answered.text();
    let seen = match answered.status.as_u16() {
        401 | 403 => Seen::Refused,
        404 => Seen::NotThere,
        // A field that names something which is not there for the caller.
        422 if text.contains("there is no ") || text.contains("has no ") => Seen::NotThere,
        200 if world.is_list(&operation.method, &operation.path) => match world.is_told_of(&text) {
            true => Seen::Done,
            false => Seen::NotThere,
        },
        status => {
            assert!(
                (status < 500 || status == 503 || status == 502) && status != 429,
                "{operation:?} {text}"
            );
            Seen::Done
        }
    };
    (seen, text)
}

type Row = BTreeMap<(Role, Stand), Seen>;

async fn measured(world: &World) -> Vec<(Operation, Row)> {
    let mut rows = Vec::new();
    let mut turn = 0;
    for operation in operations() {
        let mut row = Row::new();
        // Those who may least come first, so that nobody finds what another has changed.
        for stand in [Stand::Other, Stand::OwnBelow, Stand::Own] {
            for &role in Role::ALL {
                turn += 1;
                let key = world.key(role, stand);
                let (seen, text) = ask(world, &operation, key, turn).await;
                let is_misread = text.contains("\"status\":422")
                    && (text.contains("is missing\"") || text.contains("is not known"));
                assert!(!is_misread, "{operation:?}: {text}");
                row.insert((role, stand), seen);
            }
        }
        rows.push((operation, row));
    }
    rows
}

/// What those of the roles that have the right see: one sign, or a sign a role.
fn signs(row: &Row, stand: Stand, roles: &[Role]) -> String {
    let mut by: BTreeMap<Seen, Vec<&str>> = BTreeMap::new();
    for &role in roles {
        by.entry(row[&(role, stand)]).or_default().push(role.word());
    }
    match by.len() {
        0 => String::new(),
        1 => by.keys().map(|seen| seen.sign()).collect(),
        _ => by
            .iter()
            .map(|(seen, roles)| format!("{} {}", seen.sign(), roles.join(" ")))
            .collect::<Vec<_>>()
            .join("; "),
    }
}

fn table(rows: &[(Operation, Row)]) -> String {
    let heads: String = Role::ALL.iter().map(|role| format!(" {role} |")).collect();
    let rule = "---|".repeat(Role::ALL.len() + 3);
    let mut text = format!(
        "| operation | right |{heads} below the clearance | other department |\n|---|{rule}\n"
    );
    for (operation, row) in rows {
        let cells: String = Role::ALL
            .iter()
            .map(|&role| format!(" {} |", row[&(role, Stand::Own)].sign()))
            .collect();
        let let_in = Role::ALL
            .iter()
            .filter(|role| row[&(**role, Stand::Own)] != Seen::Refused);
        let below: Vec<Role> = let_in.clone().copied().collect();
        let others: Vec<Role> = let_in
            .copied()
            .filter(|role| *role != Role::Admin)
            .collect();
        text.push_str(&format!(
            "| `{} {}` | `{}` |{cells} {} | {} |\n",
            operation.method,
            operation.path,
            operation.right,
            signs(row, Stand::OwnBelow, &below),
            signs(row, Stand::Other, &others),
        ));
    }
    text
}

const BEGIN: &str = "<!-- The table is written by `make docs`; a test fails while it differs from what is measured. -->\n";
const END: &str = "<!-- End of the table. -->\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_access_is_what_everybody_is_answered() {
    let fresh = Fresh::sqlite().await;
    let world = World::new(&fresh.store).await;
    let rows = measured(&world).await;
    for (operation, row) in &rows {
        let is_api = operation.path.starts_with("/api/");
        let on_object = operation.path.contains('{');
        for &role in Role::ALL {
            let refused = row[&(role, Stand::Own)] == Seen::Refused;
            // Whom the role lets may be refused all the same: the author of what he asks about, or who does not own it.
            if is_api && !role.may(operation.right) {
                assert!(refused, "{role}: {operation:?}");
            }
            if on_object && role != Role::Admin && !operation.path.contains("/artifacts") {
                assert_ne!(
                    row[&(role, Stand::Other)],
                    Seen::Done,
                    "{role} of another department: {operation:?}"
                );
            }
            // Nobody sees or does more with less.
            if row[&(role, Stand::OwnBelow)] == Seen::Done {
                assert_eq!(
                    row[&(role, Stand::Own)],
                    Seen::Done,
                    "{role}: {operation:?}"
                );
            }
        }
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/access.md");
    let written = std::fs::read_to_string(&page).unwrap_or_default();
    let (before, rest) = written.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{BEGIN}\n{}\n{END}{after}", table(&rows));
    if std::env::var_os("SLUICE_WRITE_DOCS").is_some() {
        std::fs::write(&page, &wanted).unwrap();
        return;
    }
    assert!(wanted == written, "docs/access.md is stale; run: make docs");
}
