// A plug-in for programs that run on unmodified ggml, such as llama-cli and llama-server. Weights of a DF11 model stay
// compressed, and are decoded in pieces just before they are used in a multiplication. It works on the CPU only.
//
//     GGML_BACKEND_PATH=libggml-df11.so DF11_MODEL=Qwen3-8B-DF11 llama-cli -m skeleton.gguf …
//
// ggml loads the plug-in (ggml_backend_load_all()) and finds a device of the kind that accelerates the CPU. libllama
// then gives that device every matrix that it can multiply with: those that the model in DF11_MODEL has in a group.
// Their data in the GGUF file is not used (df11-gguf --skeleton leaves holes there). If it is not a hole, its beginning
// and end are compared, so that the weights of another model are noticed. Without DF11_MODEL the plug-in has no device.
//
// ggml's CPU backend does the multiplication, with the same kernels on the same bits, so results equal those of
// uncompressed weights. DF11_PLANT=decode makes a mistake for the tests.
#include "ggml-backend-impl.h"
#include "weights.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>
#include <unordered_map>

static_assert(GGML_BACKEND_API_VERSION == 3, "written for another version of ggml's backend interface");

namespace {

using namespace example;

// The size of a decoded piece: small enough for the processor's cache, large enough for all threads.
constexpr size_t piece_bytes = size_t(16) << 20;

struct Plugin {
    std::unique_ptr<Model> model;
    std::unordered_map<std::string, uint64_t> compressed;  // the GGUF names of tensors in groups, and their numbers
    bool plant_decode = false;
};

// Opened once, when the plug-in is loaded. ggml never unloads it.
Plugin &plugin() {
    static Plugin *the = new Plugin;
    return *the;
}

// ggml's interface cannot report an error here, and ggml itself ends the process on its own errors.
template <typename Work>
auto or_abort(Work work) {
    try {
        return work();
    } catch (const std::exception &error) {
        GGML_ABORT("DF11: %s", error.what());
    }
}

// Finds the weight of a tensor, which may be a view: its number and first byte. Returns false for other tensors.
bool find(const ggml_tensor *tensor, uint64_t &number, size_t &offset) {
    const ggml_tensor *whole = tensor->view_src != nullptr ? tensor->view_src : tensor;
    auto found = whole->op == GGML_OP_NONE ? plugin().compressed.find(whole->name) : plugin().compressed.end();
    if (found == plugin().compressed.end() || whole->type != GGML_TYPE_BF16) return false;
    number = found->second;
    offset = tensor->view_src != nullptr ? tensor->view_offs : 0;
    return true;
}

// ---- Memory: a CPU buffer for everything that is not compressed (the results of multiplications). Compressed tensors
// take an address but no memory.

ggml_backend_buffer_t memory(ggml_backend_buffer_t buffer) {
    return static_cast<ggml_backend_buffer_t>(buffer->context);
}

const ggml_backend_buffer_i buffer_interface = {
    /* free_buffer   */ [](ggml_backend_buffer_t buffer) { ggml_backend_buffer_free(memory(buffer)); },
    /* get_base      */ [](ggml_backend_buffer_t buffer) { return ggml_backend_buffer_get_base(memory(buffer)); },
    /* init_tensor   */ nullptr,
    /* memset_tensor */
    [](ggml_backend_buffer_t, ggml_tensor *tensor, uint8_t value, size_t offset, size_t bytes) {
        uint64_t number;
        size_t first;
        if (!find(tensor, number, first))
            std::memset(static_cast<unsigned char *>(tensor->data) + offset, value, bytes);
    },
    /* set_tensor    */
    [](ggml_backend_buffer_t, ggml_tensor *tensor, const void *data, size_t offset, size_t bytes) {
        uint64_t number;
        size_t first;
        if (!find(tensor, number, first)) {
            std::memcpy(static_cast<unsigned char *>(tensor->data) + offset, data, bytes);
            return;
        }
        or_abort([&] {
            size_t some = std::min<size_t>(bytes & ~size_t(1), 4096);
            for (size_t at : {size_t(0), (bytes & ~size_t(1)) - some}) {
                const unsigned char *given = static_cast<const unsigned char *>(data) + at;
                if (std::all_of(given, given + some, [](unsigned char byte) { return byte == 0; })) continue;
                std::vector<uint16_t> ours(some / 2);
                plugin().model->read(number, first + offset + at, ours.data(), some, 1);
                if (std::memcmp(ours.data(), given, some) != 0)
                    throw std::runtime_error(std::string(tensor->name) + " of the GGUF file is not that of DF11_MODEL");
            }
        });
    },
    /* get_tensor    */
    [](ggml_backend_buffer_t, const ggml_tensor *tensor, void *data, size_t offset, size_t bytes) {
        uint64_t number;
        size_t first;
        if (!find(tensor, number, first))
            std::memcpy(data, static_cast<const unsigned char *>(tensor->data) + offset, bytes);
        else
            or_abort([&] { plugin().model->read(number, first + offset, data, bytes, threads_to_use()); });
    },
    /* set_tensor_2d */ nullptr,
    /* get_tensor_2d */ nullptr,
    /* cpy_tensor    */ nullptr,
    /* clear         */
    [](ggml_backend_buffer_t buffer, uint8_t value) { ggml_backend_buffer_clear(memory(buffer), value); },
    /* reset         */ nullptr,
};

size_t alignment() { return ggml_backend_buft_get_alignment(ggml_backend_cpu_buffer_type()); }

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t bytes) {
    ggml_backend_buffer_t own = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), bytes);
    return own != nullptr ? ggml_backend_buffer_init(type, buffer_interface, own, bytes) : nullptr;
}

