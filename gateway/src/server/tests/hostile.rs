//! Clients that are not nice: broken heads, bodies that do not come, many connections, and web
//! pages of strangers.

use super::*;

/// The same server before the real endpoints.
async fn start_real(config: Config) -> (Arc<Gateway>, SocketAddr, StopHandle) {
    let keys = keys::from_environment("ada:sk-ada,bob:sk-bob").unwrap();
    let gateway = Gateway::with(config, keys, None).unwrap();
    gateway.set_ready(true);
    let server = Server::bind(Arc::clone(&gateway)).await.unwrap();
    let (stop, stopped) = StopHandle::new();
    let address = server.address();
    tokio::spawn(server.run(stopped));
    (gateway, address, stop)
}

fn with_keys() -> Config {
    let mut config = config();
    config.auth.required = true;
    config
}

/// What comes back until the server closes; a reset is a failure.
async fn to_the_end(mut socket: TcpStream) -> String {
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// A request that announces a body and sends one byte of it.
async fn one_byte(address: SocketAddr, path: &str, key: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

async fn begins_with(socket: &mut TcpStream, status: &str) {
    let mut answer = Vec::new();
    while !answer.windows(4).any(|it| it == b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut answer).await.unwrap(), 0);
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status}")),
        "{answer}"
    );
}

#[tokio::test]
async fn a_broken_head_is_answered_before_the_connection_is_closed() {
    let running = start(config()).await;
    let many_headers: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = "a".repeat(1 << 20);
    let rest = "\r\n\r\n".to_owned() + &"junk".repeat(50_000);
    for (head, status) in [
        (
            format!("GET /v1/x HTTP/1.1\r\nhost: localhost\r\na: {long}"),
            "431",
        ),
        (
            format!("GET /v1/x HTTP/1.1\r\nhost: localhost\r\n{many_headers}"),
            "431",
        ),
        (format!("GET /{long} HTTP/1.1\r\nhost: localhost"), "4"),
        (
            "GET /v1/x HTTP/1.1\r\nhost: localhost\r\nno colon".into(),
            "400",
        ),
        (
            "GET /v1/x HTTP/1.1\r\nhost: localhost\r\na\u{0}b: c".into(),
            "400",
        ),
        (
            "POST /v1/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: ten".into(),
            "400",
        ),
        (
            "POST /v1/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1".into(),
            "400",
        ),
        (
            "POST /v1/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2"
                .into(),
            "400",
        ),
        ("GET /v1/x HTTP/9.9\r\nhost: localhost".into(), "4"),
        ("G\u{1}T /v1/x HTTP/1.1\r\nhost: localhost".into(), "400"),
    ] {
        let mut socket = TcpStream::connect(running.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(rest.as_bytes()).await.unwrap();
        let answer = to_the_end(socket).await;
        let expected = format!("HTTP/1.1 {status}");
        let start: String = head.chars().take(60).collect();
        assert!(answer.starts_with(&expected), "{start:?}: {answer:.80}");
    }
    assert!(get(running.address, "/v1/x", "").await.ends_with("quick"));
}

#[tokio::test]
async fn a_request_names_its_host_once() {
    let running = start(config()).await;
    for (hosts, status) in [
        ("", "400"),
        ("host: localhost\r\nhost: localhost\r\n", "400"),
        ("host: a b\r\n", "400"),
        ("host: user@localhost\r\n", "400"),
        ("host: localhost\r\n", "200"),
    ] {
        let request = format!("GET /v1/x HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        let answer = exchange(running.address, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{hosts:?}: {answer}"
        );
    }
    // HTTP/1.0 knows none.
    let old = exchange(running.address, "GET /v1/x HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200"), "{old}");
}

