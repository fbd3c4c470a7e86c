//! The check of trees: directories with all that is below them, page by page.

use std::collections::HashSet;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use tonic::{Code, Status};

use super::content::{Blob, noise};
use super::peer::{Peer, bounded};
use super::verdict::{Outcome, ensure, good, policy, refused, same};

/// Levels of a graph of directories, each of which contains the next one twice.
const LEVELS: usize = 12;
/// Directories that are taken at most: all paths of that graph, and some.
const DIRECTORIES_MAX: usize = 10_000;

/// C12.
pub(super) async fn trees(peer: Peer) -> Outcome {
    absent_parts(&peer).await?;
    let pages = good("`GetTree`", paged(&peer).await?)?;
    pages_go_on(&peer, &pages).await?;
    wide_graph(&peer).await
}

/// The root must be there, what is below it need not.
async fn absent_parts(peer: &Peer) -> Outcome {
    let [there, absent] = [leaf(peer), leaf(peer)];
    let root = parent(peer, &[&there, &absent]);
    let without = tree(peer, root.wire(), 0, "").await;
    refused("a root that is not there", &[Code::NotFound], without)?;
    peer.store(&[there, root.clone()]).await?;
    let pages = good("a tree with a gap", tree(peer, root.wire(), 0, "").await)?;
    same("the directories of a tree with a gap", &directories(&pages), &2)
}

struct Paged {
    root: reapi::Digest,
    pages: Vec<reapi::GetTreeResponse>,
}

/// A tree of seven directories, two on a page.
async fn paged(peer: &Peer) -> Result<Result<Paged, Status>, super::Verdict> {
    let leaves: Vec<Blob> = (0..6).map(|_| leaf(peer)).collect();
    let root = parent(peer, &leaves.iter().collect::<Vec<_>>());
    peer.store(&leaves).await?;
    peer.store(std::slice::from_ref(&root)).await?;
    let pages = tree(peer, root.wire(), 2, "").await;
    Ok(pages.map(|pages| Paged { root: root.wire(), pages }))
}

async fn pages_go_on(peer: &Peer, paged: &Paged) -> Outcome {
    let Paged { root, pages } = paged;
    same("the directories of a tree of seven", &directories(pages), &7)?;
    let largest = pages.iter().map(|page| page.directories.len()).max().unwrap_or_default();
    let Some((first, token)) = pages.iter().zip(1..).find_map(|(page, count)| {
        (!page.next_page_token.is_empty()).then_some((count, &page.next_page_token))
    }) else {
        return Err(policy("a tree of seven directories comes on one page, whatever is asked for"));
    };
    ensure(largest <= 2, || format!("pages of two directories: got one of {largest}"))?;
    let before: usize = pages.iter().take(first).map(|page| page.directories.len()).sum();
    let rest = good("a page token", tree(peer, root.clone(), 2, token).await)?;
    same("the directories that follow a page", &(before + directories(&rest)), &7)
}

/// A small graph has many paths; each directory once is enough.
async fn wide_graph(peer: &Peer) -> Outcome {
    let mut level = leaf(peer);
    let mut blobs = vec![level.clone()];
    for _ in 1..LEVELS {
        level = parent(peer, &[&level, &level]);
        blobs.push(level.clone());
    }
    peer.store(&blobs).await?;
    let pages = good("a graph of directories", tree(peer, level.wire(), 0, "").await)?;
    let sent = pages.iter().flat_map(|page| &page.directories);
    let distinct: HashSet<Vec<u8>> =
        sent.map(|directory| Blob::message(peer.function, directory).bytes).collect();
    same("the distinct directories of a graph", &distinct.len(), &LEVELS)?;
    match directories(&pages) {
        LEVELS => Ok(()),
        count => Err(policy(format!(
            "a directory comes as often as it occurs: {count} for {LEVELS} different ones"
        ))),
    }
}

/// A directory that is like no other.
fn leaf(peer: &Peer) -> Blob {
    let file = Blob::of(peer.function, noise(16));
    let file = reapi::FileNode {
        name: "file".to_owned(),
        digest: Some(file.wire()),
        ..Default::default()
    };
    Blob::message(peer.function, &reapi::Directory { files: vec![file], ..Default::default() })
}

/// A directory with others in it.
fn parent(peer: &Peer, children: &[&Blob]) -> Blob {
    let node = |(at, child): (usize, &&Blob)| reapi::DirectoryNode {
        name: format!("d{at}"),
        digest: Some(child.wire()),
    };
    let directories = children.iter().enumerate().map(node).collect();
    Blob::message(peer.function, &reapi::Directory { directories, ..Default::default() })
}

async fn tree(
    peer: &Peer,
    root: reapi::Digest,
    page_size: i32,
    page_token: &str,
) -> Result<Vec<reapi::GetTreeResponse>, Status> {
    let request = reapi::GetTreeRequest {
        instance_name: peer.instance(),
        root_digest: Some(root),
        page_size,
        page_token: page_token.to_owned(),
        digest_function: peer.function_value(),
    };
    bounded(async {
        let mut stream = peer.contents().get_tree(request).await?.into_inner();
        let mut pages = Vec::new();
        while let Some(page) = stream.message().await? {
            pages.push(page);
            if directories(&pages) > DIRECTORIES_MAX {
                return Err(Status::out_of_range("the tree does not end"));
            }
        }
        Ok(pages)
    })
    .await
}

fn directories(pages: &[reapi::GetTreeResponse]) -> usize {
    pages.iter().map(|page| page.directories.len()).sum()
}
