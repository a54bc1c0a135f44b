use proptest::prelude::*;

use super::*;
use crate::domain::upload::UploadState;
use crate::id::UploadId;

fn new_upload(
    bench: &Bench,
    bytes: Option<u64>,
    digest: Option<Digest>,
    part_bytes: u64,
) -> NewUpload {
    NewUpload {
        department: bench.who.department,
        principal: Some(bench.who.principal),
        path: "weights.bin".into(),
        bytes,
        digest,
        part_bytes: Some(part_bytes),
    }
}

async fn begin(
    bench: &Bench,
    bytes: Option<u64>,
    digest: Option<Digest>,
    part_bytes: u64,
) -> UploadId {
    let new = new_upload(bench, bytes, digest, part_bytes);
    bench
        .artifacts
        .create_upload(&bench.who.actor, new)
        .await
        .unwrap()
        .id
}

async fn send(
    bench: &Bench,
    upload: UploadId,
    at: PartAt,
    bytes: &[u8],
) -> Result<(), ArtifactError> {
    let digest = Some(Digest::of(bytes));
    bench
        .artifacts
        .put_part(upload, at, digest, pieces(bytes, 7000))
        .await
        .map(drop)
}

#[tokio::test]
async fn parts_come_in_any_order_and_more_than_once() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store, |_| ()).await;
        let actor = &bench.who.actor;
        let content = noise(4, 250_000);
        let upload = begin(&bench, Some(250_000), Some(Digest::of(&content)), 100_000).await;
        send(&bench, upload, PartAt::Number(2), &content[200_000..])
            .await
            .unwrap();
        let error = bench
            .artifacts
            .complete_upload(actor, upload)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "parts are missing or too short: 0, 1");
        // A part that is short, then the whole of it; a wrong one, then the right one.
        send(&bench, upload, PartAt::Offset(0), &content[..99_999])
            .await
            .unwrap();
        let error = bench
            .artifacts
            .complete_upload(actor, upload)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "parts are missing or too short: 0, 1");
        send(&bench, upload, PartAt::Offset(0), &noise(5, 100_000))
            .await
            .unwrap();
        send(&bench, upload, PartAt::Number(0), &content[..100_000])
            .await
            .unwrap();

        // A process that knows nothing but the database and the folder goes on.
        let settings = bench.artifacts.settings().clone();
        let other = Artifacts::open(fresh.again().await, settings, bench.folder.path()).unwrap();
        assert_eq!(other.0.store.upload_parts(upload).await.unwrap().len(), 2);
        let middle = pieces(&content[100_000..200_000], 1);
        other
            .put_part(upload, PartAt::Number(1), None, middle)
            .await
            .unwrap();
        assert_eq!(
            other
                .0
                .store
                .get::<crate::domain::record::Upload>(upload)
                .await
                .unwrap()
                .received_bytes,
            250_000
        );
        let done = other.complete_upload(actor, upload).await.unwrap();
        assert_eq!(done.state, UploadState::Completed);
        assert_eq!(
            bench
                .artifacts
                .complete_upload(actor, upload)
                .await
                .unwrap(),
            done,
            "twice is no error"
        );
        assert!(bench.lying("uploads").is_empty());
        let error = send(&bench, upload, PartAt::Number(0), &content[..100_000])
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the upload is completed; parts are taken only by one that is open"
        );

        let artifact = bench
            .artifacts
            .artifact_of_uploads(actor, bench.named("model"), bench.uploaded(&[upload]).await)
            .await
            .unwrap();
        let files = bench.artifacts.files(artifact.id).await.unwrap();
        assert_eq!(files[0].path, "weights.bin");
        assert_eq!(
            all(&bench.artifacts, files[0].digest).await.unwrap(),
            content
        );
        let error = bench
            .artifacts
            .artifact_of_uploads(
                actor,
                bench.named("model"),
                bench.uploaded(&[upload, upload]).await,
            )
            .await
            .unwrap_err();
        assert!(error.to_string().contains("comes twice"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn what_was_not_announced_is_refused() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store, |_| ()).await;
        let actor = &bench.who.actor;
        let upload = begin(&bench, Some(1500), Some(Digest::of(b"other")), 1000).await;
        let places = [
            (PartAt::Number(2), "part: 2 should be below 2"),
            (
                PartAt::Offset(500),
                "offset: 500 should be a multiple of the part size, 1000",
            ),
            (
                PartAt::Number(u64::MAX),
                "part: 18446744073709551615 should be below 2",
            ),
        ];
        for (at, expected) in places {
            assert_eq!(
                send(&bench, upload, at, b"x")
                    .await
                    .unwrap_err()
                    .to_string(),
                expected
            );
        }
        let error = send(&bench, upload, PartAt::Number(1), &[1; 501])
            .await
            .unwrap_err();
        assert!(
            matches!(error, ArtifactError::TooLarge { limit: 500, .. }),
            "{error}"
        );
        let error = send(&bench, upload, PartAt::Number(0), b"")
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "part: is empty");
        let other = Some(Digest::of(b"y"));
        let error = bench
            .artifacts
            .put_part(upload, PartAt::Number(0), other, pieces(b"x", 1))
            .await
            .unwrap_err();
        assert!(
            matches!(error, ArtifactError::OtherDigest { .. }),
            "{error}"
        );
        assert!(bench.lying("uploads").is_empty() && bench.lying("spool").is_empty());

        for (number, bytes) in [(0, 1000), (1, 500)] {
            send(
                &bench,
                upload,
                PartAt::Number(number),
                &noise(number, bytes),
            )
            .await
            .unwrap();
        }
        let error = bench
            .artifacts
            .complete_upload(actor, upload)
            .await
            .unwrap_err();
        assert!(
            error.to_string().starts_with("weights.bin has the digest"),
            "{error}"
        );
        let error = bench
            .artifacts
            .complete_upload(actor, upload)
            .await
            .unwrap_err();
        assert!(matches!(error, ArtifactError::NotOpen { state } if state == "refused"));
        assert!(bench.lying("uploads").is_empty() && bench.lying("blobs").is_empty());
    })
    .await;
}

