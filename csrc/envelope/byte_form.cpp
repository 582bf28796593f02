#include "envelope/byte_form.hpp"

#include <bit>
#include <cstring>
#include <limits>
#include <map>
#include <string_view>
#include <type_traits>

namespace rskernels {
namespace {

static_assert(std::endian::native == std::endian::little, "the byte form is little-endian");

constexpr std::string_view kMagic = "RSKENVEL";
static_assert(kHeaderBytes == kMagic.size() + sizeof(kByteFormVersion) + 2 * sizeof(std::uint64_t));

std::uint64_t checksum(std::span<const std::byte> bytes) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const std::byte byte : bytes) {
    hash = (hash ^ std::to_integer<std::uint64_t>(byte)) * 0x100000001B3u;
  }
  return hash;
}

class Writer {
 public:
  template <class T>
  void put(const T* values, std::size_t count) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(values), count * sizeof(T));
  }
  template <class T>
  void put(T value) {
    put(&value, 1);
  }
  void put(const std::optional<double>& value) {
    put(static_cast<std::uint8_t>(value.has_value()));
    put(value.value_or(0.0));
  }
  template <class Map>
  void put_columns(const Map& columns) {
    put(static_cast<std::uint32_t>(columns.size()));
    for (const auto& [name, values] : columns) {
      put(static_cast<std::uint32_t>(name.size()));
      put(name.data(), name.size());
      put(static_cast<std::uint64_t>(values.size()));
      put(values.data(), values.size());
    }
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  void get(T* values, std::size_t count) {
    if (count > bytes_.size() / sizeof(T)) {
      throw std::invalid_argument("the bytes of the envelope end too early");
    }
    if (count > 0) std::memcpy(values, bytes_.data(), count * sizeof(T));
    bytes_ = bytes_.subspan(count * sizeof(T));
  }
  template <class T>
  T get() {
    T value;
    get(&value, 1);
    return value;
  }
  std::optional<double> get_optional() {
    const auto has_value = get<std::uint8_t>();
    const double value = get<double>();
    if (has_value > 1 || (has_value == 0 && std::bit_cast<std::uint64_t>(value) != 0)) {
      throw std::invalid_argument("an option in the bytes is neither given nor left out");
    }
    return has_value == 1 ? std::optional(value) : std::nullopt;
  }
  template <class Map>
  void get_columns(Map& columns) {
    using Column = typename Map::mapped_type;
    const auto count = get<std::uint32_t>();
    for (std::uint32_t i = 0; i < count; ++i) {
      std::string name(fitting<char>(get<std::uint32_t>()), '\0');
      get(name.data(), name.size());
      if (!columns.empty() && name <= columns.rbegin()->first) {
        throw std::invalid_argument("the columns in the bytes are not in the order of their names");
      }
      Column column(fitting<typename Column::value_type>(get<std::uint64_t>()));
      get(column.data(), column.size());
      columns[name] = std::move(column);
    }
  }
  bool at_end() const { return bytes_.empty(); }

 private:
  // A length that the rest can hold, so that a wrong one does not ask for memory.
  template <class T>
  std::size_t fitting(std::uint64_t count) const {
    if (count > bytes_.size() / sizeof(T)) {
      throw std::invalid_argument("a length in the bytes of the envelope is beyond their end");
    }
    return static_cast<std::size_t>(count);
  }

  std::span<const std::byte> bytes_;
};

std::uint32_t get_below(Reader& reader, std::size_t count, const char* what) {
  const auto index = reader.get<std::uint32_t>();
  if (index >= count) {
    throw std::invalid_argument(std::string("the bytes name an unknown ") + what);
  }
  return index;
}

using Numbers = std::map<std::string, std::optional<double>>;

// Every policy writes the numbers of all: these in place of those that it does not have.
const Numbers& unused_numbers() {
  static const Numbers numbers = {{"level", 1.0},
                                  {"confidence", std::nullopt},
                                  {"half_life", std::nullopt},
                                  {"rate", 1.0},
                                  {"M", 1.0}};
  return numbers;
}

