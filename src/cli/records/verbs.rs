//! From the tables of [`kinds`](super::kinds) to clap's commands, and from what was typed to a request.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches, Subcommand};
use serde_json::{Value, json};

use super::help::Reference;
use super::kinds::{GATE, KINDS, Kind, Special, Writes};
use super::{content, evaluations, fields, names, view, watch};
use crate::cli::client::{ApiClient, Server};
use crate::cli::output::{self, Shape};

const API: &str = "/api/v1";
/// The verb whose old key may go on for a while.
const ROTATE: &str = "rotate";

/// A verb of a kind of record, with what was typed after it.
#[derive(Debug)]
pub(crate) struct Noun {
    kind: &'static Kind,
    verb: String,
    typed: ArgMatches,
}

impl Subcommand for Noun {
    fn augment_subcommands(command: Command) -> Command {
        KINDS
            .iter()
            .fold(command, |command, kind| command.subcommand(named(kind)))
    }
    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }
    fn has_subcommand(name: &str) -> bool {
        KINDS.iter().any(|kind| kind.noun == name) || name == evaluations::ALIAS
    }
}

impl FromArgMatches for Noun {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let found = matches.subcommand().and_then(|(noun, matches)| {
            let kind = KINDS.iter().find(|kind| kind.noun == noun)?;
            let (verb, typed) = matches.subcommand()?;
            Some(Self {
                kind,
                verb: verb.to_owned(),
                typed: typed.clone(),
            })
        });
        found.ok_or_else(|| clap::Error::new(clap::error::ErrorKind::MissingSubcommand))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A noun by its name; its verbs are made when it is typed, because their help takes the whole description of the API.
fn named(kind: &'static Kind) -> Command {
    let command = Command::new(kind.noun)
        .about(kind.about)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(format!("Examples:\n{}", kind.examples))
        .defer(|command| match kind_of(command.get_name()) {
            Some(kind) => described(kind, command),
            None => command,
        });
    match kind.noun == evaluations::EVALUATION.noun {
        true => command.visible_alias(evaluations::ALIAS),
        false => command,
    }
}

fn kind_of(noun: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.noun == noun)
}

/// Method and path of what a verb asks the API, by which its fields are found; `None` for a verb that is a line of no table.
pub(super) fn operation(noun: &str, verb: &str) -> Option<(&'static str, String)> {
    let kind = kind_of(noun)?;
    let item = format!("{}/{{0}}", kind.path);
    Some(match verb {
        "list" => ("GET", kind.path.to_owned()),
        "create" => ("POST", kind.path.to_owned()),
        "update" => ("PATCH", item),
        verb => {
            let special = kind.specials.iter().find(|it| it.verb == verb)?;
            let method = match special.method {
                "WATCH" => return None,
                evaluations::START => "POST",
                method => method,
            };
            (method, special.path.to_owned())
        }
    })
}

/// The verb with its fields before the examples.
fn with_fields(command: Command, kind: &Kind, reference: &Reference) -> Command {
    let said = operation(kind.noun, command.get_name()).and_then(|(method, path)| match method {
        "GET" => reference.filters(&path),
        method => reference.body(method, &path),
    });
    match said {
        Some(fields) => command.after_help(format!("{fields}\n\nExamples:\n{}", kind.examples)),
        None => command,
    }
}

