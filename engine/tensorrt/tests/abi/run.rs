//! Loading and running, with the errors of a bad day.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use sluice_tensorrt::device::DeviceStream;
use sluice_tensorrt::{
    Callbacks, Code, Context, Direction, ElementType, Engine, Error, Library, Runtime,
    RuntimeOptions, Severity, Shape,
};

use crate::standin::{self, Buffer, Device, Stream};

const PLAIN: &[u8] = b"standin scale=3 most=4 rows=8 memory=64 weights=1000 profiles=2";

fn shape(sizes: &[i64]) -> Shape {
    Shape::new(sizes).unwrap()
}

fn runtime(library: &Arc<Library>) -> Runtime {
    Runtime::new(library, &RuntimeOptions::default()).unwrap()
}

fn load(library: &Arc<Library>, engine: &[u8]) -> Engine {
    runtime(library).load(engine).unwrap()
}

/// A context with two rows of four and all that it needs.
fn ready(engine: &Engine) -> (Context, Arc<Buffer>) {
    let mut context = engine.context().unwrap();
    context.set_working_memory(Buffer::of(&[0.0; 16])).unwrap();
    context.set_shape("x", shape(&[2, 4])).unwrap();
    let x: Vec<f32> = (0_u8..8).map(f32::from).collect();
    context.set_input("x", Buffer::of(&x)).unwrap();
    let y = Buffer::of(&[-1.0; 8]);
    context.set_output("y", y.clone()).unwrap();
    (context, y)
}

#[test]
fn an_engine_says_what_goes_in_and_out() {
    let engine = load(&standin::library(), PLAIN);
    assert_eq!(engine.name(), "standin");
    assert_eq!(engine.profiles(), 2);
    assert_eq!(engine.weight_bytes(), 1000);
    assert_eq!(engine.working_memory(0).unwrap(), 64);
    assert_eq!(engine.working_memory(1).unwrap(), 128);
    assert!(matches!(
        engine.working_memory(2),
        Err(Error::UnknownProfile { asked: 2, count: 2 })
    ));
    let [x, y] = engine.tensors() else {
        panic!("{:?}", engine.tensors())
    };
    assert_eq!((x.name.as_str(), x.direction), ("x", Direction::Input));
    assert_eq!((y.name.as_str(), y.direction), ("y", Direction::Output));
    assert_eq!((x.element, x.shape), (ElementType::F32, shape(&[-1, 4])));
    assert!(!x.on_host && x.alias.is_none() && y.bounds.is_empty());
    assert_eq!(x.bounds[0].smallest, shape(&[1, 4]));
    assert_eq!(x.bounds[0].best, shape(&[4, 4]));
    assert_eq!(x.bounds[1].largest, shape(&[16, 4]));
    assert_eq!(engine.serialize().unwrap(), PLAIN);
}

#[test]
fn a_step_computes_in_the_memory_it_was_given() {
    let library = standin::library();
    let stream = Stream::of(&library);
    let (mut context, y) = ready(&load(&library, PLAIN));
    assert_eq!(context.shape("y").unwrap(), shape(&[2, 4]));
    assert_eq!(context.bytes("y").unwrap(), 32);
    context.start(&stream).unwrap();
    context.finish().unwrap();
    assert_eq!(y.read(), [0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0]);
}

#[test]
fn another_profile_takes_other_shapes_and_more_memory() {
    let library = standin::library();
    let stream = Stream::of(&library);
    let (mut context, y) = ready(&load(&library, PLAIN));
    let nine = shape(&[9, 4]);
    let error = context.set_shape("x", nine).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"x\" has shape [9, 4]; optimisation profile 0 takes [1, 4] to [8, 4]"
    );
    context.set_profile(1, &stream).unwrap();
    context.set_shape("x", nine).unwrap();
    context.set_shape("x", shape(&[2, 4])).unwrap();
    let error = context.start(&stream).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the working memory needs 128 bytes and was given 64"
    );
    context.set_working_memory(Buffer::of(&[0.0; 32])).unwrap();
    context.start(&stream).unwrap();
    context.finish().unwrap();
    assert_eq!(y.read()[..3], [0.0, 4.0, 8.0]);
    assert!(context.set_profile(2, &stream).is_err());
}

