//! The tables that the verbs are made from: kinds of record, their columns, and what is special about each.

mod catalogue;
mod people;
mod service;

/// A kind of record on the command line.
#[derive(Debug)]
pub(super) struct Kind {
    /// `model`.
    pub noun: &'static str,
    pub about: &'static str,
    /// `/models`.
    pub path: &'static str,
    /// Whether records are made, changed and put away; otherwise they are only looked at.
    pub writes: Writes,
    /// Heading and field, or a dotted path, of each column of a list.
    pub columns: &'static [(&'static str, &'static str)],
    pub specials: &'static [Special],
    /// For `--help`.
    pub examples: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// create, update, delete.
    All,
    /// create and delete: keys.
    NoUpdate,
    /// create: what has a life of its own then.
    OnlyCreate,
    None,
    /// Not even `show`: there are only lists.
    OnlyList,
}

/// A verb of one kind.
#[derive(Debug)]
pub(super) struct Special {
    pub verb: &'static str,
    pub about: &'static str,
    /// What the argument is called: `NAME`, `NAME@VERSION`, `ID`.
    pub argument: &'static str,
    pub method: &'static str,
    /// `{0}` and `{1}` stand for the parts of the argument before and after `@`.
    pub path: &'static str,
    pub columns: &'static [(&'static str, &'static str)],
    /// Begins something that takes its time: `--wait` follows it.
    pub begins: bool,
}

const VERSIONS: &[(&str, &str)] = &[
    ("VERSION", "number"),
    ("STATE", "state"),
    ("DIGEST", "digest"),
    ("APPROVED", "approved_at"),
    ("NOTE", "note"),
    ("ID", "id"),
];
const DATA_VERSIONS: &[(&str, &str)] = &[
    ("VERSION", "number"),
    ("ROWS", "row_count"),
    ("BYTES", "bytes"),
    ("DIGEST", "digest"),
    ("NOTE", "note"),
    ("ID", "id"),
];
const RUNS: &[(&str, &str)] = &[
    ("ID", "id"),
    ("STATUS", "status"),
    ("STARTED", "started_at"),
    ("FINISHED", "finished_at"),
    ("ERROR", "error"),
];
pub(super) const ONE: &[(&str, &str)] = &[];

pub(super) const fn list(
    verb: &'static str,
    about: &'static str,
    path: &'static str,
    columns: &'static [(&'static str, &'static str)],
) -> Special {
    Special {
        verb,
        about,
        argument: "NAME",
        method: "GET",
        path,
        columns,
        begins: false,
    }
}

pub(super) const fn act(
    verb: &'static str,
    about: &'static str,
    argument: &'static str,
    path: &'static str,
) -> Special {
    Special {
        verb,
        about,
        argument,
        method: "POST",
        path,
        columns: ONE,
        begins: false,
    }
}

const fn begin(
    verb: &'static str,
    about: &'static str,
    argument: &'static str,
    path: &'static str,
) -> Special {
    Special {
        begins: true,
        ..act(verb, about, argument, path)
    }
}

const VERSION: &str = "NAME@VERSION";
/// The verb that shows how a version stands at the gate.
pub(super) const GATE: &str = "gate";

const REQUIREMENTS: &[(&str, &str)] = &[
    ("EVALUATION", "name"),
    ("DEPLOYMENT", "deployment"),
    ("THRESHOLDS", "thresholds"),
    ("TEST SET", "test_set"),
    ("SINCE", "at"),
    ("BY", "author_name"),
];

pub(super) static KINDS: &[Kind] = &[
    catalogue::MODEL,
    catalogue::DATASET,
    catalogue::TRAIN,
    super::evaluations::EVALUATION,
    super::evaluations::RUN,
    catalogue::CONVERT,
    service::DEPLOY,
    service::WORKORDER,
    service::TASK,
    service::QUOTA,
    service::USAGE,
    people::KEY,
    people::PRINCIPAL,
    people::DEPARTMENT,
    people::GRANT,
    catalogue::ARTIFACT,
    people::AUDIT,
];
