//! `maestro vendor`: copies what a build downloads into the workspace, where builds find it.
//!
//! A vendored download is the file that its pin names, under the name of its digest; it is checked
//! like one from a server, so nobody has to trust the folder. Served as static files, the folder
//! is a mirror.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use maestro_fetch::pinned_name;
use serde::{Deserialize, Serialize};

use crate::args::{Global, VendorArgs};
use crate::config::VENDOR_FOLDER;
use crate::downloads::{Download, downloads_of};
use crate::exit::Failure;
use crate::invocation::Invocation;

/// What lies in the folder and why.
const MANIFEST: &str = "manifest.toml";
/// The version of the manifest.
const VERSION: u32 = 1;

/// The manifest.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    #[serde(default, rename = "download")]
    downloads: Vec<Entry>,
}

/// One vendored file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Its name in the folder.
    file: String,
    /// Its size.
    bytes: u64,
    /// Where it came from.
    urls: Vec<String>,
    /// Who needs it.
    users: Vec<String>,
}

/// Runs the command.
pub fn vendor(global: &Global, args: &VendorArgs) -> Result<ExitCode> {
    let (invocation, found) = downloads_of(global, "vendor", &args.patterns, &args.options)?;
    let folder = invocation.config.workspace.join(VENDOR_FOLDER);
    let manifest = manifest(&found)?;
    if args.check {
        check(&folder, &manifest)
    } else {
        write(&invocation, &folder, &found, manifest)
    }
}

/// What the folder should hold.
fn manifest(found: &[Download]) -> Result<Manifest> {
    let mut by_file: BTreeMap<String, Entry> = BTreeMap::new();
    for download in found {
        let file = pinned_name(&download.request)?;
        let entry = by_file.entry(file.clone()).or_insert_with(|| Entry {
            file,
            bytes: download.digest.size,
            urls: download.urls(),
            users: Vec::new(),
        });
        entry.users.push(download.user.clone());
    }
    let mut downloads: Vec<Entry> = by_file.into_values().collect();
    for entry in &mut downloads {
        entry.users.sort();
        entry.users.dedup();
    }
    Ok(Manifest { version: VERSION, downloads })
}

fn write(
    invocation: &Invocation,
    folder: &Path,
    found: &[Download],
    manifest: Manifest,
) -> Result<ExitCode> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create `{}`", folder.display()))?;
    let mut new = 0;
    for download in found {
        let path = folder.join(pinned_name(&download.request)?);
        if is_pinned_file(&path, &download.request) {
            continue;
        }
        let mut blob = invocation.store.open_blob(&download.digest)?;
        let temp = path.with_extension("new");
        let copied = std::fs::File::create(&temp)
            .and_then(|mut file| std::io::copy(&mut blob, &mut file))
            .and_then(|_| std::fs::rename(&temp, &path));
        copied.with_context(|| format!("cannot write `{}`", path.display()))?;
        new += 1;
    }
    let wanted: BTreeSet<&str> = manifest.downloads.iter().map(|e| e.file.as_str()).collect();
    let mut removed = 0;
    for name in vendored(folder)?.iter().filter(|name| !wanted.contains(name.as_str())) {
        let path = folder.join(name);
        std::fs::remove_file(&path)
            .with_context(|| format!("cannot remove `{}`", path.display()))?;
        removed += 1;
    }
    let path = folder.join(MANIFEST);
    let text = format!("# Written by `maestro vendor`.\n{}", toml::to_string(&manifest)?);
    std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    let count = manifest.downloads.len();
    let plural = if count == 1 { "" } else { "s" };
    eprintln!("{VENDOR_FOLDER}: {count} download{plural}, {new} new, {removed} removed");
    Ok(ExitCode::SUCCESS)
}

fn check(folder: &Path, manifest: &Manifest) -> Result<ExitCode> {
    let mut problems = Vec::new();
    let path = folder.join(MANIFEST);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    match toml::from_str::<Manifest>(&text) {
        Ok(known) if known == *manifest => {}
        Ok(_) => problems.push(format!("{MANIFEST} is not up to date")),
        Err(_) => problems.push(format!("{MANIFEST} is missing or cannot be read")),
    }
    let wanted: BTreeSet<&str> = manifest.downloads.iter().map(|e| e.file.as_str()).collect();
    for entry in &manifest.downloads {
        let path = folder.join(&entry.file);
        match path.exists() {
            false => problems.push(format!("missing {} ({})", entry.file, entry.users.join(", "))),
            true if !maestro_fetch::is_file_of_name(&path, &entry.file) => {
                problems.push(format!("damaged {} ({})", entry.file, entry.users.join(", ")));
            }
            true => {}
        }
    }
    let extra = vendored(folder)?;
    let extra = extra.iter().filter(|name| !wanted.contains(name.as_str()));
    problems.extend(extra.map(|name| format!("unused {name}")));
    if problems.is_empty() {
        println!("`{VENDOR_FOLDER}` holds every download");
        return Ok(ExitCode::SUCCESS);
    }
    for problem in &problems {
        println!("{problem}");
    }
    eprintln!("hint: `maestro vendor` brings `{VENDOR_FOLDER}` up to date");
    Ok(ExitCode::from(1))
}

fn is_pinned_file(path: &Path, request: &serde_json::Value) -> bool {
    pinned_name(request).is_ok_and(|name| maestro_fetch::is_file_of_name(path, &name))
}

/// The names in the folder that are those of digests.
fn vendored(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Failure::environment(format!(
                "cannot read `{}`: {error}",
                folder.display()
            ))
            .into());
        }
    };
    let mut names: Vec<String> = Vec::new();
    for entry in entries {
        let name =
            entry.with_context(|| format!("cannot read `{}`", folder.display()))?.file_name();
        names.extend(name.into_string().ok().filter(|name| maestro_fetch::is_pinned_name(name)));
    }
    names.sort();
    Ok(names)
}
