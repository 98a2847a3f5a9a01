// Copyright 2026 caption_ros contributors
// SPDX-License-Identifier: Apache-2.0
//
// Linear layers and attention for a few rows, as a text decoder has them: weights, keys and values
// are read once, in the order in which they lie, as fast as the memory gives them. Each row's results
// are the same whatever other rows there are. Built by kernels.py on torch's stable interface, so any
// compiler will do.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#define UNROLL _Pragma("GCC unroll 8")

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

namespace {

constexpr int64_t kOuts = 64;  // outputs that lie side by side, four registers of 16
constexpr int64_t kRows = 6;   // rows at once: 24 sums, 4 of weights and one of inputs are registers
constexpr int64_t kRowsOfTask = 48;  // rows that one thread takes through the same weights

// Weights lie as (outputs / 64, inputs / n, 64, n), n of them in 32 bits; so do inputs of a row.
struct Shape {
  int64_t rows, ins, outs;
};

inline int32_t bits(const void* place) {
  int32_t held;
  std::memcpy(&held, place, sizeof(held));
  return held;
}

inline __mmask16 first(int64_t count) {
  return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << count) - 1);
}

// Sums of Rows rows over 64 outputs; Type tells how 32 bits of weights and inputs are multiplied.
template <typename Type, int Rows>
void sum_up(const char* weights, const char* inputs, int64_t steps, typename Type::Sum* result) {
  typename Type::Sum sums[Rows][4];
  UNROLL for (int r = 0; r < Rows; r++)
    UNROLL for (int b = 0; b < 4; b++) sums[r][b] = Type::zero();
  for (int64_t step = 0; step < steps; step++) {
    __m512i part[4];
    UNROLL for (int b = 0; b < 4; b++)
      part[b] = _mm512_loadu_si512(weights + (4 * step + b) * 64);
    UNROLL for (int r = 0; r < Rows; r++) {
      const __m512i input = _mm512_set1_epi32(bits(inputs + (r * steps + step) * 4));
      UNROLL for (int b = 0; b < 4; b++) sums[r][b] = Type::add(sums[r][b], part[b], input);
    }
  }
  UNROLL for (int r = 0; r < Rows; r++)
    UNROLL for (int b = 0; b < 4; b++) result[4 * r + b] = sums[r][b];
}

template <typename Type>
using SumUp = void (*)(const char*, const char*, int64_t, typename Type::Sum*);

template <typename Type>
constexpr SumUp<Type> kSumUp[kRows + 1] = {
    nullptr,         sum_up<Type, 1>, sum_up<Type, 2>, sum_up<Type, 3>,
    sum_up<Type, 4>, sum_up<Type, 5>, sum_up<Type, 6>};

// All rows over all outputs; store(row, output, mask, sums of 16 outputs) is told of each.
template <typename Type, typename Store>
void multiply(const Shape& shape, const char* weights, const char* inputs, const Store& store) {
  const int64_t steps = shape.ins / Type::kIn32Bits;
  const int64_t groups = (shape.outs + kOuts - 1) / kOuts;
  const int64_t parts = (shape.rows + kRowsOfTask - 1) / kRowsOfTask;
  torch::stable::parallel_for(0, groups * parts, 1, [&](int64_t from, int64_t to) {
    typename Type::Sum sums[4 * kRows];
    for (int64_t task = from; task < to; task++) {
      const int64_t group = task / parts;
      const int64_t begin = task % parts * kRowsOfTask;
      const int64_t count = std::min(kRowsOfTask, shape.rows - begin);
      const int64_t times = (count + kRows - 1) / kRows;
      const int64_t each = (count + times - 1) / times;
      for (int64_t row = begin; row < begin + count; row += each) {
        const int64_t some = std::min(each, begin + count - row);
        kSumUp<Type>[some](weights + group * kOuts * steps * 4, inputs + row * steps * 4, steps,
                           sums);
        for (int64_t b = 0; b < 4; b++) {
          const int64_t out = group * kOuts + b * 16;
          if (out >= shape.outs) break;
          const __mmask16 mask = first(shape.outs - out);
          for (int64_t r = 0; r < some; r++) store(row + r, out, mask, sums[4 * r + b]);
        }
      }
    }
  });
}

