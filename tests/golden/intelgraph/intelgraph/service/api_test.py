"""The interface on a small graph, with a kernel that answers from a table."""

import json
import os
import tempfile
import unittest

from intelgraph.service import api
from intelgraph.service.catalogue import Catalogue
from intelgraph.service.kernel import KernelError


def node(node_id, entity_type, name, aliases=(), members=(), community=0):
    """A node of an index, with only what matters here."""
    rows = [{"id": member, "name": name, "source": "D1"} for member in (node_id, *members)]
    return {"id": node_id, "type": entity_type, "name": name, "aliases": list(aliases),
            "date": "", "place": "", "community": community, "degree": 1, "members": rows}


INDEX = {
    "nodes": [
        node("D1", "document", "Register"),
        node("P1", "person", "Åse Ångholm", ["Ase Angholm"], ["P2"]),
        node("P3", "person", "Jonas Vale"),
    ],
    "edges": [{"from": "P1", "to": "P3", "strength": 40, "links": ["L1"]}],
    "links": [{"id": "L1", "from": "P1", "to": "P3", "kind": "knows", "strength": 40,
               "date": "2001", "source": "D1"}],
    "communities": [{"id": 0, "name": "Åse Ångholm", "members": ["D1", "P1", "P3"]}],
    "stats": {"entities": 4, "nodes": 3},
}


class FakeKernel:
    """Finds the one path of the index; fails when told to."""

    def __init__(self):
        self.asked = []
        self.fails = False

    def path(self, start, end, measure, max_hops=None):
        self.asked.append((start, end, measure, max_hops))
        if self.fails:
            raise KernelError("no such file")
        return {"found": True, "by": measure, "cost": 1, "nodes": [start, end],
                "edges": [{"from": start, "to": end, "strength": 40, "links": ["L1"]}]}


class ApiTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR"))
        self.addCleanup(folder.cleanup)
        for name, _ in api.PAGE_FILES.values():
            with open(os.path.join(folder.name, name), "w", encoding="utf-8") as file:
                file.write(name)
        self.kernel = FakeKernel()
        self.api = api.Api(Catalogue(INDEX), self.kernel, folder.name)

    def get(self, target):
        """The parsed body of a request that must succeed."""
        response = self.api.handle("GET", target)
        self.assertEqual(response.status, 200, response.body)
        return json.loads(response.body)

    def check_error(self, target, status, code, method="GET"):
        with self.subTest(target):
            response = self.api.handle(method, target)
            body = json.loads(response.body)
            self.assertEqual((response.status, body["error"]["code"]), (status, code))
            self.assertTrue(body["error"]["message"])

    def test_health(self):
        self.assertEqual(self.get("/health"), {"status": "ok", "entities": 4, "nodes": 3})

    def test_search(self):
        def ids(target):
            return [entity["id"] for entity in self.get(target)["entities"]]

        self.assertEqual(ids("/entities"), ["P1", "P3", "D1"])
        self.assertEqual(ids("/entities?q=angholm%20ASE"), ["P1"])
        self.assertEqual(ids("/entities?q=%C3%85se"), ["P1"])
        self.assertEqual(ids("/entities?q=a&type=person"), ["P1", "P3"])
        self.assertEqual(ids("/entities?q=zzz"), [])
        self.assertEqual(self.get("/entities?limit=1")["total"], 3)
        self.assertEqual(ids("/entities?limit=1"), ["P1"])

    def test_entity_with_provenance(self):
        entity = self.get("/entity/P1")
        self.assertEqual(entity["neighbours"][0]["id"], "P3")
        self.assertEqual(entity["neighbours"][0]["links"][0]["source"],
                         {"id": "D1", "title": "Register"})
        # A merged id leads to the entity that it was merged into.
        self.assertEqual(self.get("/entity/P2"), entity)

    def test_path(self):
        route = self.get("/path?from=P2&to=P3&max_hops=3")
        self.assertEqual(self.kernel.asked, [("P1", "P3", "hops", 3)])
        self.assertEqual([step["name"] for step in route["nodes"]], ["Åse Ångholm", "Jonas Vale"])
        self.get("/path?from=P1&to=P3&by=strength")
        self.assertEqual(self.kernel.asked[-1], ("P1", "P3", "strength", None))

    def test_graph_and_communities(self):
        self.assertEqual(len(self.get("/graph")["nodes"]), 3)
        self.assertEqual(self.get("/communities")["communities"][0]["members"][1]["id"], "P1")

    def test_page(self):
        response = self.api.handle("GET", "/")
        self.assertEqual((response.status, response.body), (200, b"index.html"))
        self.assertEqual(self.api.handle("GET", "/app.js?v=1").body, b"app.js")

    def test_bad_requests(self):
        for target in ("/entities?limit=0", "/entities?limit=x", "/entities?limit=51",
                       "/entities?limit=%D9%A1", "/entities?type=ghost", "/entities?q=a&q=b",
                       "/entities?colour=red", "/entities?q=%FF", "/entities?q=" + "x" * 101,
                       "/path?from=P1", "/path?from=P1&to=", "/path?from=P1&to=P3&by=luck",
                       "/path?from=P1&to=P3&max_hops=65", "/health?x=1", "/%FF",
                       "/path?from=P1&to=P3&by=strength&max_hops=3"):
            self.check_error(target, 400, "bad_request")

    def test_not_found(self):
        for target in ("/nothing", "/entity", "/../server.py", "/%2e%2e/server.py", "//app.js",
                       "/style.css/", "/APP.JS"):
            self.check_error(target, 404, "not_found")
        for target in ("/entity/", "/entity/P9", "/entity/..%2f", "/path?from=P1&to=P9"):
            self.check_error(target, 404, "unknown_entity")

    def test_other_errors(self):
        self.check_error("/health", 405, "method_not_allowed", method="POST")
        self.check_error("/" + "x" * 2048, 414, "target_too_long")
        self.kernel.fails = True
        self.check_error("/path?from=P1&to=P3", 503, "kernel_failed")


if __name__ == "__main__":
    unittest.main()
