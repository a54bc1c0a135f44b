#![expect(clippy::unwrap_used, reason = "tests")]

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use proptest::prelude::*;

use super::*;

fn asked(range: &str, if_range: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::RANGE, range.parse().unwrap());
    if let Some(tag) = if_range {
        headers.insert(header::IF_RANGE, tag.parse().unwrap());
    }
    headers
}

#[test]
fn ranges_are_read_as_rfc_9110_says() {
    let part = |start, length| Wanted::Part { start, length };
    for (range, wanted) in [
        ("bytes=0-0", part(0, 1)),
        ("bytes=3-", part(3, 7)),
        ("bytes=3-5", part(3, 3)),
        ("bytes=3-99", part(3, 7)),
        ("bytes=-4", part(6, 4)),
        ("bytes=-99", part(0, 10)),
        ("bytes=10-", Wanted::Nothing),
        ("bytes=10-12", Wanted::Nothing),
        ("bytes=-0", Wanted::Nothing),
        ("bytes=5-3", Wanted::Whole),
        ("bytes=0-1,3-4", Wanted::Whole),
        ("bytes=-", Wanted::Whole),
        ("bytes=99999999999999999999-", Wanted::Whole),
        ("lines=1-2", Wanted::Whole),
        ("nonsense", Wanted::Whole),
    ] {
        assert_eq!(
            super::wanted(&asked(range, None), "\"t\"", 10),
            wanted,
            "{range}"
        );
    }
    let known = asked("bytes=3-", Some("\"t\""));
    assert_eq!(super::wanted(&known, "\"t\"", 10), part(3, 7));
    let other = asked("bytes=3-", Some("\"u\""));
    assert_eq!(super::wanted(&other, "\"t\"", 10), Wanted::Whole);
    assert_eq!(
        super::wanted(&asked("bytes=0-", None), "\"t\"", 0),
        Wanted::Nothing
    );
}

proptest! {
    #[test]
    fn a_window_is_the_slice(
        bytes in prop::collection::vec(any::<u8>(), 1..200),
        cut in 1usize..50,
        from in 0usize..200,
        to in 0usize..200,
    ) {
        let (from, to) = (from.min(bytes.len()), to.min(bytes.len()));
        prop_assume!(from < to);
        let pieces: Vec<_> = bytes.chunks(cut).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let window = window(iter(pieces), from as u64, (to - from) as u64, bytes.len() as u64);
        let read: Vec<Bytes> = futures_util::FutureExt::now_or_never(window.try_collect::<Vec<_>>()).unwrap().unwrap();
        prop_assert_eq!(read.concat(), &bytes[from..to]);
    }
}

#[test]
fn the_end_of_damaged_bytes_is_never_given() {
    let pieces = || {
        let whole = ["ab", "cd"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
        iter(
            whole
                .into_iter()
                .chain([Err(ArtifactError::Interrupted("damaged".into()))]),
        )
    };
    let read = |start: u64, length: u64| {
        let mut given = Vec::new();
        let window = window(pieces(), start, length, 4).map(|piece| piece.map(|it| given.push(it)));
        let outcome =
            futures_util::FutureExt::now_or_never(window.try_collect::<Vec<_>>()).unwrap();
        (outcome.is_ok(), given.concat())
    };
    assert_eq!(read(0, 4), (false, b"ab".to_vec()));
    assert_eq!(read(3, 1), (false, Vec::new()));
    // A part before the end is not checked here.
    assert_eq!(read(1, 2), (true, b"bc".to_vec()));
}
