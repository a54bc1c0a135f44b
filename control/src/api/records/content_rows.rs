//! What a dataset's version says of its content, held against the content: digest, bytes, rows, columns.

use futures_util::TryStreamExt as _;
use serde_json::Value;

use super::datasets::{DatasetVersionFields, check_digest};
use super::secrecy::{check_artifact, check_content};
use crate::api::call::Desk;
use crate::api::problem::Problem;
use crate::api::resource::Resource as _;
use crate::artifacts::{Artifacts, File};
use crate::domain::record::Artifact;
use crate::rows::{Counter, Form, RowSchema, Rows, holding_rows};
use crate::store::{Listing, Stored};

/// The content of a version.
pub(super) struct Content {
    /// Where it was named as one.
    pub artifact: Option<Stored<Artifact>>,
    pub digest: String,
    pub bytes: i64,
    pub rows: i64,
}

/// Fewest bytes of a row in any form: `0` and the end of its line.
const LEAST_ROW: i64 = 2;

/// Finds what `fields` name, and refuses what is said of it and is not so.
pub(super) async fn content(
    desk: &Desk,
    fields: &DatasetVersionFields,
) -> Result<Content, Problem> {
    for (field, number) in [("row_count", fields.row_count), ("bytes", fields.bytes)] {
        if number.is_some_and(|number| number < 0) {
            return Err(Problem::field(field, "should be 0 or more"));
        }
    }
    let (artifact, digest) = named(desk, fields).await?;
    let schema = RowSchema::read(&fields.schema).map_err(|(path, message)| {
        let dot = if path.is_empty() { "" } else { "." };
        Problem::field(format!("schema{dot}{path}"), message)
    })?;
    let here = match &artifact {
        Some(artifact) => Some(artifact.clone()),
        None => visible(desk, &digest).await?,
    };
    let bytes = match (&here, fields.bytes) {
        (Some(here), Some(said)) if here.bytes != said => {
            let message = format!("is {said}; the content has {}, leave it out", here.bytes);
            return Err(Problem::field("bytes", message));
        }
        (Some(here), _) => here.bytes,
        (None, said) => said.unwrap_or(0),
    };
    let rows = match &here {
        Some(here) => rows_of(desk, here, fields.row_count, schema).await?,
        None => plausible(fields.row_count.unwrap_or(0), fields.bytes)?,
    };
    check_statistics(&fields.statistics, bytes, rows)?;
    Ok(Content {
        artifact,
        digest,
        bytes,
        rows,
    })
}

/// The artifact or the digest that is named, which the caller may use.
async fn named(
    desk: &Desk,
    fields: &DatasetVersionFields,
) -> Result<(Option<Stored<Artifact>>, String), Problem> {
    let artifact = match &fields.artifact {
        Some(text) => Some(desk.refer::<Artifact>("artifact", text).await?),
        None => None,
    };
    let digest = match (&artifact, &fields.digest) {
        (Some(artifact), None) => artifact.digest.clone(),
        (Some(artifact), Some(digest)) if artifact.digest == *digest => digest.clone(),
        (Some(_), Some(_)) => {
            return Err(Problem::field(
                "digest",
                "is not the artifact's; leave it out",
            ));
        }
        (None, Some(digest)) => digest.clone(),
        (None, None) => return Err(Problem::field("artifact", "or a digest is needed")),
    };
    check_digest("digest", &digest)?;
    match &artifact {
        Some(artifact) => check_artifact(desk, "artifact", artifact.id).await?,
        None => check_content(desk, "digest", &digest).await?,
    }
    Ok((artifact, digest))
}

/// Content that is named by its digest, and lies here all the same.
async fn visible(desk: &Desk, digest: &str) -> Result<Option<Stored<Artifact>>, Problem> {
    let listing = Listing::<Artifact>::new().is("digest", &digest.to_owned());
    let listing = Artifact::restrict(listing, &desk.caller).limit(1);
    Ok(desk.store.list(&listing).await?.items.pop())
}

/// The rows that an artifact has; those that were said where nothing is counted.
async fn rows_of(
    desk: &Desk,
    artifact: &Stored<Artifact>,
    said: Option<i64>,
    mut schema: Option<RowSchema>,
) -> Result<i64, Problem> {
    let uncounted = || plausible(said.unwrap_or(0), Some(artifact.bytes));
    let artifacts = &desk.open()?.artifacts;
    let files = artifacts.files(artifact.id).await?;
    let holding = holding_rows(&files, |file| &file.path);
    let all: u64 = holding.iter().map(|(file, _)| file.bytes).sum();
    if holding.is_empty() || all > artifacts.settings().count_rows_bytes {
        return uncounted();
    }
    let mut counted = Rows::default();
    for (file, form) in holding {
        match count(artifacts, file, form, schema.as_mut()).await? {
            Some(rows) => counted = counted.and(rows),
            None => return uncounted(),
        }
    }
    if let Some(schema) = &schema {
        let checked = schema.finish();
        checked.map_err(|problem| Problem::field("schema", problem))?;
    }
    match said {
        Some(said) if !u64::try_from(said).is_ok_and(|said| counted.may_be(said)) => {
            let message = format!(
                "is {said}; the content has {} rows, leave it out",
                counted.rows
            );
            Err(Problem::field("row_count", message))
        }
        Some(said) => Ok(said),
        None => Ok(i64::try_from(counted.rows).unwrap_or(i64::MAX)),
    }
}

async fn count(
    artifacts: &Artifacts,
    file: &File,
    form: Form,
    schema: Option<&mut RowSchema>,
) -> Result<Option<Rows>, Problem> {
    let mut pieces = std::pin::pin!(artifacts.read(file.digest).await?);
    let mut counter = Counter::new(form, schema);
    let wrong = |problem: String| Problem::field("schema", format!("{}: {problem}", file.path));
    while let Some(piece) = pieces.try_next().await? {
        counter.feed(&piece).map_err(wrong)?;
    }
    counter.finish().map_err(wrong)
}

/// No row is of no bytes.
fn plausible(rows: i64, bytes: Option<i64>) -> Result<i64, Problem> {
    match bytes.filter(|bytes| rows > bytes.saturating_add(1) / LEAST_ROW) {
        Some(bytes) => Err(Problem::field(
            "row_count",
            format!("is {rows}, more than {bytes} bytes hold"),
        )),
        None => Ok(rows),
    }
}

/// Statistics may say what they like, but for what is counted.
fn check_statistics(statistics: &Value, bytes: i64, rows: i64) -> Result<(), Problem> {
    for (name, counted) in [
        ("row_count", rows),
        ("num_rows", rows),
        ("rows", rows),
        ("bytes", bytes),
    ] {
        let said = statistics[name].as_i64();
        if let Some(said) = said.filter(|said| *said < 0 || (counted > 0 && *said != counted)) {
            return Err(Problem::field(
                format!("statistics.{name}"),
                format!("is {said}; the version has {counted}, leave it out"),
            ));
        }
    }
    Ok(())
}
