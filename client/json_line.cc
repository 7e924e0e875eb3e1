#include "client/json_line.h"

#include <array>
#include <boost/json/src.hpp>
#include <charconv>
#include <cmath>

namespace thimble {
namespace {

template <typename T>
std::string Number(T value) {
  if (!std::isfinite(value)) return "null";
  std::array<char, 32> text{};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() ? std::string(text.data(), end) : "null";
}

}  // namespace

std::string JsonLine::Quote(std::string_view text) {
  return boost::json::serialize(boost::json::string_view(text.data(), text.size()));
}

JsonLine& JsonLine::Add(std::string_view key, std::string_view value) {
  return AddRaw(key, Quote(value));
}

JsonLine& JsonLine::Add(std::string_view key, double value) { return AddRaw(key, Number(value)); }
JsonLine& JsonLine::Add(std::string_view key, float value) { return AddRaw(key, Number(value)); }

JsonLine& JsonLine::AddRaw(std::string_view key, std::string_view json) {
  if (!fields_.empty()) fields_ += ',';
  fields_ += Quote(key);
  fields_ += ':';
  fields_ += json;
  return *this;
}

}  // namespace thimble
