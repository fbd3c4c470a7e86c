//! `RECORD`: the files of a wheel and their digests, as comma-separated lines.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maestro_core::Digest;

use crate::native::NativeError;

/// The lines of a `RECORD` that were not met yet.
pub(super) struct Record {
    /// From path to the digest, in the text form that the file has.
    files: BTreeMap<String, Option<String>>,
    /// The folder of the list itself.
    info: String,
}

impl Record {
    /// Reads the list.
    pub(super) fn parse(text: &str, info: &str) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut fields = fields(line).into_iter();
            let (Some(path), Some(hash)) = (fields.next(), fields.next()) else {
                return Err(format!("`RECORD` has the line `{}`", line.escape_debug()));
            };
            let hash = (!hash.is_empty()).then_some(hash);
            if files.insert(path.clone(), hash).is_some() {
                return Err(format!("`RECORD` names `{path}` twice"));
            }
        }
        Ok(Self { files, info: info.to_owned() })
    }

    /// The list itself and its signatures have no digest.
    fn is_exempt(&self, path: &str) -> bool {
        let inside = path.strip_prefix(&self.info).and_then(|rest| rest.strip_prefix('/'));
        matches!(inside, Some("RECORD" | "RECORD.jws" | "RECORD.p7s"))
    }

    /// Compares a file with its line, which is taken off the list.
    pub(super) fn check(
        &mut self,
        path: &str,
        digest: impl FnOnce() -> Result<Digest, NativeError>,
    ) -> Result<Result<(), String>, NativeError> {
        let listed = self.files.remove(path);
        if self.is_exempt(path) {
            return Ok(Ok(()));
        }
        let hash = match listed {
            None => return Ok(Err(format!("`{path}` is not in its `RECORD`"))),
            Some(None) => return Ok(Err(format!("`RECORD` has no digest of `{path}`"))),
            Some(Some(hash)) => hash,
        };
        let Some(wanted) = hash.strip_prefix("sha256=") else {
            return Ok(Err(format!(
                "`RECORD` has the digest `{}` of `{path}`; supported is `sha256=…`",
                hash.escape_debug()
            )));
        };
        let actual = URL_SAFE_NO_PAD.encode(digest()?.hash);
        match actual == wanted.trim_end_matches('=') {
            true => Ok(Ok(())),
            false => Ok(Err(format!(
                "`{path}` has the SHA-256 {actual}, its `RECORD` says {}",
                wanted.escape_debug()
            ))),
        }
    }

    /// Fails where files of the list were not there.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.files.keys().find(|path| !self.is_exempt(path)) {
            Some(path) => Err(format!("its `RECORD` names `{path}`, which is not there")),
            None => Ok(()),
        }
    }
}

/// The fields of a line; a quoted one may hold commas, and doubled quotes.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("it begins with one");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_csv() {
        let check = |line: &str, expect: &[&str]| assert_eq!(fields(line), expect, "{line}");
        check("a.py,sha256=x,3", &["a.py", "sha256=x", "3"]);
        check("\"a,b.py\",sha256=x,3", &["a,b.py", "sha256=x", "3"]);
        check("\"a\"\"b\",,", &["a\"b", "", ""]);
        check("a", &["a"]);
    }
}
