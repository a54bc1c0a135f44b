//! Imports over HTTP and WebHDFS, from small servers of our own that speak real HTTP. The one for WebHDFS
//! is a stub: it knows the three calls that reading takes, and redirects as a name node does.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn ok(body: impl Into<Vec<u8>>) -> Answer {
    Answer {
        status: 200,
        headers: Vec::new(),
        body: body.into(),
    }
}

fn redirect(to: String) -> Answer {
    Answer {
        status: 307,
        headers: vec![("location", to)],
        body: Vec::new(),
    }
}

/// Answers every request by its method and target, one a connection.
async fn serve(answer: impl Fn(&str, SocketAddr) -> Answer + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut lines = BufReader::new(&mut stream).lines();
            // A client that was refused something may leave in the middle.
            let Ok(Some(request)) = lines.next_line().await else {
                continue;
            };
            while matches!(lines.next_line().await, Ok(Some(line)) if !line.is_empty()) {}
            let target = request.split(' ').nth(1).unwrap_or_default();
            let answer = answer(target, address);
            let mut head = format!(
                "HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n",
                answer.status,
                answer.body.len()
            );
            for (name, value) in answer.headers {
                head += &format!("{name}: {value}\r\n");
            }
            head += "\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&answer.body).await;
        }
    });
    address
}

async fn bench(fresh: &Fresh, edit: impl FnOnce(&mut ArtifactSettings)) -> Bench {
    Bench::new(&fresh.store, |settings| {
        settings.import.trusted_hosts = vec!["127.0.0.1".into()];
        edit(settings);
    })
    .await
}

#[tokio::test]
async fn a_url_is_imported_through_redirects_and_says_why_not() {
    let fresh = Fresh::sqlite().await;
    let bench = bench(&fresh, |settings| settings.import.max_bytes = 2_000_000).await;
    let address = serve(
        |target, at| match target.split('?').next().unwrap_or_default() {
            "/model.onnx" | "/mo%64el%20b.onnx" => ok(noise(1, 1_000_000)),
            "/moved" => redirect(format!("http://{at}/model.onnx")),
            "/loop" => redirect(format!("http://{at}/loop")),
            "/metadata" => redirect("http://169.254.169.254/latest/meta-data".into()),
            "/inside" => redirect(format!("http://localhost:{}/model.onnx", at.port())),
            "/file" => redirect("file:///etc/passwd".into()),
            "/ftp" => redirect("ftp://127.0.0.1/model.onnx".into()),
            "/big" => ok(noise(1, 2_000_001)),
            _ => Answer {
                status: 404,
                headers: Vec::new(),
                body: Vec::new(),
            },
        },
    )
    .await;
    let url = |path: &str| format!("http://{address}{path}");
    let one = import(&bench, &url("/model.onnx?sig=secret"), false)
        .await
        .unwrap();
    assert_eq!(one.source.as_deref(), Some(url("/model.onnx").as_str()));
    assert_eq!(
        contents(&bench, &one).await,
        [("model.onnx".to_owned(), noise(1, 1_000_000))]
    );
    let two = import(&bench, &url("/mo%64el%20b.onnx"), false)
        .await
        .unwrap();
    assert_eq!(contents(&bench, &two).await[0].0, "model b.onnx");
    let moved = import(&bench, &url("/moved"), false).await.unwrap();
    assert_eq!(contents(&bench, &moved).await[0].0, "moved");
    for (path, expected) in [
        ("/none", "answers 404"),
        ("/loop", "more than 5 redirects (import.max_redirects)"),
        ("/metadata", "169.254.169.254 is a private address"),
        ("/inside", "localhost is a private address"),
        ("/file", "answers 307"),
        ("/ftp", "a redirect leads away from http and https"),
        ("/big", "over the limit of 2000000 (import.max_bytes)"),
        ("/", "the URL ends in no name"),
        ("/..%2fx", "has . or .. in it"),
        ("/a%2fx", "escaped slash"),
        ("/nul", "device"),
    ] {
        let error = import(&bench, &url(path), false)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{path}: {error}");
        assert!(bench.lying("spool").is_empty());
    }
    let strict = Bench::new(&fresh.store, |_| ()).await;
    for url in [
        url("/model.onnx"),
        format!("http://localhost:{}/model.onnx", address.port()),
    ] {
        let error = import(&strict, &url, false).await.unwrap_err();
        assert!(
            matches!(error, ArtifactError::Forbidden(_)),
            "{url}: {error}"
        );
    }
}

