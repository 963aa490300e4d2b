/*
 * df11_experimental.h: calls of libdf11 that are NOT part of its stable ABI.
 *
 * Generated from src/capi by cbindgen; do not edit. Licence: Apache-2.0 OR MIT.
 *
 * What is declared here works and is tested as the rest is, but may change or go with any version:
 * it has not been timed on a GPU yet. Compile with the header of the library that you run with.
 * Everything that df11.h says of streams, memory, threads, errors and structs holds here too.
 *
 * LINEAR IMAGES
 *   A product with one vector reads every weight once. df11_linear() reads them in compressed form,
 *   12.05 bits instead of 16, and decodes them in registers. It takes a *linear* image: one that a
 *   resident decodes from as well, so that one image serves long prompts (decode, then multiply
 *   with what you have) and single tokens.
 *
 *       df11_linear_matrix qkv[3] = { ... };
 *       df11_linear_options options = DF11_LINEAR_OPTIONS_INIT;
 *       options.d_x = x, options.vector_count = 1, options.y_dtype = DF11_DTYPE_F32;
 *       uint64_t workspace_bytes;
 *       df11_linear_get_workspace(qkv, 3, &options, &workspace_bytes, &error);    at the start
 *       options.d_workspace = ..., options.workspace_bytes = workspace_bytes;
 *       df11_linear(qkv, 3, &options, stream, &error);                            for each token
 */
#ifndef DF11_EXPERIMENTAL_H
#define DF11_EXPERIMENTAL_H

#include "df11.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The most matrices of a call of df11_linear(). */
#define DF11_LINEAR_MATRICES_MAX 8

/** The most vectors of a call of df11_linear(). */
#define DF11_LINEAR_VECTORS_MAX 8

/** A matrix of df11_linear(), and where its results go. */
typedef struct df11_linear_matrix {
    /** A resident whose image is linear. */
    const df11_resident *resident;
    /** The number of its tensor in the image; with experts, that of expert 0. */
    uint64_t tensor;
    /** With experts: expert e is tensor number tensor + e * tensor_step. */
    uint64_t tensor_step;
    /** Rows: results for each vector. */
    uint64_t row_count;
    /** Columns: the same for all matrices of a call. */
    uint64_t column_count;
    /**
     * Results: row r of vector v is element v * y_stride + r; of the chosen expert number i it is
     * element i * y_step + v * y_stride + r.
     */
    df11_devptr d_y;
    /**
     * Elements from one vector's results to the next one's: at least row_count. Means nothing for
     * one vector.
     */
    uint64_t y_stride;
    /**
     * Elements from one chosen expert's results to the next one's. Means nothing without experts.
     */
    uint64_t y_step;
} df11_linear_matrix;

/** What all matrices of df11_linear() share. Begin with DF11_LINEAR_OPTIONS_INIT. */
typedef struct df11_linear_options {
    /** sizeof(df11_linear_options) */
    size_t struct_size;
    /** The vectors, bf16: column k of vector v is element v * x_stride + k. A multiple of 16. */
    df11_devptr d_x;
    /**
     * Elements from one vector to the next: a multiple of 8, at least column_count. Means nothing
     * for one vector.
     */
    uint64_t x_stride;
    /** Vectors: 1 to DF11_LINEAR_VECTORS_MAX. */
    uint32_t vector_count;
    /**
     * The type of the results: DF11_DTYPE_F32, or DF11_DTYPE_BF16 (rounded to the nearest, of two
     * to the even one).
     */
    uint32_t y_dtype;
    /**
     * 0 for plain matrices. Else the address of chosen_count uint32_t in device memory, a multiple
     * of 4: the numbers of the experts to multiply with.
     */
    df11_devptr d_ids;
    /** Experts that are chosen: at most 65,535. 0 does nothing. */
    uint64_t chosen_count;
    /** Experts that there are: their numbers are below that. */
    uint64_t expert_count;
    /**
     * Elements from the vectors of one chosen expert to those of the next one, a multiple of 8; 0
     * if all are multiplied with the same.
     */
    uint64_t x_step;
    /** Device memory for the sums of split columns, a multiple of 16; 0 if none is needed. */
    df11_devptr d_workspace;
    /** Bytes of the workspace: at least those of df11_linear_get_workspace(). */
    size_t workspace_bytes;
    /**
     * 0, or the address of a uint32_t in device memory, a multiple of 4, that you have set to 0.
     */
    df11_devptr d_status;
} df11_linear_options;

