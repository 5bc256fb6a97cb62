// What the cases of the sanitized driver are made of.
#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <random>
#include <vector>

struct Random {
  std::mt19937_64 engine;
  explicit Random(uint64_t seed) : engine(seed) {}
  int64_t below(int64_t n) { return (int64_t)(engine() % (uint64_t)n); }
  int64_t from(std::initializer_list<int64_t> choices) { return choices.begin()[below(choices.size())]; }
  bool chance(int percent) { return below(100) < percent; }
  float normal() { return std::normal_distribution<float>()(engine); }
};

// Memory of exactly its size.
using Bytes = std::shared_ptr<std::vector<char>>;

struct Buffers {
  std::vector<Bytes> read, written;

  char* made(size_t size, bool output) {
    (output ? written : read).push_back(std::make_shared<std::vector<char>>(size));
    return (output ? written : read).back()->data();
  }
  template <class T>
  T* numbers(size_t count, const std::function<T()>& value, bool output = false) {
    T* data = (T*)made(count * sizeof(T), output);
    for (size_t i = 0; i < count; ++i) data[i] = value();
    return data;
  }
  std::vector<char> result() const {
    std::vector<char> all;
    for (const Bytes& bytes : written) all.insert(all.end(), bytes->begin(), bytes->end());
    return all;
  }
};
