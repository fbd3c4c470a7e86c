// Shortest paths between two nodes: by number of hops, or by how well the links are attested.
//
// Of several shortest paths the answer is always the same one: the search settles nodes in the
// order (distance, node) and keeps the first predecessor that it saw.

#ifndef INTELGRAPH_KERNEL_PATHS_H_
#define INTELGRAPH_KERNEL_PATHS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "intelgraph/kernel/graph.h"

namespace intelgraph {

// The nodes of a path, both ends included, and what it costs.
struct Path {
  std::vector<NodeIndex> nodes;
  std::uint64_t cost = 0;
};

// Breadth-first search: the path with the fewest hops; cost is their number. Paths longer than
// `max_hops` are not looked for. None when the nodes are not connected within it.
std::optional<Path> FewestHops(const Graph& graph, NodeIndex from, NodeIndex to,
                               std::uint64_t max_hops);

// Dijkstra's search: the path with the lowest sum of `kStrengthMax + 1 - strength` over its edges,
// so that a chain of well-attested links wins over a short cut of hearsay.
std::optional<Path> StrongestPath(const Graph& graph, NodeIndex from, NodeIndex to);

}  // namespace intelgraph

#endif  // INTELGRAPH_KERNEL_PATHS_H_
