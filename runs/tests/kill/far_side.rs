//! A far side on loopback: a line of `KEY REQUEST`, answered by `ok`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What it has heard and done.
#[derive(Default)]
pub struct Seen {
    /// Keys that it knows.
    pub keys: BTreeSet<String>,
    /// Requests that it has done, in order.
    pub done: Vec<String>,
    /// Requests that it has heard.
    pub heard: usize,
}

/// The server; its thread ends with the program.
pub struct FarSide {
    /// Its port.
    pub port: u16,
    /// What it has seen.
    pub seen: Arc<Mutex<Seen>>,
}

impl FarSide {
    /// Starts one that knows keys again, or one that does not.
    pub fn start(deduplicates: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let writes = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                answer(stream, deduplicates, &writes);
            }
        });
        Self { port, seen }
    }
}

fn answer(mut stream: TcpStream, deduplicates: bool, seen: &Mutex<Seen>) {
    let mut line = String::new();
    let read = stream.try_clone().map(|reading| BufReader::new(reading).read_line(&mut line));
    let Ok(Ok(1..)) = read else { return };
    if !line.ends_with('\n') {
        return;
    }
    let Some((key, request)) = line.trim_end().split_once(' ') else { return };
    {
        let mut seen = seen.lock().expect("unpoisoned");
        seen.heard += 1;
        let new = seen.keys.insert(key.to_owned());
        if new || !deduplicates {
            seen.done.push(request.to_owned());
        }
    }
    let _ = stream.write_all(b"ok\n");
}

/// Sends a request; `None` if no answer came.
pub fn send(port: u16, key: &str, request: &str) -> Option<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(format!("{key} {request}\n").as_bytes()).ok()?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).ok()?;
    (answer == "ok\n").then_some(())
}
