#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

namespace rskernels {

// The M with which rows were decided: M = 2^exponent / inverse.
struct InForce {
  double log_M = std::numeric_limits<double>::quiet_NaN();
  double exponent = 0.0;
  // This is 0 where nothing is decided: M is not known, or is 0, which no mask takes.
  double inverse = 0.0;

  InForce() = default;
  explicit InForce(double log_M);

  bool decides() const { return inverse > 0.0; }
  // Says whether a valid ratio is above M; an M that decides nothing is not violated.
  bool is_exceeded_by(double log_ratio) const { return decides() && log_ratio > log_M; }
  // Returns w/M of a weight w that is in units of 2^unit.
  double over_M(double weight, double unit) const;
  // Returns M in units of 2^unit.
  double in_units(double unit) const;
};

// What the rows of a group amount to, whatever the policy. Sums of weights w = exp(log ratio) are
// in units of 2^exponent, which the largest ratio decides, so that equal rows give equal tallies.
struct Tally {
  std::int64_t seen = 0;
  std::int64_t invalid = 0;
  // Valid rows that met an M above 0, and those above that M.
  std::int64_t decided = 0;
  std::int64_t violations = 0;
  // Rows whose decision was reported, and those of them that were accepted.
  std::int64_t observed = 0;
  std::int64_t accepted = 0;
  double max_log_ratio = -std::numeric_limits<double>::infinity();
  double exponent = 0.0;
  double weight = 0.0;
  double square = 0.0;          // in units of 4^exponent
  double decided_weight = 0.0;  // of the rows that met an M
  double excess = 0.0;          // sum of (w - M)+
  double expected = 0.0;        // sum of min(1, w/M), no unit

  std::int64_t valid() const { return seen - invalid; }

  // Raises the largest ratio to this one, and the unit with it: no weight is ever above one unit.
  void raise_to(double log_ratio);
  // Adds what another tally counts.
  void merge(const Tally& other);

  // Returns the excess mass sum (w - M)+ / sum w over the decided rows; NaN without any.
  double delta() const;
  // Return the mean of min(1, w/M), and the share accepted; NaN without rows.
  double expected_acceptance() const;
  double observed_acceptance() const;
  // Return the ESS (sum w)^2 / sum w^2, and n / ESS - 1 of n valid rows; NaN where every w is 0.
  double effective_sample_size() const;
  double chi_squared() const;

  bool operator==(const Tally&) const = default;
};

// A count of rows, under the name that states and reports give it.
struct CountField {
  const char* name;
  std::int64_t Tally::* member;
};

// A sum over rows in units of 2^(power * exponent).
struct SumField {
  const char* name;
  double Tally::* member;
  int power;
};

// All of a tally that adds up; the largest ratio is the maximum over what is merged.
inline constexpr CountField kCountFields[] = {
    {"seen", &Tally::seen},         {"invalid", &Tally::invalid},
    {"decided", &Tally::decided},   {"violations", &Tally::violations},
    {"observed", &Tally::observed}, {"accepted", &Tally::accepted},
};
inline constexpr SumField kSumFields[] = {
    {"weight", &Tally::weight, 1},
    {"square", &Tally::square, 2},
    {"decided_weight", &Tally::decided_weight, 1},
    {"excess", &Tally::excess, 1},
    {"expected", &Tally::expected, 0},
};

// Counts the rows of several tallies together: no double counts more than 2^53 one by one.
class RowLimit {
 public:
  // Throws std::invalid_argument, which names the group, past the limit.
  void add(const Tally& tally, std::size_t group);

 private:
  std::int64_t seen_ = 0;
  std::int64_t observed_ = 0;
};

}  // namespace rskernels
