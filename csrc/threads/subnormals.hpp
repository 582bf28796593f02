#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace rskernels {

// While it lives, numbers below the normal ones count on this thread, whatever its caller has set:
// a result would otherwise depend on which thread reads which row.
class KeepSubnormals {
 public:
  KeepSubnormals() : before_(read()) { change(before_ & ~kFlush); }
  ~KeepSubnormals() { change(before_); }
  KeepSubnormals(const KeepSubnormals&) = delete;
  KeepSubnormals& operator=(const KeepSubnormals&) = delete;

 private:
#if defined(__SSE2__)
  // Of MXCSR: results, and operands.
  static constexpr std::uint64_t kFlush = 0x8040;
  static std::uint64_t read() { return _mm_getcsr(); }
  static void write(std::uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
  // Of FPCR: FZ and FZ16, and FIZ, of operands alone.
  static constexpr std::uint64_t kFlush = (1u << 24) | (1u << 19) | 1u;
  static std::uint64_t read() {
    std::uint64_t mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode) : : "memory");
    return mode;
  }
  static void write(std::uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#else
  static constexpr std::uint64_t kFlush = 0;
  static std::uint64_t read() { return 0; }
  static void write(std::uint64_t) {}
#endif

  // Only where the caller flushes, who seldom does: to set the mode takes long.
  void change(std::uint64_t mode) const {
    if ((before_ & kFlush) != 0) write(mode);
  }

  const std::uint64_t before_;
};

}  // namespace rskernels
