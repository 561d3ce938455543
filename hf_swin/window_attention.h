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
// Attention in shifted windows on a CPU: Swin Transformer (2021), section 3.2, and the cosine form of Swin Transformer V2
// (2022), section 3.2. Queries, keys and values lie in the order of the grid; the windows are cut by reading, so nothing
// is rolled, copied or masked in memory. Sums are float32 whatever the tensors are.
//
// Shapes: T tokens of a window, P that number rounded up to whole vectors, D channels of a head.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "vectors.h"

#ifdef _OPENMP
#include <omp.h>
#define THREAD omp_get_thread_num()
#else
#define THREAD 0
#endif

constexpr float FORBIDDEN = -65504.0f;

static inline float total(Floats x) {
    float sum = 0;
    for (int lane = 0; lane < LANES; ++lane) sum += x[lane];
    return sum;
}

static inline float dot(const float* a, const float* b, int length) {
    Floats sum = {};
    for (int i = 0; i < length; i += LANES) sum += at(a + i) * at(b + i);
    return total(sum);
}

// A matrix in memory: where it starts, and how far apart its rows and its columns are.
template <typename W>
struct Matrix {
    const W* start;
    int row, column = 1;
    Matrix transposed() const { return {start, column, row}; }
};

// A tile of C = A B that stays in registers; A is read one step at a time, so that any strides will do.
template <int rows, int vectors, typename W>
static inline void tile(int depth, Matrix<W> a, const W* b, int b_row, float* c, int c_row) {
    Floats sums[rows][vectors] = {};
    for (int k = 0; k < depth; ++k) {
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v)
                add_product(sums[r][v], a.start + r * a.row + k * a.column, b + k * b_row + v * LANES);
    }
    for (int r = 0; r < rows; ++r)
        for (int v = 0; v < vectors; ++v) at(c + r * c_row + v * LANES) = sums[r][v];
}

template <int vectors, typename W>
static void column_of_tiles(int m, int depth, Matrix<W> a, const W* b, int b_row, float* c, int c_row) {
    int r = 0;
    for (; r + ROWS <= m; r += ROWS, a.start += ROWS * a.row) tile<ROWS, vectors>(depth, a, b, b_row, c + r * c_row, c_row);
    for (; r < m; ++r, a.start += a.row) tile<1, vectors>(depth, a, b, b_row, c + r * c_row, c_row);
}

// C (m, n) = A (m, depth) B (depth, n), depth in steps; n is a whole number of vectors.
template <typename W>
static void multiply(int m, int n, int depth, Matrix<W> a, Matrix<W> b, float* c, int c_row) {
    int j = 0;
    for (; j + VECTORS * LANES <= n; j += VECTORS * LANES)
        column_of_tiles<VECTORS>(m, depth, a, b.start + j, b.row, c + j, c_row);
    for (; j + 2 * LANES <= n; j += 2 * LANES) column_of_tiles<2>(m, depth, a, b.start + j, b.row, c + j, c_row);
    if (j < n) column_of_tiles<1>(m, depth, a, b.start + j, b.row, c + j, c_row);
}

// What Python sends, in this order.
struct Geometry {
    int64_t batch, height, width, heads, head_dim, window_height, window_width, shift_height, shift_width;
    int64_t token_stride, cosine, threads;
    int tokens() const { return int(window_height * window_width); }
    int64_t windows() const { return (height / window_height) * (width / window_width); }
    int64_t tasks() const { return batch * windows() * heads; }
};

// Rows are rounded up alike on all machines, so that Python need not know LANES.
static int whole_vectors(int64_t numbers) { return int(numbers + 15) / 16 * 16; }

// One head of one window: where its tokens are, and its numbers as float32, or as pairs of bfloat16 in as much memory.
struct Window {
    const Geometry& g;
    const int T, P, D;
    int64_t current = -1;
    bool cut = false;
    std::vector<int64_t> token;
    std::vector<int32_t> region;
    std::vector<float> q, k, v, flipped, weights, answer, q_length, k_length;

    explicit Window(const Geometry& geometry)
        : g(geometry), T(g.tokens()), P(whole_vectors(T)), D(whole_vectors(g.head_dim)), token(T), region(P), q(T * D),
          k(T * D), v(T * D), flipped(std::max(D, T) * P), weights(T * P), answer(T * D), q_length(T), k_length(T) {}

    // Finds the tokens of a window on the grid, and the region of each: the roll leaves up to two runs on each axis.
    void place(int64_t number) {
        if (number == current) return;
        current = number;
        int64_t image = number / g.windows(), window = number % g.windows(), columns = g.width / g.window_width;
        int64_t top = window / columns * g.window_height, left = window % columns * g.window_width;
        for (int t = 0; t < T; ++t) {
            int64_t y = top + t / g.window_width, x = left + t % g.window_width;
            region[t] = int(y >= g.height - g.shift_height) * 2 + int(x >= g.width - g.shift_width);
            y = (y + g.shift_height) % g.height;
            x = (x + g.shift_width) % g.width;
            token[t] = (image * g.height + y) * g.width + x;
        }
        cut = region[0] != region[T - 1];
    }

