use std::sync::mpsc::channel;

use super::*;

fn build(model: &str, done: Done) -> Build {
    Build {
        model: model.to_owned(),
        done,
        elapsed: Duration::from_millis(75_900),
    }
}

#[test]
fn a_build_is_told_of_while_it_goes_on() {
    let mine = || {
        let all = builds().into_iter();
        all.filter(|build| build.model == "told").count()
    };
    let (tell, heard) = channel();
    let telling = Telling::begin(
        Duration::from_millis(1),
        || build("told", Done::Percent(43)),
        move |build| tell.send(build.to_string()).unwrap_or_default(),
    );
    let line = heard.recv().unwrap_or_default();
    assert_eq!(line, "TensorRT builds the engine: 43 %, 75 s so far");
    assert_eq!(mine(), 1);
    drop(telling);
    assert_eq!(mine(), 0);
    // What tells is gone: nothing follows what was said before.
    assert_eq!(heard.iter().find(|other| *other != line), None);
}

#[test]
fn what_is_done_is_said_as_far_as_it_is_known() {
    let said = |before, built| build("m", Done::Engines { before, built }).to_string();
    assert_eq!(said(0, 0), "TensorRT builds the first engine, 75 s so far");
    assert!(said(0, 2).contains("has built 2 engines, and goes on"));
    assert!(said(3, 0).contains("loads 3 engines from the cache"));
    assert!(said(3, 1).contains("has built 1 engines"));
}
