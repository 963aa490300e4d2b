/*
 * df11.h: losslessly compressed LLM weights (DFloat11) for any inference engine.
 *
 * Generated from src/capi by cbindgen; do not edit. Licence: Apache-2.0 OR MIT.
 *
 * WHAT IT DOES
 *   A DF11 model stores bf16 weights at about 68 % of their size, bit for bit: exponents are
 *   Huffman-coded, signs and mantissas are stored as they are. Weights come in *groups* (usually
 *   one transformer layer), which are decoded as a whole or in any range. A *tensor* is one weight
 *   matrix of the original model. It is either in a group or *plain*, which means stored as it was.
 *   An *image* is a group in the form that a CUDA device decodes; a *resident* is an image in
 *   device memory. This library reads and writes such models.
 *
 * ORDER OF CALLS
 *   df11_model_open()             opens a folder or a file; checks headers and tables, but reads no
 *                                 weights
 *   df11_model_group_count(), df11_model_get_group_info(), df11_model_get_tensor_info(),
 *   df11_model_find_tensor(), ... say what is in it
 *   df11_model_decompress()       decodes any range of a group into your buffer, on as many threads
 *                                 as you say
 *   df11_model_read_tensor()      reads any bytes of any tensor, plain or compressed
 *   df11_model_write_image()      writes a group's image to your buffer, without CUDA
 *   df11_model_free()
 *
 *   A matrix is a tensor in a form that a processor multiplies with: at 12 bits a weight, in your
 *   memory. Products wait for memory, so they take less time than with bf16, and have its bits.
 *   df11_model_write_matrix()     makes it of a tensor; df11_matrix_write() of bf16 rows
 *   df11_matrix_bind()            takes it where it is, in as many processes as you like
 *   df11_matrix_multiply()        multiplies rows with one or more vectors, on your threads
 *   df11_matrix_decompress()      decodes any range
 *   df11_matrix_free()
 *
 *   On a CUDA device, with your context, your stream and your memory. No CUDA toolkit is needed; a
 *   driver, 525 or later, is needed only when df11_device_open() looks for it.
 *   df11_device_open()            finds the driver and loads the kernels: the last call that may
 *                                 take long
 *   df11_device_upload()          makes a group's image in device memory that you allocated
 *                                 (df11_group_info.image_bytes); or use df11_model_write_image(), a
 *                                 copy of your own, and df11_device_bind() or
 *                                 df11_device_bind_image()
 *   df11_resident_decompress()    decodes whenever the weights are wanted, to your device memory,
 *                                 in your stream; also ranges, one destination per tensor, or
 *                                 several groups at once
 *   df11_resident_free(), df11_device_free()
 *   Devices that share the work of each layer hold a part of each group. Rows of a matrix are a
 *   range: df11_model_write_image_range(), df11_device_upload_range(). Columns, or all that a
 *   device holds of a group in one image, are a *shard*: df11_model_get_slices(),
 *   df11_model_make_shard(), df11_shard_write_image().
 *
 *   df11_verify_model(), df11_compress_model(), df11_decompress_model() and df11_repack_model() are
 *   standalone: they take paths, and open and close what they need. Several processes may each
 *   compress a part of a model; df11_merge_model() then completes it. These calls may take minutes
 *   and report to a df11_progress, which any thread may read (df11_progress_get()) and cancel; so
 *   does df11_model_open() with DF11_OPEN_VERIFY.
 *   df11_compress_group() compresses weights in memory, for programs with files of their own:
 *   df11_compress_bound(), or a first call without buffers, says how much memory it needs.
 *
 *       df11_error error;
 *       df11_model *model;
 *       if (df11_model_open("Qwen3-8B-DF11", NULL, &model, &error) != DF11_OK) {
 *           fprintf(stderr, "%s\n", error.message);
 *           return 1;
 *       }
 *       df11_group_info info = DF11_GROUP_INFO_INIT;
 *       df11_model_get_group_info(model, 0, &info, NULL);
 *       size_t dst_bytes = 2 * info.element_count;
 *       uint16_t *dst = malloc(dst_bytes);
 *       df11_model_decompress(model, 0, 0, info.element_count, dst, dst_bytes, 8, &error);
 *       ...
 *       df11_model_free(model);
 *
 * NAMES
 *   A function that takes a handle first begins with the handle's noun: df11_model_...,
 *   df11_device_..., df11_resident_..., df11_matrix_..., df11_shard_..., df11_progress_.... A
 *   function on paths is a verb and a noun: df11_compress_model(). Pointers to device memory begin
 *   with d_.
 *
 * SIZES
 *   Names say the unit: count, element_count, first and group_offset count elements (weights);
 *   *_bytes, offset and file_offset count bytes; any other *_count counts what it is called after.
 *   All are 64 bits wide, except sizes of your buffers (size_t). A decoded weight has 2 bytes: bf16
 *   in the processor's byte order.
 *
 * REQUIREMENTS
 *   A pointer is NULL, where that is allowed, or points to what the text says: a handle that was
 *   not freed, a text that ends in a zero byte, a list of as many elements as the count next to it
 *   says, an output that can be written. What a call requires beyond that is in the last paragraph
 *   of its text, after "Requires:". The library cannot check it: if it is not so, the behaviour is
 *   undefined.
 *
 * OWNERSHIP
 *   You own every buffer that you pass, and the library keeps no pointer to it after the call.
 *   The exceptions are the bytes given to df11_model_open_memory(), what an upload copies from
 *   while its stream runs, the device memory of a resident, and the `user` of df11_log_set(). What
 *   the library returns by pointer (names, shapes, data, file paths) belongs to the model, the
 *   plan, the device or the resident that was asked, and lives as long.
 *   Names come from the file: UTF-8 without a zero byte, but otherwise anything, control characters
 *   too. Escape them before you print them.
 *
 * THREADS
 *   A model never changes once it is open. Any number of threads may use it at once, without locks.
 *   The same holds for devices and residents. Threads that a call starts end before it returns;
 *   where the system starts fewer than you ask for, the call works with those that there are. There
 *   is no pool, no signal handler, no exit handler and no state of a thread that you could see:
 *   errors go into a struct that you provide. A call that makes a CUDA context current makes the
 *   thread's own current again before it returns.
 *   Every call works on a thread with a stack of 64 KiB, whatever is in the files; what your
 *   callbacks and the CUDA driver need comes on top.
 *
 * STREAMS
 *   df11_resident_decompress() and its variants only launch: they allocate nothing, wait for
 *   nothing, load nothing, make no event, and may be captured in a graph. Keep the image, the
 *   destination and the status word valid until the stream has executed the work, and order it with
 *   the work of your other streams. The library allocates no device memory, and waits for the
 *   device or a stream only where the text of a call says so.
 *
 * ERRORS
 *   Every fallible function returns a df11_status and takes a df11_error * last, which may be NULL.
 *   The message names the file, the tensor and the byte. After an error all outputs are NULL or 0
 *   (numbers of tokens are DF11_PLAN_NONE).
 *   Nothing is printed, and nothing exits, aborts or unwinds: a bug inside becomes DF11_INTERNAL.
 *   Two things cannot be caught: a mapped file that another process cuts short (SIGBUS;
 *   DF11_OPEN_READ avoids mapping), and a process that has no memory left at all for small
 *   allocations, which Rust's runtime ends. A write past RLIMIT_FSIZE is an error (EFBIG) and no
 *   signal. What a model can make the library allocate is bounded by its headers, tables, positions
 *   and config: a header takes at most eight times its size, a config.json (of at most 4 MB) four
 *   times. Any files of less than 10 MB are opened or refused within 200 MB and two seconds.
 *
 * TRUST
 *   A model is a download. df11_model_open() checks everything that can be told without decoding.
 *   df11_model_decompress() never reads or writes outside its buffers, whatever the codes say, and
 *   reports codes that contradict the tables. DF11_OPEN_VERIFY walks every code. None of this is a
 *   hash: a change that leaves valid codes gives other weights. A range of a damaged group that was
 *   not verified may decode without an error, to other weights than the whole group gives.
 *   df11_verify_model() compares hashes if the files have some, and every bit if there is an
 *   original. On a device, too, nothing outside the image is read and nothing outside the
 *   destination is written, whatever file or image say; d_status tells what a kernel notices, which
 *   is gross damage: of single changed bytes among the codes eight in ten go unseen.
 *
 * STRUCTS
 *   Options and infos begin with struct_size. Initialise them with their _INIT macro, so that old
 *   programs work with new libraries and the other way round. Fields of options that a library does
 *   not know must be zero, or it refuses the options (DF11_UNSUPPORTED_OPTION). Fields of an info
 *   that it does not know, it clears. A struct_size smaller than the first version's or larger than
 *   4096 is refused (DF11_INVALID_ARGUMENT), and nothing else of that struct is read or written.
 */
#ifndef DF11_H
#define DF11_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ============================================================================================== */
/* 1. VERSION                                                                                     */
/* ============================================================================================== */

/** The version of this header; df11_version_number() is that of the library. */
#define DF11_VERSION_NUMBER 100
#define DF11_VERSION_MAJOR 0
#define DF11_VERSION_MINOR 1
#define DF11_VERSION_PATCH 0

/**
 * Returns the version of the library that is running, as major * 10000 + minor * 100 + patch.
 * DF11_VERSION_NUMBER is that of the header that a program was compiled with. Before 1.0 the two
 * must agree in major and minor.
 */
uint32_t df11_version_number(void);

/** Returns the version of the library that is running, such as "0.1.0". The text is static. */
const char *df11_version_string(void);

/* ============================================================================================== */
/* 2. STATUSES AND ERRORS                                                                         */
/* ============================================================================================== */

/**
 * The result of a call. 0 is success. 1 to 99 are the caller's mistakes, 100 to 199 come from
 * files and the operating system, 200 to 299 from the device, 900 to 999 from the library.
 * Numbers are never reused. Newer versions may return new ones: treat an unknown status by its
 * range. df11_status_name() gives the name of each.
 */
typedef int32_t df11_status;

/**
 * The error of a call, in memory that you provide: 512 bytes, a layout that never changes. Every
 * call that takes one writes it; after success it holds DF11_OK and an empty message.
 */
typedef struct df11_error {
    /** The status that the call returned. */
    df11_status status;
    /** The number that the system below gave: an errno, a CUresult, or 0. */
    int32_t native_code;
    /**
     * One sentence in UTF-8 that ends in a zero byte. It names the file, the tensor and the byte
     * in the file where they are known. Text that does not fit is cut between characters.
     */
    char message[504];
} df11_error;

/** The call succeeded. */
#define DF11_OK 0

/** An argument is NULL or out of range, or it contradicts another one. */
#define DF11_INVALID_ARGUMENT 1

/** There is no group, tensor or preset of that name or number. */
#define DF11_NOT_FOUND 2

/** A buffer holds fewer bytes than the result takes. */
#define DF11_BUFFER_TOO_SMALL 3

/** An address is not aligned as the function requires. */
#define DF11_MISALIGNED 4

/** This version does not know an option, or a field of a newer options struct. */
#define DF11_UNSUPPORTED_OPTION 5

/** The caller cancelled the call. */
#define DF11_CANCELLED 6

/** The stream is NULL, and the device was not opened to allow that. */
#define DF11_DEFAULT_STREAM 7

/** A file or folder of that name exists, and the caller did not ask to overwrite it. */
#define DF11_EXISTS 8

/** An earlier run left unfinished work there: resume it, or write elsewhere. */
#define DF11_UNFINISHED 9

/** Another process is writing there. */
#define DF11_BUSY 10

/** The operating system refused to open, read, map or write; native_code is its errno. */
#define DF11_IO 100

/** The file is no safetensors file, or it is no DF11 model. */
#define DF11_INVALID_FORMAT 101

/** The DF11 model is of a kind that this version cannot decode. */
#define DF11_UNSUPPORTED_FORMAT 102

/** Parts of the DF11 model contradict each other. */
#define DF11_CORRUPT 103

/** There is no usable CUDA driver. */
#define DF11_NO_DRIVER 200

/** There is no kernel for this device. */
#define DF11_NO_KERNEL 201

/** A CUDA call failed; native_code is its CUresult. */
#define DF11_CUDA 202

/** The call is not allowed while a stream is being captured. */
#define DF11_CAPTURING 203

/** A handle belongs to another device or context. */
#define DF11_WRONG_DEVICE 204

/** The memory that the call needs could not be allocated. */
#define DF11_OUT_OF_MEMORY 900

/** The library has a bug. The message says where; please report it. */
#define DF11_INTERNAL 999

/**
 * Returns the name of a status in capitals without its prefix, such as "CORRUPT", or "UNKNOWN" for
 * a number that this version does not have. The text is static.
 */
const char *df11_status_name(df11_status status);

/* ============================================================================================== */
/* 3. LOG                                                                                         */
/* ============================================================================================== */

/** No log at all: the state in which the library starts. */
#define DF11_LOG_OFF 0

/** Something went wrong that no call returns. */
#define DF11_LOG_ERROR 1

/** A call succeeded, and a person should know something about it. */
#define DF11_LOG_WARN 2

/** What was done. */
#define DF11_LOG_INFO 3

/** What may help to find a mistake. The errors that calls return are logged here, not above. */
#define DF11_LOG_DEBUG 4

/** Everything. */
#define DF11_LOG_TRACE 5

/**
 * Receives the log: `user` as given to df11_log_set(), a level (DF11_LOG_ERROR to DF11_LOG_TRACE),
 * and one line of UTF-8 that ends in a zero byte; `length` counts its bytes without that zero. The
 * text is valid during the call only. The callback runs on whatever thread has something to say,
 * on several at once. It must neither call this library nor unwind.
 */
typedef void (*df11_log_fn)(void *user, int32_t level, const char *message, size_t length);

/**
 * Sends the log of the whole process to a callback. The library starts silent; NULL or
 * DF11_LOG_OFF makes it silent again. `max_level` is clamped to DF11_LOG_OFF … DF11_LOG_TRACE.
 * When this returns, the previous callback is no longer running and will not be called; its `user`
 * may be freed. Do not call this from a callback of the log.
 *
 * Requires: `callback` and `user` can be used from any thread until they are replaced.
 */
void df11_log_set(df11_log_fn callback, int32_t max_level, void *user);

/* ============================================================================================== */
/* 4. PROGRESS: what long calls are given                                                         */
/* ============================================================================================== */

/**
 * The progress of a long call. Give it to the call in its options; any thread may then ask how far
 * the call is, and cancel it. It serves one call at a time. A new call begins at 0 again, but a
 * progress that was cancelled stays cancelled.
 */
typedef struct df11_progress df11_progress;

/**
 * Called with the progress of a long call: `user` as given, and the bytes of its work that are done
 * and that there are (0: not known yet). Any result but 0 cancels the call. It runs on whatever
 * thread of the call has just done something, and never twice at a time: at the beginning, when the
 * amount of work is known, at the end of a call that no error cuts short, and in between at most 20
 * times a second. It must not unwind. The threads that the library starts have stacks of 256 KiB.
 */
typedef int32_t (*df11_progress_fn)(void *user, uint64_t done, uint64_t total);

/**
 * Makes a progress, at 0 of 0 bytes. Give `*out` to df11_progress_free(). After an error it is
 * NULL.
 */
df11_status df11_progress_new(df11_progress **out, df11_error *error);

/**
 * Frees a progress, from any thread. NULL is allowed.
 *
 * Requires: No call uses `progress` any more.
 */
void df11_progress_free(df11_progress *progress);

/**
 * Reads the bytes of work that are done and that there are, from any thread: 0 of 0 before the call
 * knows, and for NULL. `done` and `total` may be NULL.
 */
void df11_progress_get(const df11_progress *progress, uint64_t *done, uint64_t *total);

/**
 * Cancels the call that the progress was given to, from any thread: the call returns DF11_CANCELLED
 * after at most 100 ms of a processor's time for each of its threads, whatever it is at, if the
 * disk does not keep it waiting. A call that begins later returns it at once. Cancelling cannot be
 * undone. NULL is allowed.
 */
void df11_progress_cancel(df11_progress *progress);

/* ============================================================================================== */
/* 5. MODELS: open and look                                                                       */
/* ============================================================================================== */

/**
 * Verify while opening: walk every code of every group, so that decoding is known to find no error.
 * This takes somewhat longer than decoding the model; see df11_open_options.threads.
 */
#define DF11_OPEN_VERIFY 1

