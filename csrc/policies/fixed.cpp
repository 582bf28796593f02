#include <cmath>

#include "policies/policy.hpp"

namespace rskernels {
namespace {

class FixedPolicy final : public Policy {
 public:
  explicit FixedPolicy(double log_M) : log_M_(log_M) {}

  double log_M(std::size_t, const Tally&, const Tail&) const override { return log_M_; }

 private:
  double log_M_;
};

}  // namespace

std::unique_ptr<Policy> make_policy(const FixedOptions& options, std::int64_t) {
  return std::make_unique<FixedPolicy>(std::log(options.M));
}

}  // namespace rskernels
