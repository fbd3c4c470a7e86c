//! What a depot keeps, what goes together, and what is left after a stop.

use std::collections::BTreeSet;
use std::io::{Seek as _, Write as _};

use maestro_core::{Digest, DigestFunction};

use super::*;

struct Scene {
    folder: tempfile::TempDir,
    bytes_max: u64,
}

impl Scene {
    fn new(bytes_max: u64) -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), bytes_max }
    }

    fn open(&self) -> Depot {
        let (root, owner) = (self.folder.path().to_owned(), "process 1".to_owned());
        Depot::open(DepotOptions { root, bytes_max: self.bytes_max, owner }).expect("it opens")
    }
}

fn blob(seed: u32, size: usize) -> (Digest, Vec<u8>) {
    let bytes: Vec<u8> =
        (0..size as u32).map(|at| (at.wrapping_mul(2_654_435_761) ^ seed) as u8).collect();
    let mut bytes = bytes;
    bytes.extend_from_slice(&seed.to_le_bytes());
    (DigestFunction::Sha256.digest(&bytes), bytes)
}

fn put(depot: &Depot, space: Space, blobs: &[(Digest, Vec<u8>)]) {
    let blobs: Vec<(Digest, &[u8])> =
        blobs.iter().map(|(digest, bytes)| (*digest, bytes.as_slice())).collect();
    depot.put(space, &blobs).expect("it is stored");
}

