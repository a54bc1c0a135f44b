//! The real builder and ONNX parser of TensorRT-RTX, which build without a device.
//!
//! TensorRT itself is in no package index; TensorRT-RTX is, and its interface is the same as far as it is used here.
//! It wants a shim built with its own headers: `scripts/tensorrt.sh rtx` does all that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use sluice_tensorrt::{
    BuildError, BuildOptions, Callbacks, Error, Library, Runtime, RuntimeOptions, Span,
    Specification, Watch, build,
};

/// The library and a folder of models, where the script has put them.
fn rtx() -> Option<(Arc<Library>, PathBuf)> {
    let library = env::var_os("SLUICE_TEST_TENSORRT_RTX")?;
    let library = Library::open(Some(Path::new(&library))).unwrap();
    let models = env::var_os("SLUICE_DATA").expect("SLUICE_DATA, with the embedding model in it");
    Some((Arc::new(library), Path::new(&models).join("models")))
}

/// Any sentence of up to 128 tokens, eight at a time, on an A100.
fn sentences() -> Specification {
    let span = Span {
        smallest: vec![1, 1],
        best: vec![4, 32],
        largest: vec![8, 128],
    };
    let names = ["input_ids", "attention_mask", "token_type_ids"];
    let profile = names.map(|name| (name.to_owned(), span.clone()));
    Specification {
        profiles: vec![BTreeMap::from(profile)],
        target: Some(80),
        ..Specification::default()
    }
}

#[derive(Default)]
struct Counter {
    steps: AtomicU32,
    phases: AtomicU32,
    /// After so many steps, if not 0.
    stop_after: u32,
}

impl Watch for Counter {
    fn start(&self, _: &str, _: &str, _: u32) {
        self.phases.fetch_add(1, Ordering::SeqCst);
    }

    fn step(&self, _: &str, _: u32) -> bool {
        let done = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        self.stop_after == 0 || done < self.stop_after
    }

    fn finish(&self, _: &str) {
        self.phases.fetch_sub(1, Ordering::SeqCst);
    }
}

fn minilm(
    library: &Library,
    models: &Path,
    watcher: &Arc<Counter>,
) -> Result<sluice_tensorrt::Built, BuildError> {
    let path = models.join("all-minilm-l6-v2/model.onnx");
    let model = fs::read(&path).unwrap();
    let options = BuildOptions {
        callbacks: Callbacks {
            watch: Some(watcher.clone()),
            ..Callbacks::default()
        },
        path: Some(&path),
        ..BuildOptions::default()
    };
    build(library, &model, &sentences(), &options)
}

#[test]
fn it_builds_a_real_model_and_tells_how_far_it_is() {
    let Some((library, models)) = rtx() else {
        return;
    };
    let watcher = Arc::new(Counter::default());
    let built = minilm(&library, &models, &watcher).unwrap();
    // The weights are in it.
    assert!(built.engine.len() > 80_000_000, "{}", built.engine.len());
    assert!(watcher.steps.load(Ordering::SeqCst) > 100);
    assert_eq!(watcher.phases.load(Ordering::SeqCst), 0);
    // Without a device it is refused with the driver's reason; with the right one it loads.
    let runtime = Runtime::new(&library, &RuntimeOptions::default()).unwrap();
    match runtime.load(&built.engine) {
        Ok(engine) => {
            let names: Vec<&str> = engine.tensors().iter().map(|t| t.name.as_str()).collect();
            assert!(names.contains(&"input_ids"), "{names:?}");
            assert_eq!(engine.tensors()[0].bounds[0].largest.sizes(), [8, 128]);
        }
        Err(error) => {
            assert!(matches!(error, Error::Refused(_)), "{error}");
            assert!(error.to_string().contains("Cuda"), "{error}");
        }
    }
}

#[test]
fn a_build_of_its_is_stopped() {
    let Some((library, models)) = rtx() else {
        return;
    };
    let watcher = Arc::new(Counter {
        stop_after: 20,
        ..Counter::default()
    });
    let error = minilm(&library, &models, &watcher).unwrap_err();
    assert!(matches!(error, BuildError::Call(Error::Stopped)), "{error}");
}

#[test]
fn its_parser_names_the_node_that_it_cannot_read() {
    let Some((library, _)) = rtx() else { return };
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/helpdesk/models/v2/model.onnx");
    let model = fs::read(&path).unwrap();
    let options = BuildOptions {
        path: Some(&path),
        ..BuildOptions::default()
    };
    let error = build(&library, &model, &sentences(), &options).unwrap_err();
    assert!(
        error.to_string().contains("(GroupQueryAttention)"),
        "{error}"
    );
    let error = build(
        &library,
        b"not a model",
        &sentences(),
        &BuildOptions::default(),
    );
    assert!(matches!(error, Err(BuildError::Call(Error::Model(_)))));
}

#[test]
fn its_runtime_refuses_rubbish_with_its_own_words() {
    let Some((library, _)) = rtx() else { return };
    let runtime = Runtime::new(&library, &RuntimeOptions::default()).unwrap();
    let error = runtime.load(b"not an engine").unwrap_err();
    assert!(
        matches!(&error, Error::Refused(r) if !r.0.is_empty()),
        "{error}"
    );
    assert!(!runtime.has_plugin("NoSuchPlugin", "1", "").unwrap());
    assert!(
        runtime
            .load_plugins("/nowhere/plugins.so".as_ref())
            .is_err()
    );
}
