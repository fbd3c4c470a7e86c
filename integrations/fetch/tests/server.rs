//! Downloads from servers that behave, and from servers that do not.
//!
//! The servers run in this process on a port that the system picks. A step that must end because
//! time runs out has a window of some milliseconds, so that no test waits.

#[path = "server/git.rs"]
mod git;
#[path = "server/npm.rs"]
mod npm;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use maestro_cas::{Store, StoreOptions};
use maestro_core::graph::Target;
use maestro_core::key::{Resolved, SandboxProfile, prepare};
use maestro_core::merkle::Node;
use maestro_core::{
    ActionClass, ActionGraph, ActionId, ActionSpec, ArtifactId, ArtifactKind, Digest,
    DigestFunction, ExecutionHints, How, Label, Output, RelPath,
};
use maestro_executor::runner::{Cancel, Job, Outcome, RunError, Runner};
use maestro_fetch::{FetchOptions, FetchRunner, KIND, ProxyOptions, SEMANTICS};
use serde_json::{Value, json};

/// What a path answers, one after the other; the last one again and again.
type Script = Vec<Reply>;

#[derive(Clone, Debug)]
enum Reply {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes, then nothing until the client goes away.
    Silence(Vec<u8>),
}

fn status(line: &str, headers: &str) -> Reply {
    let reply =
        format!("HTTP/1.1 {line}\r\n{headers}Connection: close\r\nContent-Length: 0\r\n\r\n");
    Reply::Bytes(reply.into_bytes())
}

fn ok(body: &[u8]) -> Reply {
    Reply::Bytes(with_length(body.len(), body))
}

fn with_length(length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Answers requests in threads that end with the test process.
struct Server {
    address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(scripts: &[(&str, Script)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let scripts: HashMap<String, Script> =
            scripts.iter().map(|(path, script)| ((*path).to_owned(), script.clone())).collect();
        let scripts = Arc::new(Mutex::new(scripts));
        let requests = log.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (scripts, requests) = (scripts.clone(), requests.clone());
                std::thread::spawn(move || serve(stream, &scripts, &requests));
            }
        });
        Self { address, log }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The paths that were asked for.
    fn requests(&self) -> Vec<String> {
        self.log.lock().expect("no panic").clone()
    }
}

fn serve(
    mut stream: TcpStream,
    scripts: &Mutex<HashMap<String, Script>>,
    log: &Mutex<Vec<String>>,
) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut first = String::new();
    if reader.read_line(&mut first).is_err() {
        return;
    }
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    log.lock().expect("no panic").push(path.clone());
    let reply = {
        let mut scripts = scripts.lock().expect("no panic");
        match scripts.get_mut(&path) {
            Some(script) if script.len() > 1 => script.remove(0),
            Some(script) => script.first().cloned().expect("a script has an answer"),
            None => status("404 Not Found", ""),
        }
    };
    match reply {
        Reply::Bytes(bytes) => {
            let _ = stream.write_all(&bytes);
        }
        Reply::Silence(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = reader.read(&mut [0]);
        }
    }
}

struct NoInputs;

impl Resolved for NoInputs {
    fn node(&self, _artifact: ArtifactId) -> Option<Node> {
        None
    }

    fn tree_files(&self, _root: Digest) -> Option<Vec<String>> {
        None
    }
}

struct Client {
    _folder: tempfile::TempDir,
    store: Store,
    options: FetchOptions,
    cancel: Cancel,
}

impl Client {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("cache");
        let options = StoreOptions { root, function: DigestFunction::Blake3 };
        let store = Store::open(options).expect("a fresh store");
        let options = FetchOptions { backoff_ms: 1, ..FetchOptions::default() };
        Self { _folder: folder, store, options, cancel: Cancel::default() }
    }

    fn fetch(&self, request: Value) -> Result<Outcome, RunError> {
        let mut graph = ActionGraph::default();
        let owner = graph.add_target(Target {
            label: Label::parse("//p:t", "", "").expect("a label"),
            rule: "http_file".into(),
            aspect: None,
            location: "maestro.star:1:1".to_owned(),
            deps: Vec::new(),
            files: Vec::new(),
            groups: Vec::new(),
            executable: None,
            test: None,
            tags: Vec::new(),
        });
        let path = RelPath::new("maestro-out/file").expect("a normal path");
        let output = graph.declare_output(path, ArtifactKind::File, owner).expect("the only one");
        let how = How::Native { kind: KIND.to_owned(), semantics: SEMANTICS, request };
        let spec = ActionSpec {
            owner,
            mnemonic: "Fetch".to_owned(),
            progress: String::new(),
            class: ActionClass::Pure,
            how,
            inputs: graph.sets.add(Default::default(), Vec::new(), Vec::new()),
            toolchains: Vec::new(),
            outputs: vec![Output { artifact: output, optional: false }],
            env: Vec::new(),
            platform: Vec::new(),
            timeout_ms: None,
            hints: ExecutionHints::default(),
        };
        let function = self.store.function();
        let sandbox = SandboxProfile::default();
        let prepared = prepare(&graph, function, sandbox, &spec, &[], &NoInputs).expect("no input");
        graph.add_action(spec).expect("its output is its own");
        let job = Job {
            graph: &graph,
            spec: &graph.action(ActionId::from_index(0)),
            files: &[],
            prepared: &prepared,
            store: &self.store,
            slot: 0,
            toolchains: &[],
            cancel: &self.cancel,
        };
        let runner = FetchRunner::new(self.options.clone());
        assert!(runner.handles(&job.spec.how));
        runner.run(&job)
    }

    fn check(&self, request: Value, expect: &[u8]) {
        let outcome = self.fetch(request).expect("a good mirror");
        let file = outcome.result.output_files.first().expect("one file");
        assert_eq!(file.path, "maestro-out/file");
        assert_eq!(self.store.read(&file.digest).expect("in the store"), expect);
    }

    fn check_fails(&self, request: Value, expect: &str) -> RunError {
        let error = self.fetch(request).expect_err(expect);
        assert_eq!(error.to_string(), expect);
        let left = std::fs::read_dir(self.store.scratch_dir()).expect("readable").count();
        assert_eq!(left, 0, "no temporary file stays");
        error
    }
}

