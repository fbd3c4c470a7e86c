// Assertions for the kernel's tests: each failure prints file, line and both values, and the
// program goes on to the next; `Finish` gives the exit code.
//
// No registration, no fixtures: a test program is a `main` that calls its cases.

#ifndef INTELGRAPH_KERNEL_TESTING_H_
#define INTELGRAPH_KERNEL_TESTING_H_

#include <iostream>
#include <string>

namespace intelgraph::testing {

// How many assertions held and how many did not.
struct Tally {
  int passed = 0;
  int failed = 0;
};

inline Tally& GlobalTally() {
  static Tally tally;
  return tally;
}

template <typename Actual, typename Expected>
void ExpectEqual(const Actual& actual, const Expected& expected, const char* text,
                 const char* file, int line) {
  if (actual == expected) {
    ++GlobalTally().passed;
    return;
  }
  ++GlobalTally().failed;
  std::cerr << file << ':' << line << ": " << text << "\n  is        " << actual
            << "\n  should be " << expected << '\n';
}

// The message of the `Error` that `action` throws, or `nothing was thrown`.
template <typename Error, typename Action>
std::string MessageOf(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

// Prints the tally; a program that checked nothing has failed.
inline int Finish() {
  const Tally& tally = GlobalTally();
  std::cerr << tally.passed << " passed, " << tally.failed << " failed\n";
  return tally.failed == 0 && tally.passed > 0 ? 0 : 1;
}

}  // namespace intelgraph::testing

#define EXPECT_EQ(actual, expected) \
  ::intelgraph::testing::ExpectEqual((actual), (expected), #actual, __FILE__, __LINE__)

#endif  // INTELGRAPH_KERNEL_TESTING_H_
