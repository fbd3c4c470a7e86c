//! The product is released from outside: out of a bare Git repository, through a deployment gate,
//! an approval, and a canary behind a real proxy; the team is told.
//!
//! Needs Caddy: `cargo xtask peer` installs it and prints the variable that names it.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use maestro_tests::scene::{Scene, text};
use maestro_tests::{copy_tree, golden_source};
use serde_json::{Value, json};

use super::caddy::{Caddy, WEIGHTS, get};
use super::server::{Say, Server};
use super::{product, shared_cache};

const APP: &str = "# what production runs\nrelease: none # set by rollouts\n";
const HOOK_SECRET: &str = "of-this-test";

/// The far sides of one release.
struct World {
    scene: Scene,
    caddy: Caddy,
    gate: Server,
    probe: Server,
    hook: Server,
    weights: Arc<Mutex<Vec<String>>>,
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=ann", "-c", "user.email=ann@localhost"])
        .args(arguments)
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// A bare repository whose only commit has the files of a folder.
fn bare(scene: &Scene, name: &str, fill: impl FnOnce(&Path)) {
    let work = scene.path(&format!("{name}-work"));
    std::fs::create_dir(&work).expect("a folder");
    git(&work, &["init", "--quiet", "--initial-branch=main"]);
    fill(&work);
    git(&work, &["add", "--all"]);
    git(&work, &["commit", "--quiet", "--message", "as it is"]);
    let bare = scene.path(name);
    git(&work, &["clone", "--quiet", "--bare", ".", &bare.to_string_lossy()]);
}

/// A gate that deploys whatever it is asked for.
fn gate() -> Server {
    let asked = AtomicBool::new(false);
    Server::start(move |seen| match seen.method.as_str() {
        "GET" if !asked.load(Ordering::SeqCst) => Say::status(404),
        "PUT" | "GET" => {
            asked.store(true, Ordering::SeqCst);
            Say::json(&json!({"status": "deployed", "revision": "d1"}))
        }
        _ => Say::status(405),
    })
}

impl World {
    /// A probe that is bad at the weights `bad`.
    fn new(bad: &'static str) -> Self {
        product();
        let scene = Scene::new("name: unused\nsteps: []\n");
        bare(&scene, "intelgraph.git", |work| copy_tree(&golden_source(), work));
        bare(&scene, "ledger.git", |work| {
            std::fs::create_dir(work.join("apps")).expect("a folder");
            std::fs::write(work.join("apps/intelgraph.yaml"), APP).expect("written");
        });
        std::fs::create_dir(scene.path("state")).expect("a folder");
        let roles = "release-manager = [\"daemon\"]\n";
        std::fs::write(scene.path("state/roles.toml"), roles).expect("written");
        let (caddy, weights) = (Caddy::start(), Arc::new(Mutex::new(Vec::new())));
        let (admin, notes) = (caddy.admin, weights.clone());
        let probe = Server::start(move |_| {
            let weights = get(admin, WEIGHTS).expect("weights");
            let status = if weights == bad { 500 } else { 200 };
            notes.lock().unwrap_or_else(PoisonError::into_inner).push(weights);
            Say::status(status)
        });
        let hook = Server::start(|_| Say::status(202));
        Self { scene, caddy, gate: gate(), probe, hook, weights }
    }

    /// Runs a command that must end with `code`; gives what it printed.
    fn must(&self, code: i32, arguments: &[&str]) -> String {
        let mut command = self.scene.command(arguments);
        command.env("MAESTRO_SECRET_RELEASE_HOOK", HOOK_SECRET);
        let output = command.arg("--cache").arg(shared_cache()).output().expect("it runs");
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{told}");
        told
    }

    fn url(&self, name: &str) -> String {
        format!("file://{}", self.scene.path(name).display())
    }

