//! `sluice chat`: talk to a model from a terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::client::{ApiClient, Server};
use super::models::default_model;
use super::output::{self, Format};

/// Chat with a model: one message, or a conversation when none is given.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice chat 'Ticket REQ-76109. My password for VPN no longer works!'\n  sluice chat -m helpdesk --temperature 0 < message.txt\n  sluice chat                    # a conversation; /help lists its commands"
)]
pub(crate) struct Chat {
    #[command(flatten)]
    server: Server,
    /// Model; the server's only chat model by default.
    #[arg(short, long)]
    model: Option<String>,
    /// System message.
    #[arg(short, long)]
    system: Option<String>,
    /// Sampling temperature; 0 is greedy.
    #[arg(short, long, default_value_t = 0.0)]
    temperature: f64,
    /// Tokens to generate at most.
    #[arg(long, default_value_t = 512)]
    max_tokens: u32,
    /// `json` prints the server's whole answer, not streamed (one message only).
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// The message; standard input when it is not a terminal.
    message: Vec<String>,
}

impl Chat {
    pub(crate) async fn run(self) -> Result<()> {
        let client = ApiClient::new(&self.server)?;
        let model = match &self.model {
            Some(model) => model.clone(),
            None => default_model(&client, "chat").await?,
        };
        let message = self.one_message()?;
        let mut talk = Conversation {
            client,
            model,
            options: self,
            messages: Vec::new(),
        };
        talk.reset();
        match message {
            Some(message) if talk.options.output == Format::Json => {
                talk.answer_as_json(&message).await
            }
            Some(message) => talk.answer(&message).await,
            None if talk.options.output == Format::Json => bail!("-o json needs a message"),
            None => talk.converse().await,
        }
    }

    fn one_message(&self) -> Result<Option<String>> {
        if !self.message.is_empty() {
            return Ok(Some(self.message.join(" ")));
        }
        if io::stdin().is_terminal() {
            return Ok(None);
        }
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        if text.trim().is_empty() {
            bail!("nothing to say: standard input is empty");
        }
        Ok(Some(text.trim_end().to_owned()))
    }
}

struct Conversation {
    client: ApiClient,
    model: String,
    options: Chat,
    messages: Vec<Value>,
}

const HELP: &str = "/reset   forget the conversation\n/system  set the system message: /system You are …\n/help    this list\n/quit    leave (also Ctrl-D)";

impl Conversation {
    fn reset(&mut self) {
        self.messages.clear();
        if let Some(system) = &self.options.system {
            self.messages
                .push(json!({"role": "system", "content": system}));
        }
    }

    fn body(&self, stream: bool) -> Value {
        let mut body = json!({
            "model": self.model,
            "messages": self.messages,
            "temperature": self.options.temperature,
            "max_completion_tokens": self.options.max_tokens,
            "stream": stream,
        });
        if stream {
            body["stream_options"] = json!({"include_usage": true});
        }
        body
    }

    async fn answer_as_json(&mut self, message: &str) -> Result<()> {
        self.messages
            .push(json!({"role": "user", "content": message}));
        let answer = self
            .client
            .post("/v1/chat/completions", &self.body(false))
            .await?;
        output::json(&answer)
    }

    /// Streams one answer to standard output and remembers both sides.
    async fn answer(&mut self, message: &str) -> Result<()> {
        self.messages
            .push(json!({"role": "user", "content": message}));
        let mut events = match self
            .client
            .stream("/v1/chat/completions", &self.body(true))
            .await
        {
            Ok(events) => events,
            Err(error) => {
                self.messages.pop();
                return Err(error);
            }
        };
        let mut answer = String::new();
        while let Some(event) = events.next().await? {
            if let Some(text) = event["choices"][0]["delta"]["content"].as_str() {
                answer.push_str(text);
                output::fragment(text)?;
            }
        }
        output::line("")?;
        self.messages
            .push(json!({"role": "assistant", "content": answer}));
        Ok(())
    }

    async fn converse(&mut self) -> Result<()> {
        output::note(format!(
            "{} — /help for commands, Ctrl-D to leave",
            self.model
        ));
        let mut lines = io::stdin().lock().lines();
        loop {
            output::fragment("› ")?;
            let Some(text) = lines.next().transpose()? else {
                return output::line("");
            };
            match text.trim() {
                "" => {}
                "/quit" | "/exit" => return Ok(()),
                "/help" => output::line(HELP)?,
                "/reset" => self.reset(),
                command if command.starts_with("/system") => {
                    self.options.system =
                        Some(command.trim_start_matches("/system").trim().to_owned());
                    self.reset();
                }
                command if command.starts_with('/') => {
                    output::note(format!("unknown command {command}; /help lists them"))
                }
                message => {
                    // A failed turn is reported and the conversation goes on.
                    if let Err(error) = self.answer(message).await {
                        output::note(format!("error: {error:#}"));
                    }
                }
            }
        }
    }
}
