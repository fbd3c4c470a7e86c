//! Archives as attackers and careless tools make them, written with other code than they are read.

use std::io::{Cursor, Write as _};

use serde_json::{Value, json};

use super::super::Made;
use super::super::fixture::Fixture;
use crate::runner::RunError;

/// A tar entry: name, type, link, content.
type Entry<'a> = (&'a [u8], u8, &'a [u8], &'a [u8]);

fn header((name, kind, link, content): Entry<'_>) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    let put = |bytes: &mut [u8], value: &[u8]| {
        for (to, from) in bytes.iter_mut().zip(value) {
            *to = *from;
        }
    };
    put(&mut header.as_old_mut().name, name);
    put(&mut header.as_old_mut().linkname, link);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o4644);
    header.set_size(content.len() as u64);
    header.set_cksum();
    header
}

fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        builder.append(&header(*entry), entry.3).expect("memory");
    }
    builder.into_inner().expect("memory")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("memory");
    out.finish().expect("memory")
}

fn zip(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, content) in entries {
        let options = ::zip::write::SimpleFileOptions::default();
        if mode & 0o170_000 == 0o120_000 {
            let target = std::str::from_utf8(content).expect("UTF-8");
            writer.add_symlink(*name, target, options).expect("memory");
        } else if name.ends_with('/') {
            writer.add_directory(*name, options).expect("memory");
        } else {
            writer.start_file(*name, options.unix_permissions(*mode)).expect("memory");
            writer.write_all(content).expect("memory");
        }
    }
    writer.finish().expect("memory").into_inner()
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for at in 0..out.len().saturating_sub(from.len()) {
        if out[at..].starts_with(from) {
            out[at..at + to.len()].copy_from_slice(to);
        }
    }
    out
}

fn unpack(archive: &[u8], more: Value) -> (Fixture, Result<Made, RunError>) {
    let mut fixture = Fixture::new();
    fixture.file("a", archive, false);
    let mut request = json!({"archive": "a"});
    for (name, value) in more.as_object().expect("an object") {
        request[name] = value.clone();
    }
    let made = fixture.run("unpack", request);
    (fixture, made)
}

fn check_tree(archive: &[u8], more: Value, expect: &str) {
    let (fixture, made) = unpack(archive, more);
    assert_eq!(fixture.listing(made.expect(expect)), expect);
}

fn check_refused(archive: &[u8], more: Value, expect: &str) {
    let (_, made) = unpack(archive, more);
    let error = made.expect_err(expect);
    assert!(matches!(error, RunError::Failed { .. } | RunError::Refused { .. }), "{error:?}");
    assert_eq!(error.to_string(), expect);
}

#[test]
fn honest_tars() {
    let archive = tar(&[
        (b"pax_global_header", b'g', b"", b"52 comment=0123456789012345678901234567890123456789\n"),
        (b"./", b'5', b"", b""),
        (b"./src/", b'5', b"", b""),
        (b"./src/f", b'0', b"", b"text"),
        (b"src/hard", b'1', b"./src/f", b""),
        (b"src/l", b'2', b"../src/f", b""),
        (b"src/empty/", b'5', b"", b""),
        (b"src/empty/", b'5', b"", b""),
        (b"x", b'x', b"", b"23 path=src/\xc3\xbcber/long\n"),
        (b"short", b'0', b"", b"long"),
        (b"././@LongLink", b'L', b"", b"src/gnu/long\0"),
        (b"short", b'0', b"", b"gnu"),
    ]);
    let expect = "empty/\nf text\ngnu/long gnu\nhard text\nl -> ../src/f\nüber/long long\n";
    let all: String = expect.lines().map(|line| format!("src/{line}\n")).collect();
    check_tree(&archive, json!({}), &all);
    check_tree(&gzip(&archive), json!({"format": "auto"}), &all);
    check_tree(&gzip(&archive), json!({"format": "tar.gz"}), &all);
    let inside = tar(&[(b"src/f", b'0', b"", b"text"), (b"src/l", b'2', b"f", b"")]);
    check_tree(&inside, json!({"strip_prefix": "src"}), "f text\nl -> f\n");
}

#[test]
fn honest_zips() {
    let archive = zip(&[
        ("d/", 0o755, b""),
        ("d/e/", 0o755, b""),
        ("d/x", 0o755, b"program"),
        ("d/f", 0o644, &[b'f'; 100]),
        ("d/l", 0o120_777, b"x"),
    ]);
    let expect = format!("e/\nf {}\nl -> x\nx* program\n", "f".repeat(100));
    check_tree(&archive, json!({"strip_prefix": "d/"}), &expect);
    check_tree(&zip(&[]), json!({}), "");
}

