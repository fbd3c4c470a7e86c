"""The image as any runtime would read it: digests, sizes, layers, configuration.

The only argument before unittest's own is the image layout's folder.
"""

import gzip
import hashlib
import io
import json
import os.path
import sys
import tarfile
import unittest


class ImageTest(unittest.TestCase):
    layout = ""

    @classmethod
    def setUpClass(cls):
        with open(os.path.join(cls.layout, "index.json"), encoding="utf-8") as file:
            (cls.descriptor,) = json.load(file)["manifests"]
        cls.manifest = json.loads(cls.blob(cls.descriptor))
        cls.config = json.loads(cls.blob(cls.manifest["config"]))
        cls.layers = [gzip.decompress(cls.blob(layer)) for layer in cls.manifest["layers"]]

    @classmethod
    def blob(cls, descriptor):
        """The bytes of a blob, checked against what its descriptor says."""
        algorithm, digest = descriptor["digest"].split(":")
        with open(os.path.join(cls.layout, "blobs", algorithm, digest), "rb") as file:
            data = file.read()
        if len(data) != descriptor["size"] or hashlib.sha256(data).hexdigest() != digest:
            raise AssertionError(f"blob {digest} is not what its descriptor says")
        return data

    def members(self):
        """The members of all layers by path, later layers over earlier ones."""
        found = {}
        for layer in self.layers:
            with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
                found.update((member.name.rstrip("/"), member) for member in archive)
        return found

    def test_layout_version(self):
        with open(os.path.join(self.layout, "oci-layout"), encoding="utf-8") as file:
            self.assertEqual(json.load(file), {"imageLayoutVersion": "1.0.0"})

    def test_diff_ids_are_the_unpacked_layers(self):
        digests = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in self.layers]
        self.assertEqual(self.config["rootfs"]["diff_ids"], digests)

    def test_configuration(self):
        self.assertEqual(self.config["os"], "linux")
        run = self.config["config"]
        self.assertEqual(run["Entrypoint"], ["/usr/bin/python3", "-B", "/app/main.py"])
        self.assertEqual(run["User"], "65532:65532")

    def test_it_holds_what_it_starts(self):
        members = self.members()
        for path in ("usr/bin/python3", "app/main.py", "app/bin/graph_tool",
                     "app/data/index.json", "app/web/index.html"):
            self.assertIn(path, members)
        self.assertTrue(members["app/bin/graph_tool"].mode & 0o111)

    def test_nothing_in_it_tells_when_or_by_whom_it_was_made(self):
        for path, member in self.members().items():
            facts = (member.mtime, member.uid, member.gid, member.uname, member.gname)
            self.assertEqual(facts, (0, 0, 0, "", ""), path)

    def test_links_stay_inside(self):
        for path, member in self.members().items():
            if member.issym():
                target = os.path.normpath(os.path.join(os.path.dirname(path), member.linkname))
                outside = member.linkname.startswith("/") or target.startswith("..")
                self.assertFalse(outside, f"{path} -> {member.linkname}")


if __name__ == "__main__":
    if len(sys.argv) < 2 or not os.path.isdir(sys.argv[1]):
        sys.exit("usage: image_test.py LAYOUT")
    ImageTest.layout = sys.argv.pop(1)
    unittest.main()
