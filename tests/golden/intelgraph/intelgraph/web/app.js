// The page: search, details and paths around the drawing.
//
// Talks to the service, keeps what is selected, and fills the panels. Text of the data set enters
// the document only through textContent. What is shown can be linked to: the address carries
// `#id=…` or `#from=…&to=…&by=…`.

import { layOut } from "/layout.js";
import { GraphView } from "/view.js";

const SEARCH_RESULTS = 12;

const element = (id) => document.getElementById(id);
const names = new Map();
const ends = { from: null, to: null };
let picking = null;
let searches = 0;

const view = new GraphView(element("graph"), (id, shift) => {
  if (id !== null && (picking || shift)) chooseEnd(picking ?? (ends.from ? "to" : "from"), id);
  else go(id === null ? {} : { id });
});

async function ask(target) {
  const response = await fetch(target);
  const body = await response.json();
  if (!response.ok) throw new Error(body.error.message);
  return body;
}

// Creates an element with properties and children.
function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function dot(community) {
  const made = make("span", { className: "dot" });
  made.style.background = `var(--c${community % 8})`;
  return made;
}

// A line that leads to an entity.
function row(entity, note = "") {
  return make(
    "button",
    { type: "button", className: "row", onclick: () => go({ id: entity.id }) },
    dot(entity.community),
    make("span", { className: "name", textContent: entity.name }),
    make("span", { className: "note", textContent: note }),
  );
}

// Changes the address; `render` follows.
function go(state) {
  location.hash = new URLSearchParams(state).toString();
}

function chooseEnd(end, id) {
  ends[end] = id;
  picking = null;
  const by = document.querySelector("input[name=by]:checked").value;
  if (ends.from && ends.to) go({ from: ends.from, to: ends.to, by });
  else showEnds();
}

function showEnds() {
  for (const [end, hint] of [["from", "choose a start"], ["to", "choose an end"]]) {
    element(end).textContent = picking === end ? "click a node…" : (names.get(ends[end]) ?? hint);
    element(end).setAttribute("aria-pressed", String(picking === end));
  }
}

function describe(link) {
  const kind = link.kind.replaceAll("_", " ");
  const when = link.date ? `, ${link.date}` : "";
  return `${kind}${when} — “${link.source.title}”`;
}

async function showEntity(id) {
  const entity = await ask(`/entity/${encodeURIComponent(id)}`);
  const parts = [
    make("h3", { textContent: entity.name }),
    make("p", {
      className: "meta",
      textContent: [entity.type, entity.date, entity.place].filter(Boolean).join(" · "),
    }),
  ];
  if (entity.aliases.length > 0) {
    parts.push(make("p", { className: "meta", textContent: `also ${entity.aliases.join("; ")}` }));
  }
  if (entity.members.length > 1) {
    const rows = entity.members.map((member) => member.id).join(", ");
    parts.push(make("p", { className: "meta", textContent: `resolved from ${rows}` }));
  }
  parts.push(make("h2", { textContent: `${entity.neighbours.length} neighbours` }));
  for (const neighbour of entity.neighbours) {
    parts.push(row(neighbour, String(neighbour.strength)));
    for (const link of neighbour.links) {
      parts.push(make("p", { className: "source", textContent: describe(link) }));
    }
  }
  element("details").replaceChildren(...parts);
  view.select(entity.id);
}

async function showPath(from, to, by) {
  const route = await ask(`/path?${new URLSearchParams({ from, to, by })}`);
  const lines = route.nodes.map((node, index) => {
    const edge = route.edges[index - 1];
    const line = make("li", {}, row(node));
    if (edge) {
      const why = describe(edge.links[0]);
      line.prepend(make("p", { className: "source", textContent: why }));
    }
    return line;
  });
  if (!route.found) lines.push(make("li", { textContent: "no path joins these two" }));
  element("route").replaceChildren(...lines);
  // The answer's ends: an id that was merged into another has given way to it.
  Object.assign(ends, { from: route.from.id, to: route.to.id });
  document.querySelector(`input[name=by][value=${route.by}]`).checked = true;
  view.highlight(route.nodes.map((node) => node.id));
}

// Brings the page to the state that the address names.
async function render() {
  const state = new URLSearchParams(location.hash.slice(1));
  const path = state.has("from") && state.has("to");
  element("route").replaceChildren();
  view.highlight([]);
  view.select(null);
  if (!path) Object.assign(ends, { from: null, to: null });
  try {
    if (path) await showPath(state.get("from"), state.get("to"), state.get("by") ?? "hops");
    else if (state.has("id")) await showEntity(state.get("id"));
  } catch (error) {
    showProblem(error);
  }
  showEnds();
}

function showProblem(error) {
  element("stats").textContent = error.message;
  element("stats").classList.add("error");
}

async function search() {
  searches += 1;
  const mine = searches;
  const query = element("query").value.trim();
  const target = `/entities?${new URLSearchParams({ q: query, limit: SEARCH_RESULTS })}`;
  const found = query ? await ask(target) : null;
  if (mine !== searches) return; // A later keystroke has asked again.
  const items = (found?.entities ?? []).map((entity) => make("li", {}, row(entity, entity.type)));
  if (found && items.length === 0) items.push(make("li", { textContent: "nothing has this name" }));
  element("results").replaceChildren(...items);
  element("results").hidden = found === null;
}

function showLegend(communities) {
  element("communities").replaceChildren(
    ...communities.map((community) => {
      const line = make("button", { type: "button", className: "row" }, dot(community.id),
        make("span", { className: "name", textContent: community.name }));
      line.addEventListener("pointerenter", () => view.focus(community.id));
      line.addEventListener("pointerleave", () => view.focus(null));
      line.addEventListener("focus", () => view.focus(community.id));
      line.addEventListener("blur", () => view.focus(null));
      return make("li", {}, line);
    }),
  );
}

function listen() {
  window.addEventListener("hashchange", () => {
    element("results").hidden = true;
    render();
  });
  window.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== element("query")) {
      event.preventDefault();
      element("query").focus();
    } else if (event.key === "Escape") {
      element("results").hidden = true;
      picking = null;
      showEnds();
    }
  });
  element("query").addEventListener("input", () => search().catch(showProblem));
  element("search").addEventListener("submit", (event) => {
    event.preventDefault();
    element("results").querySelector("button")?.click();
  });
  for (const end of ["from", "to"]) {
    element(end).addEventListener("click", () => {
      picking = picking === end ? null : end;
      showEnds();
    });
  }
  for (const measure of document.querySelectorAll("input[name=by]")) {
    measure.addEventListener("change", () => {
      if (ends.from && ends.to) go({ from: ends.from, to: ends.to, by: measure.value });
    });
  }
  element("clear").addEventListener("click", () => go({}));
}

async function start() {
  const [graph, health] = await Promise.all([ask("/graph"), ask("/health")]);
  for (const node of graph.nodes) names.set(node.id, node.name);
  element("stats").textContent =
    `${health.nodes} entities from ${health.entities} rows, ${health.links} links, ` +
    `${health.communities} communities`;
  showLegend(graph.communities);
  view.show(graph, layOut(graph.nodes, graph.edges, graph.communities.length));
  listen();
  await render();
}

start().catch(showProblem);
