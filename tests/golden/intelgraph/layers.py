"""Prints the paths of an OCI image layout's layers, bottom first.

    layers.py LAYOUT

For unpacking an image by hand; see README.md.
"""

import json
import os.path
import sys


def main(layout):
    """Follows index, manifest and layers; prints one path a line."""

    def blob(descriptor):
        return os.path.join(layout, "blobs", *descriptor["digest"].split(":"))

    with open(os.path.join(layout, "index.json"), encoding="utf-8") as file:
        index = json.load(file)
    with open(blob(index["manifests"][0]), encoding="utf-8") as file:
        manifest = json.load(file)
    for layer in manifest["layers"]:
        print(blob(layer))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: layers.py LAYOUT")
    main(sys.argv[1])
