//! Wheels as tools make them, and as attackers would.

use std::io::{Cursor, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maestro_core::DigestFunction;
use serde_json::json;

use super::super::fixture::Fixture;

const INFO: &str = "pkg-1.0.dist-info";
const WHEEL: &str = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n";

/// A zip of files; a link where the text begins with `->`.
fn zip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = ::zip::write::SimpleFileOptions::default();
    for (name, content) in files {
        match content.strip_prefix("->") {
            Some(target) => writer.add_symlink(*name, target, options).expect("memory"),
            None => {
                writer.start_file(*name, options).expect("memory");
                writer.write_all(content.as_bytes()).expect("memory");
            }
        }
    }
    writer.finish().expect("memory").into_inner()
}

fn record(files: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, content) in files {
        let hash = URL_SAFE_NO_PAD.encode(DigestFunction::Sha256.digest(content.as_bytes()).hash);
        text.push_str(&format!("{name},sha256={hash},{}\n", content.len()));
    }
    text.push_str(&format!("{INFO}/RECORD,,\n"));
    text
}

/// A whole wheel with a right list.
fn wheel(files: &[(&str, &str)]) -> Vec<u8> {
    let info = format!("{INFO}/WHEEL");
    let mut all: Vec<(&str, &str)> = files.to_vec();
    if !all.iter().any(|(name, _)| *name == info) {
        all.push((&info, WHEEL));
    }
    let record = record(&all);
    let name = format!("{INFO}/RECORD");
    all.push((&name, &record));
    zip(&all)
}

fn install(bytes: &[u8]) -> Result<String, String> {
    let mut fixture = Fixture::new();
    fixture.file("p/pkg.whl", bytes, false);
    let sha256 = DigestFunction::Sha256.digest(bytes).hex();
    install_as(&mut fixture, &sha256)
}

fn install_as(fixture: &mut Fixture, sha256: &str) -> Result<String, String> {
    let request = json!({
        "archive": "p/pkg.whl", "interpreter": "/usr/bin/python3", "sha256": [sha256],
    });
    let made = fixture.run("wheel", request).map_err(|error| error.to_string())?;
    Ok(fixture.listing(made))
}

#[test]
fn every_part_goes_where_the_format_says() {
    let entry_points = format!("{INFO}/entry_points.txt");
    let listing = install(&wheel(&[
        ("pkg/__init__.py", "x = 1\n"),
        ("pkg-1.0.data/scripts/run", "#!python\nprint(1)\n"),
        ("pkg-1.0.data/purelib/pure.py", "p"),
        ("pkg-1.0.data/data/share/doc.txt", "d"),
        ("pkg-1.0.data/headers/pkg.h", "h"),
        (&entry_points, "[console_scripts]\npkg = pkg:main\n"),
    ]))
    .expect("a good wheel");
    let has = |line: &str| assert!(listing.lines().any(|l| l == line), "`{line}`:\n{listing}");
    has("bin/pkg* #!/usr/bin/python3");
    has("bin/run* #!/usr/bin/python3");
    has("include/pkg.h h");
    has("lib/pkg/__init__.py x = 1");
    has("lib/pure.py p");
    has("share/doc.txt d");
    has(&format!("lib/{INFO}/WHEEL Wheel-Version: 1.0"));
}

#[test]
fn a_wheel_is_a_pinned_one() {
    let bytes = wheel(&[("a.py", "a")]);
    let mut fixture = Fixture::new();
    fixture.file("p/pkg.whl", &bytes, false);
    let actual = DigestFunction::Sha256.digest(&bytes).hex();
    let error = install_as(&mut fixture, &"0".repeat(64)).expect_err("another digest");
    let expect = format!("archive `p/pkg.whl`: its SHA-256 is {actual}, which is not pinned");
    assert_eq!(error, expect);
}

#[test]
fn the_list_must_be_right() {
    let check = |bytes: &[u8], expect: &str| {
        assert_eq!(install(bytes).expect_err(expect), format!("archive `p/pkg.whl`: {expect}"));
    };
    let info = format!("{INFO}/WHEEL");
    let list = format!("{INFO}/RECORD");
    let good = record(&[("a.py", "a"), (&info, WHEEL)]);
    let with = |record: &str, a: &str| zip(&[("a.py", a), (&info, WHEEL), (&list, record)]);
    assert!(install(&with(&good, "a")).is_ok());
    let error = install(&with(&good, "b")).expect_err("another content");
    assert!(error.starts_with("archive `p/pkg.whl`: `a.py` has the SHA-256 "), "{error}");
    check(&with(&record(&[(&info, WHEEL)]), "a"), "`a.py` is not in its `RECORD`");
    check(
        &with(&record(&[("a.py", "a"), ("b.py", "b"), (&info, WHEEL)]), "a"),
        "its `RECORD` names `b.py`, which is not there",
    );
    check(
        &with(&good.replace("a.py,sha256=", "a.py,md5="), "a"),
        &format!(
            "`RECORD` has the digest `md5={}` of `a.py`; supported is `sha256=…`",
            URL_SAFE_NO_PAD.encode(DigestFunction::Sha256.digest(b"a").hash)
        ),
    );
    check(&with("a.py,,\n", "a"), "`RECORD` has no digest of `a.py`");
    check(&with(&format!("{good}a.py,,\n"), "a"), "`RECORD` names `a.py` twice");
    check(&zip(&[(&info, WHEEL)]), &format!("it has no `{INFO}/RECORD`"));
}

#[test]
fn what_is_no_wheel_is_refused() {
    let check = |bytes: &[u8], expect: &str| {
        let error = install(bytes).expect_err(expect);
        assert!(error.contains(expect), "{error}");
    };
    check(&zip(&[("a.py", "a")]), "no folder `NAME-VERSION.dist-info`");
    check(
        &wheel(&[("other-2.dist-info/WHEEL", WHEEL)]),
        "it has both `other-2.dist-info` and `pkg-1.0.dist-info`",
    );
    let info = format!("{INFO}/WHEEL");
    check(&wheel(&[(&info, "Wheel-Version: 2.0\n")]), "has the version `2.0`");
    check(&wheel(&[(&info, "Tag: x\n")]), "does not say its version");
    check(&wheel(&[("../evil.py", "x")]), "entry `../evil.py`");
    check(&wheel(&[("/etc/evil.py", "x")]), "entry `/etc/evil.py`");
    check(&wheel(&[("link", "->/etc/passwd")]), "link");
    check(&wheel(&[("link", "->a.py"), ("a.py", "a")]), "a wheel has no links");
    check(&wheel(&[("pkg-1.0.data/odd/x", "x")]), "is in no known part");
    check(
        &wheel(&[("pkg-1.0.data/purelib/a.py", "1"), ("a.py", "2")]),
        "two different things are put at `lib/a.py`",
    );
    check(b"PK\x03\x04garbage", "archive `p/pkg.whl`");
}