#[test]
fn nothing_starts_before_everything_is_set() {
    let library = standin::library();
    let stream = Stream::of(&library);
    let engine = load(&library, PLAIN);
    let mut context = engine.context().unwrap();
    let unset = |context: &mut Context| context.start(&stream).unwrap_err().to_string();
    assert_eq!(unset(&mut context), "nothing is set for the shape of \"x\"");
    context.set_shape("x", shape(&[2, 4])).unwrap();
    assert_eq!(
        unset(&mut context),
        "the working memory needs 64 bytes and was given 0"
    );
    let small = context.set_working_memory(Buffer::of(&[0.0; 15]));
    assert!(matches!(
        small,
        Err(Error::TooSmall {
            needed: 64,
            given: 60,
            ..
        })
    ));
    context.set_working_memory(Buffer::of(&[0.0; 16])).unwrap();
    assert_eq!(
        unset(&mut context),
        "nothing is set for the data of \"x\", the data of \"y\""
    );
    context.set_input("x", Buffer::of(&[0.0; 8])).unwrap();
    context.set_output("y", Buffer::of(&[0.0; 7])).unwrap();
    assert_eq!(unset(&mut context), "\"y\" needs 32 bytes and was given 28");
    let unknown = context.set_input("z", Buffer::of(&[0.0])).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "the engine has no input \"z\"; it has x"
    );
    assert!(matches!(
        context.set_shape("x\0", shape(&[2, 4])),
        Err(Error::UnknownTensor { .. })
    ));
}

#[test]
fn sizes_are_given_as_values_and_read_on_the_host() {
    let library = standin::library();
    let stream = Stream::of(&library);
    let (mut context, y) = ready(&load(&library, b"standin scale=2 most=4 sizes"));
    let device = context.set_input("rows", Buffer::of(&[2.0])).unwrap_err();
    assert!(device.to_string().contains("read on the host"), "{device}");
    assert!(context.set_values("x", &[1]).is_err());
    assert!(context.start(&stream).is_err(), "rows is not set");
    context.set_values("rows", &[3]).unwrap();
    let error = context.start(&stream).unwrap_err();
    assert_eq!(
        error.to_string(),
        "TensorRT failed while working out the shapes: rows is not x's first size"
    );
    context.set_values("rows", &[2]).unwrap();
    context.start(&stream).unwrap();
    context.finish().unwrap();
    assert_eq!(y.read()[1], 2.0);
}

#[test]
fn an_output_that_is_an_input_shares_its_memory() {
    let library = standin::library();
    let stream = Stream::of(&library);
    let engine = load(&library, b"standin scale=2 most=4 alias");
    let mut context = engine.context().unwrap();
    context.set_shape("x", shape(&[1, 4])).unwrap();
    let cache = Buffer::of(&[1.0, 2.0, 3.0, 4.0]);
    assert!(context.set_output("y", cache.clone()).is_err());
    context.set_input("x", cache.clone()).unwrap();
    context.start(&stream).unwrap();
    context.finish().unwrap();
    assert_eq!(cache.read(), [2.0, 4.0, 6.0, 8.0]);
}

#[test]
fn what_is_in_use_stays_until_the_device_has_ended() {
    let library = standin::library();
    let stream = Stream::of(&library);
    let (mut context, first) = ready(&load(&library, PLAIN));
    context.start(&stream).unwrap();
    // The step in flight still writes to the first.
    context.set_output("y", Buffer::of(&[0.0; 8])).unwrap();
    context.set_working_memory(Buffer::of(&[0.0; 16])).unwrap();
    assert_eq!(Arc::strong_count(&first), 2);
    context.finish().unwrap();
    assert_eq!(Arc::strong_count(&first), 1);
    assert_eq!(first.read()[1], 3.0);
}

