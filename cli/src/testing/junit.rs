//! Results of tests in the form of JUnit: of one run, and of all of them in one file.
//!
//! A test may write its own report to `XML_OUTPUT_FILE`; then that is taken, if it is well formed.
//! Else one is made of the verdict and the log. The merged file holds the suites of all runs.

use maestro_core::Label;
use maestro_core::event::TestStatus;

use crate::markup::escape;

/// Largest part of a log that stands in a report, in bytes.
const LOG_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting of a report that is taken over.
const DEPTH_MAX: usize = 100;

/// What is known of a run whose test wrote no report.
pub struct Run<'a> {
    /// The test.
    pub label: &'a Label,
    /// How it ended.
    pub status: TestStatus,
    /// How long it took.
    pub duration_ms: u64,
    /// What it wrote.
    pub log: &'a str,
}

/// A report about one run.
pub fn report(run: &Run<'_>) -> String {
    let failure = match run.status {
        TestStatus::Passed | TestStatus::Flaky => None,
        TestStatus::Failed => Some("the test failed"),
        TestStatus::Timeout => Some("the test ran too long"),
        TestStatus::NotBuilt => Some("the test was not built"),
    };
    let name = escape(&run.label.to_string());
    let class = escape(&run.label.package_dir().replace('/', "."));
    let seconds = format!("{}.{:03}", run.duration_ms / 1000, run.duration_ms % 1000);
    let failures = usize::from(failure.is_some());
    let mut out = format!(
        "<testsuite name=\"{name}\" tests=\"1\" failures=\"{failures}\" errors=\"0\" \
         time=\"{seconds}\">\n<testcase name=\"{name}\" classname=\"{class}\" time=\"{seconds}\">"
    );
    if let Some(message) = failure {
        out.push_str(&format!("<failure message=\"{message}\"/>"));
    }
    out.push_str("</testcase>\n");
    if !run.log.is_empty() {
        let start = run.log.len().saturating_sub(LOG_BYTES_MAX);
        let start = (start..run.log.len()).find(|at| run.log.is_char_boundary(*at));
        let tail = start.and_then(|start| run.log.get(start..)).unwrap_or_default();
        out.push_str(&format!("<system-out>{}</system-out>\n", escape(tail)));
    }
    out.push_str("</testsuite>\n");
    document(&out)
}

/// A document with these suites.
pub fn document(suites: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n{suites}</testsuites>\n")
}

/// The suites in a report, as text; `None` where it is not well formed, or no report.
pub fn suites(report: &str) -> Option<String> {
    let mut open: Vec<(&str, usize)> = Vec::new();
    let mut root: Option<(&str, usize, usize, usize)> = None;
    let mut at = 0;
    while let Some(offset) = report.get(at..)?.find('<') {
        let start = at + offset;
        if open.is_empty()
            && !report.get(at..start)?.trim_matches(['\u{feff}', ' ', '\n', '\r', '\t']).is_empty()
        {
            return None; // text beside the root
        }
        let tag = Tag::read(report.get(start..)?)?;
        at = start + tag.length;
        match tag.kind {
            Kind::Other => {}
            // A second root.
            Kind::Open | Kind::Empty if root.is_some() && open.is_empty() => return None,
            Kind::Open => {
                if open.len() >= DEPTH_MAX {
                    return None;
                }
                open.push((tag.name, at));
                if open.len() == 1 {
                    root = Some((tag.name, start, at, at));
                }
            }
            Kind::Empty if open.is_empty() => root = Some((tag.name, start, at, at)),
            Kind::Empty => {}
            Kind::Close => {
                let (name, _) = open.pop()?;
                if name != tag.name {
                    return None;
                }
                if let (true, Some(root)) = (open.is_empty(), &mut root) {
                    root.3 = start;
                }
            }
        }
    }
    let (name, start, inner, end) = root.filter(|_| open.is_empty())?;
    if !report.get(at..)?.trim().is_empty() {
        return None;
    }
    match name {
        "testsuites" => Some(with_line_end(report.get(inner..end)?.trim())),
        "testsuite" => Some(with_line_end(report.get(start..at)?.trim())),
        _ => None,
    }
}

