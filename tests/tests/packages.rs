//! Packages of npm and Python from registries on this machine, as a user's build takes them.
//!
//! The real clients say where the registry is; only their variables name the one of the test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Cursor, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use maestro_tests::{Workspace, executed};
use sha2::{Digest as _, Sha256, Sha512};

/// Serves files by path, in threads that end with the test process.
struct Registry {
    address: String,
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let files: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (served, log) = (files.clone(), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, log) = (served.clone(), log.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
                    let mut first = String::new();
                    let _ = reader.read_line(&mut first);
                    let mut line = String::new();
                    while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                        line.clear();
                    }
                    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                    let body = files.lock().expect("no panic").get(&path).cloned();
                    log.lock().expect("no panic").push(path);
                    let (status, body) = match body {
                        Some(body) => ("200 OK", body),
                        None => ("404 Not Found", Vec::new()),
                    };
                    let mut stream = stream;
                    let head = format!(
                        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/html\r\n\
                         Content-Length: {}\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all(&[head.as_bytes(), &body].concat());
                });
            }
        });
        Self { address, files, asked }
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        self.files.lock().expect("no panic").insert(path.to_owned(), bytes.to_vec());
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().expect("no panic"));
        asked.sort();
        asked
    }
}

/// A registry that is down.
const NOWHERE: &str = "http://127.0.0.1:1/";

/// A workspace whose clients ask `registry` and have downloaded nothing.
fn workspace(registry: &str) -> Workspace {
    let ws = Workspace::new();
    let cache = ws.outside().join("npm").display().to_string();
    std::fs::create_dir_all(&cache).expect("a folder can be made");
    let ws = ws
        .with_env("npm_config_registry", registry)
        .with_env("npm_config_cache", &cache)
        .with_env("PIP_INDEX_URL", &format!("{registry}simple/"))
        .with_env("PIP_CONFIG_FILE", "/dev/null")
        .with_env("PIP_FIND_LINKS", "")
        .with_env("PIP_NO_CACHE_DIR", "1")
        .with_env("PIP_RETRIES", "0");
    ws.write("maestro.toml", "");
    ws
}

fn build(ws: &Workspace, arguments: &[&str]) -> Vec<String> {
    let events = ws.outside().join("events.jsonl");
    let flag = format!("--events={}", events.display());
    let arguments: Vec<&str> = arguments.iter().copied().chain([flag.as_str()]).collect();
    ws.ok(&arguments);
    executed(&events)
}

// --- npm

/// An archive as `npm publish` makes it.
fn package(name: &str, version: &str, script: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let inside = folder.path().join("package");
    std::fs::create_dir(&inside).expect("a folder can be made");
    let manifest = serde_json::json!({"name": name, "version": version, "main": "index.js"});
    std::fs::write(inside.join("package.json"), manifest.to_string()).expect("it can be written");
    std::fs::write(inside.join("index.js"), script).expect("it can be written");
    let output = Command::new("tar")
        .args(["--create", "--gzip", "--mtime=@0", "package"])
        .current_dir(folder.path())
        .output()
        .expect("tar runs");
    assert!(output.status.success());
    output.stdout
}

fn integrity(bytes: &[u8]) -> String {
    format!("sha512-{}", STANDARD.encode(Sha512::digest(bytes)))
}

/// A lock file of packages: name, version, integrity.
fn lock(packages: &[(&str, &str, &str)]) -> String {
    let mut all = serde_json::Map::new();
    all.insert(String::new(), serde_json::json!({"name": "app"}));
    for (name, version, integrity) in packages {
        let entry = serde_json::json!({"version": version, "integrity": integrity});
        all.insert(format!("node_modules/{name}"), entry);
    }
    serde_json::json!({"lockfileVersion": 3, "packages": all}).to_string()
}

const APP: &str = r#"
load("@maestro//rules:node.star", "node_test")
load("@maestro//rules:npm.star", "node_modules", "npm_lock")

npm_lock(name = "npm")
node_modules(name = "greet", lock = ":npm", packages = ["greet"])
node_test(name = "app_test", size = "small", main = "app_test.cjs", node_modules = ":greet")
"#;

const APP_TEST: &str = r#"
const { greet } = require("greet");
require("node:assert").equal(greet("you"), "hello you");
"#;

fn app(ws: &Workspace, lock: &str) {
    ws.write("app/maestro.star", APP);
    ws.write("app/app_test.cjs", APP_TEST);
    ws.write("app/package-lock.json", lock);
}

const GREET: &str = "exports.greet = (name) => `hello ${name}`;\n";

