//! `manifest`: checksums of files, as `sha256sum` reads them or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use maestro_core::path::RelPath;
use serde::Serialize;

use super::compose::{Composition, Item};
use super::inputs::Found;
use super::request::{self, ManifestFormat};
use super::{Made, NativeError, Step, scratch};

/// The name under which a tree's files are listed without a folder before them.
const ROOT: &str = ".";

/// `manifest`: see the module.
pub(super) fn manifest(step: &Step<'_>) -> Result<Made, NativeError> {
    let request::Manifest { format, files } = step.request()?;
    let mut list = List { step, lines: BTreeMap::new() };
    for (index, file) in files.iter().enumerate() {
        list.add(file, &format!("files[{index}]"))?;
    }
    let text = match format {
        ManifestFormat::Sha256sums => sha256sums(&list.lines),
        ManifestFormat::Json => json(list.lines)?,
    };
    let digest = step.store.put_bytes(text.as_bytes())?;
    Ok(Made::File { digest, executable: false })
}

/// What is said of one name.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Line {
    File { sha256: String, size: u64, executable: bool },
    Link { link: String },
}

struct List<'a, 'b> {
    step: &'a Step<'b>,
    lines: BTreeMap<String, Line>,
}

impl List<'_, '_> {
    fn add(&mut self, file: &request::ManifestFile, field: &str) -> Result<(), NativeError> {
        let request::ManifestFile { name, from } = file;
        let name_field = format!("{field}.name");
        if name != ROOT {
            RelPath::new(name)
                .map_err(|error| NativeError::field(&name_field, error.to_string()))?;
        }
        match self.step.inputs.find(&format!("{field}.from"), from)? {
            Found::File { .. } if name == ROOT => {
                Err(NativeError::field(name_field, "a file needs a name of its own"))
            }
            Found::File { digest, executable } => {
                self.line(name.clone(), Item::File { digest, executable })
            }
            Found::Tree { root, .. } => {
                let tree = Composition::of_tree(self.step.store, root);
                tree.walk(&mut |path, item| {
                    let name =
                        if name == ROOT { path.to_owned() } else { format!("{name}/{path}") };
                    self.line(name, item)
                })
            }
        }
    }

    fn line(&mut self, name: String, item: Item<'_>) -> Result<(), NativeError> {
        self.step.check_cancelled()?;
        let line = match item {
            Item::Folder => return Ok(()),
            Item::Link(target) => Line::Link { link: target.to_owned() },
            Item::File { digest, executable } => {
                let sha256 = scratch::sha256(self.step.store, &digest, self.step.cancel)?;
                Line::File { sha256: sha256.hex(), size: sha256.size, executable }
            }
        };
        match self.lines.insert(name.clone(), line) {
            None => Ok(()),
            Some(_) => Err(NativeError::Clash { path: name }),
        }
    }
}

/// Lines of GNU coreutils: names with a backslash are escaped, and their line begins with one.
fn sha256sums(lines: &BTreeMap<String, Line>) -> String {
    let mut out = String::new();
    for (name, line) in lines {
        let Line::File { sha256, .. } = line else { continue };
        let escaped = name.replace('\\', "\\\\");
        let mark = if escaped == *name { "" } else { "\\" };
        writeln!(out, "{mark}{sha256}  {escaped}").expect("writing to a string does not fail");
    }
    out
}

fn json(lines: BTreeMap<String, Line>) -> Result<String, NativeError> {
    #[derive(Serialize)]
    struct Named {
        name: String,
        #[serde(flatten)]
        line: Line,
    }
    #[derive(Serialize)]
    struct Document {
        files: Vec<Named>,
    }
    let files = lines.into_iter().map(|(name, line)| Named { name, line }).collect();
    let text = serde_json::to_string_pretty(&Document { files });
    text.map(|text| text + "\n")
        .map_err(|error| NativeError::Internal { message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::json;

    use super::super::fixture::{Fixture, Thing};

    fn fixture() -> Fixture {
        let mut fixture = Fixture::new();
        fixture.file("f", b"f", true);
        fixture.tree("t", &[("d/back\\slash", Thing::File(b"")), ("d/l", Thing::Link("x"))]);
        fixture
    }

    #[test]
    fn json_lists_everything() {
        let files = json!([{"name": "z/f", "from": "f"}, {"name": ".", "from": "t"}]);
        let fixture = fixture();
        let made = fixture.run("manifest", json!({"format": "json", "files": files}));
        let text = String::from_utf8(fixture.bytes(made.expect("good files"))).expect("UTF-8");
        let expect = r#"{
  "files": [
    {
      "name": "d/back\\slash",
      "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      "size": 0,
      "executable": false
    },
    {
      "name": "d/l",
      "link": "x"
    },
    {
      "name": "z/f",
      "sha256": "252f10c83610ebca1a059c0bae8255eba2f95be4d1d7bcfa89d7248a82d9f111",
      "size": 1,
      "executable": true
    }
  ]
}
"#;
        assert_eq!(text, expect);
    }

    #[test]
    fn sha256sum_checks_it() {
        let fixture = fixture();
        let files = json!([{"name": "f", "from": "f"}, {"name": "t", "from": "t"}]);
        let made = fixture.run("manifest", json!({"format": "sha256sums", "files": files}));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |path: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(path), bytes).expect("written");
        };
        std::fs::create_dir_all(folder.path().join("t/d")).expect("made");
        write("SHA256SUMS", &fixture.bytes(made.expect("good files")));
        write("f", b"f");
        write("t/d/back\\slash", b"");
        let check = Command::new("sha256sum")
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(folder.path())
            .output()
            .expect("sha256sum is installed");
        let text = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(check.status.success(), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn names_stand_once() {
        let fixture = fixture();
        let check = |files, expect: &str| {
            let request = json!({"format": "json", "files": files});
            let error = fixture.run("manifest", request).expect_err(expect);
            assert_eq!(error.to_string(), expect);
        };
        check(
            json!([{"name": "a", "from": "f"}, {"name": "a", "from": "f"}]),
            "two different things are put at `a`",
        );
        check(
            json!([{"name": ".", "from": "f"}]),
            "field `files[0].name`: a file needs a name of its own",
        );
        check(
            json!([{"name": "/a", "from": "f"}]),
            "field `files[0].name`: `/a` is not a normal relative path",
        );
    }
}