fn with_line_end(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{text}\n") }
}

enum Kind {
    Open,
    Close,
    Empty,
    /// A comment, a declaration, marked text.
    Other,
}

struct Tag<'t> {
    kind: Kind,
    name: &'t str,
    length: usize,
}

impl<'t> Tag<'t> {
    /// The tag that a text begins with. A document type is refused: it can define entities.
    fn read(text: &'t str) -> Option<Self> {
        let skip = |end: &str| {
            let length = text.find(end)? + end.len();
            Some(Tag { kind: Kind::Other, name: "", length })
        };
        if text.starts_with("<!--") {
            return skip("-->");
        }
        if text.starts_with("<![CDATA[") {
            return skip("]]>");
        }
        if text.starts_with("<?") {
            return skip("?>");
        }
        if text.starts_with("<!") {
            return None;
        }
        let length = end_of(text)? + 1;
        let inner = text.get(1..length - 1)?;
        let (kind, inner) = match (inner.strip_prefix('/'), inner.strip_suffix('/')) {
            (Some(name), _) => (Kind::Close, name),
            (None, Some(inner)) => (Kind::Empty, inner),
            (None, None) => (Kind::Open, inner),
        };
        let name = inner.split_ascii_whitespace().next()?;
        let fine = |c: char| c.is_alphanumeric() || "-_.:".contains(c);
        name.chars().all(fine).then_some(Tag { kind, name, length })
    }
}

/// Where the `>` of a tag stands; one in a quoted value does not count.
fn end_of(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices().skip(1) {
        match (quote, c) {
            (None, '>') => return Some(at),
            (None, '<') => return None,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (Some(_), '<') => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_taken_out_of_reports_that_are_well_formed() {
        let check = |report: &str, expect: Option<&str>| {
            assert_eq!(suites(report).as_deref(), expect, "{report}");
        };
        let suite = "<testsuite name=\"a>b\"><testcase name='x'/><!-- < --></testsuite>";
        let line = format!("{suite}\n");
        check(suite, Some(&line));
        check(
            &format!("<?xml version=\"1.0\"?>\n<testsuites>\n{suite}</testsuites>\n"),
            Some(&line),
        );
        check("<testsuites/>", Some(""));
        check(
            "<testsuite><![CDATA[</x>]]></testsuite>",
            Some("<testsuite><![CDATA[</x>]]></testsuite>\n"),
        );
        for bad in [
            "",
            "no report",
            "<testsuite>",
            "<testsuite></testsuites>",
            "<testsuite/><testsuite/>",
            "<testsuite/> text",
            "<html></html>",
            "<!DOCTYPE x [<!ENTITY a \"b\">]><testsuite/>",
            "<testsuite a=\"<\"/>",
            "<testsuite",
            "</testsuite>",
        ] {
            check(bad, None);
        }
        check(&format!("{}{}", "<testsuite>".repeat(200), "</testsuite>".repeat(200)), None);
    }

    #[test]
    fn made_reports_can_be_taken_apart_again() {
        let label = Label::parse("//a/b:t", "", "").expect("a label");
        let log = "1 < 2 & \"q\" \u{1b}[1m\n";
        let run = Run { label: &label, status: TestStatus::Failed, duration_ms: 1234, log };
        let text = report(&run);
        let inner = suites(&text).expect("well formed");
        for part in [
            "name=\"//a/b:t\" tests=\"1\" failures=\"1\"",
            "classname=\"a.b\" time=\"1.234\"",
            "<failure message=\"the test failed\"/>",
            "1 &lt; 2 &amp; &quot;q&quot; \u{fffd}[1m",
        ] {
            assert!(inner.contains(part), "no {part} in {inner}");
        }
    }
}