#[test]
fn hostile_tars_are_refused_by_entry() {
    let check = |entries: &[Entry<'_>], why: &str| {
        let expect = format!("archive `a`: {why}");
        check_refused(&tar(entries), json!({}), &expect);
        check_refused(&gzip(&tar(entries)), json!({}), &expect);
    };
    let file = |name: &'static [u8]| (name, b'0', b"".as_slice(), b"x".as_slice());
    let link = |name: &'static [u8], to: &'static [u8]| (name, b'2', to, b"".as_slice());
    let hard = |name: &'static [u8], to: &'static [u8]| (name, b'1', to, b"".as_slice());
    check(&[file(b"/etc/x")], "entry `/etc/x`: `/etc/x` is not a normal relative path");
    check(&[file(b"a/../../x")], "entry `a/../../x`: `a/../../x` is not a normal relative path");
    check(&[file(b"a//b")], "entry `a//b`: `a//b` is not a normal relative path");
    check(&[file(b"a\nb")], "entry `a\\nb`: `a\\nb` has a control character in a name");
    check(&[file(b"a\xff")], "entry `a\\xff`: the name `a\\xff` is not UTF-8");
    check(&[file(b"a"), file(b"a")], "entry `a`: it stands twice");
    check(&[file(b"a"), file(b"./a")], "entry `./a`: it stands twice");
    check(&[file(b"a"), file(b"a/b")], "entry `a/b`: two different things are put at `a`");
    check(&[file(b"a/b"), file(b"a")], "entry `a`: it stands twice");
    check(&[(b"a/", b'5', b"", b""), file(b"a")], "entry `a`: it stands twice");
    check(
        &[file(b"a"), (b"a/", b'5', b"", b"")],
        "entry `a/`: two different things are put at `a`",
    );
    check(&[link(b"l", b"d"), file(b"l/f")], "entry `l/f`: two different things are put at `l`");
    let stays = |name: &str, to: &str| {
        format!("entry `{name}`: the link `{name}` -> `{to}` does not surely stay in the tree")
    };
    check(&[link(b"l", b"/etc")], &stays("l", "/etc"));
    check(&[link(b"d/l", b"../../x")], &stays("d/l", "../../x"));
    check(&[link(b"b", b"."), link(b"l", b"b/../x")], &stays("l", "b/../x"));
    check(&[link(b"l", b"\xff")], "entry `l`: the text of the link is not UTF-8");
    check(
        &[hard(b"h", b"/etc/passwd")],
        "entry `/etc/passwd`: `/etc/passwd` is not a normal relative path",
    );
    let none = "entry `h`: a hard link to `f`, which is no file before it";
    check(&[hard(b"h", b"f"), file(b"f")], none);
    check(&[link(b"f", b"x"), hard(b"h", b"f")], none);
    check(&[(b"n", b'3', b"", b"")], "entry `n`: it is a device");
    check(&[(b"n", b'6', b"", b"")], "entry `n`: it is a named pipe");
    check(&[(b"n", b'S', b"", b"")], "entry `n`: it is a sparse file");
    check(&[(b"n", b'?', b"", b"")], "entry `n`: it is of an unknown type");
    check(&[(b"d/", b'5', b"", b"hidden")], "a folder or link has content");
    check(&[(b"g", b'g', b"", b"10 path=x\n")], "a global header renames or resizes entries");
    check(&[(b"x", b'x', b"", b"99 path=x\n")], "a pax header is malformed");
    check(&[(b"x", b'x', b"", b"11 size=-1\n")], "a pax header has a malformed size");
    check(&[(b"x", b'x', b"", b"22 GNU.sparse.major=1\n")], "sparse files are not supported");
}

#[test]
fn damaged_archives_are_refused() {
    let check = |archive: &[u8], expect: &str| check_refused(archive, json!({}), expect);
    let good = tar(&[(b"f", b'0', b"", &[b'x'; 2000])]);
    check(&good[..1000], "archive `a`: entry `f`: it is cut off");
    check(&replace(&good, b"f\0\0", b"g\0\0"), "archive `a`: a header has a wrong checksum");
    let short = &gzip(&good);
    let (_, made) = unpack(&short[..short.len() - 4], json!({}));
    assert!(matches!(made, Err(RunError::Failed { .. })), "a gzip without its end: {made:?}");
    let known = "supported are tar, tar.gz and zip";
    check(b"\xfd7zXZ\0\0", &format!("archive `a`: xz is not supported; {known}"));
    check(b"\x28\xb5\x2f\xfd", &format!("archive `a`: zstd is not supported; {known}"));
    check(b"#!/bin/sh", &format!("archive `a`: its format is not known; {known}"));
    check(b"", &format!("archive `a`: its format is not known; {known}"));
}

