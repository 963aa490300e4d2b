// The image of a piece: of a whole group, which the device checks while it is uploaded, or of a range of one, of
// which the host walks the codes first.
#ifndef DF11_EXAMPLE_ENGINE_IMAGES_H
#define DF11_EXAMPLE_ENGINE_IMAGES_H

#include "device.h"
#include "layout.h"

#include <thread>

namespace engine {

inline bool is_whole(const df11::Model &model, const Piece &piece) {
    return piece.count == model.groups()[piece.group].element_count();
}

inline std::size_t image_bytes(const df11::Model &model, const Piece &piece) {
    if (is_whole(model, piece)) return model.groups()[piece.group].image_bytes();
    return model.get_image_range_info(piece.group, piece.first, piece.count).image_bytes;
}

// Makes an image in device memory. Model and resident must live until the stream has executed that.
inline df11::Resident upload(const df11::Model &model, const df11::Device &device, const Piece &piece,
                             const Memory &image, CUstream stream) {
    if (is_whole(model, piece)) return device.upload(model, piece.group, image.at, image.bytes, stream);
    return device.upload_range(model, piece.group, piece.first, piece.count, image.at, image.bytes, stream);
}

// Makes an image in host memory, on all processors.
inline void write(const df11::Model &model, const Piece &piece, const Pinned &image) {
    const unsigned threads = std::max(1u, std::thread::hardware_concurrency());
    model.write_image_range(piece.group, piece.first, piece.count, {image.at, image.bytes}, threads);
}

}  // namespace engine

#endif
