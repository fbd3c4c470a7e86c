"""The service's interface, without sockets: a method and a target in, a response out.

    GET /health                         counts, and that the service is up
    GET /entities?q=&type=&limit=       search by name
    GET /entity/ID                      one entity with neighbours and provenance
    GET /path?from=&to=&by=&max_hops=   shortest path, by `hops` or by `strength`
    GET /communities                    communities with their members
    GET /graph                          everything that the page draws
    GET / and its files                 the page

Errors are JSON, `{"error": {"code", "message"}}`, with status 400, 404, 405, 414 or 503.
Files are served from a fixed list: no path of a request ever reaches the file system.
"""

import json
import os.path
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from intelgraph.service.catalogue import QUERY_CHARS_MAX, RESULTS_MAX
from intelgraph.service.kernel import KernelError

TARGET_CHARS_MAX = 2048
HOPS_MAX = 64
TYPES = ("account", "document", "organisation", "person")
MEASURES = ("hops", "strength")

PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/layout.js": ("layout.js", "text/javascript; charset=utf-8"),
    "/view.js": ("view.js", "text/javascript; charset=utf-8"),
}


@dataclass(frozen=True)
class Response:
    """What goes back: a status, a media type and the body."""

    status: int
    media_type: str
    body: bytes


class ApiError(Exception):
    """A request that cannot be answered."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status = status
        self.code = code


class Api:
    """Routes requests to the catalogue, the kernel and the page's files."""

    def __init__(self, catalogue, kernel, page_folder):
        """Reads the page's files once, so that a missing one shows at the start."""
        self._catalogue = catalogue
        self._kernel = kernel
        self._page = {}
        for target, (name, media_type) in PAGE_FILES.items():
            with open(os.path.join(page_folder, name), "rb") as file:
                self._page[target] = Response(200, media_type, file.read())
        self._routes = {
            "/health": (self._health, ()),
            "/entities": (self._entities, ("q", "type", "limit")),
            "/path": (self._path, ("from", "to", "by", "max_hops")),
            "/communities": (self._communities, ()),
            "/graph": (self._graph, ()),
        }

    def handle(self, method, target):
        """Answers one request; never raises for what a client can send."""
        try:
            if method not in ("GET", "HEAD"):
                raise ApiError(405, "method_not_allowed", f"`{method}` is not allowed here")
            if len(target) > TARGET_CHARS_MAX:
                raise ApiError(414, "target_too_long", "the target is too long")
            return self._route(target)
        except ApiError as error:
            body = {"error": {"code": error.code, "message": str(error)}}
            return _json(error.status, body)

    def _route(self, target):
        try:
            parts = urlsplit(target)
            path = unquote(parts.path, errors="strict")
        except ValueError as error:
            raise ApiError(400, "bad_request", "the target is not a valid URL path") from error
        if path in self._page:
            return self._page[path]
        if path.startswith("/entity/"):
            return _json(200, self._entity(path.removeprefix("/entity/")))
        if path not in self._routes:
            raise ApiError(404, "not_found", "there is nothing at this path")
        answer, names = self._routes[path]
        return _json(200, answer(_parameters(parts.query, names)))

    def _health(self, _):
        return {"status": "ok", **self._catalogue.stats}

    def _entities(self, parameters):
        query = parameters.get("q", "")
        if len(query) > QUERY_CHARS_MAX:
            raise ApiError(400, "bad_request", f"`q` is longer than {QUERY_CHARS_MAX} characters")
        entity_type = _choice(parameters, "type", TYPES, None)
        limit = _number(parameters, "limit", RESULTS_MAX, RESULTS_MAX)
        found = self._catalogue.search(query, entity_type)
        return {"total": len(found), "entities": found[:limit]}

    def _entity(self, entity_id):
        return self._catalogue.entity(self._known(entity_id))

    def _path(self, parameters):
        ends = [self._known(_required(parameters, name)) for name in ("from", "to")]
        measure = _choice(parameters, "by", MEASURES, "hops")
        max_hops = None
        if "max_hops" in parameters:
            if measure != "hops":
                raise ApiError(400, "bad_request", "`max_hops` only goes with `by=hops`")
            max_hops = _number(parameters, "max_hops", HOPS_MAX, HOPS_MAX)
        try:
            route = self._kernel.path(*ends, measure, max_hops)
        except KernelError as error:
            raise ApiError(503, "kernel_failed", "the graph kernel gave no answer") from error
        return self._catalogue.path(*ends, route)

    def _communities(self, _):
        return {"communities": self._catalogue.community_list()}

    def _graph(self, _):
        return self._catalogue.graph()

    def _known(self, entity_id):
        node = self._catalogue.representative(entity_id)
        if node is None:
            raise ApiError(404, "unknown_entity", f"no entity has the id `{entity_id[:40]}`")
        return node


def _json(status, value):
    body = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return Response(status, "application/json; charset=utf-8", body.encode() + b"\n")


def _parameters(query, names):
    """The parameters of a request: known, each once, in UTF-8."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=16)
    except ValueError as error:
        raise ApiError(400, "bad_request", "the query is not valid") from error
    parameters = {}
    for name, value in pairs:
        if name not in names:
            raise ApiError(400, "bad_request", f"`{name[:40]}` is not a parameter here")
        if name in parameters:
            raise ApiError(400, "bad_request", f"`{name}` is given twice")
        parameters[name] = value
    return parameters


def _required(parameters, name):
    if not parameters.get(name):
        raise ApiError(400, "bad_request", f"`{name}` is missing")
    return parameters[name]


def _choice(parameters, name, values, default):
    value = parameters.get(name, default)
    if value != default and value not in values:
        raise ApiError(400, "bad_request", f"`{name}` is none of {', '.join(values)}")
    return value


def _number(parameters, name, default, maximum):
    text = parameters.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= maximum):
        raise ApiError(400, "bad_request", f"`{name}` is not in 1..{maximum}")
    return int(text)
