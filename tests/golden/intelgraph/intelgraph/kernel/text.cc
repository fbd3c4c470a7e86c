// Folding tables and likeness measures; see text.h.

#include "intelgraph/kernel/text.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace intelgraph {
namespace {

// Base letters of U+00C0..U+00FF; a space stands for a sign that is no letter.
constexpr std::string_view kLatin1 =
    "aaaaaaaceeeeiiiidnooooo ouuuuytsaaaaaaaceeeeiiiidnooooo ouuuuyty";
static_assert(kLatin1.size() == 64);

// Base letters of U+0100..U+017F.
constexpr std::string_view kExtendedA =
    "aaaaaaccccccccddddeeeeeeeeeegggggggghhhhiiiiiiiiiiiijjkkkllllllllllnnnnnnnnnoooooo"
    "oorrrrrrssssssssttttttuuuuuuuuuuuuwwyyyzzzzzzs";
static_assert(kExtendedA.size() == 128);

constexpr bool IsAsciiWord(unsigned char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9');
}

// Folds the two-byte sequence `lead next` to a letter, a space, or NUL when it has no entry.
char FoldPair(unsigned char lead, unsigned char next) {
  const unsigned code = ((lead & 0x1fu) << 6) | (next & 0x3fu);
  if (code >= 0xc0 && code < 0x100) return kLatin1[code - 0xc0];
  if (code >= 0x100 && code < 0x180) return kExtendedA[code - 0x100];
  return code < 0xc0 ? ' ' : '\0';
}

// Appends a space unless the name would begin with it or have two in a row.
void AppendSpace(std::string& folded) {
  if (!folded.empty() && folded.back() != ' ') folded += ' ';
}

struct JaroCounts {
  std::size_t matches = 0;
  std::size_t transpositions = 0;
};

JaroCounts CountMatches(std::string_view a, std::string_view b) {
  const std::size_t longer = std::max(a.size(), b.size());
  const std::size_t window = longer < 4 ? 0 : longer / 2 - 1;
  std::vector<bool> used(b.size(), false);
  std::string matched_a;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const std::size_t low = i > window ? i - window : 0;
    const std::size_t high = std::min(b.size(), i + window + 1);
    for (std::size_t j = low; j < high; ++j) {
      if (used[j] || a[i] != b[j]) continue;
      used[j] = true;
      matched_a += a[i];
      break;
    }
  }
  JaroCounts counts;
  counts.matches = matched_a.size();
  std::size_t k = 0;
  for (std::size_t j = 0; j < b.size(); ++j) {
    if (used[j] && b[j] != matched_a[k++]) ++counts.transpositions;
  }
  return counts;
}

std::string Join(const std::vector<std::string>& tokens) {
  std::string joined;
  for (const std::string& token : tokens) {
    if (!joined.empty()) joined += ' ';
    joined += token;
  }
  return joined;
}

// Replaces each lone initial of `tokens` by the first word of `others` that it begins and that
// `tokens` does not hold itself.
std::vector<std::string> ExpandInitials(std::vector<std::string> tokens,
                                        const std::vector<std::string>& others) {
  for (std::string& token : tokens) {
    if (token.size() != 1) continue;
    for (const std::string& word : others) {
      const bool begins = word.size() > 1 && word.front() == token.front();
      if (!begins || std::count(tokens.begin(), tokens.end(), word) != 0) continue;
      token = word;
      break;
    }
  }
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

}  // namespace

std::string FoldName(std::string_view name) {
  std::string folded;
  for (std::size_t i = 0; i < name.size(); ++i) {
    unsigned char byte = static_cast<unsigned char>(name[i]);
    if (byte >= 'A' && byte <= 'Z') byte = static_cast<unsigned char>(byte - 'A' + 'a');
    if (IsAsciiWord(byte)) {
      folded += static_cast<char>(byte);
    } else if (byte == '\'') {
      continue;  // O'Hara is one word.
    } else if (byte < 0x80) {
      AppendSpace(folded);
    } else if ((byte & 0xe0) == 0xc0 && i + 1 < name.size()) {
      const char letter = FoldPair(byte, static_cast<unsigned char>(name[i + 1]));
      if (letter == ' ') {
        AppendSpace(folded);
      } else if (letter != '\0') {
        folded += letter;
      } else {
        folded.append(name.substr(i, 2));
      }
      ++i;
    } else {
      folded += static_cast<char>(byte);
    }
  }
  while (!folded.empty() && folded.back() == ' ') folded.pop_back();
  return folded;
}

std::vector<std::string> SortedTokens(std::string_view folded) {
  std::vector<std::string> tokens;
  std::size_t begin = 0;
  while (begin < folded.size()) {
    const std::size_t end = std::min(folded.find(' ', begin), folded.size());
    if (end > begin) tokens.emplace_back(folded.substr(begin, end - begin));
    begin = end + 1;
  }
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

double JaroWinkler(std::string_view a, std::string_view b) {
  if (a == b) return 1.0;
  if (a.empty() || b.empty()) return 0.0;
  const JaroCounts counts = CountMatches(a, b);
  if (counts.matches == 0) return 0.0;
  const double matches = static_cast<double>(counts.matches);
  const double halved = static_cast<double>(counts.transpositions / 2);
  const double jaro = (matches / static_cast<double>(a.size()) +
                       matches / static_cast<double>(b.size()) + (matches - halved) / matches) /
                      3.0;
  const std::size_t limit = std::min<std::size_t>({4, a.size(), b.size()});
  std::size_t prefix = 0;
  while (prefix < limit && a[prefix] == b[prefix]) ++prefix;
  return jaro + static_cast<double>(prefix) * 0.1 * (1.0 - jaro);
}

double TokenJaccard(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  std::vector<std::string> both;
  std::vector<std::string> either;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(either));
  if (either.empty()) return 0.0;
  return static_cast<double>(both.size()) / static_cast<double>(either.size());
}

double NameLikeness(std::string_view a, std::string_view b) {
  const std::vector<std::string> plain_a = SortedTokens(FoldName(a));
  const std::vector<std::string> plain_b = SortedTokens(FoldName(b));
  if (plain_a.empty() || plain_b.empty()) return 0.0;
  const std::vector<std::string> tokens_a = ExpandInitials(plain_a, plain_b);
  const std::vector<std::string> tokens_b = ExpandInitials(plain_b, plain_a);
  return std::max(JaroWinkler(Join(tokens_a), Join(tokens_b)), TokenJaccard(tokens_a, tokens_b));
}

}  // namespace intelgraph
