//! Tests of sources.

use super::*;
use crate::fixture::Fixture;
use maestro_core::DigestFunction;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

fn write(fixture: &Fixture, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = fixture.dir.path().join(name);
    fs::write(&path, bytes).expect("written");
    path
}

#[test]
fn small_and_large_sources_are_copied() {
    let fixture = Fixture::new();
    for size in [0, 1, SMALL_BYTES_MAX as usize, SMALL_BYTES_MAX as usize + 1, 5 << 20] {
        let bytes = vec![b'x'; size];
        let path = write(&fixture, "source", &bytes);
        let ingested = fixture.store.ingest_source(&path).expect("ingested");
        assert_eq!(ingested.digest, DigestFunction::Blake3.digest(&bytes));
        assert_eq!(fixture.store.read(&ingested.digest).expect("read"), bytes);
        assert_eq!(ingested.signature, StatSignature::of(&fs::metadata(&path).expect("there")));
        fs::write(&path, "changed").expect("written");
        assert_eq!(fixture.store.read(&ingested.digest).expect("read"), bytes);
    }
    assert_eq!(fixture.temps(), 0);
}

#[test]
fn the_exec_bit_is_the_owners() {
    let fixture = Fixture::new();
    for (mode, executable) in [(0o644, false), (0o755, true), (0o655, false), (0o500, true)] {
        let path = write(&fixture, "source", b"x");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        let ingested = fixture.store.ingest_source(&path).expect("ingested");
        assert_eq!(ingested.executable, executable, "{mode:o}");
        fs::remove_file(path).expect("removed");
    }
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let fixture = Fixture::new();
    let path = |name: &str| fixture.dir.path().join(name);
    fs::create_dir(path("folder")).expect("made");
    let mode = rustix::fs::Mode::RWXU;
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), fifo, mode, 0).expect("made");
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).expect("bound");
    for name in ["folder", "pipe", "socket"] {
        let error = fixture.store.ingest_source(&path(name)).expect_err("refused");
        assert!(matches!(error, StoreError::NotAFile { path: ref p } if *p == path(name)));
    }
    let error = fixture.store.ingest_source(&path("missing")).expect_err("refused");
    assert!(matches!(error, StoreError::Io { path: ref p, .. } if *p == path("missing")));
}

/// Raises a flag when a test ends, in whichever way.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A writer keeps rewriting the file with two contents of the same length and puts the
/// modification time back. A single `write` that is under way shows in no status, so that a mixture
/// may come out; but then the signature is racy, and the file is read again next time.
#[test]
fn a_source_that_changes_while_it_is_read_is_whole_or_racy_or_an_error() {
    let fixture = Fixture::new();
    let contents = [vec![b'a'; 3 << 20], vec![b'b'; 3 << 20]];
    let path = write(&fixture, "source", &contents[0]);
    let time = fs::metadata(&path).expect("there").modified().expect("a time");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().write(true).open(&path).expect("opened");
            for n in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                std::io::Seek::rewind(&mut file).expect("rewound");
                file.write_all(&contents[n % 2]).expect("written");
                file.set_modified(time).expect("put back");
            }
        });
        let _stop = Raise(&stop);
        for _ in 0..10 {
            let hashed_at_ns = clock::now_ns();
            match fixture.store.ingest_source(&path) {
                Ok(Ingested { digest, signature, .. }) => {
                    let bytes = fixture.store.read(&digest).expect("read");
                    let is_whole = contents.contains(&bytes);
                    assert!(is_whole || signature.is_racy(hashed_at_ns));
                }
                Err(error) => assert!(matches!(error, StoreError::SourceChanging { .. })),
            }
        }
    });
}

#[test]
fn signatures_see_a_write_that_puts_the_time_back() {
    let fixture = Fixture::new();
    let path = write(&fixture, "source", b"one");
    let before = fs::metadata(&path).expect("there");
    let first = fixture.store.ingest_source(&path).expect("ingested");
    // Waits for the next tick of the kernel's file clock by writing until it moves.
    let second = loop {
        fs::write(&path, "two").expect("written");
        let file = File::options().write(true).open(&path).expect("opened");
        file.set_modified(before.modified().expect("a time")).expect("put back");
        let second = fixture.store.ingest_source(&path).expect("ingested");
        if second.signature.ctime_ns != first.signature.ctime_ns {
            break second;
        }
    };
    assert_eq!(first.signature.mtime_ns, second.signature.mtime_ns);
    assert_ne!(first.signature, second.signature);
    assert_ne!(first.digest, second.digest);
}

#[test]
fn signatures_near_their_hash_are_racy() {
    let window_ns = limits::RACY_WINDOW_MS as i64 * 1_000_000;
    let signature = |mtime_ns, ctime_ns| StatSignature {
        device: 1,
        inode: 1,
        size: 1,
        mode: 0o100_644,
        mtime_ns,
        ctime_ns,
    };
    let check = |mtime_ns, ctime_ns, hashed_at_ns, expect: bool| {
        assert_eq!(signature(mtime_ns, ctime_ns).is_racy(hashed_at_ns), expect);
    };
    check(0, 0, window_ns, false);
    check(0, 0, window_ns - 1, true);
    check(0, 1, window_ns, true);
    check(i64::MAX, 0, window_ns, true);
}
