// Where the nodes of a graph are drawn: a force-directed layout. The same graph is always placed
// in the same way; nothing here knows of a canvas.

import {
  forceLink,
  forceManyBody,
  forceSimulation,
  forceX,
  forceY,
  type SimulationLinkDatum,
  type SimulationNodeDatum,
} from "d3-force";

import type { Graph } from "./answers.js";

export interface Point {
  id: string;
  x: number;
  y: number;
}

interface Body extends SimulationNodeDatum {
  id: string;
}

const STEPS = 200;

/** A place for each node, in the order of the graph's nodes. */
export function layOut(graph: Pick<Graph, "nodes" | "edges">, steps = STEPS): Point[] {
  const bodies: Body[] = graph.nodes.map(({ id }) => ({ id }));
  const links: (SimulationLinkDatum<Body> & { strength: number })[] = graph.edges.map((edge) => ({
    source: edge.from,
    target: edge.to,
    strength: edge.strength,
  }));
  const pull = forceLink<Body, (typeof links)[number]>(links)
    .id((body) => body.id)
    .distance((link) => 60 / (0.5 + link.strength / 100));
  forceSimulation(bodies)
    .force("links", pull)
    .force("nodes", forceManyBody().strength(-120))
    .force("x", forceX(0))
    .force("y", forceY(0))
    .stop()
    .tick(steps);
  return bodies.map(({ id, x = 0, y = 0 }) => ({ id, x, y }));
}