    template <typename S>
    void read(const S* source, int64_t stride, int64_t head, std::vector<float>& rows) const {
        for (int t = 0; t < T; ++t)
            copy(source + token[t] * stride + head * g.head_dim, g.head_dim, rows.data() + t * D);
    }

    template <typename S>
    void write(const std::vector<float>& rows, int64_t stride, int64_t head, S* target) const {
        for (int t = 0; t < T; ++t) copy(rows.data() + t * D, g.head_dim, target + token[t] * stride + head * g.head_dim);
    }

    void normalize(std::vector<float>& rows, std::vector<float>& lengths) const {
        for (int t = 0; t < T; ++t) {
            float* row = rows.data() + t * D;
            lengths[t] = std::max(std::sqrt(dot(row, row, D)), 1e-12f);
            for (int d = 0; d < D; d += LANES) at(row + d) /= lengths[t];
        }
    }

    // The gradient of a row from that of its normalised self: what points along the row has no effect.
    void denormalize(std::vector<float>& gradient, const std::vector<float>& rows, const std::vector<float>& lengths) const {
        for (int t = 0; t < T; ++t) {
            const float* row = rows.data() + t * D;
            float* change = gradient.data() + t * D;
            float along = dot(row, change, D);
            for (int d = 0; d < D; d += LANES) at(change + d) = (at(change + d) - at(row + d) * along) / lengths[t];
        }
    }

    // Rows (T, width) as columns (width, P), of numbers or pairs of them.
    void flip(const std::vector<float>& rows, int width) {
        for (int t = 0; t < P; t += LANES)
            for (int d = 0; d < width; d += LANES) {
                Floats square[LANES] = {};
                for (int i = 0; i < std::min(LANES, T - t); ++i) square[i] = at(rows.data() + (t + i) * width + d);
                transpose(square);
                for (int i = 0; i < LANES; ++i) at(flipped.data() + (d + i) * P + t) = square[i];
            }
    }

    Matrix<float> tokens(const std::vector<float>& rows) const { return {rows.data(), D}; }
    Matrix<float> queries(const std::vector<float>& columns) const { return {columns.data(), P}; }

    // weights = softmax(q kT scale + bias), one row for each key, so that the softmax goes down the columns and many
    // queries take each step together; without the pairs that the roll brought together. The bias has that order, too.
    template <typename S>
    void attend(const S* query, const S* key, const S* value, const float* bias, const float* scale, int64_t head) {
        read(query, g.token_stride, head, q);
        read(key, g.token_stride, head, k);
        read(value, g.token_stride, head, v);
        if (g.cosine) {
            normalize(q, q_length);
            normalize(k, k_length);
        }
        flip(q, D);
        multiply(T, P, D, tokens(k), queries(flipped), weights.data(), P);
        softmax(bias, scale, head);
    }

    void softmax(const float* bias, const float* scale, int64_t head) {
        for (int i = 0; i < P; i += LANES)
            softmax(weights.data() + i, bias ? bias + head * T * P + i : nullptr, scale[head], region.data() + i);
    }

    void softmax(float* column, const float* bias, float scale, const int32_t* own) const {
        Floats highest = Floats{} - INFINITY, sum = {};
        for (int j = 0; j < T; ++j) {
            Floats scores = at(column + j * P) * scale;
            if (bias) scores += at(bias + j * P);
            if (cut) scores = *reinterpret_cast<const Ints*>(own) == region[j] ? scores : scores + FORBIDDEN;
            at(column + j * P) = scores;
            highest = scores > highest ? scores : highest;
        }
        for (int j = 0; j < T; ++j) sum += at(column + j * P) = exponential(at(column + j * P) - highest);
        Floats share = 1.0f / sum;
        for (int j = 0; j < T; ++j) at(column + j * P) *= share;
    }
};

// The mixed values of a head of a window.
template <typename S>
static void mix(Window& w, const S* query, const S* key, const S* value, const float* bias, const float* scale, int64_t head) {
    w.attend(query, key, value, bias, scale, head);
    multiply(w.T, w.D, w.T, w.queries(w.weights).transposed(), w.tokens(w.v), w.answer.data(), w.D);
}

