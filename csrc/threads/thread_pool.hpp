#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>

namespace rskernels {

// Threads that outlive the calls. They start when first needed and again after fork, which leaves a
// child without them.
class ThreadPool {
 public:
  using Body = std::function<void(std::int64_t begin, std::int64_t end)>;

  static ThreadPool& instance();

  // Calls body on [0, count) in pieces of `chunk`, on at most `threads` threads, the calling one
  // among them. Callers do not wait for each other. Rethrows the first exception of body.
  void parallel_for(std::int64_t count, std::int64_t chunk, int threads, const Body& body);

 private:
  struct Job;

  ThreadPool();
  void grow(int workers);
  void work();

  const pid_t pid_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::deque<Job*> jobs_;
  int workers_ = 0;
};

}  // namespace rskernels
