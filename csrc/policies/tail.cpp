#include <limits>

#include "policies/policy.hpp"
#include "sketches/pareto.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The upper bound of the end of the generalised Pareto law of the largest ratios.
class TailPolicy final : public Policy {
 public:
  explicit TailPolicy(std::int64_t groups) : grouped_(groups > 1) {}

  double log_M(std::size_t, const Tally& tally, const Tail& tail) const override {
    const double upper = bound(tally, tail).upper;
    return upper < kInfinity ? upper : std::numeric_limits<double>::quiet_NaN();
  }

  void check_finite(std::size_t group, const Tally& tally, const Tail& tail) const override {
    const Endpoint end = bound(tally, tail);
    if (!(end.upper == kInfinity)) return;
    const std::string where = grouped_ ? "group " + std::to_string(group) + ": " : "";
    const std::string shape = "the largest ratios have the Pareto shape k = " +
                              std::to_string(pareto_shape(exceedances(tail, tally.valid())));
    const std::string meaning =
        end.estimate == kInfinity
            ? ", so no finite M bounds p/q"
            : " and do not exclude an infinite end, so no finite M is sure to bound p/q";
    throw NoFiniteM(where + shape + meaning +
                    "; the policy 'budget' takes the M of a wanted acceptance rate instead");
  }

 private:
  static Endpoint bound(const Tally& tally, const Tail& tail) {
    const Exceedances largest = exceedances(tail, tally.valid());
    // The ratio that fills the whole tail is its end.
    if (largest.is_atom) {
      return {largest.max_log_ratio, largest.max_log_ratio, largest.max_log_ratio, 0.0};
    }
    return endpoint(largest);
  }

  bool grouped_;
};

}  // namespace

std::unique_ptr<Policy> make_policy(const TailOptions&, std::int64_t groups) {
  return std::make_unique<TailPolicy>(groups);
}

}  // namespace rskernels