fn described(kind: &'static Kind, mut command: Command) -> Command {
    let reference = Reference::load();
    let told = |command: Command| with_fields(command, kind, &reference);
    let filters = "Which ones: FIELD=VALUE, as the API's query takes them";
    command = command.subcommand(
        told(verb("list", "List them, newest first", kind))
            .arg(pairs("filters", filters))
            .arg(limit()),
    );
    if kind.writes != Writes::OnlyList {
        let about = match kind.noun {
            "model" => "Show a model: versions with training, evaluation and deployment",
            _ => "Show one",
        };
        command = command.subcommand(verb("show", about, kind).arg(name("NAME")));
    }
    let values = "FIELD=VALUE; the value is JSON or text, or @FILE";
    if !matches!(kind.writes, Writes::None | Writes::OnlyList) {
        let create = told(verb("create", "Make one", kind))
            .arg(pairs(
                "fields",
                "[NAME] FIELD=VALUE …; the value is JSON or text, or @FILE",
            ))
            .arg(file());
        command = command.subcommand(create);
    }
    if matches!(kind.writes, Writes::All | Writes::NoUpdate) {
        let delete = verb("delete", "Put one away", kind).arg(name("NAME"));
        command = command.subcommand(delete);
    }
    if kind.writes == Writes::All {
        let about = "Change fields of one; null clears a field";
        let update = told(verb("update", about, kind))
            .arg(name("NAME"))
            .arg(pairs("fields", values))
            .arg(file())
            .arg(
                Arg::new("if-version")
                    .long("if-version")
                    .value_name("VERSION")
                    .value_parser(clap::value_parser!(i64))
                    .help("Only if it is at this version still"),
            );
        command = command.subcommand(update);
    }
    let command = content::described(kind.noun, command);
    kind.specials.iter().fold(command, |command, special| {
        let mut made = told(verb(special.verb, special.about, kind));
        if !special.argument.is_empty() {
            made = made.arg(name(special.argument));
        }
        made = match special.method {
            "WATCH" => made,
            evaluations::START => {
                evaluations::arguments(made.arg(pairs("fields", values)).arg(file()))
            }
            "GET" => made.arg(pairs("filters", filters)).arg(limit()),
            _ => made.arg(pairs("fields", values)).arg(file()),
        };
        if special.verb == ROTATE {
            made = made.arg(
                Arg::new("overlap")
                    .long("overlap")
                    .value_name("DURATION")
                    .value_parser(sluice_gateway::config::human::parse_duration)
                    .help("How long the old key still counts: 1h, 7d; it ends at once if absent"),
            );
        }
        if special.begins {
            made = made.arg(
                Arg::new("wait")
                    .long("wait")
                    .action(ArgAction::SetTrue)
                    .help("Wait until it is over, with a progress bar"),
            );
        }
        command.subcommand(made)
    })
}

/// A verb with what all take: where the server is, and how to print.
fn verb(name: &'static str, about: &'static str, kind: &'static Kind) -> Command {
    // What it says of itself comes last: the shared options bring a description of their own.
    Server::augment_args(Command::new(name))
        .about(about)
        .long_about(None)
        .after_help(format!("Examples:\n{}", kind.examples))
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .value_parser(clap::value_parser!(Shape))
                .default_value("table")
                .help("How to print"),
        )
}

fn name(called: &'static str) -> Arg {
    Arg::new("name")
        .value_name(called)
        .required(true)
        .help("Its name or id")
}

fn pairs(id: &'static str, help: &'static str) -> Arg {
    Arg::new(id)
        .value_name("FIELD=VALUE")
        .action(ArgAction::Append)
        .num_args(0..)
        .help(help)
}

fn file() -> Arg {
    Arg::new("file")
        .short('f')
        .long("file")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Fields from a JSON or YAML file; those typed win")
}

fn limit() -> Arg {
    Arg::new("limit")
        .long("limit")
        .value_name("COUNT")
        .value_parser(clap::value_parser!(u32).range(1..))
        .default_value("100")
        .help("At most so many")
}

impl Noun {
    pub(crate) async fn run(self) -> Result<()> {
        if let Some(done) = content::run(self.kind.noun, &self.verb, &self.typed).await {
            return done;
        }
        let server = Server::from_arg_matches(&self.typed)?;
        let client = ApiClient::new(&server)?;
        match self.verb.as_str() {
            "list" => self.list(&client, self.kind.path, self.kind.columns).await,
            "show" if self.kind.noun == "model" => self.show_model(&client).await,
            "show" if self.kind.noun == evaluations::RUN.noun => {
                let run = client.get(&self.item()).await?;
                evaluations::show(&run, self.shape())
            }
            "show" => {
                let shown = client.get(&self.item()).await?;
                self.print(&shown)
            }
            "create" => self.create(&client).await,
            "update" => self.update(&client).await,
            "delete" => {
                client.call("DELETE", &self.item(), None, &[]).await?;
                output::note(format!("{} {} is put away", self.kind.noun, self.named()));
                Ok(())
            }
            _ => self.special(&client).await,
        }
    }

