// The kernels of the engine: everything between two products, and the product itself. Numbers are f32, weights and
// the inputs of products are bf16, which are handled as their bits. Only additions, multiplications, divisions,
// square roots and fused multiply-adds are used, each rounded once, and the compiler contracts none (-fmad=false): so
// the same tokens come out on every device. build.py makes kernels_ptx.h of this file.
//
// Products are sums in a written order, that of df11_linear() at batch 1 (include/df11_experimental.h). So an engine
// that decodes a matrix and one that multiplies from compressed weights calculate the same bits.
typedef unsigned short bf16;

// What a pass begins with and ends with, in device memory.
struct State {
    unsigned position;  // of the token that goes through the model
    unsigned token;     // that comes after it
    unsigned status;    // of the decodes: DF11_OK, or what they found
};

static __device__ float wide(bf16 value) { return __uint_as_float((unsigned)value << 16); }

// Rounds to the nearest bf16, ties to even. The value is finite.
static __device__ bf16 narrow(float value) {
    const unsigned bits = __float_as_uint(value);
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Returns e^x for x up to 88; below -86 it is e^-86. It is written out, because the device's own function has other
// bits on other devices.
static __device__ float exponential(float x) {
    x = fminf(fmaxf(x, -86.0f), 88.0f);
    // The nearest integer to x / ln 2: added to 1.5 * 2^23, a float has no bits for a fraction.
    const float shifted = fmaf(x, 1.44269504f, 12582912.0f), n = shifted - 12582912.0f;
    const float r = fmaf(n, 1.42860677e-6f, fmaf(n, -0.693145752f, x));  // x - n ln 2, in two steps
    float sum = fmaf(r, 1.0f / 720, 1.0f / 120);
    sum = fmaf(r, sum, 1.0f / 24);
    sum = fmaf(r, sum, 1.0f / 6);
    sum = fmaf(r, sum, 0.5f);
    sum = fmaf(r, sum, 1.0f);
    sum = fmaf(r, sum, 1.0f);
    // Times 2^n: the low bits of `shifted` are n.
    return __uint_as_float(__float_as_uint(sum) + (__float_as_uint(shifted) << 23));
}

// Adds a value of each lane of a warp. Every lane gets the sum.
static __device__ float warp_sum(float value) {
    for (unsigned apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(~0u, value, apart);
    return value;
}

// Adds a value of each thread of a block of whole warps. Every thread gets the sum.
static __device__ float block_sum(float value) {
    __shared__ float sums[32];
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    value = sums[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) value += sums[warp];
    __syncthreads();
    return value;
}

// Finds the largest value of the threads of a block. Every thread gets it.
static __device__ float block_max(float value) {
    __shared__ float tops[32];
    for (unsigned apart = 16; apart > 0; apart /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, apart));
    if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = value;
    __syncthreads();
    value = tops[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) value = fmaxf(value, tops[warp]);
    __syncthreads();
    return value;
}

// The token's row of the embedding becomes the hidden state.
extern "C" __global__ void __launch_bounds__(256) embed(const bf16 *row, float *hidden, unsigned count) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) hidden[i] = wide(row[i]);
}

// Adds `delta`, unless it is NULL, to the hidden state, and writes the RMS norm of that. One block; `share` is 1 /
// count.
extern "C" __global__ void __launch_bounds__(256)
    add_norm(float *hidden, const float *delta, const bf16 *norm, bf16 *out, unsigned count, float share,
             float epsilon) {
    float squares = 0;
    for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
        float value = hidden[i];
        if (delta) hidden[i] = value = value + delta[i];
        squares = fmaf(value, value, squares);
    }
    const float scale = 1.0f / sqrtf(block_sum(squares) * share + epsilon);
    for (unsigned i = threadIdx.x; i < count; i += blockDim.x) out[i] = narrow(hidden[i] * scale * wide(norm[i]));
}

// ---------------------------------------------------------------------------------------------------------------------
// Products
// ---------------------------------------------------------------------------------------------------------------------

// The order of sums. Of a row, each run of 512 columns is added by four lanes: lane t takes columns 16 t to 16 t + 15
// of each of the run's tiles of 64 columns, one after the other. Weights of seldom exponents are taken as 0 at first;
// they are multiplied after the run, in the order of columns. Then the runs are added, the first one first.
enum { ROWS = 16, RUN = 512, TILE = 64, TILES = RUN / TILE, WARPS = 8 };

