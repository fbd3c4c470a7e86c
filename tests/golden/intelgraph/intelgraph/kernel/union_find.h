// Disjoint sets over 0..n, whose representative is the smallest member.
//
// Path halving without ranks: the smallest-member rule matters more here than the last bit of
// speed, since it makes the outcome independent of the order of unions.

#ifndef INTELGRAPH_KERNEL_UNION_FIND_H_
#define INTELGRAPH_KERNEL_UNION_FIND_H_

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

namespace intelgraph {

class UnionFind {
 public:
  explicit UnionFind(std::size_t count) : parents_(count) {
    std::iota(parents_.begin(), parents_.end(), std::size_t{0});
  }

  // The representative of the set that holds `item`.
  std::size_t Find(std::size_t item) {
    while (parents_[item] != item) {
      parents_[item] = parents_[parents_[item]];
      item = parents_[item];
    }
    return item;
  }

  // Joins the sets of both items; false when they were one already.
  bool Union(std::size_t a, std::size_t b) {
    const std::size_t root_a = Find(a);
    const std::size_t root_b = Find(b);
    if (root_a == root_b) return false;
    parents_[std::max(root_a, root_b)] = std::min(root_a, root_b);
    return true;
  }

 private:
  std::vector<std::size_t> parents_;
};

}  // namespace intelgraph

#endif  // INTELGRAPH_KERNEL_UNION_FIND_H_
