// Uses the bundled client in a page, and writes what came of it into the page.

import { IntelgraphClient, IntelgraphError, layOut } from "/app.js";

async function report() {
  const client = new IntelgraphClient(location.origin);
  const health = await client.health();
  const found = await client.search("angholm");
  const graph = await client.graph();
  const points = layOut(graph);
  const error = await client.entity("nobody").catch((error) => error);
  return {
    nodes: health.nodes,
    names: found.entities.map((entity) => entity.name),
    placed: points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y)).length,
    drawn: graph.nodes.length,
    error: error instanceof IntelgraphError ? error.code : String(error),
  };
}

report()
  .catch((error) => ({ failed: String(error) }))
  .then((result) => {
    document.getElementById("report").textContent = JSON.stringify(result);
  });
