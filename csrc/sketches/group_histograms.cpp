#include "sketches/group_histograms.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
// The weight of the newest sample grows without end; past this it is brought back to one.
constexpr double kMaxUnit = 0x1p512;

}  // namespace

GroupHistograms::GroupHistograms(std::int64_t groups, std::optional<double> half_life, Holds holds)
    : with_mass_(holds == Holds::kCountsAndMasses),
      forgets_(half_life.has_value()),
      groups_(static_cast<std::size_t>(groups)) {
  if (forgets_) growth_ = std::exp2(1.0 / *half_life);
}

void GroupHistograms::observe(std::size_t index, std::span<const double> ratios) {
  Group& group = groups_[index];
  for (const double ratio : ratios) {
    group.counts.add(ratio, group.unit);
    if (with_mass_ && ratio > -kInfinity) {
      const double edge = Histogram::upper_edge(ratio);
      group.masses.add(ratio, group.unit * std::exp(ratio - edge));
    }
    if (!forgets_) continue;
    group.unit *= growth_;
    if (group.unit > kMaxUnit) rescale(group);
  }
}

void GroupHistograms::rescale(Group& group) const {
  if (group.unit == 1.0) return;
  group.counts.scale(1.0 / group.unit);
  group.masses.scale(1.0 / group.unit);
  group.unit = 1.0;
}

void GroupHistograms::merge(const GroupHistograms& other) {
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const Group& theirs = other.groups_[g];
    rescale(groups_[g]);
    groups_[g].counts.merge(theirs.counts, 1.0 / theirs.unit);
    groups_[g].masses.merge(theirs.masses, 1.0 / theirs.unit);
  }
}

std::vector<GroupHistograms::Atom> GroupHistograms::atoms(std::size_t group) const {
  std::vector<Atom> atoms;
  const std::vector<Histogram::Bin> masses = groups_[group].masses.bins();
  auto mass = masses.begin();
  for (const Histogram::Bin& bin : groups_[group].counts.bins()) {
    const bool has_mass = mass != masses.end() && mass->edge == bin.edge;
    atoms.push_back({bin.edge, bin.count, has_mass ? (mass++)->count : 0.0});
  }
  return atoms;
}

double GroupHistograms::total(std::size_t group) const {
  double total = 0.0;
  for (const Histogram::Bin& bin : groups_[group].counts.bins()) total += bin.count;
  return total / groups_[group].unit;
}

void GroupHistograms::save(Columns& columns) const {
  auto& start = columns.ints["bin_start"];
  auto& unit = columns.doubles["unit"];
  auto& edge = columns.doubles["bin_edge"];
  auto& count = columns.doubles["bin_count"];
  start.push_back(0);
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    unit.push_back(groups_[g].unit);
    for (const Atom& atom : atoms(g)) {
      edge.push_back(atom.edge);
      count.push_back(atom.count);
      if (with_mass_) columns.doubles["bin_mass"].push_back(atom.mass);
    }
    start.push_back(static_cast<std::int64_t>(edge.size()));
  }
  if (with_mass_) columns.doubles.try_emplace("bin_mass");
}

void GroupHistograms::load(const Columns& columns) {
  const auto& unit = columns.double_column("unit");
  const auto& start = columns.int_column("bin_start");
  const auto& edges = columns.double_column("bin_edge");
  const auto& counts = columns.double_column("bin_count");
  const std::size_t size = groups_.size();
  const auto& masses = with_mass_ ? columns.double_column("bin_mass") : counts;
  if (unit.size() != size) {
    throw std::invalid_argument("unit holds another number of groups");
  }
  if (counts.size() != edges.size() || masses.size() != edges.size() || start.size() != size + 1 ||
      start.front() != 0 || start.back() != static_cast<std::int64_t>(edges.size()) ||
      !std::ranges::is_sorted(start)) {
    throw std::invalid_argument("bin_start, bin_edge and bin_count do not fit each other");
  }
  std::vector<Group> groups(size);
  for (std::size_t g = 0; g < size; ++g) {
    Group& group = groups[g];
    group.unit = unit[g];
    if (!(group.unit >= 1.0 && group.unit <= kMaxUnit) || (!forgets_ && group.unit != 1.0)) {
      reject_group(g, "unit is not the weight of a sample");
    }
    double previous = kNaN;
    for (auto b = static_cast<std::size_t>(start[g]); b < static_cast<std::size_t>(start[g + 1]);
         ++b) {
      const double edge = edges[b];
      if (std::isnan(edge) || edge <= previous || edge != Histogram::upper_edge(edge)) {
        reject_group(g, "bin edges must be ascending multiples of 1/256, or -inf");
      }
      if (!(counts[b] > 0.0 && counts[b] < kInfinity)) {
        reject_group(g, "bin counts must be positive and finite");
      }
      // A hair above the count, for the rounding of the sum.
      if (with_mass_ && !(masses[b] >= 0.0 && masses[b] <= counts[b] * (1.0 + 1e-9))) {
        reject_group(g, "bin masses must be at most the bin counts");
      }
      if (with_mass_ && edge == -kInfinity && masses[b] != 0.0) {
        reject_group(g, "ratios of 0 have no mass");
      }
      group.counts.add(edge, counts[b]);
      if (with_mass_ && edge > -kInfinity) group.masses.add(edge, masses[b]);
      previous = edge;
    }
  }
  groups_.swap(groups);
}

void GroupHistograms::check_fits(std::span<const Tally> tallies) const {
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const double samples = total(g);
    const double expected = static_cast<double>(tallies[g].valid());
    // Of samples that are forgotten none weighs more than the newest, but for rounding.
    const bool fits =
        forgets_ ? (samples > 0.0) == (expected > 0.0) && samples <= expected * (1.0 + 1e-6)
                 : samples == expected;
    if (!fits) {
      reject_group(g, "the histogram does not fit the counts");
    }
  }
}

}  // namespace rskernels
