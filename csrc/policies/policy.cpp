#include "policies/policy.hpp"

#include <cmath>
#include <limits>

namespace rskernels {
namespace {

bool inside_unit(double value) { return value > 0.0 && value < 1.0; }

}  // namespace

void check_options(const EnvelopeOptions& options) {
  const auto refuse = [](const std::string& what, double got) {
    throw std::invalid_argument(what + ", got " + std::to_string(got));
  };
  if (options.groups < 1) {
    throw std::invalid_argument("groups must be at least 1, got " + std::to_string(options.groups));
  }
  if (!(options.level > 0.0 && options.level <= 1.0)) {
    refuse("level must be in (0, 1]", options.level);
  }
  if (!inside_unit(options.rate) && !(options.rate == 1.0)) {
    refuse("rate must be in (0, 1]", options.rate);
  }
  if (!(options.M > 0.0 && options.M < std::numeric_limits<double>::infinity())) {
    refuse("M must be finite and above 0", options.M);
  }
  const bool forgets = options.policy == PolicyKind::kQuantile ||
                       options.policy == PolicyKind::kBudget ||
                       options.policy == PolicyKind::kDecayed;
  if (options.half_life) {
    if (!forgets) {
      throw std::invalid_argument("half_life needs the policy quantile, budget or decayed");
    }
    if (!(*options.half_life >= 1.0 &&
          *options.half_life < std::numeric_limits<double>::infinity())) {
      refuse("half_life must be finite and at least 1 sample", *options.half_life);
    }
  } else if (options.policy == PolicyKind::kDecayed) {
    throw std::invalid_argument("the policy decayed needs a half_life");
  }
  if (options.confidence) {
    if (options.policy != PolicyKind::kQuantile || options.half_life || options.level == 1.0) {
      throw std::invalid_argument(
          "confidence needs the policy quantile with a level below 1 and no half_life");
    }
    if (!inside_unit(*options.confidence)) {
      refuse("confidence must be in (0, 1)", *options.confidence);
    }
  }
}

std::unique_ptr<Policy> make_policy(const EnvelopeOptions& options) {
  switch (options.policy) {
    case PolicyKind::kFixed:
      return make_fixed(options);
    case PolicyKind::kMax:
    case PolicyKind::kLeaveOneOut:
      return make_max(options);
    case PolicyKind::kDecayed:
      return make_decayed(options);
    case PolicyKind::kQuantile:
      return make_quantile(options);
    case PolicyKind::kBudget:
      return make_budget(options);
    case PolicyKind::kTail:
      return make_tail(options);
  }
  throw std::invalid_argument("unknown policy");
}

}  // namespace rskernels
