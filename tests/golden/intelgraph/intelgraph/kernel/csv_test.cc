// What the CSV reader accepts, and the line that it names when it does not.

#include "intelgraph/kernel/csv.h"

#include <string>

#include "intelgraph/kernel/testing.h"

namespace intelgraph {
namespace {

// Parses a table of the columns `a,b` and joins its rows: `LINE:a|b;` each.
std::string Parsed(const std::string& text) {
  std::string joined;
  for (const CsvRow& row : ParseCsv("t.csv", text, {"a", "b"}).rows) {
    joined += std::to_string(row.line) + ":" + row.fields[0] + "|" + row.fields[1] + ";";
  }
  return joined;
}

std::string Refused(const std::string& text) {
  return testing::MessageOf<InputError>([&] { Parsed(text); });
}

void TestAccepted() {
  EXPECT_EQ(Parsed("a,b\n"), "");
  EXPECT_EQ(Parsed("a,b\n1,2\n"), "2:1|2;");
  EXPECT_EQ(Parsed("a,b\r\n1,2\r\n,\n"), "2:1|2;3:|;");
  EXPECT_EQ(Parsed("a,b\n\"x,y\",\"say \"\"hi\"\"\""), "2:x,y|say \"hi\";");
  EXPECT_EQ(Parsed("a,b\n\xc3\xa5,\xf0\x9f\x8e\xbb\n"), "2:\xc3\xa5|\xf0\x9f\x8e\xbb;");
}

void TestRefused() {
  EXPECT_EQ(Refused(""), "t.csv:1: an empty file: the header is missing");
  EXPECT_EQ(Refused("a,c\n"), "t.csv:1: the header is not `a,b`");
  EXPECT_EQ(Refused("a,b\n1,2\n1\n"), "t.csv:3: 1 fields where the header has 2");
  EXPECT_EQ(Refused("a,b\n1,2,3\n"), "t.csv:2: 3 fields where the header has 2");
  EXPECT_EQ(Refused("a,b\n\n"), "t.csv:2: 1 fields where the header has 2");
  EXPECT_EQ(Refused("a,b\n1,\"2\n"), "t.csv:2: a control character in a field");
  EXPECT_EQ(Refused("a,b\n1,\"2"), "t.csv:2: a quoted field that never ends");
  EXPECT_EQ(Refused("a,b\n\"1\"x,2\n"), "t.csv:2: text after a closing quote");
  EXPECT_EQ(Refused("a,b\n1\"x,2\n"), "t.csv:2: a quote inside a field that is not quoted");
  EXPECT_EQ(Refused("a,b\n1,2\rx\n"), "t.csv:2: a carriage return that ends no line");
  EXPECT_EQ(Refused(std::string("a,b\n1,\0\n", 8)), "t.csv:2: a control character in a field");
}

void TestUtf8() {
  EXPECT_EQ(Refused("a,b\n\xff,2\n"), "t.csv:2: a field that is not UTF-8");
  EXPECT_EQ(IsUtf8("\xc0\xaf"), false);          // Overlong.
  EXPECT_EQ(IsUtf8("\xed\xa0\x80"), false);      // A surrogate.
  EXPECT_EQ(IsUtf8("\xf4\x90\x80\x80"), false);  // Past U+10FFFF.
  EXPECT_EQ(IsUtf8("\xe2\x82"), false);          // Cut short.
  EXPECT_EQ(IsUtf8("\xe2\x82\xac"), true);
}

void TestLimits() {
  const std::string longest(kFieldBytesMax, 'x');
  EXPECT_EQ(Parsed("a,b\n" + longest + ",\n").size(), longest.size() + 4);
  EXPECT_EQ(Refused("a,b\n" + longest + "x,\n"), "t.csv:2: a field longer than 4096 bytes");
}

}  // namespace
}  // namespace intelgraph

int main() {
  intelgraph::TestAccepted();
  intelgraph::TestRefused();
  intelgraph::TestUtf8();
  intelgraph::TestLimits();
  return intelgraph::testing::Finish();
}
