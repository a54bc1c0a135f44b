//! What can go wrong with content, in words that say which file and what would be right.

use std::io;

use super::digest::Digest;
use super::path::PathError;
use crate::store::StoreError;

/// Why content was not taken, or not given. The comment of each says what it becomes over HTTP.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// As the store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// 422: a name that is unsafe.
    #[error(transparent)]
    Path(#[from] PathError),
    /// 422: something in an archive or a folder that is not taken.
    #[error("entry \"{entry}\": {problem}")]
    Entry { entry: String, problem: String },
    /// 422.
    #[error("there is no file in it")]
    Empty,
    /// 413: a limit of the configuration.
    #[error("{what} is over the limit of {limit} ({setting})")]
    TooLarge {
        what: String,
        limit: u64,
        setting: &'static str,
    },
    /// 422: the bytes are not the announced ones.
    #[error("{what} has the digest {found}, announced was {expected}")]
    OtherDigest {
        what: String,
        expected: Digest,
        found: Digest,
    },
    /// 422: more or fewer bytes than announced.
    #[error("{what} has {found} bytes, announced were {expected}")]
    OtherSize {
        what: String,
        expected: u64,
        found: u64,
    },
    /// 409: the upload cannot be completed yet.
    #[error("parts are missing or too short: {}", listed(.0))]
    Incomplete(Vec<u64>),
    /// 409: the upload takes no parts any more.
    #[error("the upload is {state}; parts are taken only by one that is open")]
    NotOpen { state: String },
    /// 422: what was asked for makes no sense, and what would.
    #[error("{field}: {problem}")]
    Invalid {
        field: &'static str,
        problem: String,
    },
    /// 403: the configuration does not let this be imported.
    #[error("{0}")]
    Forbidden(String),
    /// 409, and worth another try: the bytes were collected as unused before the artifact was registered.
    #[error("{path} was collected before it was used: bring it again")]
    Collected { path: String },
    /// 500: the stored bytes are not what their name says. They were put aside.
    #[error("the stored bytes of {0} are damaged and were put aside; import them again")]
    Damaged(Digest),
    /// 500: the record is there and the bytes are not.
    #[error("the bytes of {0} are missing; import them again")]
    Missing(Digest),
    /// 503, and worth another try once there is room.
    #[error(
        "the disk of the artifacts takes no more: there is no space left, or a quota or limit is reached"
    )]
    NoSpace,
    /// 502: the place that it should come from does not give it.
    #[error("{place}: {problem}")]
    Source { place: String, problem: String },
    /// 503, and worth another try: the object store does not do it.
    #[error("the object store: {0}")]
    Storage(#[source] opendal::Error),
    /// 500: this machine's disk.
    #[error("the disk: {0}")]
    Io(#[source] io::Error),
    /// 400 or a connection that ended: the sender stopped in the middle.
    #[error("the sender stopped: {0}")]
    Interrupted(String),
}

fn listed(parts: &[u64]) -> String {
    let shown: Vec<String> = parts.iter().take(20).map(u64::to_string).collect();
    let more = if parts.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", shown.join(", "))
}

impl ArtifactError {
    pub(super) fn entry(entry: &str, problem: impl Into<String>) -> Self {
        Self::Entry {
            entry: super::path::shown(entry),
            problem: problem.into(),
        }
    }

    /// Whether the same call may succeed if it is made again, unchanged, a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Storage(error) => error.is_temporary(),
            Self::Collected { .. } | Self::NoSpace | Self::Interrupted(_) => true,
            _ => false,
        }
    }
}

impl From<io::Error> for ArtifactError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::NoSpace,
            // Our own error on its way through a reader.
            io::ErrorKind::Other if error.get_ref().is_some_and(|inner| inner.is::<Self>()) => {
                let inner = error
                    .into_inner()
                    .and_then(|inner| inner.downcast::<Self>().ok());
                inner.map_or(Self::Empty, |inner| *inner)
            }
            _ => Self::Io(error),
        }
    }
}

impl From<opendal::Error> for ArtifactError {
    fn from(error: opendal::Error) -> Self {
        use std::error::Error as _;
        // A full disk looks the same whichever way its bytes went.
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(io) = cause.downcast_ref::<io::Error>()
                && io.kind() == io::ErrorKind::StorageFull
            {
                return Self::NoSpace;
            }
            source = cause.source();
        }
        Self::Storage(error)
    }
}
