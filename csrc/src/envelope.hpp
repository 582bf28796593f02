#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "histogram.hpp"

namespace rskernels {

enum class Policy { kMax, kQuantile };

struct EnvelopeOptions {
  Policy policy = Policy::kMax;
  double level = 1.0;
  std::int64_t groups = 1;
  // In valid samples; empty: nothing is forgotten.
  std::optional<double> half_life = std::nullopt;

  bool operator==(const EnvelopeOptions&) const = default;
};

struct EnvelopeCounts {
  std::vector<std::int64_t> seen;
  std::vector<std::int64_t> violations;
  std::vector<std::int64_t> invalid;
};

// All that an envelope knows, as flat arrays; bins of group g are [bin_start[g], bin_start[g + 1]).
struct EnvelopeState {
  EnvelopeCounts counts;
  std::vector<double> max_log_ratio;
  std::vector<double> unit;
  std::vector<std::int64_t> bin_start;
  std::vector<double> bin_edge;
  std::vector<double> bin_count;
};

// log M of every group, kept from the log ratios it has been shown. Every method may be called from
// several threads at once.
class Envelope {
 public:
  explicit Envelope(const EnvelopeOptions& options);

  const EnvelopeOptions& options() const { return options_; }

  // One group id a ratio, or none at all in an envelope of one group.
  void update(std::span<const double> log_ratio, std::span<const std::int64_t> group_ids);
  void merge(const Envelope& other);

  // NaN for a group that has seen no valid ratio.
  std::vector<double> log_M() const;
  std::vector<double> log_M(std::span<const std::int64_t> group_ids) const;
  EnvelopeCounts counts() const;

  EnvelopeState state() const;
  // Throws std::invalid_argument, and changes nothing, if `state` could not have come from an
  // envelope with these options.
  void restore(const EnvelopeState& state);

 private:
  struct Group {
    std::int64_t seen = 0;
    std::int64_t violations = 0;
    std::int64_t invalid = 0;
    double max_log_ratio;
    double unit = 1.0;
    double log_M;
    bool stale = false;
    Histogram histogram;

    Group();
    std::int64_t valid() const { return seen - invalid; }
  };

  void check_ids(std::span<const std::int64_t> group_ids) const;
  void observe(Group& group, double log_ratio) const;
  void refresh(Group& group) const;

  EnvelopeOptions options_;
  double growth_ = 1.0;
  mutable std::mutex mutex_;
  std::vector<Group> groups_;
};

}  // namespace rskernels