Shape check(const Tensor& x, const Tensor& weight, int64_t outs, int64_t in_32_bits) {
  const auto sizes = x.sizes();
  STD_TORCH_CHECK(sizes.size() >= 1 && x.is_contiguous() && weight.is_contiguous(),
                  "inputs and weights must be contiguous");
  const int64_t ins = sizes[sizes.size() - 1];
  STD_TORCH_CHECK(weight.dim() == 4 && ins > 0 && ins == weight.size(1) * in_32_bits &&
                      weight.size(2) == kOuts && weight.size(3) == in_32_bits && outs > 0 &&
                      outs <= weight.size(0) * kOuts && outs > (weight.size(0) - 1) * kOuts,
                  "inputs and outputs do not fit the weights");
  return {x.numel() / ins, ins, outs};
}

Tensor result(const Tensor& x, int64_t outs) {
  std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  sizes.back() = outs;
  return torch::stable::new_empty(x, sizes);
}

const float* floats(const Tensor& numbers, int64_t count) {
  STD_TORCH_CHECK(numbers.scalar_type() == ScalarType::Float && numbers.is_contiguous() &&
                      numbers.numel() == count,
                  "wanted as many numbers of float32 as outputs");
  return static_cast<const float*>(numbers.data_ptr());
}

#ifdef __AVX512BF16__
struct BFloat16 {
  using Sum = __m512;
  static constexpr int64_t kIn32Bits = 2;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Sum add(Sum sum, __m512i weights, __m512i inputs) {
    return _mm512_dpbf16_ps(sum, (__m512bh)weights, (__m512bh)inputs);
  }
};

// x (..., in) and weight in bfloat16, bias (out,) in float32; returns bfloat16.
Tensor linear_bfloat16(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t outs) {
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::BFloat16 &&
                      weight.scalar_type() == ScalarType::BFloat16,
                  "inputs and weights must be bfloat16");
  const Shape shape = check(x, weight, outs, BFloat16::kIn32Bits);
  const float* add = floats(bias, outs);
  Tensor y = result(x, outs);
  auto* to = static_cast<uint16_t*>(y.data_ptr());
  multiply<BFloat16>(
      shape, static_cast<const char*>(weight.data_ptr()), static_cast<const char*>(x.data_ptr()),
      [=](int64_t row, int64_t out, __mmask16 mask, __m512 sum) {
        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, add + out));
        _mm256_mask_storeu_epi16(to + row * outs + out, mask, (__m256i)_mm512_cvtneps_pbh(sum));
      });
  return y;
}

// What a head of an image holds, in bfloat16: its keys as weights of one output for each token, and
// its values as weights of one input for each token.
struct Head {
  int64_t tokens, depth;
  int64_t key_groups() const { return (tokens + kOuts - 1) / kOuts; }
  int64_t value_groups() const { return (depth + kOuts - 1) / kOuts; }
  int64_t pairs() const { return (tokens + 1) / 2; }
  int64_t keys() const { return key_groups() * kOuts * depth; }
  int64_t size() const { return keys() + value_groups() * kOuts * pairs() * 2; }
};

void check_seen(const Tensor& seen, int64_t heads, const Head& head) {
  STD_TORCH_CHECK(seen.dim() == 3 && seen.is_contiguous() && seen.size(1) == heads &&
                      seen.size(2) == head.size() && head.depth % 2 == 0 && head.tokens > 0 &&
                      seen.scalar_type() == ScalarType::BFloat16,
                  "place does not fit the keys and values");
}

// A row of numbers in bfloat16; of float32 it is written to room.
inline const uint16_t* narrow(const uint16_t* row, int64_t, uint16_t*) { return row; }
inline const uint16_t* narrow(const float* row, int64_t count, uint16_t* room) {
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = first(count - i);
    _mm256_mask_storeu_epi16(room + i, mask,
                             (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, row + i)));
  }
  return room;
}

// Numbers of the heads of images' tokens, and how far it is from one to the next of each.
template <typename Type>
struct Rows {
  const Type* numbers;
  int64_t image, token, head;
  const Type* of(int64_t i, int64_t h) const { return numbers + i * image + h * head; }
};

