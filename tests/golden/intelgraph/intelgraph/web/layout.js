// A force-directed layout: where each node is drawn.
//
// Nodes repel each other, edges pull their ends together (the more, the better attested), and a
// weak force draws each node towards the middle of its community. No randomness: the same graph
// is drawn in the same way on every visit. Knows nothing of the canvas.

const REPULSION = 2600;
const SPRING = 0.045;
const SPRING_LENGTH = 62;
const COMMUNITY_PULL = 0.035;
const CENTRE_PULL = 0.006;
const DAMPING = 0.78;
const STEP_MAX = 24;
const DISTANCE_MIN = 8;

// Places the nodes of each community on a spiral around that community's place on a circle.
function place(nodes, communityCount) {
  const ranks = new Map();
  return nodes.map((node) => {
    const rank = ranks.get(node.community) ?? 0;
    ranks.set(node.community, rank + 1);
    const around = (2 * Math.PI * node.community) / Math.max(communityCount, 1);
    const angle = rank * 2.39996; // The golden angle spreads them evenly.
    const distance = 14 * Math.sqrt(rank);
    return {
      x: 300 * Math.cos(around) + distance * Math.cos(angle),
      y: 230 * Math.sin(around) + distance * Math.sin(angle),
      vx: 0,
      vy: 0,
    };
  });
}

// Runs `steps` rounds of the simulation and returns a point per node, in the order of `nodes`.
export function layOut(nodes, edges, communityCount, steps = 400) {
  const points = place(nodes, communityCount);
  const indices = new Map(nodes.map((node, index) => [node.id, index]));
  const springs = edges.map((edge) => ({
    from: points[indices.get(edge.from)],
    to: points[indices.get(edge.to)],
    pull: SPRING * (0.35 + edge.strength / 100),
  }));
  for (let step = 0; step < steps; step += 1) {
    repel(points);
    for (const { from, to, pull } of springs) stretch(from, to, pull);
    gather(points, nodes, communityCount);
    move(points, 1 - step / steps);
  }
  return points.map(({ x, y }) => ({ x, y }));
}

function repel(points) {
  for (let i = 0; i < points.length; i += 1) {
    for (let j = i + 1; j < points.length; j += 1) {
      const dx = points[i].x - points[j].x;
      const dy = points[i].y - points[j].y;
      const distance = Math.max(Math.hypot(dx, dy), DISTANCE_MIN);
      const force = REPULSION / (distance * distance * distance);
      push(points[i], dx * force, dy * force);
      push(points[j], -dx * force, -dy * force);
    }
  }
}

function stretch(from, to, pull) {
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const distance = Math.max(Math.hypot(dx, dy), DISTANCE_MIN);
  const force = (pull * (distance - SPRING_LENGTH)) / distance;
  push(from, dx * force, dy * force);
  push(to, -dx * force, -dy * force);
}

function gather(points, nodes, communityCount) {
  const centres = Array.from({ length: communityCount }, () => ({ x: 0, y: 0, count: 0 }));
  nodes.forEach((node, index) => {
    const centre = centres[node.community];
    centre.x += points[index].x;
    centre.y += points[index].y;
    centre.count += 1;
  });
  nodes.forEach((node, index) => {
    const centre = centres[node.community];
    const point = points[index];
    push(
      point,
      (centre.x / centre.count - point.x) * COMMUNITY_PULL - point.x * CENTRE_PULL,
      (centre.y / centre.count - point.y) * COMMUNITY_PULL - point.y * CENTRE_PULL,
    );
  });
}

function push(point, x, y) {
  point.vx += x;
  point.vy += y;
}

// Moves every point by its velocity, less and less as `heat` falls from 1 to 0.
function move(points, heat) {
  for (const point of points) {
    const speed = Math.hypot(point.vx, point.vy);
    const scale = speed > STEP_MAX ? STEP_MAX / speed : 1;
    point.x += point.vx * scale * heat;
    point.y += point.vy * scale * heat;
    point.vx *= DAMPING;
    point.vy *= DAMPING;
  }
}
