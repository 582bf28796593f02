#include "policies/options.hpp"

#include <limits>
#include <stdexcept>
#include <string>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void require(bool fits, const char* accepted, double number) {
  if (!fits) {
    throw std::invalid_argument(std::string(accepted) + ", got " + std::to_string(number));
  }
}

void check_half_life(const std::optional<double>& half_life) {
  if (!half_life) return;
  require(*half_life >= 1.0 && *half_life < kInfinity,
          "half_life must be finite and at least 1 sample", *half_life);
}

void check(const MaxOptions&) {}

void check(const QuantileOptions& options) {
  require(options.level > 0.0 && options.level <= 1.0, "level must be in (0, 1]", options.level);
  check_half_life(options.half_life);
  if (!options.confidence) return;
  if (options.half_life || options.level == 1.0) {
    throw std::invalid_argument("confidence needs a level below 1 and no half_life");
  }
  require(*options.confidence > 0.0 && *options.confidence < 1.0, "confidence must be in (0, 1)",
          *options.confidence);
}

void check(const FixedOptions& options) {
  require(options.M > 0.0 && options.M < kInfinity, "M must be finite and above 0", options.M);
}

void check(const LeaveOneOutOptions&) {}

void check(const DecayedOptions& options) { check_half_life(options.half_life); }

void check(const BudgetOptions& options) {
  require(options.rate > 0.0 && options.rate <= 1.0, "rate must be in (0, 1]", options.rate);
  check_half_life(options.half_life);
}

void check(const TailOptions&) {}

}  // namespace

void check_options(const EnvelopeOptions& options) {
  if (options.groups < 1) {
    throw std::invalid_argument("groups must be at least 1, got " + std::to_string(options.groups));
  }
  std::visit([](const auto& policy) { check(policy); }, options.policy);
}

}  // namespace rskernels
