/* The header alone, twice, in any C from C99 and any C++ from C++11 on, without a warning. tests/bindings/c.rs compiles this file
 * once for each standard. What cannot be compiled away is checked again where the language can: sizes and offsets. */
#include "df11.h"
#include "df11.h"
#include "df11_experimental.h"
#include "df11_experimental.h"

#if defined(__cplusplus)
#define ASSERT(condition) static_assert(condition, #condition)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define ASSERT(condition) _Static_assert(condition, #condition)
#else
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define ASSERT(condition) typedef char JOIN(assert_, __LINE__)[(condition) ? 1 : -1]
#endif

ASSERT(sizeof(df11_status) == 4);
ASSERT(sizeof(df11_error) == 512);
ASSERT(offsetof(df11_error, status) == 0);
ASSERT(offsetof(df11_error, native_code) == 4);
ASSERT(offsetof(df11_error, message) == 8);

ASSERT(sizeof(df11_linear_matrix) == 64);
ASSERT(offsetof(df11_linear_matrix, resident) == 0);
ASSERT(offsetof(df11_linear_matrix, tensor) == 8);
ASSERT(offsetof(df11_linear_matrix, tensor_step) == 16);
ASSERT(offsetof(df11_linear_matrix, row_count) == 24);
ASSERT(offsetof(df11_linear_matrix, column_count) == 32);
ASSERT(offsetof(df11_linear_matrix, d_y) == 40);
ASSERT(offsetof(df11_linear_matrix, y_stride) == 48);
ASSERT(offsetof(df11_linear_matrix, y_step) == 56);

ASSERT(sizeof(df11_linear_options) == 88);
ASSERT(offsetof(df11_linear_options, struct_size) == 0);
ASSERT(offsetof(df11_linear_options, d_x) == 8);
ASSERT(offsetof(df11_linear_options, x_stride) == 16);
ASSERT(offsetof(df11_linear_options, vector_count) == 24);
ASSERT(offsetof(df11_linear_options, y_dtype) == 28);
ASSERT(offsetof(df11_linear_options, d_ids) == 32);
ASSERT(offsetof(df11_linear_options, chosen_count) == 40);
ASSERT(offsetof(df11_linear_options, expert_count) == 48);
ASSERT(offsetof(df11_linear_options, x_step) == 56);
ASSERT(offsetof(df11_linear_options, d_workspace) == 64);
ASSERT(offsetof(df11_linear_options, workspace_bytes) == 72);
ASSERT(offsetof(df11_linear_options, d_status) == 80);

ASSERT(sizeof(df11_open_options) == 48);
ASSERT(offsetof(df11_open_options, struct_size) == 0);
ASSERT(offsetof(df11_open_options, flags) == 8);
ASSERT(offsetof(df11_open_options, threads) == 12);
ASSERT(offsetof(df11_open_options, config_json) == 16);
ASSERT(offsetof(df11_open_options, progress) == 24);
ASSERT(offsetof(df11_open_options, shapes_from) == 32);
ASSERT(offsetof(df11_open_options, shapes_json) == 40);

ASSERT(sizeof(df11_group_info) == 64);
ASSERT(offsetof(df11_group_info, struct_size) == 0);
ASSERT(offsetof(df11_group_info, name) == 8);
ASSERT(offsetof(df11_group_info, element_count) == 16);
ASSERT(offsetof(df11_group_info, tensor_count) == 24);
ASSERT(offsetof(df11_group_info, first_tensor) == 32);
ASSERT(offsetof(df11_group_info, packed_bytes) == 40);
ASSERT(offsetof(df11_group_info, image_bytes) == 48);
ASSERT(offsetof(df11_group_info, extended) == 56);

