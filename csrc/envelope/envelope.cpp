#include "envelope/envelope.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "envelope/leave_one_out.hpp"
#include "sketches/pareto.hpp"
#include "sketches/weights.hpp"
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

Envelope::Held Envelope::make_held() const {
  Held held;
  const auto count = static_cast<std::size_t>(options_.groups);
  held.groups.resize(count);
  held.tail = Tail(kTailRatios);
  const std::size_t capacity = fits_tail(options_) ? kTailRatios : tail_capacity(count);
  if (count > 1) {
    held.lines.resize(count);
    held.tails.assign(count, Tail(capacity));
  }
  held.policy = make_policy_(options_);
  return held;
}

Envelope::Envelope(const EnvelopeOptions& options, PolicyMaker make)
    : options_(options), make_policy_(make) {
  check_options(options);
  held_ = make_held();
}

const InForce& Envelope::in_force(std::size_t group) const {
  GroupTally& of = held_.groups[group];
  if (of.is_stale) of.M = InForce(held_.policy->log_M(group, of.tally, held_.tail_of(group)));
  of.is_stale = false;
  return of.M;
}

void Envelope::check_shape(const Batch& batch) const {
  if (batch.group_ids == nullptr && options_.groups > 1 && batch.count > 0) {
    throw std::invalid_argument("an envelope of " + std::to_string(options_.groups) +
                                " groups needs the group of every row");
  }
}

std::int64_t Envelope::update(const Batch& batch, int threads) {
  check_shape(batch);
  check_group_ids(batch, options_.groups, threads);
  const std::lock_guard lock(mutex_);
  if (batch.count == 0) return 0;
  std::vector<double> left_out;
  const bool leaves_out = options_.policy == PolicyKind::kLeaveOneOut;
  if (leaves_out) {
    left_out = leave_one_out(batch, history());
    // What each row met is told row by row, below.
    for (std::int64_t row = 0; row < batch.count; ++row) {
      GroupTally& group = held_.groups[static_cast<std::size_t>(batch.group(row))];
      group.M = InForce();
      group.is_stale = false;
    }
  }
  std::vector<std::int64_t> touched;
  if (options_.groups > 1) {
    add_grouped(batch, threads, touched);
  } else {
    held_.groups[0].remember();
    touched.push_back(0);
    add_single(batch, threads);
  }
  if (leaves_out) add_left_out(batch, left_out);
  if (held_.policy->reads_rows()) show_policy(batch);

  std::int64_t violations = 0;
  // Only what the batch touches: a walk over all the groups would cost more than most batches.
  for (const std::int64_t id : touched) {
    const auto g = static_cast<std::size_t>(id);
    GroupTally& group = held_.groups[g];
    violations += group.tally.violations - group.violations_before;
    held_.policy->settle(g, static_cast<double>(group.tally.decided - group.decided_before),
                         group.tally.expected - group.expected_before);
    group.is_stale = true;
  }
  return violations;
}

void Envelope::add_single(const Batch& batch, int threads) {
  const std::int64_t chunks = (batch.count + kChunkRows - 1) / kChunkRows;
  std::vector<Tally> tallies(static_cast<std::size_t>(chunks));
  const InForce M = in_force(0);
  // One a thread, handed from chunk to chunk: the more a tail has seen, the less it takes in.
  std::vector<Tail> others(
      static_cast<std::size_t>(std::clamp<std::int64_t>(threads, 1, chunks)) - 1,
      Tail(kTailRatios, held_.tail.threshold()));
  std::vector<Tail*> idle;
  for (Tail& other : others) idle.push_back(&other);
  idle.push_back(&held_.tail);
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
  for (const Tally& tally : tallies) held_.groups[0].tally.merge(tally);
  for (const Tail& tail : others) held_.tail.merge(tail);
}

// A thread owns the groups of a range and reads every id: rows are added in their order, whatever
// the threads, and no group is held twice.
void Envelope::add_grouped(const Batch& batch, int threads, std::vector<std::int64_t>& touched) {
  const std::int64_t owners = std::clamp<std::int64_t>(
      std::min<std::int64_t>(batch.count / kChunkRows, options_.groups), 1, threads);
  std::vector<std::vector<std::int64_t>> lists(static_cast<std::size_t>(owners));
  std::vector<Tail> tails(static_cast<std::size_t>(owners),
                          Tail(kTailRatios, held_.tail.threshold()));
  const auto meet = [this](std::size_t g) {
    in_force(g);
    held_.lines[g] = GroupLine(held_.groups[g], &held_.tails[g]);
  };
  ThreadPool::instance().parallel_for(owners, 1, threads, [&](std::int64_t owner, std::int64_t) {
    const auto at = static_cast<std::size_t>(owner);
    accumulate(batch, options_.groups * owner / owners, options_.groups * (owner + 1) / owners,
               meet, held_.groups, held_.lines, held_.tails, tails[at], lists[at]);
  });
  for (const auto& list : lists) {
    for (const std::int64_t id : list) {
      const auto group = static_cast<std::size_t>(id);
      held_.lines[group].flush(held_.groups[group]);
      held_.lines[group].touched = false;
      touched.push_back(id);
    }
  }
  for (const Tail& tail : tails) held_.tail.merge(tail);
}

