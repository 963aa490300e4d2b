/*
 * df11.h: losslessly compressed LLM weights (DFloat11) for any inference engine.
 *
 * Generated from src/capi by cbindgen; do not edit. Licence: Apache-2.0 OR MIT.
 *
 * WHAT IT DOES
 *   A DF11 model keeps bf16 weights at about 68 % of their size, bit for bit: exponents are Huffman-coded, signs and
 *   mantissas kept. Weights come in *groups* (usually one transformer layer) that are decoded as a whole or in any range.
 *   A *tensor* is one weight matrix of the original model, either inside a group or plain (as it was).
 *
 * ORDER OF CALLS
 *   df11_model_open()             a folder or a file: headers and tables are checked, no weights are touched
 *   df11_model_group_count(), df11_model_get_group_info(), df11_model_get_tensor_info(), df11_model_find_tensor(), ...
 *   df11_model_decompress()        any range of a group into your memory, on as many threads as you give
 *   df11_model_read_tensor()            any bytes of any tensor, plain or compressed
 *   df11_model_free()
 *
 *       df11_error error;
 *       df11_model *model;
 *       if (df11_model_open("Qwen3-8B-DF11", NULL, &model, &error) != DF11_OK) {
 *           fprintf(stderr, "%s\n", error.message);
 *           return 1;
 *       }
 *       df11_group_info info = DF11_GROUP_INFO_INIT;
 *       df11_model_get_group_info(model, 0, &info, NULL);
 *       uint16_t *weights = malloc(2 * info.element_count);
 *       df11_model_decompress(model, 0, 0, info.element_count, weights, 2 * info.element_count, 8, &error);
 *       ...
 *       df11_model_free(model);
 *
 * SIZES
 *   Names say the unit: *_count, first and group_offset count elements (weights), *bytes and file_offset count bytes. All
 *   are 64 bits wide, but for memory of yours (size_t). A decoded weight is 2 bytes: bf16 in the processor's byte order.
 *
 * OWNERSHIP
 *   You own every buffer that you pass, and the library keeps no pointer to it after the call; the bytes given to
 *   df11_model_open_memory() are the one exception. What the library returns by pointer (names, shapes, data, file paths)
 *   belongs to the model and lives until df11_model_free(). Names come from the file: UTF-8 without a zero byte, but
 *   otherwise anything, control characters too. Escape them before you print them.
 *
 * THREADS
 *   A model never changes once it is open. Any number of threads may use it at once, without locks, and it is tied to none
 *   of them. Threads that a call starts are gone when it returns. There is no pool, no signal handler, no exit handler, and
 *   no state that a caller could see on a thread: an error is yours, in memory of yours.
 *
 * ERRORS
 *   Every fallible function returns a df11_status and takes a df11_error * last, which may be NULL. The message names the
 *   file, the tensor and the byte. After an error all outputs are NULL or 0. Nothing is printed, and nothing exits, aborts
 *   or unwinds: a bug inside becomes DF11_INTERNAL. Two things cannot be caught: a mapped file that another process cuts
 *   short (SIGBUS; DF11_OPEN_READ avoids mapping), and a process that has no memory left at all for small allocations, which
 *   Rust's runtime ends. What a model can make the library allocate is bounded by its headers, tables and positions.
 *
 * TRUST
 *   A model is a download. df11_model_open() checks all that can be told without decoding, df11_model_decompress() never reads
 *   or writes outside, whatever the codes say, and reports codes that contradict the tables. DF11_OPEN_VERIFY walks every
 *   code. None of this is a hash: a change that leaves valid codes gives other weights.
 *
 * STRUCTS
 *   Options and infos begin with struct_size and are to be initialised with their _INIT macro, so that old programs work
 *   with new libraries and the other way round: fields that a library does not know must be zero, or it refuses the options
 *   (DF11_UNSUPPORTED_OPTION); fields of an info that it does not know, it clears. A struct_size smaller than the first
 *   version's or larger than 4096 is refused (DF11_INVALID_ARGUMENT).
 */

#ifndef DF11_H
#define DF11_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header; df11_version_number() is that of the library. */
#define DF11_VERSION_NUMBER 100
#define DF11_VERSION_MAJOR 0
#define DF11_VERSION_MINOR 1
#define DF11_VERSION_PATCH 0

/** Initialises a df11_open_options: no flags, one thread, the model's own config. */
#define DF11_OPEN_OPTIONS_INIT { sizeof(df11_open_options), 0, 0, NULL }

