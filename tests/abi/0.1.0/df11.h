/*
 * df11.h: losslessly compressed LLM weights (DFloat11) for any inference engine.
 *
 * Generated from src/capi by cbindgen; do not edit. Licence: Apache-2.0 OR MIT.
 *
 * WHAT IT DOES
 *   A DF11 model keeps bf16 weights at about 68 % of their size, bit for bit: exponents are Huffman-coded, signs and
 *   mantissas kept. Weights come in *groups* (usually one transformer layer) that are decoded as a whole or in any range.
 *   A *tensor* is one weight matrix of the original model, either inside a group or plain (as it was). This library reads
 *   and writes such models.
 *
 * ORDER OF CALLS
 *   df11_model_open()             a folder or a file: headers and tables are checked, no weights are touched
 *   df11_model_group_count(), df11_model_get_group_info(), df11_model_get_tensor_info(), df11_model_find_tensor(), ...
 *   df11_model_decompress()        any range of a group into your memory, on as many threads as you give
 *   df11_model_read_tensor()            any bytes of any tensor, plain or compressed
 *   df11_model_write_image()      a group as a CUDA device decodes it, into memory of yours, without CUDA
 *   df11_model_free()
 *
 *   On a CUDA device, with your context, your stream and your memory (no CUDA toolkit is needed, and a driver, 525 or later,
 *   only when df11_device_open() looks for it):
 *   df11_device_open()            the driver is found, the kernels are loaded: the last call that may take long
 *   df11_device_upload()                 a group's image in device memory that you allocated (df11_group_info.image_bytes); or
 *                                 df11_model_write_image(), a copy of your own, and df11_device_bind() or df11_device_bind_image()
 *   df11_resident_decompress()             whenever the weights are wanted: into your memory, in your stream; also in ranges, one
 *                                 destination per tensor, or several groups at once
 *   df11_resident_free(), df11_device_free()
 *
 *   df11_verify_model() needs nothing of these: it takes paths, opens, looks at everything, and closes. So does
 *   df11_compress_model(), which writes a model, or its share of one that several processes write; df11_merge_model() then
 *   completes it. As these may take minutes, they count in a df11_progress, which any thread may read (df11_progress_get())
 *   and cancel; so does df11_model_open() with DF11_OPEN_VERIFY. df11_compress_group() compresses weights that lie in memory,
 *   for programs with files of their own: df11_compress_bound(), or a first call without memory, says how much it needs.
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
 *   df11_model_open_memory(), and what an upload copies from while its stream runs, are the exceptions. What the library
 *   returns by pointer (names, shapes, data, file paths) belongs to the model, the device or the resident that was asked,
 *   and lives as long. Names come from the file: UTF-8 without a zero byte, but otherwise anything, control characters
 *   too. Escape them before you print them.
 *
 * THREADS
 *   A model never changes once it is open. Any number of threads may use it at once, without locks, and it is tied to none
 *   of them. Threads that a call starts are gone when it returns. There is no pool, no signal handler, no exit handler, and
 *   no state that a caller could see on a thread: an error is yours, in memory of yours. The same holds for devices and
 *   residents; a call that makes a CUDA context current makes the thread's own current again before it returns.
 *
 * STREAMS
 *   df11_resident_decompress() and its kin only launch: they allocate nothing, wait for nothing, load nothing, make no event, and may be
 *   captured in a graph. What was enqueued uses the image, the destination and the status word when the stream gets there:
 *   they are yours to keep that long, and to order with the work of your other streams. The library allocates no device
 *   memory, and waits for the device or a stream only where the text of a call says so.
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
 *   code. None of this is a hash: a change that leaves valid codes gives other weights. df11_verify_model() compares hashes
 *   where the files have some, and every bit where there is an original. On a device, too, nothing outside the image is read and
 *   nothing outside the destination written, whatever file or image say; what is wrong is told in d_status.
 *
 * STRUCTS
 *   Options and infos begin with struct_size and are to be initialised with their _INIT macro, so that old programs work
 *   with new libraries and the other way round: fields that a library does not know must be zero, or it refuses the options
 *   (DF11_UNSUPPORTED_OPTION); fields of an info that it does not know, it clears. A struct_size smaller than the first
 *   version's or larger than 4096 is refused (DF11_INVALID_ARGUMENT), and nothing else of that struct is read or written.
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
#define DF11_OPEN_OPTIONS_INIT { sizeof(df11_open_options), 0, 0, NULL, NULL }

/** Initialises a df11_group_info. */
#define DF11_GROUP_INFO_INIT { sizeof(df11_group_info), NULL, 0, 0, 0, 0, 0 }

/** Initialises a df11_tensor_info. */
#define DF11_TENSOR_INFO_INIT { sizeof(df11_tensor_info), NULL, 0, 0, NULL, 0, 0, 0, NULL, NULL, 0 }

/** Initialises a df11_part_info. */
#define DF11_PART_INFO_INIT { sizeof(df11_part_info), NULL, 0, 0, NULL }

/** Initialises a df11_verify_report. */
#define DF11_VERIFY_REPORT_INIT { sizeof(df11_verify_report), 0, 0, 0, 0, 0, 0, 0 }

/** Initialises a df11_verify_options: one thread, no flags, the model's own config, nobody to be told. */
#define DF11_VERIFY_OPTIONS_INIT { sizeof(df11_verify_options), 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL }

/** Initialises a df11_compress_report. */
#define DF11_COMPRESS_REPORT_INIT { sizeof(df11_compress_report), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL }

/** Initialises a df11_compress_options: one thread, 512 MiB, a preset chosen by the source, the whole model, verified. */
#define DF11_COMPRESS_OPTIONS_INIT \
    { sizeof(df11_compress_options), 0, 0, 0, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL }

