"""Ingestion: the raw tables in, the kernel's two tables out.

    ingest.py --people F --organisations F --accounts F --documents F --links F
              --out-entities F --out-links F

Ends with 1 and `FILE:LINE: MESSAGE` on standard error when a row cannot be used; then nothing has
been written.
"""

import argparse
import os.path
import sys

from intelgraph.service import dataset

_TABLES = {
    "people": "person",
    "organisations": "organisation",
    "accounts": "account",
    "documents": "document",
    "links": "link",
}


def main(arguments):
    """Runs ingestion and returns the exit code."""
    parser = argparse.ArgumentParser(description="Checks and normalises the data set.")
    for option in _TABLES:
        parser.add_argument(f"--{option}", required=True, metavar="FILE")
    parser.add_argument("--out-entities", required=True, metavar="FILE")
    parser.add_argument("--out-links", required=True, metavar="FILE")
    options = vars(parser.parse_args(arguments))
    try:
        tables = {kind: _read(options[option]) for option, kind in _TABLES.items()}
        loaded = dataset.load_dataset(tables)
    except (dataset.DataError, OSError) as error:
        print(f"ingest: {error}", file=sys.stderr)
        return 1
    _write(options["out_entities"], dataset.ENTITY_COLUMNS, loaded.entities)
    _write(options["out_links"], dataset.LINK_COLUMNS, loaded.links)
    return 0


def _read(path):
    with open(path, "rb") as file:
        return os.path.basename(path), file.read()


def _write(path, columns, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(dataset.write_csv(columns, rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