#[tokio::test]
async fn a_source_that_stops_in_the_middle_or_says_nothing_is_given_up() {
    let fresh = Fresh::sqlite().await;
    let bench = bench(&fresh, |settings| settings.import.idle_s = 1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            stream
                .write_all(b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\nsome")
                .await
                .unwrap();
            // The first ends there, the second says no more.
            if silent.is_empty() {
                silent.push(None);
            } else {
                silent.push(Some(stream));
            }
        }
    });
    for _ in 0..2 {
        let error = import(&bench, &format!("http://{address}/x"), false)
            .await
            .unwrap_err();
        assert!(matches!(error, ArtifactError::Source { .. }), "{error:?}");
        assert!(bench.lying("spool").is_empty() && bench.lying("blobs").is_empty());
    }
}

#[tokio::test]
async fn a_folder_of_webhdfs_is_imported() {
    let fresh = Fresh::sqlite().await;
    let files = BTreeMap::from([
        ("/models/m/config.json", b"{}".to_vec()),
        ("/models/m/onnx/model.onnx", noise(5, 3_000_000)),
    ]);
    let of_tree = files.clone();
    let address = serve(move |target, at| {
        let (path, query) = target.split_once('?').unwrap();
        let data_node = path.starts_with("/data-node");
        let path = path.trim_start_matches("/data-node").trim_start_matches("/webhdfs/v1").trim_end_matches('/');
        let status = |path: &str, name: &str| match of_tree.get(path) {
            Some(bytes) => format!(r#"{{"length":{},"modificationTime":1,"pathSuffix":"{name}","type":"FILE"}}"#, bytes.len()),
            None => format!(r#"{{"length":0,"modificationTime":1,"pathSuffix":"{name}","type":"DIRECTORY"}}"#),
        };
        let known = of_tree.keys().any(|file| *file == path || file.starts_with(&format!("{path}/")));
        let not_found = r#"{"RemoteException":{"exception":"FileNotFoundException","javaClassName":"java.io.FileNotFoundException","message":"no"}}"#;
        match query {
            _ if !known => Answer { status: 404, headers: Vec::new(), body: not_found.into() },
            query if query.contains("op=GETFILESTATUS") => ok(format!(r#"{{"FileStatus":{}}}"#, status(path, ""))),
            query if query.contains("op=LISTSTATUS") => {
                let below = of_tree.keys().filter_map(|file| file.strip_prefix(&format!("{path}/")));
                let mut names: Vec<&str> = below.filter_map(|rest| rest.split('/').next()).collect();
                names.dedup();
                let list: Vec<String> = names.iter().map(|name| status(&format!("{path}/{name}"), name)).collect();
                ok(format!(r#"{{"FileStatuses":{{"FileStatus":[{}]}}}}"#, list.join(",")))
            }
            query if query.contains("op=OPEN") && !data_node => redirect(format!("http://{at}/data-node{target}")),
            query if query.contains("op=OPEN") => {
                let number = |name: &str| {
                    let found = query.split('&').find_map(|pair| pair.strip_prefix(name));
                    found.and_then(|text| text.parse::<usize>().ok())
                };
                let all = &of_tree[path];
                let start = number("offset=").unwrap_or(0);
                let end = number("length=").map_or(all.len(), |length| all.len().min(start + length));
                ok(&all[start..end])
            }
            other => panic!("the stub does not know {other}"),
        }
    })
    .await;
    let bench = bench(&fresh, |_| ()).await;
    let artifact = import(&bench, &format!("webhdfs://{address}/models/m"), false)
        .await
        .unwrap();
    let expected: Vec<_> = files
        .iter()
        .map(|(path, bytes)| {
            (
                path.trim_start_matches("/models/m/").to_owned(),
                bytes.clone(),
            )
        })
        .collect();
    assert_eq!(contents(&bench, &artifact).await, expected);
    let single = import(
        &bench,
        &format!("webhdfs://{address}/models/m/config.json"),
        false,
    )
    .await
    .unwrap();
    assert_eq!(
        contents(&bench, &single).await,
        [("config.json".to_owned(), b"{}".to_vec())]
    );
    let error = import(&bench, &format!("webhdfs://{address}/models/none"), false)
        .await
        .unwrap_err();
    assert!(matches!(error, ArtifactError::Source { .. }), "{error}");
    let strict = Bench::new(&fresh.store, |_| ()).await;
    let error = import(&strict, &format!("webhdfs://{address}/models/m"), false)
        .await
        .unwrap_err();
    assert!(matches!(error, ArtifactError::Forbidden(_)), "{error}");
}