/**
 * Read the files piece by piece instead of mapping them. A mapped file that another process cuts
 * short ends this process with SIGBUS; a file that is read gives an error. `data` pointers are then
 * NULL. Files are opened when they are read; at most 128 are kept open, or a quarter of the soft
 * limit on descriptors, for all models together. A file that has another device, inode, size or
 * time when it is opened again is DF11_CORRUPT. Give this where mapping fails, too.
 */
#define DF11_OPEN_READ 2

/** Accept a version of the compressor that this library does not know. */
#define DF11_OPEN_ANY_VERSION 4

/**
 * Leave shapes unknown that nobody says, even those that follow from the config and the plain
 * tensors with certainty (DF11_SHAPE_DERIVED).
 */
#define DF11_OPEN_NO_DERIVED_SHAPES 8

/** An open model. It never changes: any number of threads may use it at once. */
typedef struct df11_model df11_model;

/** How to open a model. Begin with DF11_OPEN_OPTIONS_INIT. */
typedef struct df11_open_options {
    /** sizeof(df11_open_options) */
    size_t struct_size;
    /** DF11_OPEN_* joined by | */
    uint32_t flags;
    /** Threads for DF11_OPEN_VERIFY, the calling one among them; 0 means 1. */
    uint32_t threads;
    /**
     * NULL, or the text of a config.json to use instead of the model's own, in UTF-8 and ended by a
     * zero byte. It is for a file that comes without one: the config's pattern_dict says what the
     * tensors inside a group are called. It is read during the call only.
     */
    const char *config_json;
    /**
     * NULL, or a progress that counts the bytes of DF11_OPEN_VERIFY (two for each weight) and can
     * cancel the call at any time.
     */
    df11_progress *progress;
    /**
     * NULL, or the path of a folder or file that has the shapes of tensors in groups which the
     * model's files do not say: the original or other .safetensors files, of which only the headers
     * are read and need be there, or a .json file of the kind that `shapes_json` is. Names that the
     * model lacks are ignored. It is read during the call only.
     */
    const char *shapes_from;
    /**
     * NULL, or the same as a text in UTF-8 that a zero byte ends: a JSON object from names of
     * tensors to lists of dimensions, as {"lm_head.weight": [151936, 4096]}. It comes before
     * `shapes_from`.
     */
    const char *shapes_json;
} df11_open_options;

/** Initialises a df11_open_options: every field but struct_size is 0 or NULL. */
#define DF11_OPEN_OPTIONS_INIT { sizeof(df11_open_options), 0, 0, NULL, NULL, NULL, NULL }

/**
 * Opens a model: a folder in Hugging Face layout, or one .safetensors file. Of a folder every
 * *.safetensors file is opened, whatever an index lists. The config is config.json in the folder or
 * next to the file; NAME.config.json next to NAME.safetensors comes before it. Headers, tables and
 * positions are read and checked, but no weights, so that this copies nothing and takes
 * milliseconds for the models that compressors write, and at most two seconds and 200 MB for any
 * files of less than 10 MB. A folder or file without compressed groups opens too, as a model of
 * plain tensors.
 *
 * `path` is UTF-8 (on Unix any bytes) and ends in a zero byte. `options` may be NULL. On success
 * `*out` is the model, to be given to df11_model_free(); otherwise it is NULL.
 *
 * Errors: DF11_IO; DF11_INVALID_FORMAT, DF11_UNSUPPORTED_FORMAT and DF11_CORRUPT for a file that
 * cannot be trusted; DF11_UNSUPPORTED_OPTION, DF11_INVALID_ARGUMENT, DF11_CANCELLED,
 * DF11_OUT_OF_MEMORY.
 *
 * Requires: The files do not change while the model is open, unless DF11_OPEN_READ is given.
 */
df11_status df11_model_open(const char *path,
                            const df11_open_options *options,
                            df11_model **out,
                            df11_error *error);

/**
 * Opens the bytes of one .safetensors file that are in memory: `data_bytes` bytes at `data`. They
 * are not copied. There is no config.json next to them; see df11_open_options.config_json. All else
 * is as for df11_model_open().
 *
 * Requires: `data_bytes` bytes can be read at `data`, and do not change, until the model is freed.
 */
df11_status df11_model_open_memory(const void *data,
                                   size_t data_bytes,
                                   const df11_open_options *options,
                                   df11_model **out,
                                   df11_error *error);

/**
 * Frees a model, from any thread. NULL is allowed. Its names, shapes and data go with it.
 *
 * Requires: No call uses `model` any more, and no upload without staging memory still copies from
 * it.
 */
void df11_model_free(df11_model *model);

/**
 * Returns the number of groups; 0 for NULL. Groups are numbered from 0 in the natural order of
 * their names.
 */
uint64_t df11_model_group_count(const df11_model *model);

/**
 * Returns the number of tensors; 0 for NULL. Tensors are numbered from 0: those of group 0 in the
 * order of their weights, those of group 1, and so on, each by the first group that has a part of
 * it; then the plain ones.
 */
uint64_t df11_model_tensor_count(const df11_model *model);

/**
 * Returns the whole text of the config.json that the model was opened with, its own or the one in
 * df11_open_options; NULL if there is none, and for NULL. It ends in a zero byte, belongs to the
 * model, and has keys that this library does not read. `*text_bytes` is its size without the zero
 * byte, or 0; `text_bytes` may be NULL.
 */
const char *df11_model_config_text(const df11_model *model, uint64_t *text_bytes);

/** The `first_tensor` of a group whose tensors do not follow each other. */
#define DF11_NO_TENSOR UINT64_MAX

/** The look-up rows, then the row of code lengths: 256 bytes each. */
#define DF11_PART_LUTS 0

/** The Huffman-coded exponents. */
#define DF11_PART_ENCODED_EXPONENT 1

/** One byte per weight: its sign in bit 7, its mantissa below. */
#define DF11_PART_SIGN_MANTISSA 2

/**
 * A little-endian uint32 per block of 4096 code bytes: its first weight; then the number of
 * weights.
 */
#define DF11_PART_OUTPUT_POSITIONS 3

/** Five bits per 8 code bytes: the bit at which the first code that starts there begins. */
#define DF11_PART_GAPS 4

/** A little-endian int64 per tensor but the last: the weights up to its end. */
#define DF11_PART_SPLIT_POSITIONS 5

/** A group. Begin with DF11_GROUP_INFO_INIT. */
typedef struct df11_group_info {
    /** sizeof(df11_group_info) */
    size_t struct_size;
    /** The module's full name, such as "model.layers.0". It belongs to the model. */
    const char *name;
    /** The weights in all its tensors, 2 bytes each when decoded. */
    uint64_t element_count;
    /**
     * The tensors in it. By the extension of the format it may hold runs of larger tensors: each
     * counts.
     */
    uint64_t tensor_count;
    /**
     * The number of its first tensor; the others follow, in the order of their weights.
     * DF11_NO_TENSOR if they do not, because runs of them are in other groups too;
     * df11_model_get_group_run() has the tensor of each in any case.
     */
    uint64_t first_tensor;
    /** Bytes of its six parts in the files. */
    uint64_t packed_bytes;
    /**
     * Bytes of its image (df11_model_write_image()), a multiple of 256: about 10.8 bits a weight.
     * 0 if the group cannot be decoded on a device, because its tables have more code words than a
     * device's. No known compressor writes such groups.
     */
    uint64_t image_bytes;
    /**
     * 1 if it is an extension of the format, whose tensors the file's metadata names
     * ("df11.groups"): programs that know only DF11 do not find its weights. Otherwise 0.
     */
    uint64_t extended;
} df11_group_info;

/** Initialises a df11_group_info: every field but struct_size is 0 or NULL. */
#define DF11_GROUP_INFO_INIT { sizeof(df11_group_info), NULL, 0, 0, 0, 0, 0, 0 }

/**
 * A run: elements of a tensor, one after the other, that are weights of a group, one after the
 * other. Begin with DF11_RUN_INFO_INIT.
 */
typedef struct df11_run_info {
    /** sizeof(df11_run_info) */
    size_t struct_size;
    /** The number of the tensor. */
    uint64_t tensor;
    /** The tensor's elements before the run. */
    uint64_t tensor_offset;
    /** The number of the group. */
    uint64_t group;
    /** The group's weights before the run. */
    uint64_t group_offset;
    /** Elements of the run. */
    uint64_t element_count;
} df11_run_info;

/** Initialises a df11_run_info: every field but struct_size is 0 or NULL. */
#define DF11_RUN_INFO_INIT { sizeof(df11_run_info), 0, 0, 0, 0, 0 }

/** A part of a group in its file. Begin with DF11_PART_INFO_INIT. */
typedef struct df11_part_info {
    /** sizeof(df11_part_info) */
    size_t struct_size;
    /**
     * The path of the file, on Unix any bytes; "memory" for a model opened from memory. It belongs
     * to the model.
     */
    const char *file;
    /** The byte of that file at which the part begins. */
    uint64_t file_offset;
    /** Bytes of the part. */
    uint64_t data_bytes;
    /**
     * The part in the file's memory, with no alignment; NULL with DF11_OPEN_READ. It belongs to the
     * model.
     */
    const void *data;
} df11_part_info;

/** Initialises a df11_part_info: every field but struct_size is 0 or NULL. */
#define DF11_PART_INFO_INIT { sizeof(df11_part_info), NULL, 0, 0, NULL }

/**
 * Describes a group. After an error `*out` is cleared except for its struct_size; if that is wrong,
 * `*out` is left alone.
 *
 * Errors: DF11_NOT_FOUND if there is no such group; DF11_INVALID_ARGUMENT.
 */
df11_status df11_model_get_group_info(const df11_model *model,
                                      uint64_t group,
                                      df11_group_info *out,
                                      df11_error *error);

/**
 * Describes a run of a group: number `run` of its `tensor_count`, in the order of its weights.
 * After an error `*out` is cleared except for its struct_size; if that is wrong, `*out` is left
 * alone.
 *
 * Errors: DF11_NOT_FOUND if there is no such group or run; DF11_INVALID_ARGUMENT.
 */
df11_status df11_model_get_group_run(const df11_model *model,
                                     uint64_t group,
                                     uint64_t run,
                                     df11_run_info *out,
                                     df11_error *error);

/**
 * Says where a part of a group (DF11_PART_*) is stored, for programs that read files by themselves.
 * After an error `*out` is cleared except for its struct_size; if that is wrong, `*out` is left
 * alone.
 *
 * Errors: DF11_NOT_FOUND if there is no such group or part; DF11_INVALID_ARGUMENT.
 */
df11_status df11_model_get_group_part(const df11_model *model,
                                      uint64_t group,
                                      uint32_t part,
                                      df11_part_info *out,
                                      df11_error *error);

/**
 * Finds a group by its full name. `*out` is its number, or 0 after an error.
 *
 * Errors: DF11_NOT_FOUND; DF11_INVALID_ARGUMENT.
 */
df11_status df11_model_find_group(const df11_model *model,
                                  const char *name,
                                  uint64_t *out,
                                  df11_error *error);

/** The `group` of a tensor that is in none. */
#define DF11_NO_GROUP UINT64_MAX

/** A type of elements that this version does not know. */
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

/** 8-bit float: 5 exponent and 2 mantissa bits */
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

/** Complex number of two singles */
#define DF11_DTYPE_C64 20

/** As F8_E4M3, without infinities and negative zero */
#define DF11_DTYPE_F8_E4M3FNUZ 21

/** As F8_E5M2, without infinities and negative zero */
#define DF11_DTYPE_F8_E5M2FNUZ 22

/** Nothing says the tensor's dimensions: its one dimension is its number of weights. */
#define DF11_SHAPE_UNKNOWN 0

/** The dimensions are in the model's files, as for every plain tensor. */
#define DF11_SHAPE_STORED 1

/** The dimensions are those that df11_open_options gives. */
#define DF11_SHAPE_GIVEN 2

/** The dimensions follow from the config and the plain tensors with certainty. */
#define DF11_SHAPE_DERIVED 3

/** A tensor. Begin with DF11_TENSOR_INFO_INIT. */
typedef struct df11_tensor_info {
    /** sizeof(df11_tensor_info) */
    size_t struct_size;
    /** Its full name. It belongs to the model. */
    const char *name;
    /** The type of its elements (DF11_DTYPE_*): DF11_DTYPE_BF16 for every tensor in a group. */
    uint32_t dtype;
    /**
     * The number of its dimensions. DF11 does not store the shapes of compressed tensors: see
     * `shape_known`.
     */
    uint32_t rank;
    /**
     * Its `rank` dimensions in elements, the last one contiguous; NULL if there are none. They
     * belong to the model.
     */
    const uint64_t *shape;
    /** Bytes of its values, decoded. */
    uint64_t data_bytes;
    /**
     * The number of the group that its first element is in, or DF11_NO_GROUP for a plain tensor. If
     * `run_count` is above 1, others of its elements are in other groups.
     */
    uint64_t group;
    /** Its first weight in that group, in elements; 0 for a plain tensor. */
    uint64_t group_offset;
    /**
     * The values of a plain tensor in the file's memory, with no alignment; NULL for a tensor in a
     * group, and with DF11_OPEN_READ. They belong to the model.
     */
    const void *data;
    /**
     * The path of the file that holds the values of a plain tensor, as in df11_part_info, for
     * programs that read files by themselves; NULL for a tensor in a group, whose parts
     * df11_model_get_group_part() describes. It belongs to the model.
     */
    const char *file;
    /** The byte of that file at which the values begin. */
    uint64_t file_offset;
    /**
     * Where its dimensions come from (DF11_SHAPE_*). DF11_SHAPE_UNKNOWN is 0: it then has one
     * dimension, its number of weights.
     */
    uint32_t shape_known;
    /** 0 */
    uint32_t reserved;
    /**
     * The number of its runs (df11_run_info): 0 for a plain tensor, 1 for one that is whole in a
     * group. Only groups by the extension of the format have tensors of several.
     */
    uint64_t run_count;
} df11_tensor_info;

/** Initialises a df11_tensor_info: every field but struct_size is 0 or NULL. */
#define DF11_TENSOR_INFO_INIT \
    { sizeof(df11_tensor_info), NULL, 0, 0, NULL, 0, 0, 0, NULL, NULL, 0, 0, 0, 0 }

/**
 * Describes a tensor. After an error `*out` is cleared except for its struct_size; if that is
 * wrong, `*out` is left alone.
 *
 * Errors: DF11_NOT_FOUND if there is no such tensor; DF11_INVALID_ARGUMENT.
 */
df11_status df11_model_get_tensor_info(const df11_model *model,
                                       uint64_t tensor,
                                       df11_tensor_info *out,
                                       df11_error *error);

/**
 * Describes a run of a tensor: number `run` of its `run_count`, in the order of its elements. So a
 * tensor in several groups is found in all of them; df11_model_read_tensor() does that by itself.
 * After an error `*out` is cleared except for its struct_size; if that is wrong, `*out` is left
 * alone.
 *
 * Errors: DF11_NOT_FOUND if there is no such tensor or run; DF11_INVALID_ARGUMENT.
 */
df11_status df11_model_get_tensor_run(const df11_model *model,
                                      uint64_t tensor,
                                      uint64_t run,
                                      df11_run_info *out,
                                      df11_error *error);

/**
 * Finds a tensor by its full name. `*out` is its number, or 0 after an error.
 *
 * Errors: DF11_NOT_FOUND; DF11_INVALID_ARGUMENT.
 */
df11_status df11_model_find_tensor(const df11_model *model,
                                   const char *name,
                                   uint64_t *out,
                                   df11_error *error);

/**
 * Returns the name of a type of elements (DF11_DTYPE_*) as safetensors files spell it, such as
 * "BF16"; "UNKNOWN" for any other number. The text is static.
 */
const char *df11_dtype_name(uint32_t dtype);

/**
 * Returns the bytes of an element of a type (DF11_DTYPE_*); 0 for DF11_DTYPE_UNKNOWN, any other
 * number, and the types whose elements are no whole number of bytes: the `data_bytes` of such a
 * tensor say how many it has.
 */
size_t df11_dtype_bytes(uint32_t dtype);

/* ============================================================================================== */
/* 6. CPU: decode                                                                                 */
/* ============================================================================================== */

