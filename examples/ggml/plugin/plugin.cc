// A plug-in for programs that run on unmodified ggml, such as llama-cli and llama-server: bf16 weights take 12 bits
// each in memory, and multiply faster than bf16 where memory is the limit. Results are those of plain bf16, bit for
// bit.
//
//     GGML_BACKEND_PATH=libggml-df11.so llama-cli -m MODEL.gguf …
//
// ggml loads the plug-in (ggml_backend_load_all()), which adds a buffer type to ggml's CPU backend. libllama then gives
// it every bf16 matrix that stays on the CPU, whatever the architecture. set_tensor() makes a matrix of libdf11 and
// keeps nothing of the bf16 weights. The CPU backend multiplies in its own threads, inside its own graphs: there are no
// further splits, and no threads of the plug-in.
//
// A skeleton (df11-gguf --skeleton) has holes in place of weights. A hole says which tensors of a DF11 model belong
// there; they are read from the folder that it names, or that the variable DF11_MODEL names. Programs without the
// plug-in cannot open a skeleton, because its second part is missing: keep_key(). See hole.h.
//
// One vector is multiplied by df11_matrix_multiply(), in the order of sums of ggml's own kernel, which is found by
// trying (Ggml::find_order). For more vectors, tiles of rows are decoded, and ggml's own kernel multiplies with them.
//
// The CPU backend has no public interface for such buffer types: see traits.h in its sources. What is used of it is
// checked when this is compiled, and the version of ggml when it is loaded.
#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "ggml-cpu/traits.h"
#include "hole.h"
#include "weights.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <map>
#include <mutex>
#include <new>
#include <random>
#include <sys/mman.h>
#include <tuple>
#include <type_traits>
#include <unistd.h>

static_assert(GGML_BACKEND_API_VERSION == 3, "written for another version of ggml's backend interface");

namespace {

using namespace example;

// ---- What is used of ggml's CPU backend.

// The classes of traits.h with the same virtual functions. Theirs have destructors in the CPU backend's library, which
// a program may load without making its symbols global.
class Traits {
  public:
    virtual ~Traits() = default;
    virtual bool work_size(int threads, const ggml_tensor *node, size_t &bytes) = 0;
    virtual bool compute_forward(ggml_compute_params *params, ggml_tensor *node) = 0;
};
class ExtraBufferType {
  public:
    virtual ~ExtraBufferType() = default;
    virtual bool supports_op(ggml_backend_dev_t device, const ggml_tensor *node) = 0;
    virtual Traits *get_tensor_traits(const ggml_tensor *node) = 0;
};
using TheirTraits = ggml::cpu::tensor_traits;
using TheirType = ggml::cpu::extra_buffer_type;
static_assert(std::is_same_v<decltype(&TheirTraits::work_size),
                             bool (TheirTraits::*)(int, const ggml_tensor *, size_t &)>);
static_assert(std::is_same_v<decltype(&TheirTraits::compute_forward),
                             bool (TheirTraits::*)(ggml_compute_params *, ggml_tensor *)>);
static_assert(std::is_same_v<decltype(&TheirType::supports_op),
                             bool (TheirType::*)(ggml_backend_dev_t, const ggml_tensor *)>);
static_assert(std::is_same_v<decltype(&TheirType::get_tensor_traits),
                             TheirTraits *(TheirType::*)(const ggml_tensor *)>);
static_assert(sizeof(TheirTraits) == sizeof(Traits) && sizeof(TheirType) == sizeof(ExtraBufferType));

// The order of sums of a kernel that libdf11 does not have.
constexpr uint32_t no_order = UINT32_MAX;

struct Ggml {
    decltype(&ggml_backend_cpu_get_extra_buffer_types) extra_buffer_types;
    decltype(&ggml_get_type_traits_cpu) type_traits;
    decltype(&ggml_barrier) barrier;
    decltype(&ggml_threadpool_chunk_set) set_chunk;
    decltype(&ggml_threadpool_chunk_add) add_chunk;
    void (*mul_mat)(const ggml_compute_params *params, ggml_tensor *node);
    ggml_from_float_t round;  // f32 to bf16
    ggml_vec_dot_t dot;       // of bf16
    uint32_t order;           // in which `dot` adds

    // Finds the CPU backend of this process, and throws if it cannot be used.
    void open();

