//! What the npm client is configured to do: registries, certificates, credentials, its cache.
//!
//! The client itself merges its defaults, files and variables (`npm config ls --json`); only
//! credentials, which it does not show, are read from the files that it names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde_json::Value;

use crate::FetchError;
use crate::options::NpmOptions;

/// What matters here of the client's configuration.
#[derive(Debug, Default)]
pub(super) struct NpmConfig {
    registry: String,
    /// From `@scope` to its registry.
    scopes: BTreeMap<String, String>,
    pub(super) cache: Option<PathBuf>,
    pub(super) cafile: Option<PathBuf>,
    pub(super) proxy: Option<String>,
    pub(super) https_proxy: Option<String>,
    credentials: Credentials,
}

/// From `//host/path/` to the header that is sent there.
#[derive(Default)]
struct Credentials(BTreeMap<String, String>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl NpmConfig {
    /// Runs the client once.
    pub(super) fn ask(options: &NpmOptions) -> Result<Self, FetchError> {
        let program = || options.program.display().to_string();
        let mut command = Command::new(&options.program);
        command.args(["config", "ls", "--json"]).stdin(Stdio::null()).stderr(Stdio::null());
        if let Some(folder) = &options.folder {
            command.current_dir(folder);
        }
        let output = command.output().map_err(|source| FetchError::ClientProgram {
            client: "npm",
            program: program(),
            source,
        })?;
        let config: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
            let why = match output.status.success() {
                true => error.to_string(),
                false => output.status.to_string(),
            };
            FetchError::ClientConfig { client: "npm", why }
        })?;
        let mut parsed = Self::parse(&config)?;
        let mut files: Vec<PathBuf> = ["globalconfig", "userconfig"]
            .into_iter()
            .filter_map(|key| config.get(key).and_then(Value::as_str).map(PathBuf::from))
            .collect();
        files.extend(options.folder.iter().map(|folder| folder.join(".npmrc")));
        for file in files {
            // The client was content without the file, so nothing is said of it here either.
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            parsed.credentials.read(&text, &options.variables.0);
        }
        Ok(parsed)
    }

    fn parse(config: &Value) -> Result<Self, FetchError> {
        let text = |key: &str| {
            let text = config.get(key).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let registry = text("registry").ok_or_else(|| FetchError::ClientConfig {
            client: "npm",
            why: "it names no registry".to_owned(),
        })?;
        let all = config.as_object().into_iter().flatten();
        let scopes = all.filter_map(|(key, value)| {
            let scope = key.strip_suffix(":registry").filter(|scope| scope.starts_with('@'))?;
            Some((scope.to_owned(), value.as_str()?.to_owned()))
        });
        Ok(Self {
            registry,
            scopes: scopes.collect(),
            cache: text("cache").map(PathBuf::from),
            cafile: text("cafile").map(PathBuf::from),
            proxy: text("proxy"),
            https_proxy: text("https-proxy"),
            credentials: Credentials::default(),
        })
    }

    /// The registry of a scope, or of packages without one.
    pub(super) fn registry(&self, scope: Option<&str>) -> &str {
        scope.and_then(|scope| self.scopes.get(scope)).unwrap_or(&self.registry)
    }

    /// The header `Authorization` for a URL: that of its innermost folder.
    pub(super) fn authorization(&self, url: &Url) -> Option<String> {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let place = format!("//{}{port}{}", url.host_str()?, url.path());
        let known = self.credentials.0.iter().filter(|(folder, _)| place.starts_with(*folder));
        known.max_by_key(|(folder, _)| folder.len()).map(|(_, header)| header.clone())
    }
}

impl Credentials {
    /// Reads lines such as `//host/path/:_authToken=TOKEN`; later files win.
    fn read(&mut self, text: &str, variables: &BTreeMap<String, String>) {
        let mut logins: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            let Some((folder, name)) = key.trim().rsplit_once(':') else { continue };
            if !folder.starts_with("//") {
                continue;
            }
            let folder = format!("{}/", folder.trim_end_matches('/'));
            let value = expand(value.trim().trim_matches('"'), variables);
            match name {
                "_authToken" => {
                    self.0.insert(folder, format!("Bearer {value}"));
                }
                "_auth" => {
                    self.0.insert(folder, format!("Basic {value}"));
                }
                "username" => logins.entry(folder).or_default()[0] = Some(value),
                "_password" => logins.entry(folder).or_default()[1] = Some(value),
                _ => {}
            }
        }
        for (folder, login) in logins {
            let [Some(user), Some(password)] = login else { continue };
            let Ok(password) = STANDARD.decode(password) else { continue };
            let text = [user.as_bytes(), b":", &password].concat();
            self.0.insert(folder, format!("Basic {}", STANDARD.encode(text)));
        }
    }
}

/// Replaces `${NAME}` by the variable, where there is one.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            out.push_str("${");
            rest = after;
            continue;
        };
        match variables.get(name) {
            Some(value) => out.push_str(value),
            None => out.extend(["${", name, "}"]),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn registries_and_credentials_are_those_of_the_innermost_place() {
        let config = json!({
            "registry": "https://r.example/npm/",
            "@acme:registry": "https://acme.example/",
            "cache": "/c",
            "proxy": null,
            "cafile": "",
        });
        let mut config = NpmConfig::parse(&config).expect("a configuration");
        let variables = BTreeMap::from([("TOKEN".to_owned(), "secret".to_owned())]);
        let lines = "; a comment\n//r.example/:_authToken=outer\n//r.example/npm/:_authToken = \
                     ${TOKEN}\n//acme.example/:username=me\n//acme.example/:_password=cHc=\n";
        config.credentials.read(lines, &variables);
        assert_eq!(config.registry(None), "https://r.example/npm/");
        assert_eq!(config.registry(Some("@acme")), "https://acme.example/");
        assert_eq!(config.registry(Some("@other")), "https://r.example/npm/");
        assert_eq!(config.cafile, None);
        let check = |url: &str, expect: Option<&str>| {
            let url = Url::parse(url).expect("a URL");
            assert_eq!(config.authorization(&url).as_deref(), expect, "{url}");
        };
        check("https://r.example/npm/a/-/a-1.tgz", Some("Bearer secret"));
        check("https://r.example/a", Some("Bearer outer"));
        check("https://acme.example/a", Some("Basic bWU6cHc="));
        check("https://r.example:8443/a", None);
        check("https://r.example.evil/a", None);
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn variables_that_are_not_set_stay() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expect) in
            [("${A}-${B}", "1-${B}"), ("${A", "${A"), ("$A", "$A"), ("${}${A}", "${}1")]
        {
            assert_eq!(expand(text, &variables), expect, "{text}");
        }
    }
}
