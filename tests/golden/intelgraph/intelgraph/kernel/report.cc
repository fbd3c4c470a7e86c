// Rendering of the index and of paths; see report.h.

#include "intelgraph/kernel/report.h"

#include <algorithm>
#include <cstdint>
#include <set>

#include "intelgraph/kernel/json.h"

namespace intelgraph {
namespace {

std::int64_t Signed(std::size_t value) { return static_cast<std::int64_t>(value); }

const Entity& Representative(const Dataset& dataset, const Graph& graph, NodeIndex node) {
  return dataset.entities.at(graph.Members(node).front());
}

// Every name and alias of a node's members but the representative's own name.
std::vector<std::string> OtherNames(const Dataset& dataset, const Graph& graph, NodeIndex node) {
  std::set<std::string> names;
  for (const std::size_t member : graph.Members(node)) {
    const Entity& entity = dataset.entities.at(member);
    names.insert(entity.name);
    names.insert(entity.aliases.begin(), entity.aliases.end());
  }
  names.erase(Representative(dataset, graph, node).name);
  return {names.begin(), names.end()};
}

// The longest value that a member has for a field, the first of equals: the most precise one.
std::string MostPrecise(const Dataset& dataset, const Graph& graph, NodeIndex node,
                        std::string Entity::*field) {
  std::string best;
  for (const std::size_t member : graph.Members(node)) {
    const std::string& value = dataset.entities.at(member).*field;
    if (value.size() > best.size()) best = value;
  }
  return best;
}

void WriteNode(JsonWriter& json, const Dataset& dataset, const Graph& graph, NodeIndex node,
               std::size_t community) {
  const Entity& representative = Representative(dataset, graph, node);
  json.BeginObject();
  json.Field("id", representative.id);
  json.Field("type", TypeName(representative.type));
  json.Field("name", representative.name);
  json.Strings("aliases", OtherNames(dataset, graph, node));
  json.Field("date", MostPrecise(dataset, graph, node, &Entity::date));
  json.Field("place", MostPrecise(dataset, graph, node, &Entity::place));
  json.Field("community", Signed(community));
  json.Field("degree", Signed(graph.Neighbours(node).size()));
  json.Key("members");
  json.BeginArray();
  for (const std::size_t member : graph.Members(node)) {
    const Entity& entity = dataset.entities.at(member);
    json.BeginObject();
    json.Field("id", entity.id);
    json.Field("name", entity.name);
    json.Field("source", entity.source);
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
}

void WriteEdge(JsonWriter& json, const Dataset& dataset, const Graph& graph, NodeIndex from,
               const Neighbour& neighbour) {
  std::vector<std::string> links;
  for (const std::size_t link : neighbour.links) links.push_back(dataset.links.at(link).id);
  json.BeginObject();
  json.Field("from", Representative(dataset, graph, from).id);
  json.Field("to", Representative(dataset, graph, neighbour.node).id);
  json.Field("strength", neighbour.strength);
  json.Strings("links", links);
  json.EndObject();
}

void WriteLink(JsonWriter& json, const Dataset& dataset, const Graph& graph, const Link& link) {
  json.BeginObject();
  json.Field("id", link.id);
  json.Field("from", Representative(dataset, graph, graph.NodeOf(link.from)).id);
  json.Field("to", Representative(dataset, graph, graph.NodeOf(link.to)).id);
  json.Field("kind", link.kind);
  json.Field("strength", link.strength);
  json.Field("date", link.date);
  json.Field("source", link.source);
  json.EndObject();
}

// Writes every edge once, from its smaller node; returns how many there are.
std::size_t WriteEdges(JsonWriter& json, const Dataset& dataset, const Graph& graph) {
  std::size_t count = 0;
  json.Key("edges");
  json.BeginArray();
  for (NodeIndex node = 0; node < graph.size(); ++node) {
    for (const Neighbour& neighbour : graph.Neighbours(node)) {
      if (neighbour.node < node) continue;
      WriteEdge(json, dataset, graph, node, neighbour);
      ++count;
    }
  }
  json.EndArray();
  return count;
}

// Communities with their members; each is named after its best-connected node that is not a
// document, or its best-connected node.
std::size_t WriteCommunities(JsonWriter& json, const Dataset& dataset, const Graph& graph,
                             const std::vector<std::size_t>& communities) {
  std::vector<std::vector<NodeIndex>> groups;
  for (NodeIndex node = 0; node < communities.size(); ++node) {
    if (groups.size() <= communities[node]) groups.resize(communities[node] + 1);
    groups[communities[node]].push_back(node);
  }
  json.Key("communities");
  json.BeginArray();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const auto weight = [&](NodeIndex node) {
      const bool document =
          Representative(dataset, graph, node).type == EntityType::kDocument;
      return std::pair(!document, graph.Neighbours(node).size());
    };
    const NodeIndex centre =
        *std::max_element(groups[i].begin(), groups[i].end(),
                          [&](NodeIndex a, NodeIndex b) { return weight(a) < weight(b); });
    std::vector<std::string> members;
    for (const NodeIndex node : groups[i]) {
      members.push_back(Representative(dataset, graph, node).id);
    }
    json.BeginObject();
    json.Field("id", Signed(i));
    json.Field("name", Representative(dataset, graph, centre).name);
    json.Strings("members", members);
    json.EndObject();
  }
  json.EndArray();
  return groups.size();
}

// The edge from one node to another; paths only name edges that exist.
const Neighbour& EdgeBetween(const Graph& graph, NodeIndex from, NodeIndex to) {
  const std::vector<Neighbour>& list = graph.Neighbours(from);
  return *std::find_if(list.begin(), list.end(),
                       [&](const Neighbour& neighbour) { return neighbour.node == to; });
}

}  // namespace

std::string IndexReport(const Dataset& dataset, const Graph& graph,
                        const std::vector<std::size_t>& communities) {
  JsonWriter json;
  json.BeginObject();
  json.Key("nodes");
  json.BeginArray();
  for (NodeIndex node = 0; node < graph.size(); ++node) {
    WriteNode(json, dataset, graph, node, communities.at(node));
  }
  json.EndArray();
  const std::size_t edges = WriteEdges(json, dataset, graph);
  json.Key("links");
  json.BeginArray();
  for (const Link& link : dataset.links) WriteLink(json, dataset, graph, link);
  json.EndArray();
  const std::size_t groups = WriteCommunities(json, dataset, graph, communities);
  json.Key("stats");
  json.BeginObject();
  json.Field("communities", Signed(groups));
  json.Field("edges", Signed(edges));
  json.Field("entities", Signed(dataset.entities.size()));
  json.Field("links", Signed(dataset.links.size()));
  json.Field("nodes", Signed(graph.size()));
  json.EndObject();
  json.EndObject();
  return json.Take();
}

std::string PathReport(const Dataset& dataset, const Graph& graph, std::string_view measure,
                       const std::optional<Path>& path) {
  const Path route = path.value_or(Path{});
  std::vector<std::string> ids;
  for (const NodeIndex node : route.nodes) {
    ids.push_back(Representative(dataset, graph, node).id);
  }
  JsonWriter json;
  json.BeginObject();
  json.Key("found");
  json.Bool(path.has_value());
  json.Field("by", measure);
  json.Field("cost", static_cast<std::int64_t>(route.cost));
  json.Strings("nodes", ids);
  json.Key("edges");
  json.BeginArray();
  for (std::size_t i = 1; i < route.nodes.size(); ++i) {
    const NodeIndex from = route.nodes[i - 1];
    WriteEdge(json, dataset, graph, from, EdgeBetween(graph, from, route.nodes[i]));
  }
  json.EndArray();
  json.EndObject();
  return json.Take();
}

}  // namespace intelgraph
