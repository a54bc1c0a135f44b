//! Building an engine from a model, and what may be wrong with either.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sluice_tensorrt::{
    BuildError, BuildOptions, Callbacks, Error, Library, OpenError, Runtime, RuntimeOptions, Span,
    Specification, Watch, build,
};

use crate::standin;

const MODEL: &[u8] = b"input x -1 4\nscale 5\n";

/// The library with its parser beside it.
pub(crate) fn library() -> Arc<Library> {
    standin::build("libnvonnxparser.so", &[]);
    standin::library()
}

fn spanning(name: &str, sizes: [&[i64]; 3]) -> Specification {
    let [smallest, best, largest] = sizes.map(<[i64]>::to_vec);
    let span = Span {
        smallest,
        best,
        largest,
    };
    Specification {
        profiles: vec![BTreeMap::from([(name.to_owned(), span)])],
        ..Specification::default()
    }
}

pub(crate) fn rows() -> Specification {
    spanning("x", [&[1, 4], &[4, 4], &[16, 4]])
}

fn refused(model: &[u8], specification: &Specification) -> String {
    build(&library(), model, specification, &BuildOptions::default())
        .unwrap_err()
        .to_string()
}

#[derive(Default)]
struct Watcher {
    seen: Mutex<Vec<String>>,
    stop: bool,
}

impl Watch for Watcher {
    fn start(&self, phase: &str, parent: &str, steps: u32) {
        self.seen.lock().push(format!("{parent}>{phase} {steps}"));
    }

    fn step(&self, phase: &str, step: u32) -> bool {
        self.seen.lock().push(format!("{phase} {step}"));
        !self.stop
    }

    fn finish(&self, phase: &str) {
        self.seen.lock().push(format!("{phase}."));
    }
}

fn watched(watcher: &Arc<Watcher>) -> BuildOptions<'static> {
    BuildOptions {
        callbacks: Callbacks {
            watch: Some(watcher.clone()),
            ..Callbacks::default()
        },
        threads: Some(2),
        ..BuildOptions::default()
    }
}

#[test]
fn a_model_becomes_an_engine_that_loads() {
    let library = library();
    let specification = Specification {
        level: Some(5),
        ..rows()
    };
    let built = build(&library, MODEL, &specification, &BuildOptions::default()).unwrap();
    let text = String::from_utf8(built.engine.clone()).unwrap();
    assert_eq!(text, "standin scale=5 level=5 profiles=1 rows=16 most=4");
    let runtime = Runtime::new(&library, &RuntimeOptions::default()).unwrap();
    let engine = runtime.load(&built.engine).unwrap();
    assert_eq!(engine.tensors()[0].bounds[0].largest.sizes(), [16, 4]);
}

#[test]
fn what_was_measured_is_used_again_and_rubbish_is_not() {
    let library = library();
    let with = |timing: &[u8]| {
        let options = BuildOptions {
            timing,
            ..BuildOptions::default()
        };
        build(&library, MODEL, &rows(), &options).unwrap().timing
    };
    let first = with(b"");
    assert_eq!(first, b"timing 1");
    assert_eq!(with(&first), b"timing 2");
    assert_eq!(with(b"of another device"), b"timing 1");
}

#[test]
fn a_build_tells_how_far_it_is() {
    let watcher = Arc::new(Watcher::default());
    build(&library(), MODEL, &rows(), &watched(&watcher)).unwrap();
    assert_eq!(
        *watcher.seen.lock(),
        [
            ">Building Engine 2",
            "Building Engine>Timing 3",
            "Timing 0",
            "Timing 1",
            "Timing 2",
            "Timing.",
            "Building Engine."
        ]
    );
}

#[test]
fn a_build_can_be_stopped() {
    let watcher = Arc::new(Watcher {
        stop: true,
        ..Watcher::default()
    });
    let error = build(&library(), MODEL, &rows(), &watched(&watcher)).unwrap_err();
    assert!(matches!(error, BuildError::Call(Error::Stopped)), "{error}");
    assert!(!watcher.seen.lock().contains(&"Timing 1".to_owned()));
}

