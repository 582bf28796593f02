#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "envelope/byte_form.hpp"
#include "envelope/envelope.hpp"

// Any bytes are refused by std::invalid_argument, or make an envelope that writes the same bytes,
// tells M, reports, merges and takes rows in, and can be restored after all of that. No chance
// finds a checksum, nor counts, sums and tails that fit each other: the mutator starts from
// envelopes of every policy and mends the header, and the run fails if a policy was never restored.

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace rskernels {
namespace {

using Random = std::mt19937;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kManyRows = std::int64_t{1} << 50;
// Fewer runs may miss a policy by chance.
constexpr std::uint64_t kEnoughRuns = 2000;

std::uint64_t runs = 0;
std::array<std::uint64_t, kPolicyCount> restored{};

void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "not so: %s\n", what);
  std::abort();
}

std::string write(const Envelope& envelope) {
  return encode({envelope.options(), envelope.state()});
}

template <class Map>
void print_differing(const Map& columns, const Map& others) {
  for (const auto& [name, values] : columns) {
    const auto other = others.find(name);
    const bool differs =
        other == others.end() || other->second.size() != values.size() ||
        std::memcmp(other->second.data(), values.data(), values.size() * sizeof(values[0])) != 0;
    if (differs) std::fprintf(stderr, "%s differs\n", name.c_str());
  }
}

// The same with one zero for the two that are equal.
Snapshot with_one_zero(Snapshot snapshot) {
  for (auto& [name, values] : snapshot.columns.doubles) {
    for (double& value : values) value = value == 0.0 ? 0.0 : value;
  }
  return snapshot;
}

void check_holds(const Envelope& envelope, const Snapshot& snapshot) {
  const Snapshot held = with_one_zero({envelope.options(), envelope.state()});
  const Snapshot read = with_one_zero(snapshot);
  if (encode(held) == encode(read)) return;
  print_differing(held.columns.ints, read.columns.ints);
  print_differing(held.columns.doubles, read.columns.doubles);
  check(false, "an envelope holds what it was read from");
}

std::string as_string(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

std::size_t below(Random& random, std::size_t end) { return random() % end; }

EnvelopeOptions draw_options(Random& random) {
  EnvelopeOptions options;
  options.policy = default_policies()[below(random, kPolicyCount)];
  options.on_violation = static_cast<OnViolation>(below(random, kOnViolationCount));
  options.groups = below(random, 2) == 0 ? 1 : 3;
  const bool forgets = below(random, 2) == 0;
  if (auto* quantile = std::get_if<QuantileOptions>(&options.policy)) {
    quantile->level = 0.9;
    if (forgets) quantile->half_life = 8.0;
    if (!forgets && below(random, 2) == 0) quantile->confidence = 0.95;
  } else if (auto* budget = std::get_if<BudgetOptions>(&options.policy)) {
    budget->rate = 0.5;
    if (forgets) budget->half_life = 8.0;
  } else if (auto* decayed = std::get_if<DecayedOptions>(&options.policy)) {
    decayed->half_life = 8.0;
  } else if (auto* fixed = std::get_if<FixedOptions>(&options.policy)) {
    fixed->M = 2.0;
  }
  return options;
}

std::int64_t show(Envelope& envelope, Random& random, std::size_t most) {
  static constexpr double kOdd[] = {kNaN,    kInfinity, -kInfinity, 0.0,   -0.0,  5e-324,
                                    -5e-324, 1e308,     -1e308,     700.0, -700.0};
  std::normal_distribution<double> normal(0.0, 2.0);
  std::vector<double> ratios(below(random, most + 1));
  std::vector<std::int64_t> ids;
  for (double& ratio : ratios) {
    ratio = below(random, 16) == 0 ? kOdd[below(random, std::size(kOdd))] : normal(random);
    ids.push_back(static_cast<std::int64_t>(
        below(random, static_cast<std::size_t>(envelope.options().groups))));
  }
  Batch batch;
  batch.log_ratio = ratios.data();
  batch.dtype = DType::kFloat64;
  batch.count = static_cast<std::int64_t>(ratios.size());
  batch.group_ids = envelope.options().groups > 1 ? ids.data() : nullptr;
  const std::int64_t violations = envelope.update(batch);
  check(violations <= batch.count, "no more violations than rows");
  bool accepted[64];
  check(ratios.size() <= std::size(accepted), "the rows fit");
  for (bool& row : accepted) row = below(random, 2) == 0;
  envelope.observe({accepted, ratios.size()}, batch);
  return batch.count;
}

std::string fresh(Random& random) {
  Envelope envelope(draw_options(random));
  for (std::size_t batches = below(random, 4); batches > 0; --batches) show(envelope, random, 40);
  return write(envelope);
}

// Another envelope, near this one: most of what is changed in a single place fits nothing else.
std::string step(const std::string& bytes, Random& random) {
  Snapshot snapshot = decode(std::as_bytes(std::span(bytes)));
  if (below(random, 4) == 0) {
    Envelope envelope(snapshot.options);
    envelope.restore(snapshot.columns);
    show(envelope, random, 40);
    return write(envelope);
  }
  const auto change = [&](auto& columns) {
    // Bytes may be read that have no columns, and restore nothing.
    if (columns.empty()) return;
    auto column =
        std::next(columns.begin(), static_cast<std::ptrdiff_t>(below(random, columns.size())));
    auto& values = column->second;
    using Value = typename std::remove_cvref_t<decltype(values)>::value_type;
    if (below(random, 4) == 0) {
      values.resize(below(random, values.size() + 3));
    } else if (!values.empty()) {
      Value& value = values[below(random, values.size())];
      switch (below(random, 6)) {
        case 0:
          LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(&value), sizeof(value), sizeof(value));
          break;
        case 1:
          value = values[below(random, values.size())];
          break;
        case 2:
          value = Value{0} * (below(random, 2) == 0 ? Value{1} : Value{-1});
          break;
        case 3:
          value = below(random, 2) == 0 ? std::numeric_limits<Value>::max()
                                        : std::numeric_limits<Value>::lowest();
          break;
        case 4:
          if constexpr (std::is_same_v<Value, double>) {
            value = std::nextafter(value, below(random, 2) == 0 ? kInfinity : -kInfinity);
          } else {
            value = static_cast<Value>(static_cast<std::uint64_t>(value) + below(random, 3) - 1);
          }
          break;
        default:
          value = static_cast<Value>(std::int64_t{1} << below(random, 63));
      }
    }
  };
  below(random, 2) == 0 ? change(snapshot.columns.ints) : change(snapshot.columns.doubles);
  return encode(snapshot);
}

