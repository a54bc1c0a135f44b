#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::engines::{MadeFrom, model_digest};
use super::progress::ended;
use super::*;
use crate::backend::builds::{Build, Done};
use crate::backend::onnx::session::ModelSource;

fn profile(input: &str) -> ShapeProfile {
    ShapeProfile {
        input: input.to_owned(),
        min: vec![1, 1],
        opt: vec![8, 128],
        max: vec![32, 512],
    }
}

fn made_from() -> MadeFrom {
    MadeFrom {
        model: "abc".to_owned(),
        sluice: "0.1.0",
        onnx_runtime: "1.31.1".to_owned(),
        tensorrt: "10.13.2".to_owned(),
        gpu: "NVIDIA H200 9.0".to_owned(),
        options: MadeFrom::options(&TensorRtOptions::default()),
    }
}

#[test]
fn shapes_are_written_as_the_provider_reads_them() {
    let [min, opt, max] = shapes(&[profile("input_ids"), profile("attention_mask")]);
    assert_eq!(min, "input_ids:1x1,attention_mask:1x1");
    assert_eq!(opt, "input_ids:8x128,attention_mask:8x128");
    assert_eq!(max, "input_ids:32x512,attention_mask:32x512");
}

#[test]
fn the_host_needs_no_provider_and_tensorrt_falls_back_to_cuda() {
    let options = GpuOptions::default();
    assert_eq!(providers(Provider::Cpu, &options, None).len(), 0);
    assert_eq!(
        providers(Provider::Cuda { device: 1 }, &options, None).len(),
        1
    );
    assert_eq!(
        providers(Provider::TensorRt { device: 0 }, &options, None).len(),
        2
    );
}

/// An engine is found again under the same conditions only.
#[test]
fn whatever_an_engine_depends_on_gives_it_another_folder() {
    let cache = tempfile::tempdir().unwrap();
    let open = |made_from: &MadeFrom| EngineFolder::open(cache.path(), made_from, 100).unwrap();
    let first = open(&made_from());
    assert_eq!(open(&made_from()), first);
    let option = |change: fn(&mut TensorRtOptions)| {
        let mut options = TensorRtOptions::default();
        change(&mut options);
        MadeFrom {
            options: MadeFrom::options(&options),
            ..made_from()
        }
    };
    let others = [
        MadeFrom {
            model: "abd".to_owned(),
            ..made_from()
        },
        MadeFrom {
            sluice: "0.2.0",
            ..made_from()
        },
        MadeFrom {
            onnx_runtime: "1.32.0".to_owned(),
            ..made_from()
        },
        MadeFrom {
            tensorrt: "10.14.0".to_owned(),
            ..made_from()
        },
        MadeFrom {
            gpu: "NVIDIA A100 8.0".to_owned(),
            ..made_from()
        },
        option(|o| o.fp16 = true),
        option(|o| o.bf16 = true),
        option(|o| o.int8 = true),
        option(|o| o.workspace = Some(1)),
        option(|o| o.optimization_level = Some(5)),
        option(|o| o.profiles = vec![profile("input_ids")]),
    ];
    let mut folders: Vec<_> = others.iter().map(open).collect();
    folders.push(first.clone());
    folders.sort_by_key(|folder| folder.path().to_owned());
    folders.dedup();
    assert_eq!(folders.len(), others.len() + 1);
    // Where they are kept, and how many, is no condition.
    let kept = option(|o| o.keep = 3);
    assert_eq!(open(&kept), first);
}

#[test]
fn the_folders_unused_longest_go_and_strangers_stay() {
    let cache = tempfile::tempdir().unwrap();
    std::fs::create_dir(cache.path().join("not ours")).unwrap();
    let of = |model: usize| MadeFrom {
        model: model.to_string(),
        ..made_from()
    };
    let mut folders = Vec::new();
    for model in 0..5 {
        folders.push(EngineFolder::open(cache.path(), &of(model), 3).unwrap());
        std::thread::sleep(Duration::from_millis(20));
        if model == 3 {
            // The first of the kept ones is used again.
            EngineFolder::open(cache.path(), &of(1), 3).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let there: Vec<bool> = folders
        .iter()
        .map(|folder| folder.path().exists())
        .collect();
    assert_eq!(there, [false, true, false, true, true]);
    assert!(cache.path().join("not ours").exists());
}

#[test]
fn a_build_is_told_of_until_it_ends() {
    let cache = tempfile::tempdir().unwrap();
    let folder = EngineFolder::open(cache.path(), &made_from(), 1).unwrap();
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let building = Building::telling("m", folder.clone(), Duration::from_millis(1), {
        let lines = Arc::clone(&lines);
        move |build| lines.lock().unwrap().push(build.to_string())
    });
    let wait_for = |text: &str| {
        while !lines.lock().unwrap().iter().any(|line| line.contains(text)) {
            std::thread::yield_now();
        }
    };
    wait_for("builds the first engine");
    std::fs::write(folder.path().join("graph_0.engine"), "engine").unwrap();
    wait_for("has built 1");
    drop(building);
}

#[test]
fn an_end_is_told_when_there_is_something_to_tell() {
    let end = |seconds, before, built| {
        ended(&Build {
            model: "m".to_owned(),
            done: Done::Engines { before, built },
            elapsed: Duration::from_secs(seconds),
        })
    };
    assert_eq!(end(1, 0, 0), None);
    assert_eq!(end(20, 0, 0).unwrap(), "loaded after 20 s");
    assert!(end(1, 2, 0).unwrap().contains("from the cache"));
    assert!(
        end(9, 0, 1)
            .unwrap()
            .starts_with("TensorRT built 1 engines")
    );
}

/// Batches that an encoder will run, for each input that its graph has.
#[test]
fn an_encoders_profiles_are_made_from_its_graph() {
    let model = super::super::testing::fixture("tiny-encoder").join("model.onnx");
    let profiles = text_profiles(&model, 64, 24).unwrap();
    let mut names: Vec<&str> = profiles.iter().map(|p| p.input.as_str()).collect();
    names.sort_unstable();
    assert!(
        names.contains(&"input_ids") && names.contains(&"attention_mask"),
        "{names:?}"
    );
    for profile in &profiles {
        assert_eq!((&*profile.min, &*profile.opt), (&[1, 1][..], &[8, 24][..]));
        assert_eq!(profile.max, [64, 24]);
    }
    let nowhere = text_profiles(Path::new("/nowhere/model.onnx"), 1, 1).unwrap_err();
    assert!(nowhere.to_string().contains("/nowhere/model.onnx"));
}

/// Engines are kept under it: a graph that was edited otherwise is another.
#[test]
fn the_digest_of_an_edited_graph_covers_the_edit_and_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.onnx"), "the graph, with w.bin").unwrap();
    std::fs::write(dir.path().join("w.bin"), "1").unwrap();
    let of = |model: &[u8]| {
        let folder = Some(dir.path());
        model_digest(ModelSource::Bytes { model, folder }).unwrap()
    };
    let first = of(b"one edit");
    assert_eq!(of(b"one edit"), first);
    assert_ne!(of(b"another edit"), first);
    std::fs::write(dir.path().join("w.bin"), "2").unwrap();
    assert_ne!(of(b"one edit"), first);
}
