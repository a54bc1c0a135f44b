//! The owner thread and its queue, on graphs that wait for the test.

use crossbeam_channel::{Receiver, Sender, unbounded};
use proptest::prelude::*;
use tokio::task::JoinHandle;

use super::*;
use crate::backend::onnx::{Tensor, TensorView};
use crate::error::BackendError;

/// What the test lets a run do.
enum Let {
    Run,
    Fail,
    Panic,
    Die,
    /// Return one row too few.
    Lose,
}

/// A graph that reports each run's rows and then waits for the test's word.
struct Held<G> {
    graph: G,
    began: Sender<i64>,
    word: Receiver<Let>,
}

impl<G: Graph> Graph for Held<G> {
    fn run(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        wanted: &[&str],
    ) -> Result<Vec<Tensor>, BackendError> {
        _ = self.began.send(inputs[0].1.shape[0]);
        match self.word.recv().unwrap() {
            Let::Run => self.graph.run(inputs, wanted),
            Let::Fail => Err(BackendError::Step("as told".to_owned())),
            Let::Panic => panic!("as told"),
            Let::Die => Err(BackendError::Fatal("as told".to_owned())),
            Let::Lose => {
                let mut outputs = self.graph.run(inputs, wanted)?;
                outputs.iter_mut().for_each(lose_a_row);
                Ok(outputs)
            }
        }
    }
}

fn lose_a_row(tensor: &mut Tensor) {
    let (rows, count) = (tensor.shape[0] as usize, tensor.data.len());
    let kept = tensor.data.as_slice().range(0..count / rows * (rows - 1));
    tensor.data = kept.unwrap().to_data();
    tensor.shape[0] -= 1;
}

/// Doubles its only input.
struct Double;

impl Graph for Double {
    fn run(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        wanted: &[&str],
    ) -> Result<Vec<Tensor>, BackendError> {
        let TensorSlice::Fp32(data) = inputs[0].1.data else {
            return Err(BackendError::Step("not FP32".to_owned()));
        };
        assert_eq!(wanted, ["y"]);
        Ok(vec![Tensor {
            shape: inputs[0].1.shape.to_vec(),
            data: TensorData::Fp32(data.iter().map(|value| value * 2.0).collect()),
        }])
    }
}

struct Bench {
    model: TensorModel,
    began: Receiver<i64>,
    word: Sender<Let>,
}

impl Bench {
    fn new<G: Graph>(
        signature: Signature,
        max_waiting: usize,
        max_batch: usize,
        graph: impl FnOnce() -> G + Send + 'static,
    ) -> Self {
        let (began_sender, began) = unbounded();
        let (word, word_receiver) = unbounded();
        word.send(Let::Run).unwrap();
        let build = move || {
            let held = Held {
                graph: graph(),
                began: began_sender,
                word: word_receiver,
            };
            Ok((signature, held))
        };
        let options = TensorOptions {
            max_waiting,
            max_batch,
            ..TensorOptions::default()
        };
        let model = TensorModel::start("held", build, &options, false).unwrap();
        assert_eq!(began.recv().unwrap(), 1, "the warm-up");
        Self { model, began, word }
    }

    fn doubling(max_waiting: usize, max_batch: usize) -> Self {
        let spec = |name: &str| TensorSpec {
            name: name.to_owned(),
            datatype: Datatype::Fp32,
            shape: vec![
                Dimension::Free("batch".to_owned()),
                Dimension::Free(String::new()),
            ],
        };
        let signature = Signature {
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
        };
        Self::new(signature, max_waiting, max_batch, || Double)
    }

    /// Submits a request of ones and comes back when it is in the queue.
    async fn submit(&self, rows: usize, width: usize, deadline: Option<Instant>) -> Pending {
        let model = self.model.clone();
        let inputs = vec![ones(rows, width)];
        let pending = tokio::spawn(async move { model.infer(inputs, None, deadline).await });
        // The runtime has one thread: the task now runs up to its first wait.
        tokio::task::yield_now().await;
        pending
    }

    fn word(&self, word: Let) {
        self.word.send(word).unwrap();
    }

    /// Rows of the run that begins next.
    fn next_run(&self) -> i64 {
        self.began.recv().unwrap()
    }
}

type Pending = JoinHandle<Result<Vec<NamedTensor>, InferError>>;

fn ones(rows: usize, width: usize) -> NamedTensor {
    let data = TensorData::Fp32(vec![1.0; rows * width]);
    tensor("x", &[rows as i64, width as i64], data)
}

fn twos(rows: usize, width: usize) -> Vec<NamedTensor> {
    let data = TensorData::Fp32(vec![2.0; rows * width]);
    vec![tensor("y", &[rows as i64, width as i64], data)]
}

