//! A release, live: a page in place on a terminal, a line for each change anywhere else.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Stylize as _;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Paragraph, Wrap};
use ratatui::{DefaultTerminal, Frame};
use serde_json::Value;
use sluice_control::time::Timestamp;
use sluice_gateway::config::human;

use super::ask;
use super::page::{self, page};
use super::view::{End, View};
use super::words;
use crate::cli::client::{ApiClient, Refused};
use crate::cli::output::{self, Shape};
use crate::cli::top;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Between two lines of a release that only waits.
const REMINDER: Duration = Duration::from_secs(15);

/// When a script has watched long enough.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct Enough {
    /// With --watch: end with status 4 when it is paused, since only a person goes on from there.
    #[arg(long, requires = "watch")]
    until_paused: bool,
    /// With --watch: end with status 4 when it is not over after so long (90s, 10m), and say what it waits for.
    #[arg(long, requires = "watch", value_name = "TIME", value_parser = human::parse_duration)]
    within: Option<Duration>,
}

/// A release that goes on when it is no longer watched: exit status 4.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StillWaits {
    text: String,
}

impl std::fmt::Display for StillWaits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for StillWaits {}

impl Enough {
    /// Why a release that is not over need not be watched any longer.
    fn is_reached(self, view: &View, watched: Duration) -> Result<(), StillWaits> {
        let paused = self.until_paused && view.phase.as_deref() == Some("paused");
        let over = self.within.filter(|within| watched >= *within);
        let state = view.state.replace('_', " ");
        let mut text = match over {
            _ if paused => format!("{} is paused", view.id),
            Some(within) => {
                let within = human::format_duration(within);
                format!("{} is not over after {within}: {state}", view.id)
            }
            None => return Ok(()),
        };
        let details = [words::because(view), view.waits_for.as_deref().map(waits)];
        for detail in details.into_iter().flatten() {
            text = format!("{text}; {detail}");
        }
        Err(StillWaits { text })
    }
}

fn waits(what: &str) -> String {
    format!("it waits for {what}")
}

/// A release that was watched to an end other than its promotion: exit status 3.
#[derive(Debug)]
pub(crate) struct NotPromoted {
    text: String,
}

impl std::fmt::Display for NotPromoted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for NotPromoted {}

/// Until it is over, or `enough`, or until the user leaves.
///
/// # Errors
/// [`NotPromoted`], [`StillWaits`]; the server refuses to tell; the terminal cannot be used.
pub(super) async fn watch(
    client: &ApiClient,
    id: &str,
    shape: Shape,
    enough: Enough,
) -> Result<()> {
    let first = ask::show(client, id).await?;
    // What a name means may change while one looks; the release does not.
    let id = ask::read::<View>(&first)?.id;
    let watched = Watched {
        client: client.clone(),
        id,
        enough,
        began: Instant::now(),
    };
    let last = if shape == Shape::Table && std::io::stdout().is_terminal() {
        let mut terminal = ratatui::try_init().context("this terminal")?;
        let last = watched.draw(&mut terminal, &first).await;
        ratatui::restore();
        let Some(last) = last? else {
            return Ok(());
        };
        output::line(page::text(&page(&last, Timestamp::now())))?;
        last
    } else {
        watched.tell(first, shape).await?
    };
    ended(&last)
}

fn ended(view: &View) -> Result<()> {
    if view.end() != Some(End::NotPromoted) {
        return Ok(());
    }
    let state = view.state.replace('_', " ");
    let text = match words::because(view) {
        Some(because) => format!("{} is {state}: {because}", view.id),
        None => format!("{} is {state}", view.id),
    };
    Err(NotPromoted { text }.into())
}

struct Watched {
    client: ApiClient,
    id: String,
    enough: Enough,
    began: Instant,
}

/// What the user did meanwhile.
enum Pressed {
    Nothing,
    Leave,
    Scroll(i16),
}

impl Watched {
    /// The next look; what is in its way is worth waiting out, unless the server says that it will not.
    async fn look(&self) -> Result<Result<Value, String>> {
        match ask::show(&self.client, &self.id).await {
            Ok(shown) => Ok(Ok(shown)),
            Err(error) => {
                let refused = error.downcast_ref::<Refused>();
                let is_final = refused
                    .is_some_and(|it| it.status.is_client_error() && it.status.as_u16() != 429);
                if is_final {
                    return Err(error);
                }
                Ok(Err(format!("{error:#}")))
            }
        }
    }

