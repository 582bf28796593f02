#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace rskernels {

// The state of an envelope as named flat arrays: what a checkpoint and the byte form hold.
struct Columns {
  std::map<std::string, std::vector<std::int64_t>> ints;
  std::map<std::string, std::vector<double>> doubles;

  const std::vector<std::int64_t>& int_column(const std::string& name) const {
    return find(ints, name);
  }
  const std::vector<double>& double_column(const std::string& name) const {
    return find(doubles, name);
  }

  bool operator==(const Columns&) const = default;

 private:
  template <class Map>
  static const typename Map::mapped_type& find(const Map& columns, const std::string& name) {
    const auto column = columns.find(name);
    if (column == columns.end()) throw std::invalid_argument("the state lacks " + name);
    return column->second;
  }
};

[[noreturn]] inline void reject_group(std::size_t group, const std::string& what) {
  throw std::invalid_argument("group " + std::to_string(group) + ": " + what);
}

}  // namespace rskernels
