#include "threads/subnormals.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "envelope/envelope.hpp"
#include "rows/log_ratio.hpp"
#include "threads/thread_pool.hpp"

#if defined(__SSE2__)

namespace rskernels {
namespace {

constexpr double kSmall = 1e-310;

bool counts(double value) {
  const volatile double read = value;
  return read * 0.5 > 0.0;
}

// As torch.set_flush_denormal does for the thread that calls it.
class Subnormals : public testing::Test {
 protected:
  Subnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
  ~Subnormals() override { _mm_setcsr(before_); }

 private:
  const unsigned before_;
};

TEST_F(Subnormals, CountWhileTheyAreKeptAndNotAfterwards) {
  EXPECT_FALSE(counts(kSmall));
  {
    const KeepSubnormals keep;
    EXPECT_TRUE(counts(kSmall));
    const KeepSubnormals nested;
  }
  EXPECT_FALSE(counts(kSmall));
}

// A pool's threads start with the mode of whoever needs them first.
TEST_F(Subnormals, CountInRowsWhicheverThreadReadsThem) {
  constexpr std::int64_t kRows = 3000;
  constexpr std::int64_t kColumns = 64;
  const std::vector<double> logits(static_cast<std::size_t>(kRows * kColumns), 0.0);
  const std::vector<double> p_hat(logits.size(), kSmall);
  MatrixView views[2];
  for (MatrixView& view : views) {
    view.data = (&view == views ? logits : p_hat).data();
    view.dtype = DType::kFloat64;
    view.rows = kRows;
    view.columns = kColumns;
    view.outer_stride = kColumns;
  }
  for (const int threads : {1, 4}) {
    const RatioSummary summary = dense_log_ratios(views[0], views[1], {.threads = threads});
    EXPECT_NEAR(summary.max_log_ratio, -709.64, 0.01);
    EXPECT_FALSE(counts(kSmall));
  }
}

TEST_F(Subnormals, CountAsLogRatiosOfAnEnvelope) {
  const std::vector<double> ratios(200000, kSmall);
  for (const int threads : {1, 4}) {
    Envelope envelope(EnvelopeOptions{});
    const Batch batch{.log_ratio = ratios.data(),
                      .dtype = DType::kFloat64,
                      .count = static_cast<std::int64_t>(ratios.size())};
    envelope.update(batch, threads);
    Envelope other(EnvelopeOptions{});
    other.merge(envelope);
    const double log_M = other.log_M()[0];
    const KeepSubnormals keep;
    EXPECT_EQ(log_M, kSmall);
  }
}

}  // namespace
}  // namespace rskernels

#endif
