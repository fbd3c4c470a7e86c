// Names as they are compared: folding, tokens, and two measures of likeness.
//
// Pure functions of their arguments; no locale is ever read, so that the same names compare alike
// on every machine. Folding covers Latin letters (Latin-1 and Latin Extended-A); others pass
// through unchanged.

#ifndef INTELGRAPH_KERNEL_TEXT_H_
#define INTELGRAPH_KERNEL_TEXT_H_

#include <string>
#include <string_view>
#include <vector>

namespace intelgraph {

// Folds a name: lower case, diacritics removed, punctuation to single spaces, trimmed.
// `"  Ångström, Åse "` becomes `angstrom ase`.
std::string FoldName(std::string_view name);

// Splits a folded name at spaces and sorts the parts, so that word order does not matter.
std::vector<std::string> SortedTokens(std::string_view folded);

// Jaro-Winkler likeness of two strings by bytes, from 0 (nothing alike) to 1 (equal), with
// Winkler's prefix weight of 0.1 over at most four bytes.
double JaroWinkler(std::string_view a, std::string_view b);

// The share of distinct tokens that both lists hold, from 0 to 1. Both must be sorted.
double TokenJaccard(const std::vector<std::string>& a, const std::vector<std::string>& b);

// Likeness of two names as entity resolution sees it: the larger of Jaro-Winkler over sorted
// tokens and token Jaccard; a lone initial counts as the word that it begins.
double NameLikeness(std::string_view a, std::string_view b);

}  // namespace intelgraph

#endif  // INTELGRAPH_KERNEL_TEXT_H_
