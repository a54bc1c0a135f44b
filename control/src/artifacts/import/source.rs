//! Where an import comes from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::super::error::ArtifactError;
use super::super::location::Location;
use super::super::path::{PathError, check};

/// `/folder`, `file:///folder`, `https://…`, `s3://bucket/prefix`, `webhdfs://host:port/path` or `hdfs://host:port/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source(pub(super) Place);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Local(PathBuf),
    Url(reqwest::Url),
    Remote(Location),
}

impl FromStr for Source {
    type Err = ArtifactError;
    fn from_str(text: &str) -> Result<Self, ArtifactError> {
        let wrong = |problem: &str| ArtifactError::Invalid {
            field: "from",
            problem: problem.to_owned(),
        };
        let local = text.strip_prefix("file://").unwrap_or(text);
        if local.starts_with('/') {
            return Ok(Self(Place::Local(local.into())));
        }
        if text.starts_with("fs:") || !text.contains("://") {
            return Err(wrong(
                "a folder or file of the server should be an absolute path",
            ));
        }
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Location::parse("from", text).map(|location| Self(Place::Remote(location)));
        }
        let url =
            reqwest::Url::parse(text).map_err(|error| wrong(&format!("is no URL: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "a URL with a password would be kept with the artifact; use one without",
            ));
        }
        Ok(Self(Place::Url(url)))
    }
}

/// As it is kept with the artifact: without a query, which may carry a signature.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Local(path) => write!(f, "file://{}", path.display()),
            Place::Url(url) => {
                let mut url = url.clone();
                url.set_query(None);
                url.set_fragment(None);
                write!(f, "{url}")
            }
            Place::Remote(Location::S3 { bucket, prefix }) => write!(f, "s3://{bucket}/{prefix}"),
            Place::Remote(Location::WebHdfs { host, path }) => write!(f, "webhdfs://{host}/{path}"),
            Place::Remote(Location::Hdfs { host, path }) => write!(f, "hdfs://{host}/{path}"),
            Place::Remote(Location::Folder(path)) => write!(f, "file://{}", path.display()),
        }
    }
}

/// The name of the file that a URL leads to.
pub(super) fn file_name(url: &reqwest::Url) -> Result<String, ArtifactError> {
    let last = url.path().rsplit('/').next().unwrap_or_default();
    let name = percent_encoding::percent_decode_str(last)
        .decode_utf8()
        .map_err(|_| PathError::new(last, "is not UTF-8"))?;
    if name.is_empty() {
        return Err(ArtifactError::Invalid {
            field: "file_name",
            problem: "the URL ends in no name; say what the file should be called".into(),
        });
    }
    check(&name)?;
    if name.contains('/') {
        return Err(PathError::new(&name, "is a name with an escaped slash").into());
    }
    Ok(name.into_owned())
}

/// An error of the HTTP client with the reason that it hides behind "error sending request", and without the
/// URL's query.
pub(super) fn request_failed(place: &str, error: &reqwest::Error) -> ArtifactError {
    if let Some(status) = error.status() {
        return ArtifactError::Source {
            place: place.to_owned(),
            problem: format!("answers {status}"),
        };
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let problem = cause.to_string();
    // The guard's refusal comes wrapped in errors of three libraries.
    if problem.contains("which imports may not reach") {
        return ArtifactError::Forbidden(problem);
    }
    ArtifactError::Source {
        place: place.to_owned(),
        problem,
    }
}