    fn shape(&self) -> Shape {
        self.typed.get_one("output").copied().unwrap_or_default()
    }

    /// The record that the verb is about; empty where it is about none.
    fn named(&self) -> &str {
        let name = self.typed.try_get_one::<String>("name").ok().flatten();
        name.map_or("", String::as_str)
    }

    fn item(&self) -> String {
        format!("{API}{}/{}", self.kind.path, fields::encoded(self.named()))
    }

    fn arguments(&self, id: &str) -> Vec<String> {
        let typed = self.typed.try_get_many::<String>(id).ok().flatten();
        typed.into_iter().flatten().cloned().collect()
    }

    fn body(&self, arguments: &[String]) -> Result<Value> {
        let file = self.typed.try_get_one::<PathBuf>("file").ok().flatten();
        fields::document(file.map(PathBuf::as_path), arguments)
    }

    /// One record: its fields, a line each.
    fn print(&self, value: &Value) -> Result<()> {
        if self.shape().document(value)? {
            return Ok(());
        }
        let rows: Vec<Vec<String>> = value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| vec![name.clone(), view::cell(value)])
            .collect();
        output::table(&["FIELD", "VALUE"], &rows)
    }

    /// Pages until there are as many as asked for.
    async fn list(&self, client: &ApiClient, path: &str, columns: &[(&str, &str)]) -> Result<()> {
        let wanted = self.typed.get_one::<u32>("limit").copied().unwrap_or(100) as usize;
        let query = fields::query(&self.arguments("filters"))?;
        let pages = self.kind.noun != "usage" || path != self.kind.path;
        let mut items: Vec<Value> = Vec::new();
        let mut cursor = String::new();
        loop {
            let mut url = format!("{API}{path}");
            let mut join = |part: &str| {
                if !part.is_empty() {
                    url.push(if url.contains('?') { '&' } else { '?' });
                    url.push_str(part);
                }
            };
            join(query.trim_start_matches('?'));
            if pages
                && path != "/pipelines"
                && !path.ends_with("/files")
                && !path.ends_with("/references")
                && !path.ends_with("/steps")
            {
                join(&format!("limit={}", (wanted - items.len()).min(500)));
            }
            join(&cursor);
            let page = client.get(&url).await?;
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(next) if items.len() < wanted => {
                    cursor = format!("cursor={}", fields::encoded(next));
                }
                _ => break,
            }
        }
        if self.shape().document(&items)? {
            return Ok(());
        }
        names::instead_of_ids(client, columns, &mut items).await;
        view::rows(columns, &items)
    }

    async fn show_model(&self, client: &ApiClient) -> Result<()> {
        let view = client.get(&format!("{}/view", self.item())).await?;
        if self.shape().document(&view)? {
            return Ok(());
        }
        view::model(&view)
    }

    /// `create helpdesk description=…`: a first argument without `=` is the name.
    async fn create(&self, client: &ApiClient) -> Result<()> {
        let mut arguments = self.arguments("fields");
        if let Some(first) = arguments.first_mut().filter(|it| !it.contains('=')) {
            let field = match self.kind.noun {
                "deploy" => "endpoint",
                "workorder" => "deployment",
                _ => "name",
            };
            // Quoted: a name that looks like a number is still one.
            *first = format!("{field}={}", json!(first));
        }
        let body = self.body(&arguments)?;
        let path = format!("{API}{}", self.kind.path);
        let made = client.call("POST", &path, Some(&body), &[]).await?;
        self.print_made(&made)
    }

    /// A key's secret alone, so that it can be piped on; anything else with its fields.
    fn print_made(&self, made: &Value) -> Result<()> {
        if let Some(secret) = made["secret"].as_str()
            && self.shape() == Shape::Table
        {
            output::note("The key, which is not shown again:");
            return output::line(secret);
        }
        self.print(made)
    }

    async fn update(&self, client: &ApiClient) -> Result<()> {
        let body = self.body(&self.arguments("fields"))?;
        let version = self.typed.get_one::<i64>("if-version");
        let tag = version.map(|version| format!("\"{version}\""));
        let headers: Vec<(&'static str, &str)> =
            tag.iter().map(|tag| ("if-match", tag.as_str())).collect();
        let changed = client
            .call("PATCH", &self.item(), Some(&body), &headers)
            .await?;
        self.print(&changed)
    }

    async fn special(&self, client: &ApiClient) -> Result<()> {
        let special = self
            .kind
            .specials
            .iter()
            .find(|special| special.verb == self.verb)
            .with_context(|| format!("there is no verb {}", self.verb))?;
        let path = addressed(special, self.named())?;
        match special.method {
            "WATCH" => watch::until_over(client, &format!("{API}{path}"), self.shape()).await,
            evaluations::START => {
                let body = self.body(&self.arguments("fields"))?;
                let path = format!("{API}{path}");
                evaluations::start(client, &path, body, &self.typed, self.shape()).await
            }
            "GET" if special.verb == evaluations::DIFF => {
                let query = fields::query(&self.arguments("filters"))?;
                let limit = self.typed.get_one::<u32>("limit").copied().unwrap_or(20);
                evaluations::diff(client, &format!("{API}{path}"), &query, limit, self.shape())
                    .await
            }
            "GET" if special.verb == GATE => {
                let query = fields::query(&self.arguments("filters"))?;
                let found = client.get(&format!("{API}{path}{query}")).await?;
                match self.shape().document(&found)? {
                    true => Ok(()),
                    false => view::gate(&found),
                }
            }
            "GET" => self.list(client, &path, special.columns).await,
            method => {
                let mut body = self.body(&self.arguments("fields"))?;
                let overlap = self.typed.try_get_one::<Duration>("overlap").ok().flatten();
                if let Some(overlap) = overlap {
                    body["overlap_seconds"] = overlap.as_secs().into();
                }
                let answer = client
                    .call(method, &format!("{API}{path}"), Some(&body), &[])
                    .await?;
                let wait = self.typed.try_get_one::<bool>("wait").ok().flatten();
                if wait == Some(&true)
                    && let Some(path) = watch::path_of(&answer)
                {
                    let path = format!("{API}{path}");
                    return watch::until_over(client, &path, self.shape()).await;
                }
                self.print_made(&answer)
            }
        }
    }
}

