#include "envelope/envelope.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "envelope/leave_one_out.hpp"
#include "sketches/pareto.hpp"
#include "sketches/weights.hpp"
#include "threads/subnormals.hpp"
#include "threads/thread_pool.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Ratios held for the shape of the tail: of all groups together, and shared out among them.
constexpr std::size_t kTailRatios = 4096;
constexpr std::size_t kSharedRatios = std::size_t{1} << 20;
// Fewer a group tell no shape.
constexpr std::size_t kFewestRatios = 16;
// The rows of a chunk do not depend on the threads, so that sums do not.
constexpr std::int64_t kChunkRows = std::int64_t{1} << 16;

std::size_t tail_capacity(std::size_t groups) {
  const std::size_t share = std::min(kTailRatios, kSharedRatios / groups);
  return share < kFewestRatios ? 0 : share;
}

}  // namespace

Groups Envelope::make_groups() const {
  Groups groups;
  const auto count = static_cast<std::size_t>(options_.groups);
  groups.tallies.resize(count);
  groups.tail = Tail(kTailRatios);
  if (count > 1) {
    // The policy tail makes M of the tails themselves.
    const bool decides = std::holds_alternative<TailOptions>(options_.policy);
    groups.lines.resize(count);
    groups.tails.assign(count, Tail(decides ? kTailRatios : tail_capacity(count)));
  }
  groups.policy = make_policy_(options_);
  groups.row_policy = dynamic_cast<RowPolicy*>(groups.policy.get());
  return groups;
}

Envelope::Envelope(const EnvelopeOptions& options, PolicyMaker make)
    : options_(options), make_policy_(make) {
  check_options(options);
  groups_ = make_groups();
}

void Envelope::check_shape(const Batch& batch) const {
  if (batch.group_ids == nullptr && options_.groups > 1 && batch.count > 0) {
    throw std::invalid_argument("an envelope of " + std::to_string(options_.groups) +
                                " groups needs the group of every row");
  }
}

std::int64_t Envelope::update(const Batch& batch, int threads) {
  const KeepSubnormals keep;
  check_shape(batch);
  check_group_ids(batch, options_.groups, threads);
  const std::lock_guard lock(mutex_);
  if (batch.count == 0) return 0;
  std::vector<double> left_out;
  const bool leaves_out = std::holds_alternative<LeaveOneOutOptions>(options_.policy);
  if (leaves_out) {
    left_out = leave_one_out(batch, history());
    // What each row met is told row by row, below.
    for (std::int64_t row = 0; row < batch.count; ++row) {
      GroupTally& group = groups_.tallies[static_cast<std::size_t>(batch.group(row))];
      group.M = InForce();
      group.is_stale = false;
    }
  }
  std::vector<std::int64_t> touched;
  if (options_.groups > 1) {
    add_grouped(batch, threads, touched);
  } else {
    groups_.tallies[0].begin_batch();
    touched.push_back(0);
    add_single(batch, threads);
  }
  if (leaves_out) add_left_out(batch, left_out);
  if (groups_.row_policy != nullptr) show_policy(batch);

  std::int64_t violations = 0;
  // Only what the batch touches: a walk over all the groups would cost more than most batches.
  for (const std::int64_t id : touched) {
    const auto g = static_cast<std::size_t>(id);
    GroupTally& group = groups_.tallies[g];
    violations += group.tally.violations - group.violations_before;
    if (groups_.row_policy != nullptr) {
      groups_.row_policy->end_batch(g,
                                    static_cast<double>(group.tally.decided - group.decided_before),
                                    group.tally.expected - group.expected_before);
    }
    group.is_stale = true;
  }
  return violations;
}

void Envelope::add_single(const Batch& batch, int threads) {
  const std::int64_t chunks = (batch.count + kChunkRows - 1) / kChunkRows;
  std::vector<Tally> tallies(static_cast<std::size_t>(chunks));
  const InForce M = groups_.in_force(0);
  // One a thread, handed from chunk to chunk: the more a tail has seen, the less it takes in.
  std::vector<Tail> others(
      static_cast<std::size_t>(std::clamp<std::int64_t>(threads, 1, chunks)) - 1,
      Tail(kTailRatios, groups_.tail.threshold()));
  std::vector<Tail*> idle;
  for (Tail& other : others) idle.push_back(&other);
  idle.push_back(&groups_.tail);
  // What can fail has been done before anything is taken in.
  for (Tail* tail : idle) tail->make_room();
  std::mutex mutex;
  ThreadPool::instance().parallel_for(chunks, 1, threads, [&](std::int64_t chunk, std::int64_t) {
    Tail* tail;
    {
      const std::lock_guard lock(mutex);
      tail = idle.back();
      idle.pop_back();
    }
    accumulate(batch, chunk * kChunkRows, std::min((chunk + 1) * kChunkRows, batch.count), M,
               tallies[static_cast<std::size_t>(chunk)], *tail);
    const std::lock_guard lock(mutex);
    idle.push_back(tail);
  });
  for (const Tally& tally : tallies) groups_.tallies[0].tally.merge(tally);
  for (const Tail& tail : others) groups_.tail.merge(tail);
}