/** Initialises a df11_group_info. */
#define DF11_GROUP_INFO_INIT { sizeof(df11_group_info), NULL, 0, 0, 0, 0 }

/** Initialises a df11_tensor_info. */
#define DF11_TENSOR_INFO_INIT { sizeof(df11_tensor_info), NULL, 0, 0, NULL, 0, 0, 0, NULL, NULL, 0 }

/** Initialises a df11_part_info. */
#define DF11_PART_INFO_INIT { sizeof(df11_part_info), NULL, 0, 0, NULL }

/** No log at all: the state in which the library starts. */
#define DF11_LOG_OFF 0

/** What made a call fail. Its df11_error says it too. */
#define DF11_LOG_ERROR 1

/** What a person should know though the call succeeded. */
#define DF11_LOG_WARN 2

/** What was done. */
#define DF11_LOG_INFO 3

/** What may help to find a mistake. */
#define DF11_LOG_DEBUG 4

/** Everything. */
#define DF11_LOG_TRACE 5

/**
 * Walk every code of every group when the model is opened: decoding is then known to find no error. One code at a time, this
 * takes more than ten times as long as decoding the model; see df11_open_options.threads.
 */
#define DF11_OPEN_VERIFY 1

/**
 * Read the files piece by piece instead of mapping them. A mapped file that another process cuts short ends this process
 * with SIGBUS; a read one gives an error. `data` pointers are then NULL, and one descriptor per file stays open.
 */
#define DF11_OPEN_READ 2

/** Accept a version of the compressor that this library does not know. */
#define DF11_OPEN_ANY_VERSION 4

/** The `group` of a tensor that is in none. */
#define DF11_NO_GROUP UINT64_MAX

/** The look-up rows, then the row of code lengths: 256 bytes each. */
#define DF11_PART_LUTS 0

/** The Huffman-coded exponents. */
#define DF11_PART_ENCODED_EXPONENT 1

/** One byte per weight: its sign in bit 7, its mantissa below. */
#define DF11_PART_SIGN_MANTISSA 2

/** A little-endian uint32 per block of 4096 code bytes: its first weight; then the number of weights. */
#define DF11_PART_OUTPUT_POSITIONS 3

/** Five bits per 8 code bytes: the bit at which the first code that starts there begins. */
#define DF11_PART_GAPS 4

/** A little-endian int64 per tensor but the last: the weights up to its end. */
#define DF11_PART_SPLIT_POSITIONS 5

/** The type of a tensor's elements is none that this version knows. */
#define DF11_DTYPE_UNKNOWN 0

/** bfloat16: the upper half of a float */
#define DF11_DTYPE_BF16 1

/** IEEE 754 half */
#define DF11_DTYPE_F16 2

/** IEEE 754 single */
#define DF11_DTYPE_F32 3

/** IEEE 754 double */
#define DF11_DTYPE_F64 4

/** One byte, 0 or 1 */
#define DF11_DTYPE_BOOL 5

/** uint8_t */
#define DF11_DTYPE_U8 6

/** int8_t */
#define DF11_DTYPE_I8 7

/** uint16_t */
#define DF11_DTYPE_U16 8

/** int16_t */
#define DF11_DTYPE_I16 9

/** uint32_t */
#define DF11_DTYPE_U32 10

/** int32_t */
#define DF11_DTYPE_I32 11

/** uint64_t */
#define DF11_DTYPE_U64 12

/** int64_t */
#define DF11_DTYPE_I64 13

/** 8-bit float, 5 exponent and 2 mantissa bits */
#define DF11_DTYPE_F8_E5M2 14

/** 8-bit float, 4 exponent and 3 mantissa bits */
#define DF11_DTYPE_F8_E4M3 15

/** 8-bit scale, exponent only */
#define DF11_DTYPE_F8_E8M0 16

/** 4-bit float, two in a byte */
#define DF11_DTYPE_F4 17

/** 6-bit float, 2 exponent and 3 mantissa bits */
#define DF11_DTYPE_F6_E2M3 18

/** 6-bit float, 3 exponent and 2 mantissa bits */
#define DF11_DTYPE_F6_E3M2 19

/** Complex of two singles */
#define DF11_DTYPE_C64 20

/** As F8_E4M3, without infinities and negative zero */
#define DF11_DTYPE_F8_E4M3FNUZ 21

/** As F8_E5M2, without infinities and negative zero */
#define DF11_DTYPE_F8_E5M2FNUZ 22