ASSERT(sizeof(df11_tensor_info) == 96);
ASSERT(offsetof(df11_tensor_info, struct_size) == 0);
ASSERT(offsetof(df11_tensor_info, name) == 8);
ASSERT(offsetof(df11_tensor_info, dtype) == 16);
ASSERT(offsetof(df11_tensor_info, rank) == 20);
ASSERT(offsetof(df11_tensor_info, shape) == 24);
ASSERT(offsetof(df11_tensor_info, data_bytes) == 32);
ASSERT(offsetof(df11_tensor_info, group) == 40);
ASSERT(offsetof(df11_tensor_info, group_offset) == 48);
ASSERT(offsetof(df11_tensor_info, data) == 56);
ASSERT(offsetof(df11_tensor_info, file) == 64);
ASSERT(offsetof(df11_tensor_info, file_offset) == 72);
ASSERT(offsetof(df11_tensor_info, shape_known) == 80);
ASSERT(offsetof(df11_tensor_info, reserved) == 84);
ASSERT(offsetof(df11_tensor_info, run_count) == 88);

ASSERT(sizeof(df11_run_info) == 48);
ASSERT(offsetof(df11_run_info, struct_size) == 0);
ASSERT(offsetof(df11_run_info, tensor) == 8);
ASSERT(offsetof(df11_run_info, tensor_offset) == 16);
ASSERT(offsetof(df11_run_info, group) == 24);
ASSERT(offsetof(df11_run_info, group_offset) == 32);
ASSERT(offsetof(df11_run_info, element_count) == 40);

ASSERT(sizeof(df11_part_info) == 40);
ASSERT(offsetof(df11_part_info, struct_size) == 0);
ASSERT(offsetof(df11_part_info, file) == 8);
ASSERT(offsetof(df11_part_info, file_offset) == 16);
ASSERT(offsetof(df11_part_info, data_bytes) == 24);
ASSERT(offsetof(df11_part_info, data) == 32);

ASSERT(sizeof(df11_matrix_info) == 40);
ASSERT(offsetof(df11_matrix_info, struct_size) == 0);
ASSERT(offsetof(df11_matrix_info, row_count) == 8);
ASSERT(offsetof(df11_matrix_info, column_count) == 16);
ASSERT(offsetof(df11_matrix_info, matrix_bytes) == 24);
ASSERT(offsetof(df11_matrix_info, escape_count) == 32);

ASSERT(sizeof(df11_verify_report) == 72);
ASSERT(offsetof(df11_verify_report, struct_size) == 0);
ASSERT(offsetof(df11_verify_report, groups_good) == 8);
ASSERT(offsetof(df11_verify_report, groups_bad) == 16);
ASSERT(offsetof(df11_verify_report, code_count) == 24);
ASSERT(offsetof(df11_verify_report, hashes_right) == 32);
ASSERT(offsetof(df11_verify_report, hashes_wrong) == 40);
ASSERT(offsetof(df11_verify_report, tensors_equal) == 48);
ASSERT(offsetof(df11_verify_report, tensors_different) == 56);
ASSERT(offsetof(df11_verify_report, missing_count) == 64);

ASSERT(sizeof(df11_decompress_report) == 56);
ASSERT(offsetof(df11_decompress_report, struct_size) == 0);
ASSERT(offsetof(df11_decompress_report, tensor_count) == 8);
ASSERT(offsetof(df11_decompress_report, flat_count) == 16);
ASSERT(offsetof(df11_decompress_report, file_count) == 24);
ASSERT(offsetof(df11_decompress_report, written_bytes) == 32);
ASSERT(offsetof(df11_decompress_report, dropped_count) == 40);
ASSERT(offsetof(df11_decompress_report, config_key_count) == 48);

