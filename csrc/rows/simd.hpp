#pragma once

// Any header of the C library says which library it is.
#include <climits>

#define RSKERNELS_INLINE inline __attribute__((always_inline))

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define RSKERNELS_SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RSKERNELS_SANITIZED
#endif

// Clones are chosen by an ifunc resolver, which runs before a sanitizer is ready.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && __GNUC__ >= 12 && \
    !defined(__clang__) && !defined(RSKERNELS_SANITIZED) && !defined(RSKERNELS_ONE_LEVEL)
#define RSKERNELS_TARGET_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RSKERNELS_TARGET_CLONES
#endif
