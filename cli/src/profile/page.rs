//! A profile as one HTML page that loads nothing: a timeline, the critical path, tables.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::analysis::{Analysis, percent, time};
use super::{Action, Build};
use crate::markup::escape;

/// Most actions in the timeline; of more, the longest are shown.
const BARS_MAX: usize = 8_000;

/// Most rows of the timeline.
const LANES_MAX: usize = 256;

/// Height of a row and of a bar in it.
const LANE: usize = 18;
const BAR: usize = 14;

/// Width of the timeline in its own units.
const WIDTH: f64 = 1_000.0;

const HEAD: &str = include_str!("page.css");

/// Renders the page.
pub fn render(build: &Build, analysis: &Analysis) -> String {
    let mut out = String::new();
    let title = escape(&analysis.request);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>maestro {title}</title>\n<style>\n{HEAD}</style>\n</head>\n<body>\n\
         <h1>maestro {title}</h1>\n"
    );
    figures(&mut out, analysis);
    if !analysis.advice.is_empty() {
        out.push_str("<ul class=\"advice\">\n");
        for line in &analysis.advice {
            let _ = writeln!(out, "<li>{}</li>", escape(line));
        }
        out.push_str("</ul>\n");
    }
    timeline(&mut out, build, analysis);
    tables(&mut out, analysis);
    out.push_str("</body>\n</html>\n");
    out
}

