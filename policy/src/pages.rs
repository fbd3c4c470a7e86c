//! Pages of error codes, from the documentation of [`Code`].

use crate::error::Code;

/// Every code with its page, as Markdown.
pub fn error_pages() -> Vec<(&'static str, String)> {
    Code::ALL.iter().map(|code| (code.as_str(), page(*code))).collect()
}

fn page(code: Code) -> String {
    let documentation = code.documentation();
    let (about, fix) = documentation.split_once("Fix:").unwrap_or((documentation, ""));
    let joined = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (about, fix) = (joined(about), joined(fix));
    let mut letters = fix.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    let fix = format!("{first}{}", letters.as_str());
    format!("# {code}: {}\n\n## What to do\n\n{fix}\n", about.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_says_what_to_do() {
        for (code, page) in error_pages() {
            assert!(page.starts_with(&format!("# {code}: ")), "{page}");
            let fix = page.split("## What to do\n\n").nth(1).unwrap_or_default();
            assert!(fix.trim().len() > 10, "{code} lacks `Fix:` in its documentation");
        }
    }
}
