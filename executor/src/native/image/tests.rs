//! Layouts are read back as another tool would, and checked against the specification.

use std::collections::BTreeSet;
use std::io::Read as _;

use maestro_core::DigestFunction;
use maestro_core::merkle::Node;
use serde_json::{Value, json};

use super::super::Made;
use super::super::fixture::{Fixture, Thing};

/// The files of a layout by path.
struct Layout(Vec<(String, Vec<u8>)>);

impl Layout {
    fn of(fixture: &Fixture, made: Made) -> Self {
        let Made::Tree { root } = made else { panic!("a tree is expected") };
        let entries = fixture.store.tree_files(&root).expect("in the store");
        let file = |node: &Node| match node {
            Node::File { digest, executable: false } => fixture.store.read(digest).expect("read"),
            other => panic!("a layout has plain files only: {other:?}"),
        };
        Self(entries.iter().map(|entry| (entry.path.clone(), file(&entry.node))).collect())
    }

    fn bytes(&self, path: &str) -> &[u8] {
        let found = self.0.iter().find(|(name, _)| name == path);
        &found.unwrap_or_else(|| panic!("`{path}` is missing")).1
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(self.bytes(path)).expect("JSON")
    }

    /// The blob of a descriptor, whose digest and size are checked.
    fn blob(&self, descriptor: &Value) -> &[u8] {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let hex = digest.strip_prefix("sha256:").expect("SHA-256");
        let bytes = self.bytes(&format!("blobs/sha256/{hex}"));
        let actual = DigestFunction::Sha256.digest(bytes);
        assert_eq!((actual.hex().as_str(), Some(actual.size)), (hex, descriptor["size"].as_u64()));
        bytes
    }

