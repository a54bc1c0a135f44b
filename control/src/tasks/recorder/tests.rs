#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn texts(report: &Report) -> String {
    let logs = report
        .events
        .iter()
        .filter(|(_, kind, _)| *kind == EventKind::Log);
    logs.map(|(_, _, body)| body["text"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_flood_of_lines_is_cut_to_its_end_and_the_file_to_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.txt");
    let recorder = Recorder::new(&path, 1000).unwrap();
    for n in 0..100_000 {
        recorder.log(&format!("line ü {n}"));
    }
    let report = recorder.take();
    let text = texts(&report);
    assert!(text.len() < LOG + 100, "{}", text.len());
    assert!(
        text.starts_with('[') && text.ends_with("line ü 99999\n"),
        "{text:.100}"
    );
    assert!(text.lines().skip(1).all(|line| line.starts_with("line ü ")));
    let file = std::fs::read_to_string(&path).unwrap();
    assert!(
        file.len() < 1100 && file.starts_with("line ü 0\n"),
        "{file}"
    );
    assert!(file.ends_with("left out]\n"));
    assert!(recorder.take().is_empty());
}

#[test]
fn of_progress_the_last_is_kept_and_of_metrics_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(&folder.path().join("log.txt"), 1000).unwrap();
    for n in 0..3000 {
        recorder.progress(f64::from(n) / 1000.0, None);
        recorder.event(EventKind::Metric, json!({"name": "loss", "value": n}));
    }
    let report = recorder.take();
    assert_eq!(report.progress, Some((1.0, None)));
    assert!(report.events.len() <= EVENTS);
    let count = |kind| report.events.iter().filter(|event| event.1 == kind).count();
    assert_eq!(count(EventKind::Progress), 1);
    assert_eq!(count(EventKind::Warning), 1);
    let last = report
        .events
        .iter()
        .rfind(|event| event.1 == EventKind::Metric)
        .unwrap();
    assert_eq!(last.2["value"], 2999);
}

#[test]
fn what_could_not_be_written_comes_before_what_came_since() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(&folder.path().join("log.txt"), 1000).unwrap();
    let metric = |n: usize| recorder.event(EventKind::Metric, json!(n));
    let numbers = |report: &Report| -> Vec<_> {
        let metrics = report.events.iter();
        let metrics = metrics.filter(|event| event.1 == EventKind::Metric);
        metrics.map(|event| event.2.as_u64().unwrap()).collect()
    };
    metric(0);
    recorder.progress(0.5, None);
    let first = recorder.take();
    metric(1);
    recorder.put_back(first);
    let report = recorder.take();
    assert_eq!(numbers(&report), [0, 1]);
    assert_eq!(report.progress, Some((0.5, None)));

    (0..10).for_each(metric);
    let early = recorder.take();
    (10..EVENTS + 5).for_each(metric);
    recorder.put_back(early);
    let report = recorder.take();
    // The oldest make room, and are counted.
    assert_eq!(report.events.len(), EVENTS);
    assert!(numbers(&report).ends_with(&[1003, 1004]));
    let counted = report
        .events
        .iter()
        .filter(|event| event.1 == EventKind::Warning);
    assert_eq!(counted.count(), 1);
}

#[test]
fn a_fraction_that_is_none_is_made_one() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(&folder.path().join("log.txt"), 1000).unwrap();
    for (given, kept) in [
        (f64::NAN, 0.0),
        (f64::INFINITY, 0.0),
        (-1.0, 0.0),
        (7.0, 1.0),
    ] {
        recorder.progress(given, None);
        assert_eq!(recorder.take().progress, Some((kept, None)));
    }
}
