// From rows to checked entities and links; see dataset.h.

#include "intelgraph/kernel/dataset.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "intelgraph/kernel/csv.h"

namespace intelgraph {
namespace {

constexpr EntityType kTypes[] = {EntityType::kAccount, EntityType::kDocument,
                                 EntityType::kOrganisation, EntityType::kPerson};

EntityType ParseType(const CsvTable& table, const CsvRow& row, const std::string& text) {
  for (const EntityType type : kTypes) {
    if (TypeName(type) == text) return type;
  }
  throw InputError(table.source, row.line, "`" + text + "` is not a type of entity");
}

int ParseStrength(const CsvTable& table, const CsvRow& row, const std::string& text) {
  int value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end || value < 1 || value > kStrengthMax) {
    throw InputError(table.source, row.line,
                     "strength `" + text + "` is not in 1.." + std::to_string(kStrengthMax));
  }
  return value;
}

void Require(const CsvTable& table, const CsvRow& row, std::string_view column,
             const std::string& value) {
  if (value.empty()) {
    throw InputError(table.source, row.line, std::string(column) + " is empty");
  }
}

std::vector<std::string> SplitAliases(std::string_view text) {
  std::vector<std::string> aliases;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(';'), text.size());
    if (end > 0) aliases.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return aliases;
}

Entity ParseEntity(const CsvTable& table, const CsvRow& row) {
  Entity entity;
  entity.id = row.fields.at(0);
  entity.type = ParseType(table, row, row.fields.at(1));
  entity.name = row.fields.at(2);
  entity.aliases = SplitAliases(row.fields.at(3));
  entity.date = row.fields.at(4);
  entity.place = row.fields.at(5);
  entity.source = row.fields.at(6);
  Require(table, row, "id", entity.id);
  Require(table, row, "name", entity.name);
  return entity;
}

std::size_t ParseEnd(const Dataset& dataset, const CsvTable& table, const CsvRow& row,
                     const std::string& id) {
  const std::size_t index = dataset.Find(id);
  if (index == dataset.entities.size()) {
    throw InputError(table.source, row.line, "no entity has the id `" + id + "`");
  }
  return index;
}

Link ParseLink(const Dataset& dataset, const CsvTable& table, const CsvRow& row) {
  Link link;
  link.id = row.fields.at(0);
  link.from = ParseEnd(dataset, table, row, row.fields.at(1));
  link.to = ParseEnd(dataset, table, row, row.fields.at(2));
  link.kind = row.fields.at(3);
  link.strength = ParseStrength(table, row, row.fields.at(4));
  link.date = row.fields.at(5);
  link.source = row.fields.at(6);
  Require(table, row, "id", link.id);
  Require(table, row, "kind", link.kind);
  if (link.from == link.to) {
    throw InputError(table.source, row.line, "a link from an entity to itself");
  }
  return link;
}

// Sorts rows by their first field, the id, and refuses two that are equal.
void SortById(CsvTable& table) {
  std::stable_sort(table.rows.begin(), table.rows.end(), [](const CsvRow& a, const CsvRow& b) {
    return a.fields.at(0) < b.fields.at(0);
  });
  for (std::size_t i = 1; i < table.rows.size(); ++i) {
    const std::string& id = table.rows[i].fields.at(0);
    if (id == table.rows[i - 1].fields.at(0)) {
      throw InputError(table.source, table.rows[i].line,
                       "id `" + id + "` stands on line " +
                           std::to_string(table.rows[i - 1].line) + " already");
    }
  }
}

}  // namespace

std::string_view TypeName(EntityType type) {
  switch (type) {
    case EntityType::kAccount:
      return "account";
    case EntityType::kDocument:
      return "document";
    case EntityType::kOrganisation:
      return "organisation";
    case EntityType::kPerson:
      return "person";
  }
  return "unknown";
}

std::size_t Dataset::Find(std::string_view id) const {
  const auto found =
      std::lower_bound(entities.begin(), entities.end(), id,
                       [](const Entity& entity, std::string_view key) { return entity.id < key; });
  if (found == entities.end() || found->id != id) return entities.size();
  return static_cast<std::size_t>(found - entities.begin());
}

Dataset ParseDataset(std::string_view entities_source, std::string_view entities_text,
                     std::string_view links_source, std::string_view links_text) {
  CsvTable entities = ParseCsv(entities_source, entities_text,
                               {"id", "type", "name", "aliases", "date", "place", "source"});
  CsvTable links = ParseCsv(links_source, links_text,
                            {"id", "from", "to", "kind", "strength", "date", "source"});
  SortById(entities);
  SortById(links);
  Dataset dataset;
  for (const CsvRow& row : entities.rows) {
    dataset.entities.push_back(ParseEntity(entities, row));
  }
  for (const CsvRow& row : links.rows) {
    dataset.links.push_back(ParseLink(dataset, links, row));
  }
  return dataset;
}

}  // namespace intelgraph