#[test]
fn a_context_waits_before_it_ends_and_before_it_changes_streams() {
    let library = standin::library();
    let (mut context, _) = ready(&load(&library, PLAIN));
    let [first, second] = [false; 2].map(|broken| Stream::made(&library, broken));
    let waits = || [&first, &second].map(|stream| stream.waited.load(Ordering::SeqCst));
    let on = |stream: &Arc<Stream>| -> Arc<dyn DeviceStream> { stream.clone() };
    context.start(&on(&first)).unwrap();
    context.start(&on(&first)).unwrap();
    assert_eq!(waits(), [0, 0]);
    context.start(&on(&second)).unwrap();
    assert_eq!(waits(), [1, 0]);
    context.set_profile(1, &on(&first)).unwrap();
    assert_eq!(waits(), [1, 1]);
    drop(context);
    assert_eq!(waits(), [2, 1]);
}

#[test]
fn a_refused_engine_is_told_with_the_librarys_reason() {
    let library = standin::library();
    let error = runtime(&library).load(b"GGUF").unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    assert_eq!(
        error.to_string(),
        "TensorRT refused the engine: the serialized engine's magic tag does not match"
    );
    assert!(matches!(
        runtime(&library).load(b""),
        Err(Error::Refused(_))
    ));
    // Engines with code for the host are refused unless allowed.
    let host = b"standin host";
    assert!(matches!(
        runtime(&library).load(host),
        Err(Error::Refused(_))
    ));
    let options = RuntimeOptions {
        host_code: true,
        threads: Some(2),
        ..RuntimeOptions::default()
    };
    Runtime::new(&library, &options)
        .unwrap()
        .load(host)
        .unwrap();
    // One that loads and that we could not feed.
    let odd = runtime(&library).load(b"standin format=3").unwrap_err();
    assert!(matches!(odd, Error::Unsupported(_)), "{odd}");
    assert!(matches!(
        load(&library, b"standin profiles=0").context(),
        Err(Error::UnknownProfile { .. })
    ));
}

#[test]
fn weights_come_from_our_memory_and_go_back_to_it() {
    let library = standin::library();
    let device = Device::with(2500);
    let options = RuntimeOptions {
        callbacks: Callbacks {
            memory: Some(device.clone()),
            ..Callbacks::default()
        },
        ..RuntimeOptions::default()
    };
    let runtime = Runtime::new(&library, &options).unwrap();
    for _ in 0..100 {
        let first = runtime.load(PLAIN).unwrap();
        let second = runtime.load(PLAIN).unwrap();
        assert_eq!(device.lent.load(Ordering::SeqCst), 2000);
        let full = runtime.load(PLAIN).unwrap_err();
        assert!(
            matches!(&full, Error::OutOfMemory { reports, .. } if reports.any(Code::FailedAllocation)),
            "{full}"
        );
        assert!(!full.loses_device());
        // A context keeps its engine.
        let context = first.context().unwrap();
        drop((first, second));
        assert_eq!(device.lent.load(Ordering::SeqCst), 1000);
        drop(context);
        assert_eq!(device.lent.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn out_of_memory_is_told_from_other_failures_at_every_stage() {
    let library = standin::library();
    let stream = Stream::of(&library);
    let error = load(&library, b"standin fault=context").context();
    assert!(matches!(error, Err(Error::OutOfMemory { .. })));
    let (mut context, _) = ready(&load(&library, b"standin most=4 fault=enqueue"));
    let error = context.start(&stream).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }));
    assert_eq!(
        error.to_string(),
        "out of device memory while starting a step: CUDA error 2 allocating temporary memory"
    );
    context.finish().unwrap();
}

