// `graph_tool`: the graph kernel as a program. It reads the data set, answers one question on
// standard output as JSON, and ends.
//
// Exit codes: 0 answered (also when no path exists), 1 the data set or a file is at fault,
// 2 the command line is at fault, an unknown entity included.

#include <array>
#include <cstddef>
#include <exception>
#include <fstream>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "intelgraph/kernel/communities.h"
#include "intelgraph/kernel/csv.h"
#include "intelgraph/kernel/dataset.h"
#include "intelgraph/kernel/graph.h"
#include "intelgraph/kernel/options.h"
#include "intelgraph/kernel/paths.h"
#include "intelgraph/kernel/report.h"
#include "intelgraph/kernel/resolve.h"

namespace intelgraph {
namespace {

// Reads a file; stops past the limit, which the parser then refuses.
std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open `" + path + "`");
  std::string text;
  std::array<char, 65536> chunk;
  while (file && text.size() <= kFileBytesMax) {
    file.read(chunk.data(), chunk.size());
    text.append(chunk.data(), static_cast<std::size_t>(file.gcount()));
  }
  if (file.bad()) throw std::runtime_error("cannot read `" + path + "`");
  return text;
}

// The last part of a path: errors name the file, not where it lies on this machine.
std::string_view FileName(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

NodeIndex FindNode(const Dataset& dataset, const Graph& graph, const std::string& id) {
  const std::size_t entity = dataset.Find(id);
  if (entity == dataset.entities.size()) throw UsageError("no entity has the id `" + id + "`");
  return graph.NodeOf(entity);
}

std::string Answer(const Options& options) {
  const Dataset dataset =
      ParseDataset(FileName(options.entities), ReadFile(options.entities),
                   FileName(options.links), ReadFile(options.links));
  const Graph graph(dataset, ResolveEntities(dataset.entities));
  if (options.command == "index") return IndexReport(dataset, graph, FindCommunities(graph));

  const NodeIndex from = FindNode(dataset, graph, options.from);
  const NodeIndex to = FindNode(dataset, graph, options.to);
  const std::optional<Path> path = options.measure == "hops"
                                       ? FewestHops(graph, from, to, options.max_hops)
                                       : StrongestPath(graph, from, to);
  return PathReport(dataset, graph, options.measure, path);
}

}  // namespace
}  // namespace intelgraph

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
    std::cout << intelgraph::Answer(intelgraph::ParseOptions(arguments)) << std::flush;
    if (!std::cout) throw std::runtime_error("cannot write the answer");
    return 0;
  } catch (const intelgraph::UsageError& error) {
    std::cerr << "graph_tool: " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "graph_tool: " << error.what() << '\n';
    return 1;
  }
}