/**
 * Decodes `count` weights of a group on the CPU, from its weight `first` on (both in elements),
 * into `dst`: bf16 bits in the processor's byte order, 2 bytes each.
 *
 * `dst` is a buffer that you provide, aligned to 2 bytes (64 is fastest), of `dst_bytes` bytes, at
 * least 2 * count. `threads` threads work, the calling one among them; 0 means 1. They end before
 * the call returns. Fewer work where there is too little to do. The call allocates 18 KiB once for
 * each group, and less than 1 MB for each thread while it runs. Calls from several threads may
 * overlap, on one group too.
 *
 * Large buffers may be written faster in huge pages, which Linux gives on request (madvise() with
 * MADV_HUGEPAGE, before they are first written). On an AMD EPYC, 140 MB of weights were decoded 8 %
 * faster, and 28 % while other cores were busy; 23 MB were not.
 *
 * A range may begin anywhere. Decoding of fewer than 32,768 weights begins at a gap that the file
 * records near there, so damage near it can give other weights without an error. Larger ranges
 * begin at a block, whose codes must end where those of the next one begin. DF11_OPEN_VERIFY finds
 * all that contradicts the tables.
 *
 * The call has no options, so that it costs nothing, and takes no progress. To be able to stop in
 * between, decode several ranges: those of 2^24 weights take a core some 20 ms each, and are as
 * fast as the whole.
 *
 * Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT (a range outside the group),
 * DF11_BUFFER_TOO_SMALL, DF11_MISALIGNED; DF11_CORRUPT if the codes contradict the tables or a file
 * has become shorter; DF11_IO with DF11_OPEN_READ. After the last two the content of `dst` is
 * undefined.
 *
 * Requires: Nobody else uses `dst` during the call.
 */
df11_status df11_model_decompress(const df11_model *model,
                                  uint64_t group,
                                  uint64_t first,
                                  uint64_t count,
                                  void *dst,
                                  size_t dst_bytes,
                                  uint32_t threads,
                                  df11_error *error);

/**
 * Copies or decodes bytes of any tensor: `dst_bytes` bytes of its values, from their byte `offset`
 * on, to `dst`. For a tensor in a group both numbers must be even, and `dst` aligned to 2 bytes.
 * `threads` and all else are as for df11_model_decompress().
 *
 * Errors: DF11_NOT_FOUND (no such tensor), DF11_INVALID_ARGUMENT (bytes outside the tensor, or half
 * a weight), DF11_MISALIGNED, DF11_CORRUPT, DF11_IO.
 *
 * Requires: Nobody else uses `dst` during the call.
 */
df11_status df11_model_read_tensor(const df11_model *model,
                                   uint64_t tensor,
                                   uint64_t offset,
                                   void *dst,
                                   size_t dst_bytes,
                                   uint32_t threads,
                                   df11_error *error);

/* ============================================================================================== */
/* 7. CPU: matrices to multiply with                                                              */
/* ============================================================================================== */

/** The first byte of a matrix is at a multiple of this address. */
#define DF11_MATRIX_ALIGNMENT 64

/**
 * An order of sums, the same on every processor: 32 sums in f32, where sum j takes the products of
 * columns j, j + 32, j + 64 and so on, each by a fused multiply-add. Columns that are missing from
 * the last 32 count as zeros. In the end sum j takes sum j + 16, for each j below 16; then j + 8,
 * j + 4, j + 2 and j + 1 likewise; sum 0 is the result.
 */
#define DF11_ORDER_LANES 0

/**
 * An order of sums, that of ggml's ggml_vec_dot_bf16() where it is compiled for AVX2 and FMA: as
 * DF11_ORDER_LANES, except that the columns after the last multiple of 32 are multiplied in f32 and
 * added in f64. For x of bf16.
 */
#define DF11_ORDER_GGML_AVX2 1

/**
 * An order of sums, that of ggml_vec_dot_bf16() where it is compiled for AVX-512 without BF16: as
 * DF11_ORDER_GGML_AVX2, except that sums 0 to 15 and sums 16 to 31 are added up apart, and their
 * results in f64. For x of bf16.
 */
#define DF11_ORDER_GGML_AVX512 2

/**
 * An order of sums, that of ggml_vec_dot_bf16() where it is compiled for AVX-512 with BF16: sum j
 * takes the products of columns 2j + 1 and 2j (in this order), 2j + 65 and 2j + 64 and so on, as
 * the instruction vdpbf16ps does it: by fused multiply-adds, with subnormal numbers as zeros. The
 * 32 sums are added up as in DF11_ORDER_GGML_AVX512; columns after the last multiple of 64 follow
 * in f64. For x of bf16.
 */
#define DF11_ORDER_GGML_AVX512_BF16 3

/**
 * A matrix of bf16 weights at about 12 bits each, in memory that you provide. Products with it have
 * the bits of products with plain bf16 rows in the same order of sums, and take less time, because
 * they wait for fewer bytes. It never changes: any number of threads may use it at once.
 */
typedef struct df11_matrix df11_matrix;

/** A matrix. Begin with DF11_MATRIX_INFO_INIT. */
typedef struct df11_matrix_info {
    /** sizeof(df11_matrix_info) */
    size_t struct_size;
    /** Its rows. */
    uint64_t row_count;
    /** Its columns. */
    uint64_t column_count;
    /** Bytes of the whole matrix. */
    uint64_t matrix_bytes;
    /** Weights whose exponents are rare, and take a byte more. */
    uint64_t escape_count;
} df11_matrix_info;

/** Initialises a df11_matrix_info: every field but struct_size is 0 or NULL. */
#define DF11_MATRIX_INFO_INIT { sizeof(df11_matrix_info), 0, 0, 0, 0 }

/**
 * Says how many bytes a matrix takes at most: `*matrix_bytes` bytes, two and a half for each
 * weight. Matrices of trained weights take six tenths of that, which is known once they are made:
 * reserve address space for the bound (pages that are never written to take no memory), or make the
 * matrix in one buffer and copy it.
 *
 * Errors: DF11_INVALID_ARGUMENT if there are no weights, or 2^48 and more.
 */
df11_status df11_matrix_bound(uint64_t row_count,
                              uint64_t column_count,
                              uint64_t *matrix_bytes,
                              df11_error *error);

/**
 * Makes a matrix of `row_count` rows of `column_count` bf16 weights, one row after the other at
 * `weights` (aligned to 2 bytes), and writes it to `dst`, a buffer of `dst_bytes` bytes that you
 * provide, aligned to DF11_MATRIX_ALIGNMENT. `*matrix_bytes` is how many it has used;
 * df11_matrix_bound() are always enough. Give these bytes to df11_matrix_bind(). They depend on the
 * weights alone; every weight comes back with all its bits, infinities and NaNs too.
 *
 * The bytes hold no address: you may move them, keep them in a file or in shared memory, and bind
 * them in other processes, with a library of the same version: this is a format of memory, and not
 * one to exchange models in. `threads` threads work, the calling one among them; 0 means 1. They
 * end before the call returns. Each allocates less than 3 MB, and for rows of more than 2^18
 * weights 5 bytes more for each of them. `progress` is NULL, or counts and cancels the call.
 *
 * Errors: DF11_INVALID_ARGUMENT (no weights, or 2^48 and more), DF11_MISALIGNED;
 * DF11_BUFFER_TOO_SMALL, and then `*matrix_bytes` is the number that is needed, or, if not even the
 * rows fit, the number without rare exponents; DF11_CANCELLED. After an error `dst` holds no
 * matrix.
 *
 * Requires: Nobody else uses `dst` during the call. `weights` and `dst` do not overlap.
 */
df11_status df11_matrix_write(const uint16_t *weights,
                              uint64_t row_count,
                              uint64_t column_count,
                              void *dst,
                              size_t dst_bytes,
                              uint32_t threads,
                              df11_progress *progress,
                              uint64_t *matrix_bytes,
                              df11_error *error);

/**
 * Makes a matrix as df11_matrix_write() does, of a bf16 tensor of a model, plain or compressed: of
 * `row_count` rows from `first_row` on. The tensor is seen as rows of `column_count` weights, one
 * after the other: one of experts, rows and columns (df11_tensor_info.shape) has experts times rows
 * of them. It is decoded in pieces by all threads, so that its weights are never all in memory.
 *
 * Errors: those of df11_matrix_write(); DF11_NOT_FOUND (no such tensor); DF11_INVALID_ARGUMENT for
 * a tensor that is not of bf16, is not whole rows of `column_count`, or has no such rows;
 * DF11_CORRUPT, DF11_IO. After an error `dst` holds no matrix.
 *
 * Requires: Nobody else uses `dst` during the call.
 */
df11_status df11_model_write_matrix(const df11_model *model,
                                    uint64_t tensor,
                                    uint64_t column_count,
                                    uint64_t first_row,
                                    uint64_t row_count,
                                    void *dst,
                                    size_t dst_bytes,
                                    uint32_t threads,
                                    df11_progress *progress,
                                    uint64_t *matrix_bytes,
                                    df11_error *error);

/**
 * Takes a matrix where it is: `data_bytes` bytes at `data`, aligned to DF11_MATRIX_ALIGNMENT, that
 * df11_matrix_write() or df11_model_write_matrix() has written, wherever they have been since. It
 * checks that no call can be led outside them. Weights are not checked: other bytes are other
 * weights. More bytes than the matrix has are allowed.
 *
 * On success `*out` is the matrix, to be given to df11_matrix_free(); otherwise it is NULL.
 *
 * Errors: DF11_MISALIGNED; DF11_INVALID_FORMAT if the bytes are no matrix of this library's
 * version, or fewer than it has; DF11_INVALID_ARGUMENT.
 *
 * Requires: The bytes stay, and nobody changes them, until the matrix is freed.
 */
df11_status df11_matrix_bind(const void *data,
                             size_t data_bytes,
                             df11_matrix **out,
                             df11_error *error);

/**
 * Frees a matrix, and leaves its bytes alone. NULL is allowed.
 *
 * Requires: No call uses `matrix` any more.
 */
void df11_matrix_free(df11_matrix *matrix);

/**
 * Describes a matrix. After an error `*out` is cleared except for its struct_size; if that is
 * wrong, `*out` is left alone.
 *
 * Errors: DF11_INVALID_ARGUMENT.
 */
df11_status df11_matrix_get_info(const df11_matrix *matrix,
                                 df11_matrix_info *out,
                                 df11_error *error);

/**
 * Decodes `count` weights from weight `first` on (both in elements), to `dst`: bf16 bits in the
 * processor's byte order, 2 bytes each. Row r begins at weight r * column_count. The calling thread
 * works, and nothing is allocated; calls from several threads may overlap. `dst` is a buffer that
 * you provide, aligned to 2 bytes (64, with rows of a multiple of 32 weights, is fastest), of
 * `dst_bytes` bytes, at least 2 * count.
 *
 * Errors: DF11_INVALID_ARGUMENT (a range outside the matrix), DF11_BUFFER_TOO_SMALL,
 * DF11_MISALIGNED.
 *
 * Requires: Nobody else uses `dst` during the call.
 */
df11_status df11_matrix_decompress(const df11_matrix *matrix,
                                   uint64_t first,
                                   uint64_t count,
                                   void *dst,
                                   size_t dst_bytes,
                                   df11_error *error);

/**
 * Multiplies `row_count` rows, from `first_row` on, with `vector_count` vectors x: for each vector
 * v and each row r, y[v * y_stride + r - first_row] becomes the sum over all columns k of weight
 * (r, k) times x[v * x_stride + k]. `x_dtype` is DF11_DTYPE_F32 or DF11_DTYPE_BF16; `y` is f32,
 * aligned to 4 bytes. Both strides are in elements, and mean nothing for one vector. The sums have
 * the order `order` (DF11_ORDER_*), so that they do not depend on the instructions that the
 * processor has, on the rows of a call or on the number of vectors: df11_matrix_decompress() and a
 * plain product in that order give the same bits. (NaNs may differ in their bits.)
 *
 * The calling thread works, and nothing is allocated: call it from threads of your own, each with
 * rows of its own. One vector is the fast case: it waits for memory. Every further vector costs the
 * arithmetic only; beyond some 64, decode rows to a buffer that stays in the cache, and multiply
 * them with a kernel for matrices.
 *
 * Errors: DF11_INVALID_ARGUMENT (rows outside the matrix, no such type or order, an order of ggml
 * with x of f32, `y_stride` below `row_count`), DF11_MISALIGNED.
 *
 * Requires: x has column_count elements at each multiple of its stride, y has `row_count`. `x` and
 * `y` do not overlap, and nobody else uses these elements of `y` during the call.
 */
df11_status df11_matrix_multiply(const df11_matrix *matrix,
                                 uint64_t first_row,
                                 uint64_t row_count,
                                 const void *x,
                                 uint32_t x_dtype,
                                 uint64_t x_stride,
                                 uint64_t vector_count,
                                 uint32_t order,
                                 float *y,
                                 uint64_t y_stride,
                                 df11_error *error);

/* ============================================================================================== */
/* 8. CUDA: devices                                                                               */
/* ============================================================================================== */

/**
 * Accept the NULL stream, which is the context's legacy stream. (A program that was compiled for
 * per-thread default streams passes CU_STREAM_PER_THREAD, 0x2. That one is always accepted, and so
 * is CU_STREAM_LEGACY, 0x1.) NULL is refused otherwise, because non-blocking streams, which engines
 * use, are not ordered with it.
 */
#define DF11_DEVICE_ALLOW_DEFAULT_STREAM 1

/**
 * Let the driver compile the kernels' PTX even if there is a binary for the device: to test the
 * PTX.
 */
#define DF11_DEVICE_FORCE_PTX 2

/**
 * Let decodes start before the kernel before them in the stream has ended (programmatic dependent
 * launch). They read the image at once, and wait for that kernel before they write anything. It
 * saves the time in which a launch begins: of some use for groups of few million weights. It has an
 * effect on devices of compute capability 9.0 and later with a driver of CUDA 12.3 or later;
 * elsewhere decodes start when they always do. They can be captured.
 *
 * Requires: whenever a decode is put into a stream, the image was complete before the kernel before
 * it began. An upload ends with a kernel: put something else after it, such as an event that you
 * wait for, before the first decode. Otherwise a decode may read what is not written yet and give
 * wrong weights; nothing outside of destination and status is written, whatever it reads.
 */
#define DF11_DEVICE_EARLY_START 4

/** What a stream points to. cuda.h and cuda_runtime_api.h declare it by the same name. */
typedef struct CUstream_st CUstream_st;

/**
 * An open CUDA device, with all kernels loaded. It never changes: any number of threads may use it
 * at once.
 */
typedef struct df11_device df11_device;

/** How to open a device. Begin with DF11_DEVICE_OPTIONS_INIT. */
typedef struct df11_device_options {
    /** sizeof(df11_device_options) */
    size_t struct_size;
    /**
     * DF11_DEVICE_ALLOW_DEFAULT_STREAM, DF11_DEVICE_FORCE_PTX and DF11_DEVICE_EARLY_START joined
     * by |
     */
    uint32_t flags;
    /**
     * The most multiprocessors whose room the kernels of a call take, so that yours find room
     * beside them; 0 for all. It limits how many blocks a call launches; on which multiprocessors
     * they run is the device's choice. Without it, kernels take the room of all multiprocessors of
     * the device, or in a stream of a green context those of the green context. A batch has the
     * limit of its first group's device.
     */
    uint32_t multiprocessors;
    /**
     * The path or name of the CUDA driver's library, ended by a zero byte. NULL means the library
     * that the environment variable DF11_LIBCUDA names, or else the system's (libcuda.so.1). The
     * variable is ignored in programs with more privileges than their caller (set-user-ID, file
     * capabilities). The text is read during the call only.
     */
    const char *libcuda;
} df11_device_options;

/** Initialises a df11_device_options: every field but struct_size is 0 or NULL. */
#define DF11_DEVICE_OPTIONS_INIT { sizeof(df11_device_options), 0, 0, NULL }

/** A device. Begin with DF11_DEVICE_INFO_INIT. The texts belong to the device. */
typedef struct df11_device_info {
    /** sizeof(df11_device_info) */
    size_t struct_size;
    /** Its name. */
    const char *name;
    /**
     * The kernels that run: "sm_90" and the like for a binary, "PTX" if the driver compiled them.
     */
    const char *kernels;
    /** The name by which the driver was loaded. */
    const char *libcuda;
    /** Its number, as the driver counts. */
    int32_t ordinal;
    /** The driver's CUDA version: 12040 is 12.4. */
    int32_t driver_version;
    /** Its compute capability: the 9 of 9.0. */
    uint32_t capability_major;
    /** The 0 of 9.0. */
    uint32_t capability_minor;
    /** Its multiprocessors, whatever the options say. */
    uint32_t multiprocessor_count;
    /** 0 */
    uint32_t reserved;
} df11_device_info;