// Lays out tensors, and returns the bytes that they need. With a buffer, it also sets their addresses; false if ggml
// refuses one.
bool lay(ggml_tensor **tensors, int count, ggml_backend_buffer_t buffer, size_t &bytes) {
    unsigned char *base =
        buffer != nullptr ? static_cast<unsigned char *>(ggml_backend_buffer_get_base(buffer)) : nullptr;
    bytes = 0;
    for (int i = 0; i < count; i++) {
        ggml_tensor *tensor = tensors[i];
        uint64_t number;
        size_t first;
        if (tensor->view_src != nullptr || tensor->data != nullptr) {
            if (base != nullptr && tensor->buffer == nullptr && ggml_backend_view_init(tensor) != GGML_STATUS_SUCCESS)
                return false;
        } else if (find(tensor, number, first)) {
            // Like ggml_backend_tensor_alloc(), which would need memory for the whole tensor.
            if (base != nullptr) {
                tensor->buffer = buffer;
                tensor->data = base + bytes;
            }
            bytes += alignment();
        } else {
            if (base != nullptr && ggml_backend_tensor_alloc(buffer, tensor, base + bytes) != GGML_STATUS_SUCCESS)
                return false;
            bytes += GGML_PAD(ggml_nbytes(tensor), alignment());
        }
    }
    return true;
}

ggml_backend_buffer_t allocate_for(ggml_backend_buffer_type_t type, ggml_tensor **tensors, int count) {
    size_t bytes;
    lay(tensors, count, nullptr, bytes);
    ggml_backend_buffer_t buffer = allocate(type, bytes);
    if (buffer == nullptr || lay(tensors, count, buffer, bytes)) return buffer;
    ggml_backend_buffer_free(buffer);
    return nullptr;
}

ggml_backend_buffer_type buffer_type = {
    {
        /* get_name         */ [](ggml_backend_buffer_type_t) { return "DF11"; },
        /* alloc_buffer     */ allocate,
        /* alloc_buffer_n   */ allocate_for,
        /* get_alignment    */ [](ggml_backend_buffer_type_t) { return alignment(); },
        /* get_max_size     */ nullptr,
        /* get_alloc_size   */ nullptr,
        /* get_alloc_size_n */
        [](ggml_backend_buffer_type_t, ggml_tensor **tensors, int count) {
            size_t bytes;
            lay(tensors, count, nullptr, bytes);
            return bytes;
        },
        /* is_host          */ nullptr,  // no: the address of a compressed tensor cannot be read
    },
    nullptr,  // the device, set below
    nullptr,
};

// ---- Computing: some rows of a matrix are decoded at a time, and ggml's CPU backend multiplies with them.

struct Computer {
    ggml_backend_t cpu;
    std::vector<unsigned char> piece;
    unsigned threads = threads_to_use();

    explicit Computer(ggml_backend_t backend) : cpu(backend) { set_threads(threads); }
    ~Computer() { ggml_backend_free(cpu); }