    /// Draws the page twice a second. `None`: the user left before the end.
    async fn draw(&self, terminal: &mut DefaultTerminal, first: &Value) -> Result<Option<View>> {
        let mut view: View = ask::read(first)?;
        let mut trouble = None;
        let mut scrolled = 0;
        let mut next = Instant::now() + INTERVAL;
        loop {
            let lines = page(&view, Timestamp::now());
            scrolled = scrolled.min(lines.len().saturating_sub(1));
            terminal.draw(|frame| draw(frame, lines, scrolled, trouble.as_deref()))?;
            if view.end().is_some() {
                return Ok(Some(view));
            }
            self.enough.is_reached(&view, self.began.elapsed())?;
            match pressed(next.saturating_duration_since(Instant::now())).await? {
                Pressed::Leave => return Ok(None),
                Pressed::Scroll(by) => scrolled = scrolled.saturating_add_signed(by.into()),
                Pressed::Nothing => {
                    match self.look().await? {
                        Ok(shown) => (view, trouble) = (ask::read(&shown)?, None),
                        Err(text) => trouble = Some(text),
                    }
                    next = Instant::now() + INTERVAL;
                }
            }
        }
    }

    /// Writes a line, or a document, for each change.
    async fn tell(&self, first: Value, shape: Shape) -> Result<View> {
        let mut told = None;
        let mut trouble = None;
        let mut waiting = None;
        let mut last = first.clone();
        let mut shown = Ok(first);
        loop {
            match shown {
                Ok(value) => {
                    trouble = None;
                    let view: View = ask::read(&value)?;
                    let line = page::line(&view);
                    // How far it is changes with each request; it is said now and then.
                    let is_due = waiting.is_none_or(|at: Instant| at.elapsed() >= REMINDER);
                    let is_reminder = is_due && view.waits_for.is_some();
                    if told.as_ref() != Some(&line) || is_reminder {
                        tell(&value, &page::line_with_waits(&view), shape)?;
                        told = Some(line);
                        waiting = Some(Instant::now());
                    }
                    if view.end().is_some() {
                        return Ok(view);
                    }
                    last = value;
                }
                Err(text) if trouble.as_ref() != Some(&text) => {
                    output::note(format!("{text} — trying again"));
                    trouble = Some(text);
                }
                Err(_) => {}
            }
            self.enough
                .is_reached(&ask::read(&last)?, self.began.elapsed())?;
            tokio::time::sleep(INTERVAL).await;
            shown = self.look().await?;
        }
    }
}

fn tell(value: &Value, line: &str, shape: Shape) -> Result<()> {
    match shape {
        Shape::Table => output::line(format!("{}  {line}", words::clock(Timestamp::now()))),
        // A document a line, as log processors read them.
        Shape::Json => output::line(value.to_string()),
        Shape::Yaml => {
            output::line("---")?;
            shape.document(value).map(|_| ())
        }
    }
}

fn draw(frame: &mut Frame<'_>, lines: Vec<Line<'_>>, scrolled: usize, trouble: Option<&str>) {
    let [body, foot] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
    let scrolled = u16::try_from(scrolled).unwrap_or(u16::MAX);
    let text = Paragraph::new(Text::from(lines)).wrap(Wrap { trim: false });
    frame.render_widget(text.scroll((scrolled, 0)), body);
    let line = match trouble {
        Some(trouble) => Line::from(format!("trying again: {trouble}")).red(),
        None => Line::from("q leaves, the release goes on; ↑ ↓ scroll").dark_gray(),
    };
    frame.render_widget(line, foot);
}

/// Waits for so long, or until a key says something.
async fn pressed(interval: Duration) -> Result<Pressed> {
    // The terminal's events come by a blocking call; keep it off the runtime's threads.
    let waiting = tokio::task::spawn_blocking(move || -> std::io::Result<Pressed> {
        let until = Instant::now() + interval;
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            if !event::poll(rest)? {
                return Ok(Pressed::Nothing);
            }
            match meaning(&event::read()?) {
                Pressed::Nothing => {}
                something => return Ok(something),
            }
        }
    });
    Ok(waiting.await??)
}

fn meaning(event: &Event) -> Pressed {
    match event {
        event if top::is_quit(event) => Pressed::Leave,
        // Drawn anew at the size that it has now.
        Event::Resize(..) => Pressed::Scroll(0),
        Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
            KeyCode::Up | KeyCode::Char('k') => Pressed::Scroll(-1),
            KeyCode::Down | KeyCode::Char('j') => Pressed::Scroll(1),
            KeyCode::PageUp => Pressed::Scroll(-10),
            KeyCode::PageDown => Pressed::Scroll(10),
            _ => Pressed::Nothing,
        },
        _ => Pressed::Nothing,
    }
}

#[cfg(test)]
mod tests;
