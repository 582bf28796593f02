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

struct Snapshot {
  EnvelopeOptions options;
  Columns columns;

  bool operator==(const Snapshot&) const = default;
};

// "RSKENVEL", then little-endian: version (32 bits), length of what follows the checksum (64), its
// FNV-1a checksum (64), the options, and the columns with their names and lengths.
std::string encode(const Snapshot& snapshot);

// What `encode` puts before the options and columns, and those.
std::string with_header(const std::string& content);

// Throws std::invalid_argument that says what is wrong with the bytes.
Snapshot decode(std::span<const std::byte> bytes);

}  // namespace rskernels