    /// Begins the release, and has somebody else approve it. Gives the run's name.
    fn release(&self) -> String {
        let params = [
            format!("gate={}", self.gate.url),
            format!("ledger={}", self.url("ledger.git")),
            format!("traffic=http://127.0.0.1:{}{WEIGHTS}", self.caddy.admin),
            format!("probe={}", self.probe.url),
            format!("hook={}", self.hook.url),
        ];
        let source = self.url("intelgraph.git");
        let mut begin =
            vec!["run", "--template", "intelgraph-release", "--source", &source, "--no-wait"];
        params.iter().for_each(|param| begin.extend(["--param", param.as_str()]));
        let told = self.must(10, &begin);
        assert!(told.contains("to production?"), "{told}");
        assert_eq!(self.caddy.weights(), "[1,0]", "nothing moves before the approval");
        let run = self.scene.json()["run"].as_str().expect("a name").to_owned();
        let approved = self.scene.as_user(1, &["approve", &run, "--reason", "seen on staging"]);
        assert!(approved.status.success(), "{}", text(&approved.stderr));
        run
    }

    fn ledger(&self, arguments: &[&str]) -> String {
        git(&self.scene.path("ledger.git"), arguments)
    }

    fn seen_weights(&self) -> Vec<String> {
        self.weights.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the team was told.
    fn messages(&self) -> Vec<Value> {
        let told = self.hook.seen().into_iter();
        told.map(|seen| {
            assert!(!seen.headers.contains_key("authorization"));
            serde_json::from_str(&seen.body).expect("JSON")
        })
        .collect()
    }
}

#[test]
fn a_release_goes_from_a_repository_to_production_step_by_step() {
    let world = World::new("");
    let run = world.release();
    world.must(0, &["run", "--resume", &run]);
    assert_eq!(world.seen_weights(), ["[95,5]", "[75,25]", "[50,50]", "[0,100]"]);
    assert_eq!((world.caddy.weights().as_str(), world.caddy.new_of(8)), ("[0,100]", 8));

    let run = world.scene.json();
    let outputs = |id: &str| {
        let steps = run["steps"].as_array().expect("steps").iter();
        let step = steps.clone().find(|step| step["id"] == id).expect("the step");
        step["tasks"][0]["outputs"].clone()
    };
    let digest = format!("sha256:{}", outputs("build")["digest"].as_str().expect("a digest"));
    let deployed = world.ledger(&["show", "main:apps/intelgraph.yaml"]);
    assert_eq!(format!("{deployed}\n"), APP.replace("none", &digest));
    let commit = git(&world.scene.path("intelgraph.git"), &["rev-parse", "main"]);
    let asked = world.gate.seen();
    let put = asked.iter().find(|seen| seen.method == "PUT").expect("it was asked");
    let asked: Value = serde_json::from_str(&put.body).expect("JSON");
    assert_eq!(asked["values"], json!({"commit": commit}));
    assert_eq!(asked["subject"], format!("intelgraph@{digest}"));
    let messages = world.messages();
    assert_eq!(messages[0]["text"], format!("Intelgraph {} is in production", &commit[..7]));
    assert_eq!(messages[0]["revision"], world.ledger(&["rev-parse", "main"]));
    assert_eq!(messages.len(), 1);

    let copies = std::fs::read_dir(world.scene.path("state/workspaces")).expect("the folder");
    assert_eq!(copies.count(), 0, "a run that has succeeded leaves no copy");
}

#[test]
fn a_release_that_goes_bad_at_25_percent_is_taken_back() {
    let world = World::new("[75,25]");
    let run = world.release();
    let told = world.must(1, &["run", "--resume", &run]);
    assert!(told.contains("at 25 %, 1 of 1 answers were bad, the last: status 500"), "{told}");
    assert_eq!(world.seen_weights(), ["[95,5]", "[75,25]"]);
    assert_eq!((world.caddy.weights().as_str(), world.caddy.new_of(8)), ("[1,0]", 0));
    assert_eq!(format!("{}\n", world.ledger(&["show", "main:apps/intelgraph.yaml"])), APP);
    let subjects = world.ledger(&["log", "--format=%s", "main"]);
    let subjects: Vec<&str> = subjects.lines().collect();
    assert_eq!((subjects.len(), subjects[2]), (3, "as it is"), "{subjects:?}");
    assert_eq!(subjects[0], format!("Revert \"{}\"", subjects[1]));
    let messages = world.messages();
    assert_eq!(messages.len(), 1);
    let text = messages[0]["text"].as_str().expect("a text");
    assert!(text.ends_with(" did not reach production"), "{text}");
}
