// Entity resolution: which rows of the data set speak of the same person or organisation.
//
// Three steps: *blocking* (only entities that share the beginning of a name's word are compared),
// *similarity* (NameLikeness over all names and aliases), *clustering* (union-find, best pairs
// first). A cluster never holds two different dates or types: where a name alone would join them,
// the date keeps them apart. Accounts and documents are identified by their id and never joined.

#ifndef INTELGRAPH_KERNEL_RESOLVE_H_
#define INTELGRAPH_KERNEL_RESOLVE_H_

#include <cstddef>
#include <vector>

#include "intelgraph/kernel/dataset.h"

namespace intelgraph {

// Likeness from which names are taken to be the same: lower where a date agrees as well.
inline constexpr double kLikenessWithDate = 0.86;
inline constexpr double kLikenessAlone = 0.94;

// A block beyond this size is compared in a sliding window of it, so that the work stays linear.
inline constexpr std::size_t kBlockWindow = 64;

// Maps each entity to the index of its cluster's smallest member (itself when it is alone).
std::vector<std::size_t> ResolveEntities(const std::vector<Entity>& entities);

}  // namespace intelgraph

#endif  // INTELGRAPH_KERNEL_RESOLVE_H_
