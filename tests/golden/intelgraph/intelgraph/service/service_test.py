"""The service as it is shipped: started from its installed folder, asked over HTTP.

The only argument before unittest's own is that folder. The kernel is the real one and the data
set is the shipped one, so that this test sees what a user of the image sees.
"""

import http.client
import json
import os.path
import signal
import subprocess
import sys
import unittest

DEADLINE_S = 30


class ServiceTest(unittest.TestCase):
    root = ""

    @classmethod
    def setUpClass(cls):
        command = [sys.executable, "-B", os.path.join(cls.root, "main.py"), "--port", "0"]
        cls.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={})
        cls.addClassCleanup(cls.stop)
        # Blocks until the service has bound its port, or has ended.
        line = cls.process.stdout.readline()
        if not line.startswith("listening on http://127.0.0.1:"):
            raise AssertionError(f"the service did not start: {line!r}")
        cls.port = int(line.rstrip("/\n").rsplit(":", 1)[1])

    @classmethod
    def stop(cls):
        cls.process.stdout.close()
        cls.process.kill()
        cls.process.wait()

    def request(self, target, method="GET", body=None):
        """Status, media type and body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        self.addCleanup(connection.close)
        connection.request(method, target, body)
        response = connection.getresponse()
        return response.status, response.headers.get_content_type(), response.read()

    def get(self, target):
        status, media_type, body = self.request(target)
        self.assertEqual((status, media_type), (200, "application/json"), body)
        return json.loads(body)

    def test_health(self):
        health = self.get("/health")
        self.assertEqual(health["status"], "ok")
        self.assertLess(health["nodes"], health["entities"], "no duplicate was resolved")

    def test_duplicates_are_one(self):
        found = self.get("/entities?q=angholm")["entities"]
        self.assertEqual([entity["name"] for entity in found], ["Åse Ångholm"])
        entity = self.get("/entity/" + found[0]["id"])
        self.assertEqual(len(entity["members"]), 2)
        self.assertEqual(entity["date"], "1944-01-12")

    def test_namesakes_are_two(self):
        found = self.get("/entities?q=jonas%20vale&type=person")["entities"]
        self.assertEqual(len(found), 2)

    def test_path_through_the_kernel(self):
        for measure in ("hops", "strength"):
            route = self.get(f"/path?from=P054&to=P049&by={measure}")
            self.assertTrue(route["found"])
            self.assertEqual(route["nodes"][0]["name"], "Åse Ångholm")
            self.assertEqual(route["nodes"][-1]["name"], "Jasper Sleeper")
            self.assertEqual(len(route["edges"]), len(route["nodes"]) - 1)
            for edge in route["edges"]:
                self.assertTrue(edge["links"][0]["source"]["title"])

    def test_hop_limit(self):
        route = self.get("/path?from=P054&to=P049&max_hops=1")
        self.assertEqual((route["found"], route["nodes"]), (False, []))
        self.assertEqual(route["from"]["name"], "Åse Ångholm")

    def test_graph_agrees_with_communities(self):
        graph = self.get("/graph")
        communities = self.get("/communities")["communities"]
        for community in communities:
            members = {member["id"] for member in community["members"]}
            drawn = {n["id"] for n in graph["nodes"] if n["community"] == community["id"]}
            self.assertEqual(members, drawn)
        self.assertGreater(len(communities), 2)

    def test_page(self):
        for target, expected in (("/", "text/html"), ("/app.js", "text/javascript"),
                                 ("/style.css", "text/css")):
            status, media_type, body = self.request(target)
            self.assertEqual((status, media_type), (200, expected))
            self.assertTrue(body)

    def test_errors_are_json(self):
        for target, method, body, expected in (
            ("/nothing", "GET", None, 404),
            ("/path?from=P001", "GET", None, 400),
            ("/health", "POST", b"GET / HTTP/1.1\r\n\r\n", 405),
        ):
            status, media_type, answer = self.request(target, method, body)
            self.assertEqual((status, media_type), (expected, "application/json"))
            self.assertIn("message", json.loads(answer)["error"])

    def test_head_has_no_body(self):
        self.assertEqual(self.request("/health", "HEAD")[2], b"")


class StopTest(unittest.TestCase):
    def test_it_ends_on_request(self):
        command = [sys.executable, "-B", os.path.join(ServiceTest.root, "main.py"), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={}) as process:
            process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(DEADLINE_S), 0)

    def test_a_bad_port_is_refused(self):
        command = [sys.executable, "-B", os.path.join(ServiceTest.root, "main.py"), "--port", "x"]
        done = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("`x` is not a port", done.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not os.path.isfile(os.path.join(sys.argv[1], "main.py")):
        sys.exit("usage: service_test.py FOLDER_OF_THE_INSTALLED_SERVICE")
    ServiceTest.root = os.path.abspath(sys.argv.pop(1))
    unittest.main()
