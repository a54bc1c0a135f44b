//! Uploads, artifacts and downloads over HTTP.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::rig::{Person, Rig, encoded};
use crate::artifacts::Digest;
use crate::domain::roles::Role;
use crate::domain::secrecy::Secrecy;
use crate::store::rig::{Fresh, on_both};

const PART: usize = 1 << 20;

/// Bytes that differ from part to part.
fn content() -> Vec<u8> {
    (0..2 * PART + 77)
        .map(|n| (n / 251 % 256) as u8 ^ (n % 256) as u8)
        .collect()
}

async fn begin(rig: &Rig, who: &Person, path: &str, bytes: &[u8]) -> (u16, Value) {
    let body = json!({ "path": path, "bytes": bytes.len(), "digest": Digest::of(bytes).to_string(),
        "part_bytes": PART });
    let answered = rig.post(&who.key, "/uploads", body).await;
    (answered.status.as_u16(), answered.body)
}

async fn put(
    rig: &Rig,
    who: &Person,
    upload: &str,
    number: usize,
    bytes: &[u8],
) -> (StatusCode, Value) {
    put_with(rig, who, upload, number, bytes, &[]).await
}

async fn put_with(
    rig: &Rig,
    who: &Person,
    upload: &str,
    number: usize,
    bytes: &[u8],
    headers: &[(&str, &str)],
) -> (StatusCode, Value) {
    let path = format!("/uploads/{upload}/parts/{number}");
    let bytes = Bytes::copy_from_slice(bytes);
    let (status, _, body) = rig.send_bytes(&who.key, "PUT", &path, bytes, headers).await;
    (status, serde_json::from_slice(&body).unwrap())
}

/// Sends a file whole; the upload's id.
async fn sent(rig: &Rig, who: &Person, path: &str, bytes: &[u8]) -> String {
    let (_, upload) = begin(rig, who, path, bytes).await;
    let id = upload["id"].as_str().unwrap().to_owned();
    for (number, part) in bytes.chunks(PART).enumerate() {
        assert_eq!(put(rig, who, &id, number, part).await.0, 200);
    }
    let done = rig
        .post(&who.key, &format!("/uploads/{id}/complete"), json!({}))
        .await;
    assert_eq!(done.expect(200)["state"], "completed");
    id
}

async fn artifact(rig: &Rig, who: &Person, kind: &str, files: &[(&str, &[u8])]) -> Value {
    let mut uploads = Vec::new();
    for (path, bytes) in files {
        uploads.push(json!({ "upload": sent(rig, who, path, bytes).await }));
    }
    let body = json!({ "name": "thing", "kind": kind, "files": uploads });
    rig.post(&who.key, "/artifacts", body).await.expect(201)
}

async fn developer(rig: &Rig, department: &str, name: &str) -> Person {
    let department = rig.department(department).await;
    rig.person(department, name, Role::Developer, Secrecy::Internal)
        .await
}