// Puts the keys and values of a head in order, Head::size() numbers.
template <typename Type>
void order(const Head& head, const Type* key, int64_t key_row, const Type* value,
           int64_t value_row, uint16_t* keys) {
  uint16_t* values = keys + head.keys();
  std::vector<uint16_t> room(2 * head.depth);
  std::memset(keys, 0, head.size() * sizeof(*keys));
  for (int64_t t = 0; t < head.tokens; t++) {
    const uint16_t* one = narrow(key + t * key_row, head.depth, room.data());
    uint16_t* place = keys + t / kOuts * kOuts * head.depth + t % kOuts * 2;
    for (int64_t d = 0; d < head.depth; d += 2) std::memcpy(place + d * kOuts, one + d, 4);
  }
  for (int64_t t = 0; t < head.tokens; t += 2) {
    const uint16_t* one = narrow(value + t * value_row, head.depth, room.data());
    const bool has_other = t + 1 < head.tokens;
    const uint16_t* other =
        has_other ? narrow(value + (t + 1) * value_row, head.depth, room.data() + head.depth) : one;
    for (int64_t d = 0; d < head.depth; d += kOuts) {
      uint16_t* pair = values + (d / kOuts * head.pairs() + t / 2) * kOuts * 2;
      const int64_t some = std::min(kOuts, head.depth - d);
      for (int64_t i = 0; i < some; i++) {
        const uint32_t both = one[d + i] | (has_other ? other[d + i] : 0u) << 16;
        std::memcpy(pair + 2 * i, &both, sizeof(both));
      }
    }
  }
}

// Puts keys and values, (images, tokens, 2, heads, depth) in bfloat16, in order into seen,
// (images, heads, Head::size()) in bfloat16.
void order_seen(const Tensor& both, Tensor seen) {
  STD_TORCH_CHECK(both.dim() == 5 && both.size(2) == 2 && both.is_contiguous() &&
                      both.scalar_type() == ScalarType::BFloat16,
                  "keys and values must be (images, tokens, 2, heads, depth) in bfloat16");
  const int64_t images = both.size(0), heads = both.size(3);
  const Head head{both.size(1), both.size(4)};
  check_seen(seen, heads, head);
  STD_TORCH_CHECK(seen.size(0) == images, "place does not fit the keys and values");
  const auto* from = static_cast<const uint16_t*>(both.data_ptr());
  auto* to = static_cast<uint16_t*>(seen.data_ptr());
  torch::stable::parallel_for(0, images * heads, 1, [=](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
      const int64_t row = 2 * heads * head.depth;  // from one token to the next
      const uint16_t* key = from + task / heads * head.tokens * row + task % heads * head.depth;
      order(head, key, row, key + heads * head.depth, row, to + task * head.size());
    }
  });
}

// e to the power of numbers up to 0; nothing below -87, and no number of what is none.
__m512 exponential(__m512 x) {
  const __mmask16 counts = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87), _CMP_NLT_UQ);
  const __m512 whole = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  x = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693359375f), x);
  x = _mm512_fnmadd_ps(whole, _mm512_set1_ps(-2.12194440e-4f), x);
  __m512 sum = _mm512_set1_ps(1.0f / 720);
  for (float factor : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    sum = _mm512_fmadd_ps(sum, x, _mm512_set1_ps(factor));
  return _mm512_maskz_scalef_ps(counts, sum, whole);
}

// Turns scores into shares that sum up to 1 but for a factor, which it returns. The shares are in
// bfloat16; there are as many of both as the tokens of whole groups.
float soften(float* scores, uint16_t* shares, float scale, const float* keep, int64_t tokens) {
  __m512 most = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  for (int64_t t = 0; t < tokens; t += 16) {
    const __mmask16 mask = first(tokens - t);
    __m512 some = _mm512_mul_ps(_mm512_loadu_ps(scores + t), _mm512_set1_ps(scale));
    if (keep != nullptr) some = _mm512_add_ps(some, _mm512_maskz_loadu_ps(mask, keep + t));
    _mm512_storeu_ps(scores + t, some);
    most = _mm512_mask_max_ps(most, mask, most, some);
  }
  most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
  __m512 sum = _mm512_setzero_ps();
  for (int64_t t = 0; t < tokens; t += 16) {
    const __m512 some = _mm512_maskz_mov_ps(
        first(tokens - t), exponential(_mm512_sub_ps(_mm512_loadu_ps(scores + t), most)));
    sum = _mm512_add_ps(sum, some);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(shares + t), (__m256i)_mm512_cvtneps_pbh(some));
  }
  return 1 / _mm512_reduce_add_ps(sum);
}

