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
// A linear layer on a CPU, y = f(x Wt + bias), for weights that lie as the processor reads them: the tiles and blocks of
// Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008). A tile of y is finished, f and all,
// before it leaves the registers' neighbourhood. Sums are float32 whatever the tensors are.

#include <algorithm>
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
enum Activation { NONE, GELU, GELU_TANH, RELU };

static inline Floats magnitude(Floats x) { return x < 0.0f ? -x : x; }

// x times the share of a normal distribution below x; its tail to 1.5e-7: Abramowitz and Stegun, 7.1.26.
static inline Floats gelu(Floats x) {
    Floats z = magnitude(x) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z);
    Floats p = 0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f)));
    Floats outside = x * 0.5f * t * p * exponential(-z * z);
    return x < 0.0f ? outside : x - outside;
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

// Numbers as float32: where they are, or in `room`.
static const float* floats(const float* numbers, int64_t, std::vector<float>&) { return numbers; }
static const float* floats(const Bfloat16* numbers, int64_t count, std::vector<float>& room) {
    room.resize(count);
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        at(room.data() + i) = reinterpret_cast<Floats>(
            __builtin_convertvector(*reinterpret_cast<const Halves*>(numbers + i), Ints) << 16);
    for (; i < count; ++i) room[i] = to_float(numbers[i]);
    return room.data();
}

template <typename S>
static void write(const float* numbers, int count, S* target) {
    for (int i = 0; i < count; ++i) put(target[i], numbers[i]);
}

// A few rows of y, as far as one panel of weights goes.
template <int rows, typename S>
static void strip(const Sizes& s, const float* x, const float* panel, const float* bias, S* y, int count) {
    float sums[rows * COLUMNS];
    tile<rows, VECTORS>(int(s.inner), x, int(s.inner), 1, panel, COLUMNS, sums, COLUMNS);
    for (int i = 0; i < rows * COLUMNS; i += LANES) at(sums + i) += at(bias + i % COLUMNS);
    activate(sums, rows * COLUMNS, s.activation);
    for (int r = 0; r < rows; ++r) {
        if (count == COLUMNS)
            write(sums + r * COLUMNS, COLUMNS, y + r * s.columns);  // the usual case, in whole vectors
        else
            write(sums + r * COLUMNS, count, y + r * s.columns);
    }
}

// Rows from `top` to `bottom` of y, panels from `first` to `last`. Strips are of one height, or nearly, rather than one of
// a single row at the end: that would take as long as a high one.
template <typename S>
static void block(const Sizes& s, const S* x, const S* weight, const float* bias, S* y, int64_t top, int64_t bottom,
                  int64_t first, int64_t last) {
    using Strip = void (*)(const Sizes&, const float*, const float*, const float*, S*, int);
    static const Strip of_height[] = {nullptr,     strip<1, S>, strip<2, S>, strip<3, S>,
                                      strip<4, S>, strip<5, S>, strip<6, S>};
    static thread_local std::vector<float> x_room, panel_room;
    const int64_t rows = bottom - top, strips = (rows + ROWS - 1) / ROWS;
    const float* numbers = floats(x + top * s.inner, rows * s.inner, x_room);
    for (int64_t p = first; p < last; ++p) {
        const float* panel = floats(weight + p * s.inner * COLUMNS, s.inner * COLUMNS, panel_room);
        const int64_t column = p * COLUMNS;
        const int count = int(std::min<int64_t>(COLUMNS, s.columns - column));
        for (int64_t i = 0; i < strips; ++i) {
            int64_t begin = rows * i / strips, end = rows * (i + 1) / strips;
            of_height[end - begin](s, numbers + begin * s.inner, panel, bias + column,
                                   y + (top + begin) * s.columns + column, count);
        }
    }
}

template <typename S>
static void linear(const Sizes& s, const S* x, const S* weight, const float* bias, S* y) {
    const int64_t panels = (s.columns + COLUMNS - 1) / COLUMNS, threads = s.threads;
    const bool by_rows = s.rows >= FEW * threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t t = 0; t < threads; ++t) {
        int64_t top = by_rows ? s.rows * t / threads : 0, bottom = by_rows ? s.rows * (t + 1) / threads : s.rows;
        int64_t first = by_rows ? 0 : panels * t / threads, last = by_rows ? panels : panels * (t + 1) / threads;
        for (int64_t blocks = (bottom - top + BLOCK - 1) / BLOCK, b = 0; b < blocks; ++b)
            block(s, x, weight, bias, y, top + (bottom - top) * b / blocks, top + (bottom - top) * (b + 1) / blocks,
                  first, last);
    }
}

// What Python sends with a weight (columns, inner) that shall be packed; any strides will do.
struct Packing {
    int64_t columns, inner, column_stride, inner_stride, threads;
};

template <typename S>
static void pack(const Packing& s, const S* weight, S* panels) {
    const int64_t count = (s.columns + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for num_threads(s.threads)
    for (int64_t p = 0; p < count; ++p) {
        const S* from = weight + p * COLUMNS * s.column_stride;
        S* to = panels + p * s.inner * COLUMNS;
        const int64_t there = std::min<int64_t>(COLUMNS, s.columns - p * COLUMNS);
        for (int64_t k = 0; k < s.inner; ++k)
            for (int64_t c = 0; c < COLUMNS; ++c)
                to[k * COLUMNS + c] = c < there ? from[c * s.column_stride + k * s.inner_stride] : S{};
    }
}

#define EXPORT(name, S)                                                                                                   \
    extern "C" void linear_##name(const Sizes* s, const S* x, const S* weight, const float* bias, S* y) {                 \
        linear(*s, x, weight, bias, y);                                                                                   \
    }                                                                                                                     \
    extern "C" void pack_##name(const Packing* s, const S* weight, S* panels) { pack(*s, weight, panels); }
EXPORT(float32, float)
EXPORT(bfloat16, Bfloat16)
