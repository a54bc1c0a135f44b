//! A receiver of webhooks: a thread that speaks HTTP over a real socket and answers as it is told.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Posts, channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What came.
#[derive(Debug, Clone)]
pub(super) struct Post {
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
    pub(super) path: String,
}

impl Post {
    pub(super) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks the signature as a receiver would, without any of our code.
    pub(super) fn is_signed_with(&self, key: &[u8]) -> bool {
        let timestamp = &self.headers["webhook-timestamp"];
        let now = jiff::Timestamp::now().as_second();
        assert!((now - timestamp.parse::<i64>().unwrap()).abs() < 300);
        let signed = [format!("{}.{timestamp}.", self.id()).as_bytes(), &self.body].concat();
        let expected = format!("v1,{}", STANDARD.encode(hmac_sha256(key, &signed)));
        self.headers["webhook-signature"]
            .split(' ')
            .any(|it| it == expected)
    }
}

/// RFC 2104.
pub(super) fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x36))
        .chain_update(message);
    let outer = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c));
    outer.chain_update(inner.finalize()).finalize().to_vec()
}

pub(super) struct Receiver {
    pub(super) url: String,
    posts: Mutex<Posts<Post>>,
    /// Statuses for the posts to come, then 204. 0 is no answer at all.
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Receiver {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "http://{}/hooks/sesame?token=sesame",
            listener.local_addr().unwrap()
        );
        let answers: Arc<Mutex<Vec<u16>>> = Arc::default();
        let (sender, posts) = channel();
        let script = Arc::clone(&answers);
        std::thread::spawn(move || {
            // Kept open, so that who gets no answer waits for one.
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(post) = read(&stream) else { continue };
                let status = {
                    let mut script = script.lock();
                    if script.is_empty() {
                        204
                    } else {
                        script.remove(0)
                    }
                };
                if sender.send(post).is_err() {
                    return;
                }
                if status == 0 {
                    held.push(stream);
                    continue;
                }
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nlocation: /other\r\nconnection: close\r\n\r\n"
                );
                _ = stream.write_all(head.as_bytes());
            }
        });
        Self {
            url,
            posts: Mutex::new(posts),
            answers,
        }
    }

    pub(super) fn answers(&self, statuses: &[u16]) {
        self.answers.lock().extend_from_slice(statuses);
    }

    /// From now on all are taken.
    pub(super) fn forget_answers(&self) {
        self.answers.lock().clear();
    }

    /// The next post. Waits for it.
    pub(super) async fn next(self: &Arc<Self>) -> Post {
        let receiver = Arc::clone(self);
        let next = move || receiver.posts_next();
        tokio::task::spawn_blocking(next)
            .await
            .unwrap()
            .expect("no post came")
    }

    fn posts_next(&self) -> Option<Post> {
        self.posts.lock().recv_timeout(Duration::from_secs(60)).ok()
    }

    /// What has come and was not looked at.
    pub(super) fn rest(&self) -> usize {
        self.posts.lock().try_iter().count()
    }
}

fn read(stream: &TcpStream) -> Option<Post> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Post {
        headers,
        body,
        path,
    })
}
