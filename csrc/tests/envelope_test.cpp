#include "envelope/envelope.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
using Ratios = std::vector<double>;
using Ids = std::vector<std::int64_t>;
using Counts = std::vector<std::int64_t>;

Batch batch_of(const Ratios& ratios, const Ids& ids = {}) {
  Batch batch;
  batch.log_ratio = ratios.data();
  batch.dtype = DType::kFloat64;
  batch.count = static_cast<std::int64_t>(ratios.size());
  batch.group_ids = ids.empty() ? nullptr : ids.data();
  return batch;
}

void update(Envelope& envelope, const Ratios& ratios, const Ids& ids = {}) {
  envelope.update(batch_of(ratios, ids), 2);
}

std::vector<double> log_M_of(const Envelope& envelope, const Ids& ids) {
  Batch batch;
  batch.count = static_cast<std::int64_t>(ids.size());
  batch.group_ids = ids.data();
  return envelope.log_M(batch);
}

Counts counts(const Envelope& envelope, const std::string& name) {
  return envelope.state().int_column(name);
}

EnvelopeOptions quantile(double level, std::optional<double> half_life = std::nullopt) {
  return {.policy = QuantileOptions{.level = level, .half_life = half_life}};
}

TEST(Envelope, MaxIsTheLargestValidRatio) {
  Envelope envelope({});
  EXPECT_TRUE(std::isnan(envelope.log_M()[0]));
  update(envelope, Ratios{kNaN, kInfinity});
  EXPECT_TRUE(std::isnan(envelope.log_M()[0]));
  update(envelope, Ratios{-kInfinity});
  EXPECT_EQ(envelope.log_M()[0], -kInfinity);
  update(envelope, Ratios{-2.0, 1.0, 0.5});
  EXPECT_EQ(envelope.log_M()[0], 1.0);
  // M = 0 decides nothing, so nothing violates it.
  EXPECT_EQ(counts(envelope, "decided"), Counts{0});
  EXPECT_EQ(counts(envelope, "violations"), Counts{0});
  update(envelope, Ratios{1.0, 1.5, 2.0});
  EXPECT_EQ(counts(envelope, "decided"), Counts{3});
  EXPECT_EQ(counts(envelope, "violations"), Counts{2});
  EXPECT_EQ(counts(envelope, "seen"), Counts{9});
  EXPECT_EQ(counts(envelope, "invalid"), Counts{2});
}

TEST(Envelope, GroupsAreApart) {
  Envelope envelope({.groups = 3});
  update(envelope, Ratios{1.0, 5.0, 2.0, kNaN}, Ids{0, 2, 0, 2});
  EXPECT_EQ(log_M_of(envelope, Ids{2, 0, 2}), (Ratios{5.0, 2.0, 5.0}));
  EXPECT_TRUE(std::isnan(envelope.log_M()[1]));
  EXPECT_EQ(counts(envelope, "invalid"), (Counts{0, 0, 1}));
}

TEST(Envelope, EveryGroupIsAsAnEnvelopeOfItsOwn) {
  constexpr std::int64_t kGroups = 20;
  std::mt19937_64 generator(10);
  std::normal_distribution<double> normal(0.0, 3.0);
  for (EnvelopeOptions options : {EnvelopeOptions{}, quantile(0.8), quantile(0.8, 7.0)}) {
    std::vector<std::unique_ptr<Envelope>> apart;
    for (std::int64_t g = 0; g < kGroups; ++g) apart.push_back(std::make_unique<Envelope>(options));
    options.groups = kGroups;
    Envelope together(options);
    for (int batch = 0; batch < 50; ++batch) {
      Ratios ratios;
      Ids ids;
      std::vector<Ratios> parts(kGroups);
      for (int i = 0; i < 12; ++i) {
        ids.push_back(static_cast<std::int64_t>(generator() % kGroups));
        ratios.push_back(i == 0 ? kNaN : normal(generator));
        parts[static_cast<std::size_t>(ids.back())].push_back(ratios.back());
      }
      update(together, ratios, ids);
      for (std::size_t g = 0; g < apart.size(); ++g) {
        update(*apart[g], parts[g]);
        const double expected = apart[g]->log_M()[0];
        const double actual = together.log_M()[g];
        EXPECT_TRUE(actual == expected || (std::isnan(actual) && std::isnan(expected)));
        EXPECT_EQ(counts(together, "violations")[g], counts(*apart[g], "violations")[0]);
      }
    }
  }
}