/** An open model. Immutable: any number of threads may use it at once, and none of them matters more than another. */
typedef struct df11_model df11_model;

/**
 * The result of a call: one of the `DF11_*` statuses below. 0 is success; 1 to 99 are the caller's mistakes, 100 to 199
 * the file's, 200 to 299 the device's, 900 to 999 the library's. Numbers are never reused, and newer versions may return
 * new ones: treat an unknown one by its range. df11_status_name() gives its name.
 */
typedef int32_t df11_status;

/**
 * Receives the log: `user` as given to df11_log_set(), a level (DF11_LOG_ERROR to DF11_LOG_TRACE), and one line of UTF-8
 * with a zero byte behind it; `length` counts bytes without that zero. The text is valid during the call only. It is
 * called from whatever thread has something to say, several at once, and must neither call this library nor unwind.
 */
typedef void (*df11_log_fn)(void *user, int32_t level, const char *message, size_t length);

/** How to open a model. Begin with DF11_OPEN_OPTIONS_INIT. */
typedef struct df11_open_options {
    /** sizeof(df11_open_options) */
    size_t struct_size;
    /** DF11_OPEN_* joined by | */
    uint32_t flags;
    /** Threads for DF11_OPEN_VERIFY, the calling one among them; 0 means 1. */
    uint32_t threads;
    /**
     * NULL, or the text of a config.json to use instead of the model's own, in UTF-8 and ended by a zero byte. For a file
     * that comes without one: the config's pattern_dict says what the tensors inside a group are called. It is read
     * during the call only.
     */
    const char *config_json;
} df11_open_options;

/**
 * What went wrong, in memory of the caller's: 512 bytes, a layout that never changes. Every call that takes one writes
 * it, after success with DF11_OK and an empty message.
 */
typedef struct df11_error {
    /** The status that the call returned. */
    df11_status status;
    /** The number that the system below gave: an errno, a CUresult, or 0. */
    int32_t native_code;
    /**
     * One sentence in UTF-8, ended by a zero byte, with the file, the tensor and the byte in the file where they are
     * known. Text that does not fit is cut between characters.
     */
    char message[504];
} df11_error;

/** What a group is. Begin with DF11_GROUP_INFO_INIT. */
typedef struct df11_group_info {
    /** sizeof(df11_group_info) */
    size_t struct_size;
    /** The module's full name, such as "model.layers.0". Belongs to the model. */
    const char *name;
    /** Weights in all its tensors; they take twice as many bytes when decoded. */
    uint64_t element_count;
    /** Tensors in it. */
    uint64_t tensor_count;
    /** The number of its first tensor; the others follow, in the order of their weights. */
    uint64_t first_tensor;
    /** Bytes of its six parts in the files. */
    uint64_t packed_bytes;
} df11_group_info;

/** Where a part of a group lies. Begin with DF11_PART_INFO_INIT. */
typedef struct df11_part_info {
    /** sizeof(df11_part_info) */
    size_t struct_size;
    /** The path of the file; "memory" for a model opened from memory. Belongs to the model. */
    const char *file;
    /** The part's first byte in that file. */
    uint64_t file_offset;
    /** How many bytes it has. */
    uint64_t bytes;
    /** The bytes where they lie in the file's memory, with no alignment; NULL with DF11_OPEN_READ. Belongs to the model. */
    const void *data;
} df11_part_info;

/** What a tensor is. Begin with DF11_TENSOR_INFO_INIT. */
typedef struct df11_tensor_info {
    /** sizeof(df11_tensor_info) */
    size_t struct_size;
    /** Its full name. Belongs to the model. */
    const char *name;
    /** The type of its elements: DF11_DTYPE_BF16 for every tensor in a group. */
    uint32_t dtype;
    /**
     * Its number of dimensions. DF11 does not store the shapes of compressed tensors: they have one dimension, unless the
     * file's metadata tells their shape.
     */
    uint32_t rank;
    /**
     * Its `rank` dimensions, in elements, the last one contiguous; NULL if there are none. Belongs to the
     * model.
     */
    const uint64_t *shape;
    /** Bytes of its values, decoded. */
    uint64_t bytes;
    /** The number of its group, or DF11_NO_GROUP for a plain tensor. */
    uint64_t group;
    /** Its first weight in the group, in elements; 0 for a plain tensor. */
    uint64_t group_offset;
    /**
     * The values of a plain tensor where they lie in the file's memory, with no alignment; NULL for a tensor in a group,
     * and with DF11_OPEN_READ. Belongs to the model.
     */
    const void *data;
    /**
     * The path of the file that holds the values of a plain tensor, for readers that bring their own input; NULL for a
     * tensor in a group (df11_model_get_group_part() tells where the group's parts lie). Belongs to the model.
     */
    const char *file;
    /** The first byte of the values in that file. */
    uint64_t file_offset;
} df11_tensor_info;