// A matrix of bf16, rows of a multiple of 8 columns, at a multiple of 16 bytes.
struct Matrix {
    const bf16 *weights;
    const signed char *usual;  // for each exponent, halved, of 128: -1, or 0 if it is seldom
    float *y;
    unsigned rows;
};

// Up to three matrices that are multiplied with the same x, a column of blocks for each.
struct Products {
    Matrix matrices[3];
    const bf16 *x;
    unsigned columns;
};

// Takes a weight, in the upper half of `bits`, as 0 if its exponent is seldom. `apart` gets a bit that says so.
static __device__ float take(unsigned bits, const signed char *usual, unsigned &apart) {
    const int mask = usual[bits >> 24 & 127];
    apart = apart >> 1 | (~mask & 0x8000);
    return __uint_as_float(bits & mask);
}

// Adds two products.
static __device__ void two(unsigned w, unsigned x, const signed char *usual, float &sum, unsigned &apart) {
    sum = fmaf(take(w << 16, usual, apart), __uint_as_float(x << 16), sum);
    sum = fmaf(take(w & 0xffff0000, usual, apart), __uint_as_float(x & 0xffff0000), sum);
}

// Adds eight products.
static __device__ void eight(uint4 w, uint4 x, const signed char *usual, float &sum, unsigned &apart) {
    two(w.x, x.x, usual, sum, apart);
    two(w.y, x.y, usual, sum, apart);
    two(w.z, x.z, usual, sum, apart);
    two(w.w, x.w, usual, sum, apart);
}

// y = W x. A block takes 16 rows, and each of its warps every so many-th run of them: of a tile, lane 4 g + t takes
// 16 columns of rows g and g + 8. Dynamic shared memory holds a sum for each run and row.
extern "C" __global__ void __launch_bounds__(32 * WARPS) multiply(const Products p) {
    extern __shared__ float sums[];
    __shared__ __align__(4) signed char usual[128];
    // A bit for each weight of the warps' runs that is not usual.
    __shared__ __align__(8) unsigned short apart[WARPS][TILES][ROWS][TILE / 16];

    const Matrix m = blockIdx.y == 0 ? p.matrices[0] : blockIdx.y == 1 ? p.matrices[1] : p.matrices[2];
    const unsigned first = ROWS * blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (first >= m.rows) return;
    if (threadIdx.x < 32) ((unsigned *)usual)[threadIdx.x] = ((const unsigned *)m.usual)[threadIdx.x];
    __syncthreads();

    const unsigned group = lane / 4, quarter = lane % 4, runs = (p.columns + RUN - 1) / RUN;
    // Instead of rows after the last one, that is taken again.
    const bf16 *upper = m.weights + (unsigned long long)min(first + group, m.rows - 1) * p.columns;
    const bf16 *lower = m.weights + (unsigned long long)min(first + group + 8, m.rows - 1) * p.columns;
    for (unsigned run = warp; run < runs; run += blockDim.x / 32) {
        const unsigned tiles = min((unsigned)TILES, (p.columns - RUN * run + TILE - 1) / TILE);
        float a = 0, b = 0;
        for (unsigned tile = 0; tile < tiles; tile++) {
            unsigned apart_a = 0, apart_b = 0;
            for (unsigned half = 0; half < 2; half++) {
                const unsigned column = RUN * run + TILE * tile + 16 * quarter + 8 * half;
                uint4 x = {0, 0, 0, 0}, u = x, l = x;
                if (column < p.columns) {
                    x = *(const uint4 *)(p.x + column);
                    u = *(const uint4 *)(upper + column);
                    l = *(const uint4 *)(lower + column);
                }
                eight(u, x, usual, a, apart_a);
                eight(l, x, usual, b, apart_b);
            }
            apart[warp][tile][group][quarter] = (unsigned short)apart_a;
            apart[warp][tile][group + 8][quarter] = (unsigned short)apart_b;
        }
        for (unsigned other = 1; other < 4; other *= 2) {
            a += __shfl_xor_sync(~0u, a, other);
            b += __shfl_xor_sync(~0u, b, other);
        }
        if (quarter == 0) {
            sums[ROWS * run + group] = a;
            sums[ROWS * run + group + 8] = b;
        }
        __syncwarp();
        // What was left out, a lane for each row.
        if (lane < ROWS) {
            const bf16 *row = m.weights + (unsigned long long)min(first + lane, m.rows - 1) * p.columns + RUN * run;
            float sum = sums[ROWS * run + lane];
            for (unsigned tile = 0; tile < tiles; tile++) {
                unsigned long long left = *(const unsigned long long *)apart[warp][tile][lane];
                for (; left != 0; left &= left - 1) {
                    const unsigned column = TILE * tile + __ffsll(left) - 1;
                    sum = fmaf(wide(row[column]), wide(p.x[RUN * run + column]), sum);
                }
            }
            sums[ROWS * run + lane] = sum;
        }
        __syncwarp();
    }
    __syncthreads();
    if (threadIdx.x < ROWS && first + threadIdx.x < m.rows) {
        float sum = sums[threadIdx.x];
        for (unsigned run = 1; run < runs; run++) sum += sums[ROWS * run + threadIdx.x];
        m.y[first + threadIdx.x] = sum;
    }
}

