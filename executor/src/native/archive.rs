//! `tar`: archives whose bytes are a function of their entries alone, and the layers of images.

use std::io::{self, Write};

use maestro_cas::Store;
use maestro_core::Digest;

use super::compose::{Composition, Item, LinkRule};
use super::gzip::GzipWriter;
use super::request::{self, Compression};
use super::scratch::{BlobReader, Measured, ScratchFile, io_failure};
use super::tar_writer::{OCTAL_7_MAX, OCTAL_11_MAX, Stamp, TarWriter};
use super::{Made, NativeError, Step};

/// `tar`: an archive of composed entries.
pub(super) fn tar(step: &Step<'_>) -> Result<Made, NativeError> {
    let request::Tar { entries, compression, mtime, uid, gid } = step.request()?;
    let stamp = Stamp {
        mtime: bounded("mtime", mtime, OCTAL_11_MAX)?,
        uid: bounded("uid", uid, OCTAL_7_MAX)?,
        gid: bounded("gid", gid, OCTAL_7_MAX)?,
    };
    let mut composition = Composition::new(step.store, LinkRule::Any);
    composition.put_entries(&step.inputs, &entries)?;
    let scratch = ScratchFile::create(step.store)?;
    let scratch = match compression.unwrap_or_default() {
        Compression::None => write_tar(step, &composition, stamp, scratch)?,
        Compression::Gzip => {
            let gzip = GzipWriter::new(scratch).map_err(write_error(step.store))?;
            write_tar(step, &composition, stamp, gzip)?.finish().map_err(write_error(step.store))?
        }
    };
    Ok(Made::File { digest: scratch.adopt()?, executable: false })
}

/// A compressed layer in the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer {
    /// Its blob, as the store names it.
    pub(super) blob: Digest,
    /// The SHA-256 of the blob.
    pub(super) sha256: Digest,
    /// The SHA-256 of the tar inside.
    pub(super) diff_id: Digest,
}

/// Makes a layer of a whole tree.
pub(super) fn tree_layer(
    step: &Step<'_>,
    root: Digest,
    stamp: Stamp,
) -> Result<Layer, NativeError> {
    let composition = Composition::of_tree(step.store, root);
    compressed(step, |out| write_tar(step, &composition, stamp, out))
}