  private:
    uint32_t find_order() const;
};
Ggml cpu;

void Ggml::open() {
    std::string built = DF11_GGML_VERSION, found = ggml_version();
    auto minor = [](const std::string &version) { return version.substr(0, version.find('.', version.find('.') + 1)); };
    if (minor(built) != minor(found))
        throw std::runtime_error("built for ggml " + built + ", but this program has ggml " + found +
                                 ": build the plug-in with the llama.cpp sources that the program was built from");
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (device == nullptr) throw std::runtime_error("this program has no CPU backend");
    // The library with the CPU backend, which may be one of several for different processors.
    Dl_info where{};
    void *library = nullptr;
    if (dladdr(reinterpret_cast<void *>(device->iface.get_name), &where) != 0)
        library = dlopen(where.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    auto find = [&](auto &function, const char *name) {
        void *symbol = library != nullptr ? dlsym(library, name) : nullptr;
        if (symbol == nullptr)
            throw std::runtime_error(std::string("the CPU backend of this program has no ") + name +
                                     ": the plug-in needs ggml as shared libraries (BUILD_SHARED_LIBS)");
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol);
    };
    find(extra_buffer_types, "_Z39ggml_backend_cpu_get_extra_buffer_typesv");
    find(type_traits, "ggml_get_type_traits_cpu");
    find(barrier, "ggml_barrier");
    find(set_chunk, "ggml_threadpool_chunk_set");
    find(add_chunk, "ggml_threadpool_chunk_add");
    find(mul_mat, "ggml_compute_forward_mul_mat");
    const ggml_type_traits_cpu *bf16 = type_traits(GGML_TYPE_BF16);
    if (bf16 == nullptr || bf16->vec_dot == nullptr || bf16->from_float == nullptr ||
        bf16->vec_dot_type != GGML_TYPE_BF16)
        throw std::runtime_error("the CPU backend of this program has no kernel for bf16");
    round = bf16->from_float;
    dot = bf16->vec_dot;
    order = find_order();
}

// Turns a status into an exception with the library's message.
void check(df11_status status, const df11_error &error) {
    if (status != DF11_OK) throw std::runtime_error(error.message);
}

struct MatrixFreed {
    void operator()(df11_matrix *matrix) const { df11_matrix_free(matrix); }
};
using Matrix = std::unique_ptr<df11_matrix, MatrixFreed>;

// Returns the order of sums of ggml's kernel: the one that gives the same bits. It depends on the instruction set for
// which ggml is compiled, and on the compiler. Columns beyond a multiple of 64 tell some of the orders apart.
uint32_t Ggml::find_order() const {
    const uint32_t orders[] = {DF11_ORDER_GGML_AVX512_BF16, DF11_ORDER_GGML_AVX512, DF11_ORDER_GGML_AVX2,
                               DF11_ORDER_LANES};
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    constexpr size_t rows = 64;
    bool possible[std::size(orders)];
    std::fill(std::begin(possible), std::end(possible), true);
    for (size_t columns : {size_t(1024), size_t(1024 + 63)}) {
        std::vector<ggml_bf16_t> weights(rows * columns), x(columns);
        auto fill = [&](std::vector<ggml_bf16_t> &values) {
            for (ggml_bf16_t &value : values) value = ggml_fp32_to_bf16(normal(random));
        };
        fill(weights);
        fill(x);
        df11_error error{};
        uint64_t bytes = 0;
        check(df11_matrix_bound(rows, columns, &bytes, &error), error);
        std::unique_ptr<void, decltype(&std::free)> memory(
            std::aligned_alloc(DF11_MATRIX_ALIGNMENT, GGML_PAD(bytes, DF11_MATRIX_ALIGNMENT)), &std::free);
        if (!memory) throw std::bad_alloc();
        check(df11_matrix_write(reinterpret_cast<uint16_t *>(weights.data()), rows, columns, memory.get(), bytes, 1,
                                nullptr, &bytes, &error),
              error);
        df11_matrix *bound = nullptr;
        check(df11_matrix_bind(memory.get(), bytes, &bound, &error), error);
        Matrix matrix(bound);
        float theirs[rows], ours[rows];
        for (size_t row = 0; row < rows; row++)
            dot(int(columns), &theirs[row], 0, &weights[row * columns], 0, x.data(), 0, 1);
        for (size_t i = 0; i < std::size(orders); i++) {
            check(df11_matrix_multiply(matrix.get(), 0, rows, x.data(), DF11_DTYPE_BF16, columns, 1, orders[i], ours,
                                       rows, &error),
                  error);
            possible[i] = possible[i] && std::memcmp(ours, theirs, sizeof(ours)) == 0;
        }
    }
    auto first = std::find(std::begin(possible), std::end(possible), true);
    return first == std::end(possible) ? no_order : orders[first - std::begin(possible)];
}

// ---- Computing.

// ggml's interface cannot report an error here, and ggml itself ends the process on its own errors.
template <typename Work>
auto or_abort(Work work) {
    try {
        return work();
    } catch (const std::exception &error) {
        GGML_ABORT("DF11: %s", error.what());
    }
}

// For the tests, the variable DF11_PLANT names a mistake, or "tiles" for parts of matrices that are as small as can be.
bool planted(const char *what) {
    const char *plant = std::getenv("DF11_PLANT");
    return plant != nullptr && std::strcmp(plant, what) == 0;
}

constexpr size_t cache_line = 64;
// What a thread multiplies with one vector before it takes the next part: some 10 microseconds.
constexpr size_t chunk_bytes = size_t(128) << 10;
// A tile that all threads decode and then multiply with. It and the next one fit into most caches; each costs some
// barriers.
constexpr size_t tile_bytes = size_t(4) << 20;

size_t padded(size_t bytes) { return GGML_PAD(bytes, cache_line); }

// The rows of a matrix that fit into so many bytes, in multiples of 64, on which ggml's choice of a kernel does not
// depend. y begins at a cache line with each such part.
int64_t rows_in(size_t bytes, int64_t columns) {
    static const bool smallest = planted("tiles");
    if (smallest) return 64;
    return std::max<int64_t>(1, int64_t(bytes / 2) / columns / 64) * 64;
}

// The part of `count` things that thread `thread` of `threads` does.
std::pair<int64_t, int64_t> share(int64_t count, int thread, int threads) {
    return {count * thread / threads, count * (thread + 1) / threads};
}

// The position of a node's vector `row`, counted over all dimensions.
template <typename Pointer>
Pointer vector_at(const ggml_tensor *tensor, int64_t row) {
    int64_t i1 = row % tensor->ne[1], i2 = row / tensor->ne[1] % tensor->ne[2];
    int64_t i3 = row / tensor->ne[1] / tensor->ne[2];
    return reinterpret_cast<Pointer>(static_cast<char *>(tensor->data) + i1 * tensor->nb[1] + i2 * tensor->nb[2] +
                                     i3 * tensor->nb[3]);
}

// Rounds vectors of f32 to bf16, one after the other, each thread a part. ggml rounds them in the same way.
void round_vectors(const ggml_compute_params *params, const ggml_tensor *x, ggml_bf16_t *to) {
    int64_t columns = x->ne[0], rows = ggml_nrows(x);
    int64_t first = 0, last = rows, begin = 0, end = columns;
    if (rows >= params->nth) {
        std::tie(first, last) = share(rows, params->ith, params->nth);
    } else {
        // Few vectors are divided, at cache lines.
        std::tie(begin, end) = share((columns + 31) / 32, params->ith, params->nth);
        begin = std::min(columns, 32 * begin);
        end = std::min(columns, 32 * end);
    }
    for (int64_t row = first; row < last; row++)
        cpu.round(vector_at<const float *>(x, row) + begin, to + row * columns + begin, end - begin);
}

// A weight: a tensor's matrix, all of whose rows are one after the other.
class Weight : public Traits {
  public:
    // Returns the weight of a tensor or of what it is a view of, or null.
    static Weight *of(const ggml_tensor *tensor);

