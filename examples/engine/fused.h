// All weights on the device as linear images, from which a kernel of libdf11 multiplies: nothing is decoded to memory.
// df11_linear() is experimental: see df11_experimental.h.
#ifndef DF11_EXAMPLE_ENGINE_FUSED_H
#define DF11_EXAMPLE_ENGINE_FUSED_H

#include "df11_experimental.h"
#include "weights.h"

#include <thread>

namespace engine {

class Fused : public Weights {
  public:
    Fused(const df11::Model &model, const df11::Device &device, const Layout &layout, const Kernels &kernels,
          CUdeviceptr status)
        : layout_(layout), stream_(kernels.stream()), status_(status) {
        for (const Piece &piece : layout.pieces) make(model, device, piece);
        // One workspace, because products follow each other.
        std::uint64_t most = 0;
        for (std::size_t piece = 0; piece < layout.pieces.size(); piece++)
            for (std::size_t first = 0; first < layout.pieces[piece].matrices.size(); first++)
                most = std::max(most, workspace(piece, first));
        workspace_ = Memory(most);
        slot_bytes = workspace_.bytes;
    }

    void begin(std::size_t) override {}

    void multiply(std::size_t piece, std::size_t first, std::size_t count, CUdeviceptr x,
                  const std::array<CUdeviceptr, 3> &y) override {
        std::array<df11_linear_matrix, 3> matrices;
        for (std::size_t i = 0; i < count; i++) matrices[i] = matrix(piece, first + i, y[i]);
        const df11_linear_options options = one_vector(x);
        df11_error error;
        df11::check(df11_linear(matrices.data(), count, &options, stream_, &error), error);
    }

  private:
    // The group is decoded a part at a time to memory of this size while its linear image is made.
    static constexpr std::size_t SCRATCH_BYTES = 32 << 20;

    // Uploads the usual image of a group, and makes the linear one of it on the device.
    void make(const df11::Model &model, const df11::Device &device, const Piece &piece) {
        std::vector<df11_linear_shape> shapes(piece.matrices.size());
        for (const Matrix &matrix : piece.matrices) shapes[place(piece, matrix)] = {matrix.rows, matrix.columns};
        const unsigned threads = std::max(1u, std::thread::hardware_concurrency());
        df11_error error;
        df11_linear_plan *counted = nullptr;
        df11::check(df11_model_plan_linear_image(model.get(), piece.group, shapes.data(), shapes.size(), threads,
                                                 nullptr, &counted, &error),
                    error);
        const std::unique_ptr<df11_linear_plan, decltype(&df11_linear_plan_free)> plan(counted, df11_linear_plan_free);
        df11_image_info info = DF11_IMAGE_INFO_INIT;
        df11::check(df11_linear_plan_get_image_info(plan.get(), &info, &error), error);

        const Memory usual(image_bytes(model, piece)), scratch(SCRATCH_BYTES);
        const df11::Resident source = upload(model, device, piece, usual, stream_);
        const Memory &image = images_.emplace_back(info.image_bytes);
        device_bytes += image.bytes;
        df11_resident *resident = nullptr;
        df11::check(df11_device_make_linear_image(device.get(), plan.get(), source.get(), image.at, image.bytes,
                                                  scratch.at, scratch.bytes, stream_, &resident, &error),
                    error);
        residents_.emplace_back(resident);
        CUDA(cuStreamSynchronize(stream_));
    }

    // Returns the number of a matrix among those of the group.
    static std::size_t place(const Piece &piece, const Matrix &matrix) {
        const auto before = [&](const Matrix &other) { return other.first < matrix.first; };
        return static_cast<std::size_t>(std::count_if(piece.matrices.begin(), piece.matrices.end(), before));
    }

    df11_linear_matrix matrix(std::size_t piece, std::size_t number, CUdeviceptr y) const {
        const Matrix &matrix = layout_.pieces[piece].matrices[number];
        df11_linear_matrix all{};
        all.resident = residents_[piece].get();
        all.tensor = place(layout_.pieces[piece], matrix);
        all.row_count = matrix.rows;
        all.column_count = matrix.columns;
        all.d_y = y;
        return all;
    }

    df11_linear_options one_vector(CUdeviceptr x) const {
        df11_linear_options options = DF11_LINEAR_OPTIONS_INIT;
        options.d_x = x;
        options.vector_count = 1;
        options.y_dtype = DF11_DTYPE_F32;
        options.d_workspace = workspace_.at;
        options.workspace_bytes = workspace_.bytes;
        options.d_status = status_;
        return options;
    }

    // Returns the workspace that is enough for a product with a matrix, also together with those after it.
    std::uint64_t workspace(std::size_t piece, std::size_t first) const {
        std::vector<df11_linear_matrix> matrices;
        std::uint64_t most = 0;
        for (std::size_t i = first; i < layout_.pieces[piece].matrices.size() && i < first + 3; i++) {
            matrices.push_back(matrix(piece, i, 0));
            if (matrices.back().column_count != matrices.front().column_count) break;
            const df11_linear_options options = one_vector(0);
            std::uint64_t bytes = 0;
            df11_error error;
            df11::check(df11_linear_get_workspace(matrices.data(), matrices.size(), &options, &bytes, &error), error);
            most = std::max(most, bytes);
        }
        return most;
    }

    const Layout &layout_;
    CUstream stream_;
    CUdeviceptr status_;
    std::vector<Memory> images_;
    std::vector<df11::Resident> residents_;
    Memory workspace_;
};

}  // namespace engine

#endif