fn hex(bytes: &[u8]) -> String {
    DigestFunction::Sha256.digest(bytes).hex()
}

#[test]
fn good_servers() {
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    let packed = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nraw";
    let open = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nopen";
    let server = Server::start(&[
        ("/large", vec![ok(&large)]),
        ("/empty", vec![ok(b"")]),
        ("/chunked", vec![Reply::Bytes(chunked.to_vec())]),
        ("/packed", vec![Reply::Bytes(packed.to_vec())]),
        ("/open", vec![Reply::Bytes(open.to_vec())]),
        ("/moved", vec![status("302 Found", "Location: /large\r\n")]),
    ]);
    let client = Client::new();
    let check = |path: &str, body: &[u8]| {
        client.check(json!({"urls": [server.url(path)], "sha256": hex(body)}), body);
    };
    check("/large", &large);
    check("/empty", b"");
    check("/chunked", b"abc");
    check("/packed", b"raw");
    check("/open", b"open");
    check("/moved", &large);
    let request = json!({"urls": [server.url("/empty")], "sha256": hex(b""), "executable": true});
    let outcome = client.fetch(request).expect("a good mirror");
    assert!(outcome.result.output_files.first().is_some_and(|file| file.is_executable));
}

#[test]
fn transient_failures_are_tried_again() {
    let truncated = Reply::Bytes(with_length(10, b"short"));
    let server = Server::start(&[(
        "/f",
        vec![
            status("500 Internal Server Error", ""),
            status("429 Too Many Requests", "Retry-After: 0\r\n"),
            truncated,
            ok(b"body"),
        ],
    )]);
    let client = Client::new();
    client.check(json!({"urls": [server.url("/f")], "sha256": hex(b"body")}), b"body");
    assert_eq!(server.requests(), ["/f"; 4]);
}