template <typename Result>
void sum_up_some(int64_t rows, const void* weights, const void* inputs, int64_t steps,
                 Result* sums) {
  kSumUp<BFloat16>[rows](static_cast<const char*>(weights), static_cast<const char*>(inputs), steps,
                         sums);
}

// Attention of up to kRows queries to the keys and values of one head.
class Looker {
 public:
  Looker(const Head& head, float scale)
      : head_(head), scale_(scale), queries_(kRows * head.depth), shares_(kRows * room()),
        pairs_(kRows * head.pairs() * 2), scores_(kRows * room()), factors_(kRows) {}

  uint16_t* query(int64_t r) { return &queries_[r * head_.depth]; }

  // keep(row) is added to its scores if it is not null; store(row, place, mask, 16 numbers) is told
  // of what each query sees.
  template <typename Keep, typename Store>
  void look(int64_t rows, const uint16_t* seen, const Keep& keep, const Store& store) {
    const uint16_t* values = seen + head_.keys();
    for (int64_t group = 0; group < head_.key_groups(); group++) {
      sum_up_some(rows, seen + group * kOuts * head_.depth, queries_.data(), head_.depth / 2, sums_);
      for (int64_t r = 0; r < rows; r++)
        UNROLL for (int b = 0; b < 4; b++)
          _mm512_storeu_ps(&scores_[r * room() + group * kOuts + b * 16], sums_[4 * r + b]);
    }
    for (int64_t r = 0; r < rows; r++) {
      factors_[r] = soften(&scores_[r * room()], &shares_[r * room()], scale_, keep(r),
                           head_.tokens);
      std::memcpy(&pairs_[r * head_.pairs() * 2], &shares_[r * room()],
                  head_.pairs() * 2 * sizeof(uint16_t));
    }
    for (int64_t group = 0; group < head_.value_groups(); group++) {
      sum_up_some(rows, values + group * kOuts * head_.pairs() * 2, pairs_.data(), head_.pairs(),
                  sums_);
      for (int64_t r = 0; r < rows; r++)
        for (int64_t b = 0; b < 4 && group * kOuts + b * 16 < head_.depth; b++) {
          const int64_t d = group * kOuts + b * 16;
          store(r, d, first(head_.depth - d),
                _mm512_mul_ps(sums_[4 * r + b], _mm512_set1_ps(factors_[r])));
        }
    }
  }

 private:
  int64_t room() const { return head_.key_groups() * kOuts; }

  const Head head_;
  const float scale_;
  std::vector<uint16_t> queries_, shares_, pairs_;
  std::vector<float> scores_, factors_;
  __m512 sums_[4 * kRows];
};