void put_policy(Writer& writer, const PolicyOptions& policy) {
  Numbers numbers = unused_numbers();
  for_each_number(policy, [&](const char* name, const auto& number) { numbers.at(name) = number; });
  writer.put(*numbers.at("level"));
  writer.put(numbers.at("confidence"));
  writer.put(numbers.at("half_life"));
  writer.put(*numbers.at("rate"));
  writer.put(*numbers.at("M"));
}

PolicyOptions get_policy(Reader& reader, std::uint32_t index) {
  Numbers numbers;
  numbers["level"] = reader.get<double>();
  numbers["confidence"] = reader.get_optional();
  numbers["half_life"] = reader.get_optional();
  numbers["rate"] = reader.get<double>();
  numbers["M"] = reader.get<double>();
  PolicyOptions policy = default_policies()[index];
  for_each_number(policy, [&](const char* name, auto& number) {
    std::optional<double>& value = numbers.at(name);
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(number)>, double>) {
      // No policy accepts NaN.
      number = value.value_or(std::numeric_limits<double>::quiet_NaN());
    } else {
      number = value;
    }
    value = unused_numbers().at(name);
  });
  if (numbers != unused_numbers()) {
    throw std::invalid_argument(std::string("the bytes hold a number that the policy ") +
                                name_of(policy) + " does not have");
  }
  return policy;
}

}  // namespace

std::string encode(const Snapshot& snapshot) {
  const EnvelopeOptions& options = snapshot.options;
  Writer body;
  body.put(static_cast<std::uint32_t>(options.policy.index()));
  body.put(static_cast<std::uint32_t>(options.on_violation));
  body.put(options.groups);
  put_policy(body, options.policy);
  body.put_columns(snapshot.columns.ints);
  body.put_columns(snapshot.columns.doubles);
  return with_header(body.take());
}

std::string with_header(const std::string& content) {
  Writer all;
  all.put(kMagic.data(), kMagic.size());
  all.put(kByteFormVersion);
  all.put(static_cast<std::uint64_t>(content.size()));
  all.put(checksum(std::as_bytes(std::span(content))));
  all.put(content.data(), content.size());
  return all.take();
}

Snapshot decode(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderBytes || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    throw std::invalid_argument("these " + std::to_string(bytes.size()) + " bytes are no envelope");
  }
  Reader header(bytes.subspan(kMagic.size()));
  const auto version = header.get<std::uint32_t>();
  if (version != kByteFormVersion) {
    throw std::invalid_argument("the bytes have version " + std::to_string(version) +
                                ", this library reads version " + std::to_string(kByteFormVersion));
  }
  const auto length = header.get<std::uint64_t>();
  const auto sum = header.get<std::uint64_t>();
  const std::span<const std::byte> content = bytes.subspan(kHeaderBytes);
  if (length != content.size()) {
    throw std::invalid_argument("the envelope has " + std::to_string(length) +
                                " bytes after its header, got " + std::to_string(content.size()));
  }
  if (sum != checksum(content)) {
    throw std::invalid_argument("the bytes of the envelope are damaged: the checksum differs");
  }
  Reader body(content);
  Snapshot snapshot;
  EnvelopeOptions& options = snapshot.options;
  const std::uint32_t policy = get_below(body, kPolicyCount, "policy");
  options.on_violation =
      static_cast<OnViolation>(get_below(body, kOnViolationCount, "reaction to violations"));
  options.groups = body.get<std::int64_t>();
  options.policy = get_policy(body, policy);
  body.get_columns(snapshot.columns.ints);
  body.get_columns(snapshot.columns.doubles);
  if (!body.at_end()) throw std::invalid_argument("the envelope has bytes after its end");
  check_options(options);
  if (snapshot.columns.int_column("seen").size() != static_cast<std::size_t>(options.groups)) {
    throw std::invalid_argument("the envelope does not hold the groups that it names");
  }
  return snapshot;
}

}  // namespace rskernels
