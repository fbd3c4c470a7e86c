//! Reads dpkg's database: which packages are installed, what they need, which files are theirs.
//!
//! Only files are read, in the formats of deb822(5), deb-control(5), dpkg-divert(1) and
//! update-alternatives(1); no program of dpkg is run, and nothing is written.
//! Version constraints are not evaluated: dpkg did that when it installed the packages.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ToolchainError;

/// Packages that others need without saying so, because Debian marks them as essential. Of those,
/// only the shell of `system(3)` and of `#!/bin/sh` is needed by programs themselves.
const IMPLIED: [&str; 1] = ["dash"];

/// Where the database is, and which file system it describes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DpkgPaths {
    /// The root that listed paths are relative to.
    pub root: PathBuf,
    /// The database's folder.
    pub admin: PathBuf,
}

impl Default for DpkgPaths {
    fn default() -> Self {
        Self { root: "/".into(), admin: "/var/lib/dpkg".into() }
    }
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    /// Each entry is a list of alternatives of which one must be installed.
    depends: Vec<Vec<String>>,
    provides: Vec<String>,
}

/// The installed packages of the machine's own architecture.
#[derive(Debug)]
pub(super) struct Database {
    paths: DpkgPaths,
    packages: HashMap<String, Package>,
    providers: HashMap<String, Vec<String>>,
    /// Path → (who took the path, where the file of everybody else is).
    diversions: HashMap<String, (String, String)>,
}

/// A group of alternatives, such as `awk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AlternativeGroup {
    /// Its links: (name below `/etc/alternatives`, path of the link).
    pub(super) links: Vec<(String, String)>,
    /// The choices by falling priority; each has a target for each link, possibly empty.
    pub(super) choices: Vec<Vec<String>>,
}