void ask(const Envelope& envelope) {
  try {
    (void)envelope.log_M();
  } catch (const NoFiniteM&) {
  }
  const EnvelopeReport report = envelope.report();
  for (const Tally& tally : report.groups) {
    check(tally.violations <= tally.decided && tally.decided <= tally.valid(),
          "violations are decided, and those valid");
  }
}

// What an envelope writes it reads, whatever became of it since.
void reread(const Envelope& envelope) {
  const std::string bytes = write(envelope);
  const Snapshot snapshot = decode(std::as_bytes(std::span(bytes)));
  Envelope copy(snapshot.options);
  copy.restore(snapshot.columns);
  check_holds(copy, snapshot);
  check(write(copy) == bytes, "a copy writes the same bytes");
}

void use(Envelope& envelope, Random& random) {
  ask(envelope);
  const Tally overall = envelope.report().overall;
  // No envelope counts further than eight times as many.
  if (std::max(overall.seen, overall.observed) > kManyRows) return;
  Envelope other(envelope.options());
  show(other, random, 40);
  other.merge(envelope);
  envelope.merge(envelope);
  reread(envelope);
  envelope.merge(other);
  reread(envelope);
  for (int batch = 0; batch < 2; ++batch) show(envelope, random, 40);
  ask(envelope);
  reread(envelope);
}

void print_restored() {
  std::fprintf(stderr, "restored, of %llu runs:", static_cast<unsigned long long>(runs));
  for (std::size_t i = 0; i < kPolicyCount; ++i) {
    std::fprintf(stderr, " %s %llu", name_of(default_policies()[i]),
                 static_cast<unsigned long long>(restored[i]));
  }
  std::fprintf(stderr, "\n");
  const bool all = std::ranges::all_of(restored, [](std::uint64_t count) { return count > 0; });
  if (all || runs < kEnoughRuns) return;
  std::fprintf(stderr, "a policy was never restored\n");
  std::_Exit(1);
}

}  // namespace
}  // namespace rskernels

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  std::atexit(rskernels::print_restored);
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned int seed) {
  using namespace rskernels;
  Random random(seed);
  const std::size_t choice = below(random, 16);
  if (choice == 0) return LLVMFuzzerMutate(data, size, max_size);
  std::string bytes;
  if (choice <= 3 && size > kHeaderBytes) {
    std::vector<std::uint8_t> content(data + kHeaderBytes, data + size);
    const std::size_t most = max_size - kHeaderBytes;
    content.resize(std::max(content.size(), most));
    bytes = with_header(
        as_string(content.data(), LLVMFuzzerMutate(content.data(), size - kHeaderBytes, most)));
  } else {
    try {
      bytes = choice == 4 ? fresh(random) : step(as_string(data, size), random);
    } catch (const std::invalid_argument&) {
      bytes = fresh(random);
    }
  }
  if (bytes.size() > max_size) return size;
  std::memcpy(data, bytes.data(), bytes.size());
  return bytes.size();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rskernels;
  ++runs;
  const std::string bytes = as_string(data, size);
  Snapshot snapshot;
  try {
    snapshot = decode(std::as_bytes(std::span(bytes)));
    Envelope(snapshot.options).restore(snapshot.columns);
  } catch (const std::invalid_argument&) {
    return 0;
  }
  Envelope envelope(snapshot.options);
  envelope.restore(snapshot.columns);
  ++restored[snapshot.options.policy.index()];
  check(encode(snapshot) == bytes, "what was read is written as it was");
  check_holds(envelope, snapshot);
  Random random(static_cast<Random::result_type>(size));
  use(envelope, random);
  return 0;
}