/** Initialises a df11_device_info: every field but struct_size is 0 or NULL. */
#define DF11_DEVICE_INFO_INIT { sizeof(df11_device_info), NULL, NULL, NULL, 0, 0, 0, 0, 0, 0 }

/**
 * An address in device memory: a CUdeviceptr, which is the same type, or a pointer of the CUDA
 * runtime as a number. 0 is no address.
 */
typedef unsigned long long df11_devptr;

/** Your stream: a CUstream or a cudaStream_t, which are the same type. */
typedef struct CUstream_st *df11_stream;

/**
 * Opens a CUDA device by its number, in its primary context, which is the one that the CUDA runtime
 * uses. The context is retained until the device and all its residents are freed. The call leaves
 * the thread's current context as it was.
 *
 * Everything that may block is done here: the driver's library is loaded, if it was not (it stays
 * loaded), and so is every kernel, so that no later call loads anything. The kernels are loaded
 * once in a process and stay loaded, because captured graphs may hold them. (With a driver that
 * has no cuLibraryLoadData() they are loaded for each device that is opened, and stay until the
 * context ends.) A device that is integrated (Tegra) always gets PTX, which the driver compiles. Do
 * not call this on a thread that captures. Streams that other threads capture are not disturbed,
 * but if one of them is of this context and not non-blocking, the device is not opened
 * (DF11_CAPTURING).
 *
 * `options` may be NULL. On success `*out` is the device, to be given to df11_device_free();
 * otherwise it is NULL.
 *
 * Errors: DF11_NO_DRIVER without a driver of CUDA 12.0 (525) or later, or without a device: the
 * message says what was tried; DF11_INVALID_ARGUMENT for a number that no device has;
 * DF11_NO_KERNEL for a device older than compute capability 7.5, or one for which the driver takes
 * none of the kernels; DF11_CAPTURING, DF11_CUDA, DF11_UNSUPPORTED_OPTION.
 *
 * Requires: df11_device_options.libcuda and DF11_LIBCUDA name a CUDA driver's library, or nothing
 * that exists.
 */
df11_status df11_device_open(int32_t ordinal,
                             const df11_device_options *options,
                             df11_device **out,
                             df11_error *error);

/**
 * Opens the device of the context that is current on this thread, in that context, for engines with
 * contexts of their own. All else is as for df11_device_open(); without a current context the error
 * is DF11_INVALID_ARGUMENT.
 *
 * A green context (see cuCtxFromGreenCtx()) needs a driver of CUDA 12.5. Streams of all green
 * contexts of that device are then accepted, and those of its primary context, as they are by a
 * device that df11_device_open() opened. NULL (if allowed) and CU_STREAM_LEGACY are the default
 * stream of the context that was current.
 *
 * Requires: The context lives until the device and all its residents are freed, and what
 * df11_device_open() requires.
 */
df11_status df11_device_open_current(const df11_device_options *options,
                                     df11_device **out,
                                     df11_error *error);

/**
 * Frees a device, from any thread. NULL is allowed. Its residents may live on: the device is closed
 * with the last of them. Work that is running goes on, and graphs that captured decodes stay valid
 * as long as their context. Nothing is waited for, unless df11_device_open() was the only one to
 * hold the primary context: CUDA then ends that.
 *
 * Requires: No call uses `device` any more.
 */
void df11_device_free(df11_device *device);

/**
 * Describes a device. After an error `*out` is cleared except for its struct_size; if that is
 * wrong, `*out` is left alone.
 *
 * Errors: DF11_INVALID_ARGUMENT.
 */
df11_status df11_device_get_info(const df11_device *device,
                                 df11_device_info *out,
                                 df11_error *error);

/* ============================================================================================== */
/* 9. CUDA: images in host memory                                                                 */
/* ============================================================================================== */

/** The head of no image has more bytes. */
#define DF11_IMAGE_HEAD_BYTES_MAX 82176

/** An image. Begin with DF11_IMAGE_INFO_INIT. */
typedef struct df11_image_info {
    /** sizeof(df11_image_info) */
    size_t struct_size;
    /** Bytes of the whole image. */
    uint64_t image_bytes;
    /** Bytes of its head: its first ones, which df11_device_bind_image() needs in host memory. */
    uint64_t head_bytes;
    /** Weights that it holds. */
    uint64_t element_count;
    /** Tensors of which it holds weights; slices, if it has some. */
    uint64_t tensor_count;
    /**
     * The number of its first weight among those of the group. It holds this one and those that
     * follow. 0 if it holds slices: their weights are numbered from 0.
     */
    uint64_t first_element;
    /** The number of its first tensor among those of the group; 0 if it holds slices. */
    uint64_t first_tensor;
    /** Weights of the whole group. */
    uint64_t group_element_count;
    /** Tensors of the whole group. */
    uint64_t group_tensor_count;
    /** Slices that it holds (df11_shard_write_image()); 0 for a range and for a whole group. */
    uint64_t slice_count;
} df11_image_info;

/** Initialises a df11_image_info: every field but struct_size is 0 or NULL. */
#define DF11_IMAGE_INFO_INIT { sizeof(df11_image_info), 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/**
 * A slice: elements of one of a group's tensors. They are `run_count` runs of `run_elements`
 * elements each: the first run begins at element `first` of the tensor, every other one
 * `run_stride` elements after the one before. Rows are one run; columns are one run of each row.
 * df11_model_get_slices() makes slices of a tensor's dimensions.
 */
typedef struct df11_slice {
    /**
     * The number of the tensor among those of its group: df11_group_info.first_tensor +
     * this is its number in the model.
     */
    uint32_t tensor;
    /**
     * The tensor's elements before the first run. If the group has only a run of the tensor
     * (df11_run_info), they count from there.
     */
    uint32_t first;
    /** Elements of a run. */
    uint32_t run_elements;
    /** Elements from the beginning of a run to that of the next: at least those of a run. */
    uint32_t run_stride;
    /** The number of runs. */
    uint32_t run_count;
} df11_slice;

/**
 * Writes the image of a group to host memory: df11_group_info.image_bytes bytes, which a CUDA
 * device can decode once they are in its memory, at an address that is a multiple of 256. An image
 * holds no address: it may be kept, sent and moved. Its bytes depend on the group alone. No CUDA
 * is needed. Every code is walked, so that what was written decodes.
 *
 * `dst` is a buffer of `dst_bytes` bytes that you provide, with any alignment (64 is fastest),
 * pinned or not; nothing is read from it. One thread works: df11_model_write_image_part() is for
 * callers who have several, or who want to be able to stop between two parts. The call allocates
 * less than 100 KiB, and less than 1 MB with DF11_OPEN_READ.
 *
 * Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL;
 * DF11_CORRUPT if the codes contradict the tables, the positions or the gaps at which blocks
 * begin; DF11_UNSUPPORTED_FORMAT where image_bytes is 0; DF11_IO with DF11_OPEN_READ;
 * DF11_OUT_OF_MEMORY. After an error that is the file's, the first 256 bytes are zeros: no image.
 *
 * Requires: Nobody else uses `dst` during the call.
 */
df11_status df11_model_write_image(const df11_model *model,
                                   uint64_t group,
                                   void *dst,
                                   size_t dst_bytes,
                                   df11_error *error);

/**
 * Writes one of `part_count` parts of an image: `part` is 0, 1, … `part_count` - 1. It is for
 * callers with threads of their own, each of which takes a part. All parts go to the same `dst` of
 * `dst_bytes` bytes, in any order or at once, and no two write the same byte. The bytes are those
 * of df11_model_write_image(), for any number of parts. Part 0 writes the head.
 *
 * If any part fails, there is no image, whatever the others wrote: look at every result before you
 * use the image. (A part that fails clears its share of the index, so that a decode that is
 * started all the same reports DF11_CORRUPT.)
 *
 * Errors: as for df11_model_write_image(); DF11_INVALID_ARGUMENT for a part that is not below
 * `part_count`.
 *
 * Requires: Nobody but calls for other parts uses `dst` during the call.
 */
df11_status df11_model_write_image_part(const df11_model *model,
                                        uint64_t group,
                                        void *dst,
                                        size_t dst_bytes,
                                        uint32_t part,
                                        uint32_t part_count,
                                        df11_error *error);

/**
 * Describes the image of `count` of a group's weights, from its weight `first` on (both in
 * elements), before df11_model_write_image_range() or df11_device_upload_range() makes it:
 * `image_bytes` is what it takes. The codes of one or two blocks are walked, to find the bits at
 * which it begins and ends. Of a whole group it is df11_group_info.image_bytes. After an error
 * `*out` is cleared except for its struct_size; if that is wrong, `*out` is left alone.
 *
 * Errors: DF11_NOT_FOUND (no such group); DF11_INVALID_ARGUMENT for weights outside the group, and
 * for none; DF11_CORRUPT if the codes contradict the positions; DF11_UNSUPPORTED_FORMAT where
 * df11_group_info.image_bytes is 0; DF11_IO with DF11_OPEN_READ; DF11_OUT_OF_MEMORY.
 */
df11_status df11_model_get_image_range_info(const df11_model *model,
                                            uint64_t group,
                                            uint64_t first,
                                            uint64_t count,
                                            df11_image_info *out,
                                            df11_error *error);

/**
 * Writes the image of `count` of a group's weights, from its weight `first` on (both in elements),
 * as df11_model_write_image() writes that of all: a range of rows of a tensor, a tensor or a few,
 * or any other. It is for devices that share the work of a layer, and hold a part of it each. Its
 * head says which weights and tensors it holds. Codes are those of the file, so that of these
 * parts together no more than a few bytes are held twice.
 *
 * Decoding counts as for the whole group: df11_resident_decompress_range() takes the numbers of
 * the group's weights, and df11_resident_decompress_tensors() one destination for each tensor of
 * which there are weights, which receives those.
 *
 * `dst` is as for df11_model_write_image(); df11_model_get_image_range_info() says how many bytes
 * are needed. `threads` threads work, the calling one among them; 0 means 1. They end before the
 * call returns. The codes of these weights are walked, and compared with the positions and gaps of
 * the blocks in which they begin.
 *
 * Errors: as for df11_model_write_image() and df11_model_get_image_range_info().
 *
 * Requires: Nobody else uses `dst` during the call.
 */
df11_status df11_model_write_image_range(const df11_model *model,
                                         uint64_t group,
                                         uint64_t first,
                                         uint64_t count,
                                         void *dst,
                                         size_t dst_bytes,
                                         uint32_t threads,
                                         df11_error *error);

/**
 * Describes an image, of either kind, by its head: `head_bytes` of its first bytes in host memory,
 * as for df11_device_bind_image(). No CUDA call is made. After an error `*out` is cleared except
 * for its struct_size; if that is wrong, `*out` is left alone.
 *
 * Errors: DF11_INVALID_FORMAT if the bytes are no image's, DF11_UNSUPPORTED_FORMAT for an image of
 * another version, DF11_CORRUPT for a head that is damaged or cut short; DF11_INVALID_ARGUMENT.
 */
df11_status df11_image_get_info(const void *head,
                                size_t head_bytes,
                                df11_image_info *out,
                                df11_error *error);

/**
 * Returns a slice that an image holds, by its head: slice `slice` of
 * df11_image_info.slice_count. `head` and `head_bytes` are as for df11_image_get_info(). After an
 * error `*out` is zeros.
 *
 * Errors: as for df11_image_get_info(); DF11_NOT_FOUND if the image has no such slice; a linear
 * image has none.
 */
df11_status df11_image_get_slice(const void *head,
                                 size_t head_bytes,
                                 uint64_t slice,
                                 df11_slice *out,
                                 df11_error *error);

/* ============================================================================================== */
/* 10. CUDA: shards, which are parts of groups for several devices                                */
/* ============================================================================================== */

/**
 * Each rank gets as many units. Refused if the units do not divide by the ranks, as vLLM and
 * Megatron refuse it.
 */
#define DF11_SPLIT_EVEN 0

/**
 * As DF11_SPLIT_EVEN; but where there are more ranks than units, each unit goes to as many ranks
 * as there are for one, as engines divide heads of keys and values. Refused if the ranks do not
 * divide by the units then.
 */
#define DF11_SPLIT_REPLICATE 1

/** The first ranks get one unit more than the last ones, or as many. */
#define DF11_SPLIT_SPREAD 2

/**
 * Each rank gets as many units, rounded up, and the last ones what is left, or nothing, as engines
 * divide a vocabulary that they pad to a multiple of the ranks. The padding is not in the file.
 */
#define DF11_SPLIT_PAD 3

/** The `dimension` of df11_model_get_slices() that follows from the tensor's name. */
#define DF11_DIMENSION_BY_NAME 4294967295

/**
 * Slices of a group, counted, so that their image can be written. It never changes: any number of
 * threads may use it at once.
 */
typedef struct df11_shard df11_shard;

/**
 * Consecutive rows or columns of a tensor that ranks divide alike: all of a dimension, or those of
 * one of the matrices that a fused tensor joins.
 */
typedef struct df11_segment {
    /** Rows or columns. */
    uint64_t extent;
    /** Rows or columns that stay together, such as those of a head. 0 means 1. */
    uint64_t unit;
    /** DF11_SPLIT_* */
    uint32_t rule;
    /** 0 */
    uint32_t reserved;
} df11_segment;

/**
 * Says which rows or columns of a segment a rank holds: `*count` of them from `*first` on. Ranks
 * are 0 to `world` - 1. `*count` is 0 only by DF11_SPLIT_SPREAD and DF11_SPLIT_PAD, for ranks that
 * get nothing. After an error both are 0.
 *
 * Errors: DF11_INVALID_ARGUMENT for a rank that is none, an extent that is no whole units (unless
 * by DF11_SPLIT_PAD), and for what the rule refuses; DF11_UNSUPPORTED_OPTION.
 */
df11_status df11_split_segment(const df11_segment *segment,
                               uint32_t rank,
                               uint32_t world,
                               uint64_t *first,
                               uint64_t *count,
                               df11_error *error);

/**
 * Makes the slices that a rank holds of one of a group's tensors, for df11_model_make_shard().
 * `tensor` is its number among those of the group: the tensor's number in the model is
 * df11_group_info.first_tensor + this. `dimension` is the one that is divided: 0 for the rows of a
 * matrix, 1 for its columns. DF11_DIMENSION_BY_NAME takes the one by which tensor parallelism
 * divides a matrix of this name: rows of q_proj, k_proj, v_proj, gate_proj, up_proj, embeddings
 * and heads, columns of o_proj and down_proj, and their like (docs/shards.md).
 *
 * `segments` are the parts of the dimension that are divided each for itself, `segment_count` of
 * them, one after the other, and together all of it: one for each matrix that a fused tensor joins
 * (gate and up; queries, keys and values). NULL and 0 mean one segment that is divided evenly. By
 * name, matrices that have heads or join several matrices need segments, because units must stay
 * together. `slices` receives `segment_count` slices, or one if there are no segments, in their
 * order. One of a share that is empty has no elements, and may be given to
 * df11_model_make_shard().
 *
 * If the group holds only a run of the tensor (experts), the slices are of that run. The shape of
 * the tensor must be known (df11_tensor_info.shape_known): where no file says it, give it by
 * df11_open_options. After an error `slices` is zeros, if the numbers could be read.
 *
 * Errors: DF11_NOT_FOUND (no such group or tensor, or a name that does not tell);
 * DF11_INVALID_ARGUMENT for a shape that is not known, a dimension that the tensor does not have,
 * more than 1,024 segments or some that are not all of it, what df11_split_segment() refuses, and
 * a run that is not whole in the dimension; DF11_UNSUPPORTED_OPTION.
 *
 * Requires: `slices` has room for as many slices as are written.
 */
df11_status df11_model_get_slices(const df11_model *model,
                                  uint64_t group,
                                  uint64_t tensor,
                                  uint32_t dimension,
                                  const df11_segment *segments,
                                  size_t segment_count,
                                  uint32_t rank,
                                  uint32_t world,
                                  df11_slice *slices,
                                  df11_error *error);

