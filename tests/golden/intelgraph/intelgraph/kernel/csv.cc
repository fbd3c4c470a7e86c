// The CSV state machine; see csv.h for what it accepts.

#include "intelgraph/kernel/csv.h"

#include <cstdint>
#include <utility>

namespace intelgraph {
namespace {

std::string Describe(std::string_view source, std::size_t line, std::string_view message) {
  std::string text(source);
  text += ':';
  text += std::to_string(line);
  text += ": ";
  text += message;
  return text;
}

// Reads one row after the other from a text that it does not own.
class Reader {
 public:
  Reader(std::string_view source, std::string_view text) : source_(source), text_(text) {}

  bool AtEnd() const { return position_ == text_.size(); }
  std::size_t line() const { return line_; }

  // Reads the row at the cursor and the end of its line.
  CsvRow ReadRow() {
    CsvRow row;
    row.line = line_;
    while (true) {
      row.fields.push_back(Peek() == '"' ? ReadQuoted() : ReadPlain());
      if (Peek() != ',') break;
      ++position_;
    }
    EndLine();
    return row;
  }

  [[noreturn]] void Fail(std::size_t line, std::string_view message) const {
    throw InputError(source_, line, message);
  }

 private:
  // The byte at the cursor, or NUL at the end; a NUL in the text is refused by Append.
  char Peek() const { return AtEnd() ? '\0' : text_[position_]; }

  std::string ReadPlain() {
    std::string field;
    while (!AtEnd() && Peek() != ',' && Peek() != '\n' && Peek() != '\r') {
      if (Peek() == '"') Fail(line_, "a quote inside a field that is not quoted");
      Append(field);
    }
    return CheckUtf8(std::move(field));
  }

  std::string ReadQuoted() {
    const std::size_t start = line_;
    std::string field;
    ++position_;
    while (true) {
      if (AtEnd()) Fail(start, "a quoted field that never ends");
      if (Peek() == '"') {
        ++position_;
        if (Peek() != '"') break;
      }
      Append(field);
    }
    if (!AtEnd() && Peek() != ',' && Peek() != '\n' && Peek() != '\r') {
      Fail(line_, "text after a closing quote");
    }
    return CheckUtf8(std::move(field));
  }

  void Append(std::string& field) {
    const unsigned char byte = static_cast<unsigned char>(Peek());
    if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
      Fail(line_, "a control character in a field");
    }
    if (field.size() == kFieldBytesMax) {
      Fail(line_, "a field longer than " + std::to_string(kFieldBytesMax) + " bytes");
    }
    field += text_[position_++];
  }

  std::string CheckUtf8(std::string field) const {
    if (!IsUtf8(field)) Fail(line_, "a field that is not UTF-8");
    return field;
  }

  void EndLine() {
    if (AtEnd()) return;
    if (Peek() == '\r') ++position_;
    if (Peek() != '\n') Fail(line_, "a carriage return that ends no line");
    ++position_;
    ++line_;
  }

  std::string_view source_;
  std::string_view text_;
  std::size_t position_ = 0;
  std::size_t line_ = 1;
};

// How many bytes follow the first byte of a UTF-8 sequence, and the least code point that may be
// written so; `count` is negative for a byte that begins nothing.
struct Lead {
  int count;
  std::uint32_t bits;
  std::uint32_t least;
};

Lead ReadLead(unsigned char byte) {
  if (byte < 0x80) return {0, byte, 0};
  if ((byte & 0xe0) == 0xc0) return {1, byte & 0x1fu, 0x80};
  if ((byte & 0xf0) == 0xe0) return {2, byte & 0x0fu, 0x800};
  if ((byte & 0xf8) == 0xf0) return {3, byte & 0x07u, 0x10000};
  return {-1, 0, 0};
}

}  // namespace

InputError::InputError(std::string_view source, std::size_t line, std::string_view message)
    : std::runtime_error(Describe(source, line, message)), line_(line) {}

bool IsUtf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const Lead lead = ReadLead(static_cast<unsigned char>(text[i++]));
    if (lead.count < 0) return false;
    std::uint32_t code = lead.bits;
    for (int k = 0; k < lead.count; ++k) {
      if (i == text.size()) return false;
      const unsigned char next = static_cast<unsigned char>(text[i++]);
      if ((next & 0xc0) != 0x80) return false;
      code = (code << 6) | (next & 0x3fu);
    }
    const bool surrogate = code >= 0xd800 && code <= 0xdfff;
    if (code < lead.least || code > 0x10ffff || surrogate) return false;
  }
  return true;
}

CsvTable ParseCsv(std::string_view source, std::string_view text,
                  const std::vector<std::string>& header) {
  if (text.size() > kFileBytesMax) {
    throw InputError(source, 1, "more than " + std::to_string(kFileBytesMax) + " bytes");
  }
  Reader reader(source, text);
  if (reader.AtEnd()) reader.Fail(1, "an empty file: the header is missing");
  if (reader.ReadRow().fields != header) {
    std::string expected = "the header is not `";
    for (std::size_t i = 0; i < header.size(); ++i) expected += (i ? "," : "") + header[i];
    reader.Fail(1, expected + "`");
  }
  CsvTable table;
  table.source = source;
  while (!reader.AtEnd()) {
    CsvRow row = reader.ReadRow();
    if (row.fields.size() != header.size()) {
      reader.Fail(row.line, std::to_string(row.fields.size()) + " fields where the header has " +
                                std::to_string(header.size()));
    }
    if (table.rows.size() == kRowsMax) {
      reader.Fail(row.line, "more than " + std::to_string(kRowsMax) + " rows");
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace intelgraph
