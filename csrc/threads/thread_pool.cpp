#include "threads/thread_pool.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "threads/subnormals.hpp"

namespace rskernels {

struct ThreadPool::Job {
  const Body& body;
  const std::int64_t count;
  const std::int64_t chunk;
  std::atomic<std::int64_t> next{0};
  // The rest is guarded by the pool's mutex.
  int open_seats = 0;
  int helpers = 0;
  std::exception_ptr error{};

  // Returns the exception that ended this thread's part, if any; then no new piece starts anywhere.
  std::exception_ptr run() noexcept {
    try {
      for (;;) {
        const std::int64_t begin = next.fetch_add(chunk, std::memory_order_relaxed);
        if (begin >= count) return nullptr;
        body(begin, std::min(begin + chunk, count));
      }
    } catch (...) {
      next.store(count, std::memory_order_relaxed);
      return std::current_exception();
    }
  }
};

ThreadPool::ThreadPool() : pid_(getpid()) {}

ThreadPool& ThreadPool::instance() {
  // Never freed: at exit its threads still wait in it, and after fork its mutex may be held by a
  // thread that no longer exists.
  static std::atomic<ThreadPool*> current{nullptr};
  ThreadPool* pool = current.load(std::memory_order_acquire);
  while (pool == nullptr || pool->pid_ != getpid()) {
    auto* fresh = new ThreadPool;
    if (current.compare_exchange_strong(pool, fresh, std::memory_order_acq_rel)) return *fresh;
    delete fresh;
  }
  return *pool;
}

void ThreadPool::grow(int workers) {
  for (; workers_ < workers; ++workers_) {
    std::thread([this] { work(); }).detach();
  }
}

void ThreadPool::work() {
  // A thread starts with the mode of the one that started it.
  const KeepSubnormals keep;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return !jobs_.empty(); });
    Job* job = jobs_.front();
    ++job->helpers;
    if (--job->open_seats == 0) jobs_.pop_front();
    lock.unlock();
    const std::exception_ptr error = job->run();
    lock.lock();
    if (error && !job->error) job->error = error;
    if (--job->helpers == 0) done_.notify_all();
  }
}

void ThreadPool::parallel_for(std::int64_t count, std::int64_t chunk, int threads,
                              const Body& body) {
  const std::int64_t pieces = (count + chunk - 1) / chunk;
  Job job{body, count, chunk};
  job.open_seats = static_cast<int>(std::min<std::int64_t>(threads, pieces)) - 1;
  if (job.open_seats > 0) {
    const std::lock_guard lock(mutex_);
    grow(job.open_seats);
    jobs_.push_back(&job);
    wake_.notify_all();
  }
  const std::exception_ptr error = job.run();
  {
    std::unique_lock lock(mutex_);
    std::erase(jobs_, &job);
    done_.wait(lock, [&job] { return job.helpers == 0; });
  }
  if (error) std::rethrow_exception(error);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace rskernels
