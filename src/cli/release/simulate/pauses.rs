//! `--pauses`: what allowing for pauses costs, as a table and a plot.

use anyhow::Result;
use sluice_control::release::simulate::{PARTS, Point, WEIGHTS, point, settings};

use super::progress::Bar;
use crate::cli::output::{self, Format};

/// Columns and rows of the plot.
const WIDE: usize = 56;
const HIGH: usize = 12;

pub(super) fn run(releases: u64, seed: u64, format: Format) -> Result<()> {
    let settings = settings();
    let bar = Bar::new(releases.saturating_mul(PARTS * settings.len() as u64));
    let points: Vec<Point> = settings
        .iter()
        .map(|(name, pauses)| point(name, pauses, releases, seed, &|| bar.tick()))
        .collect();
    drop(bar);
    match format {
        Format::Json => output::json(&points),
        Format::Table => print(&points),
    }
}

fn print(points: &[Point]) -> Result<()> {
    output::line(
        "Good releases taken back within 8 minutes, each side stopping about once a minute for 0.2 to 2 s by itself;\n\
         and errors of 20 % instead of 0.5 %, at 5 %: taken back after, and users hurt (median / P90). 100 requests a second.\n",
    )?;
    let rows: Vec<Vec<String>> = points.iter().map(row).collect();
    let weights = WEIGHTS.map(|weight| format!("GOOD, {weight} %"));
    let mut headings = vec![" ", "PAUSES ALLOWED FOR"];
    headings.extend(weights.iter().map(String::as_str));
    headings.extend(["BAD AFTER", "USERS HURT"]);
    output::table(&headings, &rows)?;
    output::line("")?;
    for line in plot(points) {
        output::line(line)?;
    }
    Ok(())
}

fn row(point: &Point) -> Vec<String> {
    let bad = &point.bad;
    let mut cells = vec![letter(point), point.name.clone()];
    cells.extend(point.good.iter().map(|chance| {
        let percent = |share: f64| format!("{:.1}", 100.0 * share);
        format!(
            "{} % ({} to {})",
            percent(chance.share()),
            percent(chance.low),
            percent(chance.high)
        )
    }));
    cells.push(super::pair(bad.median_s, bad.p90_s));
    cells.push(format!("{} / {}", bad.median_users, bad.p90_users));
    cells
}

/// What stands for a setting in the plot.
fn letter(point: &Point) -> String {
    let words = point.name.split(|it: char| !it.is_alphanumeric());
    let letter = match words.filter(|it| !it.is_empty()).nth(1) {
        Some("if") => 'n',
        Some("10m") => 't',
        Some("1m") => 'd',
        Some("20s") => 'o',
        _ => 'f',
    };
    match point.pauses.strict {
        true => letter.to_ascii_uppercase().to_string(),
        false => letter.to_string(),
    }
}

/// The worst share of false rollbacks, from 0.1 to 100 % in powers of ten, against the median time to a true one.
fn plot(points: &[Point]) -> Vec<String> {
    let longest = points
        .iter()
        .filter_map(|it| it.bad.median_s)
        .fold(1.0, f64::max);
    let mut rows = vec![vec![' '; WIDE + 1]; HIGH + 1];
    for point in points {
        let worst = point.good.iter().map(|it| it.share()).fold(0.001, f64::max);
        let Some(median) = point.bad.median_s else {
            continue;
        };
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in the plot"
        )]
        let (down, right) = (
            (-worst.log10() / 3.0 * HIGH as f64).round() as usize,
            (median / longest * WIDE as f64).round() as usize,
        );
        let letter = letter(point).chars().next().unwrap_or('?');
        if let Some(cell) = rows.get_mut(down).and_then(|row| row.get_mut(right)) {
            *cell = letter;
        }
    }
    let label = |row: usize| match row {
        0 => "100 %",
        4 => "10 %",
        8 => "1 %",
        12 => "0.1 %",
        _ => "",
    };
    let mut lines: Vec<String> = rows
        .iter()
        .enumerate()
        .map(|(row, cells)| {
            let cells: String = cells.iter().collect();
            format!("{:>6} |{}", label(row), cells.trim_end())
        })
        .collect();
    lines.push(format!("{:>6} +{}", "", "-".repeat(WIDE + 1)));
    lines.push(format!(
        "        0 s {:>width$}",
        format!("{longest:.1} s until the bad one is taken back, in the median"),
        width = WIDE - 3
    ));
    lines
}