#[test]
fn attempts_end() {
    let server = Server::start(&[("/f", vec![status("503 Service Unavailable", "")])]);
    let client = Client::new();
    let url = server.url("/f");
    let error = client.check_fails(
        json!({"urls": [url], "sha256": hex(b"")}),
        &format!("`{url}`: the server answered 503 Service Unavailable"),
    );
    assert!(matches!(error, RunError::Machine { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn definite_failures_are_not_tried_again() {
    let server = Server::start(&[("/other", vec![ok(b"other")]), ("/long", vec![ok(b"long")])]);
    let client = Client::new();
    let (gone, other) = (server.url("/gone"), server.url("/other"));
    client.check_fails(
        json!({"urls": [gone], "sha256": hex(b"")}),
        &format!("`{gone}`: the server answered 404 Not Found"),
    );
    let error = client.check_fails(
        json!({"urls": [other], "sha256": hex(b"body")}),
        &format!(
            "`{other}`: the file has the SHA-256 {}, pinned is {}",
            hex(b"other"),
            hex(b"body")
        ),
    );
    let hint = format!("if the file changed on purpose, pin `sha256 = \"{}\"`", hex(b"other"));
    assert_eq!(error.hints(), [hint]);
    let long = server.url("/long");
    client.check_fails(
        json!({"urls": [long], "sha256": hex(b"long"), "bytes_max": 3}),
        &format!("`{long}`: the file is larger than the limit of 3 bytes"),
    );
    assert_eq!(server.requests(), ["/gone", "/other", "/long"]);
    assert!(!client.store.contains(&DigestFunction::Blake3.digest(b"other")));
}

#[test]
fn a_body_without_length_is_bounded() {
    let endless = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".as_slice(), &[b'x'; 100_000]];
    let server = Server::start(&[("/f", vec![Reply::Silence(endless.concat())])]);
    let url = server.url("/f");
    Client::new().check_fails(
        json!({"urls": [url], "sha256": hex(b""), "bytes_max": 1000}),
        &format!("`{url}`: the file is larger than the limit of 1000 bytes"),
    );
}

#[test]
fn mirrors_are_tried_in_order() {
    let server = Server::start(&[("/bad", vec![ok(b"bad")]), ("/good", vec![ok(b"good")])]);
    let client = Client::new();
    let urls = |paths: &[&str]| paths.iter().map(|path| server.url(path)).collect::<Vec<_>>();
    let request = json!({"urls": urls(&["/gone", "/bad", "/good"]), "sha256": hex(b"good")});
    client.check(request, b"good");
    assert_eq!(server.requests(), ["/gone", "/bad", "/good"]);
    let expect = format!(
        "no mirror has the file\n  `{}`: the server answered 404 Not Found\n  `{}`: the file has \
         the SHA-256 {}, pinned is {}",
        server.url("/gone"),
        server.url("/bad"),
        hex(b"bad"),
        hex(b"x"),
    );
    let request = json!({"urls": urls(&["/gone", "/bad"]), "sha256": hex(b"x")});
    client.check_fails(request, &expect);
}

#[test]
fn redirects_are_bounded() {
    let server = Server::start(&[
        ("/loop", vec![status("302 Found", "Location: /loop\r\n")]),
        ("/file", vec![status("302 Found", "Location: file:///etc/passwd\r\n")]),
    ]);
    let client = Client::new();
    let check = |path: &str, why: &str| {
        let url = server.url(path);
        let request = json!({"urls": [url], "sha256": hex(b"")});
        let error = client.fetch(request).expect_err("no file");
        assert_eq!(error.to_string(), format!("`{url}`: {why}"));
    };
    check("/loop", "it redirects more than 10 times, or from HTTPS to HTTP");
    check("/file", "the server answered 302 Found");
    let loops = server.requests().iter().filter(|path| *path == "/loop").count();
    assert_eq!(loops, 11);
}

#[test]
fn slow_servers_are_left() {
    let begun = with_length(1000, b"a few bytes");
    let server = Server::start(&[
        ("/mute", vec![Reply::Silence(Vec::new())]),
        ("/stops", vec![Reply::Silence(begun)]),
    ]);
    let mut client = Client::new();
    client.options.stall_window_ms = 100;
    client.options.attempts_max = 2;
    for path in ["/mute", "/stops"] {
        let url = server.url(path);
        let error = client.check_fails(
            json!({"urls": [url], "sha256": hex(b"")}),
            &format!("`{url}`: fewer than 16384 bytes came in 100 ms"),
        );
        assert_eq!(error.hints(), ["check the network and the proxy settings"]);
    }
    assert_eq!(server.requests(), ["/mute", "/mute", "/stops", "/stops"]);
}

#[test]
fn a_wait_is_cancelled() {
    let server = Server::start(&[("/f", vec![Reply::Silence(Vec::new())])]);
    let client = Client::new();
    let request = json!({"urls": [server.url("/f")], "sha256": hex(b"")});
    let cancel = client.cancel.clone();
    let log = server.log.clone();
    // Cancels as soon as the request has arrived.
    let canceller = std::thread::spawn(move || {
        while log.lock().expect("no panic").is_empty() {
            std::thread::yield_now();
        }
        cancel.cancel();
    });
    assert!(matches!(client.fetch(request), Err(RunError::Cancelled)));
    canceller.join().expect("no panic");
}

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/f", listener.local_addr().expect("bound"));
    drop(listener);
    let client = Client::new();
    let error = client.fetch(json!({"urls": [url], "sha256": hex(b"")})).expect_err("refused");
    assert!(matches!(error, RunError::Machine { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("`{url}`: the transfer failed: ")), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}

#[test]
fn offline_asks_nobody() {
    let server = Server::start(&[("/f", vec![ok(b"body")])]);
    let mut client = Client::new();
    client.options.offline = true;
    let url = server.url("/f");
    let error = client.fetch(json!({"urls": [url], "sha256": hex(b"body")})).expect_err("offline");
    assert!(matches!(error, RunError::Refused { .. }), "{error:?}");
    let expect = format!("`{url}` is not in the cache, and downloads are switched off");
    assert_eq!(error.to_string(), expect);
    assert!(server.requests().is_empty());
}

#[test]
fn proxies_come_from_the_options() {
    // Whoever is asked through a proxy gets the whole URL as the path.
    let proxy = Server::start(&[("http://files.invalid/f", vec![ok(b"by proxy")])]);
    let mut client = Client::new();
    client.options.proxy = ProxyOptions { http: Some(proxy.url("")), ..ProxyOptions::default() };
    let request = json!({"urls": ["http://files.invalid/f"], "sha256": hex(b"by proxy")});
    client.check(request, b"by proxy");
    client.options.proxy.no_proxy = Some("127.0.0.1".to_owned());
    let direct = Server::start(&[("/f", vec![ok(b"direct")])]);
    client.check(json!({"urls": [direct.url("/f")], "sha256": hex(b"direct")}), b"direct");
    assert_eq!(proxy.requests(), ["http://files.invalid/f"]);
}
