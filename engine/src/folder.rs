//! What a model folder holds, and whether what it says can be true.
//!
//! Three kinds: a causal language model as written by
//! `onnxruntime_genai.models.builder` (`genai_config.json`), a text encoder as
//! Hugging Face exports it (`config.json`, a tokenizer and `model.onnx` or
//! `onnx/model.onnx`), and any other `.onnx` file as a plain tensor function.
//! Nothing here opens the graph; see `backend::onnx` for that.

mod encoder;
mod genai;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

pub use encoder::{EncoderConfig, Pooling};
pub use genai::{GenAiConfig, SlidingWindow, TensorNames};

use crate::error::LoadError;

/// A model folder whose files are there and whose declarations are in range.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFolder {
    /// The folder (for a single `.onnx` file, the one it lies in).
    pub dir: PathBuf,
    /// What is in it.
    pub kind: ModelKind,
}

/// Kinds of model.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelKind {
    /// A causal language model.
    Generative(Box<GenAiConfig>),
    /// A text encoder: embeddings, or a classifier over text.
    Encoder(EncoderConfig),
    /// A function over tensors.
    Tensor {
        /// The graph.
        model: PathBuf,
    },
}

impl ModelFolder {
    /// Reads the declarations of the folder (or single `.onnx` file) at `path`.
    ///
    /// # Errors
    /// [`LoadError::Folder`] naming the file that is missing or wrong;
    /// [`LoadError::Unsupported`] naming the feature.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        if path.is_file() {
            if path.extension().is_none_or(|extension| extension != "onnx") {
                return Err(wrong(
                    path,
                    "this is neither a model folder nor an .onnx file",
                ));
            }
            let dir = path.parent().unwrap_or(Path::new("."));
            let model = path.to_path_buf();
            return Ok(Self {
                dir: dir.to_path_buf(),
                kind: ModelKind::Tensor { model },
            });
        }
        if !path.is_dir() {
            return Err(wrong(path, "there is no such model folder"));
        }
        Ok(Self {
            dir: path.to_path_buf(),
            kind: detect(path)?,
        })
    }

    /// SHA-256 over the folder's files, hexadecimal: the digest of the lines
    /// `<sha256 of file>  <relative path>\n`, sorted by path, as
    /// `find . -type f | sort | xargs sha256sum` would write them (without `./`).
    /// Reads every file once.
    ///
    /// # Errors
    /// [`LoadError::Folder`] naming the file that cannot be read.
    pub fn digest(&self) -> Result<String, LoadError> {
        let files = match &self.kind {
            ModelKind::Tensor { model } => vec![model.clone()],
            _ => files_below(&self.dir, 0)?,
        };
        digest_of(&self.dir, files)
    }
}

/// SHA-256 over all files below `dir`, as [`ModelFolder::digest`] writes it: also of what
/// a graph may keep its weights in.
#[cfg(tensorrt_shim)]
pub(crate) fn digest_below(dir: &Path) -> Result<String, LoadError> {
    digest_of(dir, files_below(dir, 0)?)
}

fn digest_of(dir: &Path, mut files: Vec<PathBuf>) -> Result<String, LoadError> {
    files.sort();
    let mut whole = Sha256::new();
    for path in files {
        let name = path.strip_prefix(dir).unwrap_or(&path);
        let digest = file_digest(&path)
            .map_err(|error| wrong(&path, &format!("cannot be read: {error}")))?;
        whole.update(format!("{digest}  {}\n", name.display()));
    }
    Ok(hex(&whole.finalize()))
}

fn detect(dir: &Path) -> Result<ModelKind, LoadError> {
    if dir.join("genai_config.json").is_file() {
        return Ok(ModelKind::Generative(Box::new(GenAiConfig::read(dir)?)));
    }
    let graph = ["model.onnx", "onnx/model.onnx"]
        .map(|name| dir.join(name))
        .into_iter()
        .find(|path| path.is_file());
    if let Some(model) = &graph
        && dir.join("config.json").is_file()
        && dir.join("tokenizer.json").is_file()
    {
        return Ok(ModelKind::Encoder(EncoderConfig::read(dir, model.clone())?));
    }
    if let Some(model) = graph {
        return Ok(ModelKind::Tensor { model });
    }
    let mut graphs = files_below(dir, MAX_DEPTH)?;
    graphs.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "onnx")
    });
    match graphs.as_slice() {
        [model] => Ok(ModelKind::Tensor {
            model: model.clone(),
        }),
        [] => Err(wrong(
            dir,
            "it holds no model: expected genai_config.json with model.onnx (chat), config.json, \
             tokenizer.json and model.onnx (encoder), or one .onnx file (tensors)",
        )),
        several => Err(wrong(
            dir,
            &format!(
                "it holds {} .onnx files and none is model.onnx: name the file",
                several.len()
            ),
        )),
    }
}

/// Folders in folders that are still looked into.
const MAX_DEPTH: usize = 4;

/// Regular files below `dir`; at `depth` = [`MAX_DEPTH`], those of `dir` alone.
fn files_below(dir: &Path, depth: usize) -> Result<Vec<PathBuf>, LoadError> {
    let unreadable = |error: io::Error| wrong(dir, &format!("cannot be read: {error}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() && depth < MAX_DEPTH {
            files.extend(files_below(&path, depth + 1)?);
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

fn file_digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A folder error about `path`.
pub(crate) fn wrong(path: &Path, reason: &str) -> LoadError {
    LoadError::Folder {
        path: path.to_path_buf(),
        reason: reason.to_owned(),
    }
}

/// Reads and decodes a JSON file of a model folder.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    let text = std::fs::read(path).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "is missing".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        wrong(path, &reason)
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| wrong(path, &format!("is not as expected: {error}")))
}

#[cfg(test)]
mod tests;
