#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <utility>

#include "envelope/envelope.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

constexpr std::pair<const char*, std::int64_t Tally::*> kInts[] = {
    {"seen", &Tally::seen},         {"invalid", &Tally::invalid},
    {"decided", &Tally::decided},   {"violations", &Tally::violations},
    {"observed", &Tally::observed}, {"accepted", &Tally::accepted},
};
constexpr std::pair<const char*, double Tally::*> kSums[] = {
    {"weight", &Tally::weight},
    {"square", &Tally::square},
    {"decided_weight", &Tally::decided_weight},
    {"excess", &Tally::excess},
    {"expected", &Tally::expected},
};

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
  for (const auto& [name, sum] : kSums) {
    const double limit =
        sum == &Tally::expected ? static_cast<double>(tally.decided) * (1.0 + 1e-6) : most;
    if (!(tally.*sum >= 0.0 && tally.*sum <= limit)) {
      reject_group(group, std::string(name) + " does not fit the counts");
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

Columns Envelope::save(const Held& held) {
  Columns state;
  for (const auto& [name, count] : kInts) {
    auto& column = state.ints[name];
    for (const GroupTally& group : held.groups) column.push_back(group.tally.*count);
  }
  for (const auto& [name, sum] : kSums) {
    auto& column = state.doubles[name];
    for (const GroupTally& group : held.groups) column.push_back(group.tally.*sum);
  }
  auto& max_log_ratio = state.doubles["max_log_ratio"];
  for (const GroupTally& group : held.groups) max_log_ratio.push_back(group.tally.max_log_ratio);
  state.doubles["tail"] = held.tail.largest();
  auto& start = state.ints["group_tail_start"];
  auto& ratios = state.doubles["group_tail"];
  start.push_back(0);
  for (const Tail& tail : held.tails) {
    const std::vector<double> largest = tail.largest();
    ratios.insert(ratios.end(), largest.begin(), largest.end());
    start.push_back(static_cast<std::int64_t>(ratios.size()));
  }
  held.policy->save(state);
  return state;
}

Columns Envelope::state() const {
  const std::lock_guard lock(mutex_);
  return save(held_);
}

std::vector<Tally> Envelope::load_tallies(const Columns& state, Held& held) {
  const std::size_t count = held.groups.size();
  for (const auto& [name, member] : kInts) {
    const auto& column = state.int_column(name);
    check_size(column.size(), count);
    for (std::size_t g = 0; g < count; ++g) held.groups[g].tally.*member = column[g];
  }
  const auto& max_log_ratio = state.double_column("max_log_ratio");
  check_size(max_log_ratio.size(), count);
  for (std::size_t g = 0; g < count; ++g) held.groups[g].tally.raise_to(max_log_ratio[g]);
  for (const auto& [name, member] : kSums) {
    const auto& column = state.double_column(name);
    check_size(column.size(), count);
    for (std::size_t g = 0; g < count; ++g) held.groups[g].tally.*member = column[g];
  }
  std::vector<Tally> tallies;
  RowLimit rows;
  for (std::size_t g = 0; g < count; ++g) {
    const Tally& tally = held.groups[g].tally;
    rows.add(tally, g);
    if (tally.max_log_ratio != max_log_ratio[g]) {
      reject_group(g, "max_log_ratio does not fit the counts");
    }
    check_tally(tally, g);
    tallies.push_back(tally);
  }
  return tallies;
}

void Envelope::load_part(const Columns& part, Held& held) const {
  held.tail = read_tail(part.double_column("tail"), held.tail.capacity(), "");
  const auto& start = part.int_column("group_tail_start");
  const auto& ratios = part.double_column("group_tail");
  if (start.size() != held.tails.size() + 1 || start.front() != 0 ||
      start.back() != static_cast<std::int64_t>(ratios.size()) || !std::ranges::is_sorted(start)) {
    throw std::invalid_argument("group_tail_start and group_tail do not fit each other");
  }
  for (std::size_t g = 0; g < held.tails.size(); ++g) {
    const auto begin = static_cast<std::size_t>(start[g]);
    const auto length = static_cast<std::size_t>(start[g + 1]) - begin;
    held.tails[g] =
        read_tail(std::span(ratios).subspan(begin, length), held.tails[g].capacity(), label(g));
  }
  held.policy->load(part);
}

void Envelope::restore(const Columns& state) {
  if (names(state) != names(save(make_held()))) {
    throw std::invalid_argument("the state has other columns than the policy");
  }
  restore(state, {&state, 1});
}

void Envelope::restore(const Columns& state, std::span<const Columns> parts) {
  Held held = make_held();
  const std::vector<Tally> tallies = load_tallies(state, held);
  Tally overall;
  for (const Tally& tally : tallies) overall.merge(tally);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i == 0) {
      load_part(parts[i], held);
      continue;
    }
    Held part = make_held();
    load_part(parts[i], part);
    merge_rest(held, part);
  }
  check_tail(held.tail, overall, "");
  for (std::size_t g = 0; g < held.tails.size(); ++g) {
    check_tail(held.tails[g], tallies[g], label(g));
  }
  held.policy->check_fits(tallies);
  const std::lock_guard lock(mutex_);
  held_ = std::move(held);
}

}  // namespace rskernels
