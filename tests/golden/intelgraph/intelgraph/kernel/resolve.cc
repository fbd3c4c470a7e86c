// Blocking, scoring and clustering; see resolve.h.

#include "intelgraph/kernel/resolve.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "intelgraph/kernel/text.h"
#include "intelgraph/kernel/union_find.h"

namespace intelgraph {
namespace {

constexpr std::size_t kBlockPrefix = 3;

// Words that say what an organisation is, not which one.
constexpr std::string_view kFillers[] = {"and",     "association", "co",  "company", "inc",
                                         "limited", "ltd",         "of",  "society", "the"};

bool IsFiller(std::string_view token) {
  return std::find(std::begin(kFillers), std::end(kFillers), token) != std::end(kFillers);
}

// The name in the form that is compared; the whole of it where nothing but fillers would stay.
std::string ComparableName(EntityType type, std::string_view name) {
  const std::string folded = FoldName(name);
  if (type != EntityType::kOrganisation) return folded;
  std::string kept;
  for (const std::string& token : SortedTokens(folded)) {
    if (IsFiller(token)) continue;
    if (!kept.empty()) kept += ' ';
    kept += token;
  }
  return kept.empty() ? folded : kept;
}

std::vector<std::string> ComparableNames(const Entity& entity) {
  std::vector<std::string> names = {ComparableName(entity.type, entity.name)};
  for (const std::string& alias : entity.aliases) {
    names.push_back(ComparableName(entity.type, alias));
  }
  return names;
}

// Whether one of two dates says no more than the other: equal, a year and a day in it, or unknown.
bool DatesAgree(std::string_view a, std::string_view b) {
  const std::size_t length = std::min(a.size(), b.size());
  return a.substr(0, length) == b.substr(0, length);
}

using Names = std::vector<std::vector<std::string>>;
using Pair = std::pair<std::size_t, std::size_t>;

// Every pair of entities that is worth comparing, each once, the smaller index first.
std::set<Pair> Candidates(const std::vector<Entity>& entities, const Names& names) {
  std::map<std::pair<EntityType, std::string>, std::vector<std::size_t>> blocks;
  for (std::size_t i = 0; i < entities.size(); ++i) {
    const EntityType type = entities[i].type;
    if (type != EntityType::kPerson && type != EntityType::kOrganisation) continue;
    for (const std::string& name : names[i]) {
      for (const std::string& token : SortedTokens(name)) {
        if (token.size() > 1) blocks[{type, token.substr(0, kBlockPrefix)}].push_back(i);
      }
    }
  }
  std::set<Pair> pairs;
  for (auto& [key, block] : blocks) {
    std::sort(block.begin(), block.end());
    block.erase(std::unique(block.begin(), block.end()), block.end());
    // By name, so that the window of a large block holds neighbours.
    std::stable_sort(block.begin(), block.end(), [&](std::size_t a, std::size_t b) {
      return names[a].front() < names[b].front();
    });
    for (std::size_t i = 0; i < block.size(); ++i) {
      const std::size_t end = std::min(block.size(), i + kBlockWindow);
      for (std::size_t j = i + 1; j < end; ++j) pairs.insert(std::minmax(block[i], block[j]));
    }
  }
  return pairs;
}

double BestLikeness(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  double best = 0.0;
  for (const std::string& left : a) {
    for (const std::string& right : b) best = std::max(best, NameLikeness(left, right));
  }
  return best;
}

struct Match {
  double likeness;
  Pair pair;
};

// The pairs that are alike enough, best first; ties by index, so that the order is total.
std::vector<Match> Matches(const std::vector<Entity>& entities, const Names& names) {
  std::vector<Match> matches;
  for (const Pair& pair : Candidates(entities, names)) {
    const Entity& a = entities[pair.first];
    const Entity& b = entities[pair.second];
    if (!DatesAgree(a.date, b.date)) continue;
    const bool dated = !a.date.empty() && !b.date.empty();
    const double likeness = BestLikeness(names[pair.first], names[pair.second]);
    if (likeness >= (dated ? kLikenessWithDate : kLikenessAlone)) {
      matches.push_back({likeness, pair});
    }
  }
  std::sort(matches.begin(), matches.end(), [](const Match& a, const Match& b) {
    return std::tie(b.likeness, a.pair) < std::tie(a.likeness, b.pair);
  });
  return matches;
}

}  // namespace

std::vector<std::size_t> ResolveEntities(const std::vector<Entity>& entities) {
  Names names;
  names.reserve(entities.size());
  for (const Entity& entity : entities) names.push_back(ComparableNames(entity));

  UnionFind sets(entities.size());
  // The most precise date known of each cluster, at its representative.
  std::vector<std::string> dates;
  for (const Entity& entity : entities) dates.push_back(entity.date);
  for (const Match& match : Matches(entities, names)) {
    const std::string a = dates[sets.Find(match.pair.first)];
    const std::string b = dates[sets.Find(match.pair.second)];
    if (!DatesAgree(a, b)) continue;
    sets.Union(match.pair.first, match.pair.second);
    dates[sets.Find(match.pair.first)] = a.size() >= b.size() ? a : b;
  }

  std::vector<std::size_t> clusters(entities.size());
  for (std::size_t i = 0; i < entities.size(); ++i) clusters[i] = sets.Find(i);
  return clusters;
}

}  // namespace intelgraph
