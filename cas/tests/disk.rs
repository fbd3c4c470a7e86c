//! Disks that are full, read-only or not ours. Those tests that need a file system of their own
//! mount one in memory, in a mount namespace of their own thread, and need root for that.

use std::path::Path;

use maestro_cas::{Store, StoreError, StoreOptions};
use maestro_core::{DigestFunction, FailureKind};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

fn options(root: &Path) -> StoreOptions {
    StoreOptions { root: root.to_owned(), function: DigestFunction::Blake3 }
}

/// Runs a test in a thread that sees a file system of `size` bytes at the given path.
fn with_disk(size: &str, test: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let flags = UnshareFlags::NEWNS | UnshareFlags::FS;
            // SAFETY: only this thread's view of mounts and its working folder change; no
            // file descriptors are unshared.
            unsafe { rustix::thread::unshare_unsafe(flags) }
                .expect("this test mounts a file system and needs root (CAP_SYS_ADMIN)");
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).expect("made private");
            let data = std::ffi::CString::new(format!("size={size},mode=755")).expect("text");
            rustix::mount::mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), &*data)
                .expect("mounted");
            test(dir.path());
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_full_disk_is_a_clear_error_and_leaves_no_half_blob() {
    with_disk("1m", |root| {
        let store = Store::open(options(root)).expect("opens");
        let small = store.put_bytes(b"small").expect("fits");
        let large = vec![b'x'; 3 << 20];
        let error = store.put_bytes(&large).expect_err("does not fit");
        assert!(matches!(error, StoreError::NoSpace { ref path, .. } if path.starts_with(root)));
        assert_eq!(error.kind(), FailureKind::Environment);
        assert!(error.hint().is_some());
        let digest = DigestFunction::Blake3.digest(&large);
        assert!(!store.contains(&digest) && store.contains(&small));
        let source = root.join("source");
        std::fs::write(&source, vec![b'y'; 600 << 10]).expect("fits");
        let error = store.ingest_source(&source).expect_err("does not fit");
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
        std::fs::remove_file(&source).expect("removed");
        // What was written of the blobs is gone, so that others fit.
        // Some kernels give the pages of removed files back a moment later.
        let started = std::time::Instant::now();
        let other = loop {
            match store.put_bytes(&vec![b'z'; 600 << 10]) {
                Err(StoreError::NoSpace { .. }) if started.elapsed().as_secs() < 10 => {}
                other => break other.expect("fits"),
            }
        };
        let dest = root.join("out");
        let error = store.copy_out(&other, false, &dest).expect_err("does not fit");
        assert!(matches!(error, StoreError::NoSpace { ref path, .. } if path.starts_with(root)));
        assert!(!dest.exists());
        assert!(store.verify(false).is_ok_and(|report| report.is_clean()) || is_full(&store));
        assert_eq!(store.read(&small).expect("read"), b"small");
    });
}

/// RocksDB may not fit beside the blobs; that is an error of the disk or index, not of blobs.
fn is_full(store: &Store) -> bool {
    matches!(store.verify(false), Err(StoreError::NoSpace { .. } | StoreError::Index { .. }))
}

#[test]
fn a_read_only_disk_serves_and_says_why_it_cannot_store() {
    with_disk("8m", |root| {
        let digest = {
            let store = Store::open(options(root)).expect("opens");
            let digest = store.put_bytes(b"x").expect("stored");
            store.seal_epoch().expect("sealed");
            digest
        };
        let read_only = MountFlags::RDONLY;
        rustix::mount::mount_remount(root, read_only, c"").expect("made read-only");
        let store = Store::open(options(root)).expect("opens");
        assert_eq!(store.read(&digest).expect("read"), b"x");
        let error = store.put_bytes(b"y").expect_err("refused");
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    });
}

#[test]
fn a_cache_folder_that_is_a_file_or_of_another_format_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").expect("written");
    let error = Store::open(options(&file)).expect_err("refused");
    assert!(matches!(error, StoreError::Io { ref path, .. } if *path == file));
    let other = dir.path().join("other");
    std::fs::create_dir(&other).expect("made");
    std::fs::write(other.join("FORMAT"), "maestro-cache-99\n").expect("written");
    let error = Store::open(options(&other)).expect_err("refused");
    let text = "holds format `maestro-cache-99` of the cache";
    assert!(matches!(error, StoreError::Format { .. }) && error.to_string().contains(text));
}

#[test]
fn no_file_descriptors_left_is_a_clear_error() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(options(dir.path())).expect("opens");
    let digest = store.put_bytes(b"x").expect("stored");
    // A process of its own, since the limit is one of the whole process.
    let status = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "runs_with_few_descriptors_only", "--nocapture"])
        .env("MAESTRO_CAS_TEST_FEW", dir.path())
        .env("MAESTRO_CAS_TEST_DIGEST", digest.to_string())
        .stdout(std::process::Stdio::null())
        .status()
        .expect("started");
    assert!(status.success());
}

#[test]
fn runs_with_few_descriptors_only() {
    let Some(root) = std::env::var_os("MAESTRO_CAS_TEST_FEW") else { return };
    let digest = std::env::var("MAESTRO_CAS_TEST_DIGEST").expect("set by the parent");
    let store = Store::open(options(Path::new(&root))).expect("opens");
    let mut held = Vec::new();
    let limit = rustix::process::Rlimit { current: Some(64), maximum: Some(64) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("set");
    while let Ok(file) = std::fs::File::open("/dev/null") {
        held.push(file);
    }
    let error = store.read(&digest.parse().expect("a digest")).expect_err("refused");
    assert!(matches!(error, StoreError::TooManyFiles { .. }), "{error:?}");
    let error = store.put_bytes(b"y").expect_err("refused");
    assert!(matches!(error, StoreError::TooManyFiles { .. }), "{error:?}");
    drop(held);
    store.put_bytes(b"y").expect("stored");
}
