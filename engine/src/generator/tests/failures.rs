//! What breaks, and what goes on.

use super::*;
use crate::backend::fake::Failure;
use crate::error::LoadError;

#[tokio::test]
async fn a_failed_step_loses_its_sequences_only() {
    let fake = FakeOptions {
        slots: 2,
        ..model()
    };
    let (handle, control) = start(&fake, options());
    control.hold();
    let all: Vec<_> = (0..4)
        .map(|i| handle.submit(request(&[1 + i, 2], 20)).unwrap())
        .collect();
    control.wait_for_steps(1);
    control.fail_at(3, Failure::Step);
    control.release();
    let mut failed = 0;
    for (i, generation) in all.into_iter().enumerate() {
        let got = collect(generation).await;
        match got.end {
            Ok(_) => assert_eq!(got.ids(), alone(&fake, &[1 + i as u32, 2], 20)),
            Err(reason) => {
                assert!(reason.contains("injected"), "{reason}");
                failed += 1;
            }
        }
    }
    assert!((1..=2).contains(&failed), "{failed}");
    assert!(handle.healthy());
    let stats = handle.stats().snapshot();
    assert_eq!((stats.failed, stats.running, stats.waiting), (failed, 0, 0));
}

#[tokio::test]
async fn steps_that_fail_one_after_another_end_the_executor() {
    let several = GeneratorOptions {
        failed_steps: 3,
        ..options()
    };
    let (handle, control) = start(&model(), several);
    for round in 0..2 {
        control.fail_all(Some(Failure::Step));
        let lost = collect(handle.submit(request(&[1, round], 5)).unwrap()).await;
        assert!(lost.end.is_err(), "one sequence, one step");
        control.fail_all(None);
        let served = collect(handle.submit(request(&[2, round], 5)).unwrap()).await;
        assert!(
            served.end.is_ok(),
            "what works in between starts the count anew"
        );
    }
    control.fail_all(Some(Failure::Step));
    for _ in 0..3 {
        assert!(handle.healthy());
        collect(handle.submit(request(&[1, 2], 5)).unwrap())
            .await
            .end
            .unwrap_err();
    }
    eventually(|| handle.closed()).await;
    let refused = handle.submit(request(&[1], 1)).unwrap_err();
    assert!(matches!(&refused, SubmitError::Unavailable(why) if why.contains("3 runs in a row")));
}

#[tokio::test]
async fn what_had_no_step_yet_is_told_so() {
    let (handle, control) = start(&model(), options());
    control.hold();
    control.fail_at(0, Failure::Fatal);
    let mut all = vec![handle.submit(request(&[1, 2], 20)).unwrap()];
    control.wait_for_steps(1);
    // These lie in the channel when the executor ends.
    all.extend((0..5).map(|i| handle.submit(request(&[3 + i, 2], 20)).unwrap()));
    control.release();
    let mut ends = Vec::new();
    for mut generation in all {
        ends.push(generation.next().await.unwrap());
        assert_eq!(generation.next().await, None);
    }
    assert!(matches!(ends[0], GenerationEvent::Failed(_)), "{ends:?}");
    let told = |end: &GenerationEvent| matches!(end, GenerationEvent::NotBegun(_));
    assert!(ends[1..].iter().all(told), "{ends:?}");
}

async fn the_replica_is_lost_by(failure: Failure) {
    let (handle, control) = start(&model(), options());
    control.hold();
    let all: Vec<_> = (0..20)
        .map(|i| handle.submit(request(&[1 + i, 2], 20)).unwrap())
        .collect();
    control.fail_at(4, failure);
    control.release();
    for generation in all {
        let reason = collect(generation).await.end.unwrap_err();
        assert!(reason.contains("injected"), "{reason}");
    }
    eventually(|| handle.closed()).await;
    assert!(!handle.healthy());
    let refused = handle.submit(request(&[1], 1)).unwrap_err();
    assert!(matches!(&refused, SubmitError::Unavailable(why) if why.contains("injected")));
    let stats = handle.stats().snapshot();
    assert_eq!((stats.failed, stats.running, stats.waiting), (20, 0, 0));
    assert_eq!(handle.step_age(), None);
}

#[tokio::test]
async fn a_fatal_error_fails_everyone_and_the_process_lives() {
    the_replica_is_lost_by(Failure::Fatal).await;
}

#[tokio::test]
async fn a_panic_fails_everyone_and_the_process_lives() {
    the_replica_is_lost_by(Failure::Panic).await;
}

#[tokio::test]
async fn close_finishes_what_runs_and_waits_and_refuses_the_rest() {
    let (handle, control) = start(&model(), options());
    control.hold();
    let all: Vec<_> = (0..20)
        .map(|i| handle.submit(request(&[1 + i, 2], 20)).unwrap())
        .collect();
    control.wait_for_steps(1);
    handle.close();
    assert!(!handle.healthy());
    assert!(matches!(
        handle.submit(request(&[1], 1)),
        Err(SubmitError::Unavailable(_))
    ));
    control.release();
    for (i, generation) in all.into_iter().enumerate() {
        let got = collect(generation).await;
        assert_eq!(got.ids(), alone(&model(), &[1 + i as u32, 2], 20));
    }
    eventually(|| handle.closed()).await;
}

#[tokio::test]
async fn an_idle_generator_closes_too() {
    let (handle, _) = start(&model(), options());
    handle.close();
    eventually(|| handle.closed()).await;
}

#[tokio::test]
async fn abort_ends_at_once() {
    let (handle, control) = start(&model(), options());
    control.hold();
    let all: Vec<_> = (0..20)
        .map(|i| handle.submit(request(&[1 + i, 2], 400)).unwrap())
        .collect();
    control.wait_for_steps(1);
    handle.abort();
    control.release();
    for generation in all {
        assert!(collect(generation).await.end.is_err());
    }
    eventually(|| handle.closed()).await;
    assert_eq!(control.steps(), 1);
    assert_eq!(handle.stats().load(), 0);
}

#[tokio::test]
async fn dropping_the_last_handle_finishes_what_runs() {
    let (handle, control) = start(&model(), options());
    control.hold();
    let generation = handle.submit(request(&[1, 2], 20)).unwrap();
    control.wait_for_steps(1);
    drop(handle);
    control.release();
    assert_eq!(
        collect(generation).await.ids(),
        alone(&model(), &[1, 2], 20)
    );
}

#[test]
fn a_backend_that_cannot_be_built_says_why() {
    let broken = || -> Result<Box<dyn crate::backend::Backend>, LoadError> {
        Err(LoadError::Runtime("no such device".to_owned()))
    };
    let error = GeneratorHandle::start("broken", Box::new(broken), options()).unwrap_err();
    assert_eq!(error.to_string(), "no such device");
    let panicking =
        || -> Result<Box<dyn crate::backend::Backend>, LoadError> { panic!("driver went away") };
    let error = GeneratorHandle::start("broken", Box::new(panicking), options()).unwrap_err();
    assert!(error.to_string().contains("driver went away"));
}
