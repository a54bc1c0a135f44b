#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod on_device;

use std::time::Duration;

use super::super::testing::{fixture, load, ready};
use super::*;
use crate::backend::Wanted;
use crate::backend::onnx::{GpuOptions, OnnxOptions};
use crate::cuda::standin::Standin;

const NEW: usize = 24;

fn prompts() -> Vec<Vec<u32>> {
    let prompt = |length: u32| (0..length).map(|i| 3 + (i * 37 + length) % 120).collect();
    [5, 17, 40, 93].map(prompt).to_vec()
}

fn argmax(logits: &[f32]) -> u32 {
    (0..)
        .zip(logits)
        .max_by(|a, b| a.1.total_cmp(b.1))
        .unwrap()
        .0
}

/// Drives sequences through a backend as a scheduler would.
struct Driver<'l> {
    lm: &'l mut OnnxLm,
    outputs: Outputs,
}

impl Driver<'_> {
    fn step(&mut self, rows: Vec<Row<'_>>) -> Vec<Option<u32>> {
        let batch = Batch { rows };
        self.lm.execute_to_host(&batch, &mut self.outputs).unwrap();
        let ranges = self.outputs.ranges.clone();
        let last = |range: &std::ops::Range<usize>| {
            range
                .clone()
                .last()
                .map(|row| argmax(self.outputs.row(row)))
        };
        ranges.iter().map(last).collect()
    }

    /// Greedy tokens of one prompt alone in `slot`, in chunks of `chunk`.
    fn alone(&mut self, slot: u32, prompt: &[u32], chunk: usize) -> Vec<u32> {
        let mut past = 0;
        let mut next = None;
        for tokens in prompt.chunks(chunk) {
            let done = past as usize + tokens.len() == prompt.len();
            let wanted = if done { Wanted::Last } else { Wanted::Nothing };
            next = self.step(vec![Row {
                slot,
                past,
                tokens,
                wanted,
            }])[0];
            past += u32::try_from(tokens.len()).unwrap();
        }
        let mut greedy = vec![next.unwrap()];
        while greedy.len() < NEW {
            let tokens = [*greedy.last().unwrap()];
            let rows = vec![Row {
                slot,
                past,
                tokens: &tokens,
                wanted: Wanted::Last,
            }];
            greedy.push(self.step(rows)[0].unwrap());
            past += 1;
        }
        greedy
    }

    /// Decodes all sequences together from their first tokens on.
    fn decode(&mut self, slots: &[u32], pasts: &[u32], first: &[u32]) -> Vec<Vec<u32>> {
        let mut greedy: Vec<Vec<u32>> = first.iter().map(|token| vec![*token]).collect();
        for step in 0..u32::try_from(NEW).unwrap() - 1 {
            let last: Vec<[u32; 1]> = greedy.iter().map(|g| [*g.last().unwrap()]).collect();
            let rows = (0..slots.len())
                .map(|i| Row {
                    slot: slots[i],
                    past: pasts[i] + step,
                    tokens: &last[i],
                    wanted: Wanted::Last,
                })
                .collect();
            for (greedy, next) in greedy.iter_mut().zip(self.step(rows)) {
                greedy.push(next.unwrap());
            }
        }
        greedy
    }
}

/// What carries a test out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    /// The host. `ragged` is whether the graph takes the rows' numbers of new tokens;
    /// idle lanes then compute nothing, otherwise one token of junk.
    Host { ragged: bool },
    /// K/V and logits on the stand-in for a GPU, which works behind our back until it
    /// is waited for. `captured`: decoding takes the inputs that a captured graph would.
    Gpu { captured: bool },
}

const HOST: On = On::Host { ragged: true };

const ALL: [On; 4] = [
    HOST,
    On::Host { ragged: false },
    On::Gpu { captured: false },
    On::Gpu { captured: true },
];

fn options(slots: u32, on: On) -> OnnxOptions {
    OnnxOptions {
        slots: Some(slots),
        capacity: Some(128),
        threads: 1,
        ragged: on == HOST,
        stand_in: matches!(on, On::Gpu { .. }),
        gpu: GpuOptions {
            cuda_graphs: on == On::Gpu { captured: true },
            ..GpuOptions::default()
        },
        ..OnnxOptions::default()
    }
}

