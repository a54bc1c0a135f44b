//! Native TensorRT over two stand-ins, that of TensorRT and that of the CUDA driver: from
//! files to answers, and every way that this fails. An engine multiplies `x`, `[-1, 4]`,
//! by a number, to which that of the profile in use is added.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../../tensorrt/tests/abi/standin/compile.rs"]
mod compile;
mod encoder;
mod process;

use std::fs;
use std::path::{Path, PathBuf};

use cudarc::driver::sys::CUresult;
use tempfile::TempDir;

use super::progress::Phases;
use super::*;
use crate::backend::builds::{Build, builds};
use crate::backend::onnx::{ShapeProfile, TensorData, TensorSlice, TensorView};
use crate::cuda::standin::Standin;
use crate::error::{BackendError, LoadError};
use crate::tensor::{InferError, NamedTensor, TensorModel, TensorOptions};

const MIB: u64 = 1 << 20;

/// A device, a library, and a folder for models.
struct Setting {
    standin: Standin,
    folder: TempDir,
    options: NativeOptions,
}

fn setting() -> Setting {
    let standin = Standin::install(&[64 * MIB]);
    // TensorRT's stand-in reads memory by itself.
    standin.work_at_once();
    Setting {
        standin,
        folder: tempfile::tempdir().unwrap(),
        options: NativeOptions {
            library: Some(library()),
            ..NativeOptions::default()
        },
    }
}

/// TensorRT's stand-in, over the driver's.
fn library() -> PathBuf {
    let built = Path::new(env!("OUT_DIR")).join("tensorrt");
    let headers = env!("SLUICE_TENSORRT_HEADERS");
    let library = compile::compile(headers, &built, "libnvinfer.so", &["STANDIN_AT_ONCE"]);
    // The parser is a library of its own, beside it.
    let parser = library.with_file_name("libnvonnxparser.so");
    if !parser.exists() {
        _ = std::os::unix::fs::symlink(&library, parser);
    }
    library
}

impl Setting {
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// The engine that these words describe.
    fn open(&self, words: &str) -> Result<TensorRtSession, LoadError> {
        let path = self.file("model.plan", &format!("standin {words}"));
        open("m", &path, &self.options)
    }

    fn model(&self, words: &str) -> TensorModel {
        let path = self.file("model.plan", &format!("standin {words}"));
        TensorModel::load_native("m", &path, &TensorOptions::default(), &self.options).unwrap()
    }

    fn nothing_is_left(&self) {
        let alive = self.standin.alive(0);
        assert!(alive.is_nothing(), "{alive:?}");
    }

    /// Where a graph lies that takes `[1, 4]` to `[8, 4]`, and engines are kept.
    fn graph(&mut self, scale: u32) -> PathBuf {
        let shape = |rows| vec![rows, 4];
        self.options.build.profiles = vec![ShapeProfile {
            input: "x".to_owned(),
            min: shape(1),
            opt: shape(4),
            max: shape(8),
        }];
        self.options.build.cache = Some(self.folder.path().join("cache"));
        self.file("m/model.onnx", &format!("input x -1 4\nscale {scale}"))
    }

    /// Engines built so far, as the store's record of measurements has it.
    fn built(&self) -> usize {
        let files = fs::read_dir(self.folder.path().join("cache")).unwrap();
        let plans = files.filter(|file| {
            let path = file.as_ref().unwrap().path();
            path.extension().is_some_and(|end| end == "plan")
        });
        plans.count()
    }
}

fn numbers(rows: usize) -> Vec<f32> {
    (0..rows * 4).map(|at| at as f32).collect()
}

fn times(factor: f32, rows: usize) -> TensorData {
    TensorData::Fp32(numbers(rows).iter().map(|x| x * factor).collect())
}

fn run(session: &mut TensorRtSession, rows: usize) -> Result<TensorData, BackendError> {
    let (shape, numbers) = ([rows as i64, 4], numbers(rows));
    let view = TensorView {
        shape: &shape,
        data: TensorSlice::Fp32(&numbers),
    };
    let mut outputs = session.run(&[("x", view)], &["y"])?;
    assert_eq!(outputs[0].shape, shape);
    Ok(outputs.swap_remove(0).data)
}