/// Compresses what `fill` writes, and measures it before and after.
pub(super) fn compressed<'a, F>(step: &Step<'a>, fill: F) -> Result<Layer, NativeError>
where
    F: FnOnce(LayerWriter<'a>) -> Result<LayerWriter<'a>, NativeError>,
{
    let scratch = Measured::new(ScratchFile::create(step.store)?);
    let gzip = GzipWriter::new(scratch).map_err(write_error(step.store))?;
    let (gzip, diff_id) = fill(Measured::new(gzip))?.finish();
    let (scratch, sha256) = gzip.finish().map_err(write_error(step.store))?.finish();
    Ok(Layer { blob: scratch.adopt()?, sha256, diff_id })
}

/// What the tar of a layer is written to.
pub(super) type LayerWriter<'a> = Measured<GzipWriter<Measured<ScratchFile<'a>>>>;

fn write_tar<W: Write>(
    step: &Step<'_>,
    composition: &Composition<'_>,
    stamp: Stamp,
    out: W,
) -> Result<W, NativeError> {
    let mut tar = TarWriter::new(out, stamp);
    composition.walk(&mut |path, item| {
        step.check_cancelled()?;
        match item {
            Item::Folder => tar.folder(path),
            Item::Link(target) => tar.link(path, target),
            Item::File { digest, executable } => {
                let blob = BlobReader::open(step.store, &digest, step.cancel)?;
                tar.file(path, executable, digest.size, blob)
            }
        }
        .map_err(write_error(step.store))
    })?;
    tar.finish().map_err(write_error(step.store))
}

fn bounded(field: &str, value: Option<u64>, max: u64) -> Result<u64, NativeError> {
    match value.unwrap_or(0) {
        value if value <= max => Ok(value),
        value => Err(NativeError::field(field, format!("{value} is larger than {max}"))),
    }
}

/// The error of writing an archive, which goes to a file in the scratch folder.
pub(super) fn write_error(store: &Store) -> impl Fn(io::Error) -> NativeError + '_ {
    |error| io_failure(error, |source| NativeError::Scratch { path: store.scratch_dir(), source })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use maestro_core::DigestFunction;
    use serde_json::{Value, json};

    use super::super::fixture::{Fixture, Thing};
    use crate::native::Made;

    /// Everything that a tar has to say: long names and links, other scripts, modes, empty folders.
    fn fixture() -> (Fixture, Value) {
        let mut fixture = Fixture::new();
        fixture.file("p/a.txt", b"text\n", false);
        fixture.tree("t", &[("bin/x", Thing::Program(b"x")), ("bin/l", Thing::Link("x"))]);
        let long = format!("{}/{}", "d".repeat(120), "n".repeat(160));
        let entries = json!([
            {"path": "z", "from": "p/a.txt"},
            {"path": "usr", "from": "t"},
            {"path": "var/empty", "folder": true},
            {"path": long, "content": "long"},
            {"path": "ünïcode", "link": format!("/{}", "t".repeat(150))},
            {"path": "bin", "link": "usr/bin"},
        ]);
        (fixture, entries)
    }

    /// Another digest here means other bytes: bump the semantics of `tar` and `oci-image`.
    #[test]
    fn bytes_are_golden() {
        let (fixture, entries) = fixture();
        let check = |compression: &str, expect: &str| {
            let made = fixture.run("tar", json!({"entries": entries, "compression": compression}));
            let bytes = fixture.bytes(made.expect("good entries"));
            let digest = DigestFunction::Sha256.digest(&bytes);
            assert_eq!(digest.hex(), expect, "{compression}");
        };
        check("none", "3085b89f8acf74092da9ff5786d1213f0cf6dab3ee9a41a5b55c30e0b160c617");
        check("gzip", "f1921a99bd038e944ce8af94171a51cfa304e31bb5e06e4d9cc6167142f7477a");
    }

    #[test]
    fn order_of_entries_does_not_matter() {
        let (fixture, entries) = fixture();
        let forward = fixture.run("tar", json!({"entries": entries}));
        let entries: Vec<&Value> = entries.as_array().expect("a list").iter().rev().collect();
        let backward = fixture.run("tar", json!({"entries": entries, "mtime": null}));
        assert_eq!(forward.expect("good entries"), backward.expect("good entries"));
    }

    #[test]
    fn system_tar_reads_it() {
        let (fixture, entries) = fixture();
        let request = json!({"entries": entries, "compression": "gzip", "mtime": 86400, "gid": 7});
        let made = fixture.run("tar", request).expect("good entries");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("a.tar.gz");
        std::fs::write(&file, fixture.bytes(made)).expect("written");
        let list = Command::new("tar")
            .args(["--list", "--verbose", "--numeric-owner", "--quoting-style=literal", "--file"])
            .arg(&file)
            .env("TZ", "UTC")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("tar is installed");
        assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
        let text = String::from_utf8(list.stdout).expect("UTF-8");
        let lines: Vec<String> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let folder_line = |path: &str| format!("drwxr-xr-x 0/7 0 1970-01-02 00:00 {path}/");
        let target = "t".repeat(150);
        let expect = [
            "lrwxrwxrwx 0/7 0 1970-01-02 00:00 bin -> usr/bin".to_owned(),
            folder_line(&"d".repeat(120)),
            format!("-rw-r--r-- 0/7 4 1970-01-02 00:00 {}/{}", "d".repeat(120), "n".repeat(160)),
            folder_line("usr"),
            folder_line("usr/bin"),
            "lrwxrwxrwx 0/7 0 1970-01-02 00:00 usr/bin/l -> x".to_owned(),
            "-rwxr-xr-x 0/7 1 1970-01-02 00:00 usr/bin/x".to_owned(),
            folder_line("var"),
            folder_line("var/empty"),
            "-rw-r--r-- 0/7 5 1970-01-02 00:00 z".to_owned(),
            format!("lrwxrwxrwx 0/7 0 1970-01-02 00:00 ünïcode -> /{target}"),
        ];
        assert_eq!(lines, expect);
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let fixture = Fixture::new();
        let check = |request: Value, expect: &str| {
            let error = fixture.run("tar", request).expect_err(expect);
            assert_eq!(error.to_string(), expect);
        };
        check(
            json!({"entries": [], "mtime": 1u64 << 33}),
            "field `mtime`: 8589934592 is larger than 8589934591",
        );
        check(
            json!({"entries": [], "uid": 1 << 21}),
            "field `uid`: 2097152 is larger than 2097151",
        );
    }

    #[test]
    fn what_is_packed_unpacks_the_same() {
        let (mut fixture, _) = fixture();
        for compression in ["none", "gzip"] {
            let entries = json!([{"path": "top/inner", "from": "t"}]);
            let request = json!({"entries": entries, "compression": compression});
            let tar = fixture.run("tar", request).expect("good entries");
            fixture.made(&format!("tar-{compression}"), tar);
            let request =
                json!({"archive": format!("tar-{compression}"), "strip_prefix": "top/inner"});
            let tree = fixture.run("unpack", request).expect("a good archive");
            assert!(matches!(tree, Made::Tree { .. }));
            assert_eq!(fixture.listing(tree), "bin/l -> x\nbin/x* x\n");
        }
    }
}