#ifdef __AVX512BF16__
// The same with numbers as they come, two at a time; cosines want more than eight bits.
static void mix(Window& w, const Bfloat16* query, const Bfloat16* key, const Bfloat16* value, const float* bias,
                const float* scale, int64_t head) {
    if (w.g.cosine || w.g.head_dim % (2 * LANES)) return mix<Bfloat16>(w, query, key, value, bias, scale, head);
    const int T = w.T, P = w.P, D = w.D, half = D / 2, together = (T + 1) / 2;
    const auto rows = [&](const Bfloat16* source, std::vector<float>& target) {
        for (int t = 0; t < T; ++t)
            std::memcpy(target.data() + t * half, source + w.token[t] * w.g.token_stride + head * D, D * sizeof(Bfloat16));
    };
    const auto pairs = [](std::vector<float>& memory) { return reinterpret_cast<Pair*>(memory.data()); };
    rows(query, w.q);
    rows(key, w.k);
    w.flip(w.q, half);
    multiply<Pair>(T, P, half, {pairs(w.k), half}, {pairs(w.flipped), P}, w.weights.data(), P);
    w.softmax(bias, scale, head);
    // Weights and values of two keys side by side; an odd last one is by itself.
    for (int j = 0; j < together; ++j) {
        const bool both = 2 * j + 1 < T;
        const Bfloat16* v[2];
        for (int i = 0; i < 2; ++i) v[i] = value + w.token[std::min(2 * j + i, T - 1)] * w.g.token_stride + head * D;
        for (int i = 0; i < P; i += LANES) {
            const float* weights = w.weights.data() + 2 * j * P + i;
            store_pairs(pairs(w.flipped) + j * P + i, rounded(at(weights)), both ? rounded(at(weights + P)) : Halves{});
        }
        for (int d = 0; d < D; d += LANES)
            store_pairs(pairs(w.v) + j * D + d, *reinterpret_cast<const Halves*>(v[0] + d),
                        *reinterpret_cast<const Halves*>(v[1] + d));
    }
    multiply<Pair>(T, D, together, {pairs(w.flipped), 1, P}, {pairs(w.v), D}, w.answer.data(), D);
}
#endif

template <typename S>
static void forward(const Geometry& g, const S* query, const S* key, const S* value, const float* bias, const float* scale,
                    S* output) {
#pragma omp parallel num_threads(g.threads)
    {
        Window w(g);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < g.tasks(); ++task) {
            int64_t head = task % g.heads;
            w.place(task / g.heads);
            mix(w, query, key, value, bias, scale, head);
            w.write(w.answer, g.heads * g.head_dim, head, output);
        }
    }
}

// The weights are made again rather than kept. Each thread sums the gradients of bias and scale in a place of its own.
template <typename S>
static void backward(const Geometry& g, const S* query, const S* key, const S* value, const float* bias, const float* scale,
                     const S* d_output, S* d_query, S* d_key, S* d_value, float* d_bias, float* d_scale) {
#pragma omp parallel num_threads(g.threads)
    {
        Window w(g);
        const int T = w.T, P = w.P, D = w.D, thread = THREAD;
        std::vector<float> d_answer(T * D), d_scores(T * P), d_rows(T * D);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < g.tasks(); ++task) {
            int64_t head = task % g.heads;
            float* bias_sum = d_bias + (thread * g.heads + head) * T * P;
            w.place(task / g.heads);
            w.attend(query, key, value, bias, scale, head);
            w.read(d_output, g.heads * g.head_dim, head, d_answer);
            multiply(T, D, T, w.queries(w.weights), w.tokens(d_answer), d_rows.data(), D);
            w.write(d_rows, g.token_stride, head, d_value);
            w.flip(d_answer, D);
            multiply(T, P, D, w.tokens(w.v), w.queries(w.flipped), d_scores.data(), P);
            for (int i = 0; i < P; i += LANES) {
                Floats mean = {};
                for (int j = i; j < T * P; j += P) mean += at(d_scores.data() + j) * at(w.weights.data() + j);
                for (int j = i; j < T * P; j += P) {
                    Floats change = at(w.weights.data() + j) * (at(d_scores.data() + j) - mean);
                    at(bias_sum + j) += change;
                    at(d_scores.data() + j) = change * scale[head];
                }
            }
            multiply(T, D, T, w.queries(d_scores).transposed(), w.tokens(w.k), d_rows.data(), D);
            if (g.cosine) {
                d_scale[thread * g.heads + head] += dot(d_rows.data(), w.q.data(), T * D) / scale[head];
                w.denormalize(d_rows, w.q, w.q_length);
            }
            w.write(d_rows, g.token_stride, head, d_query);
            multiply(T, D, T, w.queries(d_scores), w.tokens(w.q), d_rows.data(), D);
            if (g.cosine) w.denormalize(d_rows, w.k, w.k_length);
            w.write(d_rows, g.token_stride, head, d_key);
        }
    }
}