    Matrix matrix;
    std::vector<unsigned char> pending;  // bf16 weights that have not all been set
    size_t pending_bytes = 0;
    void *apart = nullptr;  // memory of its own, if the buffer has none left
    size_t apart_bytes = 0;

    ~Weight() override { drop(); }
    void drop() {
        matrix.reset();
        if (apart != nullptr) munmap(apart, apart_bytes);
        apart = nullptr;
    }

    // Decodes weights from `first` on. No thread but the calling one works.
    void decode(uint64_t first, uint64_t count, void *to) const {
        df11_error error{};
        if (!matrix) throw std::runtime_error("a weight is used before it is set");
        check(df11_matrix_decompress(matrix.get(), first, count, to, size_t(2 * count), &error), error);
    }

    bool work_size(int threads, const ggml_tensor *node, size_t &bytes) override {
        const ggml_tensor *w = node->src[0], *x = node->src[1];
        size_t columns = size_t(w->ne[0]);
        switch (node->op) {
            case GGML_OP_GET_ROWS:
                bytes = cache_line + size_t(threads) * padded(2 * columns);
                return true;
            case GGML_OP_MUL_MAT:
                bytes = cache_line + padded(2 * size_t(ggml_nelements(x)));
                if (!one_by_one(node)) bytes += 2 * padded(2 * columns * size_t(tile_rows(w)));
                return true;
            case GGML_OP_MUL_MAT_ID:
                bytes = cache_line + padded(2 * size_t(ggml_nelements(x))) + Experts::bytes(node) +
                        size_t(threads) * padded(2 * columns * size_t(expert_rows(w)));
                return true;
            default:
                return false;
        }
    }

    bool compute_forward(ggml_compute_params *params, ggml_tensor *node) override {
        or_abort([&] {
            if (node->op == GGML_OP_GET_ROWS)
                get_rows(params, node);
            else if (node->op == GGML_OP_MUL_MAT_ID)
                multiply_experts(params, node);
            else if (one_by_one(node))
                multiply_vectors(params, node);
            else
                multiply_tiles(params, node);
        });
        return true;
    }

  private:
    // The first row of a tensor, which may be a view, in the matrix.
    static int64_t first_row(const ggml_tensor *w) {
        return w->view_src != nullptr ? int64_t(w->view_offs / (2 * size_t(w->ne[0]))) : 0;
    }

    // Returns whether ggml's kernel for pairs of vectors computes a node, rather than that for matrices, and libdf11
    // has its order of sums. The one for matrices needs two vectors, and rows in multiples of four.
    static bool one_by_one(const ggml_tensor *node) {
        return cpu.order != no_order && (node->src[1]->ne[1] == 1 || node->src[0]->ne[1] % 4 != 0);
    }

    static int64_t tile_rows(const ggml_tensor *w) {
        return w->ne[1] % 4 != 0 ? w->ne[1] : std::min(w->ne[1], rows_in(tile_bytes, w->ne[0]));
    }

    static int64_t expert_rows(const ggml_tensor *w) { return std::min(w->ne[1], rows_in(chunk_bytes, w->ne[0])); }

    void multiply(int64_t row, int64_t rows, const ggml_bf16_t *x, float *y) const {
        df11_error error{};
        if (!matrix) throw std::runtime_error("a weight is used before it is set");
        check(df11_matrix_multiply(matrix.get(), uint64_t(row), uint64_t(rows), x, DF11_DTYPE_BF16, 0, 1, cpu.order, y,
                                   0, &error),
              error);
        static const bool wrong = planted("sums");
        if (wrong) y[0] = -y[0];
    }

    void get_rows(const ggml_compute_params *params, ggml_tensor *node) const {
        const ggml_tensor *w = node->src[0], *ids = node->src[1];
        int64_t columns = w->ne[0];
        ggml_bf16_t *row = reinterpret_cast<ggml_bf16_t *>(padded(reinterpret_cast<uintptr_t>(params->wdata))) +
                           params->ith * int64_t(padded(2 * size_t(columns)) / 2);
        auto [first, last] = share(ggml_nelements(ids), params->ith, params->nth);
        for (int64_t i = first; i < last; i++) {
            int64_t i0 = i % ids->ne[0], i1 = i / ids->ne[0] % ids->ne[1], i2 = i / ids->ne[0] / ids->ne[1];
            int32_t id;
            std::memcpy(&id, static_cast<char *>(ids->data) + i0 * ids->nb[0] + i1 * ids->nb[1] + i2 * ids->nb[2],
                        sizeof(id));
            if (id < 0 || id >= w->ne[1]) throw std::runtime_error(std::string(w->name) + " has no such row");
            int64_t at = first_row(w) + (i2 * w->ne[2] + i1) * w->ne[1] + id;
            decode(uint64_t(at * columns), uint64_t(columns), row);
            ggml_bf16_to_fp32_row(row, reinterpret_cast<float *>(static_cast<char *>(node->data) + i0 * node->nb[1] +
                                                                 i1 * node->nb[2] + i2 * node->nb[3]),
                                  columns);
        }
    }

    // The first row of the matrix that is multiplied with a vector of x. ggml repeats a weight for groups of them.
    static int64_t slice_row(const ggml_tensor *node, int64_t i2, int64_t i3) {
        const ggml_tensor *w = node->src[0], *x = node->src[1];
        return first_row(w) + (i3 / (x->ne[3] / w->ne[3]) * w->ne[2] + i2 / (x->ne[2] / w->ne[2])) * w->ne[1];
    }