impl Database {
    /// Reads the list of packages and the diversions.
    pub(super) fn read(paths: &DpkgPaths) -> Result<Self, ToolchainError> {
        let status = paths.admin.join("status");
        let text = match fs::read(&status) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ToolchainError::NoDpkg { path: status });
            }
            Err(source) => return Err(ToolchainError::Io { path: status, source }),
        };
        let installed: Vec<Package> = text.split("\n\n").filter_map(parse_package).collect();
        let native = native_architecture(&installed);
        let ours = |package: &Package| [native.as_str(), "all"].contains(&&*package.architecture);
        let mut providers: HashMap<String, Vec<String>> = HashMap::new();
        let mut packages = HashMap::new();
        for package in installed.into_iter().filter(ours) {
            for name in &package.provides {
                providers.entry(name.clone()).or_default().push(package.name.clone());
            }
            packages.insert(package.name.clone(), package);
        }
        providers.values_mut().for_each(|names| names.sort_unstable());
        let diversions = read_diversions(&paths.admin.join("diversions"))?;
        Ok(Self { paths: paths.clone(), packages, providers, diversions })
    }

    /// The packages that `names` name and, transitively, need; sorted. The shell `/bin/sh` is
    /// among them wherever it is installed. Packages of `exclude` are
    /// left out and what only they need with them. The error is the list of those not installed.
    pub(super) fn closure(
        &self,
        names: &[String],
        exclude: &[String],
    ) -> Result<Vec<&Package>, Vec<String>> {
        let mut found = BTreeSet::new();
        let mut missing = BTreeSet::new();
        let implied = IMPLIED.into_iter().filter(|name| self.packages.contains_key(*name));
        let implied = implied.filter(|_| !names.is_empty()).map(str::to_owned);
        let mut waiting: Vec<Vec<String>> =
            names.iter().cloned().chain(implied).map(|name| vec![name]).collect();
        while let Some(alternatives) = waiting.pop() {
            if alternatives.iter().any(|name| exclude.contains(name)) {
                continue;
            }
            match alternatives.iter().find_map(|name| self.installed(name)) {
                Some(package) if exclude.contains(&package.name) => {}
                Some(package) => {
                    if found.insert(package.name.as_str()) {
                        waiting.extend(package.depends.iter().cloned());
                    }
                }
                None => missing.extend(alternatives.into_iter().next()),
            }
        }
        if !missing.is_empty() {
            return Err(missing.into_iter().collect());
        }
        Ok(found.into_iter().filter_map(|name| self.packages.get(name)).collect())
    }

    /// The package of that name or, where it is virtual, the first that provides it.
    fn installed(&self, name: &str) -> Option<&Package> {
        self.packages.get(name).or_else(|| {
            let provider = self.providers.get(name)?.first()?;
            self.packages.get(provider)
        })
    }

    /// The file that lists the paths of a package.
    pub(super) fn list_file(&self, package: &Package) -> PathBuf {
        let Package { name, architecture, .. } = package;
        let info = self.paths.admin.join("info");
        let qualified = info.join(format!("{name}:{architecture}.list"));
        if qualified.exists() { qualified } else { info.join(format!("{name}.list")) }
    }

    /// The absolute paths of a package as they are on disk, diversions applied.
    pub(super) fn files(&self, package: &Package) -> Result<Vec<String>, ToolchainError> {
        let path = self.list_file(package);
        let bytes = fs::read(&path).map_err(|source| ToolchainError::Io { path, source })?;
        let mut files = Vec::new();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let Ok(line) = std::str::from_utf8(line) else {
                return Err(ToolchainError::Name {
                    path: line.escape_ascii().to_string(),
                    package: package.name.clone(),
                });
            };
            files.push(match self.diversions.get(line) {
                Some((owner, elsewhere)) if *owner != package.name => elsewhere.clone(),
                _ => line.to_owned(),
            });
        }
        Ok(files)
    }

    /// The groups of alternatives, sorted by name. One that cannot be parsed is left out.
    pub(super) fn alternatives(&self) -> Result<Vec<AlternativeGroup>, ToolchainError> {
        let folder = self.paths.admin.join("alternatives");
        let fail = |source| ToolchainError::Io { path: folder.clone(), source };
        let mut names = Vec::new();
        match fs::read_dir(&folder) {
            Ok(entries) => {
                for entry in entries {
                    names.push(entry.map_err(fail)?.path());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        names.sort();
        let mut groups = Vec::new();
        for path in names {
            let bytes = fs::read(&path)
                .map_err(|source| ToolchainError::Io { path: path.clone(), source })?;
            let name = path.file_name().and_then(|name| name.to_str());
            if let (Some(name), Ok(text)) = (name, std::str::from_utf8(&bytes)) {
                groups.extend(parse_alternatives(name, text));
            }
        }
        Ok(groups)
    }
}

/// Parses one stanza of the status file; `None` unless the package is installed.
fn parse_package(stanza: &str) -> Option<Package> {
    let fields = fields(stanza);
    let get = |name: &str| fields.get(name).map(String::as_str);
    if get("status")?.split_whitespace().nth(2) != Some("installed") {
        return None;
    }
    let depends = ["pre-depends", "depends"].into_iter().filter_map(get).flat_map(relations);
    Some(Package {
        name: get("package")?.to_owned(),
        version: get("version").unwrap_or_default().to_owned(),
        architecture: get("architecture").unwrap_or("all").to_owned(),
        depends: depends.collect(),
        provides: get("provides").into_iter().flat_map(relations).flatten().collect(),
    })
}

/// The fields of a stanza; names in lower case, continuation lines joined.
fn fields(stanza: &str) -> HashMap<String, String> {
    let mut fields: HashMap<String, String> = HashMap::new();
    let mut last = String::new();
    for line in stanza.lines() {
        if line.starts_with([' ', '\t']) {
            if let Some(value) = fields.get_mut(&last) {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            last = name.to_ascii_lowercase();
            fields.insert(last.clone(), value.trim().to_owned());
        }
    }
    fields
}

/// `a (>= 1) | b, c:any` becomes `[[a, b], [c]]`.
fn relations(text: &str) -> Vec<Vec<String>> {
    let name = |one: &str| {
        let one = one.split(['(', '[', '<']).next().unwrap_or_default();
        let one = one.split(':').next().unwrap_or_default().trim();
        (!one.is_empty()).then(|| one.to_owned())
    };
    let groups = text.split(',').map(|group| group.split('|').filter_map(name).collect());
    groups.filter(|group: &Vec<String>| !group.is_empty()).collect()
}

/// The architecture of `dpkg` itself, else the most frequent one.
fn native_architecture(packages: &[Package]) -> String {
    if let Some(dpkg) = packages.iter().find(|package| package.name == "dpkg") {
        return dpkg.architecture.clone();
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for package in packages.iter().filter(|package| package.architecture != "all") {
        *counts.entry(&package.architecture).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(name, count)| (*count, *name));
    most.map(|(name, _)| name.to_owned()).unwrap_or_default()
}

/// The file has three lines for each diversion: path, new path, package (`:` for the user).
fn read_diversions(path: &Path) -> Result<HashMap<String, (String, String)>, ToolchainError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(source) => return Err(ToolchainError::Io { path: path.to_owned(), source }),
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let entries = lines.chunks_exact(3).filter_map(|chunk| match chunk {
        [from, to, owner] => Some(((*from).to_owned(), ((*owner).to_owned(), (*to).to_owned()))),
        _ => None,
    });
    Ok(entries.collect())
}

/// Parses the state of a group: mode, master link, (slave name, slave link)…, an empty line, then
/// for each choice its path, its priority and a path for each slave.
fn parse_alternatives(name: &str, text: &str) -> Option<AlternativeGroup> {
    let mut lines = text.lines();
    let _mode = lines.next()?;
    let mut links = vec![(name.to_owned(), lines.next()?.to_owned())];
    loop {
        match lines.next()? {
            "" => break,
            slave => links.push((slave.to_owned(), lines.next()?.to_owned())),
        }
    }
    let mut choices = Vec::new();
    while let Some(path) = lines.next().filter(|line| !line.is_empty()) {
        let priority: i64 = lines.next()?.trim().parse().ok()?;
        let mut targets = vec![path.to_owned()];
        for _ in 1..links.len() {
            targets.push(lines.next()?.to_owned());
        }
        choices.push((priority, targets));
    }
    choices.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    Some(AlternativeGroup { links, choices: choices.into_iter().map(|(_, t)| t).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(status: &str) -> Database {
        let folder = tempfile::tempdir().expect("a temp dir");
        fs::write(folder.path().join("status"), status).expect("writable");
        let paths = DpkgPaths { root: "/".into(), admin: folder.path().to_owned() };
        Database::read(&paths).expect("readable")
    }

    const STATUS: &str = "\
Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1

Package: a
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 2:1.0-1
Depends: b (>= 1) | nothing, virtual:any,
 c
Pre-Depends: libc

Package: a
Status: install ok installed
Architecture: i386
Version: 9
Depends: never

Package: b
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: nothing
Status: install ok installed
Architecture: all
Version: 1

Package: c
Status: hold ok installed
Architecture: amd64
Version: 1
Depends: a, heavy
Description: text
 Depends: not-this
 .

Package: heavy
Status: install ok installed
Architecture: amd64
Version: 1
Depends: heavier

Package: provider
Status: install ok installed
Architecture: amd64
Provides: virtual (= 2), other
Version: 1

Package: libc
Status: install ok installed
Architecture: amd64
Version: 2.36
";

    #[test]
    fn closures_follow_alternatives_virtual_packages_and_cycles() {
        let database = database(STATUS);
        let check = |names: &[&str], exclude: &[&str], expect: Result<&[&str], &[&str]>| {
            let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            let found = database
                .closure(&own(names), &own(exclude))
                .map(|packages| packages.iter().map(|p| p.name.clone()).collect());
            assert_eq!(found, expect.map(own).map_err(own), "{names:?} without {exclude:?}");
        };
        check(&["a"], &["heavy"], Ok(&["a", "c", "libc", "nothing", "provider"]));
        check(&["a"], &["heavy", "virtual"], Ok(&["a", "c", "libc", "nothing"]));
        check(&["a"], &["heavy", "provider"], Ok(&["a", "c", "libc", "nothing"]));
        check(&["a"], &[], Err(&["heavier"]));
        check(&["b", "zz", "libc"], &[], Err(&["b", "zz"]));
        check(&[], &[], Ok(&[]));
    }

    #[test]
    fn the_shell_is_implied_unless_excluded() {
        let dash = "Package: dash\nStatus: install ok installed\nArchitecture: amd64\n";
        let database = database(&format!("{STATUS}\n{dash}"));
        let names = |exclude: &[String]| {
            let packages = database.closure(&["libc".to_owned()], exclude).expect("installed");
            packages.into_iter().map(|p| p.name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["dash", "libc"]);
        assert_eq!(names(&["dash".to_owned()]), ["libc"]);
    }

    #[test]
    fn versions_are_reported() {
        let database = database(STATUS);
        let version = &database.closure(&["libc".to_owned()], &[]).expect("installed")[0].version;
        assert_eq!(version, "2.36");
    }

    #[test]
    fn alternatives_parse_or_are_left_out() {
        let text = "auto\n/usr/bin/awk\nawk.1.gz\n/usr/share/man/awk\n\n\
            /usr/bin/mawk\n5\n/usr/share/man/mawk\n/usr/bin/gawk\n10\n\n\n";
        let group = parse_alternatives("awk", text).expect("well formed");
        assert_eq!(group.links[0], ("awk".to_owned(), "/usr/bin/awk".to_owned()));
        assert_eq!(group.choices[0], ["/usr/bin/gawk", ""]);
        assert_eq!(group.choices[1], ["/usr/bin/mawk", "/usr/share/man/mawk"]);
        for bad in ["", "auto", "auto\n/x\n", "auto\n/x\ns\n", "auto\n/x\n\n/y\nten\n"] {
            assert_eq!(parse_alternatives("x", bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_machine_without_dpkg_is_named() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let paths = DpkgPaths { root: "/".into(), admin: folder.path().to_owned() };
        let error = Database::read(&paths).expect_err("no status file");
        assert!(matches!(error, ToolchainError::NoDpkg { .. }));
    }
}
