// Shows how weights that are decoded for one product stay in the device's L2 cache. A matrix is decoded in chunks of
// whole rows, of about a third of the L2 each, always to the same scratch memory, and multiplied from there. So a weight
// crosses the device's memory once, compressed, instead of being written and read again as bf16. The whole pass is
// captured into one graph.
//
//     chunks MODEL [--chunk-bytes N] [--rounds N]
//
// For the first matrices of the model, of some 256 M weights, y = W x is calculated in three ways, each in a graph of its
// own:
//
//     chunks     decode a chunk to the scratch memory, multiply from there, and so on
//     whole      decode the whole matrix, then multiply
//     bf16       multiply from weights that were decoded before, as an engine without compression does
//
// The three give the same bits, which are also those that the host calculates in the same order. Then the program
// measures them. docs/cuda.md says which times are expected, and that nobody has measured them yet.
//
// A third, because the scratch memory shares the L2 with the chunk's compressed bytes and with whatever else runs. Larger
// chunks spill; smaller ones have more launches, of which each takes some microseconds to fill and to empty the device.
//
//     c++ -std=c++17 -O2 -o chunks examples/chunks.cc -Iinclude -Ibindings/cpp -Ltarget/release -ldf11 -ldl
//         -Wl,-rpath,$PWD/target/release
#include "df11.hpp"
#include "driver.h"
#include "multiply_kernel.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

// The weights after which no more matrices are taken.
constexpr std::uint64_t MOST_WEIGHTS = std::uint64_t{1} << 28;

// Device memory that the engine owns.
struct Memory {
    CUdeviceptr at = 0;
    explicit Memory(std::size_t bytes) { CUDA(cuMemAlloc(&at, std::max<std::size_t>(bytes, 1))); }
    Memory(Memory &&other) noexcept : at(std::exchange(other.at, 0)) {}
    Memory &operator=(Memory &&) = delete;
    ~Memory() {
        if (at != 0) CUDA(cuMemFree(at));
    }
};

// A matrix of the model: where it is in its group, and where its product goes.
struct Matrix {
    std::uint64_t group, first, rows, columns;
    std::size_t y;  // the first of its rows in y
};

// Returns the first matrices that the kernel can multiply with.
std::vector<Matrix> matrices(const df11::Model &model) {
    std::vector<Matrix> all;
    std::size_t y = 0, weights = 0;
    for (const df11::Tensor &tensor : model.tensors()) {
        if (weights >= MOST_WEIGHTS) break;
        const auto shape = tensor.shape();
        if (!tensor.group() || tensor.run_count() != 1 || !tensor.shape_known() || shape.size() != 2) continue;
        const std::uint64_t rows = shape[0], columns = shape[1];
        if (rows == 0 || columns == 0 || columns % 8 != 0 || std::max(rows, columns) > INT32_MAX) continue;
        all.push_back({*tensor.group(), tensor.group_offset(), rows, columns, y});
        y += rows;
        weights += rows * columns;
    }
    return all;
}

// One product, calculated on the host in the order of the kernel.
float product(const std::uint16_t *weights, const float *x, std::uint64_t columns) {
    std::array<float, 32> sums{};
    for (std::uint64_t first = 0; first < columns; first += 8) {
        float &sum = sums[first / 8 % 32];
        for (std::uint64_t column = first; column < first + 8; column++) {
            const std::uint32_t bits = std::uint32_t{weights[column]} << 16;
            float weight;
            std::memcpy(&weight, &bits, sizeof(weight));
            sum = std::fma(weight, x[column], sum);
        }
    }
    for (unsigned apart = 16; apart > 0; apart /= 2)
        for (unsigned lane = 0; lane < apart; lane++) sums[lane] += sums[lane + apart];
    return sums[0];
}