#[tokio::test]
async fn a_full_queue_refuses_and_those_waiting_are_answered() {
    let bench = Bench::doubling(1, 1);
    let running = bench.submit(1, 1, None).await;
    assert_eq!(bench.next_run(), 1);
    let waiting = bench.submit(2, 1, None).await;
    assert_eq!(bench.model.waiting(), 1);
    let refused = bench.submit(3, 1, None).await.await.unwrap().unwrap_err();
    assert!(
        matches!(refused, InferError::QueueFull { waiting: 1, .. }),
        "{refused}"
    );
    assert!(refused.is_retryable());
    bench.word(Let::Run);
    bench.word(Let::Run);
    assert_eq!(running.await.unwrap().unwrap(), twos(1, 1));
    assert_eq!(waiting.await.unwrap().unwrap(), twos(2, 1));
    assert_eq!(bench.model.stats().failures(FailureReason::Rejected), 1);
}

#[tokio::test]
async fn a_dropped_request_is_not_run_and_gives_its_place_away() {
    let bench = Bench::doubling(1, 1);
    let running = bench.submit(1, 1, None).await;
    assert_eq!(bench.next_run(), 1);
    let dropped = bench.submit(2, 1, None).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    let next = bench.submit(3, 1, None).await;
    bench.word(Let::Run);
    bench.word(Let::Run);
    assert_eq!(running.await.unwrap().unwrap(), twos(1, 1));
    assert_eq!(
        bench.next_run(),
        3,
        "the dropped one of two rows was skipped"
    );
    assert_eq!(next.await.unwrap().unwrap(), twos(3, 1));
    assert_eq!(bench.model.stats().failures(FailureReason::Canceled), 1);
}

#[tokio::test]
async fn a_request_past_its_deadline_is_not_run() {
    let bench = Bench::doubling(8, 1);
    let running = bench.submit(1, 1, None).await;
    assert_eq!(bench.next_run(), 1);
    let soon = Instant::now() + Duration::from_millis(5);
    let late = bench.submit(2, 1, Some(soon)).await;
    assert_eq!(late.await.unwrap(), Err(InferError::Deadline));
    let past = Instant::now();
    assert_eq!(
        bench.submit(2, 1, Some(past)).await.await.unwrap(),
        Err(InferError::Deadline)
    );
    let next = bench.submit(3, 1, None).await;
    bench.word(Let::Run);
    bench.word(Let::Run);
    assert_eq!(bench.next_run(), 3);
    assert_eq!(running.await.unwrap().unwrap(), twos(1, 1));
    assert_eq!(next.await.unwrap().unwrap(), twos(3, 1));
    assert_eq!(bench.model.stats().failures(FailureReason::Rejected), 2);
}

#[tokio::test]
async fn a_failed_step_or_a_panic_costs_one_request() {
    let bench = Bench::doubling(8, 1);
    for word in [Let::Fail, Let::Panic] {
        bench.word(word);
        let answer = bench.submit(1, 1, None).await.await.unwrap();
        assert_eq!(answer, Err(InferError::Failed("as told".to_owned())));
        assert!(bench.model.healthy());
    }
    bench.word(Let::Run);
    assert_eq!(
        bench.submit(1, 1, None).await.await.unwrap().unwrap(),
        twos(1, 1)
    );
    assert_eq!(bench.model.stats().failures(FailureReason::Backend), 2);
}

#[tokio::test]
async fn a_dead_device_refuses_everything_and_its_thread_ends() {
    let bench = Bench::doubling(8, 1);
    let running = bench.submit(1, 1, None).await;
    let waiting = bench.submit(1, 1, None).await;
    bench.word(Let::Die);
    let dead = Err(InferError::Unavailable("as told".to_owned()));
    let failed = Err(InferError::Failed("as told".to_owned()));
    assert_eq!(running.await.unwrap(), failed);
    assert_eq!(waiting.await.unwrap(), dead);
    assert!(!bench.model.healthy());
    assert_eq!(bench.submit(1, 1, None).await.await.unwrap(), dead);
    assert_eq!(bench.next_run(), 1);
    assert!(bench.began.recv().is_err(), "the graph is gone");
}

#[tokio::test]
async fn closing_answers_those_waiting_and_ends_the_thread() {
    let bench = Bench::doubling(8, 1);
    let running = bench.submit(1, 1, None).await;
    let waiting = bench.submit(2, 1, None).await;
    bench.model.close();
    let refused = bench.submit(1, 1, None).await.await.unwrap().unwrap_err();
    assert!(matches!(refused, InferError::Unavailable(_)), "{refused}");
    bench.word(Let::Run);
    bench.word(Let::Run);
    assert_eq!(running.await.unwrap().unwrap(), twos(1, 1));
    assert_eq!(waiting.await.unwrap().unwrap(), twos(2, 1));
    assert_eq!((bench.next_run(), bench.next_run()), (1, 2));
    assert!(bench.began.recv().is_err(), "the graph is gone");
}

#[test]
fn the_last_clone_ends_the_thread() {
    let bench = Bench::doubling(8, 1);
    let clone = bench.model.clone();
    drop(bench.model);
    assert!(clone.healthy());
    drop(clone);
    assert!(bench.began.recv().is_err(), "the graph is gone");
}

