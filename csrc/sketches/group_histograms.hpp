#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "sketches/columns.hpp"
#include "sketches/histogram.hpp"
#include "sketches/tally.hpp"

namespace rskernels {

// A histogram of the log ratios of each group, which may forget: with a half-life, a valid sample
// weighs half as much after that many further ones (forward decay, Cormode et al. 2009).
class GroupHistograms {
 public:
  struct Atom {
    double edge;   // upper edge of its bin
    double count;  // weight of its samples
    double mass;   // of each sample exp(log ratio - edge), summed
  };

  enum class Holds { kCounts, kCountsAndMasses };

  GroupHistograms(std::int64_t groups, std::optional<double> half_life, Holds holds);

  // Takes in valid ratios of a group, in the order of their rows.
  void observe(std::size_t group, std::span<const double> ratios);
  // Adds the samples of another; the newest of both count as equally old.
  void merge(const GroupHistograms& other);

  const Histogram& counts(std::size_t group) const { return groups_[group].counts; }
  // Returns the occupied bins of a group in ascending order.
  std::vector<Atom> atoms(std::size_t group) const;
  // Returns the weight of all samples of a group, where the newest weighs 1.
  double total(std::size_t group) const;

  // Adds columns with the bins of every group.
  void save(Columns& columns) const;
  // Replaces the samples. Throws std::invalid_argument for columns that these histograms never
  // save.
  void load(const Columns& columns);
  // Throws std::invalid_argument if the samples are not those of the tallies.
  void check_fits(std::span<const Tally> tallies) const;

 private:
  struct Group {
    // The weight of the newest sample.
    double unit = 1.0;
    Histogram counts;
    Histogram masses;
  };

  void rescale(Group& group) const;

  bool with_mass_;
  bool forgets_;
  double growth_ = 1.0;
  std::vector<Group> groups_;
};

}  // namespace rskernels