// A thread owns the groups of a range and reads every id: rows are added in their order, whatever
// the threads, and no group is held twice.
void Envelope::add_grouped(const Batch& batch, int threads, std::vector<std::int64_t>& touched) {
  const std::int64_t owners = std::clamp<std::int64_t>(
      std::min<std::int64_t>(batch.count / kChunkRows, options_.groups), 1, threads);
  std::vector<GroupRange> ranges;
  for (std::int64_t owner = 0; owner < owners; ++owner) {
    ranges.push_back({.first = options_.groups * owner / owners,
                      .last = options_.groups * (owner + 1) / owners,
                      .tail = Tail(kTailRatios, groups_.tail.threshold()),
                      .touched = {}});
  }
  ThreadPool::instance().parallel_for(owners, 1, threads, [&](std::int64_t owner, std::int64_t) {
    accumulate(batch, groups_, ranges[static_cast<std::size_t>(owner)]);
  });
  for (const GroupRange& range : ranges) {
    for (const std::int64_t id : range.touched) {
      const auto group = static_cast<std::size_t>(id);
      groups_.lines[group].flush(groups_.tallies[group]);
      groups_.lines[group].touched = false;
    }
    touched.insert(touched.end(), range.touched.begin(), range.touched.end());
    groups_.tail.merge(range.tail);
  }
}

void Envelope::add_left_out(const Batch& batch, std::span<const double> log_M) {
  double log_ratio[kBatchBlock];
  for (std::int64_t begin = 0; begin < batch.count; begin += kBatchBlock) {
    const std::int64_t count = std::min(kBatchBlock, batch.count - begin);
    load(batch, begin, count, log_ratio);
    for (std::int64_t i = 0; i < count; ++i) {
      const InForce M(log_M[static_cast<std::size_t>(begin + i)]);
      if (!(log_ratio[i] < kInfinity) || !M.decides()) continue;
      Tally& tally = groups_.tallies[static_cast<std::size_t>(batch.group(begin + i))].tally;
      ++tally.decided;
      // One unit of a weight is the M of the ratio itself.
      const InForce own(log_ratio[i]);
      const double weight = own.decides() ? own.in_units(tally.exponent) : 0.0;
      tally.decided_weight += weight;
      if (M.is_exceeded_by(log_ratio[i])) {
        ++tally.violations;
        tally.excess += std::max(weight - M.in_units(tally.exponent), 0.0);
        tally.expected += 1.0;
      } else {
        tally.expected += M.over_M(own.decides() ? own.in_units(own.exponent) : 0.0, own.exponent);
      }
    }
  }
}

void Envelope::show_policy(const Batch& batch) {
  double log_ratio[kBatchBlock];
  for (std::int64_t begin = 0; begin < batch.count; begin += kBatchBlock) {
    const std::int64_t count = std::min(kBatchBlock, batch.count - begin);
    load(batch, begin, count, log_ratio);
    if (options_.groups == 1) {
      const auto end = std::remove_if(log_ratio, log_ratio + count,
                                      [](double ratio) { return !(ratio < kInfinity); });
      groups_.row_policy->observe(0, {log_ratio, end});
      continue;
    }
    for (std::int64_t i = 0; i < count; ++i) {
      if (!(log_ratio[i] < kInfinity)) continue;
      groups_.row_policy->observe(static_cast<std::size_t>(batch.group(begin + i)),
                                  {log_ratio + i, 1});
    }
  }
}

