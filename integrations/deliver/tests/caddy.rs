//! Canaries that move the weights of a real Caddy, with a real bare repository as the ledger.
//!
//! Needs Caddy: `cargo xtask peer` installs it and prints the variable that names it.

#[path = "support/caddy.rs"]
mod caddy;
#[path = "support/hub.rs"]
mod hub;
#[path = "support/server.rs"]
mod server;
#[path = "support/shop.rs"]
mod shop;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use caddy::{Caddy, WEIGHTS, get};
use hub::{APP, Hub};
use maestro_executor::step::{Effect as _, Reply, Stop};
use serde_json::{Value, json};
use server::{Say, Server};

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