ASSERT(sizeof(df11_decompress_options) == 112);
ASSERT(offsetof(df11_decompress_options, struct_size) == 0);
ASSERT(offsetof(df11_decompress_options, threads) == 8);
ASSERT(offsetof(df11_decompress_options, flags) == 12);
ASSERT(offsetof(df11_decompress_options, shard_bytes) == 16);
ASSERT(offsetof(df11_decompress_options, config_json) == 24);
ASSERT(offsetof(df11_decompress_options, shapes_from) == 32);
ASSERT(offsetof(df11_decompress_options, shapes_json) == 40);
ASSERT(offsetof(df11_decompress_options, tensors) == 48);
ASSERT(offsetof(df11_decompress_options, tensor_count) == 56);
ASSERT(offsetof(df11_decompress_options, groups) == 64);
ASSERT(offsetof(df11_decompress_options, group_count) == 72);
ASSERT(offsetof(df11_decompress_options, progress) == 80);
ASSERT(offsetof(df11_decompress_options, callback) == 88);
ASSERT(offsetof(df11_decompress_options, callback_user) == 96);
ASSERT(offsetof(df11_decompress_options, report) == 104);

ASSERT(sizeof(df11_repack_report) == 40);
ASSERT(offsetof(df11_repack_report, struct_size) == 0);
ASSERT(offsetof(df11_repack_report, group_count) == 8);
ASSERT(offsetof(df11_repack_report, plain_count) == 16);
ASSERT(offsetof(df11_repack_report, file_count) == 24);
ASSERT(offsetof(df11_repack_report, written_bytes) == 32);

ASSERT(sizeof(df11_repack_options) == 72);
ASSERT(offsetof(df11_repack_options, struct_size) == 0);
ASSERT(offsetof(df11_repack_options, threads) == 8);
ASSERT(offsetof(df11_repack_options, flags) == 12);
ASSERT(offsetof(df11_repack_options, config_json) == 16);
ASSERT(offsetof(df11_repack_options, shapes_from) == 24);
ASSERT(offsetof(df11_repack_options, shapes_json) == 32);
ASSERT(offsetof(df11_repack_options, progress) == 40);
ASSERT(offsetof(df11_repack_options, callback) == 48);
ASSERT(offsetof(df11_repack_options, callback_user) == 56);
ASSERT(offsetof(df11_repack_options, report) == 64);

ASSERT(sizeof(df11_verify_options) == 88);
ASSERT(offsetof(df11_verify_options, struct_size) == 0);
ASSERT(offsetof(df11_verify_options, threads) == 8);
ASSERT(offsetof(df11_verify_options, flags) == 12);
ASSERT(offsetof(df11_verify_options, config_json) == 16);
ASSERT(offsetof(df11_verify_options, shapes_from) == 24);
ASSERT(offsetof(df11_verify_options, shapes_json) == 32);
ASSERT(offsetof(df11_verify_options, progress) == 40);
ASSERT(offsetof(df11_verify_options, callback) == 48);
ASSERT(offsetof(df11_verify_options, callback_user) == 56);
ASSERT(offsetof(df11_verify_options, finding) == 64);
ASSERT(offsetof(df11_verify_options, finding_user) == 72);
ASSERT(offsetof(df11_verify_options, report) == 80);

ASSERT(sizeof(df11_compress_report) == 208);
ASSERT(offsetof(df11_compress_report, struct_size) == 0);
ASSERT(offsetof(df11_compress_report, groups) == 8);
ASSERT(offsetof(df11_compress_report, weights) == 16);
ASSERT(offsetof(df11_compress_report, weight_bytes) == 24);
ASSERT(offsetof(df11_compress_report, packed_bytes) == 32);
ASSERT(offsetof(df11_compress_report, source_bytes) == 40);
ASSERT(offsetof(df11_compress_report, written_bytes) == 48);
ASSERT(offsetof(df11_compress_report, resumed) == 56);
ASSERT(offsetof(df11_compress_report, left_count) == 64);
ASSERT(offsetof(df11_compress_report, dropped_count) == 72);
ASSERT(offsetof(df11_compress_report, unmatched_count) == 80);
ASSERT(offsetof(df11_compress_report, complete) == 88);
ASSERT(offsetof(df11_compress_report, preset) == 96);
ASSERT(offsetof(df11_compress_report, bf16_bytes) == 104);
ASSERT(offsetof(df11_compress_report, grouped_bf16_bytes) == 112);
ASSERT(offsetof(df11_compress_report, unasked_bf16_bytes) == 120);
ASSERT(offsetof(df11_compress_report, small_bf16_bytes) == 128);
ASSERT(offsetof(df11_compress_report, mixed_bf16_bytes) == 136);
ASSERT(offsetof(df11_compress_report, unfit_bf16_bytes) == 144);
ASSERT(offsetof(df11_compress_report, unnamed_bf16_bytes) == 152);
ASSERT(offsetof(df11_compress_report, carried_count) == 160);
ASSERT(offsetof(df11_compress_report, carried_bytes) == 168);
ASSERT(offsetof(df11_compress_report, left_behind_count) == 176);
ASSERT(offsetof(df11_compress_report, left_behind_bytes) == 184);
ASSERT(offsetof(df11_compress_report, missing_count) == 192);
ASSERT(offsetof(df11_compress_report, extended_groups) == 200);