/**
 * Counts slices of a group, so that their image can be written: the part of one of several devices
 * that share the work of a layer. Slices may be columns, rows, whole tensors, or any other
 * elements at equal distances, in any order, at most 1,024; several may be of one tensor. The
 * image has them one after the other: slice i is its tensor i. Its codes are new, and made with
 * the group's own table, so that it takes as many bits a weight as the group. (A range of rows
 * alone needs no new codes: see df11_model_write_image_range().)
 *
 * The weights of the slices, and those between near ones, are decoded a piece at a time; there is
 * no copy of the whole. `threads` threads work, the calling one among them; 0 means 1. Each
 * allocates less than 4 MB, and all end before the call returns. `progress` is NULL, or counts and
 * cancels the call.
 *
 * On success `*out` is the shard, to be given to df11_shard_free(); otherwise it is NULL.
 *
 * Errors: DF11_NOT_FOUND (no such group); DF11_INVALID_ARGUMENT for a slice that leaves its tensor
 * or overlaps itself, and for no weights at all, or 2^32 and more; DF11_UNSUPPORTED_FORMAT where
 * df11_group_info.image_bytes is 0; those of df11_model_decompress(); DF11_OUT_OF_MEMORY,
 * DF11_CANCELLED.
 *
 * Requires: The model stays open until the shard is freed.
 */
df11_status df11_model_make_shard(const df11_model *model,
                                  uint64_t group,
                                  const df11_slice *slices,
                                  size_t slice_count,
                                  uint32_t threads,
                                  df11_progress *progress,
                                  df11_shard **out,
                                  df11_error *error);

/**
 * Describes the image of a shard: `image_bytes` is what df11_shard_write_image() needs. After an
 * error `*out` is cleared except for its struct_size; if that is wrong, `*out` is left alone.
 *
 * Errors: DF11_INVALID_ARGUMENT.
 */
df11_status df11_shard_get_image_info(const df11_shard *shard,
                                      df11_image_info *out,
                                      df11_error *error);

/**
 * Writes the image of a shard to `dst`, a buffer of `dst_bytes` bytes that you provide, with any
 * alignment, pinned or not; nothing is read from it. Copy it to a device, and give it to
 * df11_device_bind_image(). The bytes depend on the group and the slices alone. The head says
 * which slices they are (df11_image_get_slice()). Decoding counts from the image's first weight:
 * df11_resident_decompress_range() numbers the weights of all slices from 0, and
 * df11_resident_decompress_tensors() has a destination for each slice.
 *
 * `threads` threads work, the calling one among them; 0 means 1. Each allocates less than 4 MB,
 * and all end before the call returns. `progress` is NULL, or counts and cancels the call.
 *
 * Errors: DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL; those of df11_model_decompress();
 * DF11_OUT_OF_MEMORY, DF11_CANCELLED. After an error that is not the buffer's the first 256 bytes
 * are zeros: no image.
 *
 * Requires: Nobody else uses `dst` during the call.
 */
df11_status df11_shard_write_image(const df11_shard *shard,
                                   void *dst,
                                   size_t dst_bytes,
                                   uint32_t threads,
                                   df11_progress *progress,
                                   df11_error *error);

/**
 * Frees a shard, from any thread. NULL is allowed. Images that it has written stay.
 *
 * Requires: No call uses `shard` any more.
 */
void df11_shard_free(df11_shard *shard);

/* ============================================================================================== */
/* 11. CUDA: residents, which are images on a device                                              */
/* ============================================================================================== */

/**
 * An image on a device, ready to be decoded. It never changes: any number of threads may use it at
 * once. It owns no device memory.
 */
typedef struct df11_resident df11_resident;

/** A resident. Begin with DF11_RESIDENT_INFO_INIT. */
typedef struct df11_resident_info {
    /** sizeof(df11_resident_info) */
    size_t struct_size;
    /** The address of the image in device memory. */
    df11_devptr image;
    /** Bytes of the whole image. */
    uint64_t image_bytes;
    /** Weights that it holds. */
    uint64_t element_count;
    /** Tensors of which it holds weights; slices, if it has some. */
    uint64_t tensor_count;
    /**
     * For each of them the number of the weight after its last one, counted as `first_element` is.
     * They belong to the resident.
     */
    const uint64_t *tensor_ends;
    /**
     * The number of its first weight, as df11_resident_decompress_range() counts them: among those
     * of the group, so 0 for a whole group. If it holds slices it is 0: their weights are numbered
     * from 0.
     */
    uint64_t first_element;
    /** The number of its first tensor among those of the group; 0 if it holds slices. */
    uint64_t first_tensor;
    /** Weights of the whole group. */
    uint64_t group_element_count;
    /** Tensors of the whole group. */
    uint64_t group_tensor_count;
    /** Slices that it holds; 0 for a range and for a whole group. */
    uint64_t slice_count;
    /** The slices; NULL if there are none. They belong to the resident. */
    const df11_slice *slices;
} df11_resident_info;

/** Initialises a df11_resident_info: every field but struct_size is 0 or NULL. */
#define DF11_RESIDENT_INFO_INIT \
    { sizeof(df11_resident_info), 0, 0, 0, 0, NULL, 0, 0, 0, 0, 0, NULL }

/**
 * Makes a group's image in device memory that you provide: `image_bytes` bytes at `d_image`, at
 * least df11_group_info.image_bytes, at a multiple of 256. Copies and kernels are put into
 * `stream`; work that you put there afterwards may use the image. The bytes are those of
 * df11_model_write_image(). No device memory is allocated, and no host memory is pinned.
 *
 * Host memory: the bytes are copied from where the file is mapped (or from the memory of
 * df11_model_open_memory()), so that model and resident must not be freed before the stream has
 * executed the upload. From pageable memory CUDA copies at its own pace, and the call returns when
 * it has read most of it; df11_device_upload_staged() goes through pinned memory. With
 * DF11_OPEN_READ the call allocates 2 MiB to read to, and waits until the stream has executed the
 * last copy.
 *
 * The file's gaps and positions are compared with its codes on the device. If they disagree,
 * decoding the image reports DF11_CORRUPT in d_status.
 *
 * On success `*out` is the resident, to be given to df11_resident_free(); otherwise it is NULL.
 *
 * Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL,
 * DF11_MISALIGNED; DF11_UNSUPPORTED_FORMAT where image_bytes is 0; DF11_DEFAULT_STREAM;
 * DF11_WRONG_DEVICE for a stream of another context; DF11_CAPTURING, because an upload cannot be
 * captured; DF11_CUDA; DF11_IO and DF11_CORRUPT with DF11_OPEN_READ. After the last three, parts
 * of the work may be in the stream: keep `d_image` and the model until it has executed them.
 *
 * Requires: The device memory stays until the resident is freed, its decodes are done and no
 * captured graph that uses it will be launched. Model and resident stay until the stream has
 * executed the upload.
 */
df11_status df11_device_upload(df11_device *device,
                               const df11_model *model,
                               uint64_t group,
                               df11_devptr d_image,
                               size_t image_bytes,
                               df11_stream stream,
                               df11_resident **out,
                               df11_error *error);

/**
 * Uploads as df11_device_upload() does, through `staging_bytes` bytes of host memory that you
 * provide at `staging`: at least 4,096; some MiB are sensible. It should be pinned
 * (cuMemHostAlloc, cudaMallocHost). The file's bytes are copied to one half of it while the device
 * copies from the other, so that the call waits for the stream whenever both are full: the stream
 * must not wait for something that the calling thread does later. The model may be freed when this
 * returns.
 *
 * Errors: as for df11_device_upload(); DF11_BUFFER_TOO_SMALL and DF11_INVALID_ARGUMENT for the
 * staging memory too.
 *
 * Requires: The device memory stays until the resident is freed, its decodes are done and no
 * captured graph that uses it will be launched. The resident and the staging memory stay, and
 * nobody else uses the latter, until the stream has executed the upload.
 */
df11_status df11_device_upload_staged(df11_device *device,
                                      const df11_model *model,
                                      uint64_t group,
                                      df11_devptr d_image,
                                      size_t image_bytes,
                                      df11_stream stream,
                                      void *staging,
                                      size_t staging_bytes,
                                      df11_resident **out,
                                      df11_error *error);

/**
 * Makes the image of `count` of a group's weights, from its weight `first` on (both in elements),
 * in device memory that you provide: `image_bytes` bytes at `d_image`, at least those that
 * df11_model_get_image_range_info() says, at a multiple of 256. The bytes are those of
 * df11_model_write_image_range(), which says what such an image is for. Copies are put into
 * `stream`; work that you put there afterwards may use the image.
 *
 * The host walks the codes first, on the calling thread, and makes the index of the image, 0.02
 * bytes for each weight, which is copied with the head from memory that the resident keeps. The
 * rest is copied as by df11_device_upload(), or, if `staging` is not NULL, as by
 * df11_device_upload_staged(): then the model may be freed when this returns.
 *
 * Errors: as for df11_device_upload() and df11_model_write_image_range(). `staging_bytes` counts
 * only if `staging` is not NULL.
 *
 * Requires: The device memory stays until the resident is freed, its decodes are done and no
 * captured graph that uses it will be launched. The resident and the model (or the staging memory,
 * which nobody else uses) stay until the stream has executed the upload.
 */
df11_status df11_device_upload_range(df11_device *device,
                                     const df11_model *model,
                                     uint64_t group,
                                     uint64_t first,
                                     uint64_t count,
                                     df11_devptr d_image,
                                     size_t image_bytes,
                                     df11_stream stream,
                                     void *staging,
                                     size_t staging_bytes,
                                     df11_resident **out,
                                     df11_error *error);

/**
 * Takes an image that is on the device, or that will be when the streams of its decodes get there:
 * one that you copied from what df11_model_write_image() wrote, or moved. It has `image_bytes`
 * bytes at `d_image`, at least df11_group_info.image_bytes, at a multiple of 256. No CUDA call is
 * made; the model may be freed when this returns. On success `*out` is the resident, to be given
 * to df11_resident_free(); otherwise it is NULL.
 *
 * Errors: DF11_NOT_FOUND (no such group), DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL,
 * DF11_MISALIGNED; DF11_UNSUPPORTED_FORMAT where image_bytes is 0.
 *
 * Requires: The device memory stays until the resident is freed, its decodes are done and no
 * captured graph that uses it will be launched.
 */
df11_status df11_device_bind(df11_device *device,
                             const df11_model *model,
                             uint64_t group,
                             df11_devptr d_image,
                             size_t image_bytes,
                             df11_resident **out,
                             df11_error *error);

/**
 * Takes an image as df11_device_bind() does, without the model, and linear images, too
 * (df11_model_plan_linear_image()). `head` are the image's first bytes in host memory,
 * `head_bytes` of them: at least as many as its head has (df11_image_info.head_bytes;
 * DF11_IMAGE_HEAD_BYTES_MAX are enough for any, and so is a whole image). They are read during the
 * call only, and checked as hostile; a checksum finds damage. The whole image, head and all, has
 * `image_bytes` bytes at `d_image`, at least df11_image_info.image_bytes, which
 * df11_image_get_info() reads from the same head.
 *
 * Errors: DF11_INVALID_FORMAT if the bytes are no image's, DF11_UNSUPPORTED_FORMAT for an image of
 * another version, DF11_CORRUPT for a head that is damaged or cut short; DF11_INVALID_ARGUMENT,
 * DF11_BUFFER_TOO_SMALL, DF11_MISALIGNED.
 *
 * Requires: The device memory stays until the resident is freed, its decodes are done and no
 * captured graph that uses it will be launched.
 */
df11_status df11_device_bind_image(df11_device *device,
                                   const void *head,
                                   size_t head_bytes,
                                   df11_devptr d_image,
                                   size_t image_bytes,
                                   df11_resident **out,
                                   df11_error *error);

/**
 * Describes a resident. After an error `*out` is cleared except for its struct_size; if that is
 * wrong, `*out` is left alone.
 *
 * Errors: DF11_INVALID_ARGUMENT.
 */
df11_status df11_resident_get_info(const df11_resident *resident,
                                   df11_resident_info *out,
                                   df11_error *error);

/**
 * Frees a resident, from any thread. NULL is allowed. No device memory is touched or freed,
 * nothing is waited for, and decodes that are in streams or graphs go on.
 *
 * Requires: No call uses `resident` any more, and no stream still has to execute its upload.
 */
void df11_resident_free(df11_resident *resident);

/* ============================================================================================== */
/* 12. CUDA: decode on a stream                                                                   */
/* ============================================================================================== */

/**
 * Decodes all that an image holds, a whole group or a part, to `dst_bytes` bytes of device memory
 * at `d_dst`: at least 2 * df11_resident_info.element_count bytes, an address that is a multiple
 * of 2 (16 is fastest). Work is put into `stream`, and the call returns before it is done.
 *
 * Nothing is allocated, on host or device, and nothing is waited for, loaded or locked. The call
 * may be captured in a graph. It may be made from any thread, whatever context is current there,
 * and that context stays current. `stream` belongs to the device's context, and is not NULL (see
 * DF11_DEVICE_ALLOW_DEFAULT_STREAM).
 *
 * `d_status` is 0, or the address of a uint32_t in device memory, a multiple of 4, that you have
 * set to 0. It is raised to DF11_CORRUPT if the kernel notices that the image contradicts itself
 * (the file was damaged, or its gaps and positions are wrong), and otherwise left alone. The
 * content of the destination is then undefined. Nothing outside it is ever written. What is
 * compared is where each run of 104 weights ends: damage after which the codes fall into step
 * again before that, or end up to ten bits late (eleven on devices of compute capability 10.0 and
 * later), goes unnoticed. Of single changed bytes among the codes that is eight in ten. Verify a
 * model from elsewhere before you decode it here.
 *
 * Errors, after which nothing was enqueued: DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL,
 * DF11_MISALIGNED, DF11_DEFAULT_STREAM, DF11_WRONG_DEVICE (a stream of another context), DF11_CUDA
 * (the driver refused the launch; a failure of earlier work in the same context shows here too),
 * DF11_CAPTURING (the stream's capture was broken before).
 *
 * Requires: `stream` is a stream. Image, destination and status word are device memory of its
 * context until it has executed the work, and each time that a graph which captured the call is
 * launched. Nobody writes the image or uses the destination meanwhile.
 */
df11_status df11_resident_decompress(const df11_resident *resident,
                                     df11_devptr d_dst,
                                     size_t dst_bytes,
                                     df11_devptr d_status,
                                     df11_stream stream,
                                     df11_error *error);

/**
 * Decodes `count` weights of a group, from its weight `first` on (both in elements), to
 * `dst_bytes` bytes of device memory at `d_dst`: exactly 2 * count bytes are written. All else is
 * as for df11_resident_decompress(). A count of 0 does nothing.
 *
 * `first` is the number of the weight in its group, also if the image holds a range of the group
 * only: the call is the same for either. Only the weights of slices, which do not follow each
 * other in the group, are numbered from 0 in the order of the slices.
 *
 * Errors: as for df11_resident_decompress(); DF11_INVALID_ARGUMENT for weights that the image does
 * not hold: it holds element_count of them, from first_element on (df11_resident_info).
 *
 * Requires: What df11_resident_decompress() requires.
 */
df11_status df11_resident_decompress_range(const df11_resident *resident,
                                           uint64_t first,
                                           uint64_t count,
                                           df11_devptr d_dst,
                                           size_t dst_bytes,
                                           df11_devptr d_status,
                                           df11_stream stream,
                                           df11_error *error);

/**
 * Decodes each tensor of a group to a destination of its own: tensor i, in the order of their
 * weights, to `dst_bytes[i]` bytes of device memory at `d_dsts[i]`. `count` is the resident's
 * tensor_count. If the image holds a range of the group, destination i is for what it has of
 * tensor first_tensor + i; if it holds slices, destination i is for slice i. A destination of 0
 * leaves its tensor out. One launch does up to 32 tensors; destinations that follow each other
 * without a gap count as one. Both lists are in host memory and are read during the call only. All
 * else is as for df11_resident_decompress().
 *
 * Errors: as for df11_resident_decompress(); DF11_INVALID_ARGUMENT for another count. If a group
 * has more than 32 tensors and the driver refuses a launch that is not the first, the earlier ones
 * are in the stream; the message says so.
 *
 * Requires: What df11_resident_decompress() requires; no two destinations overlap.
 */