    void multiply_vectors(const ggml_compute_params *params, ggml_tensor *node) const {
        const ggml_tensor *w = node->src[0], *x = node->src[1];
        int64_t columns = w->ne[0], rows = w->ne[1], vectors = ggml_nrows(x);
        ggml_bf16_t *rounded = reinterpret_cast<ggml_bf16_t *>(padded(reinterpret_cast<uintptr_t>(params->wdata)));
        round_vectors(params, x, rounded);
        // A thread may be late, so that threads take chunks as they come.
        int64_t step = params->nth > 1 ? rows_in(chunk_bytes, columns) : rows;
        int64_t steps = (rows + step - 1) / step;
        if (params->ith == 0) cpu.set_chunk(params->threadpool, params->nth);
        cpu.barrier(params->threadpool);
        for (int64_t chunk = params->ith; chunk < steps * vectors; chunk = cpu.add_chunk(params->threadpool, 1)) {
            int64_t vector = chunk / steps, row = chunk % steps * step;
            int64_t i2 = vector / x->ne[1] % x->ne[2], i3 = vector / x->ne[1] / x->ne[2];
            multiply(slice_row(node, i2, i3) + row, std::min(step, rows - row), rounded + vector * columns,
                     vector_at<float *>(node, vector) + row);
        }
    }

    void multiply_tiles(const ggml_compute_params *params, ggml_tensor *node) const {
        const ggml_tensor *w = node->src[0], *x = node->src[1];
        int64_t columns = w->ne[0], rows = w->ne[1], at_once = tile_rows(w), count = 0;
        char *rounded = reinterpret_cast<char *>(padded(reinterpret_cast<uintptr_t>(params->wdata)));
        char *tiles = rounded + padded(2 * size_t(ggml_nelements(x)));
        round_vectors(params, x, reinterpret_cast<ggml_bf16_t *>(rounded));
        for (int64_t i3 = 0; i3 < x->ne[3]; i3++)
            for (int64_t i2 = 0; i2 < x->ne[2]; i2++)
                for (int64_t row = 0; row < rows; row += at_once, count++) {
                    // A thread that is done decodes into the other tile, while others multiply with this one.
                    char *tile = tiles + size_t(count % 2) * padded(2 * size_t(columns * at_once));
                    int64_t some = std::min(at_once, rows - row);
                    auto [first, last] = share(some, params->ith, params->nth);
                    if (first < last)
                        decode(uint64_t((slice_row(node, i2, i3) + row + first) * columns),
                               uint64_t((last - first) * columns), tile + 2 * first * columns);
                    cpu.barrier(params->threadpool);

                    ggml_tensor weights = *w, vectors = *x, result = *node;
                    auto shape = [](ggml_tensor &t, ggml_type type, int64_t ne0, int64_t ne1, size_t nb1, void *data) {
                        t.type = type;
                        t.ne[0] = ne0, t.ne[1] = ne1, t.ne[2] = t.ne[3] = 1;
                        t.nb[0] = ggml_type_size(type), t.nb[1] = nb1, t.nb[2] = t.nb[3] = nb1 * size_t(ne1);
                        t.data = data;
                        t.view_src = nullptr, t.buffer = nullptr, t.extra = nullptr;
                    };
                    size_t row_bytes = 2 * size_t(columns);
                    shape(weights, GGML_TYPE_BF16, columns, some, row_bytes, tile);
                    shape(vectors, GGML_TYPE_BF16, columns, x->ne[1], row_bytes,
                          rounded + size_t((i3 * x->ne[2] + i2) * x->ne[1]) * row_bytes);
                    shape(result, GGML_TYPE_F32, some, x->ne[1], node->nb[1],
                          vector_at<float *>(node, (i3 * x->ne[2] + i2) * x->ne[1]) + row);
                    result.src[0] = &weights;
                    result.src[1] = &vectors;
                    cpu.mul_mat(params, &result);
                }
    }

    // The vectors of each expert, in the order in which experts are computed.
    struct Experts {
        struct Vector {
            int32_t slot, token;  // the place in y
        };
        struct Expert {
            int64_t id, first, count;  // its vectors
        };
        int64_t *count;
        Expert *all;
        Vector *vectors;

        static size_t bytes(const ggml_tensor *node) {
            return padded(sizeof(int64_t)) + padded(sizeof(Expert) * size_t(node->src[0]->ne[2])) +
                   padded(sizeof(Vector) * size_t(ggml_nelements(node->src[2])));
        }
        Experts(const ggml_tensor *node, char *memory)
            : count(reinterpret_cast<int64_t *>(memory)),
              all(reinterpret_cast<Expert *>(memory + padded(sizeof(int64_t)))),
              vectors(reinterpret_cast<Vector *>(memory + padded(sizeof(int64_t)) +
                                                 padded(sizeof(Expert) * size_t(node->src[0]->ne[2])))) {}

        void sort(const ggml_tensor *node) {
            const ggml_tensor *ids = node->src[2];
            int64_t experts = node->src[0]->ne[2];
            auto id_at = [&](int64_t slot, int64_t token) {
                int32_t id;
                std::memcpy(&id, static_cast<char *>(ids->data) + slot * ids->nb[0] + token * ids->nb[1], sizeof(id));
                if (id < 0 || id >= experts) throw std::runtime_error("an expert that the model does not have");
                return id;
            };
            for (int64_t i = 0; i < experts; i++) all[i] = {i, 0, 0};
            for (int64_t token = 0; token < ids->ne[1]; token++)
                for (int64_t slot = 0; slot < ids->ne[0]; slot++) all[id_at(slot, token)].count++;
            int64_t sum = 0;
            for (int64_t i = 0; i < experts; i++) {
                all[i].first = sum;
                sum += all[i].count;
                all[i].count = 0;
            }
            for (int64_t token = 0; token < ids->ne[1]; token++)
                for (int64_t slot = 0; slot < ids->ne[0]; slot++) {
                    Expert &expert = all[id_at(slot, token)];
                    vectors[expert.first + expert.count++] = {int32_t(slot), int32_t(token)};
                }
            *count = std::remove_if(all, all + experts, [](const Expert &expert) { return expert.count == 0; }) - all;
        }
    };