TEST(Envelope, RestoresTheLargestRatios) {
  const double largest = std::numeric_limits<double>::max();
  Envelope envelope(quantile(0.9));
  update(envelope, Ratios{-largest, 1e307, largest});
  EXPECT_EQ(envelope.log_M()[0], largest);
  Envelope copy(quantile(0.9));
  copy.restore(envelope.state());
  EXPECT_EQ(copy.log_M()[0], largest);
}

TEST(Envelope, AnInfiniteRatioIsInvalidUnderEveryM) {
  for (const double top : {0.0, 0x1p50, 1e308}) {
    Envelope envelope({});
    update(envelope, Ratios{top});
    update(envelope, Ratios{kInfinity, -1.0});
    update(envelope, Ratios{kInfinity, kNaN, -1.0});
    EXPECT_EQ(envelope.log_M()[0], top);
    EXPECT_EQ(counts(envelope, "invalid"), Counts{3});
    EXPECT_EQ(counts(envelope, "decided"), Counts{2});
  }
}

TEST(Envelope, TheTwoZerosAreOne) {
  for (const Ratios& ratios : {Ratios{0.0, -0.0, -1.0}, Ratios{-0.0, 0.0, -1.0}}) {
    Envelope envelope({});
    update(envelope, ratios);
    const Columns state = envelope.state();
    EXPECT_FALSE(std::signbit(state.double_column("max_log_ratio")[0]));
    const Ratios& tail = state.double_column("tail");
    ASSERT_EQ(tail.size(), 3u);
    EXPECT_FALSE(std::signbit(tail[0]) || std::signbit(tail[1]));
  }
}

TEST(Envelope, MergeRefusesMoreRowsThanCanBeCounted) {
  Envelope envelope({.groups = 2});
  update(envelope, Ratios{kNaN, kNaN}, Ids{0, 1});
  Columns state = envelope.state();
  for (const char* name : {"seen", "invalid"}) state.ints[name] = {1LL << 51, 1LL << 51};
  envelope.restore(state);
  envelope.merge(envelope);
  EXPECT_THROW(envelope.merge(envelope), std::invalid_argument);
  EXPECT_EQ(counts(envelope, "seen"), (Counts{1LL << 52, 1LL << 52}));
}

// Counts how often an M is made; its M is the largest ratio.
class CountingPolicy final : public Policy {
 public:
  static inline int calls = 0;
  double log_M(std::size_t, const Tally& tally, const Tail&) const override {
    ++calls;
    return tally.valid() > 0 ? tally.max_log_ratio : kNaN;
  }
};

TEST(Envelope, MakesAnMOnlyWhereOneIsAskedFor) {
  constexpr std::int64_t kGroups = 3;
  for (const std::int64_t groups : {std::int64_t{1}, kGroups}) {
    const EnvelopeOptions options{.groups = groups};
    const auto make = +[](const EnvelopeOptions&) -> std::unique_ptr<Policy> {
      return std::make_unique<CountingPolicy>();
    };
    CountingPolicy::calls = 0;
    Envelope envelope(options, make);
    Envelope other(options, make);
    const Ids ids = groups > 1 ? Ids{0, 0, 1} : Ids{};
    update(envelope, Ratios{1.0, 2.0, 3.0}, ids);
    // The rows met the M of nothing, of the groups that they were of.
    const int met = groups > 1 ? 2 : 1;
    EXPECT_EQ(CountingPolicy::calls, met);
    for (int i = 0; i < 5; ++i) other.merge(envelope);
    other.restore(other.state());
    (void)other.tallies();
    EXPECT_EQ(CountingPolicy::calls, met);
    (void)envelope.log_M();
    (void)envelope.log_M();
    (void)envelope.report();
    EXPECT_EQ(CountingPolicy::calls, met + groups);
    update(envelope, Ratios{1.0, 5.0, 3.0}, ids);
    EXPECT_EQ(CountingPolicy::calls, met + groups);
    EXPECT_EQ(counts(envelope, "violations")[0], 1);
  }
}

