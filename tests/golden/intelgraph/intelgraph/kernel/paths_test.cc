// Shortest paths over small graphs: both measures, limits, ties, and what is not connected.

#include "intelgraph/kernel/paths.h"

#include <string>

#include "intelgraph/kernel/sample_graph.h"
#include "intelgraph/kernel/testing.h"

namespace intelgraph {
namespace {

constexpr std::uint64_t kAnyLength = 64;

// A short cut of hearsay beside a detour that is well attested, and an island.
const char kGraph[] =
    "a b 10  b e 10  "
    "a c 95  c d 95  d e 95  "
    "x y 50";

std::string Render(const Dataset& dataset, const std::optional<Path>& path) {
  if (!path) return "none";
  std::string text;
  for (const NodeIndex node : path->nodes) text += dataset.entities[node].id;
  return text + " " + std::to_string(path->cost);
}

std::string Hops(const char* edges, const char* from, const char* to,
                 std::uint64_t max_hops = kAnyLength) {
  const Dataset dataset = testing::SampleDataset(edges);
  const Graph graph = testing::SampleGraph(dataset);
  return Render(dataset, FewestHops(graph, dataset.Find(from), dataset.Find(to), max_hops));
}

std::string Strongest(const char* edges, const char* from, const char* to) {
  const Dataset dataset = testing::SampleDataset(edges);
  const Graph graph = testing::SampleGraph(dataset);
  return Render(dataset, StrongestPath(graph, dataset.Find(from), dataset.Find(to)));
}

void TestHops() {
  EXPECT_EQ(Hops(kGraph, "a", "e"), "abe 2");
  EXPECT_EQ(Hops(kGraph, "e", "a"), "eba 2");
  EXPECT_EQ(Hops(kGraph, "a", "a"), "a 0");
  EXPECT_EQ(Hops(kGraph, "a", "x"), "none");
  // Of two equal paths, the one through the smaller node.
  EXPECT_EQ(Hops("a c 1  a b 1  b d 1  c d 1", "a", "d"), "abd 2");
}

void TestHopLimit() {
  EXPECT_EQ(Hops(kGraph, "a", "e", 2), "abe 2");
  EXPECT_EQ(Hops(kGraph, "a", "e", 1), "none");
  EXPECT_EQ(Hops(kGraph, "a", "b", 1), "ab 1");
}

void TestStrength() {
  EXPECT_EQ(Strongest(kGraph, "a", "e"), "acde 18");
  EXPECT_EQ(Strongest(kGraph, "a", "b"), "ab 91");
  EXPECT_EQ(Strongest(kGraph, "y", "y"), "y 0");
  EXPECT_EQ(Strongest(kGraph, "a", "y"), "none");
  // The best of parallel links counts.
  EXPECT_EQ(Strongest("a b 10  a b 90  a b 50", "a", "b"), "ab 11");
}

}  // namespace
}  // namespace intelgraph

int main() {
  intelgraph::TestHops();
  intelgraph::TestHopLimit();
  intelgraph::TestStrength();
  return intelgraph::testing::Finish();
}
