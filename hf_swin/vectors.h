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
// What the kernels of this package share: vectors of float32, as GCC knows them on any processor; how they are read,
// written, multiplied and transposed; and the exponential function of one.

#pragma once

// Clang forgets, where a reference is returned, that these vectors may lie anywhere, and x86 ends a process for that.
#if defined(__clang__) && defined(__x86_64__)
#error "these kernels need GCC on x86: install g++, or let CXX name it"
#endif

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

// A product is made in tiles of ROWS times VECTORS sums: as many as the registers hold beside what they are made from.
#ifdef __AVX512F__
constexpr int LANES = 16, VECTORS = 4;
#else
constexpr int LANES = 8, VECTORS = 2;
#endif
constexpr int ROWS = 6;

typedef float Floats __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
struct Bfloat16 { uint16_t bits; };

static inline Floats& at(float* place) { return *reinterpret_cast<Floats*>(place); }
static inline const Floats& at(const float* place) { return *reinterpret_cast<const Floats*>(place); }
static inline float to_float(float value) { return value; }
static inline float to_float(Bfloat16 value) {
    uint32_t bits = uint32_t(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}
static inline void put(float& place, float value) { place = value; }
static inline void put(Bfloat16& place, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    place.bits = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline Floats load(const float* numbers) { return at(numbers); }
static inline Floats load(const Bfloat16* numbers) {
    return reinterpret_cast<Floats>(__builtin_convertvector(*reinterpret_cast<const Halves*>(numbers), Ints) << 16);
}

static inline Halves rounded(Floats x) {
#ifdef __AVX512BF16__
    return Halves(_mm512_cvtneps_pbh(__m512(x)));
#else
    const Ints bits = reinterpret_cast<Ints>(x);
    return __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16 & 0xffff, Halves);
#endif
}
static inline void store(float* numbers, Floats x) { at(numbers) = x; }
static inline void store(Bfloat16* numbers, Floats x) { *reinterpret_cast<Halves*>(numbers) = rounded(x); }

// target = numbers, or numbers + addend if that is not null, from one type to another.
template <typename S, typename T>
static inline void copy(const S* numbers, int64_t count, T* target, const T* addend = nullptr) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const Floats x = load(numbers + i);
        store(target + i, addend ? load(addend + i) + x : x);
    }
    for (; i < count; ++i) put(target[i], addend ? to_float(addend[i]) + to_float(numbers[i]) : to_float(numbers[i]));
}

// What is multiplied at once: a number, or two neighbours where the processor has one instruction for the sum of both
// products. Elsewhere bfloat16 is multiplied as float32.
template <typename S>
struct StepOf { typedef float type; };
static inline void add_product(Floats& sum, const float* x, const float* weights) { sum += *x * at(weights); }
#ifdef __AVX512BF16__
struct Pair { uint16_t first, second; };
template <>
struct StepOf<Bfloat16> { typedef Pair type; };
static inline void add_product(Floats& sum, const Pair* x, const Pair* weights) {
    int32_t both;
    std::memcpy(&both, x, sizeof both);
    sum = Floats(_mm512_dpbf16_ps(__m512(sum), __m512bh(_mm512_set1_epi32(both)), __m512bh(_mm512_loadu_si512(weights))));
}
static inline void store_pairs(Pair* pairs, Halves first, Halves second) {
    *reinterpret_cast<Ints*>(pairs) = __builtin_convertvector(first, Ints) | __builtin_convertvector(second, Ints) << 16;
}
#endif

// A square with its rows as columns: neighbours trade places, then pairs, then fours.
static inline void transpose(Floats* square) {
    Ints lane;
    for (int i = 0; i < LANES; ++i) lane[i] = i;
#pragma GCC unroll 4
    for (int step = 1; step < LANES; step *= 2) {
        const Ints own = (lane & step) == 0;
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i)
            if (!(i & step)) {
                const Floats a = square[i], b = square[i + step];
                square[i] = __builtin_shuffle(a, b, own ? lane : lane + LANES - step);
                square[i + step] = __builtin_shuffle(a, b, own ? lane + step : lane + LANES);
            }
    }
}

// exp(x) for x <= 0 to 2e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]. What would be smaller than 1e-34 is zero:
// numbers near the least that float32 knows slow a processor down tenfold.
static inline Floats exponential(Floats power) {
    Floats x = power < -78.0f ? Floats{} - 78.0f : power;
    Ints n = __builtin_convertvector(x * 1.44269504f - 0.5f, Ints);
    Floats whole = __builtin_convertvector(n, Floats);
    Floats r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return power < -78.0f ? Floats{} : p * reinterpret_cast<Floats>((n + 127) << 23);
}