ASSERT(sizeof(df11_compress_options) == 96);
ASSERT(offsetof(df11_compress_options, struct_size) == 0);
ASSERT(offsetof(df11_compress_options, threads) == 8);
ASSERT(offsetof(df11_compress_options, flags) == 12);
ASSERT(offsetof(df11_compress_options, memory_bytes) == 16);
ASSERT(offsetof(df11_compress_options, preset) == 24);
ASSERT(offsetof(df11_compress_options, pattern_json) == 32);
ASSERT(offsetof(df11_compress_options, part) == 40);
ASSERT(offsetof(df11_compress_options, part_count) == 44);
ASSERT(offsetof(df11_compress_options, progress) == 48);
ASSERT(offsetof(df11_compress_options, callback) == 56);
ASSERT(offsetof(df11_compress_options, callback_user) == 64);
ASSERT(offsetof(df11_compress_options, left) == 72);
ASSERT(offsetof(df11_compress_options, left_user) == 80);
ASSERT(offsetof(df11_compress_options, report) == 88);

ASSERT(sizeof(df11_plan_options) == 88);
ASSERT(offsetof(df11_plan_options, struct_size) == 0);
ASSERT(offsetof(df11_plan_options, flags) == 8);
ASSERT(offsetof(df11_plan_options, slots) == 12);
ASSERT(offsetof(df11_plan_options, cache_number_bytes) == 16);
ASSERT(offsetof(df11_plan_options, preset) == 24);
ASSERT(offsetof(df11_plan_options, pattern_json) == 32);
ASSERT(offsetof(df11_plan_options, config_json) == 40);
ASSERT(offsetof(df11_plan_options, shapes_from) == 48);
ASSERT(offsetof(df11_plan_options, shapes_json) == 56);
ASSERT(offsetof(df11_plan_options, progress) == 64);
ASSERT(offsetof(df11_plan_options, left) == 72);
ASSERT(offsetof(df11_plan_options, left_user) == 80);

ASSERT(sizeof(df11_plan_info) == 136);
ASSERT(offsetof(df11_plan_info, struct_size) == 0);
ASSERT(offsetof(df11_plan_info, exact) == 8);
ASSERT(offsetof(df11_plan_info, group_count) == 16);
ASSERT(offsetof(df11_plan_info, element_count) == 24);
ASSERT(offsetof(df11_plan_info, packed_bytes) == 32);
ASSERT(offsetof(df11_plan_info, image_bytes) == 40);
ASSERT(offsetof(df11_plan_info, plain_bytes) == 48);
ASSERT(offsetof(df11_plan_info, original_bytes) == 56);
ASSERT(offsetof(df11_plan_info, file_count) == 64);
ASSERT(offsetof(df11_plan_info, written_bytes) == 72);
ASSERT(offsetof(df11_plan_info, largest_group_element_count) == 80);
ASSERT(offsetof(df11_plan_info, scratch_bytes) == 88);
ASSERT(offsetof(df11_plan_info, cache_bytes_per_token) == 96);
ASSERT(offsetof(df11_plan_info, cached_layer_count) == 104);
ASSERT(offsetof(df11_plan_info, left_count) == 112);
ASSERT(offsetof(df11_plan_info, preset) == 120);
ASSERT(offsetof(df11_plan_info, cache_unknown) == 128);

