//! `oci-image`: an image layout, assembled from trees and tars without a daemon.
//!
//! Follows the OCI image specification 1.0 (image-layout, manifest, config). JSON is written
//! compactly from structs with a fixed field order, and nothing in it depends on time, host or the
//! names of inputs, so that equal layers and configuration give the same bytes.

mod base;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;

use maestro_core::path::RelPath;
use maestro_core::{Digest, limits};
use serde::Serialize;
use serde_json::json;

use super::archive::{Layer, compressed, tree_layer, write_error};
use super::compose::{Composition, LinkRule, Place};
use super::inputs::Found;
use super::request::{self, ImageConfig};
use super::scratch::{self, BlobReader, Bounded, Measured, io_failure};
use super::tar_writer::{OCTAL_11_MAX, Stamp};
use super::{Made, NativeError, Step};
use spec::{Config, Descriptor, Empty, Index, Manifest, Marker, PlatformJson, RunConfig};

/// What the history of a layer says made it.
const CREATED_BY: &str = "maestro oci-image";

/// `oci-image`: see the module.
pub(super) fn oci_image(step: &Step<'_>) -> Result<Made, NativeError> {
    let request: request::OciImage = step.request()?;
    let created = request.created.unwrap_or(0);
    let mut image = Image::start(step, &request, rfc_3339(created)?)?;
    let stamp = Stamp { mtime: created, uid: 0, gid: 0 };
    for (index, path) in request.layers.iter().enumerate() {
        let field = format!("layers[{index}]");
        let layer = match step.inputs.find(&field, path)? {
            Found::Tree { root, .. } => tree_layer(step, root, stamp)?,
            Found::File { digest, .. } => tar_layer(step, path, digest)?,
        };
        image.push(layer)?;
    }
    if image.layers.is_empty() {
        return Err(NativeError::field("layers", "an image has at least one layer"));
    }
    image.finish(step, &request)
}

/// The text of a time in seconds since 1970.
fn rfc_3339(seconds: u64) -> Result<String, NativeError> {
    let in_range = i64::try_from(seconds).ok().filter(|_| seconds <= OCTAL_11_MAX);
    in_range
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map(|time| time.to_string())
        .ok_or_else(|| {
            NativeError::field("created", format!("{seconds} is larger than {OCTAL_11_MAX}"))
        })
}

/// Takes a tar as a layer: one that is compressed already stays as it is.
fn tar_layer(step: &Step<'_>, path: &str, blob: Digest) -> Result<Layer, NativeError> {
    let bad = |why: &str| NativeError::Archive { archive: path.to_owned(), why: why.to_owned() };
    let head = BlobReader::head(step.store, &blob, step.cancel)?;
    if head.starts_with(&[0x1f, 0x8b]) {
        let reader = BlobReader::buffered(step.store, &blob, step.cancel)?;
        let plain = flate2::bufread::MultiGzDecoder::new(reader);
        let mut plain = Bounded::new(plain, limits::ARCHIVE_BYTES_MAX);
        let mut measured = Measured::new(io::sink());
        io::copy(&mut plain, &mut measured)
            .map_err(|error| io_failure(error, |error| bad(&error.to_string())))?;
        let sha256 = scratch::sha256(step.store, &blob, step.cancel)?;
        return Ok(Layer { blob, sha256, diff_id: measured.finish().1 });
    }
    if head.get(257..262) != Some(b"ustar") {
        return Err(bad("a layer is a folder, a tar or a tar compressed with gzip"));
    }
    compressed(step, |mut out| {
        let mut blob = BlobReader::buffered(step.store, &blob, step.cancel)?;
        io::copy(&mut blob, &mut out).map_err(write_error(step.store))?;
        Ok(out)
    })
}

/// An image in the making.
struct Image<'a> {
    layout: Composition<'a>,
    layers: Vec<Descriptor>,
    config: Config,
}

impl<'a> Image<'a> {
    /// Starts with the layers and configuration of the base, or with nothing.
    fn start(
        step: &Step<'a>,
        request: &request::OciImage,
        created: String,
    ) -> Result<Self, NativeError> {
        let request::Platform { os, architecture, variant } = &request.platform;
        for (field, text) in [("platform.os", os), ("platform.architecture", architecture)] {
            if text.is_empty() {
                return Err(NativeError::field(field, "it is empty"));
            }
        }
        let layout = Composition::new(step.store, LinkRule::Inside);
        let mut image = Self { layout, layers: Vec::new(), config: Config::default() };
        if let Some(path) = &request.base {
            image.read_base(step, path)?;
            let config = &image.config;
            if &config.os != os || &config.architecture != architecture {
                let why = format!("the base is for `{}/{}`", config.os, config.architecture);
                return Err(NativeError::field("platform", why));
            }
        }
        image.config.os.clone_from(os);
        image.config.architecture.clone_from(architecture);
        if variant.is_some() {
            image.config.variant.clone_from(variant);
        }
        image.config.created = created;
        image.config.rootfs.kind = "layers".to_owned();
        configure(&mut image.config.config, request.config.clone().unwrap_or_default())?;
        Ok(image)
    }