#[test]
fn bombs_do_not_go_off() {
    let entries: Vec<Entry<'_>> = vec![(b"a", b'0', b"", &[0; 600]), (b"b", b'0', b"", &[0; 600])];
    let why = "archive `a`: entry `b`: with it, the archive unpacks to more bytes than are allowed";
    for archive in [tar(&entries), gzip(&tar(&entries))] {
        check_tree_of_bytes(&archive, 1200);
        check_refused(&archive, json!({"bytes_max": 1199}), why);
    }
    let archive = zip(&[("a", 0o644, &[0; 600]), ("b", 0o644, &[0; 600])]);
    check_tree_of_bytes(&archive, 1200);
    check_refused(&archive, json!({"bytes_max": 1199}), why);
    // Larger than what is held in memory, to pass by way of a file.
    let large = vec![7; 3 << 20];
    let archive = tar(&[(b"large", b'0', b"", &large)]);
    check_tree_of_bytes(&archive, 3 << 20);
    let why = why.replace("`b`", "`large`");
    check_refused(&archive, json!({"bytes_max": (3 << 20) - 1}), &why);
}

fn check_tree_of_bytes(archive: &[u8], bytes_max: u64) {
    let (_, made) = unpack(archive, json!({"bytes_max": bytes_max}));
    assert!(made.is_ok(), "{made:?}");
}

#[test]
fn a_long_extension_is_not_held_in_memory() {
    let name = vec![b'n'; 2 << 20];
    let archive = tar(&[(b"././@LongLink", b'L', b"", &name), (b"x", b'0', b"", b"")]);
    check_refused(&archive, json!({}), "archive `a`: an extended header is too large");
}

#[test]
fn hostile_zips_are_refused() {
    let check = |archive: &[u8], expect: &str| {
        check_refused(archive, json!({}), &format!("archive `a`: {expect}"));
    };
    check(&zip(&[("../x", 0o644, b"")]), "entry `../x`: `../x` is not a normal relative path");
    check(&zip(&[("a\\b", 0o644, b"")]), "entry `a\\\\b`: it has a backslash in its name");
    check(
        &zip(&[("l", 0o120_777, b"/etc/passwd")]),
        "entry `l`: the link `l` -> `/etc/passwd` does not surely stay in the tree",
    );
    let two = zip(&[("aaaa", 0o644, b"1"), ("aaab", 0o644, b"2")]);
    check(&replace(&two, b"aaab", b"aaaa"), "two entries have the same name");
    // The second entry of the central directory points at the bytes of the first.
    let mut shared = two.clone();
    let second = shared.windows(4).rposition(|w| w == b"PK\x01\x02").expect("a directory");
    shared[second + 42..second + 46].copy_from_slice(&[0; 4]);
    check(&shared, "two entries share bytes");
    let mut secret = zip(&[("s", 0o644, b"1")]);
    let central = secret.windows(4).rposition(|w| w == b"PK\x01\x02").expect("a directory");
    secret[6] |= 1;
    secret[central + 8] |= 1;
    check(&secret, "entry `s`: it is encrypted");
    let mut pipe = zip(&[("s", 0o644, b"1")]);
    let central = pipe.windows(4).rposition(|w| w == b"PK\x01\x02").expect("a directory");
    pipe[central + 40..central + 42].copy_from_slice(&0o010_644u16.to_le_bytes());
    check(&pipe, "entry `s`: it is neither file, folder nor link");
}

#[test]
fn prefixes_are_stripped_or_refused() {
    let archive = tar(&[(b"src-1/f", b'0', b"", b""), (b"other", b'0', b"", b"")]);
    check_refused(
        &archive,
        json!({"strip_prefix": "src-1"}),
        "archive `a`: entry `other`: it lies outside `src-1`",
    );
    let file = tar(&[(b"src-1", b'0', b"", b"")]);
    check_refused(
        &file,
        json!({"strip_prefix": "src-1"}),
        "archive `a`: entry `src-1`: it stands where a folder is stripped",
    );
    check_refused(
        &file,
        json!({"strip_prefix": "../x"}),
        "field `strip_prefix`: `../x` is not a normal relative path",
    );
}

