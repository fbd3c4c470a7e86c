// A strict reader of comma-separated values (RFC 4180) from memory.
//
// It knows nothing of entities or links: it turns text into rows of fields and names the line of
// whatever is wrong. Not a streaming reader, and no dialects: the separator is a comma, the quote
// is a double quote, lines end in LF or CRLF.
//
// Invariants: every row has as many fields as the header; no field is longer than
// kFieldBytesMax; a control character other than a tab, or text that is not UTF-8, is refused.

#ifndef INTELGRAPH_KERNEL_CSV_H_
#define INTELGRAPH_KERNEL_CSV_H_

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace intelgraph {

// Limits on what is read; beyond them the input is refused, never cut.
inline constexpr std::size_t kFileBytesMax = std::size_t{64} << 20;
inline constexpr std::size_t kFieldBytesMax = 4096;
inline constexpr std::size_t kRowsMax = 1'000'000;

// What is wrong with a table, and where. `what()` reads `SOURCE:LINE: MESSAGE`.
class InputError : public std::runtime_error {
 public:
  InputError(std::string_view source, std::size_t line, std::string_view message);

  // The line, counted from 1.
  std::size_t line() const { return line_; }

 private:
  std::size_t line_;
};

// One row and the line that it begins on.
struct CsvRow {
  std::size_t line = 0;
  std::vector<std::string> fields;
};

// A table whose header has been checked.
struct CsvTable {
  std::string source;
  std::vector<CsvRow> rows;
};

// Parses `text` as a table that has exactly the columns `header`. `source` names the text in
// errors. Throws InputError.
CsvTable ParseCsv(std::string_view source, std::string_view text,
                  const std::vector<std::string>& header);

// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates).
bool IsUtf8(std::string_view text);

}  // namespace intelgraph

#endif  // INTELGRAPH_KERNEL_CSV_H_
