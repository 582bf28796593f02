#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "envelope/accumulate.hpp"
#include "envelope/groups.hpp"
#include "policies/policy.hpp"
#include "sketches/columns.hpp"

namespace rskernels {

// The tallies of every group and of all together, with the Pareto shape of each.
struct EnvelopeReport {
  std::vector<Tally> groups;
  std::vector<double> log_M;
  std::vector<double> shape;
  Tally overall;
  double overall_shape = 0.0;
};

// log M of every group, learnt from the log ratios that it has been shown. Every method may be
// called from several threads at once.
class Envelope {
 public:
  using PolicyMaker = std::unique_ptr<Policy> (*)(const EnvelopeOptions& options);

  explicit Envelope(const EnvelopeOptions& options, PolicyMaker make = make_policy);

  const EnvelopeOptions& options() const { return options_; }

  // Takes a batch in and returns how many of its rows were above the M they met. The batch has one
  // group id a ratio, or none at all in an envelope of one group. Throws std::out_of_range, and
  // takes nothing in, for an id outside [0, groups).
  std::int64_t update(const Batch& batch, int threads = 1);
  // Counts the rows of a batch that were accepted; its ratios are not read.
  void observe(std::span<const bool> accepted, const Batch& batch);
  // Adds what an envelope of the same options has seen. Throws std::invalid_argument for others.
  void merge(const Envelope& other);

  // Returns log M of every group, NaN for one that has no M. Throws NoFiniteM if none has one, and
  // the ratios of one exclude it.
  std::vector<double> log_M() const;
  // Returns log M for the group of each row. The ratios are read by the policy leave_one_out alone,
  // which takes for each row those of the others.
  std::vector<double> log_M(const Batch& batch) const;

  // Returns how many of the largest ratios are held of all groups together, and of each of several.
  std::pair<std::size_t, std::size_t> tail_capacities() const;

  // Returns the tally of every group. No M and no shape is made.
  std::vector<Tally> tallies() const;
  EnvelopeReport report() const;

  Columns state() const;
  // Throws std::invalid_argument, and changes nothing, if `state` could not have come from an
  // envelope with these options.
  void restore(const Columns& state);
  // Restores tallies that were merged over several envelopes, with what else each of them holds.
  void restore(const Columns& tallies, std::span<const Columns> parts);

 private:
  Groups make_groups() const;
  static Columns save(const Groups& groups);
  void load_part(const Columns& part, Groups& groups) const;
  static std::vector<Tally> load_tallies(const Columns& state, Groups& groups);
  void check_shape(const Batch& batch) const;
  // Returns log M of groups; throws as `log_M` if all are NaN, and there are any.
  std::vector<double> checked(std::vector<double> values) const;
  void add_single(const Batch& batch, int threads);
  void add_grouped(const Batch& batch, int threads, std::vector<std::int64_t>& touched);
  // Adds what rows met that had an M each.
  void add_left_out(const Batch& batch, std::span<const double> log_M);
  void show_policy(const Batch& batch);
  // Returns log M of every group, NaN where it has none.
  std::vector<double> history() const;
  // Merges all but the tallies.
  static void merge_rest(Groups& groups, const Groups& other);

  EnvelopeOptions options_;
  PolicyMaker make_policy_;
  mutable std::mutex mutex_;
  // Changed by const methods where an M is made only when it is asked for.
  mutable Groups groups_;
};

}  // namespace rskernels
