//! A real Caddy before two versions, whose weights are read back.
//!
//! Needs Caddy: `cargo xtask peer` installs it and prints the variable that names it.
#![allow(dead_code)] // each test uses a part of it

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::{Say, Server};

const HOW: &str = "run `cargo xtask peer` and set MAESTRO_CADDY, or run `cargo xtask test`";
/// Where its weights are.
pub const WEIGHTS: &str = "/config/apps/http/servers/s/routes/0/handle/0/load_balancing\
                       /selection_policy/weights";

/// A proxy before two versions that say their names.
pub struct Caddy {
    child: Child,
    pub admin: u16,
    site: u16,
    _versions: [Server; 2],
    _folder: tempfile::TempDir,
}

impl Caddy {
    pub fn start() -> Self {
        let program = std::env::var_os("MAESTRO_CADDY").unwrap_or_else(|| panic!("{HOW}"));
        let folder = tempfile::tempdir().expect("a folder");
        let versions = ["old", "new"]
            .map(|name| Server::start(move |_| Say::Answer(200, Vec::new(), name.to_owned())));
        let dial = |server: &Server| json!({"dial": server.url.trim_start_matches("http://")});
        let [admin, site] = free_ports();
        let split = json!({"policy": "weighted_round_robin", "weights": [1, 0]});
        let proxy = json!({
            "handler": "reverse_proxy", "load_balancing": {"selection_policy": split},
            "upstreams": [dial(&versions[0]), dial(&versions[1])],
        });
        let server = json!({
            "listen": [format!("127.0.0.1:{site}")], "automatic_https": {"disable": true},
            "routes": [{"handle": [proxy]}],
        });
        let config = json!({
            "admin": {"listen": format!("127.0.0.1:{admin}"), "config": {"persist": false}},
            "apps": {"http": {"servers": {"s": server}}},
        });
        let file = folder.path().join("caddy.json");
        std::fs::write(&file, config.to_string()).expect("a configuration");
        let child = Command::new(&program)
            .args(["run", "--config"])
            .arg(&file)
            .env_clear()
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("Caddy does not start ({e}): {HOW}"));
        let caddy = Self { child, admin, site, _versions: versions, _folder: folder };
        let begun = Instant::now();
        while get(caddy.site, "/").is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "Caddy does not answer");
            std::thread::yield_now();
        }
        caddy
    }

    pub fn weights(&self) -> String {
        get(self.admin, WEIGHTS).expect("weights")
    }

    /// Which versions answer, out of so many requests.
    pub fn new_of(&self, requests: usize) -> usize {
        (0..requests).filter(|_| get(self.site, "/").as_deref() == Some("new")).count()
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two ports that were free a moment ago.
fn free_ports() -> [u16; 2] {
    let open = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    open.map(|listener| listener.local_addr().expect("bound").port())
}

/// The body of an answer with status 200.
pub fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let host = format!("127.0.0.1:{port}");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.trim().to_owned())
}
