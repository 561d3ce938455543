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
struct Matrix {
    float* start;
    int row, column = 1;
    Matrix transposed() const { return {start, column, row}; }
};

// A tile of C = A B that stays in registers; A is read one number at a time, so that any strides will do.
template <int rows, int vectors>
static inline void tile(int depth, const float* a, int a_row, int a_column, const float* b, int b_row, float* c, int c_row) {
    Floats sums[rows][vectors] = {};
    for (int k = 0; k < depth; ++k) {
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) sums[r][v] += a[r * a_row + k * a_column] * at(b + k * b_row + v * LANES);
    }
    for (int r = 0; r < rows; ++r)
        for (int v = 0; v < vectors; ++v) at(c + r * c_row + v * LANES) = sums[r][v];
}

template <int vectors>
static void column_of_tiles(int m, int depth, Matrix a, const float* b, int b_row, float* c, int c_row) {
    int r = 0;
    for (; r + ROWS <= m; r += ROWS)
        tile<ROWS, vectors>(depth, a.start + r * a.row, a.row, a.column, b, b_row, c + r * c_row, c_row);
    for (; r < m; ++r) tile<1, vectors>(depth, a.start + r * a.row, a.row, a.column, b, b_row, c + r * c_row, c_row);
}

// C (m, n) = A (m, depth) B (depth, n); n is a whole number of vectors.
static void multiply(int m, int n, int depth, Matrix a, Matrix b, Matrix c) {
    int j = 0;
    for (; j + VECTORS * LANES <= n; j += VECTORS * LANES)
        column_of_tiles<VECTORS>(m, depth, a, b.start + j, b.row, c.start + j, c.row);
    for (; j + 2 * LANES <= n; j += 2 * LANES)
        column_of_tiles<2>(m, depth, a, b.start + j, b.row, c.start + j, c.row);
    if (j < n) column_of_tiles<1>(m, depth, a, b.start + j, b.row, c.start + j, c.row);
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

// One head of one window: where its tokens are, and its numbers as float32.
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
          k(T * D), v(T * D), flipped(D * P), weights(T * P), answer(T * D), q_length(T), k_length(T) {}

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

    // Rows (T, D) as columns (D, P); what stands beyond the last token is of no account.
    void flip(const std::vector<float>& rows) {
        for (int t = 0; t < P; t += LANES)
            for (int d = 0; d < D; d += LANES) {
                Floats square[LANES] = {};
                for (int i = 0; i < std::min(LANES, T - t); ++i) square[i] = at(rows.data() + (t + i) * D + d);
                transpose(square);
                for (int i = 0; i < LANES; ++i) at(flipped.data() + (d + i) * P + t) = square[i];
            }
    }

    Matrix tokens(std::vector<float>& rows) const { return {rows.data(), D}; }
    Matrix pairs(std::vector<float>& rows) const { return {rows.data(), P}; }

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
        flip(q);
        multiply(T, P, D, tokens(k), pairs(flipped), pairs(weights));
        for (int i = 0; i < P; i += LANES) softmax(weights.data() + i, bias + head * T * P + i, scale[head], region.data() + i);
    }

    void softmax(float* column, const float* bias, float scale, const int32_t* own) const {
        Floats highest = Floats{} - INFINITY, sum = {};
        for (int j = 0; j < T; ++j) {
            Floats scores = at(column + j * P) * scale + at(bias + j * P);
            if (cut) scores = *reinterpret_cast<const Ints*>(own) == region[j] ? scores : scores + FORBIDDEN;
            at(column + j * P) = scores;
            highest = scores > highest ? scores : highest;
        }
        for (int j = 0; j < T; ++j) sum += at(column + j * P) = exponential(at(column + j * P) - highest);
        Floats share = 1.0f / sum;
        for (int j = 0; j < T; ++j) at(column + j * P) *= share;
    }
};

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
            w.attend(query, key, value, bias, scale, head);
            multiply(w.T, w.D, w.T, w.pairs(w.weights).transposed(), w.tokens(w.v), w.tokens(w.answer));
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
            multiply(T, D, T, w.pairs(w.weights), w.tokens(d_answer), w.tokens(d_rows));
            w.write(d_rows, g.token_stride, head, d_value);
            w.flip(d_answer);
            multiply(T, P, D, w.tokens(w.v), w.pairs(w.flipped), w.pairs(d_scores));
            for (int i = 0; i < P; i += LANES) {
                Floats mean = {};
                for (int j = i; j < T * P; j += P) mean += at(d_scores.data() + j) * at(w.weights.data() + j);
                for (int j = i; j < T * P; j += P) {
                    Floats change = at(w.weights.data() + j) * (at(d_scores.data() + j) - mean);
                    at(bias_sum + j) += change;
                    at(d_scores.data() + j) = change * scale[head];
                }
            }
            multiply(T, D, T, w.pairs(d_scores).transposed(), w.tokens(w.k), w.tokens(d_rows));
            if (g.cosine) {
                d_scale[thread * g.heads + head] += dot(d_rows.data(), w.q.data(), T * D) / scale[head];
                w.denormalize(d_rows, w.q, w.q_length);
            }
            w.write(d_rows, g.token_stride, head, d_query);
            multiply(T, D, T, w.pairs(d_scores), w.tokens(w.q), w.tokens(d_rows));
            if (g.cosine) w.denormalize(d_rows, w.k, w.k_length);
            w.write(d_rows, g.token_stride, head, d_key);
        }
    }
}