fn with_model(name: &str, slots: u32, on: On, test: impl FnOnce(Driver<'_>)) {
    let options = options(slots, on);
    let standin = options.stand_in.then(|| Standin::install(&[1 << 30]));
    let mut lm = load(&fixture(name), &options).unwrap();
    assert_eq!(
        lm.layout.ragged, options.ragged,
        "this ONNX Runtime has no query_seqlens"
    );
    for slot in 0..slots as usize {
        lm.store.spoil(slot, 0);
    }
    test(Driver {
        lm: &mut lm,
        outputs: Outputs::default(),
    });
    drop(lm);
    if let Some(standin) = standin {
        assert!(
            standin.alive(0).is_nothing(),
            "something is left on the device"
        );
    }
}

fn reference(driver: &mut Driver<'_>) -> Vec<Vec<u32>> {
    prompts()
        .iter()
        .map(|prompt| driver.alone(2, prompt, 1000))
        .collect()
}

const MODELS: [&str; 2] = ["tiny-llama", "tiny-gemma2"];

fn everywhere() -> impl Iterator<Item = (&'static str, On)> {
    let on_each = |name| ALL.map(|on| (name, on));
    MODELS.into_iter().flat_map(on_each)
}

#[test]
fn chunked_prefill_gives_the_same_tokens() {
    for (name, on) in everywhere() {
        with_model(name, 4, on, |mut driver| {
            let expected = reference(&mut driver);
            for chunk in [1, 7, 16] {
                for (prompt, expected) in prompts().iter().zip(&expected) {
                    assert_eq!(
                        &driver.alone(1, prompt, chunk),
                        expected,
                        "{name} on {on:?}, chunks of {chunk}"
                    );
                }
            }
        });
    }
}

/// Prompts in slots with holes between them, whose idle lanes ride along.
#[test]
fn batched_decoding_over_idle_slots_gives_the_same_tokens() {
    for (name, on) in everywhere() {
        with_model(name, 9, on, |mut driver| {
            let expected = reference(&mut driver);
            let slots = [7, 0, 4, 1];
            for bridge in [0, 2, 8] {
                driver.lm.costs.bridge = bridge;
                let mut first = Vec::new();
                for (slot, prompt) in slots.iter().zip(&prompts()) {
                    let rows = vec![Row {
                        slot: *slot,
                        past: 0,
                        tokens: prompt,
                        wanted: Wanted::Last,
                    }];
                    first.push(driver.step(rows)[0].unwrap());
                }
                let pasts: Vec<u32> = prompts()
                    .iter()
                    .map(|p| u32::try_from(p.len()).unwrap())
                    .collect();
                assert_eq!(
                    driver.decode(&slots, &pasts, &first),
                    expected,
                    "{name} on {on:?}, bridge {bridge}"
                );
            }
        });
    }
}

/// Idle lanes write junk just beyond what a slot holds, never below: a sequence
/// that pauses goes on as if nothing had happened, and so does a finished prefix.
#[test]
fn idle_lanes_do_not_touch_what_a_slot_holds() {
    for on in ALL {
        with_model("tiny-llama", 3, on, pause_and_resume);
    }
}

fn pause_and_resume(mut driver: Driver<'_>) {
    let prompts = prompts();
    let expected = reference(&mut driver);
    driver.lm.costs.bridge = 8;
    // Slot 1 pauses in the middle of its prompt while 0 and 2 decode around it.
    let (head, tail) = prompts[3].split_at(50);
    driver.step(vec![Row {
        slot: 1,
        past: 0,
        tokens: head,
        wanted: Wanted::Nothing,
    }]);
    let start = |driver: &mut Driver<'_>, slot| {
        let rows = vec![Row {
            slot,
            past: 0,
            tokens: &prompts[0],
            wanted: Wanted::Last,
        }];
        driver.step(rows)[0].unwrap()
    };
    let first = [start(&mut driver, 0), start(&mut driver, 2)];
    assert_eq!(
        driver.decode(&[0, 2], &[5, 5], &first),
        [expected[0].clone(), expected[0].clone()]
    );
    let rows = vec![Row {
        slot: 1,
        past: 50,
        tokens: tail,
        wanted: Wanted::Last,
    }];
    let first = driver.step(rows)[0].unwrap();
    assert_eq!(driver.decode(&[1], &[93], &[first]), [expected[3].clone()]);
}

