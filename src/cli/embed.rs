//! `sluice embed`: vectors from the command line.

use std::io::BufRead as _;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::client::{ApiClient, Server};
use super::models::default_model;
use super::output::{self, Format};

/// Embed texts.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice embed 'The VPN drops every hour' 'VPN 每小时掉线'\n  cut -f2 tickets.tsv | sluice embed -o json > vectors.json\n\nWith two or more texts the table also shows each text's cosine similarity to the first."
)]
pub(crate) struct Embed {
    #[command(flatten)]
    server: Server,
    /// Model; the server's only embedding model by default.
    #[arg(short, long)]
    model: Option<String>,
    /// Shorten the vectors to this many dimensions.
    #[arg(long)]
    dimensions: Option<u32>,
    /// How to print: `json` gives the server's whole answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Texts; read from standard input, one a line, when none is given.
    texts: Vec<String>,
}

impl Embed {
    pub(crate) async fn run(self) -> Result<()> {
        let texts = if self.texts.is_empty() {
            std::io::stdin()
                .lock()
                .lines()
                .collect::<std::io::Result<Vec<_>>>()?
        } else {
            self.texts
        };
        if texts.is_empty() {
            bail!("nothing to embed: give texts as arguments, or one a line on standard input");
        }
        let client = ApiClient::new(&self.server)?;
        let model = match self.model {
            Some(model) => model,
            None => default_model(&client, "embedding").await?,
        };
        let mut body = json!({"model": model, "input": texts, "encoding_format": "float"});
        if let Some(dimensions) = self.dimensions {
            body["dimensions"] = dimensions.into();
        }
        let answer = client.post("/v1/embeddings", &body).await?;
        match self.output {
            Format::Json => output::json(&answer),
            Format::Table => print_table(&texts, &answer),
        }
    }
}

fn print_table(texts: &[String], answer: &Value) -> Result<()> {
    let vectors: Vec<Vec<f64>> = answer["data"]
        .as_array()
        .map(|items| {
            items
                .iter()
                .map(|item| numbers(&item["embedding"]))
                .collect()
        })
        .unwrap_or_default();
    let Some(first) = vectors.first() else {
        bail!("the server answered without vectors")
    };
    let rows: Vec<Vec<String>> = texts
        .iter()
        .zip(&vectors)
        .map(|(text, vector)| {
            let head: Vec<String> = vector.iter().take(4).map(|x| format!("{x:+.4}")).collect();
            let shown: String = text.chars().take(40).collect();
            vec![
                shown,
                vector.len().to_string(),
                format!("{} …", head.join(" ")),
                format!("{:.4}", cosine(first, vector)),
            ]
        })
        .collect();
    output::table(&["TEXT", "DIMENSIONS", "VECTOR", "COSINE TO FIRST"], &rows)
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .map(|items| items.iter().filter_map(Value::as_f64).collect())
        .unwrap_or_default()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(p, q)| p * q).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}