fn input(rows: usize) -> Vec<NamedTensor> {
    vec![NamedTensor {
        name: "x".to_owned(),
        shape: vec![rows as i64, 4],
        data: TensorData::Fp32(numbers(rows)),
    }]
}

fn refusal(answer: Result<TensorData, BackendError>) -> String {
    match answer {
        Err(BackendError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn step_error(answer: Result<TensorData, BackendError>) -> String {
    match answer {
        Err(BackendError::Step(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn fatal_error(answer: Result<TensorData, BackendError>) -> String {
    match answer {
        Err(BackendError::Fatal(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_tensor_model_answers() {
    let setting = setting();
    let model = setting.model("scale=3 rows=8 memory=64 weights=1000");
    assert_eq!(model.signature().inputs[0].dims(), [-1, 4]);
    for rows in [1, 8, 2] {
        let answer = model.infer(input(rows), None, None).await.unwrap();
        assert_eq!(answer[0].name, "y");
        assert_eq!(answer[0].data, times(3.0, rows));
    }
}

#[test]
fn the_profile_is_the_closest_that_covers_the_shape() {
    let setting = setting();
    let mut session = setting.open("scale=3 rows=8 profiles=3 memory=64").unwrap();
    for (rows, factor) in [(8, 3.0), (9, 4.0), (24, 5.0), (16, 4.0), (1, 3.0)] {
        assert_eq!(run(&mut session, rows).unwrap(), times(factor, rows));
    }
    let reason = refusal(run(&mut session, 25));
    assert_eq!(
        reason,
        "input `x` has shape [25, 4]; the engine's profiles take [1, 4] to [8, 4] or \
         [1, 4] to [16, 4] or [1, 4] to [24, 4]"
    );
    assert_eq!(run(&mut session, 2).unwrap(), times(3.0, 2));
}

#[test]
fn what_does_not_fit_the_engine_is_named() {
    let setting = setting();
    let mut session = setting.open("scale=3").unwrap();
    let mut refused = |name: &str, shape: &[i64], data: TensorSlice<'_>| {
        let answer = session.run(&[(name, TensorView { shape, data })], &[]);
        answer.unwrap_err().to_string()
    };
    let four = [0.0; 4];
    let unknown = refused("z", &[1, 4], TensorSlice::Fp32(&four));
    assert!(
        unknown.contains("input `z` is unknown; the engine takes x"),
        "{unknown}"
    );
    let other = refused("x", &[1, 4], TensorSlice::Fp64(&[0.0; 4]));
    assert!(
        other.contains("its type is FP64; the engine takes FP32"),
        "{other}"
    );
    let rank = refused("x", &[4], TensorSlice::Fp32(&four));
    assert!(
        rank.contains("its shape is [4]; the engine takes [-1, 4]"),
        "{rank}"
    );
    let short = refused("x", &[2, 4], TensorSlice::Fp32(&four));
    assert!(short.contains("4 elements are given for [2, 4]"), "{short}");
    let missing = session.run(&[], &[]).unwrap_err().to_string();
    assert!(missing.contains("input `x` is missing"), "{missing}");
}

/// `rows` is read on the host; `y` is `x`, updated in place.
#[test]
fn sizes_are_read_on_the_host_and_an_output_may_share_an_inputs_memory() {
    let setting = setting();
    let mut session = setting.open("scale=3 sizes alias").unwrap();
    let mut ask = |rows: i64| {
        let data = numbers(2);
        let x = TensorView {
            shape: &[2, 4],
            data: TensorSlice::Fp32(&data),
        };
        let rows = TensorView {
            shape: &[1],
            data: TensorSlice::Int64(&[rows]),
        };
        session.run(&[("rows", rows), ("x", x)], &["y"])
    };
    assert_eq!(ask(2).unwrap()[0].data, times(3.0, 2));
    let wrong = ask(3).unwrap_err();
    assert!(matches!(wrong, BackendError::Step(_)), "{wrong}");
    assert_eq!(ask(2).unwrap()[0].data, times(3.0, 2));
}

#[test]
fn an_engine_that_does_not_fit_leaves_nothing_behind() {
    let mut setting = setting();
    setting.options.memory_budget = Some(4096);
    for words in ["weights=5000", "memory=5000", "weights=3000 memory=3000"] {
        let error = setting.open(words).unwrap_err();
        assert!(matches!(error, LoadError::DoesNotFit { .. }), "{error}");
        setting.nothing_is_left();
    }
    setting.options.memory_budget = None;
    let error = setting.open("weights=100000000").unwrap_err();
    assert!(matches!(error, LoadError::DoesNotFit { .. }), "{error}");
    let error = setting.open("fault=context").unwrap_err();
    assert!(matches!(error, LoadError::DoesNotFit { .. }), "{error}");
    setting.nothing_is_left();
}

#[test]
fn a_step_without_memory_is_lost_alone() {
    let mut setting = setting();
    setting.options.memory_budget = Some(4096);
    let mut session = setting.open("scale=3 rows=1000 weights=1000").unwrap();
    assert_eq!(run(&mut session, 4).unwrap(), times(3.0, 4));
    let reason = step_error(run(&mut session, 1000));
    assert!(
        reason.contains("bytes of device memory were asked for"),
        "{reason}"
    );
    assert_eq!(run(&mut session, 4).unwrap(), times(3.0, 4));
    let mut session = setting.open("fault=enqueue").unwrap();
    let reason = step_error(run(&mut session, 1));
    assert!(
        reason.contains("out of device memory while starting a step"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_error_after_the_call_ends_the_model() {
    let setting = setting();
    let mut session = setting.open("fault=async").unwrap();
    let reason = fatal_error(run(&mut session, 1));
    assert!(reason.contains("illegal memory access"), "{reason}");
    drop(session);
    let model = setting.model("scale=3");
    assert!(model.healthy());
    let broken = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
    setting.standin.break_context(0, broken);
    // The request that met it has failed; who comes after it is sent elsewhere.
    let answer = model.infer(input(1), None, None).await;
    assert!(matches!(answer, Err(InferError::Failed(_))), "{answer:?}");
    let answer = model.infer(input(1), None, None).await;
    assert!(
        matches!(answer, Err(InferError::Unavailable(_))),
        "{answer:?}"
    );
    assert!(!model.healthy());
}

#[test]
fn a_hundred_loads_leave_device_memory_as_it_was() {
    let setting = setting();
    for _ in 0..100 {
        let mut session = setting.open("scale=3 memory=64 weights=1000").unwrap();
        assert_eq!(run(&mut session, 5).unwrap(), times(3.0, 5));
        drop(session);
        setting.nothing_is_left();
    }
}

#[test]
fn a_graph_is_built_once_and_again_when_anything_changed() {
    let mut setting = setting();
    let graph = setting.graph(3);
    let answer = |setting: &Setting, factor| {
        let mut session = open("m", &graph, &setting.options).unwrap();
        assert_eq!(run(&mut session, 8).unwrap(), times(factor, 8));
    };
    answer(&setting, 3.0);
    answer(&setting, 3.0);
    assert_eq!(setting.built(), 1);
    setting.file("m/model.onnx", "input x -1 4\nscale 5");
    answer(&setting, 5.0);
    assert_eq!(setting.built(), 2);
    // Weights beside the graph are the model's where it names them.
    setting.file("m/readme.txt", "beside the graph");
    answer(&setting, 5.0);
    assert_eq!(setting.built(), 2);
    let named = "input x -1 4\nscale 5\nweights w.bin";
    setting.file("m/w.bin", "1");
    setting.file("m/model.onnx", named);
    answer(&setting, 5.0);
    assert_eq!(setting.built(), 3);
    setting.file("m/w.bin", "2");
    answer(&setting, 5.0);
    assert_eq!(setting.built(), 4);
    setting.options.build.profiles[0].max = vec![9, 4];
    answer(&setting, 5.0);
    assert_eq!(setting.built(), 5);
    let mine = |build: &Build| build.model == "m";
    assert!(!builds().iter().any(mine), "none goes on");
}

#[test]
fn a_damaged_engine_is_built_again_and_a_foreign_one_refused() {
    let mut setting = setting();
    let graph = setting.graph(3);
    drop(open("m", &graph, &setting.options).unwrap());
    let cache = fs::read_dir(setting.folder.path().join("cache")).unwrap();
    let mut files = cache.map(|file| file.unwrap().path());
    let plan = files.find(|path| path.extension().is_some_and(|end| end == "plan"));
    let (plan, mut bytes) = (plan.clone().unwrap(), fs::read(plan.unwrap()).unwrap());
    // As it is, it can be served from anywhere.
    let mut moved = open("m", &plan, &setting.options).unwrap();
    assert_eq!(run(&mut moved, 1).unwrap(), times(3.0, 1));
    // One that says that it is for another device.
    let mut other = sluice_tensorrt::Plan::from_bytes(&bytes).unwrap();
    other.origin.device = "a device of 2019 7.5".to_owned();
    let path = setting.folder.path().join("other.plan");
    fs::write(&path, other.to_bytes().unwrap()).unwrap();
    let error = open("m", &path, &setting.options).unwrap_err().to_string();
    assert!(
        error.contains("for a device of 2019 7.5; here are"),
        "{error}"
    );
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&plan, &bytes).unwrap();
    let error = open("m", &plan, &setting.options).unwrap_err().to_string();
    assert!(error.contains("does not match its digest"), "{error}");
    let mut again = open("m", &graph, &setting.options).unwrap();
    assert_eq!(run(&mut again, 1).unwrap(), times(3.0, 1));
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let mut setting = setting();
    let refused =
        |setting: &Setting, path: &Path| open("m", path, &setting.options).unwrap_err().to_string();
    let rubbish = setting.file("rubbish.engine", "no engine");
    let error = refused(&setting, &rubbish);
    assert!(error.contains("TensorRT refused the engine"), "{error}");
    let text = setting.file("model.txt", "no model");
    let options = TensorOptions::default();
    let error = TensorModel::load_native("m", &text, &options, &setting.options);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("neither a model folder nor an .onnx, .plan"),
        "{error}"
    );
    let graph = setting.file("free/model.onnx", "input x -1 -1");
    let error = refused(&setting, &graph);
    assert!(
        error.contains(
            "at least one profile has to span them (`profiles` in [deployment.tensorrt])"
        ),
        "{error}"
    );
    let graph = setting.graph(3);
    setting.options.build.fp16 = true;
    let error = refused(&setting, &graph);
    assert!(error.contains("leave fp16, bf16"), "{error}");
    setting.options.device = 1;
    let error = refused(&setting, &graph);
    assert!(error.contains("cannot run on native TensorRT"), "{error}");
    setting.options.library = Some(setting.folder.path().join("libnvinfer.so"));
    let error = refused(&setting, &graph);
    assert!(error.contains("TensorRT was not found (tried"), "{error}");
    assert_eq!(error.lines().count(), 1);
    setting.nothing_is_left();
}

#[test]
fn a_builds_share_counts_phases_within_phases_and_never_falls() {
    let mut phases = Phases::default();
    phases.start("build", "", 2);
    phases.start("timing", "build", 4);
    assert_eq!(phases.percent, 0);
    phases.step("timing", 1);
    assert_eq!(phases.percent, 25);
    phases.finish("timing");
    assert_eq!(phases.percent, 25);
    phases.step("build", 0);
    assert_eq!(phases.percent, 50);
    phases.step("build", 1);
    assert_eq!(phases.percent, 99, "the engine is not there yet");
    // A phase that names itself its parent does not hang.
    phases.start("loop", "loop", 1);
    phases.step("loop", 0);
}
