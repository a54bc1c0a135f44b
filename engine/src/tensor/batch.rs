//! Several requests as one run: rows appended along the first dimension, and the
//! outputs dealt out again. Pure.

use std::sync::Arc;

use super::NamedTensor;
use super::queue::Job;
use crate::backend::onnx::Tensor;

/// The inputs of all jobs, row behind row; `None` where elements do not append
/// (which checked requests never show).
pub(super) fn merge(jobs: &[Job]) -> Option<Vec<NamedTensor>> {
    let (first, others) = jobs.split_first()?;
    let mut merged = first.inputs.clone();
    for job in others {
        for (whole, part) in merged.iter_mut().zip(&job.inputs) {
            let (rows, more) = (whole.shape.first_mut()?, part.shape.first()?);
            *rows = rows.checked_add(*more)?;
            whole.data.append(part.data.as_slice()).then_some(())?;
        }
    }
    Some(merged)
}

/// The outputs of each job, in the jobs' order; `None` when an output does not
/// have one row for each row that went in, so that it cannot be dealt out.
pub(super) fn split(outputs: &[Tensor], jobs: &[Job]) -> Option<Vec<Vec<NamedTensor>>> {
    let total: usize = jobs.iter().map(|job| job.rows).sum();
    let fits = |tensor: &Tensor| tensor.shape.first() == i64::try_from(total).ok().as_ref();
    if total == 0 || !outputs.iter().all(fits) {
        return None;
    }
    let mut begin = 0;
    let mut dealt = Vec::with_capacity(jobs.len());
    for job in jobs {
        let end = begin + job.rows;
        let part = |(name, tensor): (&Arc<str>, &Tensor)| rows_of(name, tensor, total, begin, end);
        let parts: Option<Vec<_>> = job.wanted.iter().zip(outputs).map(part).collect();
        dealt.push(parts?);
        begin = end;
    }
    Some(dealt)
}

fn rows_of(
    name: &str,
    tensor: &Tensor,
    total: usize,
    begin: usize,
    end: usize,
) -> Option<NamedTensor> {
    let width = tensor.data.len() / total;
    let mut shape = tensor.shape.clone();
    *shape.first_mut()? = i64::try_from(end - begin).ok()?;
    let rows = tensor.data.as_slice().range(begin * width..end * width)?;
    Some(NamedTensor {
        name: name.to_owned(),
        shape,
        data: rows.to_data(),
    })
}
