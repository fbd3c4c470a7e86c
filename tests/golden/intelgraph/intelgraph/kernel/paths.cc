// Breadth-first and Dijkstra's search; see paths.h.

#include "intelgraph/kernel/paths.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <limits>
#include <queue>
#include <utility>

namespace intelgraph {
namespace {

constexpr NodeIndex kNone = std::numeric_limits<NodeIndex>::max();
constexpr std::uint64_t kFar = std::numeric_limits<std::uint64_t>::max();

// What a search knows of each node.
struct Search {
  explicit Search(std::size_t size) : costs(size, kFar), previous(size, kNone) {}

  std::vector<std::uint64_t> costs;
  std::vector<NodeIndex> previous;
};

// Walks back from `to`; none when the search did not reach it.
std::optional<Path> Trace(const Search& search, NodeIndex to) {
  if (search.costs.at(to) == kFar) return std::nullopt;
  Path path;
  path.cost = search.costs[to];
  for (NodeIndex node = to; node != kNone; node = search.previous[node]) {
    path.nodes.push_back(node);
  }
  std::reverse(path.nodes.begin(), path.nodes.end());
  return path;
}

}  // namespace

std::optional<Path> FewestHops(const Graph& graph, NodeIndex from, NodeIndex to,
                               std::uint64_t max_hops) {
  Search search(graph.size());
  std::deque<NodeIndex> frontier = {from};
  search.costs.at(from) = 0;
  while (!frontier.empty() && search.costs.at(to) == kFar) {
    const NodeIndex node = frontier.front();
    frontier.pop_front();
    // Nodes leave the queue in order of distance: all that follow are as far or farther.
    if (search.costs[node] >= max_hops) break;
    for (const Neighbour& neighbour : graph.Neighbours(node)) {
      if (search.costs[neighbour.node] != kFar) continue;
      search.costs[neighbour.node] = search.costs[node] + 1;
      search.previous[neighbour.node] = node;
      frontier.push_back(neighbour.node);
    }
  }
  return Trace(search, to);
}

std::optional<Path> StrongestPath(const Graph& graph, NodeIndex from, NodeIndex to) {
  using Entry = std::pair<std::uint64_t, NodeIndex>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>> frontier;
  Search search(graph.size());
  search.costs.at(from) = 0;
  frontier.emplace(0, from);
  while (!frontier.empty()) {
    const auto [cost, node] = frontier.top();
    frontier.pop();
    if (cost > search.costs[node]) continue;
    if (node == to) break;
    for (const Neighbour& neighbour : graph.Neighbours(node)) {
      const std::uint64_t step = static_cast<std::uint64_t>(kStrengthMax + 1 - neighbour.strength);
      if (cost + step >= search.costs[neighbour.node]) continue;
      search.costs[neighbour.node] = cost + step;
      search.previous[neighbour.node] = node;
      frontier.emplace(cost + step, neighbour.node);
    }
  }
  return Trace(search, to);
}

}  // namespace intelgraph
