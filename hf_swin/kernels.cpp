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
// The kernels of this package under their names, as plain C: no header of torch is needed, and all compiles in seconds.

#include "linear.h"
#include "swin_block.h"
#include "window_attention.h"

extern "C" int64_t linear_panel(int64_t columns) { return linear_width(columns); }

// What Python sends, in this order.
struct Sizes {
    int64_t rows, inner, columns, activation, threads;
};
template <typename S>
struct Blocks {
    int64_t count;
    const SwinBlock<S>* first;  // and the others after it
};

#define EXPORT(name, S)                                                                                                \
    extern "C" void linear_##name(const Sizes* s, const S* x, const StepOf<S>::type* weight, const float* bias,        \
                                  const float* epsilon, const S* residual, S* y) {                                     \
        const Layer<S> layer{s->inner, s->columns, s->activation, {weight, bias, epsilon}};                            \
        linear(layer, s->rows, s->threads, x, residual, y);                                                            \
    }                                                                                                                  \
    extern "C" void window_attention_forward_##name(const Geometry* g, const S* q, const S* k, const S* v,             \
                                                    const float* bias, const float* scale, S* output) {                \
        forward(*g, q, k, v, bias, scale, output);                                                                     \
    }                                                                                                                  \
    extern "C" void window_attention_backward_##name(const Geometry* g, const S* q, const S* k, const S* v,            \
                                                     const float* bias, const float* scale, const S* d_output, S* d_q, \
                                                     S* d_k, S* d_v, float* d_bias, float* d_scale) {                  \
        backward(*g, q, k, v, bias, scale, d_output, d_q, d_k, d_v, d_bias, d_scale);                                  \
    }                                                                                                                  \
    extern "C" void swin_block_##name(const SwinBlock<S>* b, int batch, const S* x, S* y) {                            \
        swin_block(*b, batch, x, y);                                                                                   \
    }                                                                                                                  \
    extern "C" void swin_blocks_##name(const Blocks<S>* b, int batch, const S* x, S* y) {                              \
        swin_blocks(b->count, &b->first, batch, x, y);                                                                 \
    }                                                                                                                  \
    extern "C" void patch_merging_##name(const PatchMerging<S>* m, int batch, const S* x, S* y) {                      \
        patch_merging(*m, batch, x, y);                                                                                \
    }
EXPORT(float32, float)
EXPORT(bfloat16, Bfloat16)