/// Whatever the bytes are: a tree or an error, never a panic.
#[test]
fn mutations_are_survived() {
    let entries: [Entry<'_>; 4] = [
        (b"d/", b'5', b"", b""),
        (b"x", b'x', b"", b"14 path=d/pax\n"),
        (b"d/f", b'0', b"", b"some text"),
        (b"d/l", b'2', b"f", b""),
    ];
    let tar = tar(&entries);
    let zip = zip(&[("d/", 0o755, b""), ("d/f", 0o755, &[7; 300]), ("d/l", 0o120_777, b"f")]);
    let mut state = 7u32;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    let mut fixture = Fixture::new();
    let mut round = 0;
    for (archive, format) in [(&tar, "tar"), (&gzip(&tar), "tar.gz"), (&zip, "zip")] {
        for _ in 0..300 {
            let mut bytes = archive.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] = [0, 0xff, bytes[at] ^ (1 << random(8))][random(3)];
            }
            round += 1;
            let path = format!("archive/{round}");
            fixture.file(&path, &bytes, false);
            let made = fixture.run("unpack", json!({"archive": path, "format": format}));
            let is_expected = matches!(made, Ok(_) | Err(RunError::Failed { .. }));
            assert!(is_expected, "round {round} of {format}: {made:?}");
            fixture.forget(&path);
        }
    }
}

/// Installs a package whose archive is `bytes`, with `bin/run` as its program.
fn package(bytes: &[u8]) -> Result<String, String> {
    use base64::Engine as _;
    use sha2::Digest as _;
    let hash = sha2::Sha512::digest(bytes);
    let integrity = base64::engine::general_purpose::STANDARD.encode(hash);
    package_of(bytes, &format!("sha512-{integrity}"))
}

fn package_of(bytes: &[u8], integrity: &str) -> Result<String, String> {
    let mut fixture = Fixture::new();
    fixture.file("p/a.tgz", bytes, false);
    let request = json!({"archive": "p/a.tgz", "integrity": integrity, "programs": ["bin/run"]});
    let made = fixture.run("npm-package", request).map_err(|error| error.to_string())?;
    Ok(fixture.listing(made))
}

#[test]
fn packages_of_npm_lose_their_first_folder_and_their_links() {
    let archive = gzip(&tar(&[
        (b"package/package.json", b'0', b"", b"{}"),
        (b"package/bin/run", b'0', b"", b"#!"),
        (b"other/lib/a.js", b'0', b"", b"a"),
        (b"package/lib/link.js", b'2', b"/etc/passwd", b""),
        (b"package/lib/hard.js", b'1', b"../../../etc/passwd", b""),
        (b"package/lib/a.js", b'0', b"", b"a"),
        (b"package/lib/A.js", b'0', b"", b"another"),
        (b"stray", b'0', b"", b"no folder"),
    ]));
    let expect = "bin/run* #!\nlib/A.js another\nlib/a.js a\npackage.json {}\n";
    assert_eq!(package(&archive).as_deref(), Ok(expect));
}

#[test]
fn hostile_packages_of_npm_are_refused() {
    let check = |entries: &[Entry<'_>], expect: &str| {
        let error = package(&gzip(&tar(entries))).expect_err(expect);
        assert!(error.contains(expect), "{error}");
    };
    check(&[(b"package/../../evil", b'0', b"", b"")], "entry `package/../../evil`");
    check(&[(b"/etc/evil", b'0', b"", b"")], "entry `/etc/evil`");
    check(&[(b"package/dev", b'3', b"", b"")], "it is a device");
    check(
        &[(b"package/a", b'0', b"", b"1"), (b"package/a", b'0', b"", b"2")],
        "two different things are put at `a`",
    );
    check(
        &[(b"package/a", b'0', b"", b"1"), (b"package/a/b", b'0', b"", b"2")],
        "entry `package/a/b`",
    );
    let error = package(b"not an archive").expect_err("not an archive");
    assert!(error.starts_with("archive `p/a.tgz`: "), "{error}");
}

#[test]
fn a_package_of_npm_is_the_pinned_one() {
    let archive = gzip(&tar(&[(b"package/a", b'0', b"", b"1")]));
    let other = "sha512-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\
                 AAAAAAAAAAAAAA==";
    let error = package_of(&archive, other).expect_err("another digest");
    assert!(error.ends_with(&format!(", pinned is {other}")), "{error}");
    let error = package_of(&archive, "sha1-AAAA").expect_err("no digest");
    assert_eq!(error, "field `integrity`: `sha1-AAAA` is not of the form `sha512-BASE64`");
}