#[tokio::test]
async fn a_file_is_sent_in_parts_and_read_back_whole_or_in_ranges() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let dev = developer(&rig, "home", "dev").await;
        let bytes = content();
        let (status, upload) = begin(&rig, &dev, "a/weights.bin", &bytes).await;
        assert_eq!((status, &upload["part_bytes"]), (201, &json!(PART)));
        assert!(upload.get("backend_state").is_none());
        let id = upload["id"].as_str().unwrap();
        assert_eq!(put(&rig, &dev, id, 1, &bytes[PART..2 * PART]).await.0, 200);
        let early = rig
            .post(&dev.key, &format!("/uploads/{id}/complete"), json!({}))
            .await;
        assert!(
            early.expect(409)["detail"]
                .as_str()
                .unwrap()
                .contains("0, 2")
        );

        // The connection is lost; whoever sends the same file goes on with what is missing.
        let (status, resumed) = begin(&rig, &dev, "a/weights.bin", &bytes).await;
        assert_eq!((status, resumed["id"].as_str()), (200, Some(id)));
        assert_eq!(resumed["parts"][0]["part"], 1);
        let digest = Digest::of(&bytes[..PART]).structured();
        let right = [("content-digest", digest.as_str())];
        assert_eq!(
            put_with(&rig, &dev, id, 0, &bytes[..PART], &right).await.0,
            200
        );
        assert_eq!(
            put_with(&rig, &dev, id, 2, &bytes[2 * PART..], &right)
                .await
                .0,
            422
        );
        assert_eq!(put(&rig, &dev, id, 2, &bytes[2 * PART..]).await.0, 200);
        let done = rig
            .post(&dev.key, &format!("/uploads/{id}/complete"), json!({}))
            .await
            .expect(200);
        assert_eq!(done["blob"], Digest::of(&bytes).to_string());

        let body =
            json!({ "name": "m", "kind": "model", "files": [{ "upload": id, "path": "b/w.bin" }] });
        let made = rig.post(&dev.key, "/artifacts", body).await.expect(201);
        let place = format!("/artifacts/{}/files", made["id"].as_str().unwrap());
        for path in ["b/w.bin".to_owned(), encoded("b/w.bin")] {
            let (status, headers, read) = rig
                .send_bytes(
                    &dev.key,
                    "GET",
                    &format!("{place}/{path}"),
                    Bytes::new(),
                    &[],
                )
                .await;
            assert_eq!((status.as_u16(), read[..] == bytes), (200, true), "{path}");
            assert_eq!(headers["repr-digest"], Digest::of(&bytes).structured());
            assert_eq!(headers["content-length"], bytes.len().to_string());
            assert_eq!(headers["x-content-type-options"], "nosniff");
        }
        let path = format!("{place}/b/w.bin");
        let last = bytes.len() - 1;
        for (range, from, to) in [
            ("bytes=5-9", 5, 10),
            ("bytes=-3", last - 2, last + 1),
            ("bytes=1500000-", 1_500_000, last + 1),
        ] {
            let (status, headers, read) = rig
                .send_bytes(&dev.key, "GET", &path, Bytes::new(), &[("range", range)])
                .await;
            assert_eq!(
                (status.as_u16(), read[..] == bytes[from..to]),
                (206, true),
                "{range}"
            );
            assert_eq!(
                headers["content-range"],
                format!("bytes {from}-{}/{}", to - 1, bytes.len())
            );
        }
        let beyond = rig
            .send(&dev.key, "GET", &path, None, &[("range", "bytes=9999999-")])
            .await;
        assert_eq!(
            beyond.headers["content-range"],
            format!("bytes */{}", bytes.len())
        );
        beyond.expect(416);
        rig.get(&dev.key, &format!("{place}/b")).await.expect(404);
    })
    .await;
}

#[tokio::test]
async fn damaged_bytes_never_pass_for_whole() {
    let fresh = Fresh::sqlite().await;
    let rig = Rig::start(&fresh.store).await;
    let dev = developer(&rig, "home", "dev").await;
    let made = artifact(&rig, &dev, "model", &[("w", b"the right bytes")]).await;
    let hex = Digest::of(b"the right bytes").hex();
    let blob = rig
        .folder()
        .join(format!("artifacts/blobs/sha256/{}/{hex}", &hex[..2]));
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, b"the wrong bytes").unwrap();
    let url = format!("/artifacts/{}/files/w", made["id"].as_str().unwrap());
    let outcome = rig.try_get(&dev.key, &url).await;
    assert!(outcome.is_err(), "{outcome:?}");
}

