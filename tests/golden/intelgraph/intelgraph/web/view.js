// The canvas: draws nodes and edges, pans and zooms, and tells which node the pointer is on.
//
// It holds what is drawn and how it is looked at; it never calls the service and knows nothing of
// panels or search.

const MARGIN = 40;
const ZOOM_MIN = 0.25;
const ZOOM_MAX = 6;
const CLICK_DISTANCE = 4;
const LABELS_MAX = 40;
const LABEL_ALL_ZOOM = 2.2;
const LABEL_ALWAYS = 3;
const LABEL_FONT = '12px system-ui, "DejaVu Sans", sans-serif';

export class GraphView {
  // `onPick(id | null, shift)` is called when a node, or the ground, is clicked.
  constructor(canvas, onPick) {
    this.canvas = canvas;
    this.onPick = onPick;
    this.nodes = [];
    this.edges = [];
    this.byId = new Map();
    this.selected = null;
    this.hovered = null;
    this.focused = null;
    this.path = [];
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.listen();
  }

  // Takes the graph and a point per node, and shows all of it.
  show(graph, points) {
    this.nodes = graph.nodes.map((node, index) => ({
      ...node,
      ...points[index],
      radius: 4 + Math.sqrt(node.degree) * 1.7,
    }));
    this.byId = new Map(this.nodes.map((node) => [node.id, node]));
    this.edges = graph.edges.map((edge) => ({
      strength: edge.strength,
      from: this.byId.get(edge.from),
      to: this.byId.get(edge.to),
    }));
    const ranked = [...this.nodes].sort((a, b) => b.degree - a.degree);
    this.labelled = new Set(ranked.slice(0, LABELS_MAX).map((node) => node.id));
    this.fit();
  }

  // Selects a node (or none), the nodes of a path, or a community to bring forward.
  select(id) {
    this.selected = id;
    this.draw();
  }

  highlight(path) {
    this.path = path;
    this.draw();
  }

  focus(community) {
    this.focused = community;
    this.draw();
  }

  fit() {
    const { width, height } = this.canvas.getBoundingClientRect();
    if (this.nodes.length === 0 || width === 0) return;
    const xs = this.nodes.map((node) => node.x);
    const ys = this.nodes.map((node) => node.y);
    const spanX = Math.max(...xs) - Math.min(...xs) || 1;
    const spanY = Math.max(...ys) - Math.min(...ys) || 1;
    const fitting = Math.min((width - 2 * MARGIN) / spanX, (height - 2 * MARGIN) / spanY);
    this.scale = Math.min(Math.max(fitting, ZOOM_MIN), 2);
    this.x = width / 2 - (this.scale * (Math.max(...xs) + Math.min(...xs))) / 2;
    this.y = height / 2 - (this.scale * (Math.max(...ys) + Math.min(...ys))) / 2;
    this.draw();
  }

  draw() {
    const { width, height } = this.canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const context = this.canvas.getContext("2d");
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(name).trim();
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    for (const edge of this.edges) this.drawEdge(context, colour, edge);
    for (const node of this.nodes) this.drawNode(context, colour, node);
    this.drawLabels(context, colour);
  }

  // Whether a node stays in the foreground under the current path, selection and focus.
  isProminent(node) {
    if (this.path.length > 0) return this.path.includes(node.id);
    if (this.focused !== null) return node.community === this.focused;
    if (this.selected === null) return true;
    return node.id === this.selected || this.isNeighbour(node);
  }

  isNeighbour(node) {
    return this.edges.some(
      ({ from, to }) =>
        (from.id === this.selected && to === node) || (to.id === this.selected && from === node),
    );
  }

  isOnPath(edge) {
    const index = this.path.indexOf(edge.from.id);
    return (
      index >= 0 &&
      (this.path[index + 1] === edge.to.id || this.path[index - 1] === edge.to.id)
    );
  }

  drawEdge(context, colour, edge) {
    const onPath = this.isOnPath(edge);
    const touches = edge.from.id === this.selected || edge.to.id === this.selected;
    const both = this.isProminent(edge.from) && this.isProminent(edge.to);
    const near = this.selected !== null && this.focused === null ? touches : both;
    const shown = this.path.length === 0 && near;
    context.beginPath();
    context.moveTo(...this.onScreen(edge.from));
    context.lineTo(...this.onScreen(edge.to));
    context.strokeStyle = colour(onPath ? "--accent" : "--edge");
    context.lineWidth = onPath ? 3.5 : 0.5 + edge.strength / 70;
    context.globalAlpha = onPath ? 1 : shown ? 0.5 : 0.1;
    context.stroke();
  }

  drawNode(context, colour, node) {
    const [x, y] = this.onScreen(node);
    const radius = node.radius * Math.sqrt(this.scale);
    context.globalAlpha = this.isProminent(node) ? 1 : 0.18;
    context.fillStyle = colour(`--c${node.community % 8}`);
    context.beginPath();
    trace(context, node.type, x, y, radius);
    context.fill();
    const marked = node.id === this.selected || this.path.includes(node.id);
    context.strokeStyle = colour(marked ? "--accent" : "--ground");
    context.lineWidth = marked ? 2.5 : 1;
    context.stroke();
  }

