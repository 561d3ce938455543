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
// A linear layer on a CPU, and what surrounds it, y = residual + f(norm(x) Wt + bias), for weights that lie as the processor
// reads them: the tiles and blocks of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).
// Rows are normalised when they are first read, a tile of y is finished before it is first written. Sums are float32.

#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "vectors.h"

// How many neighbours in bfloat16: Python packs weights (columns, inner) as (panels, steps, columns of a panel, so many).
extern "C" const int64_t linear_neighbours = std::is_same_v<StepOf<Bfloat16>::type, float> ? 1 : 2;

// Columns of a panel; the last panel is filled up with zeros. Of two widths the one that leaves less of it empty.
constexpr int NARROW = LANES == 16 ? VECTORS - 1 : VECTORS;
static int64_t filled(int64_t columns, int64_t width) { return (columns + width - 1) / width * width; }
static int64_t linear_width(int64_t columns) {
    const int64_t wide = VECTORS * LANES, narrow = NARROW * LANES;
    return filled(columns, narrow) < filled(columns, wide) ? narrow : wide;
}

// So many rows of x stay in a cache while the weights go by.
constexpr int BLOCK = 200;
// With fewer rows than this for each, threads share the columns instead: all weights are read once then.
constexpr int FEW = 64;

// What Python packs.
template <typename S>
struct Packed {
    const typename StepOf<S>::type* weight;
    const float *bias, *epsilon;  // epsilon of the norm, or null for none
};

// y = f(norm(x) Wt + bias).
template <typename S>
struct Layer {
    typedef typename StepOf<S>::type W;
    int64_t inner, columns, activation;
    Packed<S> packed;
    int64_t steps() const { return std::is_same_v<W, float> ? inner : (inner + 1) / 2; }
    int64_t panels() const { return filled(columns, linear_width(columns)) / linear_width(columns); }
};
enum Activation { NONE, GELU, GELU_TANH, RELU };

static inline Floats magnitude(Floats x) { return x < 0.0f ? -x : x; }

// x times the share of a normal distribution below x. That share is 1/2 + x P(x^2) / Q(x^2) to 7e-9 for |x| <= 5.5, where
// 2e-8 are left; the coefficients are fitted to it, for the largest error to be least.
static inline Floats gelu(Floats x) {
    Floats near = x > 5.5f ? Floats{} + 5.5f : x < -5.5f ? Floats{} - 5.5f : x, t = near * near;
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
    return x * (0.5f + near * p / q);
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

// A row with a mean of 0 and a variance of 1; gain and offset of the norm are part of the weights.
static void normalize(float* row, int64_t count, float epsilon) {
    float sum = 0, squares = 0;
    for (int64_t i = 0; i < count; ++i) sum += row[i];
    const float mean = sum / count;
    for (int64_t i = 0; i < count; ++i) squares += (row[i] - mean) * (row[i] - mean);
    const float factor = 1.0f / std::sqrt(squares / count + epsilon);
    for (int64_t i = 0; i < count; ++i) row[i] = (row[i] - mean) * factor;
}

// Memory for so many numbers, kept from call to call.
template <typename T>
static T* enough(std::vector<T>& memory, int64_t count) {
    if (int64_t(memory.size()) < count) memory.resize(count);
    return memory.data();
}

// Rows in steps, normalised if they shall be: where they are, or in `room`.
template <typename W, typename S>
static const W* prepared(const S* x, int64_t rows, int64_t inner, int64_t steps, const float* epsilon, std::vector<W>& room) {
    if (!epsilon && sizeof(W) * steps == sizeof(S) * inner) return reinterpret_cast<const W*>(x);
    constexpr bool in_place = std::is_same_v<W, float>;
    std::vector<float> row(inner);
    W* start = enough(room, rows * steps);
    for (int64_t r = 0; r < rows; ++r) {
        W* target = start + r * steps;
        target[steps - 1] = W{};  // which may be half filled
        float* numbers = in_place ? reinterpret_cast<float*>(target) : row.data();
        copy(x + r * inner, inner, numbers);
        if (epsilon) normalize(numbers, inner, *epsilon);
        if constexpr (!in_place) copy(numbers, inner, reinterpret_cast<S*>(target));
    }
    return start;
}

// A few rows of y, as far as one panel of weights goes.
template <typename S>
struct Strip {
    typedef typename StepOf<S>::type W;
    const Layer<S>& layer;
    const W *x, *panel;
    const float* bias;
    const S* residual;
    S* y;
    int count;          // of the panel's columns, those that are no filling
    const char* ahead;  // a share of the panel after it, which is brought into the cache meanwhile
    int64_t stride;
};

template <int rows, int vectors, typename S>
static void multiply(const Strip<S>& s) {
    constexpr int width = vectors * LANES;
    const int64_t steps = s.layer.steps(), columns = s.layer.columns;
    Floats sums[rows][vectors] = {};
    const char* ahead = s.ahead;
    for (int64_t k = 0; k < steps; ++k, ahead += s.stride) {
        __builtin_prefetch(ahead, 0, 2);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v)
                add_product(sums[r][v], s.x + r * steps + k, s.panel + k * width + v * LANES);
    }
    float tile[rows * width];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) at(tile + r * width + v * LANES) = sums[r][v] + at(s.bias + v * LANES);
    activate(tile, rows * width, s.layer.activation);
    for (int r = 0; r < rows; ++r) {
        const S* residual = s.residual ? s.residual + r * columns : nullptr;
        copy(tile + r * width, s.count, s.y + r * columns, residual);
    }
}

