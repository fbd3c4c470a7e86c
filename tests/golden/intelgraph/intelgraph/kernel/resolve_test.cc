// Which entities are taken for the same, and which are kept apart.

#include "intelgraph/kernel/resolve.h"

#include <string>
#include <utility>

#include "intelgraph/kernel/testing.h"

namespace intelgraph {
namespace {

Entity Make(EntityType type, std::string name, std::string date = "") {
  Entity entity;
  entity.type = type;
  entity.name = std::move(name);
  entity.date = std::move(date);
  return entity;
}

Entity Person(std::string name, std::string date = "") {
  return Make(EntityType::kPerson, std::move(name), std::move(date));
}

// The clusters as a list: `0 0 2` says that the first two entities are one.
std::string Clusters(const std::vector<Entity>& entities) {
  std::string list;
  for (const std::size_t cluster : ResolveEntities(entities)) {
    list += (list.empty() ? "" : " ") + std::to_string(cluster);
  }
  return list;
}

void TestPeople() {
  EXPECT_EQ(Clusters({}), "");
  EXPECT_EQ(Clusters({Person("Jonas Vale"), Person("Vale, Jonas"), Person("Ilse Brandt")}),
            "0 0 2");
  EXPECT_EQ(Clusters({Person("Jonas Vale", "1961"), Person("J. Vale", "1961-04-02")}), "0 0");
  // A misspelling alone is not enough; with the same date it is.
  EXPECT_EQ(Clusters({Person("Petra Lindqvist"), Person("Petra Lindkvst")}), "0 0");
  EXPECT_EQ(Clusters({Person("Odile Marsh"), Person("Odilie Mash")}), "0 0");
  EXPECT_EQ(Clusters({Person("Tomas Reed"), Person("Thora Read")}), "0 1");
}

void TestDatesKeepApart() {
  EXPECT_EQ(Clusters({Person("Jonas Vale", "1961"), Person("Jonas Vale", "1988")}), "0 1");
  // The undated row joins the first; it does not become a bridge to the second.
  EXPECT_EQ(Clusters({Person("Jonas Vale", "1961"), Person("J. Vale"),
                      Person("Johan Vale", "1988")}),
            "0 0 2");
}

void TestOrganisations() {
  const auto organisation = [](std::string name) {
    return Make(EntityType::kOrganisation, std::move(name));
  };
  EXPECT_EQ(Clusters({organisation("The Lantern Press Ltd."), organisation("Lantern Press")}),
            "0 0");
  EXPECT_EQ(Clusters({organisation("Harbour Choir"), organisation("Harbour Bakery")}), "0 1");
  // Nothing but fillers: compared as they stand.
  EXPECT_EQ(Clusters({organisation("The Company"), organisation("The Society")}), "0 1");
}

void TestTypesAndAliases() {
  EXPECT_EQ(Clusters({Person("Vale"), Make(EntityType::kOrganisation, "Vale")}), "0 1");
  const Entity account = Make(EntityType::kAccount, "Savings");
  EXPECT_EQ(Clusters({account, account}), "0 1");
  Entity married = Person("Ilse Okafor");
  married.aliases = {"Ilse Brandt"};
  EXPECT_EQ(Clusters({Person("Ilse Brandt"), married}), "0 0");
}

}  // namespace
}  // namespace intelgraph

int main() {
  intelgraph::TestPeople();
  intelgraph::TestDatesKeepApart();
  intelgraph::TestOrganisations();
  intelgraph::TestTypesAndAliases();
  return intelgraph::testing::Finish();
}
