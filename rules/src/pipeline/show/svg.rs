//! A picture of a pipeline: steps in rows, each below all that it follows.
//!
//! Boxes have one size; a row is as wide as its steps. Effects have a double border, and edges
//! that carry no data are dashed, as in the form for Graphviz.

use std::fmt::Write as _;

use crate::pipeline::{EdgeKind, Pipeline};

const BOX_WIDTH: usize = 170;
const BOX_HEIGHT: usize = 44;
const GAP: usize = 30;
const ROW_GAP: usize = 46;
/// Longest text in a box, in characters.
const TEXT_CHARS_MAX: usize = 24;

/// Draws it.
pub(super) fn draw(pipeline: &Pipeline) -> String {
    let places = places(pipeline);
    let width = places.iter().map(|(x, _)| x + BOX_WIDTH).max().unwrap_or(0) + GAP;
    let height = places.iter().map(|(_, y)| y + BOX_HEIGHT).max().unwrap_or(0) + GAP;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\">\n<title>{}</title>\n\
         <defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" \
         markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        escaped(&pipeline.template.name.value)
    );
    for edge in &pipeline.edges {
        let place = |at: usize| places.get(at).copied().unwrap_or_default();
        let ((x1, y1), (x2, y2)) = (place(edge.from.index()), place(edge.to.index()));
        let dash = if edge.kind == EdgeKind::Data { "" } else { " stroke-dasharray=\"5 4\"" };
        let (x1, x2, y1) = (x1 + BOX_WIDTH / 2, x2 + BOX_WIDTH / 2, y1 + BOX_HEIGHT);
        let middle = (y1 + y2) / 2;
        let _ = writeln!(
            out,
            "<path d=\"M{x1} {y1}C{x1} {middle} {x2} {middle} {x2} {y2}\" fill=\"none\" \
             stroke=\"#333\"{dash} marker-end=\"url(#arrow)\"/>"
        );
    }
    for (step, (x, y)) in pipeline.steps().iter().zip(&places) {
        let rect = |inset: usize, out: &mut String| {
            let (w, h) = (BOX_WIDTH - 2 * inset, BOX_HEIGHT - 2 * inset);
            let (x, y) = (x + inset, y + inset);
            let _ = writeln!(
                out,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"5\" fill=\"#f6f8fa\" \
                 stroke=\"#333\"/>"
            );
        };
        rect(0, &mut out);
        if step.uses.is_effect() {
            rect(3, &mut out);
        }
        let middle = x + BOX_WIDTH / 2;
        for (text, line, weight) in
            [(step.id.value.as_str(), y + 19, "bold"), (&step.uses.name(), y + 34, "normal")]
        {
            let _ = writeln!(
                out,
                "<text x=\"{middle}\" y=\"{line}\" font-size=\"12\" font-weight=\"{weight}\" \
                 text-anchor=\"middle\">{}</text>",
                escaped(&shortened(text))
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Where each step stands: its row is one below the last of those that it follows.
fn places(pipeline: &Pipeline) -> Vec<(usize, usize)> {
    let count = pipeline.steps().len();
    let mut rows = vec![0usize; count];
    let mut waits = vec![0usize; count];
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); count];
    for edge in &pipeline.edges {
        waits[edge.to.index()] += 1;
        after[edge.from.index()].push(edge.to.index());
    }
    let mut ready: Vec<usize> = (0..count).filter(|at| waits[*at] == 0).collect();
    while let Some(at) = ready.pop() {
        for to in after[at].clone() {
            rows[to] = rows[to].max(rows[at] + 1);
            waits[to] -= 1;
            if waits[to] == 0 {
                ready.push(to);
            }
        }
    }
    let mut filled = vec![0usize; rows.iter().max().map_or(0, |row| row + 1)];
    let place = |row: &usize| {
        let column = filled[*row];
        filled[*row] += 1;
        (GAP + column * (BOX_WIDTH + GAP), GAP + row * (BOX_HEIGHT + ROW_GAP))
    };
    rows.iter().map(place).collect()
}

fn shortened(text: &str) -> String {
    match text.chars().count() > TEXT_CHARS_MAX {
        true => text.chars().take(TEXT_CHARS_MAX - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
