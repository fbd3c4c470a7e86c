// Communities of graphs whose structure is plain to see.

#include "intelgraph/kernel/communities.h"

#include <string>

#include "intelgraph/kernel/sample_graph.h"
#include "intelgraph/kernel/testing.h"

namespace intelgraph {
namespace {

// The community of each node, in the order of their names.
std::string Communities(const char* edges) {
  const Dataset dataset = testing::SampleDataset(edges);
  std::string text;
  for (const std::size_t community : FindCommunities(testing::SampleGraph(dataset))) {
    text += std::to_string(community);
  }
  return text;
}

void TestStructure() {
  EXPECT_EQ(Communities(""), "");
  EXPECT_EQ(Communities("a b 50"), "00");
  // Two triangles and a bridge.
  EXPECT_EQ(Communities("a b 50  b c 50  a c 50  d e 50  e f 50  d f 50  c d 10"), "000111");
  // A clique of four comes before a pair, although the pair has the smaller nodes.
  EXPECT_EQ(Communities("a b 50  c d 50  c e 50  c f 50  d e 50  d f 50  e f 50"), "110000");
}

void TestWeights() {
  // The same ring twice; where the strong links lie decides.
  EXPECT_EQ(Communities("a b 90  b c 1  c d 90  d a 1"), "0011");
  EXPECT_EQ(Communities("a b 1  b c 90  c d 1  d a 90"), "0110");
}

void TestLevels() {
  // A ring of eight cliques of three: the first level finds the cliques, none of them is lost.
  std::string ring;
  for (char group = 'a'; group < 'i'; ++group) {
    const std::string name(1, group);
    const std::string next(1, group == 'h' ? 'a' : static_cast<char>(group + 1));
    ring += name + "1 " + name + "2 80 " + name + "2 " + name + "3 80 " + name + "1 " + name +
            "3 80 " + name + "3 " + next + "1 1 ";
  }
  EXPECT_EQ(Communities(ring.c_str()), "000111222333444555666777");
}

}  // namespace
}  // namespace intelgraph

int main() {
  intelgraph::TestStructure();
  intelgraph::TestWeights();
  intelgraph::TestLevels();
  return intelgraph::testing::Finish();
}
