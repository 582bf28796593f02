#include "envelope/groups.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <span>

#include "sketches/weights.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// 2^power for an integer power; 0 below the normal numbers.
double two_to(double power) {
  const auto biased = static_cast<std::int64_t>(std::max(power, -1023.0)) + 1023;
  return std::bit_cast<double>(static_cast<std::uint64_t>(std::min<std::int64_t>(biased, 2046))
                               << 52);
}

double usual_of(const GroupTally& group) {
  return std::fmin(group.tally.max_log_ratio, group.M.log_M);
}

struct Gathered {
  alignas(64) double log_ratio[kBatchBlock];
  alignas(64) double fraction[kBatchBlock];
  alignas(64) double power[kBatchBlock];
  std::int64_t group[kBatchBlock];
};

// A row that is invalid, above M, or the largest so far.
void add_unusual(double log_ratio, double fraction, double power, GroupTally& group,
                 GroupLine& line) {
  Tally& tally = group.tally;
  ++tally.seen;
  if (!(log_ratio < kInfinity)) {
    ++tally.invalid;
    return;
  }
  if (log_ratio > tally.max_log_ratio) {
    line.flush(group);
    tally.raise_to(log_ratio);
    line.exponent = tally.exponent;
    line.usual = usual_of(group);
  }
  const double w = fraction * two_to(power - tally.exponent);
  tally.weight += w;
  tally.square += w * w;
  if (!group.M.decides()) return;
  ++tally.decided;
  tally.decided_weight += w;
  if (group.M.is_exceeded_by(log_ratio)) {
    ++tally.violations;
    tally.excess += std::max(w - group.M.in_units(tally.exponent), 0.0);
    tally.expected += 1.0;
  } else {
    tally.expected += group.M.over_M(w, tally.exponent);
  }
}

// Groups this many rows on are fetched meanwhile: they come from anywhere.
constexpr std::int64_t kAhead = 12;

void scatter(const Gathered& rows, std::int64_t count, Groups& groups, GroupRange& range) {
  const std::span<GroupLine> lines(groups.lines);
  double tail_threshold = range.tail.threshold();
  for (std::int64_t i = 0; i < count; ++i) {
    if (i + kAhead < count) {
      __builtin_prefetch(&lines[static_cast<std::size_t>(rows.group[i + kAhead])], 1, 3);
    }
    const auto id = static_cast<std::size_t>(rows.group[i]);
    GroupLine& line = lines[id];
    if (!line.touched) {
      groups.in_force(id);
      groups.tallies[id].begin_batch();
      line = GroupLine(groups.tallies[id], groups.tails[id]);
      line.touched = true;
      range.touched.push_back(rows.group[i]);
    }
    const double log_ratio = rows.log_ratio[i];
    if (log_ratio <= line.usual) {
      const double w = rows.fraction[i] * two_to(rows.power[i] - line.exponent);
      ++line.rows;
      line.weight += w;
      line.square += w * w;
    } else {
      add_unusual(log_ratio, rows.fraction[i], rows.power[i], groups.tallies[id], line);
      if (!(log_ratio < kInfinity)) continue;
    }
    if (log_ratio > line.tail_threshold) {
      Tail& tail = groups.tails[id];
      tail.add(log_ratio);
      line.tail_threshold = tail.threshold();
    }
    if (log_ratio > tail_threshold) {
      range.tail.add(log_ratio);
      tail_threshold = range.tail.threshold();
    }
  }
}

template <class Id>
std::int64_t gather(const Id* ids, const double* log_ratio, std::int64_t count, std::int64_t first,
                    std::int64_t last, Gathered& rows) {
  std::int64_t kept = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t id = ids[i];
    rows.group[kept] = id;
    rows.log_ratio[kept] = log_ratio[i];
    kept += id >= first && id < last ? 1 : 0;
  }
  return kept;
}

}  // namespace

GroupLine::GroupLine(const GroupTally& group, const Tail& tail)
    : exponent(group.tally.exponent), usual(usual_of(group)), tail_threshold(tail.threshold()) {}

void GroupLine::flush(GroupTally& group) {
  Tally& tally = group.tally;
  tally.seen += rows;
  tally.weight += weight;
  tally.square += square;
  if (group.M.decides()) {
    tally.decided += rows;
    tally.decided_weight += weight;
    tally.expected += group.M.over_M(weight, exponent);
  }
  rows = 0;
  weight = 0.0;
  square = 0.0;
}

const InForce& Groups::in_force(std::size_t group) {
  GroupTally& held = tallies[group];
  if (held.is_stale) held.M = InForce(policy->log_M(group, held.tally, tail_of(group)));
  held.is_stale = false;
  return held.M;
}

void accumulate(const Batch& batch, Groups& groups, GroupRange& range) {
  Gathered rows;
  alignas(64) double wide[kBatchBlock];
  const auto gather_from = [&](const auto* ids, std::int64_t count) {
    return gather(ids, wide, count, range.first, range.last, rows);
  };
  for (std::int64_t begin = 0; begin < batch.count; begin += kBatchBlock) {
    const std::int64_t count = std::min(kBatchBlock, batch.count - begin);
    load(batch, begin, count, wide);
    const std::int64_t kept =
        batch.ids_are_int32
            ? gather_from(static_cast<const std::int32_t*>(batch.group_ids) + begin, count)
            : gather_from(static_cast<const std::int64_t*>(batch.group_ids) + begin, count);
    split_weights(rows.log_ratio, kept, rows.fraction, rows.power);
    scatter(rows, kept, groups, range);
  }
}

}  // namespace rskernels
