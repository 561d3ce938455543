// Copyright 2026 The hf_swin authors.
//
// Licensed under the Apache License, Version 2.0 (the "License");
// you may not use this file except in compliance with the License.
// You may obtain a copy of the License at
//
//     http://www.apache.org/licenses/LICENSE-2.0
//
// Unless required by applicable law or agreed to in writing, software
// distributed under the License is distributed on an "AS IS" BASIS,
// WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
// See the License for the specific language governing permissions and
// limitations under the License.
//
// A linear layer on a CPU and what surrounds it, y = residual + f(norm(x) Wt + bias), for weights that lie as the processor
// reads them: the tiles and blocks of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).
// Rows are normalised when they are first read, a tile of y is finished before it is first written. Weights and sums are
// float32 whatever the tensors are.

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "vectors.h"

// Weights (columns, inner) lie in panels of so many columns: (panels, inner, COLUMNS), the last filled up with zeros.
constexpr int COLUMNS = VECTORS * LANES;
extern "C" const int64_t linear_columns = COLUMNS;
// So many rows of x stay in a cache while the weights go by.
constexpr int BLOCK = 200;
// With fewer rows than this for each, threads share the columns instead: all weights are read once then.
constexpr int FEW = 64;

// What Python sends, in this order.
struct Sizes {
    int64_t rows, inner, columns, activation, threads;
};
template <typename S>
struct Operands {
    const S* x;
    const float *weight, *bias;
    const float* epsilon;  // of the norm, or null for none
    const S* residual;     // as large as y, or null for none
    S* y;
};
enum Activation { NONE, GELU, GELU_TANH, RELU };

static inline Floats magnitude(Floats x) { return x < 0.0f ? -x : x; }

// x times the share of a normal distribution below x. That share is 1/2 + x P(x^2) / Q(x^2) to 7e-9 for |x| <= 5.5, where
// 2e-8 are left; the coefficients are fitted to it, for the largest error to be least.
static inline Floats gelu(Floats x) {
    Floats t = x * x;
    Floats p = t * 2.274950970e-8f + 6.352109905e-6f;
    p = t * p + 1.688243288e-4f;
    p = t * p + 4.677252163e-3f;
    p = t * p + 3.385251315e-2f;
    p = t * p + 3.989422346e-1f;
    Floats q = t * 1.197507626e-6f + 7.364708358e-5f;
    q = t * q + 1.884437035e-3f;
    q = t * q + 2.864579455e-2f;
    q = t * q + 2.515215850e-1f;
    q = t * q + 1.0f;
    Floats inside = x * 0.5f + t * p / q;
    return x > 5.5f ? x : x < -5.5f ? x * 0.0f : inside;
}

// x sigmoid(2 u): the same as 0.5 x (1 + tanh u).
static inline Floats gelu_tanh(Floats x) {
    Floats u = 0.79788456f * (x + 0.044715f * x * x * x), e = exponential(-2.0f * magnitude(u));
    return x * (u < 0.0f ? e : Floats{} + 1.0f) / (1.0f + e);
}

template <typename F>
static inline void each(float* numbers, int count, F f) {
    for (int i = 0; i < count; i += LANES) at(numbers + i) = f(at(numbers + i));
}

static inline void activate(float* numbers, int count, int64_t activation) {
    if (activation == GELU) each(numbers, count, gelu);
    if (activation == GELU_TANH) each(numbers, count, gelu_tanh);
    if (activation == RELU) each(numbers, count, [](Floats x) { return x < 0.0f ? Floats{} : x; });
}

static inline Floats load(const float* numbers) { return at(numbers); }
static inline Floats load(const Bfloat16* numbers) {
    return reinterpret_cast<Floats>(__builtin_convertvector(*reinterpret_cast<const Halves*>(numbers), Ints) << 16);
}

template <typename S>
static void copy(const S* numbers, int64_t count, float* target) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) at(target + i) = load(numbers + i);
    for (; i < count; ++i) target[i] = to_float(numbers[i]);
}

// A row with a mean of 0 and a variance of 1; gain and offset of the norm are part of the weights.
static void normalize(float* row, int64_t count, float epsilon) {
    float sum = 0, squares = 0;
    for (int64_t i = 0; i < count; ++i) sum += row[i];
    const float mean = sum / count;
    for (int64_t i = 0; i < count; ++i) squares += (row[i] - mean) * (row[i] - mean);
    const float factor = 1.0f / std::sqrt(squares / count + epsilon);
    for (int64_t i = 0; i < count; ++i) row[i] = (row[i] - mean) * factor;
}

