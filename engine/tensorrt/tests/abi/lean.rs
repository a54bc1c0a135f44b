//! The real lean runtime, as far as a machine without a device lets it come.
//!
//! `scripts/tensorrt.sh test` fetches it; without it these tests say that they are skipped.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use sluice_tensorrt::{
    BuildError, BuildOptions, Error, Library, OpenError, Runtime, RuntimeOptions, Specification,
    build, header_version,
};

fn lean() -> Option<Arc<Library>> {
    let Some(path) = env::var_os("SLUICE_TEST_TENSORRT_LEAN").map(PathBuf::from) else {
        assert!(
            env::var_os("SLUICE_TEST_REQUIRE_TENSORRT").is_none(),
            "SLUICE_TEST_TENSORRT_LEAN names no library"
        );
        skipped();
        return None;
    };
    Some(Arc::new(Library::open(Some(&path)).unwrap()))
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skipped() {
    eprintln!("skipped: SLUICE_TEST_TENSORRT_LEAN names no library; scripts/tensorrt.sh test does");
}

#[test]
fn it_is_opened_and_is_of_the_headers_version_without_a_builder() {
    let Some(library) = lean() else { return };
    assert_eq!(library.version(), header_version());
    assert!(!library.has_builder());
    let made = build(
        &library,
        b"",
        &Specification::default(),
        &BuildOptions::default(),
    );
    assert!(matches!(
        made,
        Err(BuildError::Open(OpenError::NoBuilder { .. }))
    ));
}

#[test]
fn it_refuses_what_is_no_engine_and_says_why() {
    let Some(library) = lean() else { return };
    match Runtime::new(&library, &RuntimeOptions::default()) {
        Ok(runtime) => {
            for rubbish in [&b""[..], b"not an engine", &[0; 4096]] {
                let error = runtime.load(rubbish).unwrap_err();
                assert!(
                    matches!(&error, Error::Refused(r) if !r.0.is_empty()),
                    "{error}"
                );
            }
        }
        Err(error) => {
            assert!(
                matches!(&error, Error::Declined(r) if !r.0.is_empty()),
                "{error}"
            );
        }
    }
}