    // ggml multiplies with experts by its kernel for pairs of vectors, however many there are.
    void multiply_experts(const ggml_compute_params *params, ggml_tensor *node) const {
        const ggml_tensor *w = node->src[0], *x = node->src[1];
        int64_t columns = w->ne[0], rows = w->ne[1], step = expert_rows(w), steps = (rows + step - 1) / step;
        char *memory = reinterpret_cast<char *>(padded(reinterpret_cast<uintptr_t>(params->wdata)));
        ggml_bf16_t *rounded = reinterpret_cast<ggml_bf16_t *>(memory);
        memory += padded(2 * size_t(ggml_nelements(x)));
        Experts experts(node, memory);
        memory += Experts::bytes(node);
        ggml_bf16_t *tile =
            reinterpret_cast<ggml_bf16_t *>(memory + size_t(params->ith) * padded(2 * size_t(columns * step)));
        round_vectors(params, x, rounded);
        if (params->ith == 0) {
            experts.sort(node);
            cpu.set_chunk(params->threadpool, params->nth);
        }
        cpu.barrier(params->threadpool);
        int64_t chunks = steps * *experts.count;
        for (int64_t chunk = params->ith; chunk < chunks; chunk = cpu.add_chunk(params->threadpool, 1)) {
            const Experts::Expert &expert = experts.all[chunk / steps];
            int64_t row = chunk % steps * step, some = std::min(step, rows - row);
            int64_t first = first_row(w) + expert.id * rows + row;
            // Beyond a few vectors it takes less time to decode the rows once.
            bool direct = cpu.order != no_order && expert.count <= 2;
            if (!direct) decode(uint64_t(first * columns), uint64_t(some * columns), tile);
            for (int64_t i = expert.first; i < expert.first + expert.count; i++) {
                Experts::Vector vector = experts.vectors[i];
                const ggml_bf16_t *from = rounded + (vector.token * x->ne[1] + vector.slot % x->ne[1]) * columns;
                float *y = reinterpret_cast<float *>(static_cast<char *>(node->data) + vector.slot * node->nb[1] +
                                                     vector.token * node->nb[2]) + row;
                if (direct)
                    multiply(first, some, from, y);
                else
                    for (int64_t r = 0; r < some; r++)
                        cpu.dot(int(columns), y + r, 0, tile + r * columns, 0, from, 0, 1);
            }
        }
    }
};

// ---- Memory. A buffer reserves addresses twice: those that ggml gives to tensors, where there is nothing if they are
// weights, and those of the matrices. Pages that are not written take no memory.

size_t page() { return size_t(sysconf(_SC_PAGESIZE)); }

void *reserve(size_t bytes) {
    void *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at != MAP_FAILED ? at : nullptr;
}

struct Buffer {
    size_t bytes;
    void *addresses;
    unsigned char *memory;
    size_t used = 0;
    std::mutex mutex;
    std::map<const void *, std::unique_ptr<Weight>> weights;  // by the tensor's address

    explicit Buffer(size_t size)
        : bytes(GGML_PAD(std::max<size_t>(size, 1), page())), addresses(reserve(bytes)),
          memory(static_cast<unsigned char *>(reserve(bytes))) {
        if (addresses == nullptr || memory == nullptr) {
            unmap();
            throw std::bad_alloc();
        }
        // Large pages make look-ups of addresses cheaper. The matrices are packed, so that none are wasted.
        madvise(memory, bytes, MADV_HUGEPAGE);
    }
    ~Buffer() {
        weights.clear();
        unmap();
    }

    // Makes the matrix of a weight by `write`, which is given memory and returns a status and the bytes that it needs.
    template <typename Write>
    void make(Weight &weight, Write write) {
        df11_error error{};
        uint64_t needed = 0;
        weight.drop();
        void *at = memory + used;
        df11_status status = write(at, bytes - used, &needed, &error);
        if (status == DF11_OK) used += GGML_PAD(size_t(needed), DF11_MATRIX_ALIGNMENT);
        // For weights that do not compress, or that are set again. What is needed may first be told without exponents.
        for (int tries = 0; status == DF11_BUFFER_TOO_SMALL && tries < 2; tries++) {
            weight.drop();
            weight.apart_bytes = size_t(needed);
            at = weight.apart = reserve(weight.apart_bytes);
            if (at == nullptr) throw std::bad_alloc();
            status = write(at, weight.apart_bytes, &needed, &error);
        }
        check(status, error);
        df11_matrix *matrix = nullptr;
        check(df11_matrix_bind(at, size_t(needed), &matrix, &error), error);
        weight.matrix.reset(matrix);
    }

  private:
    void unmap() {
        if (addresses != nullptr) munmap(addresses, bytes);
        if (memory != nullptr) munmap(memory, bytes);
    }
};

// Gives back the pages of a mapped file that have been read. Other memory is left alone: it would lose its contents.
void forget(const void *data, size_t bytes) {
    uintptr_t begin = reinterpret_cast<uintptr_t>(data), end = begin + bytes;
    std::unique_ptr<FILE, int (*)(FILE *)> maps(std::fopen("/proc/self/maps", "r"), &std::fclose);
    char line[512];
    while (maps && std::fgets(line, sizeof(line), maps.get()) != nullptr) {
        unsigned long from, to, inode;
        char access[8];
        if (std::sscanf(line, "%lx-%lx %7s %*x %*s %lu", &from, &to, access, &inode) != 4) continue;
        if (begin < from || end > to) continue;
        uintptr_t first = GGML_PAD(begin, page()), last = end / page() * page();
        if (access[3] == 's' && access[1] == '-' && inode != 0 && first < last)
            madvise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED);
        return;
    }
}