/** Nothing went wrong. */
#define DF11_OK 0

/** An argument is NULL, out of range, or contradicts another. */
#define DF11_INVALID_ARGUMENT 1

/** There is no group or tensor of that name or number. */
#define DF11_NOT_FOUND 2

/** The destination holds fewer bytes than the result. */
#define DF11_BUFFER_TOO_SMALL 3

/** An address is not aligned as the function asks. */
#define DF11_MISALIGNED 4

/** An option, or a field of a newer options struct, that this version does not know. */
#define DF11_UNSUPPORTED_OPTION 5

/** The caller cancelled the operation. */
#define DF11_CANCELLED 6

/** The NULL stream, on a device that was not opened to allow it. */
#define DF11_DEFAULT_STREAM 7

/** The operating system could not open, read, map or write; native_code is its errno. */
#define DF11_IO 100

/** Not a safetensors file, or not a DF11 model. */
#define DF11_INVALID_FORMAT 101

/** A DF11 model of a kind that cannot be decoded. */
#define DF11_UNSUPPORTED_FORMAT 102

/** A DF11 model whose parts contradict each other. */
#define DF11_CORRUPT 103

/** No usable CUDA driver. */
#define DF11_NO_DRIVER 200

/** No kernel for this device. */
#define DF11_NO_KERNEL 201

/** A CUDA call failed; native_code is its CUresult. */
#define DF11_CUDA 202

/** Not allowed while a stream is being captured. */
#define DF11_CAPTURING 203

/** A handle of another device or context. */
#define DF11_WRONG_DEVICE 204

/** Memory could not be had. */
#define DF11_OUT_OF_MEMORY 900

/** A bug in this library. The message says where; please report it. */
#define DF11_INTERNAL 999

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The name of a status in capitals without its prefix, such as "CORRUPT"; "UNKNOWN" for a number that this version does
 * not have. The text is static.
 */
const char *df11_status_name(df11_status status);

/**
 * The version of the library that is running, as major * 10000 + minor * 100 + patch. DF11_VERSION_NUMBER is that of the
 * header that the program was compiled with; before 1.0 they must agree in major and minor.
 */
uint32_t df11_version_number(void);

/** The version of the library that is running, such as "0.1.0". The text is static. */
const char *df11_version_string(void);

/**
 * Sends the log to a callback, for the whole process; NULL or DF11_LOG_OFF ends it, and the library starts silent. When
 * this returns, the callback of before is running in no thread and will not be called again, so its `user` may go. Do not
 * call it from a callback. Levels above DF11_LOG_TRACE are as that, below DF11_LOG_OFF as that.
 */
void df11_log_set(df11_log_fn callback,
                  int32_t max_level,
                  void *user);

/**
 * Opens a model: a folder in Hugging Face layout, or one .safetensors file. Every *.safetensors file of a folder is
 * opened, whatever an index lists; config.json is looked for in the folder, or beside the file. Headers, tables and
 * positions are read and checked, no weights: milliseconds, and no copy. A file or folder without compressed groups opens
 * too, as a model of plain tensors.
 *
 * `path` is UTF-8 (on Unix any bytes), ended by a zero byte. `options` may be NULL. On success `*out` is the model, to be
 * given to df11_model_free(); otherwise NULL.
 *
 * Errors: DF11_IO; DF11_INVALID_FORMAT, DF11_UNSUPPORTED_FORMAT and DF11_CORRUPT for a file that cannot be trusted;
 * DF11_UNSUPPORTED_OPTION, DF11_INVALID_ARGUMENT, DF11_OUT_OF_MEMORY.
 */
df11_status df11_model_open(const char *path,
                            const struct df11_open_options *options,
                            struct df11_model **out,
                            struct df11_error *error);

/**
 * Opens the bytes of one .safetensors file that lie in memory. They are not copied: they must stay, unchanged, until the
 * model is freed. There is no config.json beside them; see df11_open_options.config_json. All else is as for
 * df11_model_open().
 */
df11_status df11_model_open_memory(const void *data,
                                   size_t bytes,
                                   const struct df11_open_options *options,
                                   struct df11_model **out,
                                   struct df11_error *error);

