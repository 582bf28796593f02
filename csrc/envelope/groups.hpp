#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "envelope/accumulate.hpp"
#include "policies/policy.hpp"
#include "sketches/tail.hpp"
#include "sketches/tally.hpp"

namespace rskernels {

// The tally of a group, and the M that its next rows meet.
struct GroupTally {
  Tally tally;
  InForce M;
  // M is still to be made of what has been seen: that takes long for some policies.
  bool is_stale = true;
  // The counts and sums of the tally as they were before the batch at hand.
  std::int64_t decided_before = 0;
  std::int64_t violations_before = 0;
  double expected_before = 0.0;

  // Notes the counts and sums of now as those before a batch.
  void begin_batch() {
    decided_before = tally.decided;
    violations_before = tally.violations;
    expected_before = tally.expected;
  }
};

// What the batch at hand adds to one of many groups, and what its rows are compared with: a cache
// line a row, where a tally is three.
struct alignas(64) GroupLine {
  // The exponent of the unit of the sums.
  double exponent = 0.0;
  // Ratios up to it are valid, no violation and no new maximum.
  double usual = 0.0;
  double tail_threshold = 0.0;
  double weight = 0.0;
  double square = 0.0;
  std::int64_t rows = 0;
  bool touched = false;

  GroupLine() = default;
  GroupLine(const GroupTally& group, const Tail& tail);

  // Adds what it holds to the group.
  void flush(GroupTally& group);
};

// What an envelope holds of its groups.
struct Groups {
  std::vector<GroupTally> tallies;
  // Both empty where there is a single group.
  std::vector<GroupLine> lines;
  std::vector<Tail> tails;  // without room where there are many groups
  // The largest ratios of all groups.
  Tail tail;
  std::unique_ptr<Policy> policy;
  // The same object as `policy`; null if that does not read rows.
  RowPolicy* row_policy = nullptr;

  std::size_t count() const { return tallies.size(); }
  const Tail& tail_of(std::size_t group) const { return tails.empty() ? tail : tails[group]; }
  // Returns the M of a group with all that it has seen; makes it if it is stale.
  const InForce& in_force(std::size_t group);
};

// The groups [first, last) as one thread adds a batch to them.
struct GroupRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
  // The largest ratios of all of them.
  Tail tail;
  // The groups that had rows, in the order of their first ones; their lines are yet to be flushed.
  std::vector<std::int64_t> touched;
};

// Adds the rows of a batch whose groups lie in the range, in row order, each against the M that its
// group has at the batch's first row of it. Ranges that do not overlap may be added at once.
void accumulate(const Batch& batch, Groups& groups, GroupRange& range);

}  // namespace rskernels