/// Where the runtime takes the rows' numbers of new tokens, an idle lane has none:
/// it writes nothing at all (and costs nothing, however much its slot holds).
#[test]
fn idle_lanes_of_a_ragged_graph_write_nothing() {
    with_model("tiny-llama", 3, HOST, |mut driver| {
        driver.lm.costs.bridge = 8;
        let prompt = &prompts()[2];
        driver.step(vec![Row {
            slot: 1,
            past: 0,
            tokens: prompt,
            wanted: Wanted::Nothing,
        }]);
        let keys = |driver: &Driver<'_>| -> Vec<u32> {
            let bound = driver.lm.store.bind(1, 1).unwrap();
            let (_, keys) = bound[0].try_extract_tensor::<f32>().unwrap();
            keys.iter().map(|key| key.to_bits()).collect()
        };
        let before = keys(&driver);
        let rows = [0, 2].map(|slot| Row {
            slot,
            past: 0,
            tokens: &prompt[..1],
            wanted: Wanted::Last,
        });
        driver.step(rows.to_vec());
        assert!(keys(&driver) == before);
    });
}

/// A full slot inside the range splits it instead of being overrun.
#[test]
fn a_full_slot_keeps_its_last_token() {
    for on in ALL {
        with_model("tiny-llama", 3, on, |mut driver| {
            driver.lm.costs.bridge = 8;
            let full: Vec<u32> = (0..128).map(|i| 3 + i * 7 % 120).collect();
            let whole = driver.step(vec![Row {
                slot: 1,
                past: 0,
                tokens: &full,
                wanted: Wanted::Last,
            }]);
            let rows = [0, 2].map(|slot| Row {
                slot,
                past: 0,
                tokens: &full[..1],
                wanted: Wanted::Last,
            });
            driver.step(rows.to_vec());
            let again = Row {
                slot: 1,
                past: 127,
                tokens: &full[127..],
                wanted: Wanted::Last,
            };
            assert_eq!(driver.step(vec![again]), whole);
        });
    }
}

#[test]
fn a_copied_prefix_is_as_good_as_a_computed_one() {
    for (name, on) in everywhere() {
        with_model(name, 4, on, |mut driver| {
            let expected = reference(&mut driver);
            let prompt = &prompts()[3];
            driver.step(vec![Row {
                slot: 3,
                past: 0,
                tokens: prompt,
                wanted: Wanted::Nothing,
            }]);
            driver.lm.copy_prefix(3, 0, 60).unwrap();
            driver.lm.store.spoil(3, 0);
            driver.lm.store.spoil(0, 60);
            let rows = vec![Row {
                slot: 0,
                past: 60,
                tokens: &prompt[60..],
                wanted: Wanted::Last,
            }];
            let first = driver.step(rows)[0].unwrap();
            assert_eq!(
                driver.decode(&[0], &[93], &[first]),
                [expected[3].clone()],
                "{name}"
            );
        });
    }
}

/// Prompts of different lengths in one run, padded, with some K/V already there.
#[test]
fn joined_prefill_gives_the_same_tokens() {
    for name in MODELS {
        with_model(name, 4, HOST, |mut driver| {
            let expected = reference(&mut driver);
            driver.lm.costs.joined_gain = f64::INFINITY;
            let prompts: Vec<_> = prompts().into_iter().take(3).collect();
            let heads = [2, 3, 9];
            let rows = (0..3).map(|i| Row {
                slot: u32::try_from(i).unwrap(),
                past: 0,
                tokens: &prompts[i][..heads[i]],
                wanted: Wanted::Nothing,
            });
            driver.step(rows.collect());
            let rows = (0..3).map(|i| Row {
                slot: u32::try_from(i).unwrap(),
                past: u32::try_from(heads[i]).unwrap(),
                tokens: &prompts[i][heads[i]..],
                wanted: Wanted::Last,
            });
            let first: Vec<u32> = driver.step(rows.collect()).into_iter().flatten().collect();
            assert_eq!(
                driver.decode(&[0, 1, 2], &[5, 17, 40], &first),
                expected[..3],
                "{name}"
            );
        });
    }
}

