#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>

#include "policies/options.hpp"
#include "sketches/columns.hpp"
#include "sketches/tail.hpp"
#include "sketches/tally.hpp"

namespace rskernels {

// No finite M bounds the ratios, as far as the sample tells.
class NoFiniteM : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// How log M of every group follows from its tally and its largest ratios, which the envelope holds
// whatever the policy.
class Policy {
 public:
  virtual ~Policy() = default;

  // Returns NaN where there is no M yet, or none at all.
  virtual double log_M(std::size_t group, const Tally& tally, const Tail& tail) const = 0;
  // Throws NoFiniteM if `log_M` is NaN because the ratios exclude a finite M.
  virtual void check_finite(std::size_t /*group*/, const Tally&, const Tail&) const {}
};

// A policy with a state of its own for each group, made of all of its ratios.
class RowPolicy : public Policy {
 public:
  // Takes in the valid ratios of a group, in the order of their rows.
  virtual void observe(std::size_t group, std::span<const double> ratios) = 0;
  // Ends a batch that brought `rows` valid rows that met an M, and the sum `expected` of
  // min(1, w/M) over them.
  virtual void end_batch(std::size_t /*group*/, double /*rows*/, double /*expected*/) {}

  // Adds the state of a policy of the same options.
  virtual void merge(const RowPolicy& other) = 0;
  virtual void save(Columns& columns) const = 0;
  // Replaces the state. Throws std::invalid_argument if no policy of these options has such
  // columns.
  virtual void load(const Columns& columns) = 0;
  // Throws std::invalid_argument if the state is not one of rows with these tallies.
  virtual void check_fits(std::span<const Tally> tallies) const = 0;
};

// Make the policy of these options for a number of groups.
std::unique_ptr<Policy> make_policy(const MaxOptions& options, std::int64_t groups);
std::unique_ptr<Policy> make_policy(const QuantileOptions& options, std::int64_t groups);
std::unique_ptr<Policy> make_policy(const FixedOptions& options, std::int64_t groups);
std::unique_ptr<Policy> make_policy(const LeaveOneOutOptions& options, std::int64_t groups);
std::unique_ptr<Policy> make_policy(const DecayedOptions& options, std::int64_t groups);
std::unique_ptr<Policy> make_policy(const BudgetOptions& options, std::int64_t groups);
std::unique_ptr<Policy> make_policy(const TailOptions& options, std::int64_t groups);

inline std::unique_ptr<Policy> make_policy(const EnvelopeOptions& options) {
  return std::visit([&](const auto& policy) { return make_policy(policy, options.groups); },
                    options.policy);
}

}  // namespace rskernels
