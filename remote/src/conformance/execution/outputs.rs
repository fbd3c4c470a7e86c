//! What actions leave: files, folders, links and their properties.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use prost::Message as _;
use reapi::command::OutputDirectoryFormat as Format;
use tonic::Code;

use super::super::peer::Peer;
use super::super::verdict::{
    Outcome, Verdict, ensure, failed, good, name, not_offered, policy, same, same_bytes,
};
use super::{Job, execute, finished, inputs, offers, output};
use crate::convert;

/// E09.
pub(in super::super) async fn paths(peer: Peer) -> Outcome {
    offers(&peer)?;
    let script = "test -d deep/down && test ! -e made && mkdir made \
                  && echo file > deep/down/file && echo inner > made/inner";
    let job = Job::shell(&peer, script).outputs(&["absent", "deep/down/file", "made"]);
    let result = job.succeed(&peer).await?;
    same_bytes("an output file", &output(&peer, &result, "deep/down/file").await?, b"file\n")?;
    let files: Vec<&str> = result.output_files.iter().map(|file| file.path.as_str()).collect();
    same("the output files", &files, &vec!["deep/down/file"])?;
    let folders: Vec<&str> =
        result.output_directories.iter().map(|folder| folder.path.as_str()).collect();
    same("the output directories", &folders, &vec!["made"])?;
    let tree = tree_of(&peer, &result).await?;
    let inner = tree.root.unwrap_or_default().files;
    let inner: Vec<&str> = inner.iter().map(|file| file.name.as_str()).collect();
    same("what is in the output directory", &inner, &vec!["inner"])
}

async fn tree_of(peer: &Peer, result: &reapi::ActionResult) -> Result<reapi::Tree, Verdict> {
    let folder = result.output_directories.first();
    let digest = folder.and_then(|folder| folder.tree_digest.as_ref());
    let digest = digest.ok_or_else(|| failed("`tree_digest`: expected one, got none"))?;
    read(peer, digest).await
}

async fn read<M: prost::Message + Default>(
    peer: &Peer,
    digest: &reapi::Digest,
) -> Result<M, Verdict> {
    let digest = convert::digest(peer.function, digest);
    let digest = digest.map_err(|error| failed(format!("the digest of an output: {error}")))?;
    let bytes = good("a read of an output directory", peer.read(&digest).await)?;
    M::decode(bytes.as_slice()).map_err(|error| failed(format!("an output directory: {error}")))
}

/// E10.
pub(in super::super) async fn symlinks(peer: Peer) -> Outcome {
    offers(&peer)?;
    let script = "echo text > file && ln -s file relative && ln -s no/where dangling";
    let job = Job::shell(&peer, script).outputs(&["dangling", "file", "relative"]);
    let result = job.succeed(&peer).await?;
    #[allow(deprecated)] // servers of old versions answer there
    let old = result.output_file_symlinks.iter().chain(&result.output_directory_symlinks);
    let links = result.output_symlinks.iter().chain(old);
    let mut links: Vec<(&str, &str)> =
        links.map(|link| (link.path.as_str(), link.target.as_str())).collect();
    links.sort_unstable();
    links.dedup();
    let expected = vec![("dangling", "no/where"), ("relative", "file")];
    same("the links that are left", &links, &expected)?;
    inputs::absolute_input(&peer).await
}

/// E11.
pub(in super::super) async fn directory_formats(peer: Peer) -> Outcome {
    offers(&peer)?;
    let mut ignored = Vec::new();
    for format in [Format::TreeOnly, Format::DirectoryOnly, Format::TreeAndDirectory] {
        let mut job = Job::shell(&peer, "mkdir -p made/inner && echo text > made/inner/file");
        job.command.output_directory_format = format as i32;
        let result = job.outputs(&["made"]).succeed(&peer).await?;
        let folder = result.output_directories.first();
        let folder = folder.ok_or_else(|| failed("expected an output directory, got none"))?;
        let wanted = match format {
            Format::TreeOnly => (true, false),
            Format::DirectoryOnly => (false, true),
            Format::TreeAndDirectory => (true, true),
        };
        if (folder.tree_digest.is_some(), folder.root_directory_digest.is_some()) != wanted {
            ignored.push(format.as_str_name());
        }
        consistent(&peer, folder).await?;
    }
    match ignored.is_empty() {
        true => Ok(()),
        false => Err(policy(format!("output directories come in another form than {ignored:?}"))),
    }
}

/// Tree and root directory are the same tree.
async fn consistent(peer: &Peer, folder: &reapi::OutputDirectory) -> Outcome {
    let (Some(tree), Some(digest)) = (&folder.tree_digest, &folder.root_directory_digest) else {
        return ensure(
            folder.tree_digest.is_some() || folder.root_directory_digest.is_some(),
            || "an output directory: expected a digest, got none".to_owned(),
        );
    };
    let tree: reapi::Tree = read(peer, tree).await?;
    let root: reapi::Directory = read(peer, digest).await?;
    same("the root directory", &root, &tree.root.unwrap_or_default())?;
    for child in &root.directories {
        let digest = child.digest.clone().unwrap_or_default();
        let directory: reapi::Directory = read(peer, &digest).await?;
        let named = convert::wire_digest(&peer.function.digest(&directory.encode_to_vec()));
        same("the digest of a directory in it", &named, &digest)?;
    }
    Ok(())
}

/// E12.
pub(in super::super) async fn node_properties(peer: Peer) -> Outcome {
    offers(&peer)?;
    let execution = peer.capabilities.execution_capabilities.clone().unwrap_or_default();
    let known = execution.supported_node_properties;
    let mut odd = Job::shell(&peer, "echo text > file").outputs(&["file"]);
    odd.command.output_node_properties = vec!["maestro-conformance-unknown".to_owned()];
    let action = odd.upload(&peer).await?;
    let refused = match execute(&peer, &action, |_| {}).await {
        Err(status) => Some(status.code()),
        Ok(operations) => Some(Code::from(finished(operations)?.status().code)),
    };
    let refused = refused.filter(|code| *code != Code::Ok);
    for property in ["mtime", "unix_mode"] {
        if !known.iter().any(|known| known == property) {
            continue;
        }
        let mut job = Job::shell(&peer, "echo text > file").outputs(&["file"]);
        job.command.output_node_properties = vec![property.to_owned()];
        let result = job.succeed(&peer).await?;
        let file = result.output_files.first().cloned().unwrap_or_default();
        let found = file.node_properties.unwrap_or_default();
        let there =
            if property == "mtime" { found.mtime.is_some() } else { found.unix_mode.is_some() };
        ensure(there, || format!("`{property}`, which is announced: expected it, got none"))?;
    }
    match refused {
        Some(Code::InvalidArgument) => Ok(()),
        Some(code) => Err(failed(format!(
            "a property that nobody knows: expected INVALID_ARGUMENT, got {}",
            name(code)
        ))),
        None if known.is_empty() => Err(not_offered("no `supported_node_properties`")),
        None => Err(policy("properties that nobody knows are ignored")),
    }
}