void Envelope::add_left_out(const Batch& batch, std::span<const double> log_M) {
  double log_ratio[kBatchBlock];
  for (std::int64_t begin = 0; begin < batch.count; begin += kBatchBlock) {
    const std::int64_t count = std::min(kBatchBlock, batch.count - begin);
    load(batch, begin, count, log_ratio);
    for (std::int64_t i = 0; i < count; ++i) {
      const InForce M(log_M[static_cast<std::size_t>(begin + i)]);
      if (!(log_ratio[i] < kInfinity) || !M.decides()) continue;
      Tally& tally = held_.groups[static_cast<std::size_t>(batch.group(begin + i))].tally;
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
      held_.policy->observe(0, {log_ratio, end});
      continue;
    }
    for (std::int64_t i = 0; i < count; ++i) {
      if (!(log_ratio[i] < kInfinity)) continue;
      held_.policy->observe(static_cast<std::size_t>(batch.group(begin + i)), {log_ratio + i, 1});
    }
  }
}

void Envelope::observe(std::span<const bool> accepted, const Batch& batch) {
  check_shape(batch);
  check_group_ids(batch, options_.groups, 1);
  const std::lock_guard lock(mutex_);
  for (std::size_t row = 0; row < accepted.size(); ++row) {
    const auto group = static_cast<std::size_t>(batch.group(static_cast<std::int64_t>(row)));
    Tally& tally = held_.groups[group].tally;
    ++tally.observed;
    tally.accepted += accepted[row] ? 1 : 0;
  }
}

void Envelope::merge_rest(Held& held, const Held& other) {
  for (std::size_t g = 0; g < held.tails.size(); ++g) held.tails[g].merge(other.tails[g]);
  held.tail.merge(other.tail);
  held.policy->merge(*other.policy);
}

void Envelope::merge(const Envelope& other) {
  if (!(options_ == other.options_)) {
    throw std::invalid_argument("envelopes with different options cannot be merged");
  }
  // A copy first: two locks held at once could deadlock, and an envelope may be merged with itself.
  Envelope theirs(other.options_, other.make_policy_);
  theirs.restore(other.state());
  const std::lock_guard lock(mutex_);
  RowLimit rows;
  for (std::size_t g = 0; g < held_.groups.size(); ++g) {
    rows.add(held_.groups[g].tally, g);
    rows.add(theirs.held_.groups[g].tally, g);
  }
  for (std::size_t g = 0; g < held_.groups.size(); ++g) {
    held_.groups[g].tally.merge(theirs.held_.groups[g].tally);
    held_.groups[g].is_stale = true;
  }
  merge_rest(held_, theirs.held_);
}

double Envelope::checked_log_M(std::size_t group) const {
  const double log_M = in_force(group).log_M;
  if (std::isnan(log_M)) {
    held_.policy->check(group, held_.groups[group].tally, held_.tail_of(group));
  }
  return log_M;
}

std::vector<double> Envelope::history() const {
  std::vector<double> values(held_.groups.size());
  for (std::size_t g = 0; g < values.size(); ++g) values[g] = in_force(g).log_M;
  return values;
}

std::vector<double> Envelope::log_M() const {
  const std::lock_guard lock(mutex_);
  std::vector<double> values(held_.groups.size());
  for (std::size_t g = 0; g < values.size(); ++g) values[g] = checked_log_M(g);
  return values;
}

std::vector<double> Envelope::log_M(const Batch& batch) const {
  check_shape(batch);
  check_group_ids(batch, options_.groups, 1);
  const std::lock_guard lock(mutex_);
  if (options_.policy == PolicyKind::kLeaveOneOut && batch.log_ratio != nullptr) {
    return leave_one_out(batch, history());
  }
  std::vector<double> values(static_cast<std::size_t>(batch.count));
  for (std::size_t row = 0; row < values.size(); ++row) {
    values[row] =
        checked_log_M(static_cast<std::size_t>(batch.group(static_cast<std::int64_t>(row))));
  }
  return values;
}

std::pair<std::size_t, std::size_t> Envelope::tail_capacities() const {
  const std::lock_guard lock(mutex_);
  return {held_.tail.capacity(), held_.tails.empty() ? 0 : held_.tails.front().capacity()};
}

std::vector<Tally> Envelope::tallies() const {
  const std::lock_guard lock(mutex_);
  std::vector<Tally> values;
  for (const GroupTally& group : held_.groups) values.push_back(group.tally);
  return values;
}

EnvelopeReport Envelope::report() const {
  const std::lock_guard lock(mutex_);
  EnvelopeReport report;
  for (std::size_t g = 0; g < held_.groups.size(); ++g) {
    const Tally& tally = held_.groups[g].tally;
    report.groups.push_back(tally);
    report.log_M.push_back(in_force(g).log_M);
    report.shape.push_back(pareto_shape(exceedances(held_.tail_of(g), tally.valid())));
    report.overall.merge(tally);
  }
  report.overall_shape = pareto_shape(exceedances(held_.tail, report.overall.valid()));
  return report;
}

}  // namespace rskernels