/** Initialises a df11_linear_options: every field but struct_size is 0 or NULL. */
#define DF11_LINEAR_OPTIONS_INIT { sizeof(df11_linear_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/**
 * Says whether a device multiplies matrices of that shape with that many vectors: DF11_OK, or
 * DF11_UNSUPPORTED_OPTION with the reason in `error`. Then decode and multiply as before. Matrices
 * have at least one row, at least 64 columns and less than 2^32 weights; more than two vectors take
 * a device of compute capability 8.0 and later, and its own kernels (or, where the driver compiles
 * them, 9.0).
 *
 * Errors: DF11_UNSUPPORTED_OPTION, DF11_INVALID_ARGUMENT.
 */
df11_status df11_device_check_linear(const df11_device *device,
                                     uint64_t row_count,
                                     uint64_t column_count,
                                     uint32_t vector_count,
                                     df11_error *error);

/**
 * Writes to `*workspace_bytes` how much workspace df11_linear() needs for these matrices: 0 unless
 * there are so few rows that their columns are split over the device. It depends on the shapes,
 * vector_count, chosen_count and the device; of `options` no address is looked at. No CUDA call is
 * made. After an error it is 0.
 *
 * Errors: as for df11_linear().
 *
 * Requires: The residents are not freed.
 */
df11_status df11_linear_get_workspace(const df11_linear_matrix *matrices,
                                      size_t matrix_count,
                                      const df11_linear_options *options,
                                      uint64_t *workspace_bytes,
                                      df11_error *error);

/**
 * Multiplies: for each matrix W of a list, each vector x and each row r, y becomes the sum over all
 * columns k of W(r, k) * x(k). The weights are read from linear images and never decoded to memory.
 * All matrices of a call have the same columns and the same vectors: query, key and value, or gate
 * and up. One launch does all of them; a second one follows where columns are split. Both lists are
 * in host memory and are read during the call only.
 *
 * Nothing is allocated, on host or device, and nothing is waited for, loaded or locked. The call
 * may be captured in a graph, and made from any thread. `stream` belongs to the device's context,
 * and is not NULL (see DF11_DEVICE_ALLOW_DEFAULT_STREAM).
 *
 * With one or two vectors the sums are made in a written order, so that every device, every launch
 * and every replay gives the same bits. All are fused multiply-adds in f32, rounded to the nearest.
 * Columns are cut in runs of 512. In a run, quarter t (0 to 3) takes the columns k with
 * (k / 16) % 4 = t, rising, from +0 on; S = (s0 + s1) + (s2 + s3). A weight whose exponent is none
 * of the image's usual ones counts as +0 there, and is added to S afterwards, in the order of
 * columns. y is the sum of the runs from the left. With three to eight vectors tensor cores make
 * the sums of 64 columns, in an order that is the hardware's; these are added in f32. The result
 * is within 2^-22 of the sum of all |W(r, k) * x(k)| where an mma.sync adds its products one by
 * one, which hardware need not do exactly.
 *
 * x must be finite: a weight that counts as +0 would make NaN of infinity.
 *
 * With experts (d_ids), the matrices of a list are the gate, the up, ... of expert 0, and the
 * device reads the numbers of the experts. All experts of a matrix have its shape. A number that
 * is not below expert_count gives zeros, and raises the status to DF11_INVALID_ARGUMENT.
 *
 * The status is raised to DF11_CORRUPT if a kernel notices that an image contradicts itself. The
 * results are then undefined, or zeros. Nothing is read outside of images, vectors and numbers, and
 * nothing written outside of results, workspace and status, whatever an image says.
 *
 * Errors, after which nothing was enqueued: DF11_UNSUPPORTED_OPTION if an image is not linear, if a
 * tensor is stored in another shape, or if df11_device_check_linear() says so;
 * DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL (the workspace), DF11_MISALIGNED,
 * DF11_DEFAULT_STREAM, DF11_WRONG_DEVICE (a stream or a matrix of another context), DF11_CUDA,
 * DF11_CAPTURING. If the driver refuses the second of two launches, the first one is in the stream;
 * the message says so.
 *
 * Requires: The residents are not freed, and `stream` is a stream. Images, vectors, numbers,
 * workspace, results and status word are device memory of its context until it has executed the
 * work, and each time that a graph which captured the call is launched. Meanwhile nobody writes
 * what is read or uses what is written. Results overlap neither each other nor anything else that
 * is named.
 */
df11_status df11_linear(const df11_linear_matrix *matrices,
                        size_t matrix_count,
                        const df11_linear_options *options,
                        df11_stream stream,
                        df11_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  /* DF11_EXPERIMENTAL_H */
