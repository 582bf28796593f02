#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "envelope/columns.hpp"
#include "sketches/tail.hpp"
#include "sketches/tally.hpp"

namespace rskernels {

enum class PolicyKind : std::uint32_t {
  kMax,
  kQuantile,
  kFixed,
  kLeaveOneOut,
  kDecayed,
  kBudget,
  kTail,
};

// What the caller does about rows above M; it travels with the state, the core does not act on it.
enum class OnViolation : std::uint32_t { kCap, kRaise, kThin, kControl };

struct EnvelopeOptions {
  PolicyKind policy = PolicyKind::kMax;
  OnViolation on_violation = OnViolation::kCap;
  std::int64_t groups = 1;
  // Of the quantile.
  double level = 1.0;
  // That M is at least the quantile; empty: M is the sample's.
  std::optional<double> confidence = std::nullopt;
  // Valid samples after which one weighs, or a maximum is, half; empty: nothing is forgotten.
  std::optional<double> half_life = std::nullopt;
  // The acceptance of a budget.
  double rate = 1.0;
  // Of a fixed M.
  double M = 1.0;

  bool operator==(const EnvelopeOptions&) const = default;
};

// No finite M bounds the ratios, as far as the sample tells.
class NoFiniteM : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// How log M of every group follows from the ratios it has been shown.
class Policy {
 public:
  virtual ~Policy() = default;

  // Whether `observe` is to be called with the valid ratios of every batch, in order.
  virtual bool reads_rows() const { return false; }
  virtual void observe(std::size_t, std::span<const double>) {}
  // After a batch that brought `rows` valid rows and the sum `expected` of min(1, w/M).
  virtual void settle(std::size_t, double /*rows*/, double /*expected*/) {}

  // NaN where there is no M yet, or none at all.
  virtual double log_M(std::size_t group, const Tally& tally, const Tail& tail) const = 0;
  // Throws NoFiniteM where the ratios exclude a finite M.
  virtual void check(std::size_t, const Tally&, const Tail&) const {}

  virtual void merge(const Policy&) {}
  virtual void save(Columns&) const {}
  // Throws std::invalid_argument if the columns fit no policy of these options.
  virtual void load(const Columns&) {}
  // Throws std::invalid_argument if what was loaded fits no such tallies.
  virtual void check_fits(std::span<const Tally>) const {}
};

// Throws std::invalid_argument for options that fit no policy.
void check_options(const EnvelopeOptions& options);

std::unique_ptr<Policy> make_policy(const EnvelopeOptions& options);
std::unique_ptr<Policy> make_fixed(const EnvelopeOptions& options);
std::unique_ptr<Policy> make_max(const EnvelopeOptions& options);
std::unique_ptr<Policy> make_decayed(const EnvelopeOptions& options);
std::unique_ptr<Policy> make_quantile(const EnvelopeOptions& options);
std::unique_ptr<Policy> make_budget(const EnvelopeOptions& options);
std::unique_ptr<Policy> make_tail(const EnvelopeOptions& options);

// Whether the tail of the largest ratios itself decides M.
inline bool fits_tail(const EnvelopeOptions& options) {
  return options.policy == PolicyKind::kTail;
}

}  // namespace rskernels
