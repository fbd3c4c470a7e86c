//! Reads the image layout that an image is based on, and believes none of it.
//!
//! Every document and layer that is taken over is found by the digest that names it, and its size
//! and SHA-256 are checked: a layout is the output of an unpacked download.

use maestro_core::path::RelPath;
use maestro_core::{Digest, DigestFunction};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::compose::{Composition, Place};
use super::super::inputs::Found;
use super::super::{NativeError, Step, scratch};
use super::spec::{self, Config, Descriptor, Index, Manifest, Marker};
use super::{Image, blob_path};

/// The largest document that is read from a layout, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

impl Image<'_> {
    /// Takes over layers and configuration of the layout at `path`.
    pub(super) fn read_base(&mut self, step: &Step<'_>, path: &str) -> Result<(), NativeError> {
        let root = match step.inputs.find("base", path)? {
            Found::Tree { root, .. } => root,
            Found::File { .. } => {
                let why = format!("`{path}` is a file, not an image layout; unpack it first");
                return Err(NativeError::field("base", why));
            }
        };
        let mut base = Base { path, step, tree: Composition::of_tree(step.store, root) };
        let marker: Marker = base.document(spec::LAYOUT_FILE)?;
        if !marker.image_layout_version.starts_with("1.") {
            return Err(
                base.fail(format!("version `{}` is not known", marker.image_layout_version))
            );
        }
        let index: Index = base.document(spec::INDEX_FILE)?;
        let [manifest] = index.manifests.as_slice() else {
            let why = format!("it has {} manifests, one is needed", index.manifests.len());
            return Err(base.fail(why));
        };
        if manifest.media_type != spec::MEDIA_MANIFEST {
            return Err(base.fail(format!("`{}` is not an image manifest", manifest.media_type)));
        }
        let manifest: Manifest = base.named(manifest)?;
        let config: Config = base.named(&manifest.config)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(base.fail("manifest and configuration list different layers".to_owned()));
        }
        for layer in manifest.layers {
            if !layer.media_type.starts_with(spec::MEDIA_LAYER_PREFIX) {
                return Err(base.fail(format!("`{}` is not a layer", layer.media_type)));
            }
            let (sha256, blob) = base.blob(&layer)?;
            self.put_blob(&sha256, blob)?;
            self.layers.push(layer);
        }
        self.config = config;
        complete_history(&mut self.config);
        Ok(())
    }
}

/// Gives a base that tells no history, or half of one, an entry for each of its layers: readers
/// demand as many as there are layers.
fn complete_history(config: &mut Config) {
    let made_layer = |entry: &&Value| entry.get("empty_layer") != Some(&Value::Bool(true));
    let layers = config.rootfs.diff_ids.len();
    if config.history.iter().filter(made_layer).count() != layers {
        config.history = vec![json!({"created_by": "base"}); layers];
    }
}

/// A layout that is read.
struct Base<'a, 'b> {
    path: &'a str,
    step: &'a Step<'b>,
    tree: Composition<'b>,
}

impl Base<'_, '_> {
    fn fail(&self, why: String) -> NativeError {
        NativeError::Layout { layout: self.path.to_owned(), why }
    }

    fn file(&mut self, path: &str) -> Result<Digest, NativeError> {
        let rel = RelPath::new(path).map_err(|error| self.fail(error.to_string()))?;
        match self.tree.get(&rel)? {
            Some(Place::File { digest, .. }) => Ok(*digest),
            _ => Err(self.fail(format!("it has no file `{path}`"))),
        }
    }

    fn document<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, NativeError> {
        let digest = self.file(path)?;
        self.read(path, &digest)
    }

    /// The document that a descriptor names.
    fn named<T: DeserializeOwned>(&mut self, descriptor: &Descriptor) -> Result<T, NativeError> {
        let (_, blob) = self.blob(descriptor)?;
        self.read(&descriptor.digest, &blob)
    }

    fn read<T: DeserializeOwned>(&self, name: &str, blob: &Digest) -> Result<T, NativeError> {
        if blob.size > DOCUMENT_BYTES_MAX {
            return Err(self.fail(format!("`{name}` is larger than {DOCUMENT_BYTES_MAX} bytes")));
        }
        let bytes = self.step.store.read(blob)?;
        serde_json::from_slice(&bytes).map_err(|error| self.fail(format!("`{name}`: {error}")))
    }

    /// The checked SHA-256 and the blob of a descriptor.
    fn blob(&mut self, descriptor: &Descriptor) -> Result<(Digest, Digest), NativeError> {
        let Descriptor { digest, size, .. } = descriptor;
        let sha256 = digest
            .strip_prefix("sha256:")
            .and_then(|hex| Digest::from_hex(DigestFunction::Sha256, hex, *size).ok())
            .ok_or_else(|| self.fail(format!("`{digest}` is not a SHA-256 digest")))?;
        let blob = self.file(&blob_path(&sha256.hex()))?;
        let actual = scratch::sha256(self.step.store, &blob, self.step.cancel)?;
        if actual != sha256 {
            let why = format!(
                "blob `{digest}` of {size} bytes has the digest `sha256:{}` and {} bytes",
                actual.hex(),
                actual.size
            );
            return Err(self.fail(why));
        }
        Ok((sha256, blob))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_has_an_entry_for_each_layer() {
        let check = |history: Value, expect: Value| {
            let mut config: Config = serde_json::from_value(json!({
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": ["sha256:1", "sha256:2"]},
                "history": history,
            }))
            .expect("a configuration");
            complete_history(&mut config);
            assert_eq!(Value::Array(config.history), expect);
        };
        let base = json!({"created_by": "base"});
        check(json!([]), json!([base, base]));
        check(json!([{"comment": "x"}]), json!([base, base]));
        let whole = json!([{"comment": "x"}, {"empty_layer": true}, {"comment": "y"}]);
        check(whole.clone(), whole);
    }
}