template <int rows, int vectors, typename S>
static void multiply_rows(int64_t height, const Strip<S>& s) {
    if (height == rows) return multiply<rows, vectors>(s);
    if constexpr (rows > 1) multiply_rows<rows - 1, vectors>(height, s);
}

// Rows of y, panels from `first` to `last`. Strips are of one height, or nearly, rather than one of a single row at the
// end: that would take as long as a high one.
template <int vectors, typename S>
static void block(const Layer<S>& layer, int64_t rows, int64_t first, int64_t last, const S* x, const S* residual, S* y) {
    typedef typename StepOf<S>::type W;
    constexpr int64_t width = vectors * LANES, highest = ROWS * VECTORS / vectors;
    static thread_local std::vector<W> room;
    const int64_t steps = layer.steps(), strips = (rows + highest - 1) / highest;
    const int64_t size = steps * width, bytes = width * sizeof(W);
    const W* ready = prepared(x, rows, layer.inner, steps, layer.packed.epsilon, room);
    for (int64_t p = first; p < last; ++p) {
        const W* panel = layer.packed.weight + p * size;
        const int count = int(std::min<int64_t>(width, layer.columns - p * width));
        for (int64_t i = 0; i < strips; ++i) {
            const int64_t begin = rows * i / strips, end = rows * (i + 1) / strips;
            const int64_t place = begin * layer.columns + p * width;
            multiply_rows<highest, vectors>(
                end - begin, Strip<S>{layer, ready + begin * steps, panel, layer.packed.bias + p * width,
                                      residual ? residual + place : nullptr, y + place, count,
                                      reinterpret_cast<const char*>(panel + size) + steps * bytes * i / strips,
                                      (bytes + strips - 1) / strips});
        }
    }
}

template <typename S>
static void some_rows(const Layer<S>& layer, int64_t rows, int64_t first, int64_t last, const S* x, const S* residual, S* y) {
    const bool wide = linear_width(layer.columns) == VECTORS * LANES;
    (wide ? block<VECTORS, S> : block<NARROW, S>)(layer, rows, first, last, x, residual, y);
}

// Calls f(begin, end) for blocks of rows, shared by threads.
template <typename F>
static void each_block(int64_t rows, int64_t threads, F f) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t t = 0; t < threads; ++t) {
        const int64_t top = rows * t / threads, own = rows * (t + 1) / threads - top, blocks = (own + BLOCK - 1) / BLOCK;
        for (int64_t b = 0; b < blocks; ++b) f(top + own * b / blocks, top + own * (b + 1) / blocks);
    }
}

static bool by_rows(int64_t rows, int64_t threads) { return rows >= FEW * threads; }

// y = residual + layer(x).
template <typename S>
static void linear(const Layer<S>& layer, int64_t rows, int64_t threads, const S* x, const S* residual, S* y) {
    const int64_t panels = layer.panels();
    if (by_rows(rows, threads))
        return each_block(rows, threads, [&](int64_t begin, int64_t end) {
            const int64_t place = begin * layer.columns;
            some_rows(layer, end - begin, 0, panels, x + begin * layer.inner, residual ? residual + place : nullptr, y + place);
        });
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t t = 0; t < threads; ++t)
        for (int64_t begin = 0; begin < rows; begin += BLOCK) {
            const int64_t place = begin * layer.columns;
            some_rows(layer, std::min<int64_t>(BLOCK, rows - begin), panels * t / threads, panels * (t + 1) / threads,
                      x + begin * layer.inner, residual ? residual + place : nullptr, y + place);
        }
}

// y = residual + second(first(x)); what lies between stays in the cache, block by block.
template <typename S>
static void mlp(const Layer<S>& first, const Layer<S>& second, int64_t rows, int64_t threads, const S* x, const S* residual,
                S* y) {
    if (!by_rows(rows, threads)) {
        std::vector<S> hidden(rows * first.columns);
        linear<S>(first, rows, threads, x, nullptr, hidden.data());
        return linear<S>(second, rows, threads, hidden.data(), residual, y);
    }
    each_block(rows, threads, [&](int64_t begin, int64_t end) {
        static thread_local std::vector<S> hidden;
        const int64_t place = begin * second.columns;
        S* between = enough(hidden, (end - begin) * first.columns);
        some_rows<S>(first, end - begin, 0, first.panels(), x + begin * first.inner, nullptr, between);
        some_rows<S>(second, end - begin, 0, second.panels(), between, residual ? residual + place : nullptr, y + place);
    });
}
