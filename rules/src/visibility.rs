//! Who may use a target or load a file.

use maestro_core::Label;

use crate::error::{Code, RuleError};

/// The packages that may use something. Its own package always may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// Only its own package.
    #[default]
    Private,
    /// Everyone.
    Public,
    /// These packages.
    Packages(Vec<PackageSpec>),
}

/// A package, or a folder with all packages below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackageSpec {
    pub(crate) repo: String,
    pub(crate) package: String,
    pub(crate) below: bool,
}

impl PackageSpec {
    fn entry(&self) -> String {
        let at = if self.repo.is_empty() { String::new() } else { format!("@{}", self.repo) };
        let what = if self.below { "__subpackages__" } else { "__pkg__" };
        format!("{at}//{}:{what}", self.package)
    }

    fn matches(&self, repo: &str, package: &str) -> bool {
        let inside = || {
            self.package.is_empty()
                || package
                    .strip_prefix(self.package.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.repo == repo && (self.package == package || (self.below && inside()))
    }
}

impl Visibility {
    /// Parses the entries of a `visibility` list as they stand in package `package` of `repo`.
    pub(crate) fn parse(texts: &[&str], repo: &str, package: &str) -> Result<Self, RuleError> {
        let mut specs = Vec::new();
        for text in texts {
            match *text {
                "//visibility:public" | "public" => return Self::only(texts, Self::Public),
                "//visibility:private" | "private" => return Self::only(texts, Self::Private),
                _ => specs.push(parse_spec(text, repo, package)?),
            }
        }
        Ok(if specs.is_empty() { Self::Private } else { Self::Packages(specs) })
    }

    fn only(texts: &[&str], visibility: Self) -> Result<Self, RuleError> {
        match texts {
            [_] => Ok(visibility),
            _ => Err(RuleError::new(
                Code::Attribute,
                "`//visibility:public` and `//visibility:private` stand alone in a list",
            )),
        }
    }

    /// A folder and all packages below it.
    pub(crate) fn subtree(repo: &str, package: &str) -> Self {
        let (repo, package) = (repo.to_owned(), package.to_owned());
        Self::Packages(vec![PackageSpec { repo, package, below: true }])
    }

    /// The entries of a `visibility` list that says the same, as full labels.
    pub(crate) fn entries(&self) -> Vec<String> {
        match self {
            Self::Private => vec!["//visibility:private".to_owned()],
            Self::Public => vec!["//visibility:public".to_owned()],
            Self::Packages(specs) => specs.iter().map(PackageSpec::entry).collect(),
        }
    }

    /// Whether `package` of `repo` may use what belongs to `owner`.
    pub(crate) fn allows(&self, owner: &Label, repo: &str, package: &str) -> bool {
        if *owner.repo == *repo && *owner.package == *package {
            return true;
        }
        match self {
            Self::Private => false,
            Self::Public => true,
            Self::Packages(specs) => specs.iter().any(|spec| spec.matches(repo, package)),
        }
    }
}

fn parse_spec(text: &str, repo: &str, package: &str) -> Result<PackageSpec, RuleError> {
    let error = || {
        RuleError::new(Code::Attribute, format!("`{}` is no visibility", text.escape_debug())).hint(
            "use `//visibility:public`, `//visibility:private`, `//pkg:__pkg__` or \
             `//pkg:__subpackages__`",
        )
    };
    if !text.starts_with("//") && !text.starts_with('@') && !text.starts_with(":__") {
        return Err(error());
    }
    let (label, below) = match text.strip_suffix("...").filter(|head| head.ends_with('/')) {
        Some(head) => {
            let folder = head.trim_end_matches('/');
            let root = if folder.contains("//") { "" } else { "//" };
            (format!("{folder}{root}:__subpackages__"), true)
        }
        None => (text.to_owned(), text.ends_with(":__subpackages__")),
    };
    let has_name = label.contains(':');
    let label = Label::parse(&label, repo, package).map_err(|_| error())?;
    match &*label.name {
        "__pkg__" | "__subpackages__" => {}
        _ if !has_name => {} // `//pkg` names the package itself
        _ => return Err(error()),
    }
    Ok(PackageSpec { repo: label.repo.to_string(), package: label.package.to_string(), below })
}

/// What to write into `visibility` so that `package` of `repo` may use it.
pub(crate) fn entry_for(repo: &str, package: &str) -> String {
    match repo {
        "" => format!("//{package}:__pkg__"),
        _ => format!("@{repo}//{package}:__pkg__"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_say_who_may_use() {
        let owner = Label::parse("//lib:x", "", "").expect("valid");
        let check = |texts: &[&str], package: &str, expect: bool| {
            let visibility = Visibility::parse(texts, "", "lib").expect("valid");
            assert_eq!(visibility.allows(&owner, "", package), expect, "{texts:?} {package}");
        };
        check(&[], "lib", true);
        check(&[], "app", false);
        check(&["//visibility:public"], "app", true);
        check(&["//visibility:private"], "app", false);
        check(&["//app:__pkg__"], "app", true);
        check(&["//app:__pkg__"], "app/sub", false);
        check(&["//app:__subpackages__"], "app/sub", true);
        check(&["//app:__subpackages__"], "apple", false);
        check(&["//..."], "anything", true);
        check(&["//app/..."], "app/sub", true);
        check(&["//app/..."], "apple", false);
        check(&["//app"], "app", true);
        check(&["//:__subpackages__"], "deep/down", true);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [&["app"][..], &["//app:x"], &["//visibility:public", "//a:__pkg__"], &[""]] {
            assert!(Visibility::parse(bad, "", "lib").is_err(), "{bad:?}");
        }
    }
}