void set_weights(Buffer &buffer, Weight &weight, const ggml_tensor *tensor, const void *data) {
    uint64_t columns = uint64_t(tensor->ne[0]), rows = uint64_t(ggml_nrows(tensor));
    buffer.make(weight, [&](void *to, size_t bytes, uint64_t *needed, df11_error *error) {
        df11_status status = df11_matrix_write(static_cast<const uint16_t *>(data), rows, columns, to, bytes,
                                               threads_to_use(), nullptr, needed, error);
        // The sign of a weight, for the tests.
        if (status == DF11_OK && planted("decode")) static_cast<unsigned char *>(to)[128] ^= 0x80;
        return status;
    });
}

// The DF11 model that the holes of a skeleton name. It stays open, and its files are not mapped: they take no memory.
const Model &model_of(const Hole &hole) {
    static std::string opened;
    static std::unique_ptr<Model> model;
    const char *given = std::getenv("DF11_MODEL");
    std::string path = given != nullptr && *given != 0 ? given : hole.model;
    if (!model || opened != path) {
        model = std::make_unique<Model>(path, DF11_OPEN_READ);
        opened = path;
    }
    return *model;
}

void fill_hole(Buffer &buffer, Weight &weight, const ggml_tensor *tensor, const void *data) {
    Hole hole = hole_in(data, ggml_nbytes(tensor));
    const Model &model = model_of(hole);
    Source source{{}, hole.permuted_heads};
    for (const std::string &name : hole.tensors) {
        uint64_t number;
        if (!model.find(name, number)) throw std::runtime_error("the DF11 model has no " + name);
        source.tensors.push_back(number);
    }
    std::vector<unsigned char> values(ggml_nbytes(tensor));
    read_source(model, source, tensor->ne[1], values.data(), values.size(), threads_to_use());
    if (sample(values.data(), values.size()) != hole.sample)
        throw std::runtime_error("it is not that of the DF11 model for which the skeleton was written");
    set_weights(buffer, weight, tensor, values.data());
}

Buffer &buffer_of(ggml_backend_buffer_t buffer) { return *static_cast<Buffer *>(buffer->context); }

const ggml_tensor *whole_of(const ggml_tensor *tensor) {
    return tensor->view_src != nullptr ? tensor->view_src : tensor;
}

bool is_ours(const ggml_tensor *tensor);

// An RPC server makes its tensors anew for each graph, so that they have no `extra`.
Weight *Weight::of(const ggml_tensor *tensor) {
    const ggml_tensor *whole = whole_of(tensor);
    if (whole->extra != nullptr) return static_cast<Weight *>(static_cast<Traits *>(whole->extra));
    if ((whole->type != GGML_TYPE_BF16 && whole->type != hole_type) || !is_ours(whole)) return nullptr;
    const auto &weights = buffer_of(whole->buffer).weights;
    auto found = weights.find(whole->data);
    return found != weights.end() ? found->second.get() : nullptr;
}

Weight &add_weight(Buffer &buffer, const ggml_tensor *tensor) {
    auto &weight = buffer.weights[tensor->data];
    weight = std::make_unique<Weight>();
    return *weight;
}

// Returns whether an RPC client sets a weight. Caches have the type BF16, too, but other names.
bool is_named_weight(const ggml_tensor *tensor) {
    static const std::string end = ".weight";
    std::string name = tensor->name;
    return (tensor->type == GGML_TYPE_BF16 || tensor->type == hole_type) && tensor->view_src == nullptr &&
           ggml_is_contiguous(tensor) && ggml_n_dims(tensor) > 1 && name.size() > end.size() &&
           name.compare(name.size() - end.size(), end.size(), end) == 0;
}

void set(ggml_backend_buffer_t of, ggml_tensor *tensor, const void *data, size_t offset, size_t bytes) {
    try {
        Buffer &buffer = buffer_of(of);
        std::lock_guard<std::mutex> lock(buffer.mutex);
        Weight *weight = Weight::of(tensor);
        size_t all = ggml_nbytes(tensor);
        if (weight == nullptr && is_named_weight(tensor)) weight = &add_weight(buffer, tensor);
        if (weight == nullptr) {
            if (tensor->type == hole_type) throw std::runtime_error("a hole of a skeleton that is no weight");
            std::memcpy(static_cast<char *>(tensor->data) + offset, data, bytes);
            return;
        }
        if (tensor->view_src != nullptr) throw std::runtime_error("a part of a weight cannot be set");
        auto make = [&](const void *values) {
            if (tensor->type == hole_type)
                fill_hole(buffer, *weight, tensor, values);
            else
                set_weights(buffer, *weight, tensor, values);
        };
        // What comes over a network may begin anywhere.
        bool is_aligned = reinterpret_cast<uintptr_t>(data) % alignof(uint16_t) == 0;
        if (offset == 0 && bytes == all && is_aligned) {
            make(data);
            forget(data, bytes);
            return;
        }
        // Some loaders give a weight in pieces.
        weight->pending.resize(all);
        std::memcpy(weight->pending.data() + offset, data, bytes);
        weight->pending_bytes += bytes;
        if (weight->pending_bytes < all) return;
        std::vector<unsigned char> whole;
        whole.swap(weight->pending);
        weight->pending_bytes = 0;
        make(whole.data());
    } catch (const std::exception &error) {
        GGML_ABORT("DF11: %s: %s", tensor->name, error.what());
    }
}

