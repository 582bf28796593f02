#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "envelope/accumulate.hpp"
#include "sketches/tail.hpp"
#include "sketches/tally.hpp"

namespace rskernels {

struct GroupTally {
  Tally tally;
  InForce M;
  // M is still to be made of what has been seen: that takes long for some policies.
  bool is_stale = true;
  // Of the tally before the batch at hand.
  std::int64_t decided_before = 0;
  std::int64_t violations_before = 0;
  double expected_before = 0.0;

  void remember() {
    decided_before = tally.decided;
    violations_before = tally.violations;
    expected_before = tally.expected;
  }
};

// What the batch at hand adds to one of many groups, and what its rows are compared with: a cache
// line a row, where a tally is three.
struct alignas(64) GroupLine {
  double exponent = 0.0;  // of the unit of the sums
  // Ratios up to it are valid, no violation and no new maximum.
  double usual = 0.0;
  double tail_threshold = 0.0;
  double weight = 0.0;
  double square = 0.0;
  std::int64_t rows = 0;
  bool touched = false;

  GroupLine() = default;
  GroupLine(const GroupTally& group, const Tail* tail);

  // Adds what it holds to the group.
  void flush(GroupTally& group);
};

// Adds the rows of a batch whose groups are in [first, last), in row order, and lists those groups,
// whose lines are yet to be flushed. Each is first shown to `meet`, which brings M and line up to
// date. `tails` may be empty; `tail` takes the ratios of all of them.
void accumulate(const Batch& batch, std::int64_t first, std::int64_t last,
                const std::function<void(std::size_t)>& meet, std::span<GroupTally> groups,
                std::span<GroupLine> lines, std::span<Tail> tails, Tail& tail,
                std::vector<std::int64_t>& touched);

}  // namespace rskernels