// Attention of query, (rows, steps, heads, depth) in bfloat16, to what order_seen() made of the
// image that picks, (rows,) in int64, names. keep, (rows, tokens) in float32, is added to the scores;
// empty, nothing is. Returns (rows, steps, heads * depth) in float32.
Tensor attend(const Tensor& query, const Tensor& seen, const Tensor& picks, const Tensor& keep,
              int64_t tokens) {
  STD_TORCH_CHECK(query.dim() == 4 && query.is_contiguous() &&
                      query.scalar_type() == ScalarType::BFloat16,
                  "query must be (rows, steps, heads, depth) in bfloat16");
  const int64_t rows = query.size(0), steps = query.size(1), heads = query.size(2);
  const Head head{tokens, query.size(3)};
  check_seen(seen, heads, head);
  STD_TORCH_CHECK(picks.dim() == 1 && picks.size(0) == rows && picks.is_contiguous() &&
                      picks.scalar_type() == ScalarType::Long,
                  "picks must be as many numbers of int64 as rows");
  const float* kept = keep.numel() == 0 ? nullptr : floats(keep, rows * tokens);
  const int64_t images = seen.size(0);
  const auto* pick = static_cast<const int64_t*>(picks.data_ptr());
  std::vector<std::vector<int64_t>> asking(images);  // places of the queries of each image
  for (int64_t row = 0; row < rows; row++) {
    STD_TORCH_CHECK(pick[row] >= 0 && pick[row] < images, "picks must name an image each");
    for (int64_t step = 0; step < steps; step++) asking[pick[row]].push_back(row * steps + step);
  }
  const auto* from = static_cast<const uint16_t*>(query.data_ptr());
  const auto* all = static_cast<const uint16_t*>(seen.data_ptr());
  const float scale = 1 / std::sqrt(static_cast<float>(head.depth));
  Tensor result = torch::stable::new_empty(query, {rows, steps, heads * head.depth},
                                           ScalarType::Float);
  auto* to = static_cast<float*>(result.data_ptr());
  torch::stable::parallel_for(0, images * heads, 1, [&](int64_t begin, int64_t end) {
    const int64_t width = heads * head.depth;
    Looker looker(head, scale);
    for (int64_t task = begin; task < end; task++) {
      const auto& places = asking[task / heads];
      const int64_t count = places.size(), column = task % heads * head.depth;
      for (int64_t at = 0; at < count; at += kRows) {
        const int64_t some = std::min(kRows, count - at);
        for (int64_t r = 0; r < some; r++)
          std::memcpy(looker.query(r), from + places[at + r] * width + column,
                      head.depth * sizeof(*from));
        looker.look(
            some, all + task * head.size(),
            [&](int64_t r) {
              return kept == nullptr ? nullptr : kept + places[at + r] / steps * tokens;
            },
            [&](int64_t r, int64_t d, __mmask16 mask, __m512 numbers) {
              _mm512_mask_storeu_ps(to + places[at + r] * width + column + d, mask, numbers);
            });
      }
    }
  });
  return result;
}

template <typename Type>
Rows<Type> rows_of(const Tensor& x) {
  return {static_cast<const Type*>(x.data_ptr()), x.stride(0), x.stride(1), x.stride(2)};
}

inline void put(uint16_t* place, __mmask16 mask, __m512 numbers) {
  _mm256_mask_storeu_epi16(place, mask, (__m256i)_mm512_cvtneps_pbh(numbers));
}
inline void put(float* place, __mmask16 mask, __m512 numbers) {
  _mm512_mask_storeu_ps(place, mask, numbers);
}

template <typename Type>
void attend_own_as(const Tensor& query, const Tensor& key, const Tensor& value, float scale,
                   Tensor& result) {
  const int64_t images = query.size(0), heads = query.size(2);
  const Head head{query.size(1), query.size(3)};
  const auto queries = rows_of<Type>(query), keys = rows_of<Type>(key),
             values = rows_of<Type>(value);
  auto* to = static_cast<Type*>(result.data_ptr());
  torch::stable::parallel_for(0, images * heads, 1, [=](int64_t begin, int64_t end) {
    Looker looker(head, scale);
    std::vector<uint16_t> seen(head.size());
    for (int64_t task = begin; task < end; task++) {
      const int64_t image = task / heads, h = task % heads;
      order(head, keys.of(image, h), keys.token, values.of(image, h), values.token, seen.data());
      for (int64_t at = 0; at < head.tokens; at += kRows) {
        const int64_t some = std::min(kRows, head.tokens - at);
        for (int64_t r = 0; r < some; r++) {
          const uint16_t* row = narrow(queries.of(image, h) + (at + r) * queries.token, head.depth,
                                       looker.query(r));
          if (row != looker.query(r)) std::memcpy(looker.query(r), row, head.depth * sizeof(*row));
        }
        looker.look(
            some, seen.data(), [](int64_t) -> const float* { return nullptr; },
            [=](int64_t r, int64_t d, __mmask16 mask, __m512 numbers) {
              put(to + ((image * head.tokens + at + r) * heads + h) * head.depth + d, mask, numbers);
            });
      }
    }
  });
}