df11_status df11_resident_decompress_tensors(const df11_resident *resident,
                                             const df11_devptr *d_dsts,
                                             const size_t *dst_bytes,
                                             size_t count,
                                             df11_devptr d_status,
                                             df11_stream stream,
                                             df11_error *error);

/**
 * Decodes `count` residents, all that each of them holds: resident i to `dst_bytes[i]` bytes of
 * device memory at `d_dsts[i]`. All lists are in host memory and are read during the call only.
 * The residents may come from several device handles, but belong to one context. One launch does
 * up to 32 groups. `d_statuses` is 0, or the address of `count` uint32_t in device memory, one for
 * each group. All else is as for df11_resident_decompress(). A count of 0 does nothing.
 *
 * Errors: as for df11_resident_decompress(); DF11_WRONG_DEVICE for residents of several contexts.
 * If there are more than 32 groups and the driver refuses a launch that is not the first, the
 * earlier ones are in the stream; the message says so.
 *
 * Requires: What df11_resident_decompress() requires; no two destinations overlap.
 */
df11_status df11_resident_decompress_batch(const df11_resident *const *residents,
                                           const df11_devptr *d_dsts,
                                           const size_t *dst_bytes,
                                           size_t count,
                                           df11_devptr d_statuses,
                                           df11_stream stream,
                                           df11_error *error);

/* ============================================================================================== */
/* 13. CUDA: linear images, to multiply with                                                      */
/* ============================================================================================== */

/**
 * A group, counted, so that its linear image can be made. It never changes: any number of threads
 * may use it at once.
 */
typedef struct df11_linear_plan df11_linear_plan;

/** Rows and columns of a tensor of a group. Zeros leave them to the model. */
typedef struct df11_linear_shape {
    /** Rows: outputs. */
    uint64_t rows;
    /** Columns: inputs. */
    uint64_t columns;
} df11_linear_shape;

/**
 * Counts a group, so that its linear image can be made. A *linear image* is an image of a second
 * kind: every weight has 12 bits of its own, in the order in which a device multiplies, so that it
 * need not be decoded first. It takes about 12.05 bits a weight, where other images take 10.84. It
 * decodes as those do: df11_device_bind_image() takes it, and then all df11_resident_decompress…()
 * functions do. It is a form of memory, for this version of the library: keep models as DF11.
 *
 * `shapes` has the rows and columns of each of the group's tensors, `shape_count` of them; NULL
 * and 0 leave all to the model, which knows them from the config, from an original, or from
 * df11_open_options. Of a tensor with more than two dimensions the last one is the columns. One
 * whose shape is not known, or that would be mostly padding because its rows are short or few, can
 * be decoded, and not multiplied with.
 *
 * The group is decoded twice, a piece at a time; there is no copy of the whole. `threads` threads
 * work, the calling one among them; 0 means 1. Each allocates less than 4 MB, and all end before
 * the call returns. The plan keeps 4 bytes for 1,024 weights. `progress` is NULL, or counts and
 * cancels the call.
 *
 * On success `*out` is the plan, to be given to df11_linear_plan_free(); otherwise it is NULL.
 *
 * Errors: DF11_NOT_FOUND (no such group); DF11_INVALID_ARGUMENT for shapes that are not those of
 * as many tensors, or of as many weights; those of df11_model_decompress(); DF11_OUT_OF_MEMORY,
 * DF11_CANCELLED.
 *
 * Requires: The model stays open until the plan is freed.
 */
df11_status df11_model_plan_linear_image(const df11_model *model,
                                         uint64_t group,
                                         const df11_linear_shape *shapes,
                                         size_t shape_count,
                                         uint32_t threads,
                                         df11_progress *progress,
                                         df11_linear_plan **out,
                                         df11_error *error);

/**
 * Describes the linear image of a plan: `image_bytes` is what df11_linear_plan_write_image()
 * needs. After an error `*out` is cleared except for its struct_size; if that is wrong, `*out` is
 * left alone.
 *
 * Errors: DF11_INVALID_ARGUMENT.
 */
df11_status df11_linear_plan_get_image_info(const df11_linear_plan *plan,
                                            df11_image_info *out,
                                            df11_error *error);

/**
 * Writes the linear image of a plan to `dst`, a buffer of `dst_bytes` bytes that you provide, with
 * any alignment, pinned or not; nothing is read from it. Copy it to a device, to an address that
 * is a multiple of 256, and give it to df11_device_bind_image(). The bytes depend on the group and
 * the shapes alone.
 *
 * `threads` threads work, the calling one among them; 0 means 1. Each allocates less than 4 MB,
 * and all end before the call returns. `progress` is NULL, or counts and cancels the call.
 *
 * Errors: DF11_INVALID_ARGUMENT, DF11_BUFFER_TOO_SMALL; those of df11_model_decompress();
 * DF11_OUT_OF_MEMORY, DF11_CANCELLED. After an error that is not the buffer's the first 256 bytes
 * are zeros: no image.
 *
 * Requires: Nobody else uses `dst` during the call.
 */
df11_status df11_linear_plan_write_image(const df11_linear_plan *plan,
                                         void *dst,
                                         size_t dst_bytes,
                                         uint32_t threads,
                                         df11_progress *progress,
                                         df11_error *error);

/**
 * Makes the linear image of a plan in device memory that you provide, from a resident that holds
 * the whole group, such as one that df11_device_upload() made: `image_bytes` bytes at `d_image`,
 * at a multiple of 256. The bytes are those of df11_linear_plan_write_image(), but only 4 bytes
 * for 1,024 weights are copied from the host. Copies and kernels are put into `stream`; work that
 * you put there afterwards may use the image. No memory is allocated on the device.
 *
 * The group is decoded a piece at a time to `d_scratch`, device memory of `scratch_bytes` bytes at
 * a multiple of 16: at least 32 for each column of the tensor that has most; some MiB are
 * sensible. If the source contradicts itself, or is no image of the group that was counted,
 * decoding the new image reports DF11_CORRUPT in d_status.
 *
 * On success `*out` is the resident of the new image, to be given to df11_resident_free();
 * otherwise it is NULL. `source` and the plan may be freed then; the source's image must stay.
 *
 * Errors: DF11_INVALID_ARGUMENT for a source that does not hold the whole group, and for memories
 * that overlap; DF11_BUFFER_TOO_SMALL, DF11_MISALIGNED; DF11_DEFAULT_STREAM; DF11_WRONG_DEVICE for
 * a stream or a source of another context; DF11_CAPTURING, because the work cannot be captured;
 * DF11_OUT_OF_MEMORY; DF11_CUDA: then parts of the work may be in the stream, so keep all memory
 * until it has executed them.
 *
 * Requires: The device memory stays until the resident is freed, its decodes are done and no
 * captured graph that uses it will be launched. The resident, the scratch memory, which nobody
 * else uses, and the source's image stay until the stream has executed the work.
 */
df11_status df11_device_make_linear_image(df11_device *device,
                                          const df11_linear_plan *plan,
                                          const df11_resident *source,
                                          df11_devptr d_image,
                                          size_t image_bytes,
                                          df11_devptr d_scratch,
                                          size_t scratch_bytes,
                                          df11_stream stream,
                                          df11_resident **out,
                                          df11_error *error);

/**
 * Frees a plan of a linear image, from any thread. NULL is allowed. Images that were made with it
 * stay.
 *
 * Requires: No call uses `plan` any more.
 */
void df11_linear_plan_free(df11_linear_plan *plan);

/* ============================================================================================== */
/* 14. WRITE: models, plans of models, presets, groups in memory                                  */
/* ============================================================================================== */

/** Do not decode each group from its file to compare it before the file gets its name. */
#define DF11_COMPRESS_NO_VERIFY 1

/**
 * Resume what an interrupted run of the same source and options has left; begin, if there is
 * nothing. The bytes are those of a run without an interruption. If nothing of a model is missing,
 * every bit is compared with the source, and what belongs to it (config.json, tokenizers) is
 * written if it is not there; if it was changed, that is an error.
 */
#define DF11_COMPRESS_RESUME 2

/**
 * Make it an error (DF11_UNSUPPORTED_FORMAT) if something that the patterns ask for cannot be
 * compressed. Without it such a group's tensors stay plain, and df11_left_fn is called.
 */
#define DF11_COMPRESS_STRICT 4

/**
 * Write the SHA-256 of every tensor to the files' metadata under "df11.sha256", for
 * df11_verify_model(). The reference compressor writes none.
 */
#define DF11_COMPRESS_HASHES 8

/**
 * Write the shapes of compressed tensors to the files' metadata under "df11.shapes", for
 * df11_tensor_info. The reference compressor writes none. For automatic groups, which no other
 * program writes, they are always written.
 */
#define DF11_COMPRESS_SHAPES 16

/**
 * Write one file: `dst`, if it ends in .safetensors, else model.safetensors
 * (diffusion_pytorch_model.safetensors for diffusers) in the folder `dst`.
 */
#define DF11_COMPRESS_SINGLE_FILE 32

/**
 * Write a folder of one file per group, even if `dst` ends in .safetensors. With neither of the
 * two, `dst` is one file if it ends so, else such a folder.
 */
#define DF11_COMPRESS_FOLDER 64

/**
 * Return DF11_EXISTS instead of replacing a single file `dst` or its own config. Without it they
 * are replaced. A folder `dst` that is not empty is never written to, with or without it.
 */
#define DF11_COMPRESS_KEEP_EXISTING 128

/**
 * Write a plain copy of a source of which nothing can be compressed. Without it that is an error
 * (DF11_UNSUPPORTED_FORMAT), and nothing is written.
 */
#define DF11_COMPRESS_ALLOW_PLAIN 256

/**
 * Compress a source that lacks files, tensors or layers, as a download that was interrupted
 * leaves it. Without it that is an error (DF11_INVALID_FORMAT). What is absent is noted in
 * config.json, and df11_verify_model() does not report it.
 */
#define DF11_COMPRESS_INCOMPLETE 512

/**
 * Leave plain what the reference's format cannot name or hold: experts in one tensor whose name
 * does not end in .weight, and tensors of 2^32 weights. Without it, and with neither a preset nor a
 * pattern_json, they become groups by an extension of the format that only this library reads; see
 * df11_group_info.extended.
 */
#define DF11_COMPRESS_REFERENCE_ONLY 1024

/**
 * Called for each tensor that the patterns ask for and that stays as it was: `user` as given, the
 * tensor's name, the name of the group that it would have been in (which stays plain as a whole),
 * and the reason. All texts are UTF-8, end in a zero byte and are valid during the call only;
 * escape them before you print them. It runs on the thread that called df11_compress_model() or
 * df11_merge_model(), after the work, and must not unwind.
 */
typedef void (*df11_left_fn)(void *user, const char *tensor, const char *group, const char *reason);

/** The result of a run in numbers. Begin with DF11_COMPRESS_REPORT_INIT. */
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
    /** Groups that an earlier run had written. */
    uint64_t resumed;
    /**
     * Tensors that stay plain although the patterns ask for them: as many as df11_left_fn is called
     * for.
     */
    uint64_t left_count;
    /** Heads that are not stored, because they are tied to the embedding and equal to it. */
    uint64_t dropped_count;
    /** Patterns that no module matches. */
    uint64_t unmatched_count;
    /** 1 if the model is complete; 0 after a part, until df11_merge_model(). */
    uint64_t complete;
    /**
     * The name of the preset that gave the groups, or "automatic"; NULL if it was a pattern_json.
     * The text is static.
     */
    const char *preset;
    /**
     * Bytes of all bf16 tensors of the source, without heads that are not stored. What of them is
     * not in groups stays plain for one of the reasons below; each of those counts bf16 bytes.
     */
    uint64_t bf16_bytes;
    /** Bytes of the bf16 tensors in groups, each counted once. */
    uint64_t grouped_bf16_bytes;
    /** Bytes for which no pattern asks. */
    uint64_t unasked_bf16_bytes;
    /** Bytes of tensors that are too small for a group to pay. */
    uint64_t small_bf16_bytes;
    /** Bytes of tensors whose group has a tensor of another type. */
    uint64_t mixed_bf16_bytes;
    /** Bytes of tensors whose group has an infinity, a NaN, or a magnitude of 2^113 and more. */
    uint64_t unfit_bf16_bytes;
    /** Bytes of tensors that the reference's format cannot name or hold. */
    uint64_t unnamed_bf16_bytes;
    /** Files beside the source's weights that were copied: tokenizers, code, licences. */
    uint64_t carried_count;
    /** Bytes of those files. */
    uint64_t carried_bytes;
    /**
     * Files beside the source's weights that were not copied: weights in other formats, states of a
     * training, downloads that have not ended.
     */
    uint64_t left_behind_count;
    /** Bytes of those files. */
    uint64_t left_behind_bytes;
    /**
     * Things that the source lacks, with DF11_COMPRESS_INCOMPLETE, and those that config.json
     * speaks of and that cannot have got lost.
     */
    uint64_t missing_count;
    /**
     * Those of the groups that are an extension of the format: programs that know only DF11 do not
     * find their weights.
     */
    uint64_t extended_groups;
} df11_compress_report;

/** Initialises a df11_compress_report: every field but struct_size is 0 or NULL. */
#define DF11_COMPRESS_REPORT_INIT \
    { sizeof(df11_compress_report), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, \
    0, 0, 0, 0, 0 }

/** How to compress. Begin with DF11_COMPRESS_OPTIONS_INIT. */
typedef struct df11_compress_options {
    /** sizeof(df11_compress_options) */
    size_t struct_size;
    /**
     * Threads that work, the calling one among them; 0 means 1. One more writes files. They end
     * before the call returns, and the bytes written do not depend on their number.
     */
    uint32_t threads;
    /** DF11_COMPRESS_* joined by | */
    uint32_t flags;
    /**
     * The most bytes of memory to work in, 5 MiB for each thread; 0 means 512 MiB. Fewer threads
     * work if it is not enough, and one always does. The memory of headers and of lists of tensors
     * comes on top.
     */
    uint64_t memory_bytes;
    /**
     * NULL, or the name of a preset: the groups of a published model, see df11_preset_get_info().
     * "automatic" names the groups that are made from the table of tensors alone.
     */
    const char *preset;
    /**
     * NULL, or the groups: the JSON text of a pattern_dict, or of a config.json that has one in its
     * dfloat11_config. It excludes `preset`. With neither, a preset is chosen by the source's
     * config.json and its tensors, or automatic groups if they cover clearly more of the model.
     */
    const char *pattern_json;
    /**
     * The part of the groups to write, 1 to `part_count`: other processes or machines write the
     * others to the same folder, with the same options, and then one calls df11_merge_model().
     */
    uint32_t part;
    /** The number of parts, at most 100000. 0 and 0 mean the whole model, as 1 and 1 do. */
    uint32_t part_count;
    /** NULL, or a progress that counts and can cancel the call. */
    df11_progress *progress;
    /**
     * NULL, or a callback that is told of the progress. It may be given together with `progress`.
     */
    df11_progress_fn callback;
    /** The `user` of `callback`. */
    void *callback_user;
    /** NULL, or a callback that is told of tensors that stay plain. */
    df11_left_fn left;
    /** The `user` of `left`. */
    void *left_user;
    /** NULL, or where to write the numbers. */
    df11_compress_report *report;
} df11_compress_options;

/** Initialises a df11_compress_options: every field but struct_size is 0 or NULL. */
#define DF11_COMPRESS_OPTIONS_INIT \
    { sizeof(df11_compress_options), 0, 0, 0, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL \
    }

