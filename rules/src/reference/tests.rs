//! References say what files say.

use maestro_core::host::{DirEntry, FileType, Host, HostError};
use maestro_core::{Label, RelPath};

use super::{error_page, error_pages, reference};

/// A workspace of one file.
struct One(&'static str);

impl Host for One {
    fn stat(&self, path: &RelPath) -> Result<Option<FileType>, HostError> {
        Ok((path.as_str() == "x.star").then_some(FileType::File))
    }

    fn read(&self, path: &RelPath) -> Result<Option<Vec<u8>>, HostError> {
        Ok((path.as_str() == "x.star").then(|| self.0.as_bytes().to_vec()))
    }

    fn list(&self, _: Option<&RelPath>) -> Result<Vec<DirEntry>, HostError> {
        Ok(Vec::new())
    }

    fn open_repository(&self, name: &str, from: &str) -> Result<String, HostError> {
        let (name, from) = (name.to_owned(), from.to_owned());
        Err(HostError::NoRepository { name, from, hints: Vec::new() })
    }
}

fn label(text: &str) -> Label {
    Label::parse(text, "", "").expect("a label")
}

const LOUD: &str = r#""""Loud texts."""

Info = provider(doc = "What is loud.", fields = {"text": "The text."})

def _impl(ctx):
    return [Info(text = "")]

def _common():
    return {"src": attr.label(mandatory = True, allow_single_file = [".txt"], doc = "The | text.")}

loud = rule(
    implementation = _impl,
    doc = "Makes it loud.",
    attrs = _common() | {
        "deps": attr.label_list(providers = [Info], doc = "Others."),
        "level": attr.string(values = ["high", "low"]),
        "_tool": attr.string(),
    },
    provides = [Info],
)

other = loud

def both(name, *, level = "high", **kwargs):
    """Makes two.

    Really two.

    Args:
      name: the name.
    """
    loud(name = name, level = level, **kwargs)
"#;

const LOUD_PAGE: &str = "# `//:x.star`

Loud texts.

## `loud`

Makes it loud.

Provides `Info`.

| attribute | type | default | meaning |
|---|---|---|---|
| `src` | a label | mandatory | The \\| text. Files: `.txt`. Exactly one file. |
| `deps` | a list of labels | `[]` | Others. Targets with `Info`. |
| `level` | a string | `\"high\"` | One of `\"high\"`, `\"low\"`. |

## `other`

Another name of `loud`.

## `Info`

What is loud.

| field | meaning |
|---|---|
| `text` | The text. |

## `both(name, level = \"high\", **kwargs)`

Makes two.

Really two.

| parameter | meaning |
|---|---|
| `name` | the name. |
";

#[test]
fn a_file_is_described_as_it_is_evaluated() {
    let found = reference(&One(LOUD), &label("//:x.star")).expect("it evaluates");
    assert_eq!(found.to_markdown(), LOUD_PAGE);
}

#[test]
fn what_cannot_be_described_is_an_error() {
    for (text, file, code) in [
        ("x = (", "//:x.star", "MAE0100"),
        ("", "//:y.star", "MAE0104"),
        ("", "@maestro//toolchains:maestro.star", "MAE0104"),
    ] {
        let errors = reference(&One(text), &label(file)).expect_err(file);
        assert_eq!(errors[0].code, code, "{file}");
    }
}

#[test]
fn every_code_says_what_to_do() {
    for (code, page) in error_pages() {
        assert!(page.starts_with(&format!("# {code}: ")), "{page}");
        assert!(page.contains("\n## What to do\n"), "{code} lacks `Fix:` in its documentation");
    }
    assert!(error_page("MAE9999").is_none());
}
