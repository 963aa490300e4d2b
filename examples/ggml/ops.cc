// Computes products and look-ups on weights in the plug-in's buffers and in plain ones, in many shapes, and compares
// the results bit for bit. Models have few shapes; this has the others: weights of several matrices, views, odd sizes.
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "tokens.h"

#include <cstring>
#include <memory>
#include <stdexcept>

namespace {

struct Freed {
    void operator()(ggml_context *context) const { ggml_free(context); }
    void operator()(ggml_backend_buffer *buffer) const { ggml_backend_buffer_free(buffer); }
    void operator()(ggml_backend *backend) const { ggml_backend_free(backend); }
};
using Context = std::unique_ptr<ggml_context, Freed>;
using Buffer = std::unique_ptr<ggml_backend_buffer, Freed>;
using Backend = std::unique_ptr<ggml_backend, Freed>;

struct Case {
    ggml_op op;
    int64_t columns, rows, matrices;  // of the weight
    int64_t vectors, repeated;        // of x, for each matrix; how often a matrix is used again
    int64_t from, to;                 // rows of the weight that a view has, or 0 and all
    int64_t used = 0;                 // experts for each vector
};

std::string name_of(const Case &c) {
    std::string name = ggml_op_name(c.op);
    for (int64_t size : {c.columns, c.rows, c.matrices, c.vectors, c.repeated, c.from, c.to, c.used})
        name += " " + std::to_string(size);
    return name;
}

std::vector<float> compute(const Case &c, ggml_backend_buffer_type_t type, ggml_backend_t backend) {
    uint32_t state = 7;
    auto normal = [&] {  // nearly: a sum of uniform numbers
        float sum = 0;
        for (int i = 0; i < 4; i++) sum += float(int32_t(state = state * 1664525 + 1013904223)) * 0x1p-31f;
        return sum;
    };
    ggml_init_params params{ggml_tensor_overhead() * 16 + ggml_graph_overhead(), nullptr, /*no_alloc*/ true};
    Context weights(ggml_init(params)), rest(ggml_init(params));
    ggml_tensor *weight = ggml_new_tensor_3d(weights.get(), GGML_TYPE_BF16, c.columns, c.rows, c.matrices);
    ggml_tensor *used = weight;
    if (c.to - c.from != c.rows)
        used = ggml_view_2d(rest.get(), weight, c.columns, c.to - c.from, weight->nb[1],
                            size_t(c.from) * weight->nb[1]);
    ggml_tensor *x = nullptr, *ids = nullptr, *result;
    if (c.op == GGML_OP_GET_ROWS) {
        ids = ggml_new_tensor_2d(rest.get(), GGML_TYPE_I32, c.vectors, c.matrices);
        result = ggml_get_rows(rest.get(), used, ids);
    } else if (c.op == GGML_OP_MUL_MAT_ID) {
        x = ggml_new_tensor_3d(rest.get(), GGML_TYPE_F32, c.columns, c.repeated, c.vectors);
        ids = ggml_new_tensor_2d(rest.get(), GGML_TYPE_I32, c.used, c.vectors);
        result = ggml_mul_mat_id(rest.get(), used, x, ids);
    } else {
        x = ggml_new_tensor_3d(rest.get(), GGML_TYPE_F32, c.columns, c.vectors, c.matrices * c.repeated);
        result = ggml_mul_mat(rest.get(), used, x);
    }
    Buffer memory(ggml_backend_alloc_ctx_tensors_from_buft(weights.get(), type));
    ggml_cgraph *graph = ggml_new_graph(rest.get());
    ggml_build_forward_expand(graph, result);
    Buffer working(ggml_backend_alloc_ctx_tensors(rest.get(), backend));
    if (!memory || !working) throw std::runtime_error("no memory");

    std::vector<ggml_bf16_t> values(size_t(ggml_nelements(weight)));
    for (ggml_bf16_t &value : values) value = ggml_fp32_to_bf16(normal());
    ggml_backend_tensor_set(weight, values.data(), 0, ggml_nbytes(weight));
    if (x != nullptr) {
        std::vector<float> floats(size_t(ggml_nelements(x)));
        for (float &value : floats) value = normal();
        ggml_backend_tensor_set(x, floats.data(), 0, ggml_nbytes(x));
    }
    if (ids != nullptr) {
        int64_t among = c.op == GGML_OP_GET_ROWS ? c.to - c.from : c.matrices;
        std::vector<int32_t> numbers(size_t(ggml_nelements(ids)));
        for (size_t i = 0; i < numbers.size(); i++) numbers[i] = int32_t((i * 5 + i / 3) % size_t(among));
        ggml_backend_tensor_set(ids, numbers.data(), 0, ggml_nbytes(ids));
    }
    if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) throw std::runtime_error("it failed");
    std::vector<float> results(size_t(ggml_nelements(result)));
    ggml_backend_tensor_get(result, results.data(), 0, ggml_nbytes(result));
    std::vector<ggml_bf16_t> again(values.size());
    ggml_backend_tensor_get(weight, again.data(), 0, ggml_nbytes(weight));
    if (std::memcmp(again.data(), values.data(), ggml_nbytes(weight)) != 0)
        std::printf("%s: the weights differ\n", name_of(c).c_str());
    return results;
}

}  // namespace

int main() try {
    ggml_backend_load_all();
    ggml_backend_dev_t device = ggml_backend_dev_by_name("DF11");
    if (device == nullptr) {
        std::fprintf(stderr, "ops: the plug-in is not loaded\n");
        return 1;
    }
    Backend backend(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend.get()));
    auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(
        ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"));
    std::vector<Case> cases;
    for (int64_t columns : {100, 320})
        for (int64_t rows : {30, 200})
            for (int64_t vectors : {1, 2, 40}) {
                cases.push_back({GGML_OP_MUL_MAT, columns, rows, 1, vectors, 1, 0, rows});
                cases.push_back({GGML_OP_MUL_MAT, columns, rows, 3, vectors, 2, 0, rows});
                cases.push_back({GGML_OP_MUL_MAT, columns, rows, 1, vectors, 4, rows / 3, rows});
                cases.push_back({GGML_OP_MUL_MAT_ID, columns, rows, 6, vectors, 1, 0, rows, 2});
                cases.push_back({GGML_OP_MUL_MAT_ID, columns, rows, 6, vectors, 4, 0, rows, 4});
                cases.push_back({GGML_OP_GET_ROWS, columns, rows, 1, vectors, 1, 0, rows});
                cases.push_back({GGML_OP_GET_ROWS, columns, rows, 3, vectors, 1, 0, rows});
                cases.push_back({GGML_OP_GET_ROWS, columns, rows, 1, vectors, 1, rows / 2, rows});
            }
    size_t wrong = 0;
    for (int threads : {1, 3}) {
        set_threads(backend.get(), threads);
        for (const Case &c : cases) {
            std::vector<float> plain = compute(c, ggml_backend_cpu_buffer_type(), backend.get());
            std::vector<float> ours = compute(c, ggml_backend_dev_buffer_type(device), backend.get());
            size_t bytes = plain.size() * sizeof(float);
            if (plain.size() == ours.size() && std::memcmp(plain.data(), ours.data(), bytes) == 0) continue;
            wrong++;
            std::printf("%s, %d threads: the results differ\n", name_of(c).c_str(), threads);
        }
    }
    std::printf("%zu of %zu differ\n", wrong, 2 * cases.size());
    return wrong == 0 ? 0 : 1;
} catch (const std::exception &error) {
    std::fprintf(stderr, "ops: %s\n", error.what());
    return 1;
}