fn read(depot: &Depot, space: Space, digest: &Digest) -> Option<Vec<u8>> {
    match depot.content(space, digest) {
        Ok(content) => Some(content.read(depot, 0, usize::MAX).expect("it is read")),
        Err(StoreError::Missing { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

const SIZES: [usize; 6] = [0, 10, 60_000, 65_533, 100_000, 3_000_000];

#[test]
fn what_was_put_is_read_again_also_after_a_restart() {
    let scene = Scene::new(u64::MAX);
    let blobs: Vec<_> = SIZES.iter().map(|size| blob(1, *size)).collect();
    let depot = scene.open();
    let space = depot.make_space("a").expect("a space");
    put(&depot, space, &blobs);
    put(&depot, space, &blobs);
    assert_eq!(depot.stats().blobs, blobs.len() as u64);
    let before = depot.stats();
    drop(depot);
    let depot = scene.open();
    assert_eq!(depot.stats(), before);
    let space = depot.space("a").expect("it is known");
    for (digest, bytes) in &blobs {
        assert_eq!(read(&depot, space, digest).as_ref(), Some(bytes));
        let content = depot.content(space, digest).expect("it is there");
        assert_eq!(content.read(&depot, 3, 4).expect("a part"), bytes[3..7.min(bytes.len())]);
        let longer = Digest { size: digest.size + 1, ..*digest };
        assert!(!depot.has(space, &longer) && read(&depot, space, &longer).is_none());
    }
    let other = depot.make_space("b").expect("a space");
    assert!(!depot.has(other, &blobs[0].0), "spaces see nothing of each other");
    for function in [DigestFunction::Blake3, DigestFunction::Sha256] {
        assert_eq!(read(&depot, other, &function.digest(b"")), Some(Vec::new()));
    }
    let odd = Digest { size: 0, ..blobs[0].0 };
    assert!(!depot.has(other, &odd) && !depot.has(space, &odd), "no other hash is of no bytes");
}

#[test]
fn a_second_owner_is_told_who_the_first_is() {
    let scene = Scene::new(u64::MAX);
    let _depot = scene.open();
    let root = scene.folder.path().to_owned();
    let again = Depot::open(DepotOptions { root, bytes_max: 1, owner: "process 2".into() });
    let error = again.err().expect("it is held").to_string();
    assert!(error.ends_with("is held by process 1"), "{error}");
}

#[test]
fn a_result_is_stored_with_all_that_it_names_only() {
    let scene = Scene::new(u64::MAX);
    let depot = scene.open();
    let space = depot.make_space("").expect("a space");
    let (here, there) = (blob(1, 10), blob(2, 10));
    put(&depot, space, std::slice::from_ref(&here));
    let action = blob(9, 1).0;
    let refused = depot.put_result(space, &action, vec![1], &[here.0, there.0]);
    assert!(matches!(refused, Err(StoreError::Missing { digest }) if digest == there.0));
    assert_eq!(depot.result(space, &action).expect("a look"), None);
    put(&depot, space, std::slice::from_ref(&there));
    depot.put_result(space, &action, vec![1], &[here.0, there.0]).expect("all is there");
    assert_eq!(depot.result(space, &action).expect("a look"), Some(vec![1]));
    depot.put_result(space, &action, vec![2], &[here.0]).expect("it is replaced");
    drop(depot);
    let depot = scene.open();
    assert_eq!(depot.result(space, &action).expect("a look"), Some(vec![2]));
    let whole = depot.stats();
    depot.remove_all(&[rows::Item::Blob(Key::of(space, &there.0))]).expect("it goes");
    assert_eq!(depot.result(space, &action).expect("a look"), Some(vec![2]));
    depot.remove_all(&[rows::Item::Blob(Key::of(space, &here.0))]).expect("it goes");
    assert_eq!(depot.result(space, &action).expect("a look"), None);
    assert_eq!((whole.results, depot.stats()), (1, DepotStats::default()));
}

#[test]
fn what_was_not_used_for_longest_goes_and_every_hit_is_whole() {
    let scene = Scene::new(2_000_000);
    let depot = scene.open();
    let space = depot.make_space("").expect("a space");
    let mut actions = Vec::new();
    for step in 0..300u32 {
        let (output, log) = (blob(step, 20_000), blob(step + 10_000, 100));
        let action = blob(step + 20_000, 4).0;
        put(&depot, space, &[output.clone(), log.clone()]);
        depot.put_result(space, &action, vec![7], &[output.0, log.0]).expect("it is stored");
        actions.push((action, output, log));
        assert!(depot.stats().bytes <= 2_100_000, "{:?}", depot.stats());
    }
    let hits: BTreeSet<usize> = (0..actions.len())
        .filter(|at| depot.result(space, &actions[*at].0).expect("a look").is_some())
        .collect();
    assert!(hits.contains(&299) && !hits.contains(&0) && hits.len() > 40, "{hits:?}");
    for at in hits {
        let (_, output, log) = &actions[at];
        for (digest, bytes) in [output, log] {
            assert_eq!(read(&depot, space, digest).as_ref(), Some(bytes), "of {at}");
        }
    }
    depot.maintain().expect("it is maintained");
    let packs = std::fs::read_dir(scene.folder.path().join("packs")).expect("a folder").count();
    assert_eq!(packs, 1, "all fits into the last one");
}

#[test]
fn packs_that_are_mostly_dead_are_emptied() {
    let scene = Scene::new(u64::MAX);
    let depot = scene.open();
    let space = depot.make_space("").expect("a space");
    let blobs: Vec<_> = (0..100).map(|seed| blob(seed, 30_000)).collect();
    put(&depot, space, &blobs);
    let dead: Vec<_> =
        blobs[..60].iter().map(|(digest, _)| rows::Item::Blob(Key::of(space, digest))).collect();
    depot.remove_all(&dead).expect("they go");
    // The last pack is never emptied; another one makes this one a former one.
    let file = depot.folder.create(&files::pack_path(2)).expect("a file");
    depot.packs.found(2, file, 0);
    depot.maintain().expect("it is maintained");
    assert!(!scene.folder.path().join(files::pack_path(1)).exists());
    drop(depot);
    let depot = scene.open();
    for (at, (digest, bytes)) in blobs.iter().enumerate() {
        let expect = (at >= 60).then_some(bytes);
        assert_eq!(read(&depot, space, digest).as_ref(), expect, "{at}");
    }
}

#[test]
fn what_a_stop_of_the_machine_tore_is_missing_with_what_names_it() {
    let scene = Scene::new(u64::MAX);
    let depot = scene.open();
    let space = depot.make_space("").expect("a space");
    let old = blob(1, 1_000);
    put(&depot, space, std::slice::from_ref(&old));
    depot.maintain().expect("it is sealed");
    let (small, large, whole) = (blob(2, 1_000), blob(3, 200_000), blob(4, 1_000));
    put(&depot, space, &[small.clone(), large.clone(), whole.clone()]);
    let action = blob(9, 1).0;
    depot.put_result(space, &action, vec![1], &[large.0]).expect("it is stored");
    let mut batch = Batch::default();
    let sealed = depot.database.seal().expect("a row").expect("a seal").sealed;
    let other = rows::SealRow { boot: "another start".into(), sealed };
    depot.database.put_seal(&mut batch, &other).expect("a row");
    depot.database.write(batch).expect("it is written");
    drop(depot);
    let damage = |path: String, at: u64| {
        let path = scene.folder.path().join(path);
        let mut file = std::fs::OpenOptions::new().write(true).open(path).expect("it is there");
        file.seek(std::io::SeekFrom::Start(at))
            .and_then(|_| file.write_all(b"torn"))
            .expect("bytes");
    };
    damage(files::blob_path(&Key::of(space, &large.0)), 100_000);
    damage(files::pack_path(1), 1_100);
    let depot = scene.open();
    for (blob, there) in [(&old, true), (&small, false), (&large, false), (&whole, true)] {
        assert_eq!(read(&depot, space, &blob.0).is_some(), there, "{}", blob.0);
    }
    assert_eq!(depot.result(space, &action).expect("a look"), None);
}

#[test]
fn what_no_row_names_is_removed_and_a_row_without_bytes_is_no_blob() {
    let scene = Scene::new(u64::MAX);
    let depot = scene.open();
    let space = depot.make_space("").expect("a space");
    let (large, small) = (blob(3, 200_000), blob(4, 10));
    put(&depot, space, &[large.clone(), small.clone()]);
    drop(depot);
    let root = scene.folder.path();
    std::fs::remove_file(root.join(files::blob_path(&Key::of(space, &large.0)))).expect("a file");
    std::fs::write(root.join("packs/00000001"), b"").expect("it is cut");
    std::fs::create_dir_all(root.join("blobs/aa")).expect("a folder");
    std::fs::write(root.join("blobs/aa/orphan"), b"x").expect("a file");
    std::fs::write(root.join("temporary/7"), b"x").expect("a file");
    let depot = scene.open();
    assert_eq!(depot.stats(), DepotStats::default());
    assert!(!root.join("blobs/aa/orphan").exists() && !root.join("temporary/7").exists());
    put(&depot, space, &[large.clone(), small.clone()]);
    assert_eq!(read(&depot, space, &large.0), Some(large.1));
}

#[test]
fn uploads_go_on_where_they_were() {
    let scene = Scene::new(u64::MAX);
    let check = |size: usize| {
        let (digest, bytes) = blob(5, size);
        let half = bytes.len() / 2;
        let depot = scene.open();
        let space = depot.make_space("").expect("a space");
        let mut upload = depot.upload("name", &digest).expect("it begins");
        upload.append(&depot, &bytes[..half]).expect("it is written");
        drop((upload, depot));
        let depot = scene.open();
        assert_eq!(depot.upload_length("name").expect("a length"), half as u64);
        assert_eq!(depot.upload_length("other").expect("a length"), 0);
        let mut upload = depot.upload("name", &digest).expect("it goes on");
        assert_eq!(upload.length(), half as u64);
        upload.append(&depot, &bytes[half..]).expect("it is written");
        let more = upload.append(&depot, b"x");
        assert!(matches!(more, Err(StoreError::TooLarge { .. })), "{more:?}");
        upload.finish(&depot, space).expect("it is stored");
        assert_eq!(read(&depot, space, &digest), Some(bytes));
        assert_eq!(depot.upload_length("name").expect("a length"), 0);
    };
    check(1_000);
    check(1_000_000);
}

#[test]
fn content_that_is_another_is_refused_and_forgotten() {
    let scene = Scene::new(u64::MAX);
    let depot = scene.open();
    let space = depot.make_space("").expect("a space");
    let (digest, mut bytes) = blob(6, 100_000);
    bytes[5] ^= 1;
    let mut upload = depot.upload("name", &digest).expect("it begins");
    upload.append(&depot, &bytes).expect("it is written");
    let end = upload.finish(&depot, space);
    assert!(matches!(end, Err(StoreError::Mismatch { .. })), "{end:?}");
    assert_eq!(depot.upload_length("name").expect("a length"), 0);
    assert!(!depot.has(space, &digest));
}

#[test]
fn chunks_are_not_stored_twice_and_go_with_the_whole() {
    let scene = Scene::new(u64::MAX);
    let depot = scene.open();
    let space = depot.make_space("").expect("a space");
    let (whole, bytes) = blob(7, 1_000_000);
    put(&depot, space, &[(whole, bytes.clone())]);
    let before = depot.stats().bytes;
    let parts: Vec<&[u8]> = bytes.chunks(300_000).collect();
    let chunks: Vec<Digest> = parts.iter().map(|p| DigestFunction::Sha256.digest(p)).collect();
    assert_eq!(depot.chunks(space, &whole).expect("a look"), None);
    depot.split(space, &whole, &chunks).expect("it is split");
    assert_eq!(depot.chunks(space, &whole).expect("a look"), Some(chunks.clone()));
    assert!(depot.stats().bytes - before < 1_000);
    // Another blob out of some of them, and one out of that.
    let spliced = [parts[2], parts[0]].concat();
    let other = DigestFunction::Sha256.digest(&spliced);
    depot.splice(space, &other, &[chunks[2], chunks[0]]).expect("it is spliced");
    let nested = [spliced.as_slice(), parts[1]].concat();
    let deep = DigestFunction::Sha256.digest(&nested);
    depot.splice(space, &deep, &[other, chunks[1]]).expect("it is spliced");
    drop(depot);
    let depot = scene.open();
    for (chunk, part) in chunks.iter().zip(&parts) {
        assert_eq!(read(&depot, space, chunk).as_deref(), Some(*part));
    }
    assert_eq!(read(&depot, space, &other), Some(spliced));
    assert_eq!(read(&depot, space, &deep).as_ref(), Some(&nested));
    let content = depot.content(space, &deep).expect("it is there");
    let range = content.read(&depot, 299_999, 2).expect("a part over a border");
    assert_eq!(range, nested[299_999..300_001]);
    let absent = depot.splice(space, &blob(8, 3).0, &[blob(11, 3).0]);
    assert!(matches!(absent, Err(StoreError::Missing { .. })), "{absent:?}");
    depot.remove_all(&[rows::Item::Blob(Key::of(space, &whole))]).expect("it goes");
    assert_eq!(depot.stats(), DepotStats::default());
}

#[test]
fn names_of_spaces_have_a_bound() {
    let scene = Scene::new(u64::MAX);
    let depot = scene.open();
    for number in 0..limits::INSTANCES_MAX {
        depot.make_space(&format!("s{number}")).expect("there is room");
    }
    assert!(matches!(depot.make_space("more"), Err(StoreError::TooLarge { .. })));
    assert_eq!(depot.make_space("s7").expect("it is known"), depot.space("s7").expect("so"));
}
