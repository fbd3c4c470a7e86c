//! Tests of the derived index.

use super::*;

fn row(names: &[Digest]) -> ResultRow {
    ResultRow { bytes: 1, inode: 2, modified_ns: 3, accessed_ns: 4, names: names.to_vec() }
}

fn digest(text: &str) -> Digest {
    sizeless(&DigestFunction::Blake3.digest(text.as_bytes()))
}

#[test]
fn rows_and_the_reverse_index_stay_together() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let layout = Layout::open(dir.path()).expect("opens");
    let index = Index::open(&layout).expect("opens");
    let [a, b, r, s] = ["a", "b", "r", "s"].map(digest);
    let blob = BlobRow { size: 9, plain: true, executable: true, accessed_ns: 5 };
    let changes =
        [Change::Blob(a, blob), Change::Result(r, row(&[a, b])), Change::Result(s, row(&[a]))];
    index.apply(&changes).expect("written");
    let sorted = |mut keys: Vec<Digest>| {
        keys.sort_unstable();
        keys
    };
    assert_eq!(index.blobs().expect("read"), [(a, blob)]);
    assert_eq!(sorted(index.referrers(&a).expect("read")), sorted(vec![r, s]));
    // The same key names other blobs after its action ran again.
    index.apply(&[Change::Result(r, row(&[b]))]).expect("written");
    assert_eq!(index.referrers(&a).expect("read"), [s]);
    index.apply(&[Change::ResultGone(s), Change::BlobGone(a)]).expect("written");
    assert_eq!(index.referrers(&a).expect("read"), []);
    drop(index);
    let index = Index::open(&layout).expect("opens again");
    assert_eq!(index.results().expect("read"), [(r, row(&[b]))]);
    assert_eq!(index.blobs().expect("read"), []);
}
