#include "rows/logsumexp.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "rows/elementary.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr float kInfinityF = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> normals(std::int64_t count, float scale) {
  std::mt19937 generator(7);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

template <class T>
MatrixView one_row(const std::vector<T>& values, DType dtype) {
  MatrixView view;
  view.data = values.data();
  view.dtype = dtype;
  view.rows = 1;
  view.columns = static_cast<std::int64_t>(values.size());
  return view;
}

template <class T>
double reference(const std::vector<T>& values, double temperature) {
  long double top = -kInfinity;
  for (const T value : values) top = std::max<long double>(top, value);
  long double sum = 0;
  for (const T value : values) sum += std::exp((value - top) / temperature);
  return static_cast<double>(top / temperature + std::log(sum));
}

double logsumexp(const MatrixView& view, double temperature = 1.0) {
  const RowSum row = row_sum_exp(view, 0, temperature);
  return row.max / temperature + std::log(row.sum);
}

TEST(Logsumexp, AgreesWithReferenceAroundBlockEdges) {
  for (const std::int64_t columns : {1, 2, 31, 32, 33, 4095, 4096, 4097, 8192, 32000}) {
    for (const double temperature : {0.25, 1.0, 3.0}) {
      const std::vector<float> z = normals(columns, 4.0f);
      EXPECT_NEAR(logsumexp(one_row(z, DType::kFloat32), temperature), reference(z, temperature),
                  2e-6)
          << columns << " columns, temperature " << temperature;
      const std::vector<double> wide(z.begin(), z.end());
      EXPECT_NEAR(logsumexp(one_row(wide, DType::kFloat64), temperature),
                  reference(wide, temperature), 1e-13 * (1.0 + 16.0 / temperature));
    }
  }
}

TEST(Logsumexp, KeepsItsDigitsAtLargeLogits) {
  for (const float offset : {-1e4f, 1e4f}) {
    std::vector<float> z = normals(5000, 1.0f);
    for (float& value : z) value += offset;
    EXPECT_NEAR(logsumexp(one_row(z, DType::kFloat32)), reference(z, 1.0), 2e-6);
  }
  std::vector<float> extremes(9000, -1e4f);
  extremes[8191] = 1e4f;
  EXPECT_EQ(logsumexp(one_row(extremes, DType::kFloat32)), 1e4);
}

TEST(Logsumexp, IsAtLeastTheMaximum) {
  for (std::int64_t columns = 1; columns < 200; ++columns) {
    EXPECT_GE(row_sum_exp(one_row(normals(columns, 50.0f), DType::kFloat32), 0, 1.0).sum, 1.0);
  }
}

TEST(Logsumexp, SkipsImpossibleClasses) {
  std::vector<float> z(4096 * 3, -kInfinityF);
  z[5000] = 1.5f;
  EXPECT_EQ(logsumexp(one_row(z, DType::kFloat32)), 1.5);
  z[0] = 1.5f;
  EXPECT_NEAR(logsumexp(one_row(z, DType::kFloat32)), 1.5 + std::log(2.0), 1e-7);
}

TEST(Logsumexp, SurvivesAnyTemperature) {
  const std::vector<float> z = {1.0f, 3.0f, 3.0f};
  for (const double temperature : {5e-324, 1e-300, 1e-40, 1e300}) {
    const RowSum row = row_sum_exp(one_row(z, DType::kFloat32), 0, temperature);
    EXPECT_EQ(row.max, 3.0);
    EXPECT_EQ(row.sum, temperature < 1.0 ? 2.0 : 3.0) << temperature;
  }
}

TEST(Logsumexp, MarksRowsThatAreNoDistribution) {
  for (const std::int64_t count : {1, 31, 33, 4096, 4097, 9001}) {
    const auto columns = static_cast<std::size_t>(count);
    for (std::size_t at = 0; at < columns; at += columns < 100 ? 1 : 311) {
      // A payload in the lowest bits must not be shifted into the exponent and lost.
      for (const float bad : {kNaN, std::bit_cast<float>(0x7FC001FFu),
                              std::bit_cast<float>(0xFFC00155u), kInfinityF}) {
        std::vector<float> z = normals(count, 1.0f);
        z[at] = bad;
        EXPECT_FALSE(row_sum_exp(one_row(z, DType::kFloat32), 0, 1.0).is_distribution());
        std::vector<float> impossible(columns, -kInfinityF);
        impossible[at] = bad;
        EXPECT_FALSE(row_sum_exp(one_row(impossible, DType::kFloat32), 0, 1.0).is_distribution());
        std::vector<double> wide(z.begin(), z.end());
        EXPECT_FALSE(row_sum_exp(one_row(wide, DType::kFloat64), 0, 1.0).is_distribution());
      }
    }
    const std::vector<float> nothing(columns, -kInfinityF);
    EXPECT_FALSE(row_sum_exp(one_row(nothing, DType::kFloat32), 0, 1.0).is_distribution());
  }
}

