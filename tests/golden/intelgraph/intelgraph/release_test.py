"""The release bundle as its receiver checks it: checksums, manifest, and the model's answers.

The only argument before unittest's own is the bundle's folder.
"""

import hashlib
import json
import os
import os.path
import sys
import unittest

CHECKSUMS = "SHA256SUMS"
MANIFEST = "manifest.json"


class ReleaseTest(unittest.TestCase):
    bundle = ""

    def read(self, name):
        with open(os.path.join(self.bundle, name), "rb") as file:
            return file.read()

    def names(self):
        """The paths of all files of the bundle, relative to it."""
        return {
            os.path.relpath(os.path.join(folder, name), self.bundle)
            for folder, _, names in os.walk(self.bundle)
            for name in names
        }

    def test_checksums_cover_every_file(self):
        sums = dict(reversed(line.split("  ", 1))
                    for line in self.read(CHECKSUMS).decode().splitlines())
        self.assertEqual(set(sums), self.names() - {CHECKSUMS})
        for name, digest in sums.items():
            self.assertEqual(hashlib.sha256(self.read(name)).hexdigest(), digest, name)

    def test_manifest_covers_every_artifact(self):
        files = {entry["name"]: entry for entry in json.loads(self.read(MANIFEST))["files"]}
        self.assertEqual(set(files), self.names() - {CHECKSUMS, MANIFEST})
        for name, entry in files.items():
            data = self.read(name)
            self.assertEqual(entry["size"], len(data), name)
            self.assertEqual(entry["sha256"], hashlib.sha256(data).hexdigest(), name)

    def test_it_is_complete(self):
        self.assertLessEqual(
            {"bin/graph_tool", "client/intelgraph-client.js", "intelgraph-image.tar",
             "release_notes.json", "test_plan.json", "web/index.html"},
            self.names(),
        )

    def test_the_plan_has_a_row_for_each_component(self):
        plan = json.loads(self.read("test_plan.json"))
        self.assertEqual(set(plan), {"data", "image", "kernel", "service", "web"})
        for row in plan.values():
            self.assertIn(row["priority"], ("high", "medium", "low"))
            self.assertIn(row["tests"], ("unit", "integration", "both"))

    def test_the_notes_say_something(self):
        notes = json.loads(self.read("release_notes.json"))
        for text in (notes["headline"], notes["summary"]):
            self.assertTrue(text.strip(), notes)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not os.path.isdir(sys.argv[1]):
        sys.exit("usage: release_test.py BUNDLE")
    ReleaseTest.bundle = sys.argv.pop(1)
    unittest.main()
