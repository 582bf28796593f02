#include "sketches/tail.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace rskernels {
namespace {

constexpr std::size_t kCapacity = 4096;
constexpr std::size_t kValues = 60000;

using Named = std::pair<std::string, std::function<double(int)>>;

// Orders and shapes for which a sample tells the tail everything, nothing and the opposite.
std::vector<Named> sequences() {
  auto generator = std::make_shared<std::mt19937_64>(5);
  const auto normal = [generator](int) { return std::normal_distribution<double>()(*generator); };
  return {
      {"normal", normal},
      {"heavy", [normal](int i) { return std::tan(normal(i)); }},
      {"ascending", [](int i) { return 1.0 * i; }},
      {"descending", [](int i) { return -1.0 * i; }},
      {"equal", [](int) { return 1.0; }},
      {"few values", [normal](int i) { return std::floor(2.0 * normal(i)); }},
      {"one far above", [](int i) { return i == 7 ? 1e300 : std::sin(1.0 * i); }},
      {"large at a stride", [](int i) { return i % 16 == 0 ? 1.0 + i : 1.0 / (1.0 + i); }},
      {"small at a stride", [](int i) { return i % 16 == 0 ? 1.0 / (1.0 + i) : 1.0 + i; }},
      {"zeros of both signs", [](int i) { return i % 2 == 0 ? 0.0 : -0.0; }},
  };
}

TEST(Tail, KeepsTheLargestOfAnySequence) {
  for (const auto& [name, value] : sequences()) {
    for (const std::size_t capacity : {std::size_t{1}, std::size_t{50}, kCapacity}) {
      std::vector<double> values(kValues);
      for (std::size_t i = 0; i < kValues; ++i) values[i] = value(static_cast<int>(i));
      Tail one(capacity);
      Tail together(capacity);
      Tail uneven(capacity);
      for (const double each : values) one.add(each);
      together.add(values.data(), kValues);
      for (std::size_t begin = 0, step = 1; begin < kValues; begin += step, step = step * 3 + 1) {
        uneven.add(values.data() + begin, std::min(step, kValues - begin));
      }
      std::ranges::sort(values, std::greater<>{});
      const double last = values[capacity - 1];
      values.resize(capacity);
      for (const Tail* tail : {&one, &together, &uneven}) {
        EXPECT_EQ(tail->largest(), values) << name << ", capacity " << capacity;
        EXPECT_LE(tail->threshold(), last) << name << ", capacity " << capacity;
      }
    }
  }
}

TEST(Tail, TakesNeitherInvalidRatiosNorThoseUpToItsFloor) {
  const double values[] = {3.0, NAN, 1.0, INFINITY, 2.0, 1.5, -INFINITY};
  Tail tail(4, 1.5);
  tail.add(values, 7);
  EXPECT_EQ(tail.largest(), (std::vector<double>{3.0, 2.0}));
}

TEST(Tail, MergesToTheSameWhateverTheOrder) {
  std::mt19937_64 generator(4);
  std::normal_distribution<double> normal;
  Tail all(50);
  Tail parts[2] = {Tail(50), Tail(50)};
  for (int i = 0; i < 5000; ++i) {
    const double value = normal(generator);
    all.add(value);
    parts[i % 2].add(value);
  }
  parts[1].merge(parts[0]);
  EXPECT_EQ(parts[1].largest(), all.largest());
  EXPECT_EQ(all.largest().size(), 50u);
}

}  // namespace
}  // namespace rskernels
