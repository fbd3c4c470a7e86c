// Communities: groups of nodes that are linked among themselves more than with others.
//
// The Louvain method (Blondel et al., 2008): nodes move to the neighbouring community that raises
// modularity most; then communities become nodes, and so on until nothing moves. All arithmetic
// is on integers and nodes are visited in order, so that the outcome is the same everywhere.

#ifndef INTELGRAPH_KERNEL_COMMUNITIES_H_
#define INTELGRAPH_KERNEL_COMMUNITIES_H_

#include <cstddef>
#include <vector>

#include "intelgraph/kernel/graph.h"

namespace intelgraph {

// Maps each node to its community. Communities are numbered from 0, largest first; of equals,
// the one with the smallest node first.
std::vector<std::size_t> FindCommunities(const Graph& graph);

}  // namespace intelgraph

#endif  // INTELGRAPH_KERNEL_COMMUNITIES_H_
