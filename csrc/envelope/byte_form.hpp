#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "policies/policy.hpp"
#include "sketches/columns.hpp"

namespace rskernels {

inline constexpr std::uint32_t kByteFormVersion = 1;
// Magic, version, length and checksum.
inline constexpr std::size_t kHeaderBytes = 28;

// Everything that makes an envelope.
struct Snapshot {
  EnvelopeOptions options;
  Columns columns;

  bool operator==(const Snapshot&) const = default;
};

// Writes "RSKENVEL", then little-endian: version (32 bits), length of what follows the checksum
// (64), its FNV-1a checksum (64), the options, and the columns with their names and lengths.
std::string encode(const Snapshot& snapshot);

// Puts the header of `encode` before content that holds the options and columns.
std::string with_header(const std::string& content);

// Reads what `encode` wrote. Throws std::invalid_argument, which says what is wrong with the bytes.
Snapshot decode(std::span<const std::byte> bytes);

}  // namespace rskernels
