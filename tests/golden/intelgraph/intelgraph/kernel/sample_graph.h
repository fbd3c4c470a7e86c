// Small graphs for tests, written as text: one `A B STRENGTH` per edge.

#ifndef INTELGRAPH_KERNEL_SAMPLE_GRAPH_H_
#define INTELGRAPH_KERNEL_SAMPLE_GRAPH_H_

#include <numeric>
#include <set>
#include <sstream>
#include <string>

#include "intelgraph/kernel/dataset.h"
#include "intelgraph/kernel/graph.h"

namespace intelgraph::testing {

// A data set whose entities are the names that occur in `edges`, none a duplicate of another.
inline Dataset SampleDataset(const std::string& edges) {
  std::set<std::string> names;
  std::string from;
  std::string to;
  int strength = 0;
  for (std::istringstream in(edges); in >> from >> to >> strength;) names.insert({from, to});
  Dataset dataset;
  for (const std::string& name : names) {
    Entity entity;
    entity.id = name;
    entity.name = name;
    dataset.entities.push_back(entity);
  }
  for (std::istringstream in(edges); in >> from >> to >> strength;) {
    Link link;
    link.id = "L" + std::to_string(dataset.links.size());
    link.from = dataset.Find(from);
    link.to = dataset.Find(to);
    link.strength = strength;
    dataset.links.push_back(link);
  }
  return dataset;
}

// The graph of a data set in which every entity is a node of its own.
inline Graph SampleGraph(const Dataset& dataset) {
  std::vector<std::size_t> alone(dataset.entities.size());
  std::iota(alone.begin(), alone.end(), std::size_t{0});
  return Graph(dataset, alone);
}

}  // namespace intelgraph::testing

#endif  // INTELGRAPH_KERNEL_SAMPLE_GRAPH_H_