    void set_threads(unsigned count) {
        threads = count;
        ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu));
        auto set = reinterpret_cast<ggml_backend_set_n_threads_t>(
            ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads"));
        if (set != nullptr) set(cpu, int(count));
    }

    // Returns rows `row` to `row + rows` of a weight, decoded, in memory that the next call reuses.
    void *decode(uint64_t number, size_t first, size_t row_bytes, int64_t row, int64_t rows, unsigned with) {
        size_t bytes = row_bytes * size_t(rows);
        if (piece.size() < bytes + alignment()) piece.resize(bytes + alignment());
        void *to = reinterpret_cast<void *>(GGML_PAD(reinterpret_cast<uintptr_t>(piece.data()), alignment()));
        if (plugin().plant_decode && row == 0)
            std::memset(to, 0, bytes);
        else
            plugin().model->read(number, first + size_t(row) * row_bytes, to, bytes, with);
        return to;
    }

    ggml_status multiply(const ggml_tensor *node) {
        const ggml_tensor *matrix = node->src[0];
        uint64_t number;
        size_t first;
        find(matrix, number, first);
        int64_t all = matrix->ne[1], at_once = std::max<int64_t>(1, int64_t(piece_bytes / matrix->nb[1]));
        for (int64_t row = 0; row < all; row += at_once) {
            // The same node for some rows of the matrix, each of which gives one element of every result.
            ggml_tensor some = *matrix, result = *node;
            some.ne[1] = result.ne[0] = std::min(at_once, all - row);
            some.data = decode(number, first, matrix->nb[1], row, some.ne[1], threads);
            some.nb[2] = some.nb[3] = some.nb[1] * size_t(some.ne[1]);
            some.view_src = nullptr;
            some.buffer = nullptr;
            result.src[0] = &some;
            result.data = static_cast<unsigned char *>(node->data) + size_t(row) * node->nb[0];
            Context context(ggml_init({ggml_graph_overhead_custom(1, false), nullptr, /*no_alloc*/ true}));
            ggml_cgraph *graph = ggml_new_graph_custom(context.get(), 1, false);
            ggml_graph_add_node(graph, &result);
            ggml_status status = ggml_backend_graph_compute(cpu, graph);
            if (status != GGML_STATUS_SUCCESS) return status;
        }
        return GGML_STATUS_SUCCESS;
    }

    // Reads rows of an embedding, each of which is a range of its group.
    ggml_status rows(const ggml_tensor *node) {
        const ggml_tensor *table = node->src[0], *ids = node->src[1];
        uint64_t number;
        size_t first;
        find(table, number, first);
        for (int64_t i = 0; i < ids->ne[0]; i++) {
            int32_t id;
            std::memcpy(&id, static_cast<const unsigned char *>(ids->data) + size_t(i) * ids->nb[0], sizeof(id));
            if (id < 0 || id >= table->ne[1]) throw std::runtime_error("a row that the embedding does not have");
            ggml_bf16_to_fp32_row(
                static_cast<const ggml_bf16_t *>(decode(number, first, table->nb[1], id, 1, 1)),
                reinterpret_cast<float *>(static_cast<unsigned char *>(node->data) + size_t(i) * node->nb[1]),
                table->ne[0]);
        }
        return GGML_STATUS_SUCCESS;
    }
};

ggml_guid guid = {0xdf, 0x11, 0x6c, 0x69, 0x62, 0x64, 0x66, 0x31, 0x31, 0x67, 0x67, 0x6d, 0x6c, 0x00, 0x00, 0x01};

ggml_status compute(ggml_backend_t backend, ggml_cgraph *graph) {
    return or_abort([&] {
        Computer &computer = *static_cast<Computer *>(backend->context);
        for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
            const ggml_tensor *node = ggml_graph_node(graph, i);
            ggml_status status = GGML_STATUS_SUCCESS;
            if (!(node->flags & GGML_TENSOR_FLAG_COMPUTE))
                continue;  // not computed in this graph: its inputs are undefined
            if (node->op == GGML_OP_MUL_MAT)
                status = computer.multiply(node);
            else if (node->op == GGML_OP_GET_ROWS)
                status = computer.rows(node);
            if (status != GGML_STATUS_SUCCESS) return status;
        }
        return GGML_STATUS_SUCCESS;
    });
}

ggml_backend_t begin(ggml_backend_dev_t device, const char *) {
    ggml_backend_t cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    if (cpu == nullptr) return nullptr;
    ggml_backend_i interface{};
    interface.get_name = [](ggml_backend_t) { return "DF11"; };
    interface.free = [](ggml_backend_t backend) {
        delete static_cast<Computer *>(backend->context);
        delete backend;
    };
    interface.graph_compute = compute;
    return new ggml_backend{&guid, interface, device, new Computer(cpu)};
}

