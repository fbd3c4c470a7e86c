"""The resolved graph in memory: look-up, search, and the views that the API gives of it.

Reads the index that `graph_tool index` made at build time; never computes what the kernel can.
Read-only after loading, hence safe to share between threads.
"""

import json
import unicodedata

QUERY_CHARS_MAX = 100
RESULTS_MAX = 50


class Catalogue:
    """An index, with the maps needed to answer quickly."""

    def __init__(self, index):
        """Takes the parsed JSON of the index. Raises KeyError when it is not one."""
        self.nodes = index["nodes"]
        self.edges = index["edges"]
        self.communities = index["communities"]
        self.stats = index["stats"]
        self._nodes_by_id = {node["id"]: node for node in self.nodes}
        self._links_by_id = {link["id"]: link for link in index["links"]}
        # Every id of the data set, merged ones included, to the node that stands for it.
        self._representatives = {
            member["id"]: node["id"] for node in self.nodes for member in node["members"]
        }
        self._edges_by_node = {node["id"]: [] for node in self.nodes}
        for edge in self.edges:
            self._edges_by_node[edge["from"]].append((edge["to"], edge))
            self._edges_by_node[edge["to"]].append((edge["from"], edge))
        self._names = [
            (node, [fold(name) for name in (node["name"], *node["aliases"])])
            for node in self.nodes
        ]

    @classmethod
    def load(cls, path):
        """Reads the index from a file."""
        with open(path, encoding="utf-8") as file:
            return cls(json.load(file))

    def representative(self, entity_id):
        """The id of the node that an id belongs to, or None."""
        return self._representatives.get(entity_id)

    def search(self, query, entity_type=None):
        """Nodes with a name that holds every word of `query`; those that begin with it first."""
        words = fold(query).split()
        found = []
        for node, names in self._names:
            if entity_type is not None and node["type"] != entity_type:
                continue
            hits = [name for name in names if all(word in name for word in words)]
            if hits:
                begins = any(name.startswith(" ".join(words)) for name in hits)
                found.append((not begins, fold(node["name"]), node["id"], node))
        return [summary(entry[-1]) for entry in sorted(found, key=lambda entry: entry[:3])]

    def entity(self, node_id):
        """A node with everything known of it: its members, its neighbours, and each link with
        its provenance."""
        neighbours = [
            {
                **summary(self._nodes_by_id[other]),
                "strength": edge["strength"],
                "links": [self._provenance(link) for link in edge["links"]],
            }
            for other, edge in self._edges_by_node[node_id]
        ]
        neighbours.sort(key=lambda neighbour: (-neighbour["strength"], neighbour["id"]))
        return {**self._nodes_by_id[node_id], "neighbours": neighbours}

    def path(self, start, end, route):
        """A path as the kernel reports it, with names and links in place of ids, and both ends,
        which stand there also when nothing was found."""
        return {
            **route,
            "from": summary(self._nodes_by_id[start]),
            "to": summary(self._nodes_by_id[end]),
            "nodes": [summary(self._nodes_by_id[node]) for node in route["nodes"]],
            "edges": [
                {**edge, "links": [self._provenance(link) for link in edge["links"]]}
                for edge in route["edges"]
            ],
        }

    def community_list(self):
        """Communities with summaries of their members."""
        return [
            {
                **community,
                "members": [summary(self._nodes_by_id[node]) for node in community["members"]],
            }
            for community in self.communities
        ]

    def graph(self):
        """What the web page draws: nodes, edges and the names of communities."""
        return {
            "nodes": [{**summary(node), "degree": node["degree"]} for node in self.nodes],
            "edges": [
                {"from": edge["from"], "to": edge["to"], "strength": edge["strength"]}
                for edge in self.edges
            ],
            "communities": [
                {"id": community["id"], "name": community["name"]}
                for community in self.communities
            ],
        }

    def _provenance(self, link_id):
        link = self._links_by_id[link_id]
        document = self.representative(link["source"])
        title = self._nodes_by_id[document]["name"] if document else ""
        return {**link, "source": {"id": link["source"], "title": title}}


def summary(node):
    """The few fields by which a node is recognised."""
    return {key: node[key] for key in ("id", "type", "name", "community")}


def fold(text):
    """Lower case without accents, as searching compares it."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in decomposed if not unicodedata.combining(c)).split())