TEST(Envelope, RefusesBadIdsAndTakesNothingIn) {
  Envelope envelope({.groups = 2});
  for (const std::int64_t bad : {std::int64_t{2}, std::int64_t{-1}, INT64_MAX}) {
    EXPECT_THROW(update(envelope, Ratios{1.0, 2.0}, Ids{0, bad}), std::out_of_range);
    EXPECT_THROW(log_M_of(envelope, Ids{bad}), std::out_of_range);
  }
  EXPECT_THROW(update(envelope, Ratios{1.0}), std::invalid_argument);
  EXPECT_EQ(counts(envelope, "seen"), (Counts{0, 0}));
}

TEST(Envelope, RefusesBadOptions) {
  EXPECT_THROW(Envelope({.groups = 0}), std::invalid_argument);
  for (const double level : {0.0, -1.0, 1.1, kNaN}) {
    EXPECT_THROW(Envelope{quantile(level)}, std::invalid_argument);
  }
  for (const double half_life : {0.0, 0.5, kInfinity, kNaN}) {
    EXPECT_THROW(Envelope{quantile(0.5, half_life)}, std::invalid_argument);
  }
}

TEST(Envelope, HalfLifeForgetsAndBatchingDoesNotMatter) {
  Envelope at_once(quantile(0.5, 10.0));
  Envelope one_by_one(quantile(0.5, 10.0));
  Ratios ratios(6000, 4.0);
  std::fill_n(ratios.begin() + 5985, 15, 1.0);
  update(at_once, ratios);
  for (const double ratio : ratios) update(one_by_one, Ratios{ratio});
  // 15 samples weigh 1 - 2^-1.5 = 0.65 of all.
  EXPECT_EQ(at_once.log_M()[0], 1.0);
  EXPECT_EQ(one_by_one.log_M()[0], 1.0);
  EXPECT_EQ(at_once.state().double_column("bin_count"),
            one_by_one.state().double_column("bin_count"));
}

TEST(Envelope, MergeAddsWhatBothHaveSeen) {
  Envelope a(quantile(1.0, 8.0));
  Envelope b(quantile(1.0, 8.0));
  update(a, Ratios(3, 1.0));
  update(b, Ratios(7, 2.0));
  a.merge(b);
  EXPECT_EQ(a.log_M()[0], 2.0);
  EXPECT_EQ(counts(a, "seen"), Counts{10});
  a.merge(a);
  EXPECT_EQ(counts(a, "seen"), Counts{20});
  EXPECT_THROW(a.merge(Envelope(quantile(0.9, 8.0))), std::invalid_argument);
}

TEST(Envelope, StateRestoresEveryBit) {
  std::mt19937_64 generator(9);
  std::normal_distribution<double> normal(0.0, 3.0);
  Ratios ratios(5000);
  for (double& ratio : ratios) ratio = normal(generator);
  ratios[3] = -kInfinity;
  ratios[4] = kNaN;
  for (const EnvelopeOptions& options : {EnvelopeOptions{}, quantile(0.8), quantile(0.8, 7.0)}) {
    Envelope original(options);
    update(original, ratios);
    Envelope copy(options);
    copy.restore(original.state());
    EXPECT_EQ(copy.log_M(), original.log_M());
    update(original, ratios);
    update(copy, ratios);
    EXPECT_EQ(copy.state(), original.state());
    EXPECT_EQ(counts(copy, "violations"), counts(original, "violations"));
  }
}

