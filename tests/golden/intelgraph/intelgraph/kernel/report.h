// Results as JSON: what `graph_tool` prints and the service reads.
//
// Ids in a report are those of representatives, the entity with the smallest id of each cluster.
// Everything is sorted, so that an unchanged data set gives unchanged bytes.

#ifndef INTELGRAPH_KERNEL_REPORT_H_
#define INTELGRAPH_KERNEL_REPORT_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "intelgraph/kernel/dataset.h"
#include "intelgraph/kernel/graph.h"
#include "intelgraph/kernel/paths.h"

namespace intelgraph {

// The whole resolved graph: `{"nodes", "edges", "links", "communities", "stats"}`.
std::string IndexReport(const Dataset& dataset, const Graph& graph,
                        const std::vector<std::size_t>& communities);

// One path: `{"found", "by", "cost", "nodes", "edges"}`; the lists are empty when there is none.
std::string PathReport(const Dataset& dataset, const Graph& graph, std::string_view measure,
                       const std::optional<Path>& path);

}  // namespace intelgraph

#endif  // INTELGRAPH_KERNEL_REPORT_H_