#[test]
fn packages_of_npm_are_downloaded_once_and_then_belong_to_the_cache() {
    let registry = Registry::start();
    let greet = package("greet", "1.0.0", GREET);
    let other = package("@s/other", "1.0.0", "");
    registry.put("/greet/-/greet-1.0.0.tgz", &greet);
    registry.put("/@s/other/-/other-1.0.0.tgz", &other);
    let pins = (integrity(&greet), integrity(&other));
    let ws = workspace(&registry.url());
    app(&ws, &lock(&[("greet", "1.0.0", &pins.0), ("@s/other", "1.0.0", &pins.1)]));
    ws.ok(&["test", "//app/..."]);
    assert_eq!(registry.asked(), ["/@s/other/-/other-1.0.0.tgz", "/greet/-/greet-1.0.0.tgz"]);
    let built = ws.read("maestro-out/shared/app/npm/node_modules/greet/index.js");
    assert_eq!(built, GREET);

    // The registry goes away, and another workspace wants the same.
    let again = workspace(NOWHERE).with_cache(&ws.cache);
    app(&again, &ws.read("app/package-lock.json"));
    assert_eq!(build(&again, &["test", "//app/..."]), [""; 0]);

    // Another version of one package: what does not import it runs not again.
    let newer = package("@s/other", "2.0.0", "");
    registry.put("/@s/other/-/other-2.0.0.tgz", &newer);
    let newer = integrity(&newer);
    ws.write(
        "app/package-lock.json",
        lock(&[("greet", "1.0.0", &pins.0), ("@s/other", "2.0.0", &newer)]),
    );
    // The download, the package, and the tree of all.
    assert_eq!(build(&ws, &["test", "//app/..."]), ["//app:npm"; 3]);
    assert_eq!(registry.asked(), ["/@s/other/-/other-2.0.0.tgz"]);
}

#[test]
fn what_npm_would_refuse_is_refused() {
    let registry = Registry::start();
    let greet = package("greet", "1.0.0", GREET);
    registry.put("/greet/-/greet-1.0.0.tgz", b"something else");
    let pin = integrity(&greet);
    let ws = workspace(&registry.url());
    app(&ws, &lock(&[("greet", "1.0.0", &pin)]));
    let error = ws.fails(1, &["build", "//app:npm"]);
    let expect =
        format!("the file has the SHA-512 {}, pinned is {pin}", integrity(b"something else"));
    assert!(error.contains(&expect), "{error}");

    let down = workspace(NOWHERE);
    app(&down, &lock(&[("greet", "1.0.0", &pin)]));
    let error = down.fails(3, &["build", "//app:npm"]);
    assert!(error.contains("`http://127.0.0.1:1/greet/-/greet-1.0.0.tgz`: the transfer failed"));
    assert!(error.contains("hint: check the network and the proxy settings"), "{error}");
    let error = down.fails(2, &["build", "//app:npm", "--offline"]);
    assert!(error.contains("`npm:greet/1.0.0` is not in the cache"), "{error}");
}

#[test]
fn archives_in_the_workspace_need_no_registry() {
    let ws = workspace(NOWHERE);
    let greet = package("greet", "1.0.0", GREET);
    app(&ws, &lock(&[("greet", "1.0.0", &integrity(&greet))]));
    let text = APP.replace("name = \"npm\"", "name = \"npm\", archives = glob([\"vendor/*.tgz\"])");
    ws.write("app/maestro.star", text);
    ws.write("app/vendor/greet-1.0.0.tgz", &greet);
    ws.ok(&["test", "//app/..."]);
    ws.write("app/vendor/greet-1.0.0.tgz", b"damaged");
    let error = ws.fails(1, &["test", "//app/..."]);
    assert!(error.contains("archive `app/vendor/greet-1.0.0.tgz`: its digest is"), "{error}");
}

// --- Python

/// A wheel with these files and a right list.
fn wheel(name: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let info = format!("{name}-1.0.dist-info");
    let about = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
    let mut all: Vec<(String, String)> =
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    all.push((format!("{info}/WHEEL"), about.to_owned()));
    all.push((format!("{info}/METADATA"), metadata));
    let mut record = String::new();
    for (path, text) in &all {
        let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()));
        record.push_str(&format!("{path},sha256={hash},{}\n", text.len()));
    }
    record.push_str(&format!("{info}/RECORD,,\n"));
    all.push((format!("{info}/RECORD"), record));
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (path, text) in &all {
        writer.start_file(path.as_str(), options).expect("memory");
        writer.write_all(text.as_bytes()).expect("memory");
    }
    writer.finish().expect("memory").into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts a wheel where an index has it.