// Counts how often each exponent, halved, is in a matrix. `counts` has 128 numbers, which were 0.
extern "C" __global__ void __launch_bounds__(256)
    count_exponents(const bf16 *weights, unsigned long long count, unsigned *counts) {
    __shared__ unsigned own[128];
    if (threadIdx.x < 128) own[threadIdx.x] = 0;
    __syncthreads();
    const unsigned long long stride = (unsigned long long)gridDim.x * blockDim.x;
    for (unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride)
        atomicAdd(&own[weights[i] >> 8 & 127], 1);
    __syncthreads();
    if (threadIdx.x < 128) atomicAdd(&counts[threadIdx.x], own[threadIdx.x]);
}

// ---------------------------------------------------------------------------------------------------------------------
// Attention
// ---------------------------------------------------------------------------------------------------------------------

// The heads of a layer. A cache has, for each head, a row of `size` numbers for each position of the context.
struct Heads {
    float *queries;
    const float *keys, *values;
    const bf16 *query_norm, *key_norm;   // NULL if the model has none
    const float *cosines, *sines;        // size / 2 for each position
    bf16 *key_cache, *value_cache;
    const State *state;
    unsigned query_heads, key_heads, size, context;
    float share, epsilon;                // 1 / size
};

// Norms and rotates the heads of queries, in place, and of keys, which go to the cache; and puts the values there. A
// warp for each head: of queries, then of keys, then of values.
extern "C" __global__ void __launch_bounds__(32) heads(const Heads h) {
    const unsigned position = h.state->position, half = h.size / 2;
    unsigned head = blockIdx.x;
    const bool query = head < h.query_heads;
    if (!query) head -= h.query_heads;
    if (!query && head >= h.key_heads) {
        head -= h.key_heads;
        bf16 *to = h.value_cache + ((unsigned long long)head * h.context + position) * h.size;
        for (unsigned i = threadIdx.x; i < h.size; i += 32) to[i] = narrow(h.values[head * h.size + i]);
        return;
    }
    const float *from = (query ? h.queries : h.keys) + head * h.size;
    const bf16 *norm = query ? h.query_norm : h.key_norm;
    float scale = 1;
    if (norm) {
        float squares = 0;
        for (unsigned i = threadIdx.x; i < h.size; i += 32) squares = fmaf(from[i], from[i], squares);
        scale = 1.0f / sqrtf(warp_sum(squares) * h.share + h.epsilon);
    }
    for (unsigned i = threadIdx.x; i < half; i += 32) {
        float a = from[i] * scale, b = from[i + half] * scale;
        if (norm) {
            a *= wide(norm[i]);
            b *= wide(norm[i + half]);
        }
        const float cosine = h.cosines[position * half + i], sine = h.sines[position * half + i];
        const float low = a * cosine - b * sine, high = b * cosine + a * sine;
        if (query) {
            h.queries[head * h.size + i] = low;
            h.queries[head * h.size + i + half] = high;
        } else {
            bf16 *to = h.key_cache + ((unsigned long long)head * h.context + position) * h.size;
            to[i] = narrow(low);
            to[i + half] = narrow(high);
        }
    }
}

