//! A chat server of a few dozen lines whose every byte a test decides.

#![allow(dead_code)] // each test binary uses a part

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

/// What one connection to the chat route gets.
#[derive(Clone)]
pub(crate) struct Reply {
    head: String,
    body: Vec<u8>,
    cut: usize,
    then: Then,
}

#[derive(Clone)]
enum Then {
    Close,
    /// Sends this again and again until the client leaves.
    Repeat(Vec<u8>),
    /// Sends nothing until the client leaves.
    Wait,
}

impl Reply {
    pub(crate) fn stream(body: &str) -> Self {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n".to_owned();
        Self { head, body: body.as_bytes().to_vec(), cut: usize::MAX, then: Then::Close }
    }

    pub(crate) fn json(body: &str) -> Self {
        Self::status(200, "X-Kind: whole", body)
    }

    pub(crate) fn status(status: u16, header: &str, body: &str) -> Self {
        let header = if header.is_empty() { "X-Empty: 1" } else { header };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{header}\r\n");
        Self { head, body: body.as_bytes().to_vec(), cut: usize::MAX, then: Then::Close }
    }

    /// Closes the connection before anything was said.
    pub(crate) fn close() -> Self {
        Self { head: String::new(), body: Vec::new(), cut: usize::MAX, then: Then::Close }
    }

    pub(crate) fn endless(start: &[u8], again: &[u8]) -> Self {
        let mut reply = Self::stream("");
        reply.body = start.to_vec();
        reply.then = Then::Repeat(again.to_vec());
        reply
    }

    pub(crate) fn silence() -> Self {
        Self { then: Then::Wait, ..Self::close() }
    }

    /// Sends the body in pieces of this many bytes.
    pub(crate) fn cut(mut self, bytes: usize) -> Self {
        self.cut = bytes;
        self
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        if !self.head.is_empty() {
            write!(stream, "{}Connection: close\r\n\r\n", self.head)?;
        }
        for piece in self.body.chunks(self.cut) {
            stream.write_all(piece)?;
        }
        match &self.then {
            Then::Close => Ok(()),
            Then::Repeat(again) => loop {
                stream.write_all(again)?;
            },
            Then::Wait => stream.read(&mut [0]).map(|_| ()),
        }
    }
}

struct State {
    replies: Vec<Reply>,
    models: Value,
    models_after: Option<Value>,
    info: Option<Value>,
    requests: Vec<(String, String)>,
}

/// Serves until the test process ends.
pub(crate) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// A server that gives these replies, in order.
    pub(crate) fn start(mut replies: Vec<Reply>) -> Self {
        replies.reverse();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::new(Mutex::new(State {
            replies,
            models: json!({"data": [{"id": "m"}]}),
            models_after: None,
            info: None,
            requests: Vec::new(),
        }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                // A client that leaves early is part of the tests.
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { port, state }
    }

    pub(crate) fn models(self, models: Value) -> Self {
        self.with(|state| state.models = models);
        self
    }

    /// What the models are once a chat call was made.
    pub(crate) fn models_after_call(self, models: Value) -> Self {
        self.with(|state| state.models_after = Some(models));
        self
    }

    pub(crate) fn info(self, info: Value) -> Self {
        self.with(|state| state.info = Some(info));
        self
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Heads and bodies of the calls to the chat route.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        self.with(|state| state.requests.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let (head, body) = read_request(&stream)?;
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let reply = if head.starts_with("GET /v1/models ") {
        Reply::json(&lock().models.to_string())
    } else if head.starts_with("GET /v1/model/info ") {
        match lock().info.clone() {
            Some(info) => Reply::json(&info.to_string()),
            None => Reply::status(404, "", "{}"),
        }
    } else {
        let mut state = lock();
        state.requests.push((head, body));
        if let Some(models) = state.models_after.take() {
            state.models = models;
        }
        state.replies.pop().unwrap_or_else(|| Reply::status(500, "", "no reply is left"))
    };
    reply.send(&mut stream)
}

fn read_request(stream: &TcpStream) -> std::io::Result<(String, String)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok((head, String::from_utf8_lossy(&body).into_owned()))
}
