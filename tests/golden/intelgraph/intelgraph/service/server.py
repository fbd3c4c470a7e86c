"""The service as a process: options, sockets, signals.

    main.py [--host ADDRESS] [--port NUMBER] [--root FOLDER]

`--root` is the folder that holds `bin/`, `data/` and `web/`; by default the one of `main.py`.
Without options INTELGRAPH_HOST and INTELGRAPH_PORT decide. Port 0 takes a free one. The first line
on standard output is the address: `listening on http://127.0.0.1:8080/`.
"""

import argparse
import os
import os.path
import signal
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from intelgraph.service.api import Api
from intelgraph.service.catalogue import Catalogue
from intelgraph.service.kernel import Kernel

PORT_DEFAULT = 8080
IDLE_TIMEOUT_S = 30


class Handler(BaseHTTPRequestHandler):
    """Carries one request to the Api and its response back."""

    protocol_version = "HTTP/1.1"
    server_version = "Intelgraph"
    sys_version = ""
    timeout = IDLE_TIMEOUT_S

    def respond(self):
        """Answers the request whose head has been read."""
        response = self.server.api.handle(self.command, self.path)
        # A body that was sent is not read, so the connection cannot go on after it.
        if self.headers.get("Content-Length") or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
        self.send_response(response.status)
        self.send_header("Content-Type", response.media_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Content-Security-Policy", "default-src 'self'; img-src data:")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = respond

    def log_message(self, *_):
        """Says nothing: requests are not logged."""


class Server(ThreadingHTTPServer):
    """Listens on an address and serves one Api."""

    daemon_threads = True

    def __init__(self, address, api):
        self.api = api
        super().__init__(address, Handler)

    def server_bind(self):
        """Binds without asking for the host's name: a bare root has no resolver."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address):
        """Ignores clients that went away; everything else is reported as usual."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def build_api(root):
    """The Api over an installed folder (`bin/graph_tool`, `data/…`, `web/…`)."""
    data = os.path.join(root, "data")
    catalogue = Catalogue.load(os.path.join(data, "index.json"))
    kernel = Kernel(
        os.path.join(root, "bin", "graph_tool"),
        os.path.join(data, "entities.csv"),
        os.path.join(data, "links.csv"),
    )
    return Api(catalogue, kernel, os.path.join(root, "web"))


def main(arguments, environment, root):
    """Serves until a signal to end; returns the exit code."""
    parser = argparse.ArgumentParser(description="Answers questions about a graph of links.")
    parser.add_argument("--host", default=environment.get("INTELGRAPH_HOST", "127.0.0.1"))
    parser.add_argument("--port", default=environment.get("INTELGRAPH_PORT", str(PORT_DEFAULT)))
    parser.add_argument("--root", default=root)
    options = parser.parse_args(arguments)
    if not (options.port.isascii() and options.port.isdigit() and int(options.port) < 65536):
        parser.error(f"`{options.port}` is not a port")
    try:
        server = Server((options.host, int(options.port)), build_api(options.root))
    except (OSError, ValueError, KeyError) as error:
        print(f"intelgraph: cannot start: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    with server:
        host, port = server.server_address[:2]
        print(f"listening on http://{host}:{port}/", flush=True)
        server.serve_forever(poll_interval=0.1)
    return 0
