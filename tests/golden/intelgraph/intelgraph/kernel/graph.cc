// Folding a data set into its resolved graph; see graph.h.

#include "intelgraph/kernel/graph.h"

#include <algorithm>
#include <map>

namespace intelgraph {

Graph::Graph(const Dataset& dataset, const std::vector<std::size_t>& clusters)
    : nodes_(dataset.entities.size()) {
  // A representative is the smallest member, so it has its node before its members ask for it.
  for (std::size_t i = 0; i < clusters.size(); ++i) {
    if (clusters[i] == i) {
      nodes_[i] = members_.size();
      members_.emplace_back();
    } else {
      nodes_[i] = nodes_.at(clusters[i]);
    }
    members_[nodes_[i]].push_back(i);
  }

  std::vector<std::map<NodeIndex, Neighbour>> edges(members_.size());
  for (std::size_t i = 0; i < dataset.links.size(); ++i) {
    const Link& link = dataset.links[i];
    const NodeIndex from = nodes_.at(link.from);
    const NodeIndex to = nodes_.at(link.to);
    if (from == to) continue;
    for (const auto& [here, there] : {std::pair(from, to), std::pair(to, from)}) {
      Neighbour& neighbour = edges[here][there];
      neighbour.node = there;
      neighbour.strength = std::max(neighbour.strength, link.strength);
      neighbour.links.push_back(i);
    }
  }
  for (const auto& sorted : edges) {
    std::vector<Neighbour>& list = neighbours_.emplace_back();
    for (const auto& entry : sorted) list.push_back(entry.second);
  }
}

}  // namespace intelgraph