// Returns whether the device computes a node: only multiplications with compressed matrices, and lookups of compressed
// rows.
bool supports(ggml_backend_dev_t, const ggml_tensor *node) {
    switch (node->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
            return true;
        case GGML_OP_MUL_MAT:
        case GGML_OP_GET_ROWS:
            break;
        default:
            return false;
    }
    const ggml_tensor *weight = node->src[0], *other = node->src[1];
    uint64_t number;
    size_t first;
    ggml_backend_buffer_t buffer = weight->view_src != nullptr ? weight->view_src->buffer : weight->buffer;
    if (buffer == nullptr || buffer->buft != &buffer_type || !find(weight, number, first)) return false;
    if (!ggml_is_contiguous(weight) || !ggml_is_matrix(weight) || node->type != GGML_TYPE_F32) return false;
    return node->op == GGML_OP_MUL_MAT
               ? other->type == GGML_TYPE_F32
               : other->type == GGML_TYPE_I32 && ggml_is_vector(other) && node->nb[0] == sizeof(float);
}

extern ggml_backend_reg registry;

void describe(ggml_backend_dev_t, ggml_backend_dev_props *props) {
    *props = {};
    props->name = "DF11";
    props->description = "weights compressed by DFloat11";
    props->type = GGML_BACKEND_DEVICE_TYPE_ACCEL;
    props->caps.mmap_support = true;
}

ggml_backend_device device = {
    {
        /* get_name             */ [](ggml_backend_dev_t) { return "DF11"; },
        /* get_description      */ [](ggml_backend_dev_t) { return "weights compressed by DFloat11"; },
        /* get_memory           */ [](ggml_backend_dev_t, size_t *free, size_t *total) { *free = *total = 0; },
        /* get_type             */ [](ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_ACCEL; },
        /* get_props            */ describe,
        /* init_backend         */ begin,
        /* get_buffer_type      */ [](ggml_backend_dev_t) -> ggml_backend_buffer_type_t { return &buffer_type; },
        /* get_host_buffer_type */ nullptr,
        /* buffer_from_host_ptr */ nullptr,
        /* supports_op          */ supports,
        /* supports_buft        */
        [](ggml_backend_dev_t, ggml_backend_buffer_type_t type) {
            return type == &buffer_type || ggml_backend_buft_is_host(type);
        },
        /* offload_op           */ nullptr,
        /* event_new            */ nullptr,
        /* event_free           */ nullptr,
        /* event_synchronize    */ nullptr,
    },
    &registry,
    nullptr,
};

void set_threads(ggml_backend_t backend, int count) {
    static_cast<Computer *>(backend->context)->set_threads(unsigned(std::max(count, 1)));
}

ggml_backend_reg registry = {
    GGML_BACKEND_API_VERSION,
    {
        /* get_name         */ [](ggml_backend_reg_t) { return "DF11"; },
        /* get_device_count */ [](ggml_backend_reg_t) -> size_t { return plugin().model ? 1 : 0; },
        /* get_device       */ [](ggml_backend_reg_t, size_t) -> ggml_backend_dev_t { return &device; },
        /* get_proc_address */
        [](ggml_backend_reg_t, const char *name) -> void * {
            if (std::strcmp(name, "ggml_backend_set_n_threads") == 0) return reinterpret_cast<void *>(set_threads);
            return nullptr;
        },
    },
    nullptr,
};

// Finds the tensors in the model's groups, by their GGUF names.
void open(const char *path) {
    Plugin &p = plugin();
    p.model = std::make_unique<Model>(path);
    const char *plant = std::getenv("DF11_PLANT");
    p.plant_decode = plant != nullptr && std::strcmp(plant, "decode") == 0;
    const char *const matrices[] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    auto add = [&](const std::string &name) {
        uint64_t number;
        bool there = p.model->find(hugging_face_name(name), number);
        if (there && p.model->tensor(number).group != DF11_NO_GROUP) p.compressed[name] = number;
        return there;
    };
    add("token_embd.weight");
    add("output.weight");
    bool more = true;
    for (int layer = 0; more; layer++) {
        more = false;
        for (const char *matrix : matrices) more |= add("blk." + std::to_string(layer) + "." + matrix + ".weight");
    }
    if (p.compressed.empty())
        throw std::runtime_error(std::string(path) + " has no compressed tensor of a Qwen3 model");
}

}  // namespace

// The function that ggml looks for in a library that it loads.
extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) {
    buffer_type.device = &device;
    const char *path = std::getenv("DF11_MODEL");
    // A program may load backends more than once.
    if (path == nullptr || *path == 0 || plugin().model) return &registry;
    try {
        open(path);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "ggml-df11: %s\n", error.what());
        return nullptr;
    }
    return &registry;
}