ASSERT(sizeof(df11_plan_group_info) == 64);
ASSERT(offsetof(df11_plan_group_info, struct_size) == 0);
ASSERT(offsetof(df11_plan_group_info, name) == 8);
ASSERT(offsetof(df11_plan_group_info, element_count) == 16);
ASSERT(offsetof(df11_plan_group_info, tensor_count) == 24);
ASSERT(offsetof(df11_plan_group_info, packed_bytes) == 32);
ASSERT(offsetof(df11_plan_group_info, image_bytes) == 40);
ASSERT(offsetof(df11_plan_group_info, exact) == 48);
ASSERT(offsetof(df11_plan_group_info, extended) == 56);

ASSERT(sizeof(df11_plan_share_info) == 56);
ASSERT(offsetof(df11_plan_share_info, struct_size) == 0);
ASSERT(offsetof(df11_plan_share_info, image_bytes) == 8);
ASSERT(offsetof(df11_plan_share_info, plain_bytes) == 16);
ASSERT(offsetof(df11_plan_share_info, scratch_bytes) == 24);
ASSERT(offsetof(df11_plan_share_info, total_bytes) == 32);
ASSERT(offsetof(df11_plan_share_info, cache_bytes_per_token) == 40);
ASSERT(offsetof(df11_plan_share_info, bf16_bytes) == 48);

ASSERT(sizeof(df11_image_info) == 80);
ASSERT(offsetof(df11_image_info, struct_size) == 0);
ASSERT(offsetof(df11_image_info, image_bytes) == 8);
ASSERT(offsetof(df11_image_info, head_bytes) == 16);
ASSERT(offsetof(df11_image_info, element_count) == 24);
ASSERT(offsetof(df11_image_info, tensor_count) == 32);
ASSERT(offsetof(df11_image_info, first_element) == 40);
ASSERT(offsetof(df11_image_info, first_tensor) == 48);
ASSERT(offsetof(df11_image_info, group_element_count) == 56);
ASSERT(offsetof(df11_image_info, group_tensor_count) == 64);
ASSERT(offsetof(df11_image_info, slice_count) == 72);

ASSERT(sizeof(df11_resident_info) == 96);
ASSERT(offsetof(df11_resident_info, struct_size) == 0);
ASSERT(offsetof(df11_resident_info, image) == 8);
ASSERT(offsetof(df11_resident_info, image_bytes) == 16);
ASSERT(offsetof(df11_resident_info, element_count) == 24);
ASSERT(offsetof(df11_resident_info, tensor_count) == 32);
ASSERT(offsetof(df11_resident_info, tensor_ends) == 40);
ASSERT(offsetof(df11_resident_info, first_element) == 48);
ASSERT(offsetof(df11_resident_info, first_tensor) == 56);
ASSERT(offsetof(df11_resident_info, group_element_count) == 64);
ASSERT(offsetof(df11_resident_info, group_tensor_count) == 72);
ASSERT(offsetof(df11_resident_info, slice_count) == 80);
ASSERT(offsetof(df11_resident_info, slices) == 88);

ASSERT(sizeof(df11_slice) == 20);
ASSERT(offsetof(df11_slice, tensor) == 0);
ASSERT(offsetof(df11_slice, first) == 4);
ASSERT(offsetof(df11_slice, run_elements) == 8);
ASSERT(offsetof(df11_slice, run_stride) == 12);
ASSERT(offsetof(df11_slice, run_count) == 16);

ASSERT(sizeof(df11_linear_shape) == 16);
ASSERT(offsetof(df11_linear_shape, rows) == 0);
ASSERT(offsetof(df11_linear_shape, columns) == 8);