#[tokio::test]
async fn what_one_may_read_need_not_be_sent_and_a_digest_opens_nothing() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let dev = developer(&rig, "home", "dev").await;
        let stranger = developer(&rig, "other", "stranger").await;
        let bytes = b"secret weights".as_slice();
        let made = artifact(&rig, &dev, "model", &[("w", bytes)]).await;
        // Its own department: at once, under another name too.
        let (status, known) = begin(&rig, &dev, "elsewhere", bytes).await;
        assert_eq!((status, &known["state"]), (201, &json!("completed")));
        let body =
            json!({ "name": "again", "kind": "model", "files": [{ "upload": known["id"] }] });
        rig.post(&dev.key, "/artifacts", body).await.expect(201);
        // With another size it is another file.
        let lie = json!({ "path": "w", "bytes": 3, "digest": Digest::of(bytes).to_string() });
        assert_eq!(
            rig.post(&dev.key, "/uploads", lie).await.expect(201)["state"],
            "open"
        );

        // To others a digest says nothing.
        let (status, unknown) = begin(&rig, &stranger, "w", bytes).await;
        assert_eq!((status, &unknown["state"]), (201, &json!("open")));
        let id = made["id"].as_str().unwrap();
        for path in [
            format!("/artifacts/{id}/files/w"),
            format!("/artifacts/{id}"),
            format!("/artifacts/{id}/files"),
        ] {
            rig.get(&stranger.key, &path).await.expect(404);
            assert_eq!(rig.get(&dev.key, &path).await.status, 200);
        }
        // Nor are uploads seen or used by others.
        let upload = known["id"].as_str().unwrap();
        rig.get(&stranger.key, &format!("/uploads/{upload}"))
            .await
            .expect(404);
        rig.post(
            &stranger.key,
            &format!("/uploads/{upload}/abort"),
            json!({}),
        )
        .await
        .expect(404);
        let steal = json!({ "name": "s", "kind": "model", "files": [{ "upload": upload }] });
        let refused = rig
            .post(&stranger.key, "/artifacts", steal)
            .await
            .expect(422);
        assert_eq!(refused["errors"][0]["field"], "files[0].upload");
        assert_eq!(
            rig.get(&stranger.key, "/uploads?state=completed")
                .await
                .expect(200)["items"],
            json!([])
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_an_upload_is_named() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let dev = developer(&rig, "home", "dev").await;
        for path in [
            "../up",
            "/etc/passwd",
            "a/../b",
            "a\\b",
            "C:/x",
            "a//b",
            "",
            "nul.txt",
            "a/",
            "x\u{202e}y",
        ] {
            let refused = rig
                .post(&dev.key, "/uploads", json!({ "path": path }))
                .await
                .expect(422);
            assert_eq!(refused["errors"][0]["field"], "path", "{path:?}");
        }
        for (field, body) in [
            ("digest", json!({ "path": "x", "digest": "sha256:0" })),
            ("part_bytes", json!({ "path": "x", "part_bytes": 0 })),
            ("part_bytes", json!({ "path": "x", "part_bytes": 5 << 20 })),
            ("bytes", json!({ "path": "x", "bytes": -1 })),
            ("paths", json!({ "paths": "x" })),
        ] {
            let refused = rig.post(&dev.key, "/uploads", body).await.expect(422);
            assert_eq!(refused["errors"][0]["field"], field);
        }
        let large = json!({ "path": "x", "bytes": 1u64 << 60 });
        rig.post(&dev.key, "/uploads", large).await.expect(413);

        let upload = json!({ "path": "x", "bytes": 10, "part_bytes": 6 });
        let upload = rig.post(&dev.key, "/uploads", upload).await.expect(201);
        let id = upload["id"].as_str().unwrap();
        // Far more than the part may have: the answer is seen although the rest is still on its way.
        assert_eq!(put(&rig, &dev, id, 0, &content()).await.0, 413);
        assert_eq!(put(&rig, &dev, id, 2, b"x").await.0, 422);
        assert_eq!(put(&rig, &dev, id, 0, b"").await.0, 422);
        let odd = [("content-digest", "sha-256=nothing")];
        assert_eq!(put_with(&rig, &dev, id, 0, b"123456", &odd).await.0, 400);
        rig.send(
            &dev.key,
            "PUT",
            &format!("/uploads/{id}/parts/one"),
            None,
            &[],
        )
        .await
        .expect(400);
        let early = json!({ "name": "m", "kind": "model", "files": [{ "upload": id }] });
        rig.post(&dev.key, "/artifacts", early).await.expect(422);
        rig.post(&dev.key, &format!("/uploads/{id}/abort"), json!({}))
            .await
            .expect(200);
        assert_eq!(put(&rig, &dev, id, 0, b"123456").await.0, 409);

        // Two files that are one on some system, and names that lead elsewhere.
        let one = sent(&rig, &dev, "readme", b"1").await;
        let two = sent(&rig, &dev, "README", b"2").await;
        for files in [
            json!([{ "upload": one }, { "upload": two }]),
            json!([{ "upload": one, "path": "../up" }]),
            json!([{ "upload": one, "path": "a" }, { "upload": two, "path": "a/b" }]),
            json!([]),
        ] {
            let body = json!({ "name": "m", "kind": "model", "files": files });
            rig.post(&dev.key, "/artifacts", body).await.expect(422);
        }
        // The whole is not what was announced.
        let other = json!({ "path": "x", "bytes": 3, "digest": Digest::of(b"abc").to_string() });
        let other = rig.post(&dev.key, "/uploads", other).await.expect(201);
        let id = other["id"].as_str().unwrap();
        assert_eq!(put(&rig, &dev, id, 0, b"abd").await.0, 200);
        let refused = rig
            .post(&dev.key, &format!("/uploads/{id}/complete"), json!({}))
            .await;
        assert_eq!(refused.expect(422)["errors"][0]["field"], "digest");
    })
    .await;
}

