// The resolved graph: one node per cluster of entities, one undirected edge per pair of nodes
// that any link joins.
//
// It holds indices only; names and links are looked up in the data set. Links between two members
// of one cluster vanish (they joined an entity with itself).
//
// Invariants: nodes are in the order of their representatives' ids; neighbours are sorted by
// node, without repetition, and symmetric.

#ifndef INTELGRAPH_KERNEL_GRAPH_H_
#define INTELGRAPH_KERNEL_GRAPH_H_

#include <cstddef>
#include <vector>

#include "intelgraph/kernel/dataset.h"

namespace intelgraph {

using NodeIndex = std::size_t;

// One side of an edge.
struct Neighbour {
  NodeIndex node = 0;
  // The strength of the best-attested link, 1..kStrengthMax.
  int strength = 0;
  // Indices into Dataset::links, ascending.
  std::vector<std::size_t> links;
};

class Graph {
 public:
  // Builds the graph from a data set and the clusters that ResolveEntities gave for it.
  Graph(const Dataset& dataset, const std::vector<std::size_t>& clusters);

  std::size_t size() const { return members_.size(); }

  // The node that an entity belongs to.
  NodeIndex NodeOf(std::size_t entity) const { return nodes_.at(entity); }

  // The entities of a node, ascending; the first is its representative.
  const std::vector<std::size_t>& Members(NodeIndex node) const { return members_.at(node); }

  const std::vector<Neighbour>& Neighbours(NodeIndex node) const { return neighbours_.at(node); }

 private:
  std::vector<NodeIndex> nodes_;
  std::vector<std::vector<std::size_t>> members_;
  std::vector<std::vector<Neighbour>> neighbours_;
};

}  // namespace intelgraph

#endif  // INTELGRAPH_KERNEL_GRAPH_H_
