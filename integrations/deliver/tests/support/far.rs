//! A far side in one server: a proxy, a deployment gate and a probe, which count requests and can
//! break off at any of them.
#![allow(dead_code)] // each test uses a part of it

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maestro_executor::step::Stop;
use serde_json::{Value, json};

use crate::server::{Say, Seen, Server};

/// At which request a caller dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    Never,
    /// Before the far side acts on this one.
    Before(usize),
    /// After it acted, before it answers.
    After(usize),
}

/// What the far side has become.
#[derive(Default)]
pub struct World {
    pub weight: u64,
    /// All weights that were set, in order.
    pub weights: Vec<u64>,
    /// The weights at which the probe was asked.
    pub asked_at: Vec<u64>,
    pub deployment: Option<Value>,
    /// How many times the gate says that it has not decided.
    pub pending: u32,
    /// How many times it then closes the connection.
    pub away: u32,
    /// What the gate says then.
    pub verdict: String,
    pub requests: usize,
}

/// The server and what it does.
pub struct Far {
    pub server: Server,
    world: Arc<Mutex<World>>,
    /// Cancelled when the caller is to die.
    pub killed: Stop,
}

impl Far {
    /// A far side whose probe is bad from `bad_from` percent on.
    pub fn start(world: World, bad_from: u64, kill: Kill) -> Self {
        let world = Arc::new(Mutex::new(world));
        let (shared, killed) = (world.clone(), Stop::new());
        let dies = killed.clone();
        let server = Server::start(move |seen| {
            let mut world = lock(&shared);
            world.requests += 1;
            let number = world.requests;
            if kill == Kill::Before(number) {
                dies.cancel();
                return Say::Hang;
            }
            let answer = act(&mut world, seen, bad_from);
            if kill == Kill::After(number) {
                dies.cancel();
                return Say::Hang;
            }
            answer
        });
        Self { server, world, killed }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Inputs of a canary that is watched for one probe at each step.
    pub fn inputs(&self, changes: Value) -> Value {
        let url = &self.server.url;
        let mut inputs = json!({
            "subject": "app@sha256:0f", "env": "prod", "strategy": "canary",
            "via": "gate", "gate": format!("{url}/gate"), "branch": "main",
            "traffic": format!("{url}/weight"), "proxy": "http", "weights": [5, 25, 50, 100],
            "pause": "0s", "probe": format!("{url}/probe"), "max_error_rate": 0.01,
            "rollback": "automatic",
        });
        for (name, value) in changes.as_object().expect("an object") {
            inputs[name] = value.clone();
        }
        inputs
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

fn act(world: &mut World, seen: &Seen, bad_from: u64) -> Say {
    let body: Value = serde_json::from_str(&seen.body).unwrap_or_default();
    match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", "/probe") => {
            let weight = world.weight;
            world.asked_at.push(weight);
            Say::status(if weight >= bad_from { 503 } else { 200 })
        }
        ("GET", "/weight") => Say::json(&json!({ "weight": world.weight })),
        ("PUT", "/weight") => {
            world.weight = body["weight"].as_u64().expect("a weight");
            let weight = world.weight;
            world.weights.push(weight);
            Say::status(204)
        }
        ("PUT", path) if path.ends_with("/outcome") => {
            let deployment = world.deployment.as_mut().expect("outcomes follow deployments");
            deployment["outcome"] = body["result"].clone();
            deployment["reason"] = body["reason"].clone();
            Say::json(deployment)
        }
        ("PUT", path) if path.starts_with("/gate/deployments/") => {
            let new = json!({"status": "pending", "revision": "d2", "previous": "d1",
                             "former": body["former"]});
            Say::json(world.deployment.get_or_insert(new))
        }
        ("GET", path) if path.starts_with("/gate/deployments/") => gate(world),
        _ => Say::status(404),
    }
}

fn gate(world: &mut World) -> Say {
    let verdict = match world.verdict.as_str() {
        "" => "approved".to_owned(),
        verdict => verdict.to_owned(),
    };
    match &mut world.deployment {
        None => Say::status(404),
        Some(_) if world.away > 0 => {
            world.away -= 1;
            Say::Drop
        }
        Some(deployment) => {
            match world.pending {
                0 => deployment["status"] = json!(verdict),
                _ => world.pending -= 1,
            }
            Say::json(deployment)
        }
    }
}
