//! Steps that compose trees, archives and images, take archives apart, and list what is in them.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use starlark::environment::MethodsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::dict::DictRef;
use starlark::values::none::NoneType;

use super::request::{add, checked_output, list, object, unpack_entries};
use crate::ctx::actions::Actions;
use crate::ctx::draft::expect_file;
use crate::error::{Code, RuleError};
use crate::values::entry::{EntryKind, EntryValue};
use crate::values::{expect_sequence, wrong_type};

#[starlark_module]
pub(crate) fn tree_methods(builder: &mut MethodsBuilder) {
    /// A member of a tree or archive: exactly one of `file`, `link`, `content`, `folder`.
    ///
    /// Args:
    ///   path: where it stands; `.` is the root, for trees.
    ///   file: a file or tree.
    ///   inside: what is taken out of `file`, if that is a tree.
    ///   link: the text of a symbolic link.
    ///   content: a small text.
    ///   folder: `True` for a folder, which may stay empty.
    ///   executable: whether a file is a program; as the file where `None`.
    fn entry<'v>(
        this: &Actions,
        #[starlark(require = pos)] path: &str,
        #[starlark(require = named)] file: Option<Value<'v>>,
        #[starlark(require = named, default = "")] inside: &str,
        #[starlark(require = named)] link: Option<String>,
        #[starlark(require = named)] content: Option<String>,
        #[starlark(require = named, default = false)] folder: bool,
        #[starlark(require = named)] executable: Option<bool>,
    ) -> starlark::Result<EntryValue> {
        let _ = this;
        let what = match (file, link, content, folder) {
            (Some(file), None, None, false) => {
                let file = expect_file(file, "file")?;
                let from = match inside {
                    "" => file.path().to_string(),
                    _ => format!("{}/{inside}", file.path()),
                };
                EntryKind::From { input: file.artifact(), from, executable }
            }
            (None, Some(text), None, false) => EntryKind::Link(text),
            (None, None, Some(text), false) => {
                EntryKind::Content { text, executable: executable.unwrap_or(false) }
            }
            (None, None, None, true) => EntryKind::Folder,
            _ => {
                let message = "an entry has exactly one of `file`, `link`, `content`, `folder`";
                return RuleError::new(Code::Action, message).raise();
            }
        };
        Ok(EntryValue { path: path.to_owned(), what })
    }

    /// Composes a tree out of entries. No bytes are copied.
    fn tree<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] entries: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = checked_output(output, true)?;
        let (entries, inputs) = unpack_entries(entries)?;
        add(eval, "tree", json!({"entries": entries}), output, inputs)
    }

    /// Makes an archive out of entries; its bytes depend on them alone.
    ///
    /// Args:
    ///   output: the file.
    ///   entries: a list of `entry(…)`.
    ///   compression: `none` or `gzip`.
    ///   mtime: the time of every member, in seconds since 1970.
    ///   uid: the owner of every member.
    ///   gid: the group of every member.
    fn tar<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] entries: Value<'v>,
        #[starlark(require = named, default = "none")] compression: &str,
        #[starlark(require = named, default = 0)] mtime: i32,
        #[starlark(require = named, default = 0)] uid: i32,
        #[starlark(require = named, default = 0)] gid: i32,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = checked_output(output, false)?;
        if !matches!(compression, "none" | "gzip") {
            let message = format!("`{}` is no compression", compression.escape_debug());
            return RuleError::new(Code::Action, message).hint("use `none` or `gzip`").raise();
        }
        if mtime < 0 || uid < 0 || gid < 0 {
            let message = "`mtime`, `uid` and `gid` are not negative";
            return RuleError::new(Code::Action, message).raise();
        }
        let (entries, inputs) = unpack_entries(entries)?;
        let request = json!({
            "entries": entries,
            "compression": compression,
            "mtime": mtime,
            "uid": uid,
            "gid": gid,
        });
        add(eval, "tar", request, output, inputs)
    }

    /// Assembles a container image as a tree in the OCI image layout.
    ///
    /// Args:
    ///   output: the tree.
    ///   layers: trees, toolchains and tar archives, bottom first.
    ///   base: another layout, or `None`.
    fn oci_image<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] layers: Value<'v>,
        #[starlark(require = named)] base: Option<Value<'v>>,
        #[starlark(require = named, default = "linux")] os: &str,
        #[starlark(require = named, default = "amd64")] architecture: &str,
        #[starlark(require = named)] entrypoint: Option<Value<'v>>,
        #[starlark(require = named)] cmd: Option<Value<'v>>,
        #[starlark(require = named)] env: Option<Value<'v>>,
        #[starlark(require = named, default = "")] workdir: &str,
        #[starlark(require = named, default = "")] user: &str,
        #[starlark(require = named)] labels: Option<Value<'v>>,
        #[starlark(require = named)] exposed_ports: Option<Value<'v>>,
        #[starlark(require = named, default = "latest")] reference: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = checked_output(output, true)?;
        let mut inputs = Vec::new();
        let mut paths = Vec::new();
        for layer in expect_sequence(layers, "layers")? {
            let layer = expect_file(*layer, "layers")?;
            inputs.push(layer.artifact());
            paths.push(layer.path().to_string());
        }
        let mut request = json!({
            "layers": paths,
            "platform": {"os": os, "architecture": architecture},
            "config": image_config(entrypoint, cmd, env, labels, exposed_ports, workdir, user)?,
            "created": 0,
            "reference": reference,
        });
        if let Some(base) = base.filter(|value| !value.is_none()) {
            let base = expect_file(base, "base")?;
            inputs.push(base.artifact());
            if let Some(fields) = request.as_object_mut() {
                fields.insert("base".to_owned(), json!(base.path()));
            }
        }
        add(eval, "oci-image", request, output, inputs)
    }

    /// Unpacks an archive into a tree.
    ///
    /// Args:
    ///   output: the tree.
    ///   archive: the archive.
    ///   format: `auto`, `tar`, `tar.gz` or `zip`.
    ///   strip_prefix: folders at the front of every path that are left out.
    fn unpack<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] archive: Value<'v>,
        #[starlark(require = named, default = "auto")] format: &str,
        #[starlark(require = named, default = "")] strip_prefix: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = checked_output(output, true)?;
        let archive = expect_file(archive, "archive")?;
        let request = json!({
            "archive": archive.path(),
            "format": format,
            "strip_prefix": strip_prefix.trim_matches('/'),
        });
        add(eval, "unpack", request, output, vec![archive.artifact()])
    }

    /// Lists files with their sizes and SHA-256 digests.
    ///
    /// Args:
    ///   output: the list.
    ///   files: a dict from names to files and trees.
    ///   format: `json`, or `sha256sums` as `sha256sum --check` reads.
    fn manifest<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] files: Value<'v>,
        #[starlark(require = named, default = "json")] format: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = checked_output(output, false)?;
        let wrong = || wrong_type("files", "a dict from names to files", files);
        let dict = DictRef::from_value(files).ok_or_else(wrong)?;
        let mut inputs = Vec::new();
        let mut sorted = BTreeMap::new();
        for (name, file) in dict.iter() {
            let name = name.unpack_str().ok_or_else(wrong)?;
            let file = expect_file(file, "files")?;
            inputs.push(file.artifact());
            sorted.insert(name.to_owned(), file.path().to_string());
        }
        let files: Vec<Json> =
            sorted.iter().map(|(name, from)| json!({"name": name, "from": from})).collect();
        add(eval, "manifest", json!({"format": format, "files": files}), output, inputs)
    }
}

fn image_config(
    entrypoint: Option<Value<'_>>,
    cmd: Option<Value<'_>>,
    env: Option<Value<'_>>,
    labels: Option<Value<'_>>,
    exposed_ports: Option<Value<'_>>,
    workdir: &str,
    user: &str,
) -> Result<Json, RuleError> {
    let mut config = Map::new();
    let mut put = |name: &str, value: Json| {
        let empty = match &value {
            Json::Array(items) => items.is_empty(),
            Json::Object(fields) => fields.is_empty(),
            Json::String(text) => text.is_empty(),
            _ => false,
        };
        if !empty {
            config.insert(name.to_owned(), value);
        }
    };
    put("entrypoint", json!(list(entrypoint, "entrypoint")?));
    put("cmd", json!(list(cmd, "cmd")?));
    put("env", object(env, "env")?);
    put("labels", object(labels, "labels")?);
    put("exposed_ports", json!(list(exposed_ports, "exposed_ports")?));
    put("workdir", json!(workdir));
    put("user", json!(user));
    Ok(Json::Object(config))
}
