//! How much of the engine's limit `Encoder::embed` reaches, in one process.
//!
//! The limit: as many sessions of one thread as there are cores, each running
//! batches of equal length one after another, tokenisation included; no queue, no
//! async. Then one text a call at several concurrencies. The phases of a round
//! follow each other at once, so that what else the machine does hits all alike;
//! read the ratios, not the rates. On a machine that is busy otherwise only the
//! processor time of a text says something.
//!
//!     cargo bench -p sluice-engine --bench encoder -- [folder] [seconds] [rounds]
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints and may fail"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use sluice_engine::backend::onnx::{
    ModelSource, OnnxSession, SessionOptions, TensorSlice, TensorView, init_runtime,
};
use sluice_engine::encoder::{EmbedOptions, Encoder, EncoderInput, EncoderOptions};
use sluice_engine::tokenizer::TextTokenizer;

const CONCURRENCIES: [usize; 4] = [1, 8, 32, 128];
const BATCH: usize = 4;

/// Texts of 8 to 200 words, log-uniform, so that short ones dominate.
fn texts() -> Vec<String> {
    const WORDS: [&str; 16] = [
        "the", "server", "of", "request", "answer", "and", "network", "to", "password", "in",
        "user", "is", "printer", "for", "account", "not",
    ];
    let mut state = 7u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    };
    let mut text = || {
        let length = (8.0 * 25f64.powf(random())) as usize;
        let words: Vec<&str> = (0..length)
            .map(|_| WORDS[(random() * 16.0) as usize])
            .collect();
        words.join(" ")
    };
    (0..1024).map(|_| text()).collect()
}

/// Texts a second of plain sessions on length-sorted batches.
fn limit(
    sessions: &mut [OnnxSession],
    tokenizer: &TextTokenizer,
    sorted: &[String],
    time: Duration,
) -> f64 {
    let groups: Vec<&[String]> = sorted.chunks(BATCH).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for session in sessions {
            scope.spawn(|| {
                while start.elapsed() < time {
                    // A stride prime to the number of groups mixes the lengths.
                    let index = next.fetch_add(1, Relaxed) * 79 % groups.len();
                    run(session, tokenizer, groups[index]);
                    done.fetch_add(BATCH, Relaxed);
                }
            });
        }
    });
    done.load(Relaxed) as f64 / start.elapsed().as_secs_f64()
}

fn run(session: &mut OnnxSession, tokenizer: &TextTokenizer, texts: &[String]) {
    let ids: Vec<_> = texts
        .iter()
        .map(|text| tokenizer.encode(text, true).unwrap())
        .collect();
    let longest = ids.iter().map(Vec::len).max().unwrap().min(256);
    let fill = |value: fn(u32) -> i64| -> Vec<i64> {
        let row = |ids: &Vec<u32>| {
            let mut row: Vec<i64> = ids.iter().take(longest).map(|&id| value(id)).collect();
            row.resize(longest, 0);
            row
        };
        ids.iter().flat_map(row).collect()
    };
    let (words, mask, types) = (fill(i64::from), fill(|_| 1), fill(|_| 0));
    let shape = [texts.len() as i64, longest as i64];
    let view = |data| TensorView {
        shape: &shape,
        data: TensorSlice::Int64(data),
    };
    let inputs = [
        ("input_ids", view(&words)),
        ("attention_mask", view(&mask)),
        ("token_type_ids", view(&types)),
    ];
    session
        .run_with(&inputs, &[], |outputs| assert!(!outputs.is_empty()))
        .unwrap();
}

struct Served {
    texts: f64,
    /// Texts a second.
    rate: f64,
    p50: Duration,
    p99: Duration,
}

/// `clients` that each wait for an answer before the next call.
async fn served(
    encoder: &Encoder,
    texts: &Arc<Vec<String>>,
    clients: usize,
    time: Duration,
) -> Served {
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (encoder, texts) = (encoder.clone(), Arc::clone(texts));
            tokio::spawn(async move {
                let mut times = Vec::new();
                let mut index = client * 97;
                while start.elapsed() < time {
                    let text = texts[index % texts.len()].clone();
                    let called = Instant::now();
                    let input = EncoderInput::Text(text);
                    encoder.embed(input, EmbedOptions::default()).await.unwrap();
                    times.push(called.elapsed());
                    index += 79;
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    times.sort_unstable();
    let texts = times.len() as f64;
    let quantile = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    Served {
        texts,
        rate,
        p50: quantile(0.5),
        p99: quantile(0.99),
    }
}

/// Seconds of processor time that this process has used.
fn cpu() -> f64 {
    // Linux counts in hundredths of a second for user programs.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields = after_name.split_whitespace().skip(11).take(2);
    fields
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / TICKS
}

/// Resident megabytes of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kib.unwrap_or(0) / 1024
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let argument = |index: usize, default: &str| {
        arguments
            .get(index)
            .cloned()
            .unwrap_or_else(|| default.to_owned())
    };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
    let default = data.join("models/all-minilm-l6-v2");
    let folder = PathBuf::from(argument(0, &default.to_string_lossy()));
    let time = Duration::from_secs_f64(argument(1, "5").parse().unwrap());
    let rounds: usize = argument(2, "3").parse().unwrap();
    init_runtime(None)
        .or_else(|_| init_runtime(Some(&data.join("lib/libonnxruntime.so"))))
        .unwrap();

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let texts = Arc::new(texts());
    let mut sorted = texts.as_ref().clone();
    sorted.sort_by_key(String::len);
    let encoder = Encoder::load("bench", &folder, &EncoderOptions::default()).unwrap();
    println!("loaded: {} MB resident", resident());
    for clients in CONCURRENCIES {
        runtime.block_on(served(&encoder, &texts, clients, time));
    }
    println!("after every concurrency: {} MB resident", resident());
    let cores = std::thread::available_parallelism().unwrap().get();
    let options = SessionOptions {
        threads: 1,
        ..SessionOptions::default()
    };
    let model = folder.join("model.onnx");
    let open = || OnnxSession::open("limit", ModelSource::File(&model), &options).unwrap();
    let mut sessions: Vec<_> = (0..cores).map(|_| open()).collect();
    for round in 1..=rounds {
        for clients in CONCURRENCIES {
            let start = cpu();
            let before = limit(&mut sessions, encoder.tokenizer(), &sorted, time / 2);
            let limit_cpu = cpu() - start;
            let limit_texts = before * (time / 2).as_secs_f64();
            let start = cpu();
            let Served {
                texts: answered,
                rate,
                p50,
                p99,
            } = runtime.block_on(served(&encoder, &texts, clients, time));
            let served_cpu = (cpu() - start) / answered;
            let after = limit(&mut sessions, encoder.tokenizer(), &sorted, time / 2);
            let most = f64::midpoint(before, after);
            println!(
                "round {round}, {clients:3} clients: {rate:6.1} texts/s, {:.2} of {most:6.1}, CPU {:.2} ms a text (limit {:.2}), P50 {p50:.1?}, P99 {p99:.1?}",
                rate / most,
                1e3 * served_cpu,
                1e3 * limit_cpu / limit_texts,
            );
        }
    }
    let stats = encoder.stats();
    let (count, batches) = (stats.count.load(Relaxed), stats.exec_count.load(Relaxed));
    println!("mean batch {:.2}", count as f64 / batches as f64);
}
