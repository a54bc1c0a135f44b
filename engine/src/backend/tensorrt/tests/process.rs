//! The stand-ins as files, for processes that are tested from outside (tests/python).

use super::*;

/// Lays them into the folder that `SLUICE_STANDINS` names, under the names that a loader
/// looks for.
#[test]
fn the_stand_ins_lie_where_a_process_finds_them() {
    let own = tempfile::tempdir().unwrap();
    let named = std::env::var_os("SLUICE_STANDINS").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| own.path().to_path_buf());
    fs::create_dir_all(&folder).unwrap();
    let tensorrt = library();
    let mut files = crate::cuda::standin::files();
    files.push(("libnvonnxparser.so.11".to_owned(), tensorrt.clone()));
    files.push(("libnvinfer.so.11".to_owned(), tensorrt));
    for (name, file) in &files {
        // Whole at once, for whoever reads beside.
        let partial = folder.join(format!("{name}.{}", std::process::id()));
        fs::copy(file, &partial).unwrap();
        fs::rename(&partial, folder.join(name)).unwrap();
    }
    assert!(files.iter().all(|(name, _)| folder.join(name).is_file()));
    assert!(files.iter().any(|(name, _)| name == "libcuda.so"));
}
