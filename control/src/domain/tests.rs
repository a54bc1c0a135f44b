#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

/// `make docs` sets `SLUICE_WRITE_DOCS` and so turns the comparison into the writing.
#[test]
fn the_page_of_states_is_what_the_code_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/state-machines.md");
    if std::env::var_os("SLUICE_WRITE_DOCS").is_some() {
        std::fs::write(&page, super::document()).unwrap();
    }
    let written = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        written == super::document(),
        "docs/state-machines.md is stale; run: make docs"
    );
}