/**
 * Compresses a model. `src` is a folder in Hugging Face layout, of any number of .safetensors
 * files, or one such file. `dst` is a new or empty folder, or a file, which is replaced when
 * everything is done and not before. Nothing of the source is changed, and every byte of a group
 * is as the reference compressor (dfloat11 0.5.0) writes it.
 *
 * A folder gets one file per group, a file for the rest, the source's config.json with
 * dfloat11_config in it, and the source's other files, except weights in other formats, states of a
 * training, and downloads that have not ended. A single file gets its config.json next to
 * it. `options` may be NULL. Groups are processed a piece at a time and are never in memory as a
 * whole. Files get their names when they are complete and, unless told otherwise, verified.
 *
 * df11_model_open() does not take what a run that fails or is cancelled leaves for a model. If such
 * a run has completed something, DF11_COMPRESS_RESUME resumes it. While a run works, any other run
 * to the same place is refused with DF11_BUSY (except for other parts), if the file system can lock
 * files.
 *
 * Errors: DF11_EXISTS for a folder that is not empty, and with DF11_COMPRESS_KEEP_EXISTING for a
 * file that exists; DF11_UNFINISHED for a `dst` that an earlier run has left unfinished;
 * DF11_BUSY for one that another run writes to; DF11_INVALID_ARGUMENT for one that was begun
 * with another source or other options, for what was changed in it, patterns that do not fit,
 * and a source that has no bf16 weights or is compressed already; DF11_NOT_FOUND (no such
 * preset); DF11_INVALID_FORMAT and DF11_CORRUPT for the source, and for a written group that
 * failed its verification; DF11_INVALID_FORMAT for a source that lacks something, too, unless
 * DF11_COMPRESS_INCOMPLETE is set; DF11_UNSUPPORTED_FORMAT if nothing can be compressed, unless
 * DF11_COMPRESS_ALLOW_PLAIN is set, and with DF11_COMPRESS_STRICT; DF11_UNSUPPORTED_OPTION,
 * DF11_IO, DF11_CANCELLED, DF11_OUT_OF_MEMORY. After all of them the report is all zeros, and
 * `left` is not called.
 *
 * Requires: The progress and the callbacks of the options can be used, each with its `user`, until
 * the call returns.
 */
df11_status df11_compress_model(const char *src,
                                const char *dst,
                                const df11_compress_options *options,
                                df11_error *error);

/**
 * Completes a folder whose parts are all finished: writes what belongs to no group, config.json and
 * the files that go with it, and checks that nothing is missing. `options` are those of the parts;
 * `part`, `part_count` and DF11_COMPRESS_RESUME do not matter. The report is the whole model's, and
 * `left` is called for what all parts have left.
 *
 * The source must be the same for all parts. Its headers, sizes and samples of its bytes are
 * compared with those that the parts saw; df11_verify_model() with the original compares every bit.
 *
 * Errors: as for df11_compress_model(); DF11_INVALID_ARGUMENT if a part is not finished or `dst`
 * was not begun.
 *
 * Requires: What df11_compress_model() requires.
 */
df11_status df11_merge_model(const char *src,
                             const char *dst,
                             const df11_compress_options *options,
                             df11_error *error);

/**
 * Count some weights of each kind of group. Without it no weight is read, and 2.662 bits are
 * assumed for the code of an exponent.
 */
#define DF11_PLAN_SAMPLE 1

/**
 * Plan what is there of a model, plain or DF11, that lacks something. Without it such a model is
 * refused, as df11_compress_model() refuses it.
 */
#define DF11_PLAN_INCOMPLETE 2

/**
 * Accept a compressed model whose config names a version of the compressor that this library does
 * not know.
 */
#define DF11_PLAN_ANY_VERSION 4

/** Each device has some of the layers. */
#define DF11_SPLIT_LAYERS 0

/** Each device has an equal part of every matrix. */
#define DF11_SPLIT_ROWS 1

/** A number that is not known, or tokens next to weights that do not fit themselves. */
#define DF11_PLAN_NONE UINT64_MAX

/** What a model becomes and needs. It never changes: any number of threads may use it at once. */
typedef struct df11_plan df11_plan;

/** How to plan. Begin with DF11_PLAN_OPTIONS_INIT. */
typedef struct df11_plan_options {
    /** sizeof(df11_plan_options) */
    size_t struct_size;
    /** DF11_PLAN_* joined by | */
    uint32_t flags;
    /** Buffers for decoded weights, each as large as the largest group; 0 means 2. */
    uint32_t slots;
    /** Bytes of a number in the KV cache, at most 8; 0 means 2, as bf16 has. */
    uint64_t cache_number_bytes;
    /** As in df11_compress_options. A model that is compressed already has its own groups. */
    const char *preset;
    /** As in df11_compress_options. */
    const char *pattern_json;
    /**
     * NULL, or the text of a config.json for a model that is compressed already; see
     * df11_open_options.
     */
    const char *config_json;
    /**
     * NULL, or the path of a folder or file that has the shapes which the files of a compressed
     * model do not say; see df11_open_options. The size of the KV cache may depend on them.
     */
    const char *shapes_from;
    /** NULL, or the same as a JSON text; see df11_open_options. */
    const char *shapes_json;
    /** NULL, or a progress that can cancel the call. */
    df11_progress *progress;
    /** NULL, or a callback that is told of tensors that stay plain, before the call returns. */
    df11_left_fn left;
    /** The `user` of `left`. */
    void *left_user;
} df11_plan_options;

/** Initialises a df11_plan_options: every field but struct_size is 0 or NULL. */
#define DF11_PLAN_OPTIONS_INIT \
    { sizeof(df11_plan_options), 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL }

/** A plan in numbers. Begin with DF11_PLAN_INFO_INIT. */
typedef struct df11_plan_info {
    /** sizeof(df11_plan_info) */
    size_t struct_size;
    /**
     * 1 if the model is compressed already, so that all sizes are exact; 0 if they are estimates.
     */
    uint64_t exact;
    /** Groups. */
    uint64_t group_count;
    /** Weights in them. */
    uint64_t element_count;
    /** Bytes of the groups' six members. */
    uint64_t packed_bytes;
    /** Bytes of all images. */
    uint64_t image_bytes;
    /** Bytes of the tensors that are stored as they are. */
    uint64_t plain_bytes;
    /** Bytes of all tensors, not compressed. */
    uint64_t original_bytes;
    /** The .safetensors files of a folder. */
    uint64_t file_count;
    /** Bytes of these files. */
    uint64_t written_bytes;
    /** Weights of the largest group. */
    uint64_t largest_group_element_count;
    /** Bytes of all buffers for decoded weights on one device. */
    uint64_t scratch_bytes;
    /**
     * Bytes of the KV cache for each token, in all layers; DF11_PLAN_NONE if they are not known.
     */
    uint64_t cache_bytes_per_token;
    /** Layers that have a cache; 0 if that is not known. */
    uint64_t cached_layer_count;
    /**
     * Tensors that stay plain although the patterns ask for them: as many as `left` is called for.
     */
    uint64_t left_count;
    /**
     * The name of the preset that gives the groups, or "automatic"; NULL for those of a
     * pattern_json, and for a model that is compressed already. The text is static.
     */
    const char *preset;
    /** Why the size of the KV cache is not known; NULL if it is. The text is the plan's. */
    const char *cache_unknown;
} df11_plan_info;