// Attention of the tokens of images to one another. query, key and value are (images, tokens, heads,
// depth) in bfloat16 or float32, which is narrowed to bfloat16, their last numbers side by side.
// Returns the same, contiguous.
Tensor attend_own(const Tensor& query, const Tensor& key, const Tensor& value, double scale) {
  for (const Tensor* x : {&query, &key, &value})
    STD_TORCH_CHECK(x->dim() == 4 && x->stride(3) == 1 && x->scalar_type() == query.scalar_type() &&
                        x->size(0) == query.size(0) && x->size(1) == query.size(1) &&
                        x->size(2) == query.size(2) && x->size(3) == query.size(3),
                    "query, key and value must be alike, their last numbers side by side");
  STD_TORCH_CHECK(query.size(3) % 2 == 0 && query.size(3) > 0, "the width of a head must be even");
  Tensor result = torch::stable::new_empty(
      query, {query.size(0), query.size(1), query.size(2), query.size(3)});
  if (query.scalar_type() == ScalarType::Float) {
    attend_own_as<float>(query, key, value, static_cast<float>(scale), result);
  } else {
    STD_TORCH_CHECK(query.scalar_type() == ScalarType::BFloat16,
                    "query must be in bfloat16 or float32");
    attend_own_as<uint16_t>(query, key, value, static_cast<float>(scale), result);
  }
  return result;
}
#endif

#ifdef __AVX512VNNI__
struct Int8 {
  using Sum = __m512i;
  static constexpr int64_t kIn32Bits = 4;
  static Sum zero() { return _mm512_setzero_si512(); }
  static Sum add(Sum sum, __m512i weights, __m512i inputs) {
    return _mm512_dpbusd_epi32(sum, weights, inputs);
  }
};

// How a row was rounded: a number is scale * (rounded - zero).
struct Row {
  float scale;
  int32_t zero, sum;
};

// Rounds a row to 8 bits between its least and its largest number, 0 among them; even, between
// numbers of one size, and zero is 0.
Row round_row(const float* numbers, int64_t count, int8_t* rounded, bool even = false) {
  __m512 least = _mm512_setzero_ps(), most = _mm512_setzero_ps();
  __mmask16 broken = 0;
  for (int64_t i = 0; i < count; i += 16) {
    const __m512 some = _mm512_maskz_loadu_ps(first(count - i), numbers + i);
    broken |= _mm512_cmp_ps_mask(some, some, _CMP_UNORD_Q);
    least = _mm512_min_ps(least, some);
    most = _mm512_max_ps(most, some);
  }
  const float low = _mm512_reduce_min_ps(least), high = _mm512_reduce_max_ps(most);
  const float scale =
      std::max(even ? std::max(high, -low) / 127 : (high - low) / 255, 1e-12f);
  if (broken || !std::isfinite(scale)) {  // else nothing would be seen of it
    std::memset(rounded, 0, count);
    return {std::numeric_limits<float>::quiet_NaN(), 0, 0};
  }
  const int32_t zero = even ? 0 : -128 - static_cast<int32_t>(std::nearbyint(low / scale));
  const __m512 times = _mm512_set1_ps(1 / scale);
  __m512i sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = first(count - i);
    const __m512 some = _mm512_maskz_loadu_ps(mask, numbers + i);
    __m512i whole = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(some, times)),
                                     _mm512_set1_epi32(zero));
    whole = _mm512_max_epi32(_mm512_min_epi32(whole, _mm512_set1_epi32(127)),
                             _mm512_set1_epi32(-128));
    sum = _mm512_add_epi32(sum, _mm512_maskz_mov_epi32(mask, whole));
    _mm_mask_storeu_epi8(rounded + i, mask, _mm512_cvtepi32_epi8(whole));
  }
  return {scale, zero, _mm512_reduce_add_epi32(sum)};
}