    fn push(&mut self, layer: Layer) -> Result<(), NativeError> {
        let Layer { blob, sha256, diff_id } = layer;
        self.put_blob(&sha256, blob)?;
        self.layers.push(descriptor(spec::MEDIA_LAYER, &sha256));
        self.config.rootfs.diff_ids.push(name(&diff_id));
        let history = json!({"created": self.config.created, "created_by": CREATED_BY});
        self.config.history.push(history);
        Ok(())
    }

    /// Writes configuration, manifest and index; gives the layout.
    fn finish(mut self, step: &Step<'_>, request: &request::OciImage) -> Result<Made, NativeError> {
        let config = std::mem::take(&mut self.config);
        let platform = PlatformJson {
            architecture: config.architecture.clone(),
            os: config.os.clone(),
            variant: config.variant.clone(),
        };
        let config = self.put_json(step, spec::MEDIA_CONFIG, &config)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(spec::MEDIA_MANIFEST.to_owned()),
            config,
            layers: std::mem::take(&mut self.layers),
        };
        let mut manifest = self.put_json(step, spec::MEDIA_MANIFEST, &manifest)?;
        manifest.platform = Some(platform);
        if let Some(reference) = &request.reference {
            manifest.annotations =
                BTreeMap::from([(spec::REFERENCE.to_owned(), reference.clone())]);
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(spec::MEDIA_INDEX.to_owned()),
            manifests: vec![manifest],
        };
        let marker = Marker { image_layout_version: "1.0.0".to_owned() };
        self.put_file(spec::INDEX_FILE, step.store.put_bytes(&encode(&index)?)?)?;
        self.put_file(spec::LAYOUT_FILE, step.store.put_bytes(&encode(&marker)?)?)?;
        Ok(Made::Tree { root: self.layout.finish()? })
    }

    fn put_json<T: Serialize>(
        &mut self,
        step: &Step<'_>,
        media_type: &str,
        value: &T,
    ) -> Result<Descriptor, NativeError> {
        let bytes = encode(value)?;
        let sha256 = maestro_core::DigestFunction::Sha256.digest(&bytes);
        self.put_blob(&sha256, step.store.put_bytes(&bytes)?)?;
        Ok(descriptor(media_type, &sha256))
    }

    fn put_blob(&mut self, sha256: &Digest, blob: Digest) -> Result<(), NativeError> {
        self.put_file(&blob_path(&sha256.hex()), blob)
    }

    fn put_file(&mut self, path: &str, digest: Digest) -> Result<(), NativeError> {
        let path = RelPath::new(path)
            .map_err(|error| NativeError::Internal { message: error.to_string() })?;
        self.layout.put(Some(&path), Place::File { digest, executable: false })
    }
}

/// Where a blob stands in a layout.
fn blob_path(sha256_hex: &str) -> String {
    format!("blobs/sha256/{sha256_hex}")
}

/// The text form of a digest in OCI documents.
fn name(sha256: &Digest) -> String {
    format!("sha256:{}", sha256.hex())
}

fn descriptor(media_type: &str, sha256: &Digest) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: name(sha256),
        size: sha256.size,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, NativeError> {
    serde_json::to_vec(value).map_err(|error| NativeError::Internal { message: error.to_string() })
}

/// Lays what the request says over what the base says.
fn configure(config: &mut RunConfig, request: ImageConfig) -> Result<(), NativeError> {
    let ImageConfig { entrypoint, cmd, env, workdir, user, labels, exposed_ports, stop_signal } =
        request;
    if entrypoint.is_some() {
        // The base's arguments were meant for the base's program.
        config.cmd = None;
        config.entrypoint = entrypoint;
    }
    let replace = |old: &mut Option<String>, new: Option<String>| {
        if new.is_some() {
            *old = new;
        }
    };
    replace(&mut config.working_dir, workdir);
    replace(&mut config.user, user);
    replace(&mut config.stop_signal, stop_signal);
    if cmd.is_some() {
        config.cmd = cmd;
    }
    for (variable, value) in env.unwrap_or_default() {
        if variable.is_empty() || variable.contains(['=', '\0']) || value.contains('\0') {
            let why = format!("`{variable}` is not a variable with a value");
            return Err(NativeError::field("config.env", why));
        }
        let list = config.env.get_or_insert_default();
        let text = format!("{variable}={value}");
        match list.iter_mut().find(|old| old.split_once('=').is_some_and(|(n, _)| n == variable)) {
            Some(old) => *old = text,
            None => list.push(text),
        }
    }
    if let Some(labels) = labels {
        config.labels.get_or_insert_default().extend(labels);
    }
    for port in exposed_ports.unwrap_or_default() {
        check_port(&port)?;
        config.exposed_ports.get_or_insert_default().insert(port, Empty {});
    }
    Ok(())
}

/// `8080`, `8080/tcp` or `8080/udp`.
fn check_port(port: &str) -> Result<(), NativeError> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let number_fits = number.parse::<u16>().is_ok_and(|n| n > 0 && n.to_string() == number);
    if !number_fits || !matches!(protocol, "tcp" | "udp" | "sctp") {
        let why = format!("`{port}` is not a port such as `8080/tcp`");
        return Err(NativeError::field("config.exposed_ports", why));
    }
    Ok(())
}
