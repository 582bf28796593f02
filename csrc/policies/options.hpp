#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <variant>

namespace rskernels {

// The numbers of each policy. `kName` is what Python calls it; `each` calls f(name, number) for
// every number, of constant options or of others.

// M is the largest ratio seen.
struct MaxOptions {
  static constexpr const char* kName = "max";

  template <class Options, class F>
  static void each(Options&, F&&) {}
  bool operator==(const MaxOptions&) const = default;
};

// M is a quantile of the ratios seen.
struct QuantileOptions {
  static constexpr const char* kName = "quantile";
  // The share of the ratios that M is not below, in (0, 1].
  double level = 1.0;
  // A valid sample weighs half after this many further ones; without it nothing is forgotten.
  std::optional<double> half_life = std::nullopt;
  // M is at least the quantile of the law with this probability; without it that of the sample.
  std::optional<double> confidence = std::nullopt;

  template <class Options, class F>
  static void each(Options& options, F&& f) {
    f("level", options.level);
    f("half_life", options.half_life);
    f("confidence", options.confidence);
  }
  bool operator==(const QuantileOptions&) const = default;
};

// M is given.
struct FixedOptions {
  static constexpr const char* kName = "fixed";
  // It is finite and above 0.
  double M = 1.0;

  template <class Options, class F>
  static void each(Options& options, F&& f) {
    f("M", options.M);
  }
  bool operator==(const FixedOptions&) const = default;
};

// M of a row is the largest ratio of the history and of the other rows of its batch.
struct LeaveOneOutOptions {
  static constexpr const char* kName = "leave_one_out";

  template <class Options, class F>
  static void each(Options&, F&&) {}
  bool operator==(const LeaveOneOutOptions&) const = default;
};

// M halves with every half-life, and is never below the newest ratio.
struct DecayedOptions {
  static constexpr const char* kName = "decayed";
  // It counts valid samples and is at least 1.
  double half_life = 1.0;

  template <class Options, class F>
  static void each(Options& options, F&& f) {
    f("half_life", options.half_life);
  }
  bool operator==(const DecayedOptions&) const = default;
};

// M accepts the share `rate` of the ratios seen.
struct BudgetOptions {
  static constexpr const char* kName = "budget";
  // It is in (0, 1].
  double rate = 1.0;
  // A valid sample weighs half after this many further ones; without it nothing is forgotten.
  std::optional<double> half_life = std::nullopt;

  template <class Options, class F>
  static void each(Options& options, F&& f) {
    f("rate", options.rate);
    f("half_life", options.half_life);
  }
  bool operator==(const BudgetOptions&) const = default;
};

// M bounds the end of a generalised Pareto law of the largest ratios.
struct TailOptions {
  static constexpr const char* kName = "tail";

  template <class Options, class F>
  static void each(Options&, F&&) {}
  bool operator==(const TailOptions&) const = default;
};

// The byte form holds the index of a policy, so their order stays.
using PolicyOptions = std::variant<MaxOptions, QuantileOptions, FixedOptions, LeaveOneOutOptions,
                                   DecayedOptions, BudgetOptions, TailOptions>;
inline constexpr std::size_t kPolicyCount = std::variant_size_v<PolicyOptions>;

// The options of every policy in order, each with its defaults.
inline const std::array<PolicyOptions, kPolicyCount>& default_policies() {
  static const auto all = []<std::size_t... kIndex>(std::index_sequence<kIndex...>) {
    return std::array{PolicyOptions(std::in_place_index<kIndex>)...};
  }(std::make_index_sequence<kPolicyCount>());
  return all;
}

inline const char* name_of(const PolicyOptions& policy) {
  return std::visit([](const auto& options) { return options.kName; }, policy);
}

// Calls f(name, number) for every number of the policy: a double or an optional one.
template <class Policy, class F>
void for_each_number(Policy& policy, F&& f) {
  std::visit([&](auto& options) { options.each(options, f); }, policy);
}

// What the caller does about rows above M. It travels with the state; the core does not act on it.
enum class OnViolation : std::uint32_t { kCap, kRaise, kThin, kControl };
inline constexpr std::size_t kOnViolationCount = 4;

struct EnvelopeOptions {
  PolicyOptions policy = MaxOptions{};
  OnViolation on_violation = OnViolation::kCap;
  std::int64_t groups = 1;

  bool operator==(const EnvelopeOptions&) const = default;
};

// Throws std::invalid_argument, which says what is accepted, for a number outside of it.
void check_options(const EnvelopeOptions& options);

}  // namespace rskernels