// x (..., in) in float32; weight in uint8, 128 more than it means; of each output its scale, the
// sum of its weights and its bias, (out,) in float32. Returns float32.
Tensor linear_int8(const Tensor& x, const Tensor& weight, const Tensor& scales,
                   const Tensor& totals, const Tensor& bias, int64_t outs) {
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float && weight.scalar_type() == ScalarType::Byte,
                  "inputs must be float32, weights uint8");
  const Shape shape = check(x, weight, outs, Int8::kIn32Bits);
  const float *scale = floats(scales, outs), *total = floats(totals, outs),
              *add = floats(bias, outs);
  const auto* from = static_cast<const float*>(x.data_ptr());
  std::vector<int8_t> inputs(shape.rows * shape.ins);
  std::vector<Row> rows(shape.rows);
  // So few numbers that handing them out takes longer.
  const int64_t grain = std::max<int64_t>(1, 16384 / shape.ins);
  torch::stable::parallel_for(0, shape.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++)
      rows[row] = round_row(from + row * shape.ins, shape.ins, inputs.data() + row * shape.ins);
  });
  Tensor y = result(x, outs);
  auto* to = static_cast<float*>(y.data_ptr());
  multiply<Int8>(
      shape, static_cast<const char*>(weight.data_ptr()),
      reinterpret_cast<const char*>(inputs.data()),
      [&, to](int64_t row, int64_t out, __mmask16 mask, __m512i sum) {
        const Row& how = rows[row];
        sum = _mm512_sub_epi32(sum, _mm512_set1_epi32(128 * how.sum));
        const __m512 whole = _mm512_fnmadd_ps(
            _mm512_set1_ps(static_cast<float>(how.zero)),
            _mm512_maskz_loadu_ps(mask, total + out), _mm512_cvtepi32_ps(sum));
        const __m512 unit = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, scale + out),
                                          _mm512_set1_ps(how.scale));
        _mm512_mask_storeu_ps(
            to + row * outs + out, mask,
            _mm512_fmadd_ps(whole, unit, _mm512_maskz_loadu_ps(mask, add + out)));
      });
  return y;
}

constexpr int64_t kGroup = 64;  // inputs whose weights of 4 bits have a scale

// Sums over 64 outputs of a row; its inputs are rounded evenly, whole groups of them.
void sum_up_int4(const char* weights, const uint16_t* scales, const int8_t* inputs,
                 const int32_t* totals, int64_t groups, __m512* sums) {
  const __m512i low = _mm512_set1_epi8(0x0f);
  UNROLL for (int b = 0; b < 4; b++) sums[b] = _mm512_setzero_ps();
  for (int64_t group = 0; group < groups; group++) {
    __m512i part[4];
    // A weight of 4 bits is 8 more than it means.
    UNROLL for (int b = 0; b < 4; b++) part[b] = _mm512_set1_epi32(-8 * totals[group]);
    for (int64_t step = 0; step < kGroup / 8; step++) {
      const __m512i first_four = _mm512_set1_epi32(bits(inputs)),
                    next_four = _mm512_set1_epi32(bits(inputs + 4));
      UNROLL for (int b = 0; b < 4; b++) {
        const __m512i both = _mm512_loadu_si512(weights + b * 64);
        part[b] = _mm512_dpbusd_epi32(part[b], _mm512_and_si512(both, low), first_four);
        part[b] = _mm512_dpbusd_epi32(
            part[b], _mm512_and_si512(_mm512_srli_epi16(both, 4), low), next_four);
      }
      weights += 4 * 64;
      inputs += 8;
    }
    UNROLL for (int b = 0; b < 4; b++) {
      const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales + b * 16));
      const __m512 scale =
          _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
      sums[b] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[b]), scale, sums[b]);
    }
    scales += kOuts;
  }
}

