// Flags and their checks; see options.h.

#include "intelgraph/kernel/options.h"

#include <charconv>
#include <map>

namespace intelgraph {
namespace {

std::uint64_t ParseHops(const std::string& text) {
  std::uint64_t hops = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, hops);
  if (error != std::errc() || rest != end || hops < 1 || hops > kHopsMax) {
    throw UsageError("`--max-hops` is not in 1.." + std::to_string(kHopsMax));
  }
  return hops;
}

void Require(const std::string& value, const std::string& flag) {
  if (value.empty()) throw UsageError("`" + flag + "` is missing");
}

}  // namespace

Options ParseOptions(const std::vector<std::string>& arguments) {
  if (arguments.empty()) throw UsageError("no command: `index` or `path`");
  Options options;
  options.command = arguments.front();
  const bool path = options.command == "path";
  if (!path && options.command != "index") {
    throw UsageError("no command is named `" + options.command + "`");
  }
  std::string hops;
  std::map<std::string, std::string*> flags = {{"--entities", &options.entities},
                                               {"--links", &options.links}};
  if (path) {
    flags.insert({{"--from", &options.from},
                  {"--to", &options.to},
                  {"--by", &options.measure},
                  {"--max-hops", &hops}});
  }
  for (std::size_t i = 1; i < arguments.size(); i += 2) {
    const auto flag = flags.find(arguments[i]);
    if (flag == flags.end()) throw UsageError("`" + arguments[i] + "` is not an option here");
    if (i + 1 == arguments.size()) throw UsageError("`" + arguments[i] + "` needs a value");
    *flag->second = arguments[i + 1];
  }
  Require(options.entities, "--entities");
  Require(options.links, "--links");
  if (path) {
    Require(options.from, "--from");
    Require(options.to, "--to");
    if (!hops.empty()) options.max_hops = ParseHops(hops);
    if (options.measure != "hops" && options.measure != "strength") {
      throw UsageError("`--by` is neither `hops` nor `strength`");
    }
  }
  return options;
}

}  // namespace intelgraph