TEST(Envelope, RestoreRefusesWhatNoEnvelopeHolds) {
  Envelope envelope(quantile(0.5));
  update(envelope, Ratios{1.0, 2.0, 2.0, kNaN});
  const Columns good = envelope.state();
  const std::vector<void (*)(Columns&)> faults = {
      [](Columns& s) { s.ints["seen"] = {1, 2}; },
      [](Columns& s) { s.ints["seen"][0] = 3; },
      [](Columns& s) { s.ints["violations"][0] = -1; },
      [](Columns& s) { s.ints["violations"][0] = 4; },
      [](Columns& s) { s.ints["violations"][0] = 1; },
      [](Columns& s) { s.doubles["max_log_ratio"][0] = 1.0; },
      [](Columns& s) { s.doubles["max_log_ratio"][0] = kNaN; },
      [](Columns& s) { s.doubles["unit"][0] = 2.0; },
      [](Columns& s) { s.ints["bin_start"] = {}; },
      [](Columns& s) { s.ints["bin_start"] = {0, 3}; },
      [](Columns& s) { s.ints["bin_start"] = {1, 2}; },
      [](Columns& s) { s.doubles["bin_edge"] = {2.0, 1.0}; },
      [](Columns& s) { s.doubles["bin_edge"] = {1.0, 1.0}; },
      [](Columns& s) { s.doubles["bin_edge"][0] = 1.0001; },
      [](Columns& s) { s.doubles["bin_edge"][0] = kNaN; },
      [](Columns& s) { s.doubles["bin_edge"][1] = kInfinity; },
      [](Columns& s) { s.doubles["bin_count"][0] = 0.0; },
      [](Columns& s) { s.doubles["bin_count"][0] = kInfinity; },
      [](Columns& s) { s.doubles["bin_count"][0] = 5.0; },
      [](Columns& s) { s.ints["seen"][0] = INT64_MAX; },
      [](Columns& s) { s.ints["observed"][0] = INT64_MAX; },
      [](Columns& s) { s.doubles["weight"][0] = -1.0; },
      [](Columns& s) { s.doubles["square"][0] = kNaN; },
      [](Columns& s) { s.doubles["excess"][0] = 1e9; },
      [](Columns& s) { s.doubles["tail"] = {1.0, 2.0, 2.0}; },
      [](Columns& s) { s.doubles["tail"] = {3.0}; },
      [](Columns& s) { s.ints["group_tail_start"] = {0, 1}; },
      [](Columns& s) { s.doubles.erase("expected"); },
      [](Columns& s) { s.doubles["unknown"] = {}; },
  };
  for (std::size_t i = 0; i < faults.size(); ++i) {
    Columns bad = good;
    faults[i](bad);
    EXPECT_THROW(envelope.restore(bad), std::invalid_argument) << "fault " << i;
  }
  EXPECT_EQ(envelope.state().double_column("bin_edge"), good.double_column("bin_edge"));
  envelope.restore(good);
}

TEST(Envelope, RestoreRefusesMoreWeightThanSamples) {
  Envelope envelope(quantile(0.5, 8.0));
  update(envelope, Ratios{1.0, 2.0});
  Columns state = envelope.state();
  envelope.restore(state);
  // Merged with itself it would overflow.
  state.doubles["bin_count"][0] = 1e308;
  EXPECT_THROW(envelope.restore(state), std::invalid_argument);
}

TEST(Envelope, ServesConcurrentCallers) {
  Envelope shared(quantile(0.5));
  Envelope other(quantile(0.5));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        update(shared, Ratios{1.0, 2.0, 3.0});
        other.merge(shared);
        shared.merge(Envelope(quantile(0.5)));
        (void)shared.log_M();
        (void)other.state();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counts(shared, "seen"), Counts{1200});
  EXPECT_EQ(shared.log_M()[0], 2.0);
}

}  // namespace
}  // namespace rskernels
