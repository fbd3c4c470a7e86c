// The checks on a data set, each with the line that it names.

#include "intelgraph/kernel/dataset.h"

#include <string>

#include "intelgraph/kernel/csv.h"
#include "intelgraph/kernel/testing.h"

namespace intelgraph {
namespace {

const std::string kEntities =
    "id,type,name,aliases,date,place,source\n"
    "P2,person,Ilse Brandt,Ilse;I. B.;,1970,Marn,D1\n"
    "P1,person,Jonas Vale,,,,D1\n";
const std::string kLinkHeader = "id,from,to,kind,strength,date,source\n";

std::string Refused(const std::string& entities, const std::string& links) {
  return testing::MessageOf<InputError>([&] { ParseDataset("e", entities, "l", links); });
}

void TestAccepted() {
  const Dataset dataset =
      ParseDataset("e", kEntities, "l", kLinkHeader + "L1,P2,P1,knows,100,2001-05-06,D1\n");
  EXPECT_EQ(dataset.entities.size(), std::size_t{2});
  EXPECT_EQ(dataset.entities[0].id, "P1");
  EXPECT_EQ(dataset.entities[1].aliases.size(), std::size_t{2});
  EXPECT_EQ(dataset.links[0].from, std::size_t{1});
  EXPECT_EQ(dataset.links[0].strength, 100);
  EXPECT_EQ(dataset.Find("P3"), dataset.entities.size());
}

void TestEntitiesRefused() {
  EXPECT_EQ(Refused(kEntities + "P1,person,X,,,,\n", kLinkHeader),
            "e:4: id `P1` stands on line 3 already");
  EXPECT_EQ(Refused(kEntities + "P3,ghost,X,,,,\n", kLinkHeader),
            "e:4: `ghost` is not a type of entity");
  EXPECT_EQ(Refused(kEntities + "P3,person,,,,,\n", kLinkHeader), "e:4: name is empty");
  EXPECT_EQ(Refused(kEntities + ",person,X,,,,\n", kLinkHeader), "e:4: id is empty");
}

void TestLinksRefused() {
  const auto refused = [](const std::string& row) { return Refused(kEntities, kLinkHeader + row); };
  EXPECT_EQ(refused("L1,P1,P9,knows,5,,\n"), "l:2: no entity has the id `P9`");
  EXPECT_EQ(refused("L1,P1,P1,knows,5,,\n"), "l:2: a link from an entity to itself");
  EXPECT_EQ(refused("L1,P1,P2,knows,0,,\n"), "l:2: strength `0` is not in 1..100");
  EXPECT_EQ(refused("L1,P1,P2,knows,101,,\n"), "l:2: strength `101` is not in 1..100");
  EXPECT_EQ(refused("L1,P1,P2,knows,5x,,\n"), "l:2: strength `5x` is not in 1..100");
  EXPECT_EQ(refused("L1,P1,P2,,5,,\n"), "l:2: kind is empty");
}

}  // namespace
}  // namespace intelgraph

int main() {
  intelgraph::TestAccepted();
  intelgraph::TestEntitiesRefused();
  intelgraph::TestLinksRefused();
  return intelgraph::testing::Finish();
}
