// Layout and escaping of JSON; see json.h.

#include "intelgraph/kernel/json.h"

#include <cassert>
#include <utility>

namespace intelgraph {

void JsonWriter::BeginObject() { Open('{'); }
void JsonWriter::EndObject() { Close('}'); }
void JsonWriter::BeginArray() { Open('['); }
void JsonWriter::EndArray() { Close(']'); }

void JsonWriter::Key(std::string_view name) {
  Separate();
  Quote(name);
  text_ += ": ";
  after_key_ = true;
}

void JsonWriter::String(std::string_view value) {
  Separate();
  Quote(value);
}

void JsonWriter::Number(std::int64_t value) {
  Separate();
  text_ += std::to_string(value);
}

void JsonWriter::Bool(bool value) {
  Separate();
  text_ += value ? "true" : "false";
}

void JsonWriter::Field(std::string_view name, std::string_view value) {
  Key(name);
  String(value);
}

void JsonWriter::Field(std::string_view name, std::int64_t value) {
  Key(name);
  Number(value);
}

void JsonWriter::Strings(std::string_view name, const std::vector<std::string>& values) {
  Key(name);
  BeginArray();
  for (const std::string& value : values) String(value);
  EndArray();
}

std::string JsonWriter::Take() {
  assert(filled_.empty());
  text_ += '\n';
  return std::move(text_);
}

void JsonWriter::Separate() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (filled_.empty()) return;
  if (filled_.back()) text_ += ',';
  filled_.back() = true;
  text_ += '\n';
  text_.append(filled_.size(), ' ');
}

void JsonWriter::Open(char bracket) {
  Separate();
  text_ += bracket;
  filled_.push_back(false);
}

void JsonWriter::Close(char bracket) {
  assert(!filled_.empty());
  const bool filled = filled_.back();
  filled_.pop_back();
  if (filled) {
    text_ += '\n';
    text_.append(filled_.size(), ' ');
  }
  text_ += bracket;
}

void JsonWriter::Quote(std::string_view value) {
  constexpr std::string_view kHex = "0123456789abcdef";
  text_ += '"';
  for (const char symbol : value) {
    const unsigned char byte = static_cast<unsigned char>(symbol);
    if (byte == '"' || byte == '\\') {
      text_ += '\\';
      text_ += symbol;
    } else if (byte < 0x20 || byte == 0x7f) {
      text_ += "\\u00";
      text_ += kHex[byte >> 4];
      text_ += kHex[byte & 0x0f];
    } else {
      text_ += symbol;
    }
  }
  text_ += '"';
}

}  // namespace intelgraph
