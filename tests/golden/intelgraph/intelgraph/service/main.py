"""The image's entry point: starts the service on the files beside it."""

import os
import os.path
import sys

from intelgraph.service import server

if __name__ == "__main__":
    ROOT = os.path.dirname(os.path.abspath(__file__))
    sys.exit(server.main(sys.argv[1:], os.environ, ROOT))