#[tokio::test]
async fn uploads_over_a_limit_are_refused_before_they_begin() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store, |settings| {
            settings.upload.max_bytes = 1_000_000;
            settings.upload.max_part_bytes = 100_000;
            settings.upload.max_parts = 20;
            settings.upload.max_open = 4;
        })
        .await;
        let actor = &bench.who.actor;
        for (bytes, part_bytes, expected) in [
            (Some(1_000_001), 100_000, "over the limit of 1000000"),
            (Some(21), 1, "over the limit of 20"),
            (
                None,
                100_001,
                "part_bytes: 100001 should be 1 to 100000 (upload.max_part_bytes)",
            ),
            (None, 0, "part_bytes: 0 should be"),
        ] {
            let new = new_upload(&bench, bytes, None, part_bytes);
            let error = bench
                .artifacts
                .create_upload(actor, new)
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
        let mut unsafe_path = new_upload(&bench, None, None, 1);
        unsafe_path.path = "../x".into();
        let error = bench
            .artifacts
            .create_upload(actor, unsafe_path)
            .await
            .unwrap_err();
        assert!(matches!(error, ArtifactError::Path(_)));
        for _ in 0..4 {
            begin(&bench, None, None, 10).await;
        }
        let error = bench
            .artifacts
            .create_upload(actor, new_upload(&bench, None, None, 1))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("upload.max_open"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_sender_that_stops_leaves_nothing_of_the_part() {
    let fresh = Fresh::sqlite().await;
    let bench = Bench::new(&fresh.store, |_| ()).await;
    let upload = begin(&bench, None, None, 3_000_000).await;
    let cut = iter([
        Ok(Bytes::from(noise(6, 2_500_000))),
        Err(ArtifactError::Interrupted("reset".into())),
    ]);
    let error = bench
        .artifacts
        .put_part(upload, PartAt::Number(0), None, cut)
        .await
        .unwrap_err();
    assert!(error.is_retryable(), "{error}");
    // One that stalls and is given up by whoever called.
    let stalled = futures_util::StreamExt::chain(
        iter([Ok(Bytes::from(noise(6, 2_500_000)))]),
        futures_util::stream::pending(),
    );
    let given_up = bench
        .artifacts
        .put_part(upload, PartAt::Number(0), None, stalled);
    let waited = tokio::time::timeout(std::time::Duration::from_millis(300), given_up).await;
    assert!(waited.is_err());
    // Whatever a thread was still writing is gone with it.
    while !bench.lying("spool").is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(fresh.store.upload_parts(upload).await.unwrap().is_empty());
    assert!(bench.lying("uploads").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_who_complete_at_once_make_one_blob() {
    on_both(async |fresh: Arc<Fresh>| {
        let bench = Bench::new(&fresh.store, |_| ()).await;
        let content = noise(7, 1_000_000);
        let upload = begin(&bench, Some(1_000_000), None, 300_000).await;
        for (number, part) in content.chunks(300_000).enumerate() {
            send(&bench, upload, PartAt::Number(number as u64), part)
                .await
                .unwrap();
        }
        let all_at_once = (0..6).map(|_| bench.artifacts.complete_upload(&bench.who.actor, upload));
        for done in futures_util::future::join_all(all_at_once).await {
            assert_eq!(done.unwrap().blob, Some(Digest::of(&content).to_string()));
        }
        assert_eq!(bench.lying("blobs").len(), 1);
    })
    .await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Any split into parts, sent in any order with repeats, gives the bytes back.
    #[test]
    fn any_split_in_any_order_is_the_same_file(
        length in 0usize..5000,
        part_bytes in 1usize..1500,
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        announced in any::<bool>(),
    ) {
        let part_bytes = part_bytes.max(length / 60 + 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fresh = Fresh::sqlite().await;
            let bench = Bench::new(&fresh.store, |_| ()).await;
            let content = noise(length as u64, length);
            let known = (announced || length == 0).then_some(length as u64);
            let upload = begin(&bench, known, None, part_bytes as u64).await;
            let parts: Vec<&[u8]> = content.chunks(part_bytes).collect();
            let mut turns: Vec<usize> = order.iter().filter(|_| !parts.is_empty()).map(|at| at.index(parts.len())).collect();
            turns.extend((0..parts.len()).rev());
            for turn in turns {
                send(&bench, upload, PartAt::Number(turn as u64), parts[turn]).await.unwrap();
            }
            let done = bench.artifacts.complete_upload(&bench.who.actor, upload).await.unwrap();
            assert_eq!(done.blob, Some(Digest::of(&content).to_string()));
            assert_eq!(done.received_bytes, length as i64);
        });
    }
}
