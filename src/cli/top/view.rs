//! How `sluice top` looks: a table of deployments over three little charts.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Row, Sparkline, Table};

use super::{HEADINGS, Stats};

/// As many looks as a wide terminal has columns.
const KEPT: usize = 400;

/// The sums over all deployments, look by look, newest last.
#[derive(Debug, Default)]
pub(crate) struct History {
    requests: VecDeque<u64>,
    tokens: VecDeque<u64>,
    p99: VecDeque<u64>,
}

impl History {
    pub(crate) fn push(&mut self, stats: &Stats) {
        let sum = |pick: fn(&super::DeploymentStats) -> f64| {
            stats.deployments.iter().map(pick).sum::<f64>()
        };
        // Sparklines take whole numbers: keep one decimal of the rates, microseconds of times.
        remember(&mut self.requests, sum(|d| d.requests_per_second) * 10.0);
        remember(
            &mut self.tokens,
            sum(|d| d.prompt_tokens_per_second + d.completion_tokens_per_second),
        );
        let slowest = stats
            .deployments
            .iter()
            .filter_map(|d| d.latency_ms.as_ref())
            .map(|q| q.p99);
        remember(&mut self.p99, slowest.fold(0.0, f64::max) * 1e3);
    }
}

fn remember(values: &mut VecDeque<u64>, value: f64) {
    if values.len() == KEPT {
        values.pop_front();
    }
    values.push_back(value.max(0.0) as u64);
}

pub(crate) fn draw(frame: &mut Frame<'_>, stats: &Stats, history: &History, trouble: Option<&str>) {
    let table_height = u16::try_from(stats.deployments.len())
        .unwrap_or(u16::MAX)
        .saturating_add(3);
    let [head, table, charts, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Max(table_height),
        Constraint::Max(8),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let title = format!(" sluice top   up {}", uptime(stats.uptime_seconds));
    frame.render_widget(
        Line::from(title).style(Style::new().add_modifier(Modifier::BOLD)),
        head,
    );
    draw_table(frame, table, stats);
    let [requests, p99, tokens] = Layout::horizontal([Constraint::Fill(1); 3]).areas(charts);
    let latest = |values: &VecDeque<u64>| values.back().copied().unwrap_or_default() as f64;
    chart(
        frame,
        requests,
        &format!(" QPS {:.1} ", latest(&history.requests) / 10.0),
        &history.requests,
        Color::Cyan,
    );
    chart(
        frame,
        p99,
        &format!(
            " RT P99 {} ",
            super::milliseconds(latest(&history.p99) / 1e3)
        ),
        &history.p99,
        Color::Yellow,
    );
    chart(
        frame,
        tokens,
        &format!(" tokens/s {:.0} ", latest(&history.tokens)),
        &history.tokens,
        Color::Green,
    );
    let line = match trouble {
        Some(trouble) => Line::from(format!(" {trouble} — trying again")).fg(Color::Red),
        None => match stats.builds().collect::<Vec<_>>().as_slice() {
            [] => Line::from(" q leaves").fg(Color::DarkGray),
            builds => Line::from(format!(" {}", builds.join("; "))).fg(Color::Yellow),
        },
    };
    frame.render_widget(line, foot);
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, stats: &Stats) {
    let rows = stats.deployments.iter().map(|deployment| {
        let warning =
            deployment.errors_per_second > 0.0 || deployment.waiting > 0 || deployment.down() > 0;
        let style = if warning {
            Style::new().fg(Color::Yellow)
        } else {
            Style::new()
        };
        Row::new(deployment.cells().into_iter().map(Cell::from)).style(style)
    });
    let widths = HEADINGS
        .iter()
        .enumerate()
        .map(|(column, heading)| match column {
            0 => Constraint::Fill(2),
            1 => Constraint::Fill(1),
            14 => Constraint::Length(5),
            _ => Constraint::Length(heading.len().max(7) as u16),
        });
    let header = Row::new(HEADINGS).style(Style::new().fg(Color::DarkGray));
    frame.render_widget(
        Table::new(rows, widths)
            .header(header)
            .block(Block::bordered()),
        area,
    );
}

fn chart(frame: &mut Frame<'_>, area: Rect, title: &str, values: &VecDeque<u64>, color: Color) {
    let block = Block::bordered().title(title);
    let columns = usize::from(block.inner(area).width);
    let shown = values
        .iter()
        .skip(values.len().saturating_sub(columns))
        .copied();
    frame.render_widget(
        Sparkline::default().data(shown).style(color).block(block),
        area,
    );
}

fn uptime(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60) {
        (0, 0, minutes) => format!("{minutes} min {} s", whole % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}
