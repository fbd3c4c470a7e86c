// The command line of `graph_tool`, parsed and checked.
//
//   graph_tool index --entities FILE --links FILE
//   graph_tool path  --entities FILE --links FILE --from ID --to ID
//                    [--by hops|strength] [--max-hops N]

#ifndef INTELGRAPH_KERNEL_OPTIONS_H_
#define INTELGRAPH_KERNEL_OPTIONS_H_

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace intelgraph {

inline constexpr std::uint64_t kHopsMax = 64;

// A command line that cannot be carried out.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Options {
  // `index` or `path`.
  std::string command;
  std::string entities;
  std::string links;
  std::string from;
  std::string to;
  // `hops` or `strength`.
  std::string measure = "hops";
  std::uint64_t max_hops = kHopsMax;
};

// Parses the arguments after the program's name. Throws UsageError.
Options ParseOptions(const std::vector<std::string>& arguments);

}  // namespace intelgraph

#endif  // INTELGRAPH_KERNEL_OPTIONS_H_
