// A writer of JSON text: enough to print results, nothing to read them.
//
// Members stand in the order of the calls, so that equal results are equal bytes. The writer puts
// commas and indentation; whoever calls it balances Begin and End (checked by assert).

#ifndef INTELGRAPH_KERNEL_JSON_H_
#define INTELGRAPH_KERNEL_JSON_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace intelgraph {

class JsonWriter {
 public:
  void BeginObject();
  void EndObject();
  void BeginArray();
  void EndArray();

  // The name of the next member of the object that is open.
  void Key(std::string_view name);

  void String(std::string_view value);
  void Number(std::int64_t value);
  void Bool(bool value);

  // A member in one call.
  void Field(std::string_view name, std::string_view value);
  void Field(std::string_view name, std::int64_t value);

  // A member that is a list of strings.
  void Strings(std::string_view name, const std::vector<std::string>& values);

  // The text so far, with a line feed at its end. Call it once, when everything is closed.
  std::string Take();

 private:
  void Separate();
  void Open(char bracket);
  void Close(char bracket);
  void Quote(std::string_view value);

  std::string text_;
  // One entry per open bracket: whether it holds anything yet.
  std::vector<bool> filled_;
  bool after_key_ = false;
};

}  // namespace intelgraph

#endif  // INTELGRAPH_KERNEL_JSON_H_
