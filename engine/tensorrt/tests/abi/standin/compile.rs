//! Compiles the stand-in, also for the tests of the crate that serves models by it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_tensorrt::digest;

#[path = "defaults.rs"]
mod defaults;

/// Builds the stand-in with these defines from the vendor's `headers` (folders, as in
/// `PATH`), below `folder`, once for all that want the same one.
pub(crate) fn compile(headers: &str, folder: &Path, name: &str, defines: &[&str]) -> PathBuf {
    let include: Vec<PathBuf> = env::split_paths(headers).collect();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["tests/abi/standin", "tensorrt/tests/abi/standin"].map(|at| crates.join(at));
    let source = places.iter().find(|place| place.is_dir()).unwrap();
    let text = defaults::write(&include);
    let mut all = text.clone();
    for file in ["standin.cpp", "standin_builder.h"] {
        all += &fs::read_to_string(source.join(file)).unwrap();
    }
    all += &defines.join(" ");
    // A folder for each, so that libraries of the same name do not meet.
    let folder = folder.join(&digest(all.as_bytes())[..16]);
    let library = folder.join(name);
    if library.exists() {
        return library;
    }
    fs::create_dir_all(&folder).unwrap();
    // Tests may build the same one at the same time: each in its own place, and whoever is last wins.
    let work = tempfile::tempdir_in(&folder).unwrap();
    fs::write(work.path().join("defaults.h"), text).unwrap();
    let built = work.path().join(name);
    let mut command = Command::new(env::var_os("CXX").unwrap_or_else(|| "c++".into()));
    command
        .args(["-std=c++17", "-O0", "-shared", "-fPIC", "-pthread"])
        .args([
            "-fvisibility=hidden",
            "-DTENSORRT_BUILD_LIB",
            "-Wno-deprecated-declarations",
        ])
        .args(defines.iter().map(|define| format!("-D{define}")))
        .arg("-I")
        .arg(work.path());
    for folder in &include {
        command.arg("-isystem").arg(folder);
    }
    command
        .arg(source.join("standin.cpp"))
        .arg("-o")
        .arg(&built);
    let output = command.output().expect("a C++ compiler");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&built, &library).unwrap();
    library
}