/** Frees a model, from any thread; NULL is allowed. No call may be using it, and its names, shapes and data go with it. */
void df11_model_free(struct df11_model *model);

/** How many groups a model has; 0 for NULL. They are numbered from 0 in the natural order of their names. */
uint64_t df11_model_group_count(const struct df11_model *model);

/**
 * How many tensors a model has; 0 for NULL. They are numbered from 0: those of group 0 in the order of their weights,
 * those of group 1, and so on; then the plain ones.
 */
uint64_t df11_model_tensor_count(const struct df11_model *model);

/**
 * Describes a group. After an error `*out` is cleared but for its struct_size; where
 * that is wrong, it is left alone.
 *
 * Errors: DF11_NOT_FOUND if there is no such group; DF11_INVALID_ARGUMENT.
 */
df11_status df11_model_get_group_info(const struct df11_model *model,
                                  uint64_t group,
                                  struct df11_group_info *out,
                                  struct df11_error *error);

/**
 * Says where a part of a group lies (DF11_PART_*), for readers that bring their own input. After an error `*out` is
 * cleared but for its struct_size; where that is wrong, it is left alone.
 *
 * Errors: DF11_NOT_FOUND if there is no such group or part; DF11_INVALID_ARGUMENT.
 */
df11_status df11_model_get_group_part(const struct df11_model *model,
                                  uint64_t group,
                                  uint32_t part,
                                  struct df11_part_info *out,
                                  struct df11_error *error);

/**
 * Describes a tensor. After an error `*out` is cleared but for its struct_size; where
 * that is wrong, it is left alone.
 *
 * Errors: DF11_NOT_FOUND if there is no such tensor; DF11_INVALID_ARGUMENT.
 */
df11_status df11_model_get_tensor_info(const struct df11_model *model,
                                   uint64_t tensor,
                                   struct df11_tensor_info *out,
                                   struct df11_error *error);

/**
 * Finds a group by its full name. `*out` is its number, or 0 after an error.
 *
 * Errors: DF11_NOT_FOUND; DF11_INVALID_ARGUMENT.
 */
df11_status df11_model_find_group(const struct df11_model *model,
                                  const char *name,
                                  uint64_t *out,
                                  struct df11_error *error);

/**
 * Finds a tensor by its full name. `*out` is its number, or 0 after an error.
 *
 * Errors: DF11_NOT_FOUND; DF11_INVALID_ARGUMENT.
 */
df11_status df11_model_find_tensor(const struct df11_model *model,
                                   const char *name,
                                   uint64_t *out,
                                   struct df11_error *error);

/**
 * Decodes `count` weights of a group on the CPU, from its weight `first` on (both in elements), into `dst`: bf16 bits in
 * the processor's byte order, 2 bytes each.
 *
 * `dst` belongs to the caller, is aligned to 2 bytes (64 is fastest) and holds `dst_bytes` bytes, at least 2 * count.
 * `threads` threads work, the calling one among them, and are gone when the call returns; 0 means 1. Fewer work where
 * there is too little to do. Nothing is allocated but 16 KiB once for each group, and less than 1 MB per thread for the
 * time of the call. Calls from several threads may overlap, on one group too.
 *
 * Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT (a range outside the group), DF11_BUFFER_TOO_SMALL,
 * DF11_MISALIGNED; DF11_CORRUPT if the codes contradict the tables or a file has become shorter; DF11_IO with
 * DF11_OPEN_READ. After the latter two `dst` holds anything.
 */
df11_status df11_model_decompress(const struct df11_model *model,
                                 uint64_t group,
                                 uint64_t first,
                                 uint64_t count,
                                 void *dst,
                                 size_t dst_bytes,
                                 uint32_t threads,
                                 struct df11_error *error);

/**
 * Copies or decodes bytes of any tensor: `dst_bytes` of its values, from their byte `offset` on. For a tensor in a group
 * both must be even and `dst` aligned to 2. `threads` and all else are as for df11_model_decompress().
 *
 * Errors: DF11_NOT_FOUND (no such tensor), DF11_INVALID_ARGUMENT (bytes outside the tensor, or half a weight),
 * DF11_MISALIGNED, DF11_CORRUPT, DF11_IO.
 */
df11_status df11_model_read_tensor(const struct df11_model *model,
                             uint64_t tensor,
                             uint64_t offset,
                             void *dst,
                             size_t dst_bytes,
                             uint32_t threads,
                             struct df11_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DF11_H */
