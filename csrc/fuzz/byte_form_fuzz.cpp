#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

#include "byte_form.hpp"
#include "envelope.hpp"

// Any bytes are refused, or make an envelope that writes the same bytes. A body without a header is
// given the one that fits it, since no chance would find its checksum.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto feed = [](std::span<const std::byte> bytes) {
    try {
      const rskernels::Snapshot snapshot = rskernels::decode(bytes);
      rskernels::Envelope envelope(snapshot.options);
      envelope.restore(snapshot.columns);
      // Restored columns are those that were read: sums and counts keep their bits.
      if (envelope.state().ints != snapshot.columns.ints) __builtin_trap();
    } catch (const std::invalid_argument&) {
    }
  };
  const std::span input(reinterpret_cast<const std::byte*>(data), size);
  feed(input);
  const std::string whole = rskernels::with_header({reinterpret_cast<const char*>(data), size});
  feed(std::as_bytes(std::span(whole)));
  return 0;
}
