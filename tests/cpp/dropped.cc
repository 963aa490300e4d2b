// Results that are ignored: the compiler must warn about every marked line, and about no other. Compiled, never run.
#include "df11.hpp"

void calls_of_an_engine(df11::Model &model, df11::Device &device, df11::Resident &resident, df11::Progress &progress) {
    unsigned char bytes[16] = {};
    df11_part_info part;
    df11::Plan plan;
    df11_image_info image;
    df11::Matrix matrix;
    df11::Shard shard;
    df11_slice slice;
    std::uint64_t used;
    const std::uint16_t halves[1] = {};
    const float x[1] = {};
    float y[1];
    df11::Model::try_open(model, "model");                                       // dropped
    df11::Model::try_open_memory(model, bytes);                                  // dropped
    model.try_get_group_part(part, 0, 0);                                        // dropped
    model.try_decompress(0, 0, 8, bytes);                                        // dropped
    model.try_read_tensor(0, 0, bytes);                                          // dropped
    model.try_write_image(0, bytes);                                             // dropped
    model.try_write_image_part(0, bytes, 0, 1);                                  // dropped
    model.find_group("model.layers.0");                                          // dropped
    model.find_tensor("lm_head.weight");                                         // dropped
    df11::Progress::try_create(progress);                                        // dropped
    df11::Plan::try_model(plan, "model");                                        // dropped
    model.try_write_matrix(0, 1, 0, 1, bytes, used);                             // dropped
    df11::Matrix::try_bound(used, 1, 1);                                         // dropped
    df11::Matrix::try_write(halves, 1, bytes, used);                             // dropped
    df11::Matrix::try_bind(matrix, bytes);                                       // dropped
    matrix.try_decompress(0, 1, bytes);                                          // dropped
    matrix.try_multiply(0, x, y);                                                // dropped
    matrix.try_multiply(0, halves, 0, y);                                        // dropped
    model.try_get_image_range_info(image, 0, 0, 1);                              // dropped
    model.try_write_image_range(0, 0, 1, bytes);                                 // dropped
    model.try_get_slices({}, 0, 0, 0, {}, 0, 1);                                 // dropped
    df11::Shard::try_make(shard, model, 0, {});                                  // dropped
    shard.try_write_image(bytes);                                                // dropped
    df11::try_image_get_slice(slice, bytes, 0);                                  // dropped
    df11::try_split_segment(used, used, {1, 1, 0, 0}, 0, 1);                     // dropped
    df11::Device::try_open(device, 0);                                           // dropped
    df11::Device::try_open_current(device);                                      // dropped
    device.try_upload(resident, model, 0, 0, 0, nullptr);                        // dropped
    device.try_upload_staged(resident, model, 0, 0, 0, nullptr, bytes);          // dropped
    device.try_upload_range(resident, model, 0, 0, 1, 0, 0, nullptr);            // dropped
    device.try_bind(resident, model, 0, 0, 0);                                   // dropped
    device.try_bind_image(resident, bytes, 0, 0);                                // dropped
    resident.try_decompress(0, 0, 0, nullptr);                                   // dropped
    resident.try_decompress_range(0, 1, 0, 2, 0, nullptr);                       // dropped
    resident.try_decompress_tensors({}, {}, 0, nullptr);                         // dropped
    df11::Resident::try_decompress_batch({}, {}, {}, 0, nullptr);                // dropped
    df11::try_image_get_info(image, bytes);                                      // dropped
    model.groups()[0].try_decompress(bytes);                                     // dropped
    model.tensors()[0].try_read(bytes);                                          // dropped
    resident.release();                                                          // dropped
    (void)resident.try_decompress(0, 0, 0, nullptr);
    progress.cancel();
}

#if defined(__cpp_exceptions)
void calls_that_throw(df11::Model &model, df11::Device &device) {
    unsigned char bytes[16] = {};
    df11::Model::open("model");                                                  // dropped
    df11::Model::open_memory(bytes);                                             // dropped
    df11::Device::open(0);                                                       // dropped
    df11::Device::open_current();                                                // dropped
    df11::Plan::model("model");                                                  // dropped
    df11::Matrix::bound(1, 1);                                                   // dropped
    df11::Matrix::bind(bytes);                                                   // dropped
    df11::Progress::create();                                                    // dropped
    df11::verify_model("model");                                                 // dropped
    df11::image_get_info(bytes);                                                 // dropped
    model.get_group_part(0, 0);                                                  // dropped
    device.upload(model, 0, 0, 0, nullptr);                                      // dropped
    device.upload_staged(model, 0, 0, 0, nullptr, bytes);                        // dropped
    device.upload_range(model, 0, 0, 1, 0, 0, nullptr);                          // dropped
    model.get_image_range_info(0, 0, 1);                                         // dropped
    model.get_slices(0, 0, 0, {}, 0, 1);                                         // dropped
    df11::Shard::make(model, 0, {});                                             // dropped
    device.bind(model, 0, 0, 0);                                                 // dropped
    device.bind_image(bytes, 0, 0);                                              // dropped
#if __cplusplus >= 202002L
    df11::Log(0, [](std::int32_t, std::string_view) {});                         // dropped
#endif
    // Calls that throw have no result that must be used.
    model.decompress(0, bytes);
    model.read_tensor(0, 0, bytes);
    model.groups()[0].decompress(bytes);
    model.tensors()[0].read(bytes);
    df11::compress_model("model", "other");
}
#endif
