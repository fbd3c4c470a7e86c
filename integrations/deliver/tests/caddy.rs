//! Canaries that move the weights of a real Caddy, with a real bare repository as the ledger.
//!
//! Needs Caddy: `cargo xtask peer` installs it and prints the variable that names it.

#[path = "support/hub.rs"]
mod hub;
#[path = "support/server.rs"]
mod server;
#[path = "support/shop.rs"]
mod shop;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hub::{APP, Hub};
use maestro_executor::step::{Effect as _, Reply, Stop};
use serde_json::{Value, json};
use server::{Say, Server};

const HOW: &str = "run `cargo xtask peer` and set MAESTRO_CADDY, or run `cargo xtask test`";
const WEIGHTS: &str = "/config/apps/http/servers/s/routes/0/handle/0/load_balancing\
                       /selection_policy/weights";

/// A proxy before two versions that say their names.
struct Caddy {
    child: Child,
    admin: u16,
    site: u16,
    _versions: [Server; 2],
    _folder: tempfile::TempDir,
}

impl Caddy {
    fn start() -> Self {
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

    fn weights(&self) -> String {
        get(self.admin, WEIGHTS).expect("weights")
    }

    /// Which versions answer, out of so many requests.
    fn new_of(&self, requests: usize) -> usize {
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
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let host = format!("127.0.0.1:{port}");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.trim().to_owned())
}

/// A probe that notes the weights of Caddy, and is bad at those that `bad` names.
fn probe(admin: u16, bad: &'static str, notes: Arc<Mutex<Vec<String>>>) -> Server {
    Server::start(move |_| {
        let weights = get(admin, WEIGHTS).expect("weights");
        let status = if weights == bad { 500 } else { 200 };
        notes.lock().unwrap_or_else(PoisonError::into_inner).push(weights);
        Say::status(status)
    })
}

fn canary(hub: &Hub, caddy: &Caddy, probe: &Server) -> Value {
    hub.inputs(json!({
        "strategy": "canary", "proxy": "caddy", "probe": probe.url,
        "traffic": format!("http://127.0.0.1:{}{WEIGHTS}", caddy.admin),
    }))
}

#[tokio::test]
async fn a_good_version_gets_all_traffic_step_by_step() {
    let (hub, caddy, notes) = (Hub::new(), Caddy::start(), Arc::default());
    let probe = probe(caddy.admin, "", Arc::clone(&notes));
    assert_eq!(caddy.new_of(8), 0);
    let rollout = hub.rollout(Path::new("git"));
    let request = rollout.render(&canary(&hub, &caddy, &probe)).expect("a request");
    let reply = rollout.send(&request, "00ff", &Stop::new()).await;
    assert!(matches!(reply, Reply::Done(_)), "{reply:?}");
    let seen = notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(seen, ["[95,5]", "[75,25]", "[50,50]", "[0,100]"]);
    assert_eq!(caddy.weights(), "[0,100]");
    assert_eq!(caddy.new_of(8), 8);
    assert_eq!(hub.show("app.yaml"), APP.replace("sha256:00", "sha256:0f"));
}

#[tokio::test]
async fn a_probe_that_goes_bad_at_25_percent_brings_weights_and_version_back() {
    let (hub, caddy, notes) = (Hub::new(), Caddy::start(), Arc::default());
    let probe = probe(caddy.admin, "[75,25]", Arc::clone(&notes));
    let rollout = hub.rollout(Path::new("git"));
    let request = rollout.render(&canary(&hub, &caddy, &probe)).expect("a request");
    let reply = rollout.send(&request, "00ff", &Stop::new()).await;
    let Reply::Refused(failure) = reply else { panic!("{reply:?}") };
    let said = "at 25 %, 1 of 1 answers were bad, the last: status 500";
    assert!(failure.message.ends_with(said), "{}", failure.message);
    assert_eq!(caddy.weights(), "[1,0]", "as they were before");
    assert_eq!(caddy.new_of(8), 0);
    assert_eq!(hub.show("app.yaml"), APP);
    let subjects = hub.subjects();
    let title = "Roll out app@sha256:0f to prod";
    assert_eq!(subjects, ["by hand", title, &format!("Revert \"{title}\"")]);
}