/** Initialises a df11_plan_info: every field but struct_size is 0 or NULL. */
#define DF11_PLAN_INFO_INIT \
    { sizeof(df11_plan_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL }

/** A group of a plan. Begin with DF11_PLAN_GROUP_INFO_INIT. */
typedef struct df11_plan_group_info {
    /** sizeof(df11_plan_group_info) */
    size_t struct_size;
    /** The module's full name. The text is the plan's. */
    const char *name;
    /** The weights in all its tensors. Decoded, they take 2 bytes each. */
    uint64_t element_count;
    /** Its tensors. */
    uint64_t tensor_count;
    /** Bytes of its six members in the file. */
    uint64_t packed_bytes;
    /** Bytes of its image on a device. */
    uint64_t image_bytes;
    /** 1 if these are exact, 0 if they are estimates. */
    uint64_t exact;
    /**
     * 1 if the group is, or will be, an extension of the format; see df11_group_info. Otherwise 0.
     */
    uint64_t extended;
} df11_plan_group_info;

/** Initialises a df11_plan_group_info: every field but struct_size is 0 or NULL. */
#define DF11_PLAN_GROUP_INFO_INIT { sizeof(df11_plan_group_info), NULL, 0, 0, 0, 0, 0, 0 }

/** The part of a model that is on one device. Begin with DF11_PLAN_SHARE_INFO_INIT. */
typedef struct df11_plan_share_info {
    /** sizeof(df11_plan_share_info) */
    size_t struct_size;
    /** Bytes of images. */
    uint64_t image_bytes;
    /** Bytes of tensors that are stored as they are. */
    uint64_t plain_bytes;
    /** Bytes of the buffers for decoded weights. */
    uint64_t scratch_bytes;
    /** All of these. */
    uint64_t total_bytes;
    /** Bytes of the KV cache for each token; DF11_PLAN_NONE if they are not known. */
    uint64_t cache_bytes_per_token;
    /** Bytes of the device of this number if the same model is not compressed. */
    uint64_t bf16_bytes;
} df11_plan_share_info;

/** Initialises a df11_plan_share_info: every field but struct_size is 0 or NULL. */
#define DF11_PLAN_SHARE_INFO_INIT { sizeof(df11_plan_share_info), 0, 0, 0, 0, 0, 0 }

/**
 * Plans a model, without writing anything: a folder or a file, compressed or not. Headers and
 * config.json are read, and weights only with DF11_PLAN_SAMPLE, so that this takes seconds for the
 * largest models. `options` may be NULL. On success `*out` is the plan, to be given to
 * df11_plan_free(); otherwise it is NULL.
 *
 * The groups are those that df11_compress_model() would make, or those of a compressed model, whose
 * sizes are exact. What is not counted: activations, and what an engine and the driver take for
 * themselves.
 *
 * Errors: those of df11_compress_model() for its source, its patterns and its preset, and those of
 * df11_model_open(); DF11_INVALID_ARGUMENT for options that are out of range, for groups that are
 * named for a compressed model, and for a config or shapes that are given for one that is not
 * compressed; DF11_CANCELLED.
 *
 * Requires: The progress and the callback of the options can be used, the latter with its `user`,
 * until the call returns.
 */
df11_status df11_plan_model(const char *path,
                            const df11_plan_options *options,
                            df11_plan **out,
                            df11_error *error);

/**
 * Frees a plan, from any thread. NULL is allowed. Its texts go with it.
 *
 * Requires: No call uses `plan` any more.
 */
void df11_plan_free(df11_plan *plan);

/**
 * Describes a plan. After an error `*out` is cleared except for its struct_size; if that is wrong,
 * `*out` is left alone.
 *
 * Errors: DF11_INVALID_ARGUMENT.
 */
df11_status df11_plan_get_info(const df11_plan *plan, df11_plan_info *out, df11_error *error);

/**
 * Describes the group of that number, from 0, in the natural order of their names. After an error
 * `*out` is as after df11_plan_get_info().
 *
 * Errors: DF11_NOT_FOUND if there is no such group; DF11_INVALID_ARGUMENT.
 */
df11_status df11_plan_get_group_info(const df11_plan *plan,
                                     uint64_t group,
                                     df11_plan_group_info *out,
                                     df11_error *error);

/**
 * Describes what device number `device` of `device_count` holds, from 0, if the model is split by
 * layers (DF11_SPLIT_LAYERS) or by rows (DF11_SPLIT_ROWS). By layers, those of one device follow
 * one another, and the device that holds most holds as little as possible; by rows, all devices
 * hold as much, and what is said of them is an estimate. After an error `*out` is as after
 * df11_plan_get_info().
 *
 * Errors: DF11_NOT_FOUND if there is no such device; DF11_UNSUPPORTED_OPTION for another split;
 * DF11_INVALID_ARGUMENT, also for no device or more than 1024.
 */
df11_status df11_plan_get_share_info(const df11_plan *plan,
                                     uint32_t split,
                                     uint32_t device_count,
                                     uint32_t device,
                                     df11_plan_share_info *out,
                                     df11_error *error);

/**
 * Counts the tokens whose KV cache fits next to the weights, on `device_count` devices of
 * `device_memory_bytes` bytes each. `*tokens` are those next to the compressed model,
 * `*bf16_tokens` those next to the same model not compressed; DF11_PLAN_NONE if the weights
 * themselves do not fit. Either may be NULL. After an error both are DF11_PLAN_NONE.
 *
 * Errors: DF11_NOT_FOUND, with the reason, if the size of the cache is not known, or if its heads
 * cannot be split so; DF11_UNSUPPORTED_OPTION for another split; DF11_INVALID_ARGUMENT, also for no
 * device or more than 1024.
 */
df11_status df11_plan_count_tokens(const df11_plan *plan,
                                   uint32_t split,
                                   uint32_t device_count,
                                   uint64_t device_memory_bytes,
                                   uint64_t *tokens,
                                   uint64_t *bf16_tokens,
                                   df11_error *error);

/**
 * Write tensors whose shapes are not known to a folder with one dimension. Without it they are an
 * error. In a single file they have one dimension in any case. df11_decompress_options.shapes_from
 * makes them known.
 */
#define DF11_DECOMPRESS_FLAT 1

/**
 * Return DF11_EXISTS instead of replacing a single file `dst`. Without it the file is replaced. A
 * folder `dst` that is not empty is never written to, with or without it.
 */
#define DF11_DECOMPRESS_KEEP_EXISTING 2

/**
 * Accept a model whose config names a version of the compressor that this library does not know.
 */
#define DF11_DECOMPRESS_ANY_VERSION 4

/**
 * Decompress what is there of a model that lacks files, tensors or layers. Without it such a model
 * is refused; one of which some tensors or groups are chosen never is.
 */
#define DF11_DECOMPRESS_INCOMPLETE 8

/**
 * Write one file: `dst`, if it ends in .safetensors, else model.safetensors
 * (diffusion_pytorch_model.safetensors for diffusers) in the folder `dst`.
 */
#define DF11_REPACK_SINGLE_FILE 1

/**
 * Write a folder of one file per group, even if `dst` ends in .safetensors. With neither of the
 * two, `dst` is one file if it ends so, else such a folder.
 */
#define DF11_REPACK_FOLDER 2

/**
 * Return DF11_EXISTS instead of replacing a single file `dst` or its own config. Without it they
 * are replaced. A folder `dst` that is not empty is never written to, with or without it.
 */
#define DF11_REPACK_KEEP_EXISTING 4

/**
 * Accept a model whose config names a version of the compressor that this library does not know.
 */
#define DF11_REPACK_ANY_VERSION 8

/**
 * Repack what is there of a model that lacks files, tensors or layers. Without it such a model is
 * refused.
 */
#define DF11_REPACK_INCOMPLETE 16

/** The result of decompressing a model in numbers. Begin with DF11_DECOMPRESS_REPORT_INIT. */
typedef struct df11_decompress_report {
    /** sizeof(df11_decompress_report) */
    size_t struct_size;
    /** Tensors that were written. */
    uint64_t tensor_count;
    /** Those of them that have one dimension because their shapes are not known. */
    uint64_t flat_count;
    /** Files of tensors. */
    uint64_t file_count;
    /** Bytes of these files. */
    uint64_t written_bytes;
    /** Heads that are not stored, because they are tied to the embedding and equal to it. */
    uint64_t dropped_count;
    /**
     * Keys of the config.json that was written, without dfloat11_config; 0 if there is none.
     * Published models of diffusers have one, model_type: programs that load such a model need the
     * config.json of the original.
     */
    uint64_t config_key_count;
} df11_decompress_report;

/** Initialises a df11_decompress_report: every field but struct_size is 0 or NULL. */
#define DF11_DECOMPRESS_REPORT_INIT { sizeof(df11_decompress_report), 0, 0, 0, 0, 0, 0 }

/** How to decompress a model. Begin with DF11_DECOMPRESS_OPTIONS_INIT. */
typedef struct df11_decompress_options {
    /** sizeof(df11_decompress_options) */
    size_t struct_size;
    /**
     * Threads that work, the calling one among them; 0 means 1, and more than 128 do not help. One
     * more writes files. They end before the call returns, and each works in some 3 MiB of memory.
     */
    uint32_t threads;
    /** DF11_DECOMPRESS_* joined by | */
    uint32_t flags;
    /**
     * The most bytes of the tensors of one file in a folder; 0 means 5 000 000 000. A tensor that
     * is larger has a file of its own.
     */
    uint64_t shard_bytes;
    /** NULL, or the text of a config.json for the model; see df11_open_options. */
    const char *config_json;
    /**
     * NULL, or the path of a folder or file that has the shapes which the model's files do not say;
     * see df11_open_options.
     */
    const char *shapes_from;
    /** NULL, or the same as a JSON text; see df11_open_options. */
    const char *shapes_json;
    /**
     * The names of `tensor_count` tensors that are written. If that and `group_count` are 0, all
     * are.
     */
    const char *const *tensors;
    /** The number of `tensors`. */
    size_t tensor_count;
    /** The names of `group_count` groups whose tensors are written. */
    const char *const *groups;
    /** The number of `groups`. */
    size_t group_count;
    /** NULL, or a progress that counts and can cancel the call. */
    df11_progress *progress;
    /**
     * NULL, or a callback that is told of the progress. It may be given together with `progress`.
     */
    df11_progress_fn callback;
    /** The `user` of `callback`. */
    void *callback_user;
    /** NULL, or where to write the numbers. */
    df11_decompress_report *report;
} df11_decompress_options;

/** Initialises a df11_decompress_options: every field but struct_size is 0 or NULL. */
#define DF11_DECOMPRESS_OPTIONS_INIT \
    { sizeof(df11_decompress_options), 0, 0, 0, NULL, NULL, NULL, NULL, 0, NULL, 0, NULL, NULL, \
    NULL, NULL }

/** The result of repacking a model in numbers. Begin with DF11_REPACK_REPORT_INIT. */
typedef struct df11_repack_report {
    /** sizeof(df11_repack_report) */
    size_t struct_size;
    /** Groups that were copied. */
    uint64_t group_count;
    /** Tensors in no group that were copied. */
    uint64_t plain_count;
    /** Files of tensors. */
    uint64_t file_count;
    /** Bytes of these files. */
    uint64_t written_bytes;
} df11_repack_report;

/** Initialises a df11_repack_report: every field but struct_size is 0 or NULL. */
#define DF11_REPACK_REPORT_INIT { sizeof(df11_repack_report), 0, 0, 0, 0 }

/** How to repack a model. Begin with DF11_REPACK_OPTIONS_INIT. */
typedef struct df11_repack_options {
    /** sizeof(df11_repack_options) */
    size_t struct_size;
    /**
     * Threads that work, the calling one among them; 0 means 1. One more writes files. They end
     * before the call returns.
     */
    uint32_t threads;
    /** DF11_REPACK_* joined by | */
    uint32_t flags;
    /**
     * NULL, or the text of a config.json for the model, which is written for it too; see
     * df11_open_options.
     */
    const char *config_json;
    /**
     * NULL, or the path of a folder or file that has the shapes which the model's files do not say;
     * see df11_open_options. They are written, too.
     */
    const char *shapes_from;
    /** NULL, or the same as a JSON text; see df11_open_options. */
    const char *shapes_json;
    /** NULL, or a progress that counts and can cancel the call. */
    df11_progress *progress;
    /**
     * NULL, or a callback that is told of the progress. It may be given together with `progress`.
     */
    df11_progress_fn callback;
    /** The `user` of `callback`. */
    void *callback_user;
    /** NULL, or where to write the numbers. */
    df11_repack_report *report;
} df11_repack_options;

/** Initialises a df11_repack_options: every field but struct_size is 0 or NULL. */
#define DF11_REPACK_OPTIONS_INIT \
    { sizeof(df11_repack_options), 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL }

/**
 * Decompresses a model to plain safetensors, bit for bit. `src` is a model, a folder or a file;
 * nothing of it is changed. If `dst` ends in .safetensors, it becomes one file of all tensors.
 * An existing file is replaced when everything is done and not before. Otherwise it becomes a
 * folder as models are published, which is new or empty: files of tensors, in shards with an
 * index if there is more than one, config.json without dfloat11_config, and all other files of
 * the folder `src`. A head that is tied to the embedding and equal to it is not stored, as in
 * the original.
 *
 * `options` may be NULL. Tensors are processed a piece at a time and are never in memory whole.
 * df11_model_open() refuses the folder until all of it is there, and config.json comes last. A
 * failure leaves nothing; what a killed process has left is removed by the next call for the same
 * `dst`.
 *
 * Errors: DF11_EXISTS for a folder that is not empty, and with DF11_DECOMPRESS_KEEP_EXISTING for a
 * file that exists; DF11_BUSY for a `dst` that another call writes to; DF11_NOT_FOUND for the name
 * of a tensor or group that is not there; DF11_INVALID_ARGUMENT for shapes that are not known
 * without DF11_DECOMPRESS_FLAT, and for a `dst` that is part of `src` or of an unfinished
 * compression; DF11_INVALID_FORMAT, DF11_UNSUPPORTED_FORMAT and DF11_CORRUPT for the model, the
 * first also for one that lacks something without DF11_DECOMPRESS_INCOMPLETE;
 * DF11_UNSUPPORTED_OPTION, DF11_IO, DF11_CANCELLED, DF11_OUT_OF_MEMORY. After all of them the
 * report is all zeros.
 *
 * Requires: The progress and the callback of the options can be used, the latter with its `user`,
 * until the call returns.
 */
df11_status df11_decompress_model(const char *src,
                                  const char *dst,
                                  const df11_decompress_options *options,
                                  df11_error *error);

/**
 * Writes a compressed model in other files, placed as df11_compress_model() places them: a folder
 * as one file, and back. Nothing is decoded: groups and plain tensors keep their bytes, and shapes,
 * hashes and names that the files' metadata has are kept. config.json is copied: next to a single
 * file, or to a folder with all other files of the folder `src`. Nothing of `src` is changed.
 *
 * `options` may be NULL. `dst` appears when it is complete, and is undone after a failure, as by
 * df11_decompress_model().
 *
 * Errors: DF11_EXISTS for a folder that is not empty, and with DF11_REPACK_KEEP_EXISTING for a file
 * that exists; DF11_BUSY for a `dst` that another call writes to; DF11_INVALID_ARGUMENT for a model
 * that is not compressed, and for a `dst` that is part of `src` or of an unfinished compression;
 * DF11_INVALID_FORMAT, DF11_UNSUPPORTED_FORMAT and DF11_CORRUPT for the model, the first also for
 * one that lacks something without DF11_REPACK_INCOMPLETE; DF11_UNSUPPORTED_OPTION, DF11_IO,
 * DF11_CANCELLED, DF11_OUT_OF_MEMORY. After all of them the report is all zeros.
 *
 * Requires: The progress and the callback of the options can be used, the latter with its `user`,
 * until the call returns.
 */
df11_status df11_repack_model(const char *src,
                              const char *dst,
                              const df11_repack_options *options,
                              df11_error *error);

/** A preset. Begin with DF11_PRESET_INFO_INIT. */
typedef struct df11_preset_info {
    /** sizeof(df11_preset_info) */
    size_t struct_size;
    /** Its name, for df11_compress_options.preset. The text is static. */
    const char *name;
    /** Its pattern_dict, as JSON. The text is static. */
    const char *pattern_json;
} df11_preset_info;

/** Initialises a df11_preset_info: every field but struct_size is 0 or NULL. */
#define DF11_PRESET_INFO_INIT { sizeof(df11_preset_info), NULL, NULL }

/** Returns the number of presets. */
uint64_t df11_preset_count(void);

/**
 * Describes the preset of that number, from 0. After an error `*out` is cleared except for its
 * struct_size; if that is wrong, `*out` is left alone.
 *
 * Errors: DF11_NOT_FOUND if there is no such preset; DF11_INVALID_ARGUMENT.
 */
df11_status df11_preset_get_info(uint64_t preset, df11_preset_info *out, df11_error *error);

/**
 * The six members of a compressed group in buffers that you provide, and their sizes in bytes. A
 * file stores each as a tensor called NAME.luts and so on, where NAME is the module's name; see
 * DF11_PART_* for what their bytes mean. No address needs an alignment. Begin with
 * DF11_PACKED_GROUP_INIT.
 */
typedef struct df11_packed_group {
    /** sizeof(df11_packed_group) */
    size_t struct_size;
    /** In a file of type U8 and shape (luts_bytes / 256, 256) */
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
    /**
     * I64, one dimension: little-endian, 8 bytes for each tensor but the last, so none for a single
     * tensor
     */
    void *split_positions;
    /** Bytes of `split_positions` */
    size_t split_positions_bytes;
} df11_packed_group;

/** Initialises a df11_packed_group: every field but struct_size is 0 or NULL. */
#define DF11_PACKED_GROUP_INIT \
    { sizeof(df11_packed_group), NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0 }

/**
 * Compresses a group in memory: the weights of its tensors one after the other, in the order of the
 * pattern's list, encoded byte for byte as the reference compressor does.
 *
 * `tensors` are the addresses of `tensor_count` tensors, 1 to 1024, and `element_counts` the
 * number of weights in each, bf16 bits in the processor's byte order; all together at most
 * 4294967295. Each address is aligned to 2 bytes; a tensor of no weights may be NULL. `threads`
 * threads work, the calling one among them; 0 means 1. They end before the call returns, and the
 * bytes do not depend on their number. The call allocates some 3 KiB for each tensor and for every
 * 262144 weights of it, and less than 4 MiB for each thread. Weights are read twice.
 *
 * `io` gives the buffer for each member, its address and the bytes that it holds, and receives the
 * bytes that were written. If all six addresses are NULL, the sizes that the members need are set
 * and nothing is written; the weights are then read once. Otherwise only a member of 0 bytes may be
 * NULL, such as the split positions of a single tensor.
 *
 * Errors: DF11_BUFFER_TOO_SMALL, which sets the sizes that the members need, too, and writes
 * nothing else; DF11_MISALIGNED; DF11_INVALID_ARGUMENT for all else that is wrong with the
 * arguments, for no weights at all, and for an exponent of 240 or more (an infinity, a NaN, a
 * magnitude of 2^113 or more), which the format cannot hold: store such a group's tensors as they
 * are; DF11_UNSUPPORTED_OPTION, DF11_OUT_OF_MEMORY. After all but the first the sizes are 0.
 *
 * Requires: The weights do not change during the call. The members' buffers overlap neither each
 * other nor the weights, and nobody else uses them during the call.
 */
df11_status df11_compress_group(const void *const *tensors,
                                const uint64_t *element_counts,
                                size_t tensor_count,
                                uint32_t threads,
                                df11_packed_group *io,
                                df11_error *error);

/**
 * Sets the sizes of `out` to the most that a group of these weights can take, whatever they are,
 * and leaves its addresses alone: buffers of these sizes are enough for df11_compress_group().
 * `element_counts` are the weights of its `tensor_count` tensors. A group of trained weights takes
 * about a third of it for `encoded_exponent`.
 *
 * Errors: DF11_INVALID_ARGUMENT, for the same counts as in df11_compress_group();
 * DF11_UNSUPPORTED_OPTION. The sizes are then 0.
 */
df11_status df11_compress_bound(const uint64_t *element_counts,
                                size_t tensor_count,
                                df11_packed_group *out,
                                df11_error *error);

/* ============================================================================================== */
/* 15. VERIFY: whole models                                                                       */
/* ============================================================================================== */

/** A group whose codes agree with its gaps and positions: nothing is wrong. */
#define DF11_FINDING_GOOD 1

/** A group whose codes do not. */
#define DF11_FINDING_BAD 2

/** A tensor whose hash is not the one in the file's metadata. */
#define DF11_FINDING_HASH 3

/** A tensor that differs from the original's, or that only one of the two models has. */
#define DF11_FINDING_DIFFERS 4

/**
 * Something that a person should know, such as a tied lm_head that only one model has: nothing is
 * wrong.
 */
#define DF11_FINDING_NOTE 5

/**
 * Something that the model lacks: the name is that of a file, a tensor or a layer, or of several
 * (`model.layers.3 to 5`).
 */
#define DF11_FINDING_MISSING 6

/** Accept a model that lacks files, tensors or layers: there are no DF11_FINDING_MISSING. */
#define DF11_VERIFY_INCOMPLETE 256

/** Accept a model that has no group, which nobody compressed, also without an original. */
#define DF11_VERIFY_ALLOW_PLAIN 512

/**
 * Called for each group, and for each tensor about which there is something to say: `user` as
 * given, DF11_FINDING_*, the name of the group or tensor, and one sentence about it. Both texts are
 * UTF-8, end in a zero byte and are valid during the call only; escape them before you print them.
 * Newer versions may have more kinds. It runs on the thread that called df11_verify_model(), and
 * must not unwind.
 */
typedef void (*df11_finding_fn)(void *user, uint32_t kind, const char *name, const char *text);

/** The result of a verification in numbers. Begin with DF11_VERIFY_REPORT_INIT. */
typedef struct df11_verify_report {
    /** sizeof(df11_verify_report) */
    size_t struct_size;
    /** Groups whose codes agree with their gaps and positions. */
    uint64_t groups_good;
    /** Groups whose codes do not. */
    uint64_t groups_bad;
    /** Codes in all groups, one for each weight. */
    uint64_t code_count;
    /** Tensors whose hash is the one in the model's metadata. */
    uint64_t hashes_right;
    /** Tensors that have another hash, or that cannot be decoded. */
    uint64_t hashes_wrong;
    /** Tensors that equal the original's. */
    uint64_t tensors_equal;
    /** Tensors that differ from the original's, or that only one of the two models has. */
    uint64_t tensors_different;
    /** Files, tensors and layers that the model lacks, several in a row counted once. */
    uint64_t missing_count;
} df11_verify_report;

/** Initialises a df11_verify_report: every field but struct_size is 0 or NULL. */
#define DF11_VERIFY_REPORT_INIT { sizeof(df11_verify_report), 0, 0, 0, 0, 0, 0, 0, 0 }

/** How to verify. Begin with DF11_VERIFY_OPTIONS_INIT. */
typedef struct df11_verify_options {
    /** sizeof(df11_verify_options) */
    size_t struct_size;
    /** Threads to use, the calling one among them; 0 means 1. They end before the call returns. */
    uint32_t threads;
    /**
     * DF11_OPEN_ANY_VERSION, DF11_VERIFY_INCOMPLETE and DF11_VERIFY_ALLOW_PLAIN joined by |, or 0
     */
    uint32_t flags;
    /** NULL, or the text of a config.json for the model; see df11_open_options. */
    const char *config_json;
    /**
     * NULL, or the path of a folder or file that has the shapes which the model's files do not say;
     * see df11_open_options. They are compared
     * with the original's.
     */
    const char *shapes_from;
    /** NULL, or the same as a JSON text; see df11_open_options. */
    const char *shapes_json;
    /** NULL, or a progress that counts and can cancel the call. */
    df11_progress *progress;
    /**
     * NULL, or a callback that is told of the progress. It may be given together with `progress`.
     */
    df11_progress_fn callback;
    /** The `user` of `callback`. */
    void *callback_user;
    /** NULL, or a callback that is told of the findings. */
    df11_finding_fn finding;
    /** The `user` of `finding`. */
    void *finding_user;
    /** NULL, or where to write the numbers. */
    df11_verify_report *report;
} df11_verify_options;

/** Initialises a df11_verify_options: every field but struct_size is 0 or NULL. */
#define DF11_VERIFY_OPTIONS_INIT \
    { sizeof(df11_verify_options), 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL }

/**
 * Verifies a whole model, a folder or a file. It opens it as df11_model_open() does, and looks
 * for what is absent from a folder: files whose names have numbers (-00002-of-00003) or that an
 * index lists, layers between others, and layers of which config.json says that they are there.
 * Not all that is absent shows. It walks every code of every group, and compares the SHA-256 of
 * each tensor for which the files' metadata has one (under "df11.sha256"). If there is an
 * original (a folder of any number of files, or one file), it compares every tensor with it:
 * type, shape where it is known (DF11_SHAPE_UNKNOWN is the only one that is not), every bit. It
 * continues after what is wrong, so that everything wrong is found.
 *
 * `original` and `options` may be NULL. Files are read piece by piece, never mapped, and the call
 * takes at most 16 MiB and 2 MiB for each thread, plus the memory of an open model. Of an original
 * with a model.safetensors.index.json the files that it lists are opened.
 *
 * DF11_OK: nothing is wrong. DF11_CORRUPT: something is, and the message is the first such
 * finding's; or the model cannot be opened because of it. The report is written in both cases.
 * It is all zeros if the model could not be opened, and after all other errors:
 * DF11_INVALID_FORMAT and DF11_UNSUPPORTED_FORMAT for the model, and for one without a group if
 * there is no original, DF11_INVALID_ARGUMENT for an original that cannot be used, DF11_IO,
 * DF11_CANCELLED, DF11_UNSUPPORTED_OPTION, DF11_OUT_OF_MEMORY.
 *
 * Requires: The progress and the callbacks of the options can be used, each with its `user`, until
 * the call returns.
 */
df11_status df11_verify_model(const char *model,
                              const char *original,
                              const df11_verify_options *options,
                              df11_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  /* DF11_H */