/// The path of a special verb for `NAME` or `NAME@VERSION`.
fn addressed(special: &Special, argument: &str) -> Result<String> {
    let (first, second) = match special.path.contains("{1}") {
        true => argument
            .rsplit_once('@')
            .with_context(|| format!("`{argument}` should be NAME@VERSION, such as helpdesk@v2"))?,
        false => (argument, ""),
    };
    Ok(special
        .path
        .replace("{0}", &fields::encoded(first))
        .replace("{1}", &fields::encoded(second)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_says_what_it_does() {
        let mut command = Noun::augment_subcommands(Command::new("sluice"));
        command.clone().debug_assert();
        command.build();
        for noun in command.get_subcommands() {
            let mut abouts = std::collections::HashSet::new();
            for verb in noun.get_subcommands() {
                let about = verb.get_about().map(ToString::to_string);
                let (noun, verb) = (noun.get_name(), verb.get_name());
                assert!(about.is_some() && abouts.insert(about), "{noun} {verb}");
            }
        }
    }

    #[test]
    fn a_version_is_addressed_by_name_and_number() {
        let special = |noun: &str, verb: &str| {
            let kind = KINDS.iter().find(|kind| kind.noun == noun);
            kind.and_then(|kind| kind.specials.iter().find(|it| it.verb == verb))
        };
        let approve = special("model", "approve").map(|it| addressed(it, "a b@v2").ok());
        let path = "/models/a%20b/versions/v2/approve".to_owned();
        assert_eq!(approve, Some(Some(path)));
        let without = special("model", "approve").map(|it| addressed(it, "helpdesk").is_err());
        assert_eq!(without, Some(true));
    }
}
