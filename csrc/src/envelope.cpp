#include "envelope.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// The weight of the newest sample grows without end; past this it is brought back to one.
constexpr double kMaxUnit = 0x1p512;

[[noreturn]] void reject(std::size_t group, const std::string& what) {
  throw std::invalid_argument("group " + std::to_string(group) + ": " + what);
}

}  // namespace

Envelope::Group::Group() : max_log_ratio(-kInfinity), log_M(kNaN) {}

Envelope::Envelope(const EnvelopeOptions& options) : options_(options) {
  if (options.groups < 1) {
    throw std::invalid_argument("groups must be at least 1, got " + std::to_string(options.groups));
  }
  if (!(options.level > 0.0 && options.level <= 1.0)) {
    throw std::invalid_argument("level must be in (0, 1], got " + std::to_string(options.level));
  }
  if (options.half_life) {
    if (options.policy != Policy::kQuantile) {
      throw std::invalid_argument("half_life needs the policy quantile: a maximum does not decay");
    }
    if (!(*options.half_life >= 1.0 && *options.half_life < kInfinity)) {
      throw std::invalid_argument("half_life must be finite and at least 1 sample, got " +
                                  std::to_string(*options.half_life));
    }
    growth_ = std::exp2(1.0 / *options.half_life);
  }
  groups_.resize(static_cast<std::size_t>(options.groups));
}

void Envelope::check_ids(std::span<const std::int64_t> group_ids) const {
  for (std::size_t i = 0; i < group_ids.size(); ++i) {
    if (group_ids[i] < 0 || group_ids[i] >= options_.groups) {
      throw std::out_of_range("group id " + std::to_string(group_ids[i]) + " of row " +
                              std::to_string(i) + " is outside [0, " +
                              std::to_string(options_.groups) + ")");
    }
  }
}

void Envelope::update(std::span<const double> log_ratio, std::span<const std::int64_t> group_ids) {
  const bool grouped = !group_ids.empty();
  if (grouped ? group_ids.size() != log_ratio.size() : options_.groups > 1 && !log_ratio.empty()) {
    throw std::invalid_argument(std::to_string(log_ratio.size()) + " log ratios need as many " +
                                "group ids, got " + std::to_string(group_ids.size()));
  }
  check_ids(group_ids);
  const std::lock_guard lock(mutex_);
  const auto group_of = [&](std::size_t i) -> Group& {
    return groups_[grouped ? static_cast<std::size_t>(group_ids[i]) : 0];
  };
  for (std::size_t i = 0; i < log_ratio.size(); ++i) observe(group_of(i), log_ratio[i]);
  // Only what the batch touches: a walk over all the groups would cost more than most batches.
  for (std::size_t i = 0; i < log_ratio.size(); ++i) {
    if (group_of(i).stale) refresh(group_of(i));
  }
}

// log_M stays what it was until the whole batch is in: that is the M the batch was decided with.
void Envelope::observe(Group& group, double log_ratio) const {
  ++group.seen;
  if (!(log_ratio < kInfinity)) {
    ++group.invalid;
    return;
  }
  if (log_ratio > group.log_M) ++group.violations;
  group.stale = true;
  switch (options_.policy) {
    case Policy::kMax:
      group.max_log_ratio = std::max(group.max_log_ratio, log_ratio);
      break;
    case Policy::kQuantile:
      // Forward decay (Cormode et al. 2009): later samples weigh more, earlier ones stay as stored.
      group.histogram.add(log_ratio, group.unit);
      group.unit *= growth_;
      if (group.unit > kMaxUnit) {
        group.histogram.scale(1.0 / group.unit);
        group.unit = 1.0;
      }
      break;
  }
}

void Envelope::refresh(Group& group) const {
  group.stale = false;
  if (group.valid() == 0) {
    group.log_M = kNaN;
    return;
  }
  switch (options_.policy) {
    case Policy::kMax:
      group.log_M = group.max_log_ratio;
      break;
    case Policy::kQuantile:
      group.log_M = group.histogram.quantile(options_.level);
      break;
  }
}

void Envelope::merge(const Envelope& other) {
  if (!(options_ == other.options_)) {
    throw std::invalid_argument("envelopes with different options cannot be merged");
  }
  // A copy first: two locks held at once could deadlock, and an envelope may be merged with itself.
  std::vector<Group> theirs;
  {
    const std::lock_guard lock(other.mutex_);
    theirs = other.groups_;
  }
  const std::lock_guard lock(mutex_);
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    Group& group = groups_[g];
    group.seen += theirs[g].seen;
    group.violations += theirs[g].violations;
    group.invalid += theirs[g].invalid;
    group.max_log_ratio = std::max(group.max_log_ratio, theirs[g].max_log_ratio);
    if (group.unit != 1.0) group.histogram.scale(1.0 / group.unit);
    group.unit = 1.0;
    group.histogram.merge(theirs[g].histogram, 1.0 / theirs[g].unit);
    refresh(group);
  }
}

