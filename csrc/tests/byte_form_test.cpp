#include "envelope/byte_form.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "envelope/envelope.hpp"

namespace rskernels {
namespace {

std::string sample() {
  const EnvelopeOptions options{.policy = QuantileOptions{.level = 0.9, .confidence = 0.95}};
  Envelope envelope(options);
  const std::vector<double> ratios{1.0, 2.0, 0.5, -3.0};
  Batch batch;
  batch.log_ratio = ratios.data();
  batch.dtype = DType::kFloat64;
  batch.count = 4;
  envelope.update(batch);
  return encode({options, envelope.state()});
}

Snapshot decode_string(const std::string& bytes) { return decode(std::as_bytes(std::span(bytes))); }

std::string message(const std::string& bytes) {
  try {
    decode_string(bytes);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

TEST(ByteForm, ReturnsWhatWasWritten) {
  const std::string bytes = sample();
  const Snapshot snapshot = decode_string(bytes);
  EXPECT_EQ(encode(snapshot), bytes);
  Envelope copy(snapshot.options);
  copy.restore(snapshot.columns);
  EXPECT_EQ(copy.state(), snapshot.columns);
}

TEST(ByteForm, RefusesEveryTruncationAndEveryFlippedByte) {
  const std::string bytes = sample();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(decode_string(bytes.substr(0, size)), std::invalid_argument) << size;
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    EXPECT_THROW(decode_string(damaged), std::invalid_argument) << i;
  }
  EXPECT_THROW(decode_string(bytes + "x"), std::invalid_argument);
}

TEST(ByteForm, HasOneFormForEveryEnvelope) {
  const std::string content = sample().substr(kHeaderBytes);
  // Policy, reaction, groups and level come before the confidence, which is given, and the
  // half-life, which is not.
  const std::size_t confidence = 4 + 4 + 8 + 8;
  const std::size_t half_life = confidence + 9;
  for (const auto& [place, value] : {std::pair{confidence, '\2'}, {half_life + 3, '\1'}}) {
    std::string other = content;
    other[place] = value;
    EXPECT_NE(message(with_header(other)).find("neither given nor left out"), std::string::npos);
  }
  std::string swapped = content;
  swapped.replace(swapped.find("invalid"), 7, "aaaaaaa");
  EXPECT_NE(message(with_header(swapped)).find("order of their names"), std::string::npos);
}

TEST(ByteForm, RefusesTheNumbersOfAnotherPolicy) {
  for (const PolicyOptions& policy : default_policies()) {
    const EnvelopeOptions options{.policy = policy};
    const std::string content = encode({options, Envelope(options).state()}).substr(kHeaderBytes);
    const std::size_t level = 4 + 4 + 8;
    const std::size_t confidence = level + 8;
    const std::size_t half_life = confidence + 9;
    const std::size_t rate = half_life + 9;
    for (const auto& [name, place] : {std::pair<std::string, std::size_t>{"level", level},
                                      {"confidence", confidence},
                                      {"half_life", half_life},
                                      {"rate", rate},
                                      {"M", rate + 8}}) {
      std::string other = content;
      const bool is_optional = name == "confidence" || name == "half_life";
      const double value = name == "half_life" ? 8.0 : 0.5;
      if (is_optional) other[place] = '\1';
      std::memcpy(other.data() + place + (is_optional ? 1 : 0), &value, sizeof(value));
      bool has_number = false;
      for_each_number(policy, [&](const char* own, const auto&) { has_number |= name == own; });
      const std::string error = message(with_header(other));
      EXPECT_EQ(error.find("does not have") == std::string::npos, has_number)
          << name << " of " << name_of(policy) << ": " << error;
    }
  }
}

TEST(ByteForm, RefusesADecayedMaximumWithoutAHalfLife) {
  const EnvelopeOptions options{.policy = DecayedOptions{.half_life = 8.0}};
  std::string content = encode({options, Envelope(options).state()}).substr(kHeaderBytes);
  content.replace(4 + 4 + 8 + 8 + 9, 9, 9, '\0');
  EXPECT_NE(message(with_header(content)).find("half_life must be finite"), std::string::npos);
}

TEST(ByteForm, SaysWhatIsWrong) {
  std::string bytes = sample();
  EXPECT_NE(message("short").find("5 bytes are no envelope"), std::string::npos);
  EXPECT_NE(message(bytes + "x").find("bytes after its header"), std::string::npos);
  bytes[40] = static_cast<char>(bytes[40] ^ 1);
  EXPECT_NE(message(bytes).find("checksum"), std::string::npos);
  bytes[8] = 9;
  EXPECT_NE(message(bytes).find("version 9"), std::string::npos);
}

}  // namespace
}  // namespace rskernels