#[tokio::test]
async fn waiting_requests_of_one_shape_share_a_run() {
    let bench = Bench::doubling(8, 4);
    let mut pending = vec![bench.submit(1, 2, None).await];
    assert_eq!(bench.next_run(), 1);
    // Behind it: 2 + 1 rows merge; 5 are too many and run alone; then one of
    // another width, which cannot be appended; then 2 + 2, which fill a run.
    let shapes = [(2, 2), (1, 2), (5, 2), (1, 3), (2, 2), (2, 2)];
    for (rows, width) in shapes {
        pending.push(bench.submit(rows, width, None).await);
    }
    for rows in [3, 5, 1, 4] {
        bench.word(Let::Run);
        assert_eq!(bench.next_run(), rows);
    }
    bench.word(Let::Run);
    for (answer, (rows, width)) in pending.into_iter().zip([(1, 2)].into_iter().chain(shapes)) {
        assert_eq!(answer.await.unwrap().unwrap(), twos(rows, width));
    }
    let stats = bench.model.stats();
    assert_eq!((stats.inferences(), stats.executions()), (14, 5));
    assert_eq!(stats.success.count(), 7);
}

#[tokio::test]
async fn a_merged_run_that_fails_or_loses_rows_is_done_one_by_one() {
    for word in [Let::Fail, Let::Panic, Let::Lose] {
        let bench = Bench::doubling(8, 4);
        let first = bench.submit(1, 1, None).await;
        assert_eq!(bench.next_run(), 1);
        let good = bench.submit(1, 1, None).await;
        let bad = bench.submit(2, 1, None).await;
        bench.word(Let::Run);
        bench.word(word);
        bench.word(Let::Run);
        bench.word(Let::Fail);
        assert_eq!(
            (bench.next_run(), bench.next_run(), bench.next_run()),
            (3, 1, 2)
        );
        first.await.unwrap().unwrap();
        assert_eq!(good.await.unwrap().unwrap(), twos(1, 1));
        assert_eq!(
            bad.await.unwrap(),
            Err(InferError::Failed("as told".to_owned()))
        );
    }
}

#[tokio::test]
async fn merged_rows_of_a_real_graph_are_those_of_single_runs() {
    let file = fixture("affine.onnx");
    let signature = load("affine").signature().clone();
    let bench = Bench::new(signature, 8, 8, move || {
        let options = SessionOptions {
            threads: 1,
            ..SessionOptions::default()
        };
        OnnxSession::open("affine", ModelSource::File(&file), &options).unwrap()
    });
    let infer = |inputs: Vec<NamedTensor>| {
        let model = bench.model.clone();
        tokio::spawn(async move { model.infer(inputs, None, None).await })
    };
    let three =
        |name: &str, values: [f32; 3]| tensor(name, &[1, 3], TensorData::Fp32(values.into()));
    let first = infer(affine_inputs());
    tokio::task::yield_now().await;
    assert_eq!(bench.next_run(), 2);
    let same = infer(affine_inputs());
    let other = infer(vec![
        three("x", [1.0, 0.0, 0.0]),
        three("y", [0.0, 1.0, 0.0]),
    ]);
    tokio::task::yield_now().await;
    assert_eq!(bench.model.waiting(), 2);
    bench.word(Let::Run);
    bench.word(Let::Run);
    assert_eq!(bench.next_run(), 3);
    assert_eq!(first.await.unwrap().unwrap(), affine_outputs());
    assert_eq!(same.await.unwrap().unwrap(), affine_outputs());
    let product = tensor("product", &[1, 2], TensorData::Fp32(vec![1.0, 10.0]));
    assert_eq!(
        other.await.unwrap().unwrap(),
        [three("sum", [1.0, 1.0, 0.0]), product]
    );
}

fn job(rows: usize, width: usize, first: f32) -> Job {
    let data = (0..rows * width).map(|at| first + at as f32).collect();
    Job {
        rows,
        inputs: vec![tensor(
            "x",
            &[rows as i64, width as i64],
            TensorData::Fp32(data),
        )],
        wanted: vec![Arc::from("x")],
        submitted: Instant::now(),
        deadline: None,
        answer: oneshot::channel().0,
    }
}

proptest! {
    /// Dealing out what was merged gives back what went in.
    #[test]
    fn splitting_undoes_merging(rows in prop::collection::vec(0_usize..5, 1..8), width in 0_usize..4) {
        let first = |at: usize| (at * 1000) as f32;
        let jobs: Vec<_> = rows.iter().enumerate().map(|(at, &rows)| job(rows, width, first(at))).collect();
        let merged = batch::merge(&jobs).unwrap();
        let total: usize = rows.iter().sum();
        prop_assert_eq!(&merged[0].shape, &[total as i64, width as i64]);
        let outputs: Vec<_> = merged
            .into_iter()
            .map(|tensor| Tensor { shape: tensor.shape, data: tensor.data })
            .collect();
        match batch::split(&outputs, &jobs) {
            None => prop_assert_eq!(total, 0),
            Some(dealt) => {
                for (dealt, job) in dealt.iter().zip(&jobs) {
                    prop_assert_eq!(dealt, &job.inputs);
                }
            }
        }
    }
}