std::vector<double> Envelope::log_M() const {
  const std::lock_guard lock(mutex_);
  std::vector<double> values(groups_.size());
  std::ranges::transform(groups_, values.begin(), &Group::log_M);
  return values;
}

std::vector<double> Envelope::log_M(std::span<const std::int64_t> group_ids) const {
  check_ids(group_ids);
  const std::lock_guard lock(mutex_);
  std::vector<double> values(group_ids.size());
  std::ranges::transform(group_ids, values.begin(), [this](std::int64_t id) {
    return groups_[static_cast<std::size_t>(id)].log_M;
  });
  return values;
}

EnvelopeCounts Envelope::counts() const {
  const std::lock_guard lock(mutex_);
  EnvelopeCounts counts;
  for (const Group& group : groups_) {
    counts.seen.push_back(group.seen);
    counts.violations.push_back(group.violations);
    counts.invalid.push_back(group.invalid);
  }
  return counts;
}

EnvelopeState Envelope::state() const {
  const std::lock_guard lock(mutex_);
  EnvelopeState state;
  state.bin_start.push_back(0);
  for (const Group& group : groups_) {
    state.counts.seen.push_back(group.seen);
    state.counts.violations.push_back(group.violations);
    state.counts.invalid.push_back(group.invalid);
    state.max_log_ratio.push_back(group.max_log_ratio);
    state.unit.push_back(group.unit);
    for (const Histogram::Bin& bin : group.histogram.bins()) {
      state.bin_edge.push_back(bin.edge);
      state.bin_count.push_back(bin.count);
    }
    state.bin_start.push_back(static_cast<std::int64_t>(state.bin_edge.size()));
  }
  return state;
}

void Envelope::restore(const EnvelopeState& state) {
  const auto count = static_cast<std::size_t>(options_.groups);
  for (const std::size_t size :
       {state.counts.seen.size(), state.counts.violations.size(), state.counts.invalid.size(),
        state.max_log_ratio.size(), state.unit.size()}) {
    if (size != count) {
      throw std::invalid_argument("the state holds " + std::to_string(size) +
                                  " groups, this envelope " + std::to_string(count));
    }
  }
  const std::size_t bins = state.bin_edge.size();
  if (state.bin_count.size() != bins || state.bin_start.size() != count + 1 ||
      state.bin_start.front() != 0 || state.bin_start.back() != static_cast<std::int64_t>(bins) ||
      !std::ranges::is_sorted(state.bin_start)) {
    throw std::invalid_argument("bin_start, bin_edge and bin_count do not fit each other");
  }

  std::vector<Group> groups(count);
  for (std::size_t g = 0; g < count; ++g) {
    Group& group = groups[g];
    group.seen = state.counts.seen[g];
    group.violations = state.counts.violations[g];
    group.invalid = state.counts.invalid[g];
    if (group.violations < 0 || group.invalid < 0 || group.invalid > group.seen ||
        group.violations > group.valid()) {
      reject(g, "the counts are negative or more than the rows seen");
    }
    group.max_log_ratio = state.max_log_ratio[g];
    const bool has_max = options_.policy == Policy::kMax && group.valid() > 0;
    if (!(group.max_log_ratio < kInfinity) || (!has_max && group.max_log_ratio != -kInfinity)) {
      reject(g, "max_log_ratio does not fit the counts");
    }
    group.unit = state.unit[g];
    if (!(group.unit >= 1.0 && group.unit <= kMaxUnit) ||
        (!options_.half_life && group.unit != 1.0)) {
      reject(g, "unit is not the weight of a sample");
    }
    double total = 0.0;
    double previous = kNaN;
    for (auto b = static_cast<std::size_t>(state.bin_start[g]);
         b < static_cast<std::size_t>(state.bin_start[g + 1]); ++b) {
      const double edge = state.bin_edge[b];
      const double weight = state.bin_count[b];
      if (std::isnan(edge) || edge <= previous || edge != Histogram::upper_edge(edge)) {
        reject(g, "bin edges must be ascending multiples of 1/256, or -inf");
      }
      if (!(weight > 0.0 && weight < kInfinity)) {
        reject(g, "bin counts must be positive and finite");
      }
      group.histogram.add(edge, weight);
      total += weight;
      previous = edge;
    }
    const double expected =
        options_.policy == Policy::kQuantile ? static_cast<double>(group.valid()) : 0.0;
    if (options_.half_life ? (total > 0.0) != (expected > 0.0) : total != expected) {
      reject(g, "the histogram does not fit the counts");
    }
    refresh(group);
  }
  const std::lock_guard lock(mutex_);
  groups_.swap(groups);
}

}  // namespace rskernels
