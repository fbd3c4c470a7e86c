// The data set that the kernel works on: entities and the links between them.
//
// It is what ingestion writes (`entities.csv`, `links.csv`), checked again, since the kernel
// trusts no file. It knows nothing of duplicates: every row is an entity of its own here.
//
// Invariants: ids are unique and not empty; entities and links are sorted by id; both ends of a
// link exist and differ; strength lies in 1..kStrengthMax.

#ifndef INTELGRAPH_KERNEL_DATASET_H_
#define INTELGRAPH_KERNEL_DATASET_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace intelgraph {

inline constexpr int kStrengthMax = 100;

enum class EntityType { kAccount, kDocument, kOrganisation, kPerson };

// The name of a type as it stands in files.
std::string_view TypeName(EntityType type);

struct Entity {
  std::string id;
  EntityType type = EntityType::kPerson;
  std::string name;
  std::vector<std::string> aliases;
  // Birth, foundation, opening or issue: `YYYY`, `YYYY-MM-DD`, or empty where it is not known.
  std::string date;
  std::string place;
  // The id of the document that says so, or empty for a document.
  std::string source;
};

struct Link {
  std::string id;
  // Indices into Dataset::entities.
  std::size_t from = 0;
  std::size_t to = 0;
  std::string kind;
  // How well the link is attested, from 1 to kStrengthMax.
  int strength = 1;
  std::string date;
  std::string source;
};

struct Dataset {
  std::vector<Entity> entities;
  std::vector<Link> links;

  // The index of an entity, or `entities.size()` when there is none with that id.
  std::size_t Find(std::string_view id) const;
};

// Parses both tables; the names of the sources stand in errors. Throws InputError.
Dataset ParseDataset(std::string_view entities_source, std::string_view entities_text,
                     std::string_view links_source, std::string_view links_text);

}  // namespace intelgraph

#endif  // INTELGRAPH_KERNEL_DATASET_H_