/** Initialises a df11_preset_info. */
#define DF11_PRESET_INFO_INIT { sizeof(df11_preset_info), NULL, NULL }

/** Initialises a df11_packed_group: no memory. */
#define DF11_PACKED_GROUP_INIT \
    { sizeof(df11_packed_group), NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0 }

/** Initialises a df11_device_options: no flags, the system's driver. */
#define DF11_DEVICE_OPTIONS_INIT { sizeof(df11_device_options), 0, 0, NULL }

/** Initialises a df11_device_info. */
#define DF11_DEVICE_INFO_INIT { sizeof(df11_device_info), NULL, NULL, NULL, 0, 0, 0, 0, 0, 0 }

/** Initialises a df11_image_info. */
#define DF11_IMAGE_INFO_INIT { sizeof(df11_image_info), 0, 0, 0, 0 }

/** Initialises a df11_resident_info. */
#define DF11_RESIDENT_INFO_INIT { sizeof(df11_resident_info), 0, 0, 0, 0, NULL }

/** No log at all: the state in which the library starts. */
#define DF11_LOG_OFF 0

/** Something that went wrong and that no call returns. (Errors that calls return are logged at DF11_LOG_DEBUG.) */
#define DF11_LOG_ERROR 1

/** What a person should know though the call succeeded. */
#define DF11_LOG_WARN 2

/** What was done. */
#define DF11_LOG_INFO 3

/** What may help to find a mistake, such as the error that a call returns. */
#define DF11_LOG_DEBUG 4

/** Everything. */
#define DF11_LOG_TRACE 5

/**
 * Walk every code of every group when the model is opened: decoding is then known to find no error. This takes somewhat
 * longer than decoding the model; see df11_open_options.threads.
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

/**
 * Accept the NULL stream, which is the context's legacy stream (a program that was compiled for per-thread default
 * streams passes CU_STREAM_PER_THREAD, 0x2, which is always accepted, as is CU_STREAM_LEGACY, 0x1). It is refused
 * otherwise, for non-blocking streams, which engines use, are not ordered with it.
 */
#define DF11_DEVICE_ALLOW_DEFAULT_STREAM 1

/** Have the driver compile the kernels' PTX even where there is a binary for the device: to test the former. */
#define DF11_DEVICE_FORCE_PTX 2

/** Bytes that the head of no image exceeds. */
#define DF11_IMAGE_HEAD_BYTES_MAX 41216

/** A group whose codes agree with its gaps and positions: nothing is wrong. */
#define DF11_FINDING_GOOD 1

/** A group whose codes do not. */
#define DF11_FINDING_BAD 2

/** A tensor that has another hash than the file's metadata says. */
#define DF11_FINDING_HASH 3

/** A tensor that differs from the original's, or that only one of the two models has. */
#define DF11_FINDING_DIFFERS 4

/** What a person should know, such as a tied lm_head that is in one model only: nothing is wrong. */
#define DF11_FINDING_NOTE 5

/** Do not decode each group from its file to compare it before the file gets its name. */
#define DF11_COMPRESS_NO_VERIFY 1

/**
 * Go on with what an interrupted run of the same source and options has left; begin, if there is nothing. The bytes are
 * those of a run without an interruption. Where nothing of a model is missing, every bit is compared with the source, and what
 * goes with it (config.json, tokenizers) is written where it is not there; where it was changed, that is an error.
 */
#define DF11_COMPRESS_RESUME 2

/**
 * Make it an error (DF11_UNSUPPORTED_FORMAT) if something that the patterns ask for cannot be compressed. Without it such
 * a group's tensors stay plain, and df11_left_fn is told.
 */
#define DF11_COMPRESS_STRICT 4

/**
 * Write the SHA-256 of every tensor to the files' metadata under "df11.sha256", for df11_verify_model(). The reference
 * compressor writes none.
 */
#define DF11_COMPRESS_HASHES 8

/**
 * Write the shapes of compressed tensors to the files' metadata under "df11.shapes", for df11_tensor_info. The reference
 * compressor writes none.
 */
#define DF11_COMPRESS_SHAPES 16

/**
 * Write one file: `dst`, if it ends in .safetensors, else model.safetensors (diffusion_pytorch_model.safetensors for
 * diffusers) in the folder `dst`.
 */
#define DF11_COMPRESS_SINGLE_FILE 32

/**
 * Write a folder of one file per group, even if `dst` ends in .safetensors. With neither of the two, `dst` is one file if
 * it ends so, else such a folder.
 */
#define DF11_COMPRESS_FOLDER 64

/** What a CUDA stream points to; cuda.h and cuda_runtime_api.h know it by the same name. */
typedef struct CUstream_st CUstream_st;

/** An open CUDA device, with all kernels loaded. Immutable: any number of threads may use it at once. */
typedef struct df11_device df11_device;

/** An open model. Immutable: any number of threads may use it at once, and none of them matters more than another. */
typedef struct df11_model df11_model;

/**
 * The progress of a long call, to be given to it in its options: any thread may ask for it, and cancel the call, while it
 * runs. One call at a time; a new call begins at 0 again, but what was cancelled stays so.
 */
typedef struct df11_progress df11_progress;

/**
 * An image on a device, ready to be decoded. Immutable: any number of threads may use it at once. It owns no device
 * memory.
 */
typedef struct df11_resident df11_resident;

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
    /**
     * NULL, or where to count the bytes of DF11_OPEN_VERIFY (two for each weight) and to look whether somebody cancels:
     * between files, and all the time while codes are walked.
     */
    struct df11_progress *progress;
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
    /**
     * Bytes of its image (df11_model_write_image()), a multiple of 256: about 10.8 bits a weight. 0 for a group that no image
     * can hold, for its tables have more code words than a device's would: no compressor writes such.
     */
    uint64_t image_bytes;
} df11_group_info;