#[test]
fn a_build_without_room_says_so() {
    let specification = Specification {
        workspace_bytes: Some(1000),
        ..rows()
    };
    assert_eq!(
        refused(MODEL, &specification),
        "out of device memory while building the engine: no tactic fits the workspace"
    );
}

#[test]
fn a_model_that_cannot_be_read_names_the_node() {
    assert_eq!(
        refused(b"input x -1 4\nop Frobnicate\n", &rows()),
        "TensorRT cannot read the model: node \"layer 0\" (Frobnicate): No importer registered for this operator"
    );
}

#[test]
fn where_only_the_rows_are_free_there_is_a_profile() {
    let built = |model: &[u8]| {
        let options = BuildOptions::default();
        let built = build(&library(), model, &Specification::default(), &options);
        built.map(|built| String::from_utf8(built.engine).unwrap())
    };
    assert_eq!(
        built(MODEL).unwrap(),
        "standin scale=5 level=3 profiles=1 rows=64 most=4"
    );
    // Nothing is free, and nothing has to be said.
    let fixed = built(b"input x 2 4\nscale 5\n").unwrap();
    assert!(fixed.contains("profiles=0"), "{fixed}");
    assert_eq!(
        built(b"input x -1 -1\nscale 5\n").unwrap_err().to_string(),
        "the model's inputs have sizes that are not fixed (x [-1, -1]): at least one profile has to span them"
    );
}

#[test]
fn a_specification_has_to_fit_the_model() {
    for (specification, message) in [
        (
            spanning("y", [&[1], &[1], &[1]]),
            "profiles[0] spans \"y\"; the model's inputs are x [-1, 4]",
        ),
        (
            Specification {
                profiles: vec![BTreeMap::new()],
                ..Specification::default()
            },
            "profiles[0] does not span \"x\", whose shape in the model is [-1, 4]",
        ),
        (
            spanning("x", [&[1, 5], &[4, 5], &[8, 5]]),
            "profiles[0].x: [1, 5] is no shape that fits the model's [-1, 4]",
        ),
        (
            spanning("x", [&[1, 4], &[-1, 4], &[8, 4]]),
            "profiles[0].x: [-1, 4] is no shape that fits the model's [-1, 4]",
        ),
        (
            spanning("x", [&[1, 4], &[9, 4], &[8, 4]]),
            "profiles[0].x: best has to lie between smallest and largest",
        ),
    ] {
        assert_eq!(refused(MODEL, &specification), message);
    }
}

#[test]
fn a_target_that_the_library_cannot_build_for_is_refused() {
    let elsewhere = Specification {
        target: Some(90),
        ..rows()
    };
    let message = refused(MODEL, &elsewhere);
    assert!(
        message.starts_with("target: this TensorRT does not build"),
        "{message}"
    );
    assert_ne!(elsewhere.digest(), rows().digest());
}

#[test]
fn without_a_builder_or_a_parser_there_is_a_clear_answer() {
    let lean = standin::build("libnvinfer_lean.so", &["STANDIN_WITHOUT_BUILDER"]);
    let lean = Library::open(Some(&lean)).unwrap();
    let error = build(&lean, MODEL, &rows(), &BuildOptions::default()).unwrap_err();
    assert!(
        matches!(error, BuildError::Open(OpenError::NoBuilder { .. })),
        "{error}"
    );
    // Built on its own, so that no parser lies beside it.
    let alone = standin::build("libnvinfer.so", &["ALONE"]);
    let alone = Library::open(Some(&alone)).unwrap();
    let error = build(&alone, MODEL, &rows(), &BuildOptions::default()).unwrap_err();
    assert!(
        matches!(&error, BuildError::Open(OpenError::NotFound { tried }) if !tried.is_empty()),
        "{error}"
    );
}

#[test]
fn specifications_that_differ_have_different_digests() {
    let plain = rows();
    assert_eq!(plain.digest(), rows().digest());
    let mut level = rows();
    level.level = Some(4);
    let wider = spanning("x", [&[1, 4], &[4, 4], &[32, 4]]);
    assert_ne!(plain.digest(), level.digest());
    assert_ne!(plain.digest(), wider.digest());
}