#[tokio::test]
async fn pages_of_strangers_are_kept_out_where_no_key_is_asked_for() {
    let mut open = config();
    open.server.allowed_hosts = vec!["sluice.lan".into()];
    let running = start(open).await;
    let port = running.address.port();
    let json = "content-type: application/json\r\n";
    let status = async |method: &str, headers: String| {
        let request = format!(
            "{method} /v1/x HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        let answer = exchange(running.address, &request).await;
        answer[9..12].to_owned()
    };
    for (method, headers, expected) in [
        ("POST", format!("host: localhost:{port}\r\n{json}"), "200"),
        ("POST", format!("host: [::1]:{port}\r\n{json}"), "200"),
        ("POST", format!("host: sluice.lan\r\n{json}"), "200"),
        ("GET", "host: evil.example\r\n".into(), "403"),
        (
            "POST",
            format!(
                "host: evil.example\r\norigin: http://evil.example\r\nsec-fetch-site: same-origin\r\n{json}"
            ),
            "403",
        ),
        (
            "POST",
            format!(
                "host: localhost:{port}\r\norigin: http://localhost:{port}\r\nsec-fetch-site: same-origin\r\n{json}"
            ),
            "200",
        ),
        (
            "POST",
            format!(
                "host: localhost:{port}\r\norigin: http://localhost:9\r\nsec-fetch-site: same-site\r\n{json}"
            ),
            "403",
        ),
        (
            "GET",
            "host: localhost\r\nsec-fetch-site: cross-site\r\n".into(),
            "403",
        ),
        ("POST", "host: localhost\r\n".into(), "403"),
        (
            "DELETE",
            "host: localhost\r\ncontent-type: text/plain\r\n".into(),
            "403",
        ),
        (
            "POST",
            "host: localhost\r\nx-sluice-console: 1\r\n".into(),
            "200",
        ),
        (
            "PUT",
            "host: localhost\r\ncontent-type: application/octet-stream\r\n".into(),
            "200",
        ),
    ] {
        assert_eq!(
            status(method, headers.clone()).await,
            expected,
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn what_names_no_type_is_taken_where_stock_clients_send_it_and_no_page_can() {
    let running = start(config()).await;
    for (method, path, more, expected) in [
        ("POST", "/v2/models/m/infer", "", "200"),
        (
            "POST",
            "/v2/models/m/infer",
            "origin: http://evil.example\r\n",
            "403",
        ),
        (
            "POST",
            "/v2/models/m/infer",
            "sec-fetch-site: cross-site\r\n",
            "403",
        ),
        (
            "POST",
            "/v2/models/m/infer",
            "content-type: text/plain\r\n",
            "403",
        ),
        ("POST", "/v1/chat/completions", "", "403"),
        ("POST", "/api/v1/models", "", "403"),
        ("DELETE", "/api/v1/models/m", "", "200"),
        (
            "DELETE",
            "/api/v1/models/m",
            "origin: http://evil.example\r\n",
            "403",
        ),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{more}connection: close\r\ncontent-length: 0\r\n\r\n"
        );
        let answer = exchange(running.address, &request).await;
        assert_eq!(&answer[9..12], expected, "{method} {path} {more}");
        // Each refuses in the form that its clients read.
        if expected == "403" {
            let is_problem = answer.contains("content-type: application/problem+json");
            assert_eq!(is_problem, path.starts_with("/api/"), "{answer}");
            assert_eq!(is_problem, answer.contains("urn:sluice:problem:"));
        }
    }
}

#[tokio::test]
async fn with_a_key_in_a_header_names_and_pages_are_of_no_concern() {
    let running = start(with_keys()).await;
    let answer = get(
        running.address,
        "/v1/x",
        "authorization: Bearer sk-ada\r\nsec-fetch-site: cross-site\r\norigin: http://a\r\n",
    );
    assert!(answer.await.starts_with("HTTP/1.1 200"));
    let foreign = "POST /v1/x HTTP/1.1\r\nhost: any.example\r\nconnection: close\r\n\
                   authorization: Bearer sk-ada\r\ncontent-length: 2\r\n\r\n{}";
    assert!(
        exchange(running.address, foreign)
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn three_hundred_who_send_one_byte_without_a_key_are_refused_and_hold_nobody_up() {
    let mut config = with_keys();
    // As many as there are places: everybody else has to wait for one of theirs.
    config.server.max_connections = 300;
    config.server.linger_timeout = Duration::from_millis(200);
    let running = start(config).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(one_byte(running.address, "/v1/x", "sk-wrong").await);
    }
    let other = get(running.address, "/v1/x", "authorization: Bearer sk-ada\r\n");
    let other = tokio::time::timeout(Duration::from_secs(5), other)
        .await
        .unwrap();
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    for socket in &mut silent {
        begins_with(socket, "401").await;
    }
}

#[tokio::test]
async fn an_answer_arrives_also_at_a_client_that_sends_megabytes_first() {
    let mut config = with_keys();
    config.server.linger_timeout = Duration::from_millis(50);
    let running = start(config).await;
    let mut socket = TcpStream::connect(running.address).await.unwrap();
    let head = "POST /v1/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8000000\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    // Slower than the server reads on behind its answer, so that it has closed in between.
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(15)).await;
        socket.write_all(&vec![b' '; 500_000]).await.unwrap();
    }
    let answer = to_the_end(socket).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn a_body_that_drips_is_given_up_by_its_rate() {
    let mut config = with_keys();
    config.server.head_timeout = Duration::from_millis(50);
    config.server.min_body_rate = 1 << 20;
    let (gateway, address, _stop) = start_real(config).await;
    let mut socket = one_byte(address, "/v1/chat/completions", "sk-ada").await;
    begins_with(&mut socket, "408").await;
    while gateway.admission().in_flight() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_key_has_so_many_bodies_under_way_and_another_has_its_own() {
    let mut config = with_keys();
    config.limits.max_bodies_per_key = 3;
    let (gateway, address, _stop) = start_real(config).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(one_byte(address, "/v1/completions", "sk-ada").await);
    }
    while gateway.admission().in_flight() < 3 {
        tokio::task::yield_now().await;
    }
    let mut fourth = one_byte(address, "/v1/completions", "sk-ada").await;
    begins_with(&mut fourth, "429").await;
    let body = r#"{"model": "none"}"#;
    for key in ["sk-ada", "sk-bob"] {
        let whole = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             authorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        // A body that comes with its head is never under way.
        let answer = exchange(address, &whole).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    let mut other = one_byte(address, "/v1/completions", "sk-bob").await;
    other.write_all(&[b' '; 998]).await.unwrap();
    other.write_all(b"}").await.unwrap();
    begins_with(&mut other, "400").await;
}

#[tokio::test]
async fn one_address_has_so_many_connections_where_that_is_limited() {
    let mut config = config();
    config.server.max_connections_per_peer = 2;
    let running = start(config).await;
    let requests = running.slow(2).await;
    let third = TcpStream::connect(running.address).await.unwrap();
    let mut answer = Vec::new();
    let mut third = third;
    _ = third.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    running.gate.add_permits(2);
    for request in requests {
        assert!(request.await.unwrap().ends_with("slow"));
    }
    assert!(get(running.address, "/v1/x", "").await.ends_with("quick"));
}
