//! Where models answer: which URLs are taken, and to which a key may go.

use reqwest::Url;

use crate::client::LlmOptions;
use crate::error::LlmError;

/// Checks the endpoint; returns it with a trailing `/`, and as messages show it.
pub(crate) fn base_url(options: &LlmOptions) -> Result<(Url, String), LlmError> {
    let text = options.endpoint.trim().trim_end_matches('/');
    let refuse = |why: &str| LlmError::Endpoint {
        // What does not parse may hold a password anywhere, so only its beginning is shown.
        endpoint: text.split('@').next_back().unwrap_or_default().chars().take(80).collect(),
        why: why.to_owned(),
    };
    let mut url = Url::parse(text).map_err(|e| refuse(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("it is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("it holds a user or password; pass the key by itself"));
    }
    if options.api_key.is_some() && url.scheme() == "http" && !is_loopback(&url) {
        return Err(refuse("a key is never sent over plain http to another machine"));
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = match url.path().trim_end_matches('/') {
        "" => "/v1/".to_owned(),
        path => format!("{path}/"),
    };
    url.set_path(&path);
    let shown = url.as_str().trim_end_matches('/').to_owned();
    Ok((url, shown))
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked() {
        let check = |endpoint: &str, key: bool, expect: Result<&str, &str>| {
            let mut options = LlmOptions::new(endpoint);
            options.api_key = key.then(|| "k".to_owned());
            let got = base_url(&options);
            match (got, expect) {
                (Ok((url, _)), Ok(expect)) => assert_eq!(url.as_str(), expect, "{endpoint}"),
                (Err(e), Err(part)) => assert!(e.to_string().contains(part), "{e}"),
                (got, expect) => panic!("{endpoint}: {got:?} instead of {expect:?}"),
            }
        };
        check("http://127.0.0.1:8080", true, Ok("http://127.0.0.1:8080/v1/"));
        check("http://[::1]:8080/", true, Ok("http://[::1]:8080/v1/"));
        check("https://models.example/api/v1/", true, Ok("https://models.example/api/v1/"));
        check("http://models.example", false, Ok("http://models.example/v1/"));
        check("http://models.example", true, Err("plain http"));
        check("http://localhost.example", true, Err("plain http"));
        check("ftp://x", false, Err("neither http"));
        check("https://u:secret@x", false, Err("user or password"));
        check("models.example", false, Err("cannot be used"));
        let options = LlmOptions::new("https://u:secret@x");
        let error = base_url(&options).expect_err("has a password");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