#[test]
fn wanted_rows_come_back_in_the_rows_ranges() {
    for on in ALL {
        with_model("tiny-llama", 4, on, |mut driver| {
            let prompts = prompts();
            let row = |slot, prompt: usize, wanted| Row {
                slot,
                past: 0,
                tokens: &prompts[prompt],
                wanted,
            };
            driver.step(vec![row(2, 1, Wanted::All)]);
            let all = driver.outputs.clone();
            assert_eq!(all.ranges, vec![0..17; 1]);
            driver.step(vec![
                row(3, 2, Wanted::Nothing),
                row(0, 1, Wanted::Last),
                Row {
                    slot: 1,
                    past: 0,
                    tokens: &prompts[1][..1],
                    wanted: Wanted::Last,
                },
            ]);
            let ranges = &driver.outputs.ranges;
            assert!(ranges[0].is_empty());
            assert_eq!((ranges[1].len(), ranges[2].len()), (1, 1));
            let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
            assert!(close(driver.outputs.row(ranges[1].start), all.row(16)));
            assert!(close(driver.outputs.row(ranges[2].start), all.row(0)));
        });
    }
}

#[test]
fn a_wrong_batch_is_refused_and_nothing_is_lost() {
    for on in ALL {
        with_model("tiny-llama", 2, on, |mut driver| {
            let prompt = prompts().remove(0);
            let expected = driver.alone(0, &prompt, 1000);
            let row = |slot, past, tokens| Row {
                slot,
                past,
                tokens,
                wanted: Wanted::Last,
            };
            for (rows, expected) in [
                (vec![row(2, 0, &prompt[..])], "there are 2 slots"),
                (vec![row(1, 0, &prompt), row(1, 0, &prompt)], "twice"),
                (vec![row(1, 0, &[])], "no new tokens"),
                (vec![row(0, 28, &[3; 101])], "capacity of 128"),
                (vec![row(1, 1, &prompt)], "it holds 0 tokens, not 1"),
                (vec![row(1, 0, &[128])], "vocabulary of 128"),
            ] {
                let mut outputs = Outputs::default();
                let error = driver
                    .lm
                    .execute(&Batch { rows }, &mut outputs)
                    .unwrap_err();
                assert!(
                    matches!(&error, BackendError::Step(text) if text.contains(expected)),
                    "{error}"
                );
            }
            assert!(driver.lm.copy_prefix(0, 2, 1).is_err());
            assert!(driver.lm.copy_prefix(0, 1, 100).is_err());
            assert_eq!(driver.alone(1, &prompt, 1000), expected);
        });
    }
}

/// `ort` 2.0.0-rc.15 deadlocks when borrowed memory is bound through its
/// `IoBinding`; ours must not, and must not copy either.
#[test]
fn binding_the_arena_does_not_deadlock() {
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        ready();
        with_model("tiny-llama", 4, HOST, |mut driver| {
            let prompt = prompts().remove(0);
            driver.step(vec![Row {
                slot: 1,
                past: 0,
                tokens: &prompt,
                wanted: Wanted::Last,
            }]);
            let bound = driver.lm.store.bind(1, 1).unwrap();
            let (_, keys) = bound[0].try_extract_tensor::<f32>().unwrap();
            // The first head's first tokens are there; beyond them is what the test put there.
            let spoiled = f32::from_ne_bytes([0x41; 4]);
            let written = keys[..5 * 16]
                .iter()
                .filter(|x| x.to_bits() != spoiled.to_bits())
                .count();
            done.send((written, keys[5 * 16].to_bits() == spoiled.to_bits()))
                .unwrap();
        });
    });
    let result = finished
        .recv_timeout(Duration::from_secs(120))
        .expect("the run deadlocked");
    assert_eq!(result, (80, true));
}