enum { THREADS = 128 };

// Attention of one token, a block for each head of queries. It goes through the positions in chunks of 128: each
// thread first takes a position and calculates its score, and then a number of the result, to which it adds the
// values by their weights. When a larger score comes, what was added before is scaled down (online softmax). `size`
// is at most 128 and a multiple of 8; `sharing` heads of queries have the same keys.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention(const float *queries, const bf16 *key_cache, const bf16 *value_cache, bf16 *out, const State *state,
              unsigned size, unsigned context, unsigned sharing, float scale) {
    __shared__ float query[THREADS], weights[THREADS];
    const unsigned count = state->position + 1, i = threadIdx.x;
    const unsigned long long head = (unsigned long long)(blockIdx.x / sharing) * context * size;
    const bf16 *keys = key_cache + head, *values = value_cache + head;
    if (i < size) query[i] = queries[blockIdx.x * size + i] * scale;
    __syncthreads();

    float top = -1e30f, total = 0, sum = 0;
    for (unsigned first = 0; first < count; first += THREADS) {
        const bool there = first + i < count;
        float score = -1e30f;
        if (there) {
            const uint4 *key = (const uint4 *)(keys + (unsigned long long)(first + i) * size);
            score = 0;
            for (unsigned j = 0; j < size; j += 8) {
                const uint4 k = key[j / 8];
                score = fmaf(query[j], __uint_as_float(k.x << 16), score);
                score = fmaf(query[j + 1], __uint_as_float(k.x & 0xffff0000), score);
                score = fmaf(query[j + 2], __uint_as_float(k.y << 16), score);
                score = fmaf(query[j + 3], __uint_as_float(k.y & 0xffff0000), score);
                score = fmaf(query[j + 4], __uint_as_float(k.z << 16), score);
                score = fmaf(query[j + 5], __uint_as_float(k.z & 0xffff0000), score);
                score = fmaf(query[j + 6], __uint_as_float(k.w << 16), score);
                score = fmaf(query[j + 7], __uint_as_float(k.w & 0xffff0000), score);
            }
        }
        const float larger = fmaxf(top, block_max(score)), keep = exponential(top - larger);
        const float weight = there ? exponential(score - larger) : 0.0f;
        weights[i] = weight;
        total = total * keep + block_sum(weight);
        top = larger;
        if (i < size) {
            const bf16 *value = values + (unsigned long long)first * size + i;
            sum *= keep;
            for (unsigned j = 0; j < min((unsigned)THREADS, count - first); j++)
                sum = fmaf(weights[j], wide(value[j * size]), sum);
        }
        __syncthreads();
    }
    if (i < size) out[blockIdx.x * size + i] = narrow(sum / total);
}

// ---------------------------------------------------------------------------------------------------------------------
// The rest
// ---------------------------------------------------------------------------------------------------------------------

// SwiGLU: silu(gate) * up, with silu(g) = g / (1 + e^-g).
extern "C" __global__ void __launch_bounds__(256)
    swiglu(const float *gate, const float *up, bf16 *out, unsigned count) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = narrow(gate[i] / (1.0f + exponential(-gate[i])) * up[i]);
}

// Greedy sampling: the token of the largest logit, of equal ones the first. The pass ends here: the next one is of
// the position after this. One block of 1024 threads.
extern "C" __global__ void __launch_bounds__(1024) choose(const float *logits, unsigned count, State *state) {
    __shared__ float tops[32];
    __shared__ unsigned tokens[32];
    float top = -3e38f;
    unsigned token = 0;
    for (unsigned i = threadIdx.x; i < count; i += blockDim.x)
        if (logits[i] > top) top = logits[i], token = i;
    for (unsigned step = 0; step < 2; step++) {
        for (unsigned apart = 16; apart > 0; apart /= 2) {
            const float other = __shfl_xor_sync(~0u, top, apart);
            const unsigned its = __shfl_xor_sync(~0u, token, apart);
            if (other > top || (other == top && its < token)) top = other, token = its;
        }
        if (step == 0) {
            if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top, tokens[threadIdx.x / 32] = token;
            __syncthreads();
            top = tops[threadIdx.x % 32], token = tokens[threadIdx.x % 32];
        }
    }
    if (threadIdx.x == 0) {
        state->token = token;
        state->position++;
    }
}
