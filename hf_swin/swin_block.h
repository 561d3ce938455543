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
// Whole modules of Swin on a CPU, from tokens to tokens: its block, Swin Transformer (2021), eq. 3, and its patch merging,
// section 3.1, with the norms before the layers, and those of Swin Transformer V2 (2022), section 3.2, with norms after.

#pragma once

#include <cmath>
#include <vector>

#include "linear.h"
#include "window_attention.h"

// The norm after a branch; gain is null where there is none, as in the first version.
struct Norm {
    const float *gain, *offset, *epsilon;
};

// What Python sends, in this order: numbers, then the places of tensors. How many images there are comes with them.
template <typename S>
struct SwinBlock {
    Geometry geometry;
    int64_t intermediate, activation;
    Packed<S> projections, output, first, second;
    const float *bias, *scale;
    Norm attention_norm, mlp_norm;
};

template <typename S>
struct PatchMerging {
    int64_t height, width, channels, threads;
    Packed<S> reduction;
    Norm norm;
};

// y = x + norm(branch), row by row; x may be null, for nothing.
template <typename S>
static void add_normalized(const Norm& norm, int64_t rows, int64_t columns, int64_t threads, const S* x, const S* branch,
                           S* y) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> row(columns);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t place = r * columns;
            copy(branch + place, columns, row.data());
            normalize(row.data(), columns, *norm.epsilon);
            for (int64_t i = 0; i < columns; ++i) row[i] = row[i] * norm.gain[i] + norm.offset[i];
            copy(row.data(), columns, y + place, x ? x + place : nullptr);
        }
    }
}

// From x to y, which may be the same place.
template <typename S>
static void swin_block(const SwinBlock<S>& b, int64_t batch, const S* x, S* y) {
    Geometry g = b.geometry;
    g.batch = batch;
    const int64_t rows = g.batch * g.height * g.width, channels = g.heads * g.head_dim, threads = g.threads;
    const Layer<S> projections{channels, 3 * channels, NONE, b.projections}, output{channels, channels, NONE, b.output};
    const Layer<S> first{channels, b.intermediate, b.activation, b.first}, second{b.intermediate, channels, NONE, b.second};
    static thread_local std::vector<S> memory_of_qkv, memory_of_mixed;
    S *qkv = enough(memory_of_qkv, rows * 3 * channels), *mixed = enough(memory_of_mixed, rows * channels);

    linear<S>(projections, rows, threads, x, nullptr, qkv);
    forward<S>(g, qkv, qkv + channels, qkv + 2 * channels, b.bias, b.scale, mixed);
    if (!b.attention_norm.gain) {
        linear<S>(output, rows, threads, mixed, x, y);
        mlp<S>(first, second, rows, threads, y, y, y);
    } else {
        S* branch = qkv;  // which nobody reads any more
        linear<S>(output, rows, threads, mixed, nullptr, branch);
        add_normalized<S>(b.attention_norm, rows, channels, threads, x, branch, y);
        mlp<S>(first, second, rows, threads, y, nullptr, branch);
        add_normalized<S>(b.mlp_norm, rows, channels, threads, y, branch, y);
    }
}

// Blocks one after the other, the first from x to y, the others in place.
template <typename S>
static void swin_blocks(int64_t count, const SwinBlock<S>* const* blocks, int64_t batch, const S* x, S* y) {
    for (int64_t i = 0; i < count; ++i) swin_block(*blocks[i], batch, i ? y : x, y);
}

// Four neighbours become one token, the left column first, each from the top; sides are even.
template <typename S>
static void patch_merging(const PatchMerging<S>& m, int64_t batch, const S* x, S* y) {
    const int64_t height = m.height / 2, width = m.width / 2, rows = batch * height * width, wide = 4 * m.channels;
    static thread_local std::vector<S> memory;
    S* merged = enough(memory, rows * wide);
#pragma omp parallel for num_threads(m.threads) schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
        const S* corner = x + (r / width * 2 * m.width + r % width * 2) * m.channels;
        for (int64_t part = 0; part < 4; ++part)
            std::copy_n(corner + (part % 2 * m.width + part / 2) * m.channels, m.channels, merged + r * wide + part * m.channels);
    }
    linear<S>({wide, 2 * m.channels, NONE, m.reduction}, rows, m.threads, merged, nullptr, y);
    if (m.norm.gain) add_normalized<S>(m.norm, rows, 2 * m.channels, m.threads, nullptr, y, y);
}
