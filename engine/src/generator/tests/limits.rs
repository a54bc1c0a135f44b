//! What is refused, and when something is given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::request::FinishReason;

#[tokio::test]
async fn bad_requests_name_the_field() {
    let (handle, _) = start(&model(), options());
    let refused = |change: &dyn Fn(&mut GenerateRequest)| {
        let mut request = request(&[1, 2], 5);
        change(&mut request);
        handle.submit(request).unwrap_err()
    };
    let param = |error: SubmitError| match error {
        SubmitError::Invalid { param, .. } => param,
        other => panic!("{other:?}"),
    };
    assert_eq!(param(refused(&|r| r.prompt = Arc::from([]))), "prompt");
    assert_eq!(param(refused(&|r| r.prompt = Arc::from([256]))), "prompt");
    assert_eq!(
        param(refused(&|r| r.params.temperature = f32::NAN)),
        "temperature"
    );
    assert_eq!(
        param(refused(&|r| r.params.temperature = 2.1)),
        "temperature"
    );
    assert_eq!(param(refused(&|r| r.params.top_p = 0.0)), "top_p");
    assert_eq!(param(refused(&|r| r.params.min_p = 1.5)), "min_p");
    assert_eq!(
        param(refused(&|r| r.params.presence_penalty = -3.0)),
        "presence_penalty"
    );
    assert_eq!(
        param(refused(&|r| r.params.frequency_penalty = 3.0)),
        "frequency_penalty"
    );
    assert_eq!(
        param(refused(&|r| r.params.repetition_penalty = 0.0)),
        "repetition_penalty"
    );
    let bias = |token, bias| Arc::<[(u32, f32)]>::from([(token, bias)]);
    assert_eq!(
        param(refused(&|r| r.params.logit_bias = bias(999, 1.0))),
        "logit_bias"
    );
    assert_eq!(
        param(refused(&|r| r.params.logit_bias = bias(9, 101.0))),
        "logit_bias"
    );
    assert_eq!(param(refused(&|r| r.params.min_tokens = 6)), "min_tokens");
    assert!(matches!(
        refused(&|r| r.prompt = vec![1; 512].into()),
        SubmitError::TooLong {
            prompt: 512,
            requested: 517,
            limit: 512
        }
    ));
    assert!(matches!(
        refused(&|r| r.deadline = Some(Instant::now())),
        SubmitError::DeadlineUnmeetable { .. }
    ));
    let stats = handle.stats().snapshot();
    assert_eq!((stats.refused, stats.waiting), (14, 0));
}

#[tokio::test]
async fn a_full_queue_answers_at_once() {
    let mut few = options();
    few.max_waiting = 4;
    let (handle, control) = start(&model(), few);
    control.hold();
    let first = handle.submit(request(&[1], 2)).unwrap();
    control.wait_for_steps(1);
    // 7 free slots and 4 places to wait.
    let admitted: Vec<_> = (0..11)
        .map(|i| handle.submit(request(&[2 + i], 2)).unwrap())
        .collect();
    let refused = handle.submit(request(&[99], 2)).unwrap_err();
    assert!(
        matches!(refused, SubmitError::QueueFull { waiting: 11, .. }),
        "{refused}"
    );
    assert!(refused.is_retryable());
    control.release();
    for generation in admitted.into_iter().chain([first]) {
        assert!(collect(generation).await.end.is_ok());
    }
    assert!(
        handle.submit(request(&[99], 2)).is_ok(),
        "there is room again"
    );
}

#[tokio::test]
async fn a_hopeless_deadline_is_refused_at_submission() {
    let fake = FakeOptions {
        slots: 1,
        ..model()
    };
    let (handle, control) = start(&fake, options());
    control.hold();
    let one = handle.submit(request(&[1], 10)).unwrap();
    control.wait_for_steps(1);
    tokio::time::sleep(Duration::from_millis(30)).await;
    control.release();
    // The average residence is at least 30 ms from now on.
    assert!(collect(one).await.end.is_ok());
    control.hold();
    let first = control.steps();
    let busy = handle.submit(request(&[2], 10)).unwrap();
    control.wait_for_steps(first + 1);
    let queue: Vec<_> = (0..20)
        .map(|_| handle.submit(request(&[3], 10)).unwrap())
        .collect();
    let wait = handle.expected_wait(Priority::Normal);
    let wait_if_urgent = handle.expected_wait(Priority::High);
    assert_eq!(wait, wait_if_urgent * 21);
    let mut urgent = request(&[4], 10);
    urgent.deadline = Some(Instant::now() + (wait + wait_if_urgent) / 2);
    assert!(matches!(
        handle.submit(urgent.clone()),
        Err(SubmitError::DeadlineUnmeetable { .. })
    ));
    // Of high priority it would be next.
    urgent.priority = Priority::High;
    assert!(handle.submit(urgent).is_ok());
    control.release();
    for generation in queue.into_iter().chain([busy]) {
        assert!(collect(generation).await.end.is_ok());
    }
}

#[tokio::test]
async fn a_running_sequence_stops_at_its_deadline() {
    let (handle, control) = start(&model(), options());
    let mut late = request(&[1], 500);
    let deadline = Instant::now() + Duration::from_millis(100);
    late.deadline = Some(deadline);
    control.hold();
    let generation = handle.submit(late).unwrap();
    tokio::time::sleep_until(deadline.into()).await;
    control.release();
    let got = collect(generation).await;
    assert_eq!(got.end.unwrap().reason, FinishReason::Deadline);
    assert!(
        got.tokens.len() <= 1,
        "at most the step that was on the device"
    );
    assert_eq!(handle.stats().snapshot().finished_deadline, 1);
}

#[tokio::test]
async fn two_hundred_dropped_streams_leave_nothing_behind() {
    let (handle, control) = start(&model(), options());
    control.hold();
    let mut streams = Vec::new();
    for i in 0..200u32 {
        streams.push(handle.submit(request(&[1 + i % 250, 2, 3], 400)).unwrap());
    }
    control.allow(20);
    assert!(streams[0].next().await.is_some());
    drop(streams);
    control.release();
    let stats = handle.stats();
    eventually(|| stats.load() == 0 && stats.snapshot().kv_tokens_used == 0).await;
    assert_eq!(stats.snapshot().finished_cancelled, 200);
    // And it goes on as if nothing had been.
    let steps = control.steps();
    let got = collect(handle.submit(request(&[5, 6], 10)).unwrap()).await;
    assert_eq!(got.ids(), alone(&model(), &[5, 6], 10));
    assert_eq!(control.steps() - steps, 10, "nobody else is running");
}

#[tokio::test]
async fn cancellation_takes_one_step() {
    let (handle, control) = start(&model(), options());
    control.hold();
    let mut generation = handle.submit(request(&[1], 400)).unwrap();
    control.allow(1);
    assert!(matches!(
        generation.next().await,
        Some(GenerationEvent::Token(_))
    ));
    // The second step is on the device; there must be no third.
    control.wait_for_steps(2);
    generation.cancel();
    control.release();
    let got = collect(generation).await;
    assert_eq!(got.end.unwrap().reason, FinishReason::Cancelled);
    assert!(got.tokens.len() <= 1);
    assert_eq!(control.steps(), 2);
}