fn publish(registry: &Registry, name: &str, file: &str, bytes: &[u8]) {
    let hash = sha256(bytes);
    let page = format!("<a href=\"/files/{file}#sha256={hash}\">{file}</a>");
    registry.put(&format!("/simple/{name}/"), page.as_bytes());
    registry.put(&format!("/files/{file}"), bytes);
}

const TOOL: &str = r#"
load("@maestro//rules:pip.star", "pip_lock", "py_console_script_binary")
load("@maestro//rules:py.star", "py_test")

pip_lock(name = "pip")
py_test(name = "greet_test", size = "small", srcs = ["greet_test.py"], deps = [":pip"])
py_console_script_binary(name = "greet", pkg = ":pip")
"#;

const GREET_TEST: &str = r#"
import importlib.metadata
import greet

assert greet.greeting("you") == "hello you"
assert importlib.metadata.version("greet") == "1.0"
"#;

fn tool(ws: &Workspace, requirements: &str) {
    ws.write("tool/maestro.star", TOOL);
    ws.write("tool/greet_test.py", GREET_TEST);
    ws.write("tool/requirements.txt", requirements);
}

fn greet_wheel() -> Vec<u8> {
    let module = "import sys\n\ndef greeting(name):\n    return f\"hello {name}\"\n\n\
                  def main():\n    print(greeting(sys.argv[1]))\n";
    let scripts = "[console_scripts]\ngreet = greet:main\n";
    wheel("greet", &[("greet.py", module), ("greet-1.0.dist-info/entry_points.txt", scripts)])
}

#[test]
fn wheels_are_downloaded_by_pip_and_installed_by_maestro() {
    let registry = Registry::start();
    let greet = greet_wheel();
    publish(&registry, "greet", "greet-1.0-py3-none-any.whl", &greet);
    let ws = workspace(&registry.url());
    let other = "0".repeat(64);
    let requirements =
        format!("greet==1.0 --hash=sha256:{other} \\\n    --hash=sha256:{}\n", sha256(&greet));
    tool(&ws, &requirements);
    ws.ok(&["test", "//tool/..."]);
    assert_eq!(registry.asked(), ["/files/greet-1.0-py3-none-any.whl", "/simple/greet/"]);
    let run = ws.run(&["run", "//tool:greet", "--", "world"]);
    assert_eq!((run.code, run.stdout.trim()), (0, "hello world"), "{}", run.stderr);

    let again = workspace(NOWHERE).with_cache(&ws.cache);
    tool(&again, &requirements);
    assert_eq!(build(&again, &["test", "//tool/..."]), [""; 0]);
}

#[test]
fn what_pip_cannot_get_is_said_in_its_words() {
    let registry = Registry::start();
    publish(&registry, "greet", "greet-1.0-py3-none-any.whl", &greet_wheel());
    publish(&registry, "source", "source-1.0.tar.gz", b"a source distribution");
    let ws = workspace(&registry.url());
    tool(&ws, &format!("greet==1.0 --hash=sha256:{}\n", "0".repeat(64)));
    let error = ws.fails(1, &["build", "//tool:pip"]);
    assert!(error.contains("pip cannot get `greet==1.0`"), "{error}");
    assert!(error.contains("DO NOT MATCH THE HASHES"), "{error}");
    assert!(error.contains("hint: if the release changed on purpose, pin its new digests"));

    tool(&ws, &format!("source==1.0 --hash=sha256:{}\n", sha256(b"a source distribution")));
    let error = ws.fails(3, &["build", "//tool:pip"]);
    assert!(error.contains("hint: only wheels are installed"), "{error}");

    let down = workspace(NOWHERE);
    tool(&down, &format!("greet==1.0 --hash=sha256:{}\n", "0".repeat(64)));
    let error = down.fails(3, &["build", "//tool:pip"]);
    assert!(error.contains("hint: check the network and `pip config list`"), "{error}");
}

#[test]
fn wheels_in_the_workspace_need_no_index() {
    let ws = workspace(NOWHERE);
    let greet = greet_wheel();
    tool(&ws, &format!("greet==1.0 --hash=sha256:{}\n", sha256(&greet)));
    let text = TOOL.replace("name = \"pip\"", "name = \"pip\", wheels = glob([\"*.whl\"])");
    ws.write("tool/maestro.star", text);
    ws.write("tool/greet-1.0-py3-none-any.whl", &greet);
    ws.ok(&["test", "//tool/..."]);
    assert!(Path::new(&ws.root).join("maestro-out/shared/tool").exists());
}