  // Draws names, the most important first; one that would cover another is left out, unless the
  // node is under the pointer, selected or on the path.
  drawLabels(context, colour) {
    const taken = [];
    const ranked = this.nodes
      .map((node) => ({ node, rank: this.labelRank(node) }))
      .filter(({ rank }) => rank > 0)
      .sort((a, b) => b.rank - a.rank || b.node.degree - a.node.degree);
    context.globalAlpha = 1;
    context.textAlign = "center";
    context.lineJoin = "round";
    context.lineWidth = 3.5;
    context.strokeStyle = colour("--ground");
    context.fillStyle = colour("--text");
    for (const { node, rank } of ranked) {
      context.font = `${rank === LABEL_ALWAYS ? 600 : 400} ${LABEL_FONT}`;
      const [x, y] = this.onScreen(node);
      const top = y + node.radius * Math.sqrt(this.scale) + 13;
      const half = context.measureText(node.name).width / 2;
      const box = { left: x - half, right: x + half, top: top - 12, bottom: top + 4 };
      if (rank !== LABEL_ALWAYS && taken.some((other) => overlap(box, other))) continue;
      taken.push(box);
      context.strokeText(node.name, x, top);
      context.fillText(node.name, x, top);
    }
  }

  // How much a node's name is wanted on the screen; 0 is not at all.
  labelRank(node) {
    const onPath = this.path.includes(node.id);
    if (node === this.hovered || node.id === this.selected || onPath) return LABEL_ALWAYS;
    if (!this.isProminent(node)) return 0;
    if (this.selected !== null && this.path.length === 0) return 2;
    return this.labelled.has(node.id) || this.scale > LABEL_ALL_ZOOM ? 1 : 0;
  }

  onScreen(point) {
    return [this.x + point.x * this.scale, this.y + point.y * this.scale];
  }

  // The node under a position on the screen; the one drawn last where several are.
  nodeAt(x, y) {
    return this.nodes.findLast((node) => {
      const [nodeX, nodeY] = this.onScreen(node);
      return Math.hypot(nodeX - x, nodeY - y) <= node.radius * Math.sqrt(this.scale) + 3;
    });
  }

  listen() {
    let drag = null;
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      drag = { x: event.offsetX, y: event.offsetY, moved: 0 };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drag) {
        this.x += event.offsetX - drag.x;
        this.y += event.offsetY - drag.y;
        drag.moved += Math.hypot(event.offsetX - drag.x, event.offsetY - drag.y);
        Object.assign(drag, { x: event.offsetX, y: event.offsetY });
        this.draw();
        return;
      }
      const node = this.nodeAt(event.offsetX, event.offsetY) ?? null;
      if (node === this.hovered) return;
      this.hovered = node;
      canvas.classList.toggle("over", node !== null);
      this.draw();
    });
    canvas.addEventListener("pointerup", (event) => {
      const clicked = drag !== null && drag.moved < CLICK_DISTANCE;
      drag = null;
      if (!clicked) return;
      this.onPick(this.nodeAt(event.offsetX, event.offsetY)?.id ?? null, event.shiftKey);
    });
    canvas.addEventListener("pointercancel", () => {
      drag = null;
    });
    canvas.addEventListener("wheel", (event) => this.zoom(event), { passive: false });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  // Zooms around the pointer, so that what is under it stays there.
  zoom(event) {
    event.preventDefault();
    const wished = this.scale * Math.exp(-event.deltaY / 500);
    const scale = Math.min(Math.max(wished, ZOOM_MIN), ZOOM_MAX);
    this.x = event.offsetX - ((event.offsetX - this.x) * scale) / this.scale;
    this.y = event.offsetY - ((event.offsetY - this.y) * scale) / this.scale;
    this.scale = scale;
    this.draw();
  }
}

// Puts the outline of a type's shape into the current path of the context.
function trace(context, type, x, y, radius) {
  if (type === "organisation") {
    const side = radius * 1.8;
    context.roundRect(x - side / 2, y - side / 2, side, side, radius * 0.4);
  } else if (type === "account") {
    polygon(context, [[x, y - radius * 1.15], [x + radius * 1.15, y], [x, y + radius * 1.15],
      [x - radius * 1.15, y]]);
  } else if (type === "document") {
    polygon(context, [[x, y - radius * 1.1], [x + radius * 1.05, y + radius * 0.75],
      [x - radius * 1.05, y + radius * 0.75]]);
  } else {
    context.arc(x, y, radius, 0, 2 * Math.PI);
  }
}

function overlap(a, b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

function polygon(context, corners) {
  context.moveTo(...corners[0]);
  for (const corner of corners.slice(1)) context.lineTo(...corner);
  context.closePath();
}