    /// Checks everything that the specification demands; gives manifest, configuration and tars.
    fn check(&self) -> (Value, Value, Vec<Vec<u8>>) {
        assert_eq!(self.json("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}));
        let index = self.json("index.json");
        assert_eq!(index["schemaVersion"], 2);
        assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
        let [descriptor] = index["manifests"].as_array().expect("a list").as_slice() else {
            panic!("one manifest is expected: {index}");
        };
        assert_eq!(descriptor["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        let manifest: Value = serde_json::from_slice(self.blob(descriptor)).expect("JSON");
        assert_eq!(manifest["mediaType"], descriptor["mediaType"]);
        let config: Value = serde_json::from_slice(self.blob(&manifest["config"])).expect("JSON");
        assert_eq!(descriptor["platform"]["os"], config["os"]);
        assert_eq!(descriptor["platform"]["architecture"], config["architecture"]);
        let layers = manifest["layers"].as_array().expect("a list");
        let diff_ids = config["rootfs"]["diff_ids"].as_array().expect("a list");
        assert_eq!(config["rootfs"]["type"], "layers");
        assert_eq!(layers.len(), diff_ids.len());
        assert_eq!(layers.len(), config["history"].as_array().expect("a list").len());
        let mut tars = Vec::new();
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
            let mut tar = Vec::new();
            flate2::read::MultiGzDecoder::new(self.blob(layer))
                .read_to_end(&mut tar)
                .expect("gzip");
            let digest = DigestFunction::Sha256.digest(&tar).hex();
            assert_eq!(diff_id.as_str(), Some(format!("sha256:{digest}").as_str()));
            tars.push(tar);
        }
        let mut named: BTreeSet<String> = ["oci-layout", "index.json"].map(String::from).into();
        let blobs = layers.iter().chain([&manifest["config"], descriptor]);
        named.extend(
            blobs
                .map(|d| d["digest"].as_str().expect("text").replace(':', "/"))
                .map(|path| format!("blobs/{path}")),
        );
        let there: BTreeSet<String> = self.0.iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(there, named, "nothing is missing and nothing lies around");
        (manifest, config, tars)
    }
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = ::tar::Archive::new(tar);
    let entries = archive.entries().expect("a tar");
    let name = |entry: std::io::Result<::tar::Entry<'_, _>>| {
        String::from_utf8(entry.expect("an entry").path_bytes().into_owned()).expect("UTF-8")
    };
    entries.map(name).collect()
}

fn fixture() -> Fixture {
    fill(Fixture::new())
}

fn fill(mut fixture: Fixture) -> Fixture {
    fixture.tree(
        ".maestro/toolchain/0",
        &[("usr/bin/python3", Thing::Program(b"py")), ("lib", Thing::Link("/usr/lib"))],
    );
    fixture.tree("app", &[("app/main.py", Thing::File(b"print()"))]);
    let entries = json!([{"path": "data/index", "content": "index"}]);
    let plain = fixture.run("tar", json!({"entries": entries})).expect("a tar");
    fixture.made("plain.tar", plain);
    let request = json!({"entries": entries, "compression": "gzip", "mtime": 5});
    let packed = fixture.run("tar", request).expect("a tar");
    fixture.made("packed.tar.gz", packed);
    fixture
}

fn request() -> Value {
    json!({
        "layers": [".maestro/toolchain/0", "app", "plain.tar", "packed.tar.gz"],
        "platform": {"os": "linux", "architecture": "amd64"},
        "config": {
            "entrypoint": ["/usr/bin/python3", "-B", "/app/main.py"],
            "cmd": ["--port", "8080"],
            "env": {"PATH": "/usr/bin", "A": "1=2"},
            "workdir": "/app",
            "user": "65532:65532",
            "labels": {"title": "t"},
            "exposed_ports": ["8080/tcp"],
        },
        "reference": "latest",
    })
}

#[test]
fn a_layout_is_what_the_specification_says() {
    let fixture = fixture();
    let made = fixture.run("oci-image", request()).expect("a good request");
    let layout = Layout::of(&fixture, made);
    let (_, config, tars) = layout.check();
    let expect = json!({
        "User": "65532:65532",
        "ExposedPorts": {"8080/tcp": {}},
        "Env": ["A=1=2", "PATH=/usr/bin"],
        "Entrypoint": ["/usr/bin/python3", "-B", "/app/main.py"],
        "Cmd": ["--port", "8080"],
        "WorkingDir": "/app",
        "Labels": {"title": "t"},
    });
    assert_eq!(config["config"], expect);
    assert_eq!(config["created"], "1970-01-01T00:00:00Z");
    let index = layout.json("index.json");
    let name = &index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"];
    assert_eq!(name, "latest");
    let listed: Vec<Vec<String>> = tars.iter().map(|tar| names(tar)).collect();
    assert_eq!(listed[0], ["lib", "usr/", "usr/bin/", "usr/bin/python3"]);
    assert_eq!(listed[1], ["app/", "app/main.py"]);
    assert_eq!(listed[2], ["data/", "data/index"]);
    assert_eq!(listed[2], listed[3]);
}

/// Another digest here means other bytes: bump the semantics of `oci-image`.
#[test]
fn bytes_are_golden_whatever_the_cache_hashes_with() {
    for function in [DigestFunction::Blake3, DigestFunction::Sha256] {
        let fixture = fill(Fixture::with(function));
        let made = fixture.run("oci-image", request()).expect("a good request");
        let index = DigestFunction::Sha256.digest(Layout::of(&fixture, made).bytes("index.json"));
        let expect = "b7e0d6b4c481951b9b1918a2e3245530b7ae41ce0b538302c624cef6fc5cc308";
        assert_eq!(index.hex(), expect, "{function:?}");
    }
}

#[test]
fn a_base_is_inherited() {
    let mut fixture = fixture();
    let base = fixture.run("oci-image", request()).expect("a good request");
    fixture.made("base", base);
    let made = fixture.run(
        "oci-image",
        json!({
            "base": "base",
            "layers": ["app"],
            "platform": {"os": "linux", "architecture": "amd64", "variant": "v2"},
            "config": {"entrypoint": ["/app/other"], "env": {"A": "3", "B": "4"}, "user": "0"},
            "created": 86400,
        }),
    );
    let (manifest, config, tars) = Layout::of(&fixture, made.expect("a good base")).check();
    assert_eq!(tars.len(), 5);
    let (base_manifest, _, _) = Layout::of(&fixture, base).check();
    let layers = manifest["layers"].as_array().expect("a list");
    assert_eq!(layers[..4], base_manifest["layers"].as_array().expect("a list")[..]);
    let expect = json!({
        "User": "0",
        "ExposedPorts": {"8080/tcp": {}},
        "Env": ["A=3", "PATH=/usr/bin", "B=4"],
        "Entrypoint": ["/app/other"],
        "WorkingDir": "/app",
        "Labels": {"title": "t"},
    });
    assert_eq!(config["config"], expect);
    assert_eq!(config["variant"], "v2");
    assert_eq!(config["created"], "1970-01-02T00:00:00Z");
}

#[test]
fn bad_requests_say_what_is_wrong() {
    let mut fixture = fixture();
    fixture.file("text", b"text", false);
    let check = |field: &str, value: Value, expect: &str| {
        let mut request = request();
        match field.split_once('.') {
            Some((outer, inner)) => request[outer][inner] = value,
            None => request[field] = value,
        }
        let error = fixture.run("oci-image", request).expect_err(expect);
        assert_eq!(error.to_string(), expect);
    };
    check("layers", json!([]), "field `layers`: an image has at least one layer");
    check("layers", json!(["no"]), "field `layers[0]`: `no` is not an input of the action");
    check(
        "layers",
        json!(["text"]),
        "archive `text`: a layer is a folder, a tar or a tar compressed with gzip",
    );
    check("platform.os", json!(""), "field `platform.os`: it is empty");
    check(
        "config.exposed_ports",
        json!(["08080"]),
        "field `config.exposed_ports`: `08080` is not a port such as `8080/tcp`",
    );
    check(
        "config.env",
        json!({"A=B": ""}),
        "field `config.env`: `A=B` is not a variable with a value",
    );
    check("created", json!(1u64 << 33), "field `created`: 8589934592 is larger than 8589934591");
    check("base", json!("app"), "image layout `app`: it has no file `oci-layout`");
    check(
        "base",
        json!("plain.tar"),
        "field `base`: `plain.tar` is a file, not an image layout; unpack it first",
    );
}

#[test]
fn a_base_is_not_believed() {
    let fixture = fixture();
    let made = fixture.run("oci-image", request()).expect("a good request");
    let layout = Layout::of(&fixture, made);
    let (manifest, _, _) = layout.check();
    let blob =
        |digest: &Value| format!("blobs/{}", digest.as_str().expect("text").replace(':', "/"));
    let layer = blob(&manifest["layers"][1]["digest"]);
    let config = blob(&manifest["config"]["digest"]);
    let check = |path: &str, content: Option<&[u8]>, expect: &str| {
        let kept = layout.0.iter().filter(|(name, _)| content.is_some() || name != path);
        let things: Vec<(&str, Thing<'_>)> = kept
            .map(|(name, bytes)| match content {
                Some(content) if name == path => (name.as_str(), Thing::File(content)),
                _ => (name.as_str(), Thing::File(bytes)),
            })
            .collect();
        let mut fixture = Fixture::new();
        fixture.tree("base", &things);
        fixture.tree("app", &[("f", Thing::File(b"f"))]);
        let request = json!({
            "base": "base",
            "layers": ["app"],
            "platform": {"os": "linux", "architecture": "amd64"},
        });
        let error = fixture.run("oci-image", request).expect_err(expect).to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(&layer, Some(b"other"), "image layout `base`: blob `sha256:");
    check(&layer, None, "image layout `base`: it has no file `blobs/sha256/");
    check(&config, Some(b"{}"), "has the digest `sha256:44136fa355b3678a");
    check("oci-layout", Some(br#"{"imageLayoutVersion":"2.0"}"#), "version `2.0` is not known");
    check("index.json", Some(br#"{"schemaVersion":2,"manifests":[]}"#), "it has 0 manifests");
    check("index.json", Some(b"[]"), "`index.json`: invalid length 0");
}
