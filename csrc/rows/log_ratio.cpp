#include "rows/log_ratio.hpp"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "rows/block.hpp"
#include "rows/elementary.hpp"
#include "rows/logsumexp.hpp"
#include "rows/simd.hpp"
#include "threads/subnormals.hpp"
#include "threads/thread_pool.hpp"

namespace rskernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Below this many bytes of logits a second thread costs more than it saves.
constexpr std::int64_t kChunkBytes = std::int64_t{1} << 18;
constexpr std::int64_t kChunksPerThread = 16;

// NaN where the ratio is invalid; a p_hat of 0 gives -inf even where log q is -inf.
RSKERNELS_INLINE double log_ratio(double log_p_hat, double log_q) {
  const double ratio = log_p_hat == -kInfinity ? -kInfinity : log_p_hat - log_q;
  return ratio < kInfinity ? ratio : std::numeric_limits<double>::quiet_NaN();
}

// Bounded, since an infinite factor would make NaN of the maximum itself.
double inverse(double temperature) {
  return std::min(1.0 / temperature, std::numeric_limits<double>::max());
}

RSKERNELS_TARGET_CLONES
void block_log_ratios(const double* z, const double* p_hat, std::int64_t count, double max,
                      double log_sum, double inverse_temperature, bool log_space, double* ratios) {
  if (log_space) {
    for (std::int64_t i = 0; i < count; ++i) {
      ratios[i] = log_ratio(p_hat[i], (z[i] - max) * inverse_temperature - log_sum);
    }
  } else {
    for (std::int64_t i = 0; i < count; ++i) {
      ratios[i] = log_ratio(natural_log(p_hat[i]), (z[i] - max) * inverse_temperature - log_sum);
    }
  }
}

RSKERNELS_TARGET_CLONES
void add_block(const double* ratios, std::int64_t count, RatioSummary& summary) {
  std::int64_t valid = 0;
  for (std::int64_t i = 0; i < count; ++i) valid += ratios[i] == ratios[i] ? 1 : 0;
  summary.valid += valid;
  summary.invalid += count - valid;
  summary.max_log_ratio = std::max(summary.max_log_ratio, block_max(ratios, count));
}

void add_to_histogram(const double* ratios, std::int64_t count, RatioSummary& summary) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (!std::isnan(ratios[i])) summary.histogram.add(ratios[i]);
  }
}

void add_dense_row(const MatrixView& logits, const MatrixView& p_hat, std::int64_t row,
                   const RatioOptions& options, RatioSummary& summary) {
  const RowSum row_sum = row_sum_exp(logits, row, options.temperature);
  if (!row_sum.is_distribution()) {
    summary.invalid += logits.columns;
    return;
  }
  const double log_sum = std::log(row_sum.sum);
  alignas(64) double z[kBlockColumns];
  alignas(64) double p[kBlockColumns];
  for (std::int64_t begin = 0; begin < logits.columns; begin += kBlockColumns) {
    const std::int64_t count = std::min(kBlockColumns, logits.columns - begin);
    load(logits, row, begin, count, z);
    load(p_hat, row, begin, count, p);
    block_log_ratios(z, p, count, row_sum.max, log_sum, inverse(options.temperature),
                     options.log_space, z);
    add_block(z, count, summary);
    if (options.with_histogram) add_to_histogram(z, count, summary);
  }
}

// Sums are of integers and maxima, so it does not matter which thread adds which rows.
template <class AddRow>
RatioSummary summarize(const MatrixView& logits, int threads, const AddRow& add_row) {
  const std::int64_t row_bytes =
      std::max<std::int64_t>(logits.columns * element_size(logits.dtype), 1);
  const std::int64_t chunk =
      std::max(kChunkBytes / row_bytes + 1, logits.rows / (threads * kChunksPerThread));
  RatioSummary total;
  std::mutex mutex;
  ThreadPool::instance().parallel_for(logits.rows, chunk, threads,
                                      [&](std::int64_t begin, std::int64_t end) {
                                        RatioSummary part;
                                        for (std::int64_t row = begin; row < end; ++row)
                                          add_row(row, part);
                                        const std::lock_guard lock(mutex);
                                        total.merge(part);
                                      });
  return total;
}

}  // namespace

void RatioSummary::merge(const RatioSummary& other) {
  max_log_ratio = std::max(max_log_ratio, other.max_log_ratio);
  valid += other.valid;
  invalid += other.invalid;
  histogram.merge(other.histogram);
}

RatioSummary dense_log_ratios(const MatrixView& logits, const MatrixView& p_hat,
                              const RatioOptions& options) {
  const KeepSubnormals keep;
  return summarize(logits, options.threads, [&](std::int64_t row, RatioSummary& summary) {
    add_dense_row(logits, p_hat, row, options, summary);
  });
}

}  // namespace rskernels
