//! What changed between two runs of the same rows: by score, and in the text itself.
//!
//! A mean that moved by a point is explained by the rows that moved; they come
//! worst first, as those are the ones that somebody has to look at.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::metrics::Direction;
use super::metrics::json_fields::{leaves, same};
use super::sample::Score;

/// Texts of more words than this are compared by line, of more lines as a whole:
/// the time a comparison takes grows with the square of what differs.
const MOST_PIECES: usize = 4_000;

/// How a row's score changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Worse,
    Same,
    Better,
    /// At least one side has no score.
    Unknown,
}

/// One row in both runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowChange {
    pub row: String,
    /// `None`: the run does not have the row.
    pub before: Option<Score>,
    pub after: Option<Score>,
    /// Positive is better, whatever the metric's direction.
    pub gain: Option<f64>,
    pub change: Change,
}

/// All rows of two runs: worst first, those without a score in one of them last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunDiff {
    pub rows: Vec<RowChange>,
    pub worse: usize,
    pub same: usize,
    pub better: usize,
    pub unknown: usize,
}

/// Compares the scores of two runs by row; a change of at most `tolerance` is none.
///
/// Of several scores of one row, the last counts.
#[must_use]
pub fn compare_runs(
    before: &[(String, Score)],
    after: &[(String, Score)],
    direction: Direction,
    tolerance: f64,
) -> RunDiff {
    let mut rows: BTreeMap<&str, (Option<&Score>, Option<&Score>)> = BTreeMap::new();
    for (row, score) in before {
        rows.entry(row).or_default().0 = Some(score);
    }
    for (row, score) in after {
        rows.entry(row).or_default().1 = Some(score);
    }
    let mut rows: Vec<RowChange> = rows
        .into_iter()
        .map(|(row, (before, after))| row_change(row, before, after, direction, tolerance))
        .collect();
    // The sort is stable, so rows of equal gain stay in the order of their ids.
    rows.sort_by(|a, b| {
        let key = |row: &RowChange| row.gain.unwrap_or(f64::INFINITY);
        (a.gain.is_none(), key(a))
            .partial_cmp(&(b.gain.is_none(), key(b)))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let count = |change| rows.iter().filter(|row| row.change == change).count();
    RunDiff {
        worse: count(Change::Worse),
        same: count(Change::Same),
        better: count(Change::Better),
        unknown: count(Change::Unknown),
        rows,
    }
}

fn row_change(
    row: &str,
    before: Option<&Score>,
    after: Option<&Score>,
    direction: Direction,
    tolerance: f64,
) -> RowChange {
    let value = |score: Option<&Score>| score.and_then(Score::value);
    let gain = value(before)
        .zip(value(after))
        .map(|(before, after)| match direction {
            Direction::Higher => after - before,
            Direction::Lower => before - after,
        });
    let gain = gain.filter(|gain| !gain.is_nan());
    let change = match gain {
        None => Change::Unknown,
        Some(gain) if gain > tolerance => Change::Better,
        Some(gain) if gain < -tolerance => Change::Worse,
        Some(_) => Change::Same,
    };
    RowChange {
        row: row.to_owned(),
        before: before.cloned(),
        after: after.cloned(),
        gain,
        change,
    }
}

/// A run of text that both sides have, or one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Both,
    Before,
    After,
}

/// A piece of a text comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Piece {
    pub side: Side,
    pub text: String,
}

/// Compares two outputs by word (Unicode's words, so that Chinese is split as well).
///
/// The pieces of `Both` and `Before` make up the first text, those of `Both` and `After` the second.
#[must_use]
pub fn compare_texts(before: &str, after: &str) -> Vec<Piece> {
    if words(before) + words(after) <= MOST_PIECES {
        return pieces(&TextDiff::from_unicode_words(before, after));
    }
    if before.lines().count() + after.lines().count() <= MOST_PIECES {
        return pieces(&TextDiff::from_lines(before, after));
    }
    let whole = |side, text: &str| Piece {
        side,
        text: text.to_owned(),
    };
    if before == after {
        return vec![whole(Side::Both, before)];
    }
    vec![whole(Side::Before, before), whole(Side::After, after)]
}

/// An upper bound that needs no segmentation: a word is at most what lies between changes of kind.
fn words(text: &str) -> usize {
    text.chars()
        .filter(|c| !c.is_alphanumeric() || !c.is_ascii())
        .count()
        * 2
        + 1
}

fn pieces<'a>(diff: &TextDiff<'a, 'a, '_, str>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for change in diff.iter_all_changes() {
        let side = match change.tag() {
            ChangeTag::Equal => Side::Both,
            ChangeTag::Delete => Side::Before,
            ChangeTag::Insert => Side::After,
        };
        match pieces.last_mut().filter(|last| last.side == side) {
            Some(last) => last.text.push_str(change.value()),
            None => pieces.push(Piece {
                side,
                text: change.value().to_owned(),
            }),
        }
    }
    pieces
}

/// One field that two JSON outputs differ in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FieldChange {
    /// A JSON pointer (RFC 6901).
    pub field: String,
    /// `None`: that side lacks the field.
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// The fields in which two outputs differ, in the order of their pointers.
///
/// # Errors
/// Says which output is not JSON; compare those as texts.
pub fn compare_json(before: &str, after: &str) -> Result<Vec<FieldChange>, String> {
    let read = |side, text| {
        serde_json::from_str::<Value>(text).map_err(|error| format!("{side} is not JSON: {error}"))
    };
    let (before, after) = (read("before", before)?, read("after", after)?);
    let (before, after) = (leaves(&before), leaves(&after));
    let mut fields: Vec<&String> = before.keys().chain(after.keys()).collect();
    fields.sort();
    fields.dedup();
    let changed = fields.into_iter().filter_map(|field| {
        let (old, new) = (before.get(field), after.get(field));
        if let (Some(old), Some(new)) = (old, new)
            && same(old, new)
        {
            return None;
        }
        Some(FieldChange {
            field: field.clone(),
            before: old.map(|value| (*value).clone()),
            after: new.map(|value| (*value).clone()),
        })
    });
    Ok(changed.collect())
}

#[cfg(test)]
mod tests;
