#include "threads/thread_pool.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RSKERNELS_TSAN
#endif
#elif defined(__SANITIZE_THREAD__)
#define RSKERNELS_TSAN
#endif

namespace rskernels {
namespace {

void expect_every_index_once(std::int64_t count, std::int64_t chunk, int threads) {
  std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
  ThreadPool::instance().parallel_for(count, chunk, threads,
                                      [&](std::int64_t begin, std::int64_t end) {
                                        EXPECT_LE(end - begin, chunk);
                                        for (std::int64_t i = begin; i < end; ++i)
                                          ++visits[static_cast<std::size_t>(i)];
                                      });
  for (const auto& visit : visits) EXPECT_EQ(visit.load(), 1);
}

TEST(ThreadPool, VisitsEveryIndexOnce) {
  for (const std::int64_t count : {0, 1, 2, 7, 1000}) {
    for (const std::int64_t chunk : {1, 3, 5000}) {
      for (const int threads : {1, 2, 9}) expect_every_index_once(count, chunk, threads);
    }
  }
}

TEST(ThreadPool, OnePieceStaysOnTheCallingThread) {
  const auto caller = std::this_thread::get_id();
  ThreadPool::instance().parallel_for(
      8, 8, 4, [&](std::int64_t, std::int64_t) { EXPECT_EQ(std::this_thread::get_id(), caller); });
}

TEST(ThreadPool, ServesConcurrentAndNestedCallers) {
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([] {
      for (int round = 0; round < 50; ++round) expect_every_index_once(64, 1, 4);
    });
  }
  for (std::thread& caller : callers) caller.join();
  ThreadPool::instance().parallel_for(
      4, 1, 4, [](std::int64_t, std::int64_t) { expect_every_index_once(16, 1, 4); });
}

TEST(ThreadPool, PassesExceptionsOn) {
  for (const int threads : {1, 4}) {
    for (std::int64_t at = 0; at < 20; ++at) {
      const auto body = [at](std::int64_t begin, std::int64_t) {
        if (begin == at) throw std::runtime_error("piece failed");
      };
      EXPECT_THROW(ThreadPool::instance().parallel_for(20, 1, threads, body), std::runtime_error);
    }
  }
  expect_every_index_once(100, 1, 4);
}

TEST(ThreadPool, StartsAgainAfterFork) {
#ifdef RSKERNELS_TSAN
  GTEST_SKIP() << "ThreadSanitizer does not support threads after fork";
#endif
  expect_every_index_once(100, 1, 4);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(20);
    std::atomic<int> visits{0};
    ThreadPool::instance().parallel_for(100, 1, 4, [&](std::int64_t, std::int64_t) { ++visits; });
    _exit(visits == 100 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace rskernels