#[tokio::test]
async fn the_same_file_of_two_people_is_an_artifact_of_each() {
    on_both(async |fresh: Arc<Fresh>| {
        let rig = Rig::start(&fresh.store).await;
        let home = rig.department("home").await;
        let person = async |name| {
            rig.person(home, name, Role::Developer, Secrecy::Internal)
                .await
        };
        let (first, second, third) = (person("a").await, person("b").await, person("c").await);
        let file: (&str, &[u8]) = ("rows.jsonl", b"{\"text\": \"the very same\"}\n");
        let mut made = Vec::new();
        for who in [&first, &second] {
            let artifact = artifact(&rig, who, "dataset", &[file]).await;
            let again = self::again(&rig, who, &artifact).await;
            assert_eq!(again["id"], artifact["id"], "each one's own is found again");
            let name = format!("set-{}", made.len());
            rig.post(&who.key, "/datasets", json!({ "name": name }))
                .await
                .expect(201);
            let version = json!({ "artifact": artifact["id"] });
            let path = format!("/datasets/{name}/versions");
            rig.post(&who.key, &path, version).await.expect(201);
            made.push(artifact);
        }
        assert_ne!(made[0]["id"], made[1]["id"]);
        assert_eq!(made[0]["digest"], made[1]["digest"]);
        // By its digest each finds one; who was granted neither finds none, whatever kind it is called.
        let by_digest = format!("/artifacts/{}", made[0]["digest"].as_str().unwrap());
        rig.get(&first.key, &by_digest).await.expect(200);
        rig.get(&third.key, &by_digest).await.expect(404);
        let ids = made.iter().map(|it| it["id"].as_str().unwrap());
        for id in ids {
            rig.get(&third.key, &format!("/artifacts/{id}"))
                .await
                .expect(404);
        }
        let first_of_second = format!("/artifacts/{}", made[0]["id"].as_str().unwrap());
        rig.get(&second.key, &first_of_second).await.expect(200);
    })
    .await;
}

/// Registers what an artifact is made of once more.
async fn again(rig: &Rig, who: &Person, artifact: &Value) -> Value {
    let uploads = rig.get(&who.key, "/uploads?state=completed").await;
    let upload = uploads.expect(200)["items"][0]["id"].clone();
    let body = json!({ "name": artifact["name"], "kind": artifact["kind"], "files": [{ "upload": upload }] });
    rig.post(&who.key, "/artifacts", body).await.expect(201)
}