class Engine {
  public:
    // `chunk_bytes` is the most that a chunk takes decoded; 0 means a third of the L2.
    Engine(const df11::Model &model, CUdevice number, std::size_t chunk_bytes)
        : device_(df11::Device::open(number)), matrices_(matrices(model)) {
        if (matrices_.empty())
            throw std::runtime_error("no matrix of the model has a shape that is known, and 8 n columns");
        int l2 = 0;
        CUDA(cuDeviceGetAttribute(&l2, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, number));
        l2_bytes_ = static_cast<std::size_t>(std::max(l2, 0));
        chunk_bytes_ = chunk_bytes != 0 ? chunk_bytes : l2_bytes_ / 3;
        CUDA(cuModuleLoadData(&module_, MULTIPLY_PTX));
        CUDA(cuModuleGetFunction(&multiply_, module_, "multiply"));
        // A function that was asked for its attributes or given one is loaded, and a graph may have it.
        CUDA(cuFuncSetAttribute(multiply_, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 0));
        CUDA(cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING));
        status_.emplace_back(sizeof(std::uint32_t));
        CUDA(cuMemsetD8Async(status_[0].at, 0, sizeof(std::uint32_t), stream_));

        std::uint64_t columns = 0;
        residents_.resize(model.groups().size());
        for (const Matrix &matrix : matrices_) {
            df11::Resident &resident = residents_[matrix.group];
            if (!resident) {
                const auto bytes = static_cast<std::size_t>(model.groups()[matrix.group].image_bytes());
                images_.emplace_back(bytes);
                resident = device_.upload(model, matrix.group, images_.back().at, bytes, stream_);
            }
            rows_ += matrix.rows;
            weights_ += matrix.rows * matrix.columns;
            columns = std::max(columns, matrix.columns);
            largest_ = std::max(largest_, 2 * matrix.rows * matrix.columns);
            scratch_bytes_ = std::max(scratch_bytes_, 2 * chunk_rows(matrix) * matrix.columns);
        }
        for (std::uint64_t i = 0; i < columns; i++) x_.push_back(static_cast<float>(i % 19) / 16 - 0.5f);
        memory_.emplace_back(scratch_bytes_);
        memory_.emplace_back(largest_);
        memory_.emplace_back(2 * weights_);
        memory_.emplace_back(4 * columns);
        memory_.emplace_back(4 * rows_);
        CUDA(cuMemcpyHtoDAsync(device_x(), x_.data(), 4 * columns, stream_));
        // The weights of an engine without compression: all of them, one matrix after the other.
        std::size_t at = 0;
        for (const Matrix &matrix : matrices_) at += decode(matrix, 0, matrix.rows, bf16() + at);
        finish();
    }

    ~Engine() {
        cuStreamSynchronize(stream_);
        for (CUgraphExec graph : graphs_) CUDA(cuGraphExecDestroy(graph));
        CUDA(cuModuleUnload(module_));
        CUDA(cuStreamDestroy(stream_));
    }
    Engine(const Engine &) = delete;

    // All products from chunks in the L2.
    void chunks() {
        for (const Matrix &matrix : matrices_)
            for (std::uint64_t row = 0; row < matrix.rows; row += chunk_rows(matrix)) {
                const std::uint64_t count = std::min(chunk_rows(matrix), matrix.rows - row);
                decode(matrix, row, count, scratch());
                multiply(matrix, row, count, scratch());
            }
    }

    // All products from whole matrices, each decoded before.
    void whole() {
        for (const Matrix &matrix : matrices_) {
            decode(matrix, 0, matrix.rows, large());
            multiply(matrix, 0, matrix.rows, large());
        }
    }

    // All products from weights that are there.
    void plain() {
        std::size_t at = 0;
        for (const Matrix &matrix : matrices_) {
            multiply(matrix, 0, matrix.rows, bf16() + at);
            at += 2 * matrix.rows * matrix.columns;
        }
    }

    // Captures work as a graph, and returns it. All of it is launches, so it can be captured.
    template <typename Work> CUgraphExec capture(Work work) {
        CUgraph graph = nullptr;
        CUgraphExec exec = nullptr;
        CUDA(cuStreamBeginCapture(stream_, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
        work();
        CUDA(cuStreamEndCapture(stream_, &graph));
        CUDA(cuGraphInstantiateWithFlags(&exec, graph, 0));
        CUDA(cuGraphDestroy(graph));
        graphs_.push_back(exec);
        return exec;
    }

    // Launches a graph and returns all products.
    std::vector<float> run(CUgraphExec graph) {
        std::vector<float> y(rows_);
        CUDA(cuMemsetD8Async(device_y(), 0xff, 4 * rows_, stream_));  // NaN
        CUDA(cuGraphLaunch(graph, stream_));
        CUDA(cuMemcpyDtoHAsync(y.data(), device_y(), 4 * rows_, stream_));
        finish();
        return y;
    }

    // Returns the seconds that a graph takes, the best of some rounds.
    double seconds(CUgraphExec graph, unsigned rounds) {
        CUevent start, end;
        CUDA(cuEventCreate(&start, 0));
        CUDA(cuEventCreate(&end, 0));
        float best = INFINITY;
        for (unsigned round = 0; round < rounds; round++) {
            float milliseconds;
            CUDA(cuEventRecord(start, stream_));
            CUDA(cuGraphLaunch(graph, stream_));
            CUDA(cuEventRecord(end, stream_));
            CUDA(cuEventSynchronize(end));
            CUDA(cuEventElapsedTime(&milliseconds, start, end));
            best = std::min(best, milliseconds);
        }
        finish();
        CUDA(cuEventDestroy(start));
        CUDA(cuEventDestroy(end));
        return 1e-3 * best;
    }

    // Calculates all products on the host.
    std::vector<float> on_host(const df11::Model &model) const {
        std::vector<float> y(rows_);
        std::vector<std::uint16_t> weights;
        for (const Matrix &matrix : matrices_) {
            weights.resize(matrix.rows * matrix.columns);
            model.decompress(matrix.group, matrix.first, weights.size(), weights);
            for (std::uint64_t row = 0; row < matrix.rows; row++)
                y[matrix.y + row] = product(&weights[row * matrix.columns], x_.data(), matrix.columns);
        }
        return y;
    }

    std::size_t l2_bytes() const { return l2_bytes_; }
    std::size_t scratch_bytes() const { return scratch_bytes_; }
    std::size_t count() const { return matrices_.size(); }
    std::uint64_t weights() const { return weights_; }

  private:
    // Returns the rows of a chunk: one at least.
    std::uint64_t chunk_rows(const Matrix &matrix) const {
        return std::max<std::uint64_t>(1, chunk_bytes_ / (2 * matrix.columns));
    }

    // Decodes some rows. Returns their bytes.
    std::size_t decode(const Matrix &matrix, std::uint64_t row, std::uint64_t count, CUdeviceptr to) {
        const std::uint64_t weights = count * matrix.columns;
        residents_[matrix.group].decompress_range(matrix.first + row * matrix.columns, weights, to, 2 * weights,
                                                  status_[0].at, stream_);
        return 2 * weights;
    }

    // Multiplies some rows, which are at `weights`.
    void multiply(const Matrix &matrix, std::uint64_t row, std::uint64_t count, CUdeviceptr weights) {
        CUdeviceptr x = device_x(), y = device_y() + 4 * (matrix.y + row);
        auto columns = static_cast<unsigned>(matrix.columns), rows = static_cast<unsigned>(count);
        void *parameters[] = {&weights, &x, &y, &columns, &rows};
        CUDA(cuLaunchKernel(multiply_, (rows + MULTIPLY_ROWS - 1) / MULTIPLY_ROWS, 1, 1, 32 * MULTIPLY_ROWS, 1, 1, 0,
                            stream_, parameters, nullptr));
    }

    // Waits, and throws if a kernel has found an error.
    void finish() const {
        std::uint32_t status = DF11_OK;
        CUDA(cuMemcpyDtoHAsync(&status, status_[0].at, sizeof(status), stream_));
        CUDA(cuStreamSynchronize(stream_));
        if (status != DF11_OK)
            throw std::runtime_error(std::string("the device reports ") +
                                     df11_status_name(static_cast<df11_status>(status)));
    }

    CUdeviceptr scratch() const { return memory_[0].at; }
    CUdeviceptr large() const { return memory_[1].at; }
    CUdeviceptr bf16() const { return memory_[2].at; }
    CUdeviceptr device_x() const { return memory_[3].at; }
    CUdeviceptr device_y() const { return memory_[4].at; }

    df11::Device device_;
    std::vector<Matrix> matrices_;
    CUmodule module_ = nullptr;
    CUfunction multiply_ = nullptr;
    CUstream stream_ = nullptr;
    std::size_t l2_bytes_ = 0, chunk_bytes_ = 0, scratch_bytes_ = 0, largest_ = 0, rows_ = 0;
    std::uint64_t weights_ = 0;
    std::vector<Memory> images_, memory_, status_;
    std::vector<df11::Resident> residents_;
    std::vector<float> x_;
    std::vector<CUgraphExec> graphs_;
};

bool equal(const std::vector<float> &a, const std::vector<float> &b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

int run(const char *path, std::size_t chunk_bytes, unsigned rounds) {
    const df11::Model model = df11::Model::open(path);
    int devices = 0;
    if (!cuda_load(nullptr) || cuDeviceGetCount(&devices) != 0 || devices == 0) {
        std::printf("missing: a CUDA device; multiply.c multiplies on the CPU\n");
        return 77;  // skipped
    }
    CUdevice number;
    CUcontext context;
    CUDA(cuDeviceGet(&number, 0));
    CUDA(cuDevicePrimaryCtxRetain(&context, number));
    CUDA(cuCtxSetCurrent(context));
    bool good = false;
    {
        Engine engine(model, number, chunk_bytes);
        std::printf("%zu matrices, chunks of at most %zu bytes, an L2 of %zu\n", engine.count(), engine.scratch_bytes(),
                    engine.l2_bytes());
        const CUgraphExec chunks = engine.capture([&] { engine.chunks(); });
        const CUgraphExec whole = engine.capture([&] { engine.whole(); });
        const CUgraphExec plain = engine.capture([&] { engine.plain(); });
        const std::vector<float> want = engine.on_host(model);
        bool right = true;
        for (int i = 0; i < 3; i++) right = right && equal(engine.run(chunks), want);
        const bool others = equal(engine.run(whole), want) && equal(engine.run(plain), want);
        std::printf("products from chunks: %s in three launches of one graph; from whole matrices and bf16: %s\n",
                    right ? "right" : "WRONG", others ? "right" : "WRONG");
        good = right && others;
        if (good && rounds > 0) {
            const double bytes = 2e-9 * static_cast<double>(engine.weights());
            const double bf16 = engine.seconds(plain, rounds);
            const auto show = [&](const char *what, double seconds) {
                std::printf("%-8s %9.3f ms, %8.2f GB/s of bf16, %.2f times the time of bf16\n", what, 1e3 * seconds,
                            bytes / seconds, seconds / bf16);
            };
            show("chunks", engine.seconds(chunks, rounds));
            show("whole", engine.seconds(whole, rounds));
            show("bf16", bf16);
        }
    }
    CUDA(cuDevicePrimaryCtxRelease(number));
    return good ? 0 : 1;
}

}  // namespace

int main(int argc, char **argv) {
    std::size_t chunk_bytes = 0;
    unsigned rounds = 10;
    bool good = argc >= 2 && argc % 2 == 0;
    for (int i = 2; i + 1 < argc && good; i += 2) {
        if (std::strcmp(argv[i], "--chunk-bytes") == 0)
            chunk_bytes = std::strtoul(argv[i + 1], nullptr, 10);
        else if (std::strcmp(argv[i], "--rounds") == 0)
            rounds = static_cast<unsigned>(std::strtoul(argv[i + 1], nullptr, 10));
        else
            good = false;
    }
    if (!good) {
        std::fprintf(stderr, "usage: chunks MODEL [--chunk-bytes N] [--rounds N]\n");
        return 2;
    }
    try {
        return run(argv[1], chunk_bytes, rounds);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "chunks: %s\n", error.what());
        return 1;
    }
}