// Rows as float32, normalised if they shall be: where they are, or in `room`.
template <typename S>
static const float* prepared(const S* x, int64_t rows, int64_t inner, const float* epsilon, std::vector<float>& room) {
    if constexpr (std::is_same_v<S, float>)
        if (!epsilon) return x;
    room.resize(rows * inner);
    for (int64_t r = 0; r < rows; ++r) {
        copy(x + r * inner, inner, room.data() + r * inner);
        if (epsilon) normalize(room.data() + r * inner, inner, *epsilon);
    }
    return room.data();
}

// Some numbers of y, from those of a tile.
template <typename S>
static inline void write(const float* numbers, const S* residual, int count, S* y) {
    for (int i = 0; i < count; ++i) put(y[i], residual ? to_float(residual[i]) + numbers[i] : numbers[i]);
}

// A few rows of y, as far as one panel of weights goes. A share of the panel after it is brought into the cache meanwhile.
template <int rows, typename S>
static void strip(const Sizes& s, const float* x, const float* panel, const float* bias, const S* residual, S* y,
                  int count, const char* ahead, int64_t step) {
    Floats sums[rows][VECTORS] = {};
    for (int64_t k = 0; k < s.inner; ++k, ahead += step) {
        __builtin_prefetch(ahead, 0, 2);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) sums[r][v] += x[r * s.inner + k] * at(panel + k * COLUMNS + v * LANES);
    }
    float tile[rows * COLUMNS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) at(tile + r * COLUMNS + v * LANES) = sums[r][v] + at(bias + v * LANES);
    activate(tile, rows * COLUMNS, s.activation);
    for (int r = 0; r < rows; ++r) {
        const int64_t row = r * s.columns;
        if (count == COLUMNS)  // the usual case, in whole vectors
            write(tile + r * COLUMNS, residual ? residual + row : nullptr, COLUMNS, y + row);
        else
            write(tile + r * COLUMNS, residual ? residual + row : nullptr, count, y + row);
    }
}

// Rows from `top` to `bottom` of y, panels from `first` to `last`. Strips are of one height, or nearly, rather than one of
// a single row at the end: that would take as long as a high one.
template <typename S>
static void block(const Sizes& s, const Operands<S>& o, int64_t top, int64_t bottom, int64_t first, int64_t last) {
    using Strip = void (*)(const Sizes&, const float*, const float*, const float*, const S*, S*, int, const char*, int64_t);
    static const Strip of_height[] = {nullptr,     strip<1, S>, strip<2, S>, strip<3, S>,
                                      strip<4, S>, strip<5, S>, strip<6, S>};
    static thread_local std::vector<float> room;
    const int64_t rows = bottom - top, strips = (rows + ROWS - 1) / ROWS, size = s.inner * COLUMNS;
    const int64_t bytes = COLUMNS * sizeof(float), step = (bytes + strips - 1) / strips;
    const float* x = prepared(o.x + top * s.inner, rows, s.inner, o.epsilon, room);
    for (int64_t p = first; p < last; ++p) {
        const float* panel = o.weight + p * size;
        const int count = int(std::min<int64_t>(COLUMNS, s.columns - p * COLUMNS));
        for (int64_t i = 0; i < strips; ++i) {
            int64_t begin = rows * i / strips, end = rows * (i + 1) / strips;
            int64_t place = (top + begin) * s.columns + p * COLUMNS;
            of_height[end - begin](s, x + begin * s.inner, panel, o.bias + p * COLUMNS,
                                   o.residual ? o.residual + place : nullptr, o.y + place, count,
                                   reinterpret_cast<const char*>(panel + size) + s.inner * bytes * i / strips, step);
        }
    }
}

template <typename S>
static void linear(const Sizes& s, const Operands<S>& o) {
    const int64_t panels = (s.columns + COLUMNS - 1) / COLUMNS, threads = s.threads;
    const bool by_rows = s.rows >= FEW * threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t t = 0; t < threads; ++t) {
        int64_t top = by_rows ? s.rows * t / threads : 0, bottom = by_rows ? s.rows * (t + 1) / threads : s.rows;
        int64_t first = by_rows ? 0 : panels * t / threads, last = by_rows ? panels : panels * (t + 1) / threads;
        for (int64_t blocks = (bottom - top + BLOCK - 1) / BLOCK, b = 0; b < blocks; ++b)
            block(s, o, top + (bottom - top) * b / blocks, top + (bottom - top) * (b + 1) / blocks, first, last);
    }
}

#define EXPORT(name, S)                                                                                                   \
    extern "C" void linear_##name(const Sizes* s, const S* x, const float* weight, const float* bias,                     \
                                  const float* epsilon, const S* residual, S* y) {                                        \
        linear(*s, Operands<S>{x, weight, bias, epsilon, residual, y});                                                   \
    }
EXPORT(float32, float)
EXPORT(bfloat16, Bfloat16)