void Envelope::observe(std::span<const bool> accepted, const Batch& batch) {
  check_shape(batch);
  check_group_ids(batch, options_.groups, 1);
  const std::lock_guard lock(mutex_);
  for (std::size_t row = 0; row < accepted.size(); ++row) {
    const auto group = static_cast<std::size_t>(batch.group(static_cast<std::int64_t>(row)));
    Tally& tally = groups_.tallies[group].tally;
    ++tally.observed;
    tally.accepted += accepted[row] ? 1 : 0;
  }
}

void Envelope::merge_rest(Groups& groups, const Groups& other) {
  for (std::size_t g = 0; g < groups.tails.size(); ++g) groups.tails[g].merge(other.tails[g]);
  groups.tail.merge(other.tail);
  if (groups.row_policy != nullptr) groups.row_policy->merge(*other.row_policy);
}

void Envelope::merge(const Envelope& other) {
  const KeepSubnormals keep;
  if (!(options_ == other.options_)) {
    throw std::invalid_argument("envelopes with different options cannot be merged");
  }
  // A copy first: two locks held at once could deadlock, and an envelope may be merged with itself.
  Envelope theirs(other.options_, other.make_policy_);
  theirs.restore(other.state());
  const std::lock_guard lock(mutex_);
  RowLimit rows;
  for (std::size_t g = 0; g < groups_.tallies.size(); ++g) {
    rows.add(groups_.tallies[g].tally, g);
    rows.add(theirs.groups_.tallies[g].tally, g);
  }
  for (std::size_t g = 0; g < groups_.tallies.size(); ++g) {
    groups_.tallies[g].tally.merge(theirs.groups_.tallies[g].tally);
    groups_.tallies[g].is_stale = true;
  }
  merge_rest(groups_, theirs.groups_);
}

std::vector<double> Envelope::checked(std::vector<double> values) const {
  const auto is_known = [](double log_M) { return !std::isnan(log_M); };
  if (values.empty() || std::any_of(values.begin(), values.end(), is_known)) return values;
  const std::size_t groups = groups_.tallies.size();
  for (std::size_t g = 0; g < groups; ++g) {
    if (is_known(groups_.in_force(g).log_M)) return values;
  }
  for (std::size_t g = 0; g < groups; ++g) {
    groups_.policy->check_finite(g, groups_.tallies[g].tally, groups_.tail_of(g));
  }
  return values;
}

std::vector<double> Envelope::history() const {
  std::vector<double> values(groups_.tallies.size());
  for (std::size_t g = 0; g < values.size(); ++g) values[g] = groups_.in_force(g).log_M;
  return values;
}

std::vector<double> Envelope::log_M() const {
  const KeepSubnormals keep;
  const std::lock_guard lock(mutex_);
  return checked(history());
}

std::vector<double> Envelope::log_M(const Batch& batch) const {
  const KeepSubnormals keep;
  check_shape(batch);
  check_group_ids(batch, options_.groups, 1);
  const std::lock_guard lock(mutex_);
  if (std::holds_alternative<LeaveOneOutOptions>(options_.policy) && batch.log_ratio != nullptr) {
    return leave_one_out(batch, history());
  }
  std::vector<double> values(static_cast<std::size_t>(batch.count));
  for (std::size_t row = 0; row < values.size(); ++row) {
    const auto group = static_cast<std::size_t>(batch.group(static_cast<std::int64_t>(row)));
    values[row] = groups_.in_force(group).log_M;
  }
  return checked(std::move(values));
}

std::pair<std::size_t, std::size_t> Envelope::tail_capacities() const {
  const std::lock_guard lock(mutex_);
  return {groups_.tail.capacity(), groups_.tails.empty() ? 0 : groups_.tails.front().capacity()};
}

std::vector<Tally> Envelope::tallies() const {
  const std::lock_guard lock(mutex_);
  std::vector<Tally> values;
  for (const GroupTally& group : groups_.tallies) values.push_back(group.tally);
  return values;
}

EnvelopeReport Envelope::report() const {
  const KeepSubnormals keep;
  const std::lock_guard lock(mutex_);
  EnvelopeReport report;
  for (std::size_t g = 0; g < groups_.tallies.size(); ++g) {
    const Tally& tally = groups_.tallies[g].tally;
    report.groups.push_back(tally);
    report.log_M.push_back(groups_.in_force(g).log_M);
    report.shape.push_back(pareto_shape(exceedances(groups_.tail_of(g), tally.valid())));
    report.overall.merge(tally);
  }
  report.overall_shape = pareto_shape(exceedances(groups_.tail, report.overall.valid()));
  return report;
}

}  // namespace rskernels
