#include "policies/policy.hpp"

namespace rskernels {
namespace {

// The largest ratio seen (empirical supremum, Caffo, Booth & Davison 2002). Leaving one out starts
// from it too: what it adds depends on the batch, not on state.
class MaxPolicy final : public Policy {
 public:
  double log_M(std::size_t, const Tally& tally, const Tail&) const override {
    return tally.valid() > 0 ? tally.max_log_ratio : std::numeric_limits<double>::quiet_NaN();
  }
};

}  // namespace

std::unique_ptr<Policy> make_policy(const MaxOptions&, std::int64_t) {
  return std::make_unique<MaxPolicy>();
}

std::unique_ptr<Policy> make_policy(const LeaveOneOutOptions&, std::int64_t) {
  return std::make_unique<MaxPolicy>();
}

}  // namespace rskernels