fn figures(out: &mut String, analysis: &Analysis) {
    let run_ms = analysis.wall_ms.saturating_sub(analysis.analyzed_ms);
    let share = percent(analysis.critical_path_ms, run_ms);
    let figures = [
        ("from start to end", time(analysis.wall_ms)),
        ("loading and analysis", time(analysis.analyzed_ms)),
        ("critical path", format!("{} ({share} %)", time(analysis.critical_path_ms))),
        ("work", time(analysis.work_ms)),
        ("ready, without a slot", time(analysis.waiting_ms)),
        ("at once", format!("{:.1}, at most {}", analysis.parallelism, analysis.parallelism_max)),
        ("actions", format!("{} ran, {} reused", analysis.ran, analysis.reused)),
    ];
    out.push_str("<dl>\n");
    for (name, value) in figures {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    out.push_str("</dl>\n");
}

fn timeline(out: &mut String, build: &Build, analysis: &Analysis) {
    let mut shown: Vec<&Action> = build.actions.iter().filter(|action| action.ran()).collect();
    let all = shown.len();
    shown.sort_by_key(|action| (std::cmp::Reverse(action.duration_ms()), action.id));
    shown.truncate(BARS_MAX);
    shown.sort_by_key(|action| (action.start_ms, action.id));
    let lanes = lanes(&shown);
    let rows = lanes.iter().max().map_or(0, |most| most + 1);
    let height = (rows + 1) * LANE + 20;
    let scale = WIDTH / build.wall_ms.max(1) as f64;
    let critical: HashSet<u32> = analysis.critical_path.iter().map(|link| link.action).collect();
    out.push_str("<h2>Timeline</h2>\n");
    out.push_str(
        "<p class=\"note\">One row for each action that ran at once. \
         <span class=\"key critical\"></span> on the critical path, \
         <span class=\"key\"></span> others, <span class=\"key phase\"></span> loading and \
         analysis. Point at a bar to read its name.</p>\n",
    );
    if all > shown.len() {
        let _ = writeln!(out, "<p class=\"note\">The longest {} of {all}.</p>", shown.len());
    }
    let _ = writeln!(
        out,
        "<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {height}\" \
         preserveAspectRatio=\"none\" height=\"{height}\" role=\"img\">"
    );
    let _ = writeln!(
        out,
        "<rect class=\"phase\" x=\"0\" y=\"0\" width=\"{:.2}\" height=\"{BAR}\"><title>loading \
         and analysis, {}</title></rect>",
        (analysis.analyzed_ms as f64 * scale).max(0.3),
        time(analysis.analyzed_ms)
    );
    for (action, lane) in shown.iter().zip(&lanes) {
        let class = if critical.contains(&action.id) { " class=\"critical\"" } else { "" };
        let _ = writeln!(
            out,
            "<rect{class} x=\"{:.2}\" y=\"{}\" width=\"{:.2}\" height=\"{BAR}\"><title>{} {}, {} \
             from {}</title></rect>",
            action.start_ms as f64 * scale,
            (lane + 1) * LANE,
            (action.duration_ms() as f64 * scale).max(0.3),
            escape(&action.mnemonic),
            escape(&action.label),
            time(action.duration_ms()),
            time(action.start_ms),
        );
    }
    out.push_str("</svg></div>\n<div class=\"axis\">");
    for part in 0..=4 {
        let _ = write!(out, "<span>{}</span>", time(build.wall_ms * part / 4));
    }
    out.push_str("</div>\n");
}

/// The row of each action, given by start: the first that is free.
fn lanes(actions: &[&Action]) -> Vec<usize> {
    let mut free: Vec<u64> = Vec::new();
    let mut lanes = Vec::with_capacity(actions.len());
    for action in actions {
        let lane = free.iter().position(|end| *end <= action.start_ms).unwrap_or(free.len());
        let end = action.end_ms.max(action.start_ms + 1);
        if lane == free.len() && lane < LANES_MAX {
            free.push(end);
        } else if let Some(slot) = free.get_mut(lane) {
            *slot = end;
        }
        lanes.push(lane.min(LANES_MAX - 1));
    }
    lanes
}

fn tables(out: &mut String, analysis: &Analysis) {
    table(
        out,
        "Critical path",
        &["", "action", "began at", "waited", "took", "share"],
        analysis.critical_path.iter().enumerate().map(|(index, link)| {
            vec![
                (index + 1).to_string(),
                format!("{} {}", link.mnemonic, link.label),
                time(link.start_ms),
                time(link.waited_ms),
                time(link.duration_ms),
                format!("{} %", percent(link.duration_ms, analysis.critical_path_ms)),
            ]
        }),
    );
    table(
        out,
        "Slowest actions",
        &["", "action", "took", "slack"],
        analysis.slowest.iter().enumerate().map(|(index, slow)| {
            vec![
                (index + 1).to_string(),
                format!("{} {}", slow.mnemonic, slow.label),
                time(slow.duration_ms),
                time(slow.slack_ms),
            ]
        }),
    );
    table(
        out,
        "Kinds of actions",
        &["kind", "ran", "reused", "together", "longest"],
        analysis.kinds.iter().map(|kind| {
            vec![
                kind.mnemonic.clone(),
                kind.ran.to_string(),
                kind.reused.to_string(),
                time(kind.total_ms),
                time(kind.longest_ms),
            ]
        }),
    );
}

fn table(out: &mut String, title: &str, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let _ = write!(out, "<h2>{title}</h2>\n<div class=\"scroll\"><table>\n<tr>");
    for cell in head {
        let _ = write!(out, "<th>{cell}</th>");
    }
    out.push_str("</tr>\n");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{}</td>", escape(&cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

#[cfg(test)]
mod tests {
    use maestro_core::event::Outcome;

    use super::*;
    use crate::profile::analysis::analyze;

    #[test]
    fn a_page_loads_nothing_and_escapes_names() {
        let action = |id, start_ms| Action {
            id,
            label: format!("//<a>:{id}"),
            mnemonic: "Cc".into(),
            outcome: Outcome::Executed,
            start_ms,
            end_ms: start_ms + 10,
            needs: Vec::new(),
        };
        let actions = vec![action(0, 5), action(1, 5), action(2, 20)];
        let build = Build { request: "build \"&\"".into(), analyzed_ms: 5, wall_ms: 30, actions };
        let page = render(&build, &analyze(&build));
        assert!(!page.contains("//<a>") && page.contains("//&lt;a&gt;:0"));
        assert!(page.contains("<title>maestro build &quot;&amp;&quot;</title>"));
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("<rect").count(), 4);
        assert_eq!(page.matches(&format!("y=\"{LANE}\"")).count(), 2, "two follow each other");
    }
}