// x (..., ins) in float32; weight in uint8, (outputs / 64, groups, 8, 256), two weights a number: of
// four inputs of 64 outputs, and of the next four; of each group and output its scale, (outputs / 64,
// groups, 64) in bfloat16; bias (outs,) in float32. Returns float32. For few rows: each reads all
// weights.
Tensor linear_int4(const Tensor& x, const Tensor& weight, const Tensor& scales, const Tensor& bias,
                   int64_t ins, int64_t outs) {
  const int64_t groups = (ins + kGroup - 1) / kGroup, blocks = (outs + kOuts - 1) / kOuts;
  STD_TORCH_CHECK(x.dim() >= 1 && x.size(x.dim() - 1) == ins && ins > 0 && x.is_contiguous() &&
                      x.scalar_type() == ScalarType::Float,
                  "inputs must be contiguous, float32, and as many as the weights'");
  STD_TORCH_CHECK(outs > 0 && weight.is_contiguous() && scales.is_contiguous() &&
                      weight.scalar_type() == ScalarType::Byte &&
                      scales.scalar_type() == ScalarType::BFloat16 &&
                      weight.numel() == blocks * groups * kOuts * kGroup / 2 &&
                      scales.numel() == blocks * groups * kOuts,
                  "inputs and outputs do not fit the weights");
  const int64_t rows = x.numel() / ins, width = groups * kGroup;
  const float* add = floats(bias, outs);
  std::vector<int8_t> inputs(rows * width);
  std::vector<int32_t> totals(rows * groups);
  std::vector<Row> how(rows);
  for (int64_t row = 0; row < rows; row++) {
    how[row] = round_row(static_cast<const float*>(x.data_ptr()) + row * ins, ins,
                         &inputs[row * width], true);
    for (int64_t group = 0; group < groups; group++)
      totals[row * groups + group] = _mm512_reduce_add_epi32(_mm512_dpbusd_epi32(
          _mm512_setzero_si512(), _mm512_set1_epi8(1),
          _mm512_loadu_si512(&inputs[row * width + group * kGroup])));
  }
  Tensor y = result(x, outs);
  auto* to = static_cast<float*>(y.data_ptr());
  const auto* from = static_cast<const char*>(weight.data_ptr());
  const auto* scale = static_cast<const uint16_t*>(scales.data_ptr());
  torch::stable::parallel_for(0, blocks, 1, [&, to, from, scale](int64_t begin, int64_t end) {
    __m512 sums[4];
    for (int64_t block = begin; block < end; block++)
      for (int64_t row = 0; row < rows; row++) {
        sum_up_int4(from + block * groups * kOuts * kGroup / 2, scale + block * groups * kOuts,
                    &inputs[row * width], &totals[row * groups], groups, sums);
        for (int64_t b = 0; b < 4; b++) {
          const int64_t out = block * kOuts + b * 16;
          if (out >= outs) break;
          const __mmask16 mask = first(outs - out);
          _mm512_mask_storeu_ps(
              to + row * outs + out, mask,
              _mm512_fmadd_ps(sums[b], _mm512_set1_ps(how[row].scale),
                              _mm512_maskz_loadu_ps(mask, add + out)));
        }
      }
  });
  return y;
}
#endif

}  // namespace

STABLE_TORCH_LIBRARY(caption_ros, library) {
#ifdef __AVX512BF16__
  library.def("linear_bfloat16(Tensor x, Tensor weight, Tensor bias, int outs) -> Tensor");
  library.def("order_seen(Tensor both, Tensor(a!) seen) -> ()");
  library.def(
      "attend(Tensor query, Tensor seen, Tensor picks, Tensor keep, int tokens) -> Tensor");
  library.def("attend_own(Tensor query, Tensor key, Tensor value, float scale) -> Tensor");
#endif
#ifdef __AVX512VNNI__
  library.def(
      "linear_int8(Tensor x, Tensor weight, Tensor scales, Tensor totals, Tensor bias, int outs)"
      " -> Tensor");
  library.def(
      "linear_int4(Tensor x, Tensor weight, Tensor scales, Tensor bias, int ins, int outs)"
      " -> Tensor");
#endif
}

STABLE_TORCH_LIBRARY_IMPL(caption_ros, CPU, library) {
#ifdef __AVX512BF16__
  library.impl("linear_bfloat16", TORCH_BOX(&linear_bfloat16));
  library.impl("order_seen", TORCH_BOX(&order_seen));
  library.impl("attend", TORCH_BOX(&attend));
  library.impl("attend_own", TORCH_BOX(&attend_own));
#endif
#ifdef __AVX512VNNI__
  library.impl("linear_int8", TORCH_BOX(&linear_int8));
  library.impl("linear_int4", TORCH_BOX(&linear_int4));
#endif
}