TEST(Logsumexp, ReadsEveryLayoutAlike) {
  constexpr std::int64_t kOuter = 3, kInner = 5, kColumns = 4099;
  const std::vector<float> packed = normals(kOuter * kInner * kColumns, 2.0f);
  // The same matrix with two padding rows a batch and two elements of padding between columns.
  std::vector<float> spread(static_cast<std::size_t>(kOuter * (kInner + 2) * kColumns * 3), kNaN);
  const auto spread_row = [](std::int64_t row) {
    return ((row / kInner) * (kInner + 2) + row % kInner) * kColumns * 3;
  };
  for (std::int64_t row = 0; row < kOuter * kInner; ++row) {
    for (std::int64_t v = 0; v < kColumns; ++v) {
      spread[static_cast<std::size_t>(spread_row(row) + 3 * v)] =
          packed[static_cast<std::size_t>(row * kColumns + v)];
    }
  }
  const MatrixView a{packed.data(), DType::kFloat32, kOuter * kInner, kColumns, 1, kColumns, 0, 1};
  const MatrixView b{spread.data(),   DType::kFloat32,
                     kOuter * kInner, kColumns,
                     kInner,          (kInner + 2) * kColumns * 3,
                     kColumns * 3,    3};
  for (std::int64_t row = 0; row < kOuter * kInner; ++row) {
    EXPECT_EQ(row_sum_exp(a, row, 1.0).sum, row_sum_exp(b, row, 1.0).sum);
    std::vector<double> loaded_a(kColumns), loaded_b(kColumns);
    load(a, row, 0, kColumns, loaded_a.data());
    load(b, row, 0, kColumns, loaded_b.data());
    EXPECT_EQ(loaded_a, loaded_b);
  }
}

TEST(Elementary, WidensEveryHalf) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Float16 half{static_cast<std::uint16_t>(bits)};
    const int exponent = static_cast<int>(bits >> 10 & 31);
    const int mantissa = static_cast<int>(bits & 1023);
    const double magnitude = exponent == 0    ? std::ldexp(mantissa, -24)
                             : exponent == 31 ? (mantissa == 0 ? kInfinity : kNaN)
                                              : std::ldexp(1024 + mantissa, exponent - 25);
    const double expected = bits & 0x8000 ? -magnitude : magnitude;
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(widen(half)));
    } else {
      EXPECT_EQ(widen(half), expected) << bits;
    }
    const BFloat16 brain{static_cast<std::uint16_t>(bits)};
    EXPECT_EQ(std::bit_cast<std::uint32_t>(widen(brain)), bits << 16);
  }
}

TEST(Elementary, Exp2) {
  for (int i = 0; i <= 120000; ++i) {
    const double t = -i * 1e-3;
    const float t32 = static_cast<float>(t);
    EXPECT_NEAR(exp2_nonpositive(t32) / std::exp2(static_cast<double>(t32)), 1.0, 2e-7);
    EXPECT_NEAR(exp2_nonpositive(t) / std::exp2(t), 1.0, 5e-16);
  }
  EXPECT_EQ(exp2_nonpositive(0.0f), 1.0f);
  EXPECT_EQ(exp2_nonpositive(0.0), 1.0);
  EXPECT_LE(exp2_nonpositive(-kInfinityF), 0x1p-125f);
  EXPECT_LE(exp2_nonpositive(-kInfinity), 0x1p-1021);
  EXPECT_TRUE(std::isnan(exp2_nonpositive(kNaN)));
}

TEST(Elementary, NaturalLog) {
  for (int exponent = -1074; exponent < 1024; ++exponent) {
    for (const double mantissa : {1.0, 1.1, 1.25, 1.4142135623730949, 1.4142135623730951, 1.9}) {
      const double x = std::ldexp(mantissa, exponent);
      EXPECT_NEAR(natural_log(x), std::log(x), 4.5e-16 * std::abs(std::log(x))) << x;
    }
  }
  for (int i = -1000; i <= 1000; ++i) {
    const double x = 1.0 + i * 1e-6;
    EXPECT_NEAR(natural_log(x), std::log(x), 4.5e-16 * std::abs(std::log(x))) << x;
  }
  EXPECT_EQ(natural_log(0.0), -kInfinity);
  EXPECT_EQ(natural_log(-0.0), -kInfinity);
  EXPECT_EQ(natural_log(kInfinity), kInfinity);
  for (const double bad : {-5e-324, -1.0, -kInfinity, static_cast<double>(kNaN)}) {
    EXPECT_TRUE(std::isnan(natural_log(bad))) << bad;
  }
}

}  // namespace
}  // namespace rskernels
