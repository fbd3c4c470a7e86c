// Folding and likeness of names, against values worked out by hand.

#include "intelgraph/kernel/text.h"

#include <cmath>

#include "intelgraph/kernel/testing.h"

namespace intelgraph {
namespace {

// A likeness in thousandths, so that it prints and compares as a whole number.
long Thousandths(double likeness) { return std::lround(likeness * 1000.0); }

void TestFolding() {
  EXPECT_EQ(FoldName("  \xc3\x85ngstr\xc3\xb6m, \xc3\x85se "), "angstrom ase");
  EXPECT_EQ(FoldName("O'Hara-Smith & Co."), "ohara smith co");
  EXPECT_EQ(FoldName("\xc5\x81\xc3\xb3" "d\xc5\xba"), "lodz");
  EXPECT_EQ(FoldName("..."), "");
  EXPECT_EQ(FoldName("\xd0\x98\xd0\xb2\xd0\xb0\xd0\xbd"), "\xd0\x98\xd0\xb2\xd0\xb0\xd0\xbd");
  EXPECT_EQ(FoldName("Pier 7"), "pier 7");
}

void TestJaroWinkler() {
  // Winkler's own examples.
  EXPECT_EQ(Thousandths(JaroWinkler("martha", "marhta")), 961);
  EXPECT_EQ(Thousandths(JaroWinkler("dwayne", "duane")), 840);
  EXPECT_EQ(Thousandths(JaroWinkler("dixon", "dicksonx")), 813);
  EXPECT_EQ(Thousandths(JaroWinkler("same", "same")), 1000);
  EXPECT_EQ(Thousandths(JaroWinkler("abc", "xyz")), 0);
  EXPECT_EQ(Thousandths(JaroWinkler("", "x")), 0);
}

void TestJaccard() {
  EXPECT_EQ(Thousandths(TokenJaccard({"a", "b"}, {"b", "c"})), 333);
  EXPECT_EQ(Thousandths(TokenJaccard({"a", "b"}, {"a", "b"})), 1000);
  EXPECT_EQ(Thousandths(TokenJaccard({}, {})), 0);
}

void TestNames() {
  EXPECT_EQ(Thousandths(NameLikeness("Vale, Jonas", "Jonas Vale")), 1000);
  EXPECT_EQ(Thousandths(NameLikeness("J. Vale", "Jonas Vale")), 1000);
  EXPECT_EQ(Thousandths(NameLikeness("J. Vale", "Petra Vale")) < 940, true);
  EXPECT_EQ(Thousandths(NameLikeness("", "Jonas Vale")), 0);
}

}  // namespace
}  // namespace intelgraph

int main() {
  intelgraph::TestFolding();
  intelgraph::TestJaroWinkler();
  intelgraph::TestJaccard();
  intelgraph::TestNames();
  return intelgraph::testing::Finish();
}