const ggml_backend_buffer_i buffer_interface = {
    /* free_buffer   */ [](ggml_backend_buffer_t buffer) { delete &buffer_of(buffer); },
    /* get_base      */ [](ggml_backend_buffer_t buffer) { return buffer_of(buffer).addresses; },
    /* init_tensor   */
    [](ggml_backend_buffer_t of, ggml_tensor *tensor) {
        if (tensor->view_src == nullptr && (tensor->type == GGML_TYPE_BF16 || tensor->type == hole_type)) {
            Buffer &buffer = buffer_of(of);
            std::lock_guard<std::mutex> lock(buffer.mutex);
            tensor->extra = static_cast<Traits *>(&add_weight(buffer, tensor));
        }
        return GGML_STATUS_SUCCESS;
    },
    /* memset_tensor */
    [](ggml_backend_buffer_t buffer, ggml_tensor *tensor, uint8_t value, size_t offset, size_t bytes) {
        std::vector<uint8_t> values(bytes, value);
        set(buffer, tensor, values.data(), offset, bytes);
    },
    /* set_tensor    */ set,
    /* get_tensor    */
    [](ggml_backend_buffer_t, const ggml_tensor *tensor, void *data, size_t offset, size_t bytes) {
        or_abort([&] {
            const Weight *weight = Weight::of(tensor);
            if (weight == nullptr) {
                std::memcpy(data, static_cast<const char *>(tensor->data) + offset, bytes);
                return;
            }
            uint64_t at = tensor->view_src != nullptr ? tensor->view_offs : 0;
            if (offset % 2 != 0 || bytes % 2 != 0) throw std::runtime_error("a part of a weight cannot be read");
            if (bytes > 0) weight->decode((at + offset) / 2, bytes / 2, data);
        });
    },
    /* set_tensor_2d */ nullptr,
    /* get_tensor_2d */ nullptr,
    /* cpy_tensor    */ nullptr,
    /* clear         */
    [](ggml_backend_buffer_t of, uint8_t value) {
        // Of a buffer with no weights. Pages that are given back are zeros.
        Buffer &buffer = buffer_of(of);
        if (value == 0)
            madvise(buffer.addresses, buffer.bytes, MADV_DONTNEED);
        else
            std::memset(buffer.addresses, value, buffer.bytes);
    },
    /* reset         */ nullptr,
};

// Returns whether a tensor is a matrix of ours, or a view of its rows.
bool is_weight(const ggml_tensor *w) {
    if ((w->type != GGML_TYPE_BF16 && w->type != hole_type) || !ggml_is_contiguous(w) || ggml_is_empty(w)) return false;
    const ggml_tensor *whole = w->view_src;
    return whole == nullptr || (whole->ne[0] == w->ne[0] && w->view_offs % (2 * size_t(w->ne[0])) == 0);
}

// Returns whether a node is a product with a weight, or a look-up of its rows, in the types that models have.
bool supports(const ggml_tensor *node) {
    const ggml_tensor *w = node->src[0], *other = node->src[1];
    if (w == nullptr || other == nullptr || !is_ours(w) || is_ours(other) || !is_weight(w)) return false;
    if (node->type != GGML_TYPE_F32 || node->nb[0] != sizeof(float)) return false;
    switch (node->op) {
        case GGML_OP_GET_ROWS:
            return other->type == GGML_TYPE_I32;
        case GGML_OP_MUL_MAT:
            return other->type == GGML_TYPE_F32 && other->nb[0] == sizeof(float);
        case GGML_OP_MUL_MAT_ID:
            return other->type == GGML_TYPE_F32 && other->nb[0] == sizeof(float) && w->ne[3] == 1 && other->ne[3] == 1;
        default:
            return false;
    }
}

class Type : public ExtraBufferType {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor *node) override { return supports(node); }
    // Called for each node of each graph, by each thread.
    Traits *get_tensor_traits(const ggml_tensor *node) override {
        bool may_be = node->op == GGML_OP_MUL_MAT || node->op == GGML_OP_GET_ROWS || node->op == GGML_OP_MUL_MAT_ID;
        return may_be && is_ours(node->src[0]) ? Weight::of(node->src[0]) : nullptr;
    }
};
Type type;

ggml_backend_buffer_type buffer_type = {
    {
        /* get_name         */ [](ggml_backend_buffer_type_t) { return "DF11"; },
        /* alloc_buffer     */
        [](ggml_backend_buffer_type_t type, size_t bytes) -> ggml_backend_buffer_t {
            try {
                return ggml_backend_buffer_init(type, buffer_interface, new Buffer(bytes), bytes);
            } catch (const std::bad_alloc &) {
                return nullptr;
            }
        },
        /* alloc_buffer_n   */ nullptr,
        /* get_alignment    */ [](ggml_backend_buffer_type_t) { return cache_line; },
        /* get_max_size     */ nullptr,
        /* get_alloc_size   */ nullptr,
        /* get_alloc_size_n */ nullptr,
        /* is_host          */ nullptr,  // no: weights cannot be read at their tensors' addresses
    },
    nullptr,  // the device, set below
    static_cast<ExtraBufferType *>(&type),
};

bool is_ours(const ggml_tensor *tensor) {
    ggml_backend_buffer_t buffer = whole_of(tensor)->buffer;
    return buffer != nullptr && buffer->buft == &buffer_type;
}

// ---- A device of the kind that accelerates the CPU. libllama asks those first where a weight is to be, before the
// GPU's pinned memory and whatever --no-repack says. In libllama it computes nothing: the CPU backend does. An RPC
// server computes whole graphs with it, and has all its tensors in these buffers.

ggml_guid guid = {0xdf, 0x11, 0x6c, 0x69, 0x62, 0x64, 0x66, 0x31, 0x31, 0x67, 0x67, 0x6d, 0x6c, 0x00, 0x00, 0x02};

ggml_backend_t inner(ggml_backend_t backend) { return static_cast<ggml_backend_t>(backend->context); }