/** Where a part of a group lies. Begin with DF11_PART_INFO_INIT. */
typedef struct df11_part_info {
    /** sizeof(df11_part_info) */
    size_t struct_size;
    /** The path of the file, on Unix any bytes; "memory" for a model opened from memory. Belongs to the model. */
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
     * The path of the file that holds the values of a plain tensor, as in df11_part_info, for readers that bring their own
     * input; NULL for a tensor in a group (df11_model_get_group_part() tells where the group's parts lie). Belongs to the model.
     */
    const char *file;
    /** The first byte of the values in that file. */
    uint64_t file_offset;
} df11_tensor_info;

/** How to open a device. Begin with DF11_DEVICE_OPTIONS_INIT. */
typedef struct df11_device_options {
    /** sizeof(df11_device_options) */
    size_t struct_size;
    /** DF11_DEVICE_ALLOW_DEFAULT_STREAM and DF11_DEVICE_* joined by | */
    uint32_t flags;
    /** 0 */
    uint32_t reserved;
    /**
     * The path or name of the CUDA driver's library, ended by a zero byte; NULL for the one that the environment
     * variable DF11_LIBCUDA names, or else the system's (libcuda.so.1). It is read during the call only.
     */
    const char *libcuda;
} df11_device_options;

/** What a device is. Begin with DF11_DEVICE_INFO_INIT. Texts belong to the device. */
typedef struct df11_device_info {
    /** sizeof(df11_device_info) */
    size_t struct_size;
    /** Its name. */
    const char *name;
    /** Which kernels run: "sm_90" and the like for a binary, "PTX" where the driver compiled them. */
    const char *kernels;
    /** The name by which the driver was loaded. */
    const char *libcuda;
    /** Its number, as the driver counts. */
    int32_t ordinal;
    /** The driver's CUDA version: 12040 is 12.4. */
    int32_t driver_version;
    /** Its compute capability: 9 of 9.0 */
    uint32_t capability_major;
    /** 0 of 9.0 */
    uint32_t capability_minor;
    /** Its multiprocessors. */
    uint32_t multiprocessor_count;
    /** 0 */
    uint32_t reserved;
} df11_device_info;

/**
 * An address in device memory: a CUdeviceptr, which is the same type, or a pointer of the CUDA runtime as a number. 0 is no
 * address.
 */
typedef unsigned long long df11_devptr;

/** A stream of the caller's: a CUstream or cudaStream_t, which are the same type. */
typedef struct CUstream_st *df11_stream;

/** What an image is. Begin with DF11_IMAGE_INFO_INIT. */
typedef struct df11_image_info {
    /** sizeof(df11_image_info) */
    size_t struct_size;
    /** Bytes of the whole image. */
    uint64_t image_bytes;
    /** Bytes of its head: its first ones, which df11_device_bind_image() needs in host memory. */
    uint64_t head_bytes;
    /** Weights of the group. */
    uint64_t element_count;
    /** Tensors of the group. */
    uint64_t tensor_count;
} df11_image_info;

/** What a resident is. Begin with DF11_RESIDENT_INFO_INIT. */
typedef struct df11_resident_info {
    /** sizeof(df11_resident_info) */
    size_t struct_size;
    /** Where the image lies. */
    df11_devptr image;
    /** Bytes of the whole image. */
    uint64_t image_bytes;
    /** Weights of the group. */
    uint64_t element_count;
    /** Tensors of the group. */
    uint64_t tensor_count;
    /** For each tensor the weights of the group up to its end. Belongs to the resident. */
    const uint64_t *tensor_ends;
} df11_resident_info;

/**
 * Told of the progress of a long call: `user` as given, and the bytes of its work that are done and that there are (0: not
 * known yet). Anything but 0 cancels the call. It is called on whatever thread of the call has just done something, never
 * two at a time: at the beginning, when it is known how much there is to do, at the end of a call that is not cut short by
 * an error, and in between at most 20 times a second. It must not unwind, and the stacks of such threads have 256 KiB.
 */
typedef int32_t (*df11_progress_fn)(void *user, uint64_t done, uint64_t total);

/**
 * Told of each group, and of each tensor of which there is something to say: `user` as given, DF11_FINDING_*, the name of
 * the group or tensor, and one sentence about it, both UTF-8 with a zero byte behind, valid during the call only, and not
 * to be printed unescaped. Newer versions may have more kinds. It is called on the thread that called
 * df11_verify_model(), and must not unwind.
 */
typedef void (*df11_finding_fn)(void *user, uint32_t kind, const char *name, const char *text);

/** What came of a verification, in numbers. Begin with DF11_VERIFY_REPORT_INIT. */
typedef struct df11_verify_report {
    /** sizeof(df11_verify_report) */
    size_t struct_size;
    /** Groups whose codes agree with their gaps and positions. */
    uint64_t groups_good;
    /** Groups whose codes do not. */
    uint64_t groups_bad;
    /** Codes in all groups, one for each weight. */
    uint64_t code_count;
    /** Tensors that have the hash that the model's metadata says. */
    uint64_t hashes_right;
    /** Tensors that have another, or cannot be decoded. */
    uint64_t hashes_wrong;
    /** Tensors that equal the original's. */
    uint64_t tensors_equal;
    /** Tensors that differ from the original's, or that only one of the two models has. */
    uint64_t tensors_different;
} df11_verify_report;

/** How to verify. Begin with DF11_VERIFY_OPTIONS_INIT. */
typedef struct df11_verify_options {
    /** sizeof(df11_verify_options) */
    size_t struct_size;
    /** Threads to use, the calling one among them; 0 means 1. They are gone when the call returns. */
    uint32_t threads;
    /** DF11_OPEN_ANY_VERSION or 0 */
    uint32_t flags;
    /** NULL, or the text of a config.json for the model; see df11_open_options. */
    const char *config_json;
    /** NULL, or where to count and to look whether somebody cancels. */
    struct df11_progress *progress;
    /** NULL, or what to tell of the progress. It may be given together with `progress`. */
    df11_progress_fn callback;
    /** What `callback` is given. */
    void *callback_user;
    /** NULL, or what to tell of the findings. */
    df11_finding_fn finding;
    /** What `finding` is given. */
    void *finding_user;
    /** NULL, or where to write the numbers. */
    struct df11_verify_report *report;
} df11_verify_options;

/**
 * Told of each tensor that the patterns ask for and that stays as it was: `user` as given, the tensor's name, the name of
 * the group that it would have been in (which stays plain as a whole), and why; all UTF-8 with a zero byte behind, valid
 * during the call only, and not to be printed unescaped. It is called on the thread that called df11_compress_model() or
 * df11_merge_model(), after the work, and must not unwind.
 */
typedef void (*df11_left_fn)(void *user, const char *tensor, const char *group, const char *reason);

/** What came of a run, in numbers. Begin with DF11_COMPRESS_REPORT_INIT. */
typedef struct df11_compress_report {
    /** sizeof(df11_compress_report) */
    size_t struct_size;
    /** Groups in the files that there are now; of a part, those of the part. */
    uint64_t groups;
    /** Weights in them. */
    uint64_t weights;
    /** Bytes of those weights before, 2 each. */
    uint64_t weight_bytes;
    /** Bytes of the groups' six members. */
    uint64_t packed_bytes;
    /** Bytes of all tensors of the source. */
    uint64_t source_bytes;
    /** Bytes of the .safetensors files that there are now; of a part, those of the part. */
    uint64_t written_bytes;
    /** Groups that were there already, of an earlier run. */
    uint64_t resumed;
    /** Tensors that stay plain although the patterns ask for them: as many as df11_left_fn is told of. */
    uint64_t left_count;
    /** Heads that are not stored, because they are tied to the embedding and equal to it. */
    uint64_t dropped_count;
    /** Patterns that no module matches. */
    uint64_t unmatched_count;
    /** 1, if the model is complete; 0 after a part, until df11_merge_model(). */
    uint64_t complete;
    /** The name of the preset whose groups these are; NULL, if it was a pattern_json. The text is static. */
    const char *preset;
} df11_compress_report;

/** How to compress. Begin with DF11_COMPRESS_OPTIONS_INIT. */
typedef struct df11_compress_options {
    /** sizeof(df11_compress_options) */
    size_t struct_size;
    /**
     * Threads to work with, the calling one among them; 0 means 1. One more brings files to the disk. They are gone when
     * the call returns, and the bytes written do not depend on their number.
     */
    uint32_t threads;
    /** DF11_COMPRESS_* joined by | */
    uint32_t flags;
    /**
     * Bytes of memory to work in at most, 5 MiB for each thread; 0 means 512 MiB. Fewer threads work if it is not enough,
     * and one always does. What headers and lists of tensors take comes on top.
     */
    uint64_t memory_bytes;
    /** NULL, or the name of a preset: the groups of a published model, see df11_preset_get_info(). */
    const char *preset;
    /**
     * NULL, or the groups: the JSON text of a pattern_dict, or of a config.json that has one in its dfloat11_config. Not
     * together with `preset`. With neither, the preset is chosen by the source's config.json and its tensors' names.
     */
    const char *pattern_json;
    /**
     * Which part of the groups to write, 1 to `part_count`: other processes or machines write the others to the same
     * folder, with the same options, and then somebody calls df11_merge_model().
     */
    uint32_t part;
    /** How many parts there are, at most 100000. 0 and 0 are the whole model, as 1 and 1 are. */
    uint32_t part_count;
    /** NULL, or where to count and to look whether somebody cancels. */
    struct df11_progress *progress;
    /** NULL, or what to tell of the progress. It may be given together with `progress`. */
    df11_progress_fn callback;
    /** What `callback` is given. */
    void *callback_user;
    /** NULL, or what to tell of tensors that stay plain. */
    df11_left_fn left;
    /** What `left` is given. */
    void *left_user;
    /** NULL, or where to write the numbers. */
    struct df11_compress_report *report;
} df11_compress_options;

/** A preset. Begin with DF11_PRESET_INFO_INIT. */
typedef struct df11_preset_info {
    /** sizeof(df11_preset_info) */
    size_t struct_size;
    /** Its name, for df11_compress_options.preset. The text is static. */
    const char *name;
    /** Its pattern_dict, as JSON. The text is static. */
    const char *pattern_json;
} df11_preset_info;

/**
 * The six members of a compressed group in memory of yours, and their sizes in bytes. A file stores each as a tensor
 * called NAME.luts and so on, where NAME is the module's name; see DF11_PART_* for what their bytes mean. No address needs
 * an alignment. Begin with DF11_PACKED_GROUP_INIT.
 */
typedef struct df11_packed_group {
    /** sizeof(df11_packed_group) */
    size_t struct_size;
    /** In a file of type U8 and shape luts_bytes / 256 by 256 */
    void *luts;
    /** Bytes of `luts` */
    size_t luts_bytes;
    /** U8, one dimension */
    void *encoded_exponent;
    /** Bytes of `encoded_exponent` */
    size_t encoded_exponent_bytes;
    /** U8, one dimension: one byte for each weight */
    void *sign_mantissa;
    /** Bytes of `sign_mantissa` */
    size_t sign_mantissa_bytes;
    /** U8, one dimension: little-endian uint32, 4 bytes each */
    void *output_positions;
    /** Bytes of `output_positions` */
    size_t output_positions_bytes;
    /** U8, one dimension */
    void *gaps;
    /** Bytes of `gaps` */
    size_t gaps_bytes;
    /** I64, one dimension: little-endian, 8 bytes for each tensor but the last, so none for a single tensor */
    void *split_positions;
    /** Bytes of `split_positions` */
    size_t split_positions_bytes;
} df11_packed_group;

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

/** A file or folder of that name is there already, and overwriting was not asked for. */
#define DF11_EXISTS 8

/** An earlier run left unfinished work there: resume it, or write elsewhere. */
#define DF11_UNFINISHED 9

/** Another process is writing there. */
#define DF11_BUSY 10

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
 * opened, whatever an index lists; config.json is looked for in the folder, or beside the file, where NAME.config.json comes
 * before it. Headers, tables and positions are read and checked, no weights: milliseconds, and no copy. A file or folder
 * without compressed groups opens too, as a model of plain tensors.
 *
 * `path` is UTF-8 (on Unix any bytes), ended by a zero byte. `options` may be NULL. On success `*out` is the model, to be
 * given to df11_model_free(); otherwise NULL.
 *
 * Errors: DF11_IO; DF11_INVALID_FORMAT, DF11_UNSUPPORTED_FORMAT and DF11_CORRUPT for a file that cannot be trusted;
 * DF11_UNSUPPORTED_OPTION, DF11_INVALID_ARGUMENT, DF11_CANCELLED, DF11_OUT_OF_MEMORY.
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
 * Describes a group. After an error `*out` is cleared but for its struct_size; where that is wrong, it is left alone.
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
 * Describes a tensor. After an error `*out` is cleared but for its struct_size; where that is wrong, it is left alone.
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

/**
 * Writes the image of a group to `dst`: df11_group_info.image_bytes bytes, which a CUDA device can decode once they lie in
 * its memory, at an address that is a multiple of 256. An image holds no address: it may be kept, sent and moved. Its bytes
 * depend on the group alone. No CUDA is needed, and every code is walked, so what was written decodes.
 *
 * `dst` is memory of the caller's, with any alignment (64 is fastest), pinned or not; nothing is read from it. One thread works:
 * df11_model_write_image_part() is for callers who have several. It allocates less than 100 KiB, and below 1 MB with DF11_OPEN_READ.
 *
 * Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL; DF11_CORRUPT if the codes contradict
 * the tables, the positions or the gaps at which blocks begin; DF11_UNSUPPORTED_FORMAT where image_bytes is 0; DF11_IO
 * with DF11_OPEN_READ; DF11_OUT_OF_MEMORY. After an error that is the file's, the first 256 bytes are zeros: no image.
 */
df11_status df11_model_write_image(const struct df11_model *model,
                                   uint64_t group,
                                   void *dst,
                                   size_t bytes,
                                   struct df11_error *error);

/**
 * Writes one of `parts` parts of an image: part 0, 1, … `parts` - 1. For callers with threads of their own, each of which
 * takes a part; all parts go to the same `dst`, in any order or at once, and no two write the same byte. The bytes are
 * those of df11_model_write_image(), for any number of parts. Part 0 writes the head.
 *
 * If any part fails, there is no image, whatever the others wrote: look at every result before the image is used. (A part
 * that fails clears its share of the index, so that a decode that is started all the same reports DF11_CORRUPT.)
 *
 * Errors: as for df11_model_write_image(); DF11_INVALID_ARGUMENT for a part that is not below `parts`.
 */
df11_status df11_model_write_image_part(const struct df11_model *model,
                                        uint64_t group,
                                        void *dst,
                                        size_t bytes,
                                        uint32_t part,
                                        uint32_t parts,
                                        struct df11_error *error);

/**
 * Opens a CUDA device by its number, in its primary context: the one that the CUDA runtime uses. The context is
 * retained until the device is freed and all its residents are. No other context stays current on the thread.
 *
 * All that may block is done here: the driver's library is loaded, if it was not (it stays loaded), and every kernel
 * is, so that no later call loads anything. What was loaded stays until the context ends, for captured graphs may hold
 * it; a context is only loaded to once. It is no call for a thread that captures. Streams that other threads capture
 * are not disturbed, but if one of them is of this context and not non-blocking, the device is not opened
 * (DF11_CAPTURING).
 *
 * `options` may be NULL. On success `*out` is the device, to be given to df11_device_free(); otherwise NULL.
 *
 * Errors: DF11_NO_DRIVER without a driver of CUDA 12.0 (525) or later, or without a device: the message says what was
 * tried; DF11_INVALID_ARGUMENT for a number that no device has; DF11_NO_KERNEL for a device older than compute
 * capability 7.5, or one for which the driver takes none of our kernels; DF11_CAPTURING, DF11_CUDA,
 * DF11_UNSUPPORTED_OPTION.
 */
df11_status df11_device_open(int32_t ordinal,
                             const struct df11_device_options *options,
                             struct df11_device **out,
                             struct df11_error *error);

/**
 * Opens the device of the context that is current on this thread, in that context, for engines with contexts of their
 * own. It stays the caller's and must live until the device is freed and all its residents are. All else is as for
 * df11_device_open(); without a current context the error is DF11_INVALID_ARGUMENT.
 */
df11_status df11_device_open_current(const struct df11_device_options *options,
                                     struct df11_device **out,
                                     struct df11_error *error);

/**
 * Frees a device, from any thread; NULL is allowed. Its residents may live on: the device is closed with the last of
 * them. Work that is running goes on, and graphs that captured decodes stay valid as long as their context. Nothing is
 * waited for, unless df11_device_open() was the only one to hold the primary context: CUDA then ends it.
 */
void df11_device_free(struct df11_device *device);

/**
 * Describes a device. After an error `*out` is cleared but for its struct_size; where that is wrong, it is left alone.
 *
 * Errors: DF11_INVALID_ARGUMENT.
 */
df11_status df11_device_get_info(const struct df11_device *device,
                                 struct df11_device_info *out,
                                 struct df11_error *error);

/**
 * Makes a group's image in device memory of the caller's: `bytes` bytes at `d_image`, at least
 * df11_group_info.image_bytes, at a multiple of 256. Copies and kernels are put into `stream`; what is put there
 * behind them may use the image. The bytes are those of df11_model_write_image(). No device memory is allocated, and
 * no host memory pinned.
 *
 * Host memory: the bytes are copied from where the file is mapped (or the memory of df11_model_open_memory() is), so
 * neither the model nor the resident may be freed before the stream has passed the upload. From pageable memory CUDA
 * copies at its own pace, and the call returns when it has read most of it; df11_device_upload_staged() goes through pinned
 * memory. With DF11_OPEN_READ the call allocates 2 MiB to read to, and waits until the stream has passed the last
 * copy.
 *
 * The file's gaps and positions are held against its codes on the device. Where they disagree, decoding the image says
 * DF11_CORRUPT in d_status.
 *
 * On success `*out` is the resident, to be given to df11_resident_free(); otherwise NULL.
 *
 * Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL, DF11_MISALIGNED;
 * DF11_UNSUPPORTED_FORMAT where image_bytes is 0; DF11_DEFAULT_STREAM; DF11_WRONG_DEVICE for a stream of another
 * context; DF11_CAPTURING, for an upload cannot be captured; DF11_CUDA; DF11_IO and DF11_CORRUPT with DF11_OPEN_READ.
 * After the last three parts of the work may be in the stream: `d_image` and the model must stay until it has passed
 * them.
 */
df11_status df11_device_upload(struct df11_device *device,
                               const struct df11_model *model,
                               uint64_t group,
                               df11_devptr d_image,
                               size_t bytes,
                               df11_stream stream,
                               struct df11_resident **out,
                               struct df11_error *error);

/**
 * df11_device_upload() through `staging_bytes` bytes of host memory of the caller's, at least 4,096; some MiB are sensible.
 * It should be pinned (cuMemHostAlloc, cudaMallocHost). The file's bytes are copied to one half of it while the device
 * copies from the other, so the call waits for the stream whenever both are full: it must not wait for something that
 * the calling thread does later. `staging` and the resident must stay until the stream has passed the upload; the
 * model may be freed when this returns.
 *
 * Errors: as for df11_device_upload(); DF11_BUFFER_TOO_SMALL and DF11_INVALID_ARGUMENT for the staging memory too.
 */
df11_status df11_device_upload_staged(struct df11_device *device,
                                      const struct df11_model *model,
                                      uint64_t group,
                                      df11_devptr d_image,
                                      size_t bytes,
                                      df11_stream stream,
                                      void *staging,
                                      size_t staging_bytes,
                                      struct df11_resident **out,
                                      struct df11_error *error);

/**
 * Takes an image that lies on the device, or will when the streams of its decodes get there: one that the caller
 * copied from what df11_model_write_image() wrote, or moved. `bytes` bytes at `d_image`, at least
 * df11_group_info.image_bytes, at a multiple of 256. No CUDA call is made; the model may be freed when this returns.
 *
 * Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL, DF11_MISALIGNED;
 * DF11_UNSUPPORTED_FORMAT where image_bytes is 0.
 */
df11_status df11_device_bind(struct df11_device *device,
                             const struct df11_model *model,
                             uint64_t group,
                             df11_devptr d_image,
                             size_t bytes,
                             struct df11_resident **out,
                             struct df11_error *error);

/**
 * df11_device_bind() without the model: `head` are the image's first bytes in host memory, `head_bytes` of them, at least as many as its
 * head has (df11_image_info.head_bytes; DF11_IMAGE_HEAD_BYTES_MAX are enough for any, and so is a whole image). They are
 * read during the call only, and checked as hostile; a checksum finds damage. `bytes` are at least
 * df11_image_info.image_bytes, which df11_image_get_info() reads from the same head; the whole image, head and all, lies at
 * `d_image`.
 *
 * Errors: DF11_INVALID_FORMAT if these are no bytes of an image, DF11_UNSUPPORTED_FORMAT for an image of another
 * version, DF11_CORRUPT for a damaged head or one that is cut short; DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL,
 * DF11_MISALIGNED.
 */
df11_status df11_device_bind_image(struct df11_device *device,
                                   const void *head,
                                   size_t head_bytes,
                                   df11_devptr d_image,
                                   size_t bytes,
                                   struct df11_resident **out,
                                   struct df11_error *error);

/**
 * Describes an image by its head: its first bytes in host memory, as for df11_device_bind_image(). No CUDA call is made.
 * After an error `*out` is cleared but for its struct_size; where that is wrong, it is left alone.
 *
 * Errors: those of the head as for df11_device_bind_image(); DF11_INVALID_ARGUMENT.
 */
df11_status df11_image_get_info(const void *head,
                                size_t head_bytes,
                                struct df11_image_info *out,
                                struct df11_error *error);

/**
 * Describes a resident. After an error `*out` is cleared but for its struct_size; where that is wrong, it is left
 * alone.
 *
 * Errors: DF11_INVALID_ARGUMENT.
 */
df11_status df11_resident_get_info(const struct df11_resident *resident,
                                   struct df11_resident_info *out,
                                   struct df11_error *error);

/**
 * Frees a resident, from any thread; NULL is allowed. No device memory is touched or freed, nothing is waited for, and
 * decodes that are in streams or graphs go on. (A resident of an upload keeps host memory that the upload reads: see
 * there.)
 */
void df11_resident_free(struct df11_resident *resident);

/**
 * Decodes a whole group on the device: `bytes` bytes at `d_dst`, at least 2 * element_count, an address that is a
 * multiple of 2 (16 is fastest). Work is put into `stream`, and the call returns before it is done.
 *
 * Nothing is allocated, on host or device, and nothing is waited for, loaded or locked. The call may be captured in a
 * graph, and made from any thread, whatever context is current there, which stays so. `stream` belongs to the device's
 * context, and is not NULL (see DF11_DEVICE_ALLOW_DEFAULT_STREAM).
 *
 * `d_status` is 0, or the address of a uint32_t in device memory, a multiple of 4, which the caller has set to 0: it
 * is raised to DF11_CORRUPT if the image contradicts itself (the file was damaged, or its gaps and positions lie), and
 * otherwise left alone. The destination then holds anything. Nothing outside it is ever written.
 *
 * Errors, after which nothing was enqueued: DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL, DF11_MISALIGNED,
 * DF11_DEFAULT_STREAM, DF11_WRONG_DEVICE (a stream of another context), DF11_CUDA (the driver refused the launch; a
 * failure of earlier work in the same context shows here too), DF11_CAPTURING (the stream's capture was broken
 * before).
 */
df11_status df11_resident_decompress(const struct df11_resident *resident,
                                     df11_devptr d_dst,
                                     size_t bytes,
                                     df11_devptr d_status,
                                     df11_stream stream,
                                     struct df11_error *error);

/**
 * Decodes `count` weights of a group, from its weight `first` on (both in elements): exactly those 2 * count bytes are
 * written. All else is as for df11_resident_decompress(). A count of 0 is nothing to do.
 *
 * Errors: as for df11_resident_decompress(); DF11_INVALID_ARGUMENT for a range outside the group.
 */
df11_status df11_resident_decompress_range(const struct df11_resident *resident,
                                           uint64_t first,
                                           uint64_t count,
                                           df11_devptr d_dst,
                                           size_t bytes,
                                           df11_devptr d_status,
                                           df11_stream stream,
                                           struct df11_error *error);

/**
 * Decodes each tensor of a group to a destination of its own: tensor i, in the order of their weights, to `d_dsts[i]`,
 * which holds `bytes[i]` bytes. `count` is the group's tensor_count. A destination of 0 leaves its tensor out. One
 * launch does up to 32 tensors; destinations that follow each other without a gap count as one. Both lists are in host
 * memory and read during the call only. All else is as for df11_resident_decompress().
 *
 * Errors: as for df11_resident_decompress(); DF11_INVALID_ARGUMENT for another count. If a group has more than 32 tensors and
 * the driver refuses a launch that is not the first, the earlier ones are in the stream; the message says so.
 */
df11_status df11_resident_decompress_tensors(const struct df11_resident *resident,
                                             const df11_devptr *d_dsts,
                                             const size_t *bytes,
                                             size_t count,
                                             df11_devptr d_status,
                                             df11_stream stream,
                                             struct df11_error *error);

/**
 * Decodes `count` whole groups: resident i to `d_dsts[i]`, which holds `bytes[i]` bytes. All lists are in host memory and read
 * during the call only; the residents may come from several device handles, but of one context. One launch does up to 32
 * groups. `d_statuses` is 0, or the address of `count` uint32_t in device memory, one for each group. All else is as for
 * df11_resident_decompress(). A count of 0 is nothing to do.
 *
 * Errors: as for df11_resident_decompress(); DF11_WRONG_DEVICE for residents of several contexts. If there are more than 32
 * groups and the driver refuses a launch that is not the first, the earlier ones are in the stream; the message says
 * so.
 */
df11_status df11_resident_decompress_batch(const struct df11_resident *const *residents,
                                           const df11_devptr *d_dsts,
                                           const size_t *bytes,
                                           size_t count,
                                           df11_devptr d_statuses,
                                           df11_stream stream,
                                           struct df11_error *error);

/** Makes a progress, at 0 of 0 bytes. `*out` is to be given to df11_progress_free(); after an error it is NULL. */
df11_status df11_progress_new(struct df11_progress **out, struct df11_error *error);

/** Frees a progress, from any thread; NULL is allowed. No call may be using it. */
void df11_progress_free(struct df11_progress *progress);

/**
 * The bytes of work that are done and that there are; 0 of 0 before a call knows, and for NULL. Any thread may ask. Where
 * `done` or `total` is NULL it is left out.
 */
void df11_progress_get(const struct df11_progress *progress,
                       uint64_t *done,
                       uint64_t *total);

/**
 * Cancels the call that the progress was given to, from any thread: it returns DF11_CANCELLED soon. One that begins later
 * does so at once; there is no way back. NULL is allowed.
 */
void df11_progress_cancel(struct df11_progress *progress);

/**
 * Verifies a whole model, a folder or a file: opens it as df11_model_open() does, walks every code of every group, compares
 * the SHA-256 of each tensor for which the files' metadata has one (under "df11.sha256"), and, if there is an original, a
 * folder of any number of files or one file, every tensor with it: type, shape where the model knows it, every bit. It goes
 * on after what is wrong, so that all of it is found.
 *
 * `original` and `options` may be NULL. Files are read piece by piece, never mapped, and memory is at most 16 MiB and 2 MiB
 * for each thread, beside what an open model takes. Of an original with a model.safetensors.index.json the files that it
 * lists are opened.
 *
 * DF11_OK: nothing is wrong. DF11_CORRUPT: something is, and the message is the first such finding's; or the model cannot
 * be opened for it. The report is written in both cases, and all zeros where the model could not be opened and after all
 * other errors: DF11_INVALID_FORMAT and DF11_UNSUPPORTED_FORMAT for the model, DF11_INVALID_ARGUMENT for an original that
 * cannot be used, DF11_IO, DF11_CANCELLED, DF11_UNSUPPORTED_OPTION, DF11_OUT_OF_MEMORY.
 */
df11_status df11_verify_model(const char *model,
                              const char *original,
                              const struct df11_verify_options *options,
                              struct df11_error *error);

/**
 * Compresses a model: `src` is a folder in Hugging Face layout, of any number of .safetensors files, or one such file;
 * `dst` is a new or empty folder, or a file, which is replaced when all is done and not before. Nothing of the source is
 * changed, and every byte of a group is as the reference compressor (dfloat11 0.5.0) writes it.
 *
 * A folder gets one file per group, a file for the rest, the source's config.json with dfloat11_config in it, and the
 * source's other files; beside a single file goes its config.json. `options` may be NULL. Groups are gone through a piece
 * at a time and never in memory whole. Files get their names when they are complete and, unless told otherwise, verified.
 *
 * What a run that fails or is cancelled leaves, df11_model_open() does not take for a model; where it has completed
 * something, DF11_COMPRESS_RESUME goes on with that. While a run works, no other one to the same place does (but for other
 * parts): it is refused, if the file system can lock files.
 *
 * Errors: DF11_INVALID_ARGUMENT for what the caller can change (a `dst` that is not empty, is unfinished, or that another run writes
 * to, patterns that do not fit, no preset that fits, a source that is compressed already); DF11_NOT_FOUND (no such
 * preset); DF11_INVALID_FORMAT and DF11_CORRUPT for the source, and for a written group that failed its verification;
 * DF11_UNSUPPORTED_FORMAT with DF11_COMPRESS_STRICT; DF11_UNSUPPORTED_OPTION, DF11_IO, DF11_CANCELLED,
 * DF11_OUT_OF_MEMORY. After all of them the report is all zeros, and `left` is not called.
 */
df11_status df11_compress_model(const char *src,
                                const char *dst,
                                const struct df11_compress_options *options,
                                struct df11_error *error);

/**
 * Completes a folder whose parts are all finished: writes what belongs to no group, config.json and the files that go with
 * it, and checks that nothing is missing. `options` are those of the parts; `part`, `part_count` and DF11_COMPRESS_RESUME
 * do not matter. The report is the whole model's, and `left` is told of what all parts have left.
 *
 * Errors: as for df11_compress_model(); DF11_INVALID_ARGUMENT if a part is not finished or `dst` was not begun.
 */
df11_status df11_merge_model(const char *src,
                             const char *dst,
                             const struct df11_compress_options *options,
                             struct df11_error *error);

/** How many presets there are. */
uint64_t df11_preset_count(void);

/** Describes the preset of that number, from 0. DF11_NOT_FOUND if there is none. */
df11_status df11_preset_get_info(uint64_t preset, struct df11_preset_info *out, struct df11_error *error);

/**
 * Compresses a group in memory: the weights of its tensors one after the other, in the order of the pattern's list,
 * encoded byte for byte as the reference compressor does.
 *
 * `tensors` are the addresses of `tensor_count` tensors, 1 to 1024, and `element_counts` their weights, bf16 bits in the
 * processor's byte order; all together at most 4294967295. Each is aligned to 2 bytes; one of no weights may be NULL.
 * `threads` threads work, the calling one among them, and are gone when the call returns; 0 means 1. The bytes do not
 * depend on their number. Allocated are some 3 KiB for each tensor and for every 262144 weights of it, and less than 4 MiB
 * for each thread, for the time of the call. Weights are read twice and must not change meanwhile.
 *
 * `io` gives the memory for each member, its address and how many bytes it holds, and is given back how many were written.
 * Where all six addresses are NULL, the sizes that the members need are set and nothing is written: the weights are then
 * read once. Otherwise only a member that has 0 bytes may be NULL, such as the split positions of a single tensor. The
 * pieces of memory overlap neither each other nor the weights.
 *
 * Errors: DF11_BUFFER_TOO_SMALL, which sets the sizes that the members need, too, and writes nothing else; DF11_MISALIGNED;
 * DF11_INVALID_ARGUMENT for all else that is wrong with the arguments, for no weights at all, and for an exponent of 240 or
 * more (an infinity, a NaN, a magnitude of 2^113 or more), which the format cannot hold: store such a group's tensors as
 * they are; DF11_UNSUPPORTED_OPTION, DF11_OUT_OF_MEMORY. After all but the first the sizes are 0.
 */
df11_status df11_compress_group(const void *const *tensors,
                                const uint64_t *element_counts,
                                size_t tensor_count,
                                uint32_t threads,
                                struct df11_packed_group *io,
                                struct df11_error *error);

/**
 * Sets the sizes of `out` to what a group of so many weights takes at most, whatever they are, and leaves its addresses
 * alone: memory of these sizes is enough for df11_compress_group(). `element_counts` are the weights of its `tensor_count`
 * tensors. A group of trained weights takes about a third of it for `encoded_exponent`.
 *
 * Errors: DF11_INVALID_ARGUMENT, for the same counts as in df11_compress_group(); DF11_UNSUPPORTED_OPTION. The sizes are
 * then 0.
 */
df11_status df11_compress_bound(const uint64_t *element_counts,
                                size_t tensor_count,
                                struct df11_packed_group *out,
                                struct df11_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DF11_H */
