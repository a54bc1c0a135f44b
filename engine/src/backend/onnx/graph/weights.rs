//! Where the weights are, and whether all of them are there.

use std::path::{Component, Path};

use super::GraphError;
use crate::backend::onnx::proto::{Initializer, Storage};

/// Bytes of the weights; external ones must lie inside the folder, whole.
pub(super) fn weight_bytes(
    initializers: &[Initializer<'_>],
    dir: &Path,
) -> Result<u64, GraphError> {
    let mut total = 0_u64;
    for tensor in initializers {
        total = total.saturating_add(match &tensor.storage {
            Storage::Inline { bytes } => *bytes,
            Storage::External {
                location,
                offset,
                length,
            } => external_bytes(dir, tensor.name, location, *offset, *length)?,
        });
    }
    Ok(total)
}

fn external_bytes(
    dir: &Path,
    tensor: &str,
    location: &str,
    offset: u64,
    length: Option<u64>,
) -> Result<u64, GraphError> {
    let relative = Path::new(location);
    let inside = !location.is_empty()
        && relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return Err(GraphError::Weights(format!(
            "weight `{tensor}` lies in `{location}`, which is not inside the model folder"
        )));
    }
    let file = dir.join(relative);
    let size = std::fs::metadata(&file)
        .map_err(|error| {
            GraphError::Weights(format!("{}: {error} (external weights)", file.display()))
        })?
        .len();
    let length = length.unwrap_or_else(|| size.saturating_sub(offset));
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(length),
        _ => Err(GraphError::Weights(format!(
            "{} is truncated: weight `{tensor}` needs bytes {offset}..{}, the file has {size}",
            file.display(),
            offset.saturating_add(length)
        ))),
    }
}