// Puts weights in bf16 where the tensors say that they are, if a node uses them for something else than we can.
void uncompress_for(const ggml_tensor *node) {
    if (node->op == GGML_OP_NONE || node->op == GGML_OP_RESHAPE || node->op == GGML_OP_VIEW ||
        node->op == GGML_OP_PERMUTE || node->op == GGML_OP_TRANSPOSE)
        return;
    for (const ggml_tensor *source : node->src) {
        if (source == nullptr || !is_ours(source)) continue;
        Weight *weight = Weight::of(source);
        if (weight == nullptr || (source == node->src[0] && supports(node))) continue;
        const ggml_tensor *whole = whole_of(source);
        if (whole->type == hole_type)
            throw std::runtime_error(std::string(whole->name) + " is not a matrix to multiply with");
        weight->decode(0, ggml_nbytes(whole) / 2, whole->data);
        buffer_of(whole->buffer).weights.erase(whole->data);
    }
}

ggml_status compute(ggml_backend_t backend, ggml_cgraph *graph) {
    or_abort([&] {
        for (int i = 0; i < ggml_graph_n_nodes(graph); i++) uncompress_for(ggml_graph_node(graph, i));
    });
    return ggml_backend_graph_compute(inner(backend), graph);
}

void set_threads(ggml_backend_t backend, int count) {
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(inner(backend)));
    auto set = reinterpret_cast<ggml_backend_set_n_threads_t>(
        ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"));
    if (set != nullptr) set(inner(backend), count);
}

ggml_backend_t begin(ggml_backend_dev_t device, const char *) {
    ggml_backend_t on_cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    if (on_cpu == nullptr) return nullptr;
    ggml_backend_i interface{};
    interface.get_name = [](ggml_backend_t) { return "DF11"; };
    interface.free = [](ggml_backend_t backend) {
        ggml_backend_free(inner(backend));
        delete backend;
    };
    interface.graph_compute = compute;
    return new ggml_backend{&guid, interface, device, on_cpu};
}

void memory_of_cpu(ggml_backend_dev_t, size_t *free, size_t *total) {
    ggml_backend_dev_memory(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), free, total);
}

const char description[] = "bf16 weights at 12 bits, on the CPU";

extern ggml_backend_reg registry;
extern ggml_backend_device device;

ggml_backend_device device = {
    {
        /* get_name             */ [](ggml_backend_dev_t) { return "DF11"; },
        /* get_description      */ [](ggml_backend_dev_t) { return description; },
        /* get_memory           */ memory_of_cpu,
        /* get_type             */ [](ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_ACCEL; },
        /* get_props            */
        [](ggml_backend_dev_t, ggml_backend_dev_props *props) {
            *props = {};
            props->name = "DF11";
            props->description = description;
            props->type = GGML_BACKEND_DEVICE_TYPE_ACCEL;
            memory_of_cpu(&device, &props->memory_free, &props->memory_total);
            props->caps.mmap_support = true;
        },
        /* init_backend         */ begin,
        /* get_buffer_type      */ [](ggml_backend_dev_t) -> ggml_backend_buffer_type_t { return &buffer_type; },
        /* get_host_buffer_type */ nullptr,
        /* buffer_from_host_ptr */ nullptr,
        /* supports_op          */
        [](ggml_backend_dev_t, const ggml_tensor *node) {
            // libllama asks where to put a weight with a buffer of no bytes. Its scheduler asks with real ones: no.
            return supports(node) && whole_of(node->src[0])->buffer->size == 0;
        },
        /* supports_buft        */
        [](ggml_backend_dev_t, ggml_backend_buffer_type_t type) { return type == &buffer_type; },
        /* offload_op           */ nullptr,
        /* event_new            */ nullptr,
        /* event_free           */ nullptr,
        /* event_synchronize    */ nullptr,
    },
    &registry,
    nullptr,
};

ggml_backend_reg registry = {
    GGML_BACKEND_API_VERSION,
    {
        /* get_name         */ [](ggml_backend_reg_t) { return "DF11"; },
        /* get_device_count */ [](ggml_backend_reg_t) -> size_t { return 1; },
        /* get_device       */ [](ggml_backend_reg_t, size_t) -> ggml_backend_dev_t { return &device; },
        /* get_proc_address */
        [](ggml_backend_reg_t, const char *name) -> void * {
            bool known = std::strcmp(name, "ggml_backend_set_n_threads") == 0;
            return known ? reinterpret_cast<void *>(set_threads) : nullptr;
        },
    },
    nullptr,
};

// Opens the key of skeletons (hole.h) for as long as the process lives.
void keep_key() {
    std::string why = "file number " + std::to_string(key_number) + " is in use";
    Gguf key(gguf_init_empty());
    set_part(key.get(), 1, 0);
    std::vector<char> bytes(gguf_get_meta_size(key.get()));
    gguf_get_meta_data(key.get(), bytes.data());
    int made = memfd_create("DF11 key", MFD_CLOEXEC);
    bool written = made >= 0 && write(made, bytes.data(), bytes.size()) == ssize_t(bytes.size());
    int kept = written ? fcntl(made, F_DUPFD_CLOEXEC, key_number) : -1;
    if (kept < 0) why = std::strerror(errno);
    if (made >= 0) close(made);
    if (kept == key_number) return;
    if (kept >= 0) close(kept);
    std::fprintf(stderr, "ggml-df11: skeletons cannot be opened in this process: %s\n", why.c_str());
}

}  // namespace

// The function that ggml looks for in a library that it loads.
extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) {
    // A program may load backends more than once.
    if (buffer_type.device != nullptr) return &registry;
    try {
        cpu.open();
        cpu.extra_buffer_types().push_back(&buffer_type);
        buffer_type.device = &device;
        keep_key();
    } catch (const std::exception &error) {
        std::fprintf(stderr, "ggml-df11: %s\n", error.what());
        return nullptr;
    }
    return &registry;
}