ASSERT(sizeof(df11_segment) == 24);
ASSERT(offsetof(df11_segment, extent) == 0);
ASSERT(offsetof(df11_segment, unit) == 8);
ASSERT(offsetof(df11_segment, rule) == 16);
ASSERT(offsetof(df11_segment, reserved) == 20);

ASSERT(sizeof(df11_preset_info) == 24);
ASSERT(offsetof(df11_preset_info, struct_size) == 0);
ASSERT(offsetof(df11_preset_info, name) == 8);
ASSERT(offsetof(df11_preset_info, pattern_json) == 16);

ASSERT(sizeof(df11_packed_group) == 104);
ASSERT(offsetof(df11_packed_group, struct_size) == 0);
ASSERT(offsetof(df11_packed_group, luts) == 8);
ASSERT(offsetof(df11_packed_group, luts_bytes) == 16);
ASSERT(offsetof(df11_packed_group, encoded_exponent) == 24);
ASSERT(offsetof(df11_packed_group, encoded_exponent_bytes) == 32);
ASSERT(offsetof(df11_packed_group, sign_mantissa) == 40);
ASSERT(offsetof(df11_packed_group, sign_mantissa_bytes) == 48);
ASSERT(offsetof(df11_packed_group, output_positions) == 56);
ASSERT(offsetof(df11_packed_group, output_positions_bytes) == 64);
ASSERT(offsetof(df11_packed_group, gaps) == 72);
ASSERT(offsetof(df11_packed_group, gaps_bytes) == 80);
ASSERT(offsetof(df11_packed_group, split_positions) == 88);
ASSERT(offsetof(df11_packed_group, split_positions_bytes) == 96);

ASSERT(DF11_VERSION_NUMBER == DF11_VERSION_MAJOR * 10000 + DF11_VERSION_MINOR * 100 + DF11_VERSION_PATCH);
ASSERT(DF11_NO_GROUP == UINT64_MAX && DF11_NO_TENSOR == UINT64_MAX);

int main(void)
{
    df11_open_options options = DF11_OPEN_OPTIONS_INIT;
    df11_group_info group = DF11_GROUP_INFO_INIT;
    df11_tensor_info tensor = DF11_TENSOR_INFO_INIT;
    df11_part_info part = DF11_PART_INFO_INIT;
    df11_run_info run = DF11_RUN_INFO_INIT;
    df11_verify_options verify = DF11_VERIFY_OPTIONS_INIT;
    df11_verify_report report = DF11_VERIFY_REPORT_INIT;
    df11_compress_options compress = DF11_COMPRESS_OPTIONS_INIT;
    df11_compress_report written = DF11_COMPRESS_REPORT_INIT;
    df11_preset_info preset = DF11_PRESET_INFO_INIT;
    df11_plan_options planning = DF11_PLAN_OPTIONS_INIT;
    df11_plan_info plan = DF11_PLAN_INFO_INIT;
    df11_plan_group_info planned = DF11_PLAN_GROUP_INFO_INIT;
    df11_plan_share_info share = DF11_PLAN_SHARE_INFO_INIT;
    df11_matrix_info matrix = DF11_MATRIX_INFO_INIT;
    df11_packed_group packed = DF11_PACKED_GROUP_INIT;
    df11_linear_options product = DF11_LINEAR_OPTIONS_INIT;
    size_t writing = compress.struct_size + written.struct_size + preset.struct_size + packed.struct_size;
    size_t infos = group.struct_size + tensor.struct_size + part.struct_size + run.struct_size + report.struct_size;
    if (writing != 96 + 208 + 24 + 104)
        return 1;
    if (matrix.struct_size != 40 || product.struct_size != 88)
        return 1;
    if (planning.struct_size + plan.struct_size + planned.struct_size + share.struct_size != 88 + 136 + 64 + 56)
        return 1;
    return options.struct_size + verify.struct_size + infos == 48 + 88 + 64 + 96 + 40 + 48 + 72 ? 0 : 1;
}
