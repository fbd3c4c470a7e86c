// The client against answers that stand in for the service, in Node.

import assert from "node:assert/strict";
import test from "node:test";

import { IntelgraphClient, IntelgraphError, layOut, type Fetch, type Graph } from "../src/index.js";

/** Answers every request like this, and keeps what was asked. */
function service(status: number, body: string): { asked: string[]; fetch: Fetch } {
  const asked: string[] = [];
  const fetch: Fetch = async (url) => {
    asked.push(url);
    return { ok: status < 400, status, json: async () => JSON.parse(body) };
  };
  return { asked, fetch };
}

test("questions become requests", async () => {
  const { asked, fetch } = service(200, "{}");
  const client = new IntelgraphClient("http://host/base//", fetch);
  await client.health();
  await client.search("Åse & co", { type: "person", limit: 3 });
  await client.entity("a/b?");
  await client.path("P1", "P2", "strength");
  assert.deepEqual(asked, [
    "http://host/base/health",
    "http://host/base/entities?q=%C3%85se+%26+co&type=person&limit=3",
    "http://host/base/entity/a%2Fb%3F",
    "http://host/base/path?from=P1&to=P2&by=strength",
  ]);
});

test("errors carry the service's code", async () => {
  const body = JSON.stringify({ error: { code: "unknown_entity", message: "no such entity" } });
  const client = new IntelgraphClient("http://host", service(404, body).fetch);
  await assert.rejects(client.entity("x"), (error) => {
    assert.ok(error instanceof IntelgraphError);
    assert.deepEqual([error.status, error.code], [404, "unknown_entity"]);
    assert.equal(error.message, "no such entity");
    return true;
  });
});

test("an answer that is no JSON is an error", async () => {
  for (const status of [200, 502]) {
    const client = new IntelgraphClient("http://host", service(status, "<html>").fetch);
    await assert.rejects(client.graph(), { code: "unknown", status });
  }
});

test("linked nodes are drawn nearer than others, always in the same way", () => {
  const node = (id: string) =>
    ({ id, type: "person", name: id, community: 0, degree: 1 }) as const;
  const graph: Graph = {
    nodes: ["a", "b", "c", "d"].map(node),
    edges: [
      { from: "a", to: "b", strength: 100 },
      { from: "c", to: "d", strength: 100 },
    ],
  };
  const [a, b, c] = layOut(graph);
  assert.ok(a && b && c);
  assert.ok(Math.hypot(a.x - b.x, a.y - b.y) < Math.hypot(a.x - c.x, a.y - c.y));
  assert.deepEqual(layOut(graph), layOut(graph));
});