#[test]
fn an_error_after_the_call_had_returned_is_seen_at_the_end_of_the_step() {
    let library = standin::library();
    let stream = Stream::of(&library);
    let (mut context, y) = ready(&load(&library, b"standin most=4 fault=async"));
    context.start(&stream).unwrap();
    let error = context.finish().unwrap_err();
    assert!(error.loses_device());
    assert_eq!(
        error.to_string(),
        "the device failed after the step was started: CUDA error 700: an illegal memory access"
    );
    assert_eq!(y.read(), [-1.0; 8]);
    // Told once; nothing is in flight any more.
    context.finish().unwrap();
}

#[test]
fn an_error_that_only_the_driver_knows_is_seen_too() {
    let library = standin::library();
    let broken: Arc<dyn DeviceStream> = Stream::made(&library, true);
    let (mut context, _) = ready(&load(&library, PLAIN));
    context.start(&broken).unwrap();
    let error = context.finish().unwrap_err();
    assert!(error.loses_device());
    assert!(error.to_string().contains("CUDA error 719"), "{error}");
}

#[test]
fn log_lines_go_where_they_are_wanted_and_a_sink_that_panics_does_no_harm() {
    let library = standin::library();
    let lines: Arc<Mutex<Vec<(Severity, String)>>> = Arc::default();
    let to = Arc::clone(&lines);
    let sink: sluice_tensorrt::LogSink = Arc::new(move |severity, line: &str| {
        to.lock().push((severity, line.to_owned()));
        assert!(severity != Severity::Warning, "a fault in the sink");
    });
    let options = RuntimeOptions {
        callbacks: Callbacks {
            log: Some(sink),
            ..Callbacks::default()
        },
        ..RuntimeOptions::default()
    };
    Runtime::new(&library, &options)
        .unwrap()
        .load(PLAIN)
        .unwrap();
    let lines = lines.lock();
    assert_eq!(lines[0].0, Severity::Note);
    assert!(lines[0].1.starts_with("Loaded engine size"));
    assert_eq!(lines[1].0, Severity::Warning);
}

#[test]
fn a_runtime_that_does_not_start_says_why() {
    for gives in ["0", "0x228"] {
        let define = format!("STANDIN_WITHOUT_DEVICE={gives}");
        let path = standin::build("libnvinfer.so", &[&define]);
        let library = Arc::new(Library::open(Some(&path)).unwrap());
        let error = Runtime::new(&library, &RuntimeOptions::default())
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "TensorRT did not start: CUDA initialization failure with error: 35"
        );
    }
}

#[test]
fn plugins_are_loaded_and_asked_for() {
    let runtime = runtime(&standin::library());
    assert_eq!(runtime.plugins(), 0);
    assert!(!runtime.has_plugin("Scale", "1", "").unwrap());
    let error = runtime
        .load_plugins("/some/library.so".as_ref())
        .unwrap_err();
    assert!(
        error.to_string().contains("no plugins in /some/library.so"),
        "{error}"
    );
    runtime.load_plugins("/some/plugins.so".as_ref()).unwrap();
    assert_eq!(runtime.plugins(), 1);
    assert!(runtime.has_plugin("Scale", "1", "").unwrap());
    assert!(!runtime.has_plugin("Scale", "2", "").unwrap());
    assert!(matches!(
        runtime.has_plugin("a\0b", "1", ""),
        Err(Error::Name(_))
    ));
}

#[test]
fn engines_are_loaded_from_several_threads_with_their_own_errors() {
    let runtime = runtime(&standin::library());
    std::thread::scope(|scope| {
        for place in 0..4 {
            let runtime = runtime.clone();
            scope.spawn(move || {
                for _ in 0..50 {
                    if place % 2 == 0 {
                        assert!(runtime.load(PLAIN).unwrap().context().is_ok());
                    } else {
                        let error = runtime.load(b"x").unwrap_err();
                        assert!(
                            matches!(&error, Error::Refused(r) if r.0.len() == 1),
                            "{error}"
                        );
                    }
                }
            });
        }
    });
}
