// The Louvain method on integer weights; see communities.h.

#include "intelgraph/kernel/communities.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <tuple>

namespace intelgraph {
namespace {

// Each pass raises modularity, so the loops end by themselves; these bound them all the same.
constexpr int kPassesMax = 64;
constexpr int kLevelsMax = 32;

using Community = std::size_t;

// A weighted graph of one level. `edges[i]` leaves out `i` itself; `loops[i]` is the weight inside
// it, counted from both sides.
struct Level {
  std::vector<std::map<std::size_t, std::int64_t>> edges;
  std::vector<std::int64_t> loops;

  std::int64_t Degree(std::size_t node) const {
    std::int64_t degree = loops[node];
    for (const auto& [other, weight] : edges[node]) degree += weight;
    return degree;
  }
};

Level FirstLevel(const Graph& graph) {
  Level level;
  level.edges.resize(graph.size());
  level.loops.assign(graph.size(), 0);
  for (NodeIndex node = 0; node < graph.size(); ++node) {
    for (const Neighbour& neighbour : graph.Neighbours(node)) {
      level.edges[node][neighbour.node] = neighbour.strength;
    }
  }
  return level;
}

// Moves single nodes of a level until none gains by moving.
class Mover {
 public:
  explicit Mover(const Level& level) : level_(level), assigned_(level.edges.size()) {
    std::iota(assigned_.begin(), assigned_.end(), Community{0});
    for (std::size_t node = 0; node < assigned_.size(); ++node) {
      degrees_.push_back(level.Degree(node));
      total_ += degrees_.back();
    }
    sums_ = degrees_;
  }

  std::vector<Community> Run() {
    for (int pass = 0; pass < kPassesMax; ++pass) {
      bool moved = false;
      for (std::size_t node = 0; node < assigned_.size(); ++node) moved |= Move(node);
      if (!moved) break;
    }
    return assigned_;
  }

 private:
  // Modularity gained by putting `node` into `community`, times the square of the total weight.
  std::int64_t Gain(std::size_t node, Community community, std::int64_t shared) const {
    return shared * total_ - sums_[community] * degrees_[node];
  }

  bool Move(std::size_t node) {
    const Community home = assigned_[node];
    std::map<Community, std::int64_t> shared = {{home, 0}};
    for (const auto& [other, weight] : level_.edges[node]) shared[assigned_[other]] += weight;

    sums_[home] -= degrees_[node];
    Community best = home;
    std::int64_t best_gain = Gain(node, home, shared[home]);
    for (const auto& [community, weight] : shared) {
      const std::int64_t gain = Gain(node, community, weight);
      if (gain > best_gain) std::tie(best, best_gain) = std::tie(community, gain);
    }
    sums_[best] += degrees_[node];
    assigned_[node] = best;
    return best != home;
  }

  const Level& level_;
  std::vector<Community> assigned_;
  std::vector<std::int64_t> degrees_;
  // The degrees of each community's members, summed.
  std::vector<std::int64_t> sums_;
  std::int64_t total_ = 0;
};

// Renumbers communities from 0 in the order of their first node; returns how many there are.
std::size_t Renumber(std::vector<Community>& assigned) {
  std::map<Community, Community> numbers;
  for (Community& community : assigned) {
    community = numbers.try_emplace(community, numbers.size()).first->second;
  }
  return numbers.size();
}

// Makes each community of a level a node of the next.
Level Aggregate(const Level& level, const std::vector<Community>& assigned, std::size_t count) {
  Level next;
  next.edges.resize(count);
  next.loops.assign(count, 0);
  for (std::size_t node = 0; node < assigned.size(); ++node) {
    const Community here = assigned[node];
    next.loops[here] += level.loops[node];
    for (const auto& [other, weight] : level.edges[node]) {
      if (assigned[other] == here) {
        next.loops[here] += weight;
      } else {
        next.edges[here][assigned[other]] += weight;
      }
    }
  }
  return next;
}

// Numbers communities by size, largest first, then by their first node.
void SortBySize(std::vector<Community>& assigned, std::size_t count) {
  std::vector<std::size_t> sizes(count, 0);
  for (const Community community : assigned) ++sizes[community];
  std::vector<Community> order(count);
  std::iota(order.begin(), order.end(), Community{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](Community a, Community b) { return sizes[a] > sizes[b]; });
  std::vector<Community> rank(count);
  for (std::size_t i = 0; i < count; ++i) rank[order[i]] = i;
  for (Community& community : assigned) community = rank[community];
}

}  // namespace

std::vector<std::size_t> FindCommunities(const Graph& graph) {
  std::vector<Community> result(graph.size());
  std::iota(result.begin(), result.end(), Community{0});
  Level level = FirstLevel(graph);
  std::size_t count = graph.size();
  for (int round = 0; round < kLevelsMax; ++round) {
    std::vector<Community> assigned = Mover(level).Run();
    const std::size_t merged = Renumber(assigned);
    for (Community& community : result) community = assigned[community];
    if (merged == count) break;
    level = Aggregate(level, assigned, merged);
    count = merged;
  }
  count = Renumber(result);
  SortBySize(result, count);
  return result;
}

}  // namespace intelgraph
