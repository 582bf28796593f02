#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "envelope/accumulate.hpp"
#include "envelope/columns.hpp"
#include "envelope/grouped.hpp"
#include "policies/policy.hpp"

namespace rskernels {

// The tallies of every group and of all together, with the Pareto shape of each.
struct EnvelopeReport {
  std::vector<Tally> groups;
  std::vector<double> log_M;
  std::vector<double> shape;
  Tally overall;
  double overall_shape = 0.0;
};

// log M of every group, kept from the log ratios it has been shown. Every method may be called from
// several threads at once.
class Envelope {
 public:
  using PolicyMaker = std::unique_ptr<Policy> (*)(const EnvelopeOptions& options);

  explicit Envelope(const EnvelopeOptions& options, PolicyMaker make = make_policy);

  const EnvelopeOptions& options() const { return options_; }

  // Takes a batch in and returns how many of its rows were above the M they met. One group id a
  // ratio, or none at all in an envelope of one group. Throws, and takes nothing in, for an id
  // outside [0, groups).
  std::int64_t update(const Batch& batch, int threads = 1);
  // Tells which rows of a batch were accepted; its ratios are not read.
  void observe(std::span<const bool> accepted, const Batch& batch);
  void merge(const Envelope& other);

  // NaN for a group that has no M. Throws NoFiniteM for one whose ratios exclude it.
  std::vector<double> log_M() const;
  // For the groups of the rows; the ratios are read by the policy leave_one_out alone, which takes
  // for each row those of the others.
  std::vector<double> log_M(const Batch& batch) const;

  // How many of the largest ratios are held of all groups together, and of each of several.
  std::pair<std::size_t, std::size_t> tail_capacities() const;

  // Of every group; asks for no M and no shape.
  std::vector<Tally> tallies() const;
  EnvelopeReport report() const;

  Columns state() const;
  // Throws std::invalid_argument, and changes nothing, if `state` could not have come from an
  // envelope with these options.
  void restore(const Columns& state);
  // The same of tallies summed over several envelopes, with what else each of them holds.
  void restore(const Columns& tallies, std::span<const Columns> parts);

 private:
  struct Held {
    std::vector<GroupTally> groups;
    std::vector<GroupLine> lines;  // none of a single group
    std::vector<Tail> tails;       // of many groups, without room; none of a single group
    Tail tail;                     // of all groups; where there is one, of that one
    std::unique_ptr<Policy> policy;

    const Tail& tail_of(std::size_t group) const { return tails.empty() ? tail : tails[group]; }
  };

  Held make_held() const;
  static Columns save(const Held& held);
  void load_part(const Columns& part, Held& held) const;
  static std::vector<Tally> load_tallies(const Columns& state, Held& held);
  void check_shape(const Batch& batch) const;
  // M of a group with all that it has seen.
  const InForce& in_force(std::size_t group) const;
  double checked_log_M(std::size_t group) const;
  void add_single(const Batch& batch, int threads);
  void add_grouped(const Batch& batch, int threads, std::vector<std::int64_t>& touched);
  void add_left_out(const Batch& batch, std::span<const double> log_M);
  void show_policy(const Batch& batch);
  std::vector<double> history() const;
  // All but the tallies.
  static void merge_rest(Held& held, const Held& other);

  EnvelopeOptions options_;
  PolicyMaker make_policy_;
  mutable std::mutex mutex_;
  // Changed by const methods where an M is made only when it is asked for.
  mutable Held held_;
};

}  // namespace rskernels
