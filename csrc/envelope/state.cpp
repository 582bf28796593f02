#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <utility>

#include "envelope/envelope.hpp"
#include "threads/subnormals.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void check_size(std::size_t size, std::size_t groups) {
  if (size == groups) return;
  throw std::invalid_argument("the state holds " + std::to_string(size) +
                              " groups, this envelope " + std::to_string(groups));
}

void check_tally(const Tally& tally, std::size_t group) {
  const auto within = [](std::int64_t part, std::int64_t whole) {
    return 0 <= part && part <= whole;
  };
  if (!within(tally.invalid, tally.seen) || !within(tally.decided, tally.valid()) ||
      !within(tally.violations, tally.decided) || !within(tally.accepted, tally.observed)) {
    reject_group(group, "a count is negative, or more than the rows that it is part of");
  }
  if (!(tally.max_log_ratio < kInfinity) ||
      (tally.valid() == 0 && tally.max_log_ratio != -kInfinity)) {
    reject_group(group, "max_log_ratio does not fit the counts");
  }
  // No weight is above one unit, but for rounding.
  const double most =
      tally.max_log_ratio > -kInfinity ? static_cast<double>(tally.valid()) * (1.0 + 1e-6) : 0.0;
  for (const SumField& sum : kSumFields) {
    // What has no unit is a sum over the decided rows, of probabilities.
    const double limit = sum.power == 0 ? static_cast<double>(tally.decided) * (1.0 + 1e-6) : most;
    if (!(tally.*sum.member >= 0.0 && tally.*sum.member <= limit)) {
      reject_group(group, std::string(sum.name) + " does not fit the counts");
    }
  }
}

Tail read_tail(std::span<const double> ratios, std::size_t capacity, const std::string& where) {
  if (ratios.size() > capacity || !std::ranges::is_sorted(ratios, std::greater<>{}) ||
      !std::ranges::all_of(ratios, [](double r) { return std::abs(r) < kInfinity; })) {
    throw std::invalid_argument(where +
                                "the largest ratios are not as many finite ones, descending");
  }
  Tail tail(capacity);
  for (const double ratio : ratios) tail.add(ratio);
  return tail;
}

void check_tail(const Tail& tail, const Tally& tally, const std::string& where) {
  const std::vector<double> ratios = tail.largest();
  const double top = ratios.empty() ? -kInfinity : ratios.front();
  if (static_cast<std::int64_t>(ratios.size()) > tally.valid() ||
      (tail.capacity() > 0 && top != tally.max_log_ratio)) {
    throw std::invalid_argument(where + "the largest ratios do not fit max_log_ratio");
  }
}

std::string label(std::size_t group) { return "group " + std::to_string(group) + ": "; }

std::set<std::string> names(const Columns& columns) {
  std::set<std::string> all;
  for (const auto& [name, values] : columns.ints) all.insert("int " + name);
  for (const auto& [name, values] : columns.doubles) all.insert("double " + name);
  return all;
}

}  // namespace

Columns Envelope::save(const Groups& groups) {
  Columns state;
  for (const CountField& count : kCountFields) {
    auto& column = state.ints[count.name];
    for (const GroupTally& group : groups.tallies) column.push_back(group.tally.*count.member);
  }
  for (const SumField& sum : kSumFields) {
    auto& column = state.doubles[sum.name];
    for (const GroupTally& group : groups.tallies) column.push_back(group.tally.*sum.member);
  }
  auto& max_log_ratio = state.doubles["max_log_ratio"];
  for (const GroupTally& group : groups.tallies) {
    max_log_ratio.push_back(group.tally.max_log_ratio);
  }
  state.doubles["tail"] = groups.tail.largest();
  auto& start = state.ints["group_tail_start"];
  auto& ratios = state.doubles["group_tail"];
  start.push_back(0);
  for (const Tail& tail : groups.tails) {
    const std::vector<double> largest = tail.largest();
    ratios.insert(ratios.end(), largest.begin(), largest.end());
    start.push_back(static_cast<std::int64_t>(ratios.size()));
  }
  if (groups.row_policy != nullptr) groups.row_policy->save(state);
  return state;
}

Columns Envelope::state() const {
  const std::lock_guard lock(mutex_);
  return save(groups_);
}

std::vector<Tally> Envelope::load_tallies(const Columns& state, Groups& groups) {
  const std::size_t count = groups.count();
  for (const CountField& field : kCountFields) {
    const auto& column = state.int_column(field.name);
    check_size(column.size(), count);
    for (std::size_t g = 0; g < count; ++g) groups.tallies[g].tally.*field.member = column[g];
  }
  const auto& max_log_ratio = state.double_column("max_log_ratio");
  check_size(max_log_ratio.size(), count);
  for (std::size_t g = 0; g < count; ++g) groups.tallies[g].tally.raise_to(max_log_ratio[g]);
  for (const SumField& field : kSumFields) {
    const auto& column = state.double_column(field.name);
    check_size(column.size(), count);
    for (std::size_t g = 0; g < count; ++g) groups.tallies[g].tally.*field.member = column[g];
  }
  std::vector<Tally> tallies;
  RowLimit rows;
  for (std::size_t g = 0; g < count; ++g) {
    const Tally& tally = groups.tallies[g].tally;
    rows.add(tally, g);
    if (tally.max_log_ratio != max_log_ratio[g]) {
      reject_group(g, "max_log_ratio does not fit the counts");
    }
    check_tally(tally, g);
    tallies.push_back(tally);
  }
  return tallies;
}

void Envelope::load_part(const Columns& part, Groups& groups) const {
  groups.tail = read_tail(part.double_column("tail"), groups.tail.capacity(), "");
  const auto& start = part.int_column("group_tail_start");
  const auto& ratios = part.double_column("group_tail");
  if (start.size() != groups.tails.size() + 1 || start.front() != 0 ||
      start.back() != static_cast<std::int64_t>(ratios.size()) || !std::ranges::is_sorted(start)) {
    throw std::invalid_argument("group_tail_start and group_tail do not fit each other");
  }
  for (std::size_t g = 0; g < groups.tails.size(); ++g) {
    const auto begin = static_cast<std::size_t>(start[g]);
    const auto length = static_cast<std::size_t>(start[g + 1]) - begin;
    groups.tails[g] =
        read_tail(std::span(ratios).subspan(begin, length), groups.tails[g].capacity(), label(g));
  }
  if (groups.row_policy != nullptr) groups.row_policy->load(part);
}

void Envelope::restore(const Columns& state) {
  const KeepSubnormals keep;
  if (names(state) != names(save(make_groups()))) {
    throw std::invalid_argument("the state has other columns than the policy");
  }
  restore(state, {&state, 1});
}

void Envelope::restore(const Columns& state, std::span<const Columns> parts) {
  const KeepSubnormals keep;
  Groups groups = make_groups();
  const std::vector<Tally> tallies = load_tallies(state, groups);
  Tally overall;
  for (const Tally& tally : tallies) overall.merge(tally);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i == 0) {
      load_part(parts[i], groups);
      continue;
    }
    Groups part = make_groups();
    load_part(parts[i], part);
    merge_rest(groups, part);
  }
  check_tail(groups.tail, overall, "");
  for (std::size_t g = 0; g < groups.tails.size(); ++g) {
    check_tail(groups.tails[g], tallies[g], label(g));
  }
  if (groups.row_policy != nullptr) groups.row_policy->check_fits(tallies);
  const std::lock_guard lock(mutex_);
  groups_ = std::move(groups);
}

}  // namespace rskernels
