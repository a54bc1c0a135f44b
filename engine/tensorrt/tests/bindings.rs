//! The bindings in the repository are those of the header beside the shim.
//!
//! They are committed rather than made by each build: generating needs libclang, which few machines have. With
//! `SLUICE_WRITE_BINDINGS` this writes them; without, it compares.

#![expect(
    unsafe_code,
    reason = "sets a variable that bindgen reads; see there why it is sound"
)]

use std::env;
use std::fs;
use std::path::Path;

fn generate(header: &Path) -> String {
    bindgen::Builder::default()
        .header(header.display().to_string())
        .allowlist_item("sluice_trt_.*")
        .allowlist_var("SLUICE_TRT_.*")
        .rust_target(bindgen::RustTarget::stable(94, 0).unwrap_or_default())
        .rust_edition(bindgen::RustEdition::Edition2024)
        .formatter(bindgen::Formatter::Prettyplease)
        .default_visibility(bindgen::FieldVisibilityKind::Public)
        .generate_comments(false)
        .disable_header_comment()
        .raw_line("//! The C interface of `kernels/tensorrt_shim.h`. Generated: scripts/tensorrt.sh bindings.")
        .raw_line("#![expect(")
        .raw_line("    unsafe_code,")
        .raw_line("    unreachable_pub,")
        .raw_line("    clippy::allow_attributes,")
        .raw_line("    reason = \"generated declarations of C functions, under their C names\"")
        .raw_line(")]")
        .generate()
        .expect("a header that libclang can read")
        .to_string()
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn the_bindings_are_those_of_the_header() {
    let Some(folder) = env::var_os("SLUICE_TEST_LIBCLANG") else {
        assert!(
            env::var_os("SLUICE_TEST_REQUIRE_TENSORRT").is_none(),
            "SLUICE_TEST_LIBCLANG names no folder with libclang in it"
        );
        eprintln!("skipped: SLUICE_TEST_LIBCLANG is not set; scripts/tensorrt.sh test does that");
        return;
    };
    // SAFETY: nothing in this process reads the environment past Rust's own lock before libclang is loaded, below.
    unsafe { env::set_var("LIBCLANG_PATH", folder) };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("src/bindings.rs");
    let made = generate(&root.join("../../kernels/tensorrt_shim.h"));
    if env::var_os("SLUICE_WRITE_BINDINGS").is_some() {
        fs::write(&file, made).expect("src/bindings.rs can be written");
        return;
    }
    let kept = fs::read_to_string(&file).expect("src/bindings.rs can be read");
    assert!(
        made == kept,
        "src/bindings.rs is not what the header says; run scripts/tensorrt.sh bindings"
    );
}

#[test]
fn the_shim_is_built_where_everything_is_to_be_tested() {
    assert!(
        cfg!(tensorrt_shim) || env::var_os("SLUICE_TEST_REQUIRE_TENSORRT").is_none(),
        "the headers were not found, so that nothing else was tested"
    );
}
