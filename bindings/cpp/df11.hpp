/*
 * df11.hpp: libdf11 for C++17 and later. Licence: Apache-2.0 OR MIT.
 *
 * This header adds owners, exceptions and ranges to df11.h, and nothing else. Every call is one C call, no memory is
 * copied, and what df11.h says about sizes, alignment, threads, streams and errors applies here. df11.h is the manual;
 * this file documents the differences.
 *
 *     df11::Model model = df11::Model::open("Qwen3-8B-DF11");
 *     for (const df11::Group &group : model.groups()) {
 *         std::vector<std::uint16_t> weights(group.element_count());            // bf16
 *         model.decompress(group.index(), weights, 8);
 *     }
 *
 *     if (auto tensor = model.find_tensor("model.norm.weight")) {               // one tensor, by its name
 *         std::vector<unsigned char> values(tensor->data_bytes());
 *         model.read_tensor(tensor->index(), 0, values, 8);
 *     }
 *
 *     df11::Device device = df11::Device::open(0);                              // at start: loads every kernel
 *     df11::Resident layer = device.upload(model, 0, d_image, image_bytes, stream);
 *     layer.decompress(d_weights, dst_bytes, d_status, stream);                 // before each use
 *
 * NAMES
 *   A C function becomes a member of the class of its handle: df11_model_read_tensor() is Model::read_tensor(),
 *   df11_resident_decompress_batch() is the static Resident::decompress_batch(), df11_verify_model() is
 *   df11::verify_model(), df11_plan_model() is the static Plan::model() and
 *   df11_model_make_shard() the static Shard::make(). Exceptions: Progress::create() and Progress::amount() are df11_progress_new() and
 *   df11_progress_get(); groups(), tensors() and Log are ranges and an owner over several C functions.
 *
 * OWNERSHIP
 *   Model, Matrix, Shard, Device, Resident, Plan and Progress are move-only RAII handles of the size of a pointer. Each owns one C handle. A
 *   default-constructed or moved-from object is empty: calls on it fail with DF11_INVALID_ARGUMENT. get() returns the C
 *   handle for calls of df11.h, release() gives it up, and a constructor such as Model(handle) takes one over. Group,
 *   Tensor and everything that they return (names, shapes, data) point into the model and stay valid as long as it
 *   lives, also when the Model object is moved. No object here owns weights or device memory.
 *
 * ARGUMENTS
 *   Bytes, ConstBytes and Span are a pointer and a length. They convert from arrays, vectors, std::span and every other
 *   type with data() and size(). Text is a zero-terminated string and converts from literals, std::string and
 *   std::filesystem::path. All four borrow for the duration of the call. In C++20 a Span is a borrowed range and
 *   converts to std::span. It is the same type in every standard, so a program can link files that were compiled as
 *   C++17 and as C++20.
 *
 * ERRORS
 *   A call that fails throws df11::Error, which carries the status, the system's error number and the library's
 *   message. Calls that open something and calls of the hot path also have a noexcept variant with the prefix try_. It
 *   returns the df11_status and takes an optional df11_error * as its last argument. A try_ call that makes a handle
 *   assigns it to `out`; after an error `out` is empty.
 *
 *   Statuses are those of C: DF11_CORRUPT, DF11_EXISTS, DF11_UNFINISHED, DF11_BUSY and so on.
 *
 *   With -fno-exceptions the header has no throwing call, and neither verify_model(), compress_model(), merge_model()
 *   nor Log, whose callbacks may throw. The try_ calls, the ranges and the C functions remain. Such a file may be
 *   linked with files that have exceptions, but df11::Model and the other classes are then different types in the two:
 *   pass C handles between them.
 *
 * CALLBACKS
 *   An exception that a callback of verify_model(), compress_model() or merge_model() throws does not cross the C code.
 *   It cancels the call and is rethrown when the C call has returned. An exception of a log callback is dropped.
 *
 * THREADS
 *   As in C: any number of threads may make const calls on one object at the same time. Moving, assigning and
 *   destroying an object require that no other thread uses it. Destructors wait for nothing and touch no device memory,
 *   with the exceptions that df11_device_free() documents.
 *
 * NOT HERE
 *   df11_compress_group(), df11_compress_bound() and the presets take plain structs, in C++ as in C. Call them, and
 *   functions of a newer df11.h, like this: `df11_error e; df11::check(df11_compress_bound(counts, n, &group, &e), e);`
 */
#ifndef DF11_HPP
#define DF11_HPP

#if defined(_MSVC_LANG) ? _MSVC_LANG < 201703L : __cplusplus < 201703L
#error "df11.hpp needs C++17 or later; df11.h works with C++11"
#endif

#include "df11.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>
#include <type_traits>
#include <utility>

#if __cplusplus >= 202002L
#include <ranges>
#endif

#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
#define DF11_HPP_EXCEPTIONS 1
#include <atomic>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>
#endif

// Marks constructors whose object is useless unless it is kept. C++17 allows [[nodiscard]] on functions and classes
// only.
#if defined(__has_cpp_attribute)
#if __has_cpp_attribute(nodiscard) >= 201907L
#define DF11_HPP_KEPT [[nodiscard]]
#endif
#endif
#ifndef DF11_HPP_KEPT
#define DF11_HPP_KEPT
#endif

static_assert(DF11_VERSION_MAJOR == 0 && DF11_VERSION_MINOR == 1, "df11.hpp and df11.h are of different versions");

namespace df11 {

// Symbol names carry the header's version and whether the file has exceptions, so that the linker never merges inline
// functions of different versions.
#ifdef DF11_HPP_EXCEPTIONS
inline namespace v0_1 {
#else
inline namespace v0_1_noexcept {
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Errors
// ---------------------------------------------------------------------------------------------------------------------

#ifdef DF11_HPP_EXCEPTIONS
/// A failed call. what() is the library's message, which names the file, the tensor and the byte where they are known.
///
/// The base is std::runtime_error and not std::system_error, because most statuses are not error numbers of a system,
/// and because the message is complete.
class Error : public std::runtime_error {
  public:
    /// Copies the error that a C call wrote.
    explicit Error(const df11_error &error)
        : std::runtime_error(error.message), status_(error.status), native_code_(error.native_code) {}

    /// Returns the DF11_* status, never DF11_OK. Treat an unknown one by its range: see df11_status.
    df11_status status() const noexcept { return status_; }
    /// Returns the system's error number: an errno, a CUresult, or 0.
    std::int32_t native_code() const noexcept { return native_code_; }
    /// Returns the status's name without its prefix, such as "CORRUPT"; "UNKNOWN" for a status of a newer library. The
    /// text is static.
    const char *name() const noexcept { return df11_status_name(status_); }

  private:
    df11_status status_;
    std::int32_t native_code_;
};

namespace detail {
// Out of line, so that a successful call costs one comparison.
#if defined(__GNUC__)
[[gnu::noinline, gnu::cold]]
#endif
[[noreturn]] inline void
raise(const df11_error &error) {
    throw Error(error);
}
}  // namespace detail

/// Throws Error unless `status` is DF11_OK. `error` is the error that the same call wrote.
inline void check(df11_status status, const df11_error &error) {
    if (status != DF11_OK) detail::raise(error);
}
#endif

/// Returns the version of the running library, such as "0.1.0".
inline std::string_view version() noexcept { return df11_version_string(); }

// ---------------------------------------------------------------------------------------------------------------------
// Arguments
// ---------------------------------------------------------------------------------------------------------------------

namespace detail {
// The element type of the contiguous container C, `const` if the elements are read-only.
template <typename C> using Element = std::remove_pointer_t<decltype(std::data(std::declval<C &>()))>;

template <typename C, typename Self> constexpr bool is_other =
    !std::is_same_v<std::remove_cv_t<std::remove_reference_t<C>>, Self>;

// Returns a struct of the C ABI with its struct_size set and every other field zero.
template <typename T> T sized() noexcept {
    T value{};
    value.struct_size = sizeof(T);
    return value;
}

// Writes an error as the library does, for mistakes that this header finds.
inline df11_status refuse(df11_error *error, const char *message) noexcept {
    if (error != nullptr) {
        error->status = DF11_INVALID_ARGUMENT;
        error->native_code = 0;
        std::strncpy(error->message, message, sizeof(error->message) - 1);
        error->message[sizeof(error->message) - 1] = 0;
    }
    return DF11_INVALID_ARGUMENT;
}
}  // namespace detail

/// A borrowed range of contiguous elements: std::span for every standard from C++17 on.
template <typename T> class Span {
  public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    using iterator = T *;

    constexpr Span() noexcept = default;
    /// Refers to `count` elements at `data`.
    constexpr Span(T *data, std::size_t count) noexcept : data_(data), size_(count) {}
    /// Refers to all elements of an array, a vector, a std::span or a similar container.
    template <typename C, typename E = detail::Element<C>,
              typename = std::enable_if_t<detail::is_other<C, Span> && std::is_convertible_v<E (*)[], T (*)[]>>>
    constexpr Span(C &&elements) noexcept : data_(std::data(elements)), size_(std::size(elements)) {}

    constexpr T *data() const noexcept { return data_; }
    /// Returns the number of elements.
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    /// Returns element `i`, which must be below size().
    constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/// A borrowed buffer for output: an address and a number of bytes.
class Bytes {
  public:
    /// Refers to `size` bytes at `data`.
    constexpr Bytes(void *data, std::size_t size) noexcept : data_(data), size_(size) {}
    /// Refers to all bytes of an array, a vector, a std::span or a similar container of trivially copyable elements.
    template <typename C, typename E = detail::Element<C>,
              typename = std::enable_if_t<detail::is_other<C, Bytes> && std::is_trivially_copyable_v<E> &&
                                          !std::is_const_v<E>>>
    constexpr Bytes(C &&elements) noexcept : data_(std::data(elements)), size_(std::size(elements) * sizeof(E)) {}

    constexpr void *data() const noexcept { return data_; }
    /// Returns the number of bytes.
    constexpr std::size_t size() const noexcept { return size_; }

  private:
    void *data_;
    std::size_t size_;
};

/// A borrowed buffer for input: an address and a number of bytes.
class ConstBytes {
  public:
    /// Refers to `size` bytes at `data`.
    constexpr ConstBytes(const void *data, std::size_t size) noexcept : data_(data), size_(size) {}
    constexpr ConstBytes(Bytes bytes) noexcept : data_(bytes.data()), size_(bytes.size()) {}
    /// Refers to all bytes of an array, a vector, a std::span or a similar container of trivially copyable elements.
    template <typename C, typename E = detail::Element<C>,
              typename = std::enable_if_t<detail::is_other<C, ConstBytes> && std::is_trivially_copyable_v<E>>>
    constexpr ConstBytes(C &&elements) noexcept : data_(std::data(elements)), size_(std::size(elements) * sizeof(E)) {}

    constexpr const void *data() const noexcept { return data_; }
    /// Returns the number of bytes.
    constexpr std::size_t size() const noexcept { return size_; }

  private:
    const void *data_;
    std::size_t size_;
};

/// A borrowed zero-terminated string; nullptr where the call allows NULL.
class Text {
  public:
    constexpr Text(const char *text) noexcept : text_(text) {}
    /// Refers to the text of a std::string, a std::filesystem::path or another type with c_str().
    template <typename S, typename = std::enable_if_t<
                              std::is_convertible_v<decltype(std::declval<const S &>().c_str()), const char *>>>
    Text(const S &text) noexcept : text_(text.c_str()) {}

    constexpr const char *c_str() const noexcept { return text_; }

  private:
    const char *text_;
};

/// Converts a device pointer of the CUDA runtime to the address type of the library.
inline df11_devptr device_address(const void *pointer) noexcept { return reinterpret_cast<std::uintptr_t>(pointer); }

// ---------------------------------------------------------------------------------------------------------------------
// What is in a model
// ---------------------------------------------------------------------------------------------------------------------

/// Returns the name of a type (DF11_DTYPE_*) as safetensors files spell it, such as "BF16".
inline std::string_view dtype_name(std::uint32_t dtype) noexcept { return df11_dtype_name(dtype); }

/// Returns the bytes of an element of a type (DF11_DTYPE_*); 0 if they are no whole number, or the type is unknown.
inline std::size_t dtype_bytes(std::uint32_t dtype) noexcept { return df11_dtype_bytes(dtype); }

/// The description of a tensor: a copy of its df11_tensor_info. Texts, shape and data belong to the model.
class Tensor {
  public:
    /// Describes the tensor with that number. If there is none, all fields are zero and the name is empty.
    Tensor(const df11_model *model, std::uint64_t index) noexcept
        : model_(model), index_(index), info_(detail::sized<df11_tensor_info>()) {
        if (df11_model_get_tensor_info(model, index, &info_, nullptr) != DF11_OK) info_.group = DF11_NO_GROUP;
    }

    /// Returns its number in the model.
    std::uint64_t index() const noexcept { return index_; }
    /// Returns its full name: UTF-8, followed by a zero byte. It comes from the file: escape it before you print it.
    std::string_view name() const noexcept { return info_.name != nullptr ? info_.name : ""; }
    /// Returns the type of its elements: DF11_DTYPE_*.
    std::uint32_t dtype() const noexcept { return info_.dtype; }
    /// Returns its dimensions in elements, the last one contiguous. A compressed tensor whose shape is not known has one
    /// dimension.
    Span<const std::uint64_t> shape() const noexcept { return {info_.shape, info_.rank}; }
    /// Tells whether its dimensions are known.
    bool shape_known() const noexcept { return info_.shape_known != DF11_SHAPE_UNKNOWN; }
    /// Returns where its dimensions come from: DF11_SHAPE_*.
    std::uint32_t shape_source() const noexcept { return info_.shape_known; }
    /// Returns the size of its decoded values in bytes.
    std::uint64_t data_bytes() const noexcept { return info_.data_bytes; }
    /// Returns the number of the group that its first element is in, or no value for a plain tensor. If it has several
    /// runs, others of its elements are in other groups.
    std::optional<std::uint64_t> group() const noexcept {
        return info_.group != DF11_NO_GROUP ? std::optional<std::uint64_t>(info_.group) : std::nullopt;
    }
    /// Returns the position of its first weight in that group, in elements; 0 for a plain tensor.
    std::uint64_t group_offset() const noexcept { return info_.group_offset; }
    /// Returns the number of its runs: 0 for a plain tensor, 1 for one that is whole in a group.
    std::uint64_t run_count() const noexcept { return info_.run_count; }
    /// Describes its run `run`, which must be below run_count(): df11_model_get_tensor_run().
    df11_run_info run(std::uint64_t run) const noexcept {
        auto info = detail::sized<df11_run_info>();
        (void)df11_model_get_tensor_run(model_, index_, run, &info, nullptr);
        return info;
    }
    /// Returns the values of a plain tensor in the mapped file, without any alignment. The span is empty for a tensor
    /// in a group, and with DF11_OPEN_READ.
    Span<const unsigned char> data() const noexcept {
        const auto *data = static_cast<const unsigned char *>(info_.data);
        return {data, data != nullptr ? static_cast<std::size_t>(info_.data_bytes) : 0};
    }
    /// Returns the C struct, which also names the file of a plain tensor.
    const df11_tensor_info &info() const noexcept { return info_; }
    /// Copies or decodes all its values to `dst`, which holds at least data_bytes() bytes: df11_model_read_tensor(). For a
    /// tensor in a group `dst` is aligned to 2. `threads` threads work; 0 means 1. Model::try_read_tensor() reads a part.
    [[nodiscard]] df11_status try_read(Bytes dst, std::uint32_t threads = 1,
                                       df11_error *error = nullptr) const noexcept {
        if (dst.size() < info_.data_bytes) return detail::refuse(error, "dst is smaller than the tensor");
        return df11_model_read_tensor(model_, index_, 0, dst.data(), static_cast<std::size_t>(info_.data_bytes), threads,
                                      error);
    }
#ifdef DF11_HPP_EXCEPTIONS
    /// Copies or decodes all its values: see try_read().
    void read(Bytes dst, std::uint32_t threads = 1) const {
        df11_error error;
        check(try_read(dst, threads, &error), error);
    }
#endif

  private:
    const df11_model *model_;
    std::uint64_t index_;
    df11_tensor_info info_;
};

namespace detail {
/// A random access range of things with consecutive numbers in a model. Each is described when it is accessed.
template <typename T> class Numbered {
  public:
    class iterator {
      public:
        using value_type = T;
        using difference_type = std::ptrdiff_t;
        using reference = T;
        /// The result of `->`: it holds the value that is made on access.
        struct pointer {
            T value;
            const T *operator->() const noexcept { return &value; }
        };
        // Elements are values, which C++17 allows for input iterators only. C++20 looks at iterator_concept.
        using iterator_category = std::input_iterator_tag;
        using iterator_concept = std::random_access_iterator_tag;

        iterator() noexcept = default;
        iterator(const df11_model *model, std::uint64_t at) noexcept : model_(model), at_(at) {}

        T operator*() const noexcept { return T(model_, at_); }
        pointer operator->() const noexcept { return {T(model_, at_)}; }
        T operator[](difference_type n) const noexcept { return *(*this + n); }
        iterator &operator++() noexcept { return *this += 1; }
        iterator &operator--() noexcept { return *this -= 1; }
        iterator operator++(int) noexcept { return std::exchange(*this, *this + 1); }
        iterator operator--(int) noexcept { return std::exchange(*this, *this - 1); }
        iterator &operator+=(difference_type n) noexcept {
            at_ += static_cast<std::uint64_t>(n);
            return *this;
        }
        iterator &operator-=(difference_type n) noexcept {
            at_ -= static_cast<std::uint64_t>(n);
            return *this;
        }
        friend iterator operator+(iterator i, difference_type n) noexcept { return i += n; }
        friend iterator operator+(difference_type n, iterator i) noexcept { return i += n; }
        friend iterator operator-(iterator i, difference_type n) noexcept { return i -= n; }
        friend difference_type operator-(const iterator &a, const iterator &b) noexcept {
            return static_cast<difference_type>(a.at_ - b.at_);
        }
        friend bool operator==(const iterator &a, const iterator &b) noexcept { return a.at_ == b.at_; }
        friend bool operator!=(const iterator &a, const iterator &b) noexcept { return a.at_ != b.at_; }
        friend bool operator<(const iterator &a, const iterator &b) noexcept { return a.at_ < b.at_; }
        friend bool operator>(const iterator &a, const iterator &b) noexcept { return a.at_ > b.at_; }
        friend bool operator<=(const iterator &a, const iterator &b) noexcept { return a.at_ <= b.at_; }
        friend bool operator>=(const iterator &a, const iterator &b) noexcept { return a.at_ >= b.at_; }

      private:
        const df11_model *model_ = nullptr;
        std::uint64_t at_ = 0;
    };

    Numbered() noexcept = default;
    Numbered(const df11_model *model, std::uint64_t first, std::uint64_t count) noexcept
        : model_(model), first_(first), count_(count) {}

    /// Returns the number of elements.
    std::size_t size() const noexcept { return static_cast<std::size_t>(count_); }
    bool empty() const noexcept { return count_ == 0; }
    /// Returns element `i` of this range, which must be below size().
    T operator[](std::size_t i) const noexcept { return T(model_, first_ + i); }
    iterator begin() const noexcept { return {model_, first_}; }
    iterator end() const noexcept { return {model_, first_ + count_}; }

  private:
    const df11_model *model_ = nullptr;
    std::uint64_t first_ = 0;
    std::uint64_t count_ = 0;
};
}  // namespace detail

/// Some or all tensors of a model, in the order of their numbers: a range of Tensor.
using Tensors = detail::Numbered<Tensor>;

/// The description of a group: a copy of its df11_group_info. Its name belongs to the model.
class Group {
  public:
    /// Describes the group with that number. If there is none, all fields are zero and the name is empty.
    Group(const df11_model *model, std::uint64_t index) noexcept
        : model_(model), index_(index), info_(detail::sized<df11_group_info>()) {
        (void)df11_model_get_group_info(model, index, &info_, nullptr);
    }

    /// Returns its number in the model.
    std::uint64_t index() const noexcept { return index_; }
    /// Returns the module's full name, such as "model.layers.0": UTF-8, followed by a zero byte. It comes from the
    /// file: escape it before you print it.
    std::string_view name() const noexcept { return info_.name != nullptr ? info_.name : ""; }
    /// Returns the number of weights in all its tensors.
    std::uint64_t element_count() const noexcept { return info_.element_count; }
    /// Returns the size of its decoded weights in bytes: two for each.
    std::uint64_t data_bytes() const noexcept { return 2 * info_.element_count; }
    /// Returns the size of its six parts in the files, in bytes.
    std::uint64_t packed_bytes() const noexcept { return info_.packed_bytes; }
    /// Returns the size of its image in bytes; 0 if no image can hold it.
    std::uint64_t image_bytes() const noexcept { return info_.image_bytes; }
    /// Returns its tensors, in the order of their weights. Of a tensor that is in several groups it has a part only. The
    /// range is empty if the tensors do not follow each other in the model; run() has the tensor of each in any case.
    Tensors tensors() const noexcept {
        return {model_, info_.first_tensor, info_.first_tensor != DF11_NO_TENSOR ? info_.tensor_count : 0};
    }
    /// Returns the number of its runs: of its tensors, unless it has parts of them only.
    std::uint64_t run_count() const noexcept { return info_.tensor_count; }
    /// Describes its run `run`, which must be below run_count(), in the order of its weights: df11_model_get_group_run().
    df11_run_info run(std::uint64_t run) const noexcept {
        auto info = detail::sized<df11_run_info>();
        (void)df11_model_get_group_run(model_, index_, run, &info, nullptr);
        return info;
    }
    /// Returns whether it is an extension of the format: programs that know only DF11 do not find its weights.
    bool extended() const noexcept { return info_.extended != 0; }
    /// Decodes all its weights to `dst`, which holds at least data_bytes() bytes and is aligned to 2:
    /// df11_model_decompress(). `threads` threads work; 0 means 1. Model::try_decompress() decodes a range.
    [[nodiscard]] df11_status try_decompress(Bytes dst, std::uint32_t threads = 1,
                                             df11_error *error = nullptr) const noexcept {
        return df11_model_decompress(model_, index_, 0, info_.element_count, dst.data(), dst.size(), threads, error);
    }
#ifdef DF11_HPP_EXCEPTIONS
    /// Decodes all its weights: see try_decompress().
    void decompress(Bytes dst, std::uint32_t threads = 1) const {
        df11_error error;
        check(try_decompress(dst, threads, &error), error);
    }
#endif
    /// Returns the C struct.
    const df11_group_info &info() const noexcept { return info_; }

  private:
    const df11_model *model_;
    std::uint64_t index_;
    df11_group_info info_;
};

/// All groups of a model, in the natural order of their names: a range of Group.
using Groups = detail::Numbered<Group>;

// ---------------------------------------------------------------------------------------------------------------------
// Handles
// ---------------------------------------------------------------------------------------------------------------------

namespace detail {
/// The base of all handles: a std::unique_ptr whose deleter is the C function and has no size.
template <typename C, void (*Free)(C *)> class Owner {
  public:
    /// Returns the C handle for calls of df11.h, or nullptr if this is empty. This object still owns it.
    C *get() const noexcept { return handle_.get(); }
    /// Returns the C handle, which the caller must free, and leaves this empty.
    [[nodiscard]] C *release() noexcept { return handle_.release(); }
    /// Returns whether this has a handle.
    explicit operator bool() const noexcept { return handle_ != nullptr; }

  protected:
    Owner() noexcept = default;
    explicit Owner(C *handle) noexcept : handle_(handle) {}

  private:
    struct Deleter {
        void operator()(C *handle) const noexcept { Free(handle); }
    };
    std::unique_ptr<C, Deleter> handle_;
};
}  // namespace detail

/// The progress of a long call. Any thread may read it and cancel the call. It must outlive the call.
class Progress : public detail::Owner<df11_progress, df11_progress_free> {
  public:
    /// Bytes of the call's work. `total` is 0 until it is known.
    struct Amount {
        std::uint64_t done = 0;
        std::uint64_t total = 0;
    };

    /// Makes an empty one, in which nothing is counted.
    Progress() noexcept = default;
    /// Takes over a handle from C.
    explicit Progress(df11_progress *handle) noexcept : Owner(handle) {}

    /// Makes a progress at 0 of 0 bytes: df11_progress_new().
    [[nodiscard]] static df11_status try_create(Progress &out, df11_error *error = nullptr) noexcept {
        df11_progress *handle = nullptr;
        const df11_status status = df11_progress_new(&handle, error);
        out = Progress(handle);
        return status;
    }
    /// Returns how far the call is: df11_progress_get().
    Amount amount() const noexcept {
        Amount amount;
        df11_progress_get(get(), &amount.done, &amount.total);
        return amount;
    }
    /// Cancels the call that uses this progress, and every later one: they fail with DF11_CANCELLED.
    void cancel() const noexcept { df11_progress_cancel(get()); }

#ifdef DF11_HPP_EXCEPTIONS
    /// Makes a progress at 0 of 0 bytes.
    [[nodiscard]] static Progress create() {
        df11_error error;
        Progress progress;
        check(try_create(progress, &error), error);
        return progress;
    }
#endif
};

/// Options for opening a model. In C++20: `{.flags = DF11_OPEN_VERIFY, .threads = 8}`.
struct OpenOptions {
    /// DF11_OPEN_* joined by |
    std::uint32_t flags = 0;
    /// Threads for DF11_OPEN_VERIFY, including the calling one; 0 means 1.
    std::uint32_t threads = 0;
    /// NULL, or the text of a config.json that replaces the model's own. It is read during the call only.
    const char *config_json = nullptr;
    /// NULL, or a progress that counts the bytes of DF11_OPEN_VERIFY, two for each weight, and can cancel the call.
    const Progress *progress = nullptr;
    /// NULL, or a folder or file with the shapes that the model's files do not say: see df11_open_options. It is read
    /// during the call only.
    const char *shapes_from = nullptr;
    /// NULL, or a JSON object from names of tensors to lists of dimensions. It is read during the call only.
    const char *shapes_json = nullptr;

    /// Returns the same options as a C struct.
    df11_open_options c() const noexcept {
        auto out = detail::sized<df11_open_options>();
        out.flags = flags;
        out.threads = threads;
        out.config_json = config_json;
        out.progress = progress != nullptr ? progress->get() : nullptr;
        out.shapes_from = shapes_from;
        out.shapes_json = shapes_json;
        return out;
    }
};

/// An open model. It is immutable, and any number of threads may use it at once.
class Model : public detail::Owner<df11_model, df11_model_free> {
  public:
    /// Makes an empty one.
    Model() noexcept = default;
    /// Takes over a handle from C.
    explicit Model(df11_model *handle) noexcept : Owner(handle) {}

    /// Opens a folder or one .safetensors file: df11_model_open().
    [[nodiscard]] static df11_status try_open(Model &out, Text path, const OpenOptions &options = {},
                                              df11_error *error = nullptr) noexcept {
        const df11_open_options c = options.c();
        df11_model *handle = nullptr;
        const df11_status status = df11_model_open(path.c_str(), &c, &handle, error);
        out = Model(handle);
        return status;
    }
    /// Opens the bytes of one .safetensors file: df11_model_open_memory(). They must stay valid and unchanged until the
    /// model is freed.
    [[nodiscard]] static df11_status try_open_memory(Model &out, ConstBytes data, const OpenOptions &options = {},
                                                     df11_error *error = nullptr) noexcept {
        const df11_open_options c = options.c();
        df11_model *handle = nullptr;
        const df11_status status = df11_model_open_memory(data.data(), data.size(), &c, &handle, error);
        out = Model(handle);
        return status;
    }

    /// Returns all groups, numbered from 0.
    Groups groups() const & noexcept { return {get(), 0, df11_model_group_count(get())}; }
    /// Returns all tensors, numbered from 0: those of group 0 in the order of their weights, those of group 1 and so
    /// on, each by the first group that has a part of it, then the plain ones.
    Tensors tensors() const & noexcept { return {get(), 0, df11_model_tensor_count(get())}; }
    /// Returns the group with that full name, if there is one.
    [[nodiscard]] std::optional<Group> find_group(Text name) const & noexcept {
        std::uint64_t index = 0;
        if (df11_model_find_group(get(), name.c_str(), &index, nullptr) != DF11_OK) return std::nullopt;
        return Group(get(), index);
    }
    /// Returns the tensor with that full name, if there is one.
    [[nodiscard]] std::optional<Tensor> find_tensor(Text name) const & noexcept {
        std::uint64_t index = 0;
        if (df11_model_find_tensor(get(), name.c_str(), &index, nullptr) != DF11_OK) return std::nullopt;
        return Tensor(get(), index);
    }
    /// Returns the whole text of the config.json that the model was opened with, followed by a zero byte; empty if there
    /// is none. It belongs to the model.
    [[nodiscard]] std::string_view config_text() const & noexcept {
        std::uint64_t bytes = 0;
        const char *text = df11_model_config_text(get(), &bytes);
        return {text != nullptr ? text : "", static_cast<std::size_t>(bytes)};
    }
    // On a temporary they would outlive the model: `for (auto group : Model::open(path).groups())`.
    Groups groups() const && = delete;
    Tensors tensors() const && = delete;
    std::optional<Group> find_group(Text name) const && = delete;
    std::optional<Tensor> find_tensor(Text name) const && = delete;
    std::string_view config_text() const && = delete;

    /// Describes where a part of a group is stored (DF11_PART_*). Texts and data belong to the model. After an error
    /// `out` is cleared.
    [[nodiscard]] df11_status try_get_group_part(df11_part_info &out, std::uint64_t group, std::uint32_t part,
                                                 df11_error *error = nullptr) const noexcept {
        out = detail::sized<df11_part_info>();
        return df11_model_get_group_part(get(), group, part, &out, error);
    }

    /// Decodes `count` weights of a group from weight `first` on, both in elements: df11_model_decompress(). `dst`
    /// holds at least 2 * count bytes and is aligned to 2. `threads` threads work; 0 means 1.
    [[nodiscard]] df11_status try_decompress(std::uint64_t group, std::uint64_t first, std::uint64_t count, Bytes dst,
                                             std::uint32_t threads = 1, df11_error *error = nullptr) const noexcept {
        return df11_model_decompress(get(), group, first, count, dst.data(), dst.size(), threads, error);
    }
    /// Fills `dst` with bytes of a tensor's values, from byte `offset` on: df11_model_read_tensor().
    [[nodiscard]] df11_status try_read_tensor(std::uint64_t tensor, std::uint64_t offset, Bytes dst,
                                              std::uint32_t threads = 1, df11_error *error = nullptr) const noexcept {
        return df11_model_read_tensor(get(), tensor, offset, dst.data(), dst.size(), threads, error);
    }
    /// Writes a group's image to `dst`, which holds at least Group::image_bytes() bytes: df11_model_write_image().
    [[nodiscard]] df11_status try_write_image(std::uint64_t group, Bytes dst,
                                              df11_error *error = nullptr) const noexcept {
        return df11_model_write_image(get(), group, dst.data(), dst.size(), error);
    }
    /// Writes one of `parts` parts of an image: df11_model_write_image_part(). All parts have the same `dst`. They may
    /// be written from several threads at once. If one of them fails, there is no image.
    [[nodiscard]] df11_status try_write_image_part(std::uint64_t group, Bytes dst, std::uint32_t part,
                                                   std::uint32_t parts, df11_error *error = nullptr) const noexcept {
        return df11_model_write_image_part(get(), group, dst.data(), dst.size(), part, parts, error);
    }
    /// Describes the image of `count` of a group's weights from weight `first` on: df11_model_get_image_range_info().
    /// After an error `out` is cleared.
    [[nodiscard]] df11_status try_get_image_range_info(df11_image_info &out, std::uint64_t group, std::uint64_t first,
                                                       std::uint64_t count,
                                                       df11_error *error = nullptr) const noexcept {
        out = detail::sized<df11_image_info>();
        return df11_model_get_image_range_info(get(), group, first, count, &out, error);
    }
    /// Writes the image of `count` of a group's weights from weight `first` on: df11_model_write_image_range(). Decoding
    /// counts as for the whole group.
    [[nodiscard]] df11_status try_write_image_range(std::uint64_t group, std::uint64_t first, std::uint64_t count,
                                                    Bytes dst, std::uint32_t threads = 1,
                                                    df11_error *error = nullptr) const noexcept {
        return df11_model_write_image_range(get(), group, first, count, dst.data(), dst.size(), threads, error);
    }
    /// Makes the slices that a rank holds of a group's tensor: df11_model_get_slices(). `slices` has one for each segment,
    /// or one if there are no segments.
    [[nodiscard]] df11_status try_get_slices(Span<df11_slice> slices, std::uint64_t group, std::uint64_t tensor,
                                             std::uint32_t dimension, Span<const df11_segment> segments,
                                             std::uint32_t rank, std::uint32_t world,
                                             df11_error *error = nullptr) const noexcept {
        if (slices.size() != (segments.empty() ? 1 : segments.size())) {
            return detail::refuse(error, "there are not as many slices as segments");
        }
        return df11_model_get_slices(get(), group, tensor, dimension, segments.data(), segments.size(), rank, world,
                                     slices.data(), error);
    }
    /// Makes a matrix of rows of a bf16 tensor in `dst`, of which it uses `matrix_bytes` bytes: df11_model_write_matrix().
    [[nodiscard]] df11_status try_write_matrix(std::uint64_t tensor, std::uint64_t column_count, std::uint64_t first_row,
                                               std::uint64_t row_count, Bytes dst, std::uint64_t &matrix_bytes,
                                               std::uint32_t threads = 1, const Progress *progress = nullptr,
                                               df11_error *error = nullptr) const noexcept {
        return df11_model_write_matrix(get(), tensor, column_count, first_row, row_count, dst.data(), dst.size(), threads,
                                       progress != nullptr ? progress->get() : nullptr, &matrix_bytes, error);
    }

#ifdef DF11_HPP_EXCEPTIONS
    /// Opens a folder or one .safetensors file: see try_open().
    [[nodiscard]] static Model open(Text path, const OpenOptions &options = {}) {
        df11_error error;
        Model model;
        check(try_open(model, path, options, &error), error);
        return model;
    }
    /// Opens a file's bytes in memory: see try_open_memory().
    [[nodiscard]] static Model open_memory(ConstBytes data, const OpenOptions &options = {}) {
        df11_error error;
        Model model;
        check(try_open_memory(model, data, options, &error), error);
        return model;
    }
    /// Describes where a part of a group is stored: see try_get_group_part().
    [[nodiscard]] df11_part_info get_group_part(std::uint64_t group, std::uint32_t part) const {
        df11_error error;
        df11_part_info out;
        check(try_get_group_part(out, group, part, &error), error);
        return out;
    }
    /// Decodes any range of a group: see try_decompress().
    void decompress(std::uint64_t group, std::uint64_t first, std::uint64_t count, Bytes dst,
                    std::uint32_t threads = 1) const {
        df11_error error;
        check(try_decompress(group, first, count, dst, threads, &error), error);
    }
    /// Decodes a whole group to `dst`, which holds at least Group::data_bytes() bytes.
    void decompress(std::uint64_t group, Bytes dst, std::uint32_t threads = 1) const {
        df11_error error;
        auto info = detail::sized<df11_group_info>();
        check(df11_model_get_group_info(get(), group, &info, &error), error);
        check(try_decompress(group, 0, info.element_count, dst, threads, &error), error);
    }
    /// Copies or decodes bytes of any tensor: see try_read_tensor().
    void read_tensor(std::uint64_t tensor, std::uint64_t offset, Bytes dst, std::uint32_t threads = 1) const {
        df11_error error;
        check(try_read_tensor(tensor, offset, dst, threads, &error), error);
    }
    /// Writes a group's image: see try_write_image().
    void write_image(std::uint64_t group, Bytes dst) const {
        df11_error error;
        check(try_write_image(group, dst, &error), error);
    }
    /// Writes a part of a group's image: see try_write_image_part().
    void write_image_part(std::uint64_t group, Bytes dst, std::uint32_t part, std::uint32_t parts) const {
        df11_error error;
        check(try_write_image_part(group, dst, part, parts, &error), error);
    }
    /// Describes the image of a range: see try_get_image_range_info().
    [[nodiscard]] df11_image_info get_image_range_info(std::uint64_t group, std::uint64_t first,
                                                       std::uint64_t count) const {
        df11_error error;
        df11_image_info out;
        check(try_get_image_range_info(out, group, first, count, &error), error);
        return out;
    }
    /// Writes the image of a range: see try_write_image_range().
    void write_image_range(std::uint64_t group, std::uint64_t first, std::uint64_t count, Bytes dst,
                           std::uint32_t threads = 1) const {
        df11_error error;
        check(try_write_image_range(group, first, count, dst, threads, &error), error);
    }
    /// Makes the slices that a rank holds: see try_get_slices().
    [[nodiscard]] std::vector<df11_slice> get_slices(std::uint64_t group, std::uint64_t tensor, std::uint32_t dimension,
                                                     Span<const df11_segment> segments, std::uint32_t rank,
                                                     std::uint32_t world) const {
        df11_error error;
        std::vector<df11_slice> slices(segments.empty() ? 1 : segments.size());
        check(try_get_slices(slices, group, tensor, dimension, segments, rank, world, &error), error);
        return slices;
    }
    /// Makes a matrix of rows of a tensor: see try_write_matrix(). Returns the bytes that it uses.
    std::uint64_t write_matrix(std::uint64_t tensor, std::uint64_t column_count, std::uint64_t first_row,
                               std::uint64_t row_count, Bytes dst, std::uint32_t threads = 1,
                               const Progress *progress = nullptr) const {
        df11_error error;
        std::uint64_t matrix_bytes = 0;
        check(try_write_matrix(tensor, column_count, first_row, row_count, dst, matrix_bytes, threads, progress, &error),
              error);
        return matrix_bytes;
    }
#endif
};

/// A matrix of bf16 weights at about 12 bits each, to multiply with on the CPU. It is immutable and owns no bytes: the caller
/// keeps the bytes until it is freed. Any number of threads may use it at once.
class Matrix : public detail::Owner<df11_matrix, df11_matrix_free> {
  public:
    /// Makes an empty one.
    Matrix() noexcept = default;
    /// Takes over a handle from C.
    explicit Matrix(df11_matrix *handle) noexcept : Owner(handle) {}

    /// Says in `matrix_bytes` how many bytes a matrix takes at most: df11_matrix_bound().
    [[nodiscard]] static df11_status try_bound(std::uint64_t &matrix_bytes, std::uint64_t row_count,
                                               std::uint64_t column_count, df11_error *error = nullptr) noexcept {
        return df11_matrix_bound(row_count, column_count, &matrix_bytes, error);
    }
    /// Makes a matrix of bf16 rows in `dst`, of which it uses `matrix_bytes` bytes: df11_matrix_write(). `weights` has whole
    /// rows of `column_count` weights.
    [[nodiscard]] static df11_status try_write(Span<const std::uint16_t> weights, std::uint64_t column_count, Bytes dst,
                                               std::uint64_t &matrix_bytes, std::uint32_t threads = 1,
                                               const Progress *progress = nullptr,
                                               df11_error *error = nullptr) noexcept {
        matrix_bytes = 0;
        if (column_count == 0 || weights.size() % column_count != 0) {
            return detail::refuse(error, "the weights are no whole rows");
        }
        return df11_matrix_write(weights.data(), weights.size() / column_count, column_count, dst.data(), dst.size(),
                                 threads, progress != nullptr ? progress->get() : nullptr, &matrix_bytes, error);
    }
    /// Takes a matrix where it is: df11_matrix_bind().
    [[nodiscard]] static df11_status try_bind(Matrix &out, ConstBytes data, df11_error *error = nullptr) noexcept {
        df11_matrix *handle = nullptr;
        const df11_status status = df11_matrix_bind(data.data(), data.size(), &handle, error);
        out = Matrix(handle);
        return status;
    }
    /// Decodes `count` weights from weight `first` on: df11_matrix_decompress().
    [[nodiscard]] df11_status try_decompress(std::uint64_t first, std::uint64_t count, Bytes dst,
                                             df11_error *error = nullptr) const noexcept {
        return df11_matrix_decompress(get(), first, count, dst.data(), dst.size(), error);
    }
    /// Multiplies `y.size()` rows, from `first_row` on, with one vector of f32: df11_matrix_multiply(). `x` has an element for
    /// each column.
    [[nodiscard]] df11_status try_multiply(std::uint64_t first_row, Span<const float> x, Span<float> y,
                                           df11_error *error = nullptr) const noexcept {
        if (x.size() != get_info().column_count) return detail::refuse(error, "x has not one element for each column");
        return df11_matrix_multiply(get(), first_row, y.size(), x.data(), DF11_DTYPE_F32, 0, 1, DF11_ORDER_LANES,
                                    y.data(), 0, error);
    }
    /// Multiplies with one vector of bf16, in an order of sums (DF11_ORDER_*).
    [[nodiscard]] df11_status try_multiply(std::uint64_t first_row, Span<const std::uint16_t> x, std::uint32_t order,
                                           Span<float> y, df11_error *error = nullptr) const noexcept {
        if (x.size() != get_info().column_count) return detail::refuse(error, "x has not one element for each column");
        return df11_matrix_multiply(get(), first_row, y.size(), x.data(), DF11_DTYPE_BF16, 0, 1, order, y.data(), 0,
                                    error);
    }
    /// Describes the matrix; all zeros if this is empty. df11_matrix_multiply() is the call for several vectors.
    df11_matrix_info get_info() const noexcept {
        auto out = detail::sized<df11_matrix_info>();
        (void)df11_matrix_get_info(get(), &out, nullptr);
        return out;
    }

#ifdef DF11_HPP_EXCEPTIONS
    /// Returns how many bytes a matrix takes at most.
    [[nodiscard]] static std::uint64_t bound(std::uint64_t row_count, std::uint64_t column_count) {
        df11_error error;
        std::uint64_t matrix_bytes = 0;
        check(try_bound(matrix_bytes, row_count, column_count, &error), error);
        return matrix_bytes;
    }
    /// Makes a matrix of bf16 rows: see try_write(). Returns the bytes that it uses.
    static std::uint64_t write(Span<const std::uint16_t> weights, std::uint64_t column_count, Bytes dst,
                               std::uint32_t threads = 1, const Progress *progress = nullptr) {
        df11_error error;
        std::uint64_t matrix_bytes = 0;
        check(try_write(weights, column_count, dst, matrix_bytes, threads, progress, &error), error);
        return matrix_bytes;
    }
    /// Takes a matrix where it is.
    [[nodiscard]] static Matrix bind(ConstBytes data) {
        df11_error error;
        Matrix matrix;
        check(try_bind(matrix, data, &error), error);
        return matrix;
    }
    /// Decodes weights: see try_decompress().
    void decompress(std::uint64_t first, std::uint64_t count, Bytes dst) const {
        df11_error error;
        check(try_decompress(first, count, dst, &error), error);
    }
    /// Multiplies with one vector of f32: see try_multiply().
    void multiply(std::uint64_t first_row, Span<const float> x, Span<float> y) const {
        df11_error error;
        check(try_multiply(first_row, x, y, &error), error);
    }
    /// Multiplies with one vector of bf16: see try_multiply().
    void multiply(std::uint64_t first_row, Span<const std::uint16_t> x, std::uint32_t order, Span<float> y) const {
        df11_error error;
        check(try_multiply(first_row, x, order, y, &error), error);
    }
#endif
};

/// Slices of a group, counted: the part of one of several devices. It is immutable; the caller keeps the model until it is
/// freed. Any number of threads may use it at once.
class Shard : public detail::Owner<df11_shard, df11_shard_free> {
  public:
    /// Makes an empty one.
    Shard() noexcept = default;
    /// Takes over a handle from C.
    explicit Shard(df11_shard *handle) noexcept : Owner(handle) {}

    /// Counts slices of a group: df11_model_make_shard().
    [[nodiscard]] static df11_status try_make(Shard &out, const Model &model, std::uint64_t group,
                                              Span<const df11_slice> slices, std::uint32_t threads = 1,
                                              const Progress *progress = nullptr,
                                              df11_error *error = nullptr) noexcept {
        df11_shard *handle = nullptr;
        const df11_status status =
            df11_model_make_shard(model.get(), group, slices.data(), slices.size(), threads,
                                  progress != nullptr ? progress->get() : nullptr, &handle, error);
        out = Shard(handle);
        return status;
    }
    /// Writes the image, get_image_info().image_bytes bytes, to `dst`: df11_shard_write_image().
    [[nodiscard]] df11_status try_write_image(Bytes dst, std::uint32_t threads = 1, const Progress *progress = nullptr,
                                              df11_error *error = nullptr) const noexcept {
        return df11_shard_write_image(get(), dst.data(), dst.size(), threads,
                                      progress != nullptr ? progress->get() : nullptr, error);
    }
    /// Describes the image; all zeros if this is empty.
    df11_image_info get_image_info() const noexcept {
        auto out = detail::sized<df11_image_info>();
        (void)df11_shard_get_image_info(get(), &out, nullptr);
        return out;
    }

#ifdef DF11_HPP_EXCEPTIONS
    /// Counts slices of a group: see try_make().
    [[nodiscard]] static Shard make(const Model &model, std::uint64_t group, Span<const df11_slice> slices,
                                    std::uint32_t threads = 1, const Progress *progress = nullptr) {
        df11_error error;
        Shard shard;
        check(try_make(shard, model, group, slices, threads, progress, &error), error);
        return shard;
    }
    /// Writes the image: see try_write_image().
    void write_image(Bytes dst, std::uint32_t threads = 1, const Progress *progress = nullptr) const {
        df11_error error;
        check(try_write_image(dst, threads, progress, &error), error);
    }
#endif
};

/// An image on a device, ready to be decoded. It is immutable and owns no device memory: the caller keeps the image
/// until the resident is freed and all its decodes have executed.
///
/// Decodes only launch work on `stream`. They do not allocate, wait or lock, and may be captured in a graph.
/// `dst_bytes` is the size of the destination. `status` is 0, or the address of a uint32_t in device memory that the
/// caller has set to 0; a decode sets it to a status if the image is inconsistent.
class Resident : public detail::Owner<df11_resident, df11_resident_free> {
  public:
    /// Makes an empty one.
    Resident() noexcept = default;
    /// Takes over a handle from C.
    explicit Resident(df11_resident *handle) noexcept : Owner(handle) {}

    /// Describes the resident; all zeros if this is empty. `tensor_ends` and `slices` belong to the resident.
    df11_resident_info get_info() const noexcept {
        auto out = detail::sized<df11_resident_info>();
        (void)df11_resident_get_info(get(), &out, nullptr);
        return out;
    }

    /// Decodes the whole group: df11_resident_decompress(). `dst` is a multiple of 2 (16 is fastest) and holds at least
    /// two bytes for each weight.
    [[nodiscard]] df11_status try_decompress(df11_devptr dst, std::size_t dst_bytes, df11_devptr status,
                                             df11_stream stream, df11_error *error = nullptr) const noexcept {
        return df11_resident_decompress(get(), dst, dst_bytes, status, stream, error);
    }
    /// Decodes `count` weights from weight `first` on, both in elements: df11_resident_decompress_range(). Exactly
    /// 2 * count bytes are written.
    [[nodiscard]] df11_status try_decompress_range(std::uint64_t first, std::uint64_t count, df11_devptr dst,
                                                   std::size_t dst_bytes, df11_devptr status, df11_stream stream,
                                                   df11_error *error = nullptr) const noexcept {
        return df11_resident_decompress_range(get(), first, count, dst, dst_bytes, status, stream, error);
    }
    /// Decodes each tensor to its own destination: df11_resident_decompress_tensors(). Both lists have one entry for
    /// each tensor of the group, in the order of their weights, and are read during the call only. A destination of 0
    /// skips its tensor.
    [[nodiscard]] df11_status try_decompress_tensors(Span<const df11_devptr> dsts, Span<const std::size_t> dst_bytes,
                                                     df11_devptr status, df11_stream stream,
                                                     df11_error *error = nullptr) const noexcept {
        if (dsts.size() != dst_bytes.size())
            return detail::refuse(error, "dsts and dst_bytes are lists of different lengths");
        return df11_resident_decompress_tensors(get(), dsts.data(), dst_bytes.data(), dsts.size(), status, stream,
                                                error);
    }
    /// Decodes whole groups, resident i to dsts[i], which holds dst_bytes[i] bytes: df11_resident_decompress_batch().
    /// The three lists have the same length and are read during the call only. The first holds the C handles that get()
    /// returns. `statuses` is 0, or the address of an array of one uint32_t for each group.
    [[nodiscard]] static df11_status try_decompress_batch(Span<const df11_resident *const> residents,
                                                          Span<const df11_devptr> dsts,
                                                          Span<const std::size_t> dst_bytes, df11_devptr statuses,
                                                          df11_stream stream, df11_error *error = nullptr) noexcept {
        if (dsts.size() != residents.size() || dst_bytes.size() != residents.size())
            return detail::refuse(error, "residents, dsts and dst_bytes are lists of different lengths");
        return df11_resident_decompress_batch(residents.data(), dsts.data(), dst_bytes.data(), residents.size(),
                                              statuses, stream, error);
    }

#ifdef DF11_HPP_EXCEPTIONS
    /// Decodes the whole group: see try_decompress().
    void decompress(df11_devptr dst, std::size_t dst_bytes, df11_devptr status, df11_stream stream) const {
        df11_error error;
        check(try_decompress(dst, dst_bytes, status, stream, &error), error);
    }
    /// Decodes a range of the group: see try_decompress_range().
    void decompress_range(std::uint64_t first, std::uint64_t count, df11_devptr dst, std::size_t dst_bytes,
                          df11_devptr status, df11_stream stream) const {
        df11_error error;
        check(try_decompress_range(first, count, dst, dst_bytes, status, stream, &error), error);
    }
    /// Decodes each tensor to its own destination: see try_decompress_tensors().
    void decompress_tensors(Span<const df11_devptr> dsts, Span<const std::size_t> dst_bytes, df11_devptr status,
                            df11_stream stream) const {
        df11_error error;
        check(try_decompress_tensors(dsts, dst_bytes, status, stream, &error), error);
    }
    /// Decodes whole groups with few launches: see try_decompress_batch().
    static void decompress_batch(Span<const df11_resident *const> residents, Span<const df11_devptr> dsts,
                                 Span<const std::size_t> dst_bytes, df11_devptr statuses, df11_stream stream) {
        df11_error error;
        check(try_decompress_batch(residents, dsts, dst_bytes, statuses, stream, &error), error);
    }
#endif
};

/// Options for opening a device.
struct DeviceOptions {
    /// DF11_DEVICE_ALLOW_DEFAULT_STREAM and other DF11_DEVICE_* joined by |. DF11_DEVICE_EARLY_START requires that every
    /// image is complete before the kernel before its decode begins.
    std::uint32_t flags = 0;
    /// The most multiprocessors whose room the kernels of a call take; 0 for all. It limits how many blocks are launched;
    /// on which multiprocessors they run is the device's choice.
    std::uint32_t multiprocessors = 0;
    /// NULL, or the path or name of the CUDA driver library. It is read during the call only.
    const char *libcuda = nullptr;

    /// Returns the same options as a C struct.
    df11_device_options c() const noexcept {
        auto out = detail::sized<df11_device_options>();
        out.flags = flags;
        out.multiprocessors = multiprocessors;
        out.libcuda = libcuda;
        return out;
    }
};

/// An open CUDA device with all kernels loaded. It is immutable, and any number of threads may use it at once.
/// Residents may outlive it.
class Device : public detail::Owner<df11_device, df11_device_free> {
  public:
    /// Makes an empty one.
    Device() noexcept = default;
    /// Takes over a handle from C.
    explicit Device(df11_device *handle) noexcept : Owner(handle) {}

    /// Opens a device by its number, in its primary context: df11_device_open(). This is the last call that may be
    /// slow.
    [[nodiscard]] static df11_status try_open(Device &out, std::int32_t ordinal, const DeviceOptions &options = {},
                                              df11_error *error = nullptr) noexcept {
        const df11_device_options c = options.c();
        df11_device *handle = nullptr;
        const df11_status status = df11_device_open(ordinal, &c, &handle, error);
        out = Device(handle);
        return status;
    }
    /// Opens the device of the context that is current on this thread, in that context: df11_device_open_current().
    [[nodiscard]] static df11_status try_open_current(Device &out, const DeviceOptions &options = {},
                                                      df11_error *error = nullptr) noexcept {
        const df11_device_options c = options.c();
        df11_device *handle = nullptr;
        const df11_status status = df11_device_open_current(&c, &handle, error);
        out = Device(handle);
        return status;
    }

    /// Describes the device; all zeros if this is empty. Texts belong to the device.
    df11_device_info get_info() const noexcept {
        auto out = detail::sized<df11_device_info>();
        (void)df11_device_get_info(get(), &out, nullptr);
        return out;
    }

    /// Makes a group's image in `image_bytes` bytes of device memory at `image`, a multiple of 256:
    /// df11_device_upload(). Copies and kernels are put into `stream`. They read the model's memory: keep the model and
    /// the resident until the stream has executed them.
    [[nodiscard]] df11_status try_upload(Resident &out, const Model &model, std::uint64_t group, df11_devptr image,
                                         std::size_t image_bytes, df11_stream stream,
                                         df11_error *error = nullptr) const noexcept {
        df11_resident *handle = nullptr;
        const df11_status status =
            df11_device_upload(get(), model.get(), group, image, image_bytes, stream, &handle, error);
        out = Resident(handle);
        return status;
    }
    /// The same through `staging`, a host buffer that should be pinned: df11_device_upload_staged(). Keep the buffer
    /// and the resident until the stream has executed the upload. The call waits for the stream whenever the buffer is
    /// full.
    [[nodiscard]] df11_status try_upload_staged(Resident &out, const Model &model, std::uint64_t group,
                                                df11_devptr image, std::size_t image_bytes, df11_stream stream,
                                                Bytes staging, df11_error *error = nullptr) const noexcept {
        df11_resident *handle = nullptr;
        const df11_status status = df11_device_upload_staged(get(), model.get(), group, image, image_bytes, stream,
                                                             staging.data(), staging.size(), &handle, error);
        out = Resident(handle);
        return status;
    }
    /// Makes the image of `count` of a group's weights from weight `first` on: df11_device_upload_range(). With `staging`
    /// copies go through that host buffer.
    [[nodiscard]] df11_status try_upload_range(Resident &out, const Model &model, std::uint64_t group,
                                               std::uint64_t first, std::uint64_t count, df11_devptr image,
                                               std::size_t image_bytes, df11_stream stream, Bytes staging = {nullptr, 0},
                                               df11_error *error = nullptr) const noexcept {
        df11_resident *handle = nullptr;
        const df11_status status = df11_device_upload_range(get(), model.get(), group, first, count, image, image_bytes,
                                                            stream, staging.data(), staging.size(), &handle, error);
        out = Resident(handle);
        return status;
    }
    /// Makes a resident of an image that is in device memory, or will be before its decodes execute:
    /// df11_device_bind(). No CUDA call is made, and the model may be freed afterwards.
    [[nodiscard]] df11_status try_bind(Resident &out, const Model &model, std::uint64_t group, df11_devptr image,
                                       std::size_t image_bytes, df11_error *error = nullptr) const noexcept {
        df11_resident *handle = nullptr;
        const df11_status status = df11_device_bind(get(), model.get(), group, image, image_bytes, &handle, error);
        out = Resident(handle);
        return status;
    }
    /// The same without a model: df11_device_bind_image(). `head` holds the image's first bytes, or all of them, in
    /// host memory. They are treated as untrusted input and read during the call only.
    [[nodiscard]] df11_status try_bind_image(Resident &out, ConstBytes head, df11_devptr image, std::size_t image_bytes,
                                             df11_error *error = nullptr) const noexcept {
        df11_resident *handle = nullptr;
        const df11_status status =
            df11_device_bind_image(get(), head.data(), head.size(), image, image_bytes, &handle, error);
        out = Resident(handle);
        return status;
    }

#ifdef DF11_HPP_EXCEPTIONS
    /// Opens a device by its number: see try_open().
    [[nodiscard]] static Device open(std::int32_t ordinal, const DeviceOptions &options = {}) {
        df11_error error;
        Device device;
        check(try_open(device, ordinal, options, &error), error);
        return device;
    }
    /// Opens the device of the current context: see try_open_current().
    [[nodiscard]] static Device open_current(const DeviceOptions &options = {}) {
        df11_error error;
        Device device;
        check(try_open_current(device, options, &error), error);
        return device;
    }
    /// Makes a group's image in device memory: see try_upload().
    [[nodiscard]] Resident upload(const Model &model, std::uint64_t group, df11_devptr image, std::size_t image_bytes,
                                  df11_stream stream) const {
        df11_error error;
        Resident out;
        check(try_upload(out, model, group, image, image_bytes, stream, &error), error);
        return out;
    }
    /// The same through a host buffer: see try_upload_staged().
    [[nodiscard]] Resident upload_staged(const Model &model, std::uint64_t group, df11_devptr image,
                                         std::size_t image_bytes, df11_stream stream, Bytes staging) const {
        df11_error error;
        Resident out;
        check(try_upload_staged(out, model, group, image, image_bytes, stream, staging, &error), error);
        return out;
    }
    /// Makes the image of a range in device memory: see try_upload_range().
    [[nodiscard]] Resident upload_range(const Model &model, std::uint64_t group, std::uint64_t first,
                                        std::uint64_t count, df11_devptr image, std::size_t image_bytes,
                                        df11_stream stream, Bytes staging = {nullptr, 0}) const {
        df11_error error;
        Resident out;
        check(try_upload_range(out, model, group, first, count, image, image_bytes, stream, staging, &error), error);
        return out;
    }
    /// Makes a resident of an image in device memory: see try_bind().
    [[nodiscard]] Resident bind(const Model &model, std::uint64_t group, df11_devptr image,
                                std::size_t image_bytes) const {
        df11_error error;
        Resident out;
        check(try_bind(out, model, group, image, image_bytes, &error), error);
        return out;
    }
    /// The same without a model: see try_bind_image().
    [[nodiscard]] Resident bind_image(ConstBytes head, df11_devptr image, std::size_t image_bytes) const {
        df11_error error;
        Resident out;
        check(try_bind_image(out, head, image, image_bytes, &error), error);
        return out;
    }
#endif
};

/// Describes an image by its first bytes, in host memory: df11_image_get_info(). After an error `out` is cleared.
[[nodiscard]] inline df11_status try_image_get_info(df11_image_info &out, ConstBytes head,
                                                    df11_error *error = nullptr) noexcept {
    out = detail::sized<df11_image_info>();
    return df11_image_get_info(head.data(), head.size(), &out, error);
}

/// Returns a slice that an image holds, by its first bytes: df11_image_get_slice(). After an error `out` is zeros.
[[nodiscard]] inline df11_status try_image_get_slice(df11_slice &out, ConstBytes head, std::uint64_t slice,
                                                     df11_error *error = nullptr) noexcept {
    return df11_image_get_slice(head.data(), head.size(), slice, &out, error);
}

/// Says which rows or columns of a segment a rank holds: df11_split_segment(). After an error both are 0.
[[nodiscard]] inline df11_status try_split_segment(std::uint64_t &first, std::uint64_t &count,
                                                   const df11_segment &segment, std::uint32_t rank,
                                                   std::uint32_t world, df11_error *error = nullptr) noexcept {
    return df11_split_segment(&segment, rank, world, &first, &count, error);
}

#ifdef DF11_HPP_EXCEPTIONS
/// Describes an image: see try_image_get_info().
[[nodiscard]] inline df11_image_info image_get_info(ConstBytes head) {
    df11_error error;
    df11_image_info out;
    check(try_image_get_info(out, head, &error), error);
    return out;
}
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Plans: sizes and memory, before anything is written
// ---------------------------------------------------------------------------------------------------------------------

/// Options for planning a model. In C++20: `{.flags = DF11_PLAN_SAMPLE, .slots = 1}`.
struct PlanOptions {
    /// DF11_PLAN_* joined by |
    std::uint32_t flags = 0;
    /// Buffers for decoded weights; 0 means 2.
    std::uint32_t slots = 0;
    /// Bytes of a number in the KV cache; 0 means 2.
    std::uint64_t cache_number_bytes = 0;
    /// NULL, or the name of a preset.
    const char *preset = nullptr;
    /// NULL, or the groups as JSON: a pattern_dict, or a config.json that contains one. Not together with `preset`.
    const char *pattern_json = nullptr;
    /// NULL, or the text of a config.json for a model that is compressed already.
    const char *config_json = nullptr;
    /// NULL, or the path of a folder or file that has the shapes which the files of a compressed model do not say.
    const char *shapes_from = nullptr;
    /// NULL, or the same as a JSON text.
    const char *shapes_json = nullptr;
    /// NULL, or a progress that can cancel the call.
    const Progress *progress = nullptr;

    /// Returns the same options as a C struct.
    df11_plan_options c() const noexcept {
        auto out = detail::sized<df11_plan_options>();
        out.flags = flags;
        out.slots = slots;
        out.cache_number_bytes = cache_number_bytes;
        out.preset = preset;
        out.pattern_json = pattern_json;
        out.config_json = config_json;
        out.shapes_from = shapes_from;
        out.shapes_json = shapes_json;
        out.progress = progress != nullptr ? progress->get() : nullptr;
        return out;
    }
};

/// What a model becomes and needs. Texts of its infos belong to the plan.
class Plan : public detail::Owner<df11_plan, df11_plan_free> {
  public:
    /// Tokens of KV cache that fit.
    struct Tokens {
        /// Next to the compressed model; empty if that does not fit itself.
        std::optional<std::uint64_t> compressed;
        /// Next to the same model not compressed; empty if that does not fit.
        std::optional<std::uint64_t> bf16;
    };

    /// Makes an empty one.
    Plan() noexcept = default;
    /// Takes over a handle from C.
    explicit Plan(df11_plan *handle) noexcept : Owner(handle) {}

    /// Plans a model, compressed or not: df11_plan_model().
    [[nodiscard]] static df11_status try_model(Plan &out, Text path, const PlanOptions &options = {},
                                               df11_error *error = nullptr) noexcept {
        const df11_plan_options c = options.c();
        df11_plan *handle = nullptr;
        const df11_status status = df11_plan_model(path.c_str(), &c, &handle, error);
        out = Plan(handle);
        return status;
    }

    /// Describes the plan; all zeros if this is empty.
    df11_plan_info get_info() const noexcept {
        auto out = detail::sized<df11_plan_info>();
        (void)df11_plan_get_info(get(), &out, nullptr);
        return out;
    }

#ifdef DF11_HPP_EXCEPTIONS
    /// Plans a model, compressed or not.
    [[nodiscard]] static Plan model(Text path, const PlanOptions &options = {}) {
        df11_error error;
        Plan plan;
        check(try_model(plan, path, options, &error), error);
        return plan;
    }
    /// Describes a group: df11_plan_get_group_info().
    df11_plan_group_info get_group_info(std::uint64_t group) const {
        df11_error error;
        auto out = detail::sized<df11_plan_group_info>();
        check(df11_plan_get_group_info(get(), group, &out, &error), error);
        return out;
    }
    /// Describes what a device holds if the model is split by DF11_SPLIT_LAYERS or DF11_SPLIT_ROWS:
    /// df11_plan_get_share_info().
    df11_plan_share_info get_share_info(std::uint32_t split, std::uint32_t device_count, std::uint32_t device) const {
        df11_error error;
        auto out = detail::sized<df11_plan_share_info>();
        check(df11_plan_get_share_info(get(), split, device_count, device, &out, &error), error);
        return out;
    }
    /// Counts the tokens of KV cache that fit: df11_plan_count_tokens().
    Tokens count_tokens(std::uint32_t split, std::uint32_t device_count, std::uint64_t device_memory_bytes) const {
        df11_error error;
        std::uint64_t tokens = 0, bf16 = 0;
        check(df11_plan_count_tokens(get(), split, device_count, device_memory_bytes, &tokens, &bf16, &error), error);
        Tokens out;
        if (tokens != DF11_PLAN_NONE) out.compressed = tokens;
        if (bf16 != DF11_PLAN_NONE) out.bf16 = bf16;
        return out;
    }
#endif
};

// A C++ handle has the size of a C handle.
static_assert(sizeof(Model) == sizeof(void *) && sizeof(Device) == sizeof(void *));
static_assert(sizeof(Resident) == sizeof(void *) && sizeof(Progress) == sizeof(void *));
static_assert(!std::is_copy_constructible_v<Model> && std::is_nothrow_move_constructible_v<Model>);
static_assert(!std::is_copy_constructible_v<Device> && std::is_nothrow_move_constructible_v<Device>);
static_assert(!std::is_copy_constructible_v<Resident> && std::is_nothrow_move_constructible_v<Resident>);
static_assert(sizeof(Plan) == sizeof(void *) && !std::is_copy_constructible_v<Plan>);
static_assert(sizeof(Matrix) == sizeof(void *) && !std::is_copy_constructible_v<Matrix>);
static_assert(!std::is_copy_constructible_v<Progress> && std::is_nothrow_move_constructible_v<Progress>);

#ifdef DF11_HPP_EXCEPTIONS
// ---------------------------------------------------------------------------------------------------------------------
// Long calls, with callbacks
// ---------------------------------------------------------------------------------------------------------------------

/// Called with the progress of a long call: the bytes of work that are done and the total (0 until it is known). Return
/// false to cancel the call, which then throws DF11_CANCELLED. The function is called on any thread of the call, one
/// call at a time: at the beginning, at the end, and at most 20 times a second in between. These threads have stacks of
/// 256 KiB.
using ProgressFunction = std::function<bool(std::uint64_t done, std::uint64_t total)>;

/// Options for verify_model().
struct VerifyOptions {
    /// Threads to use, including the calling one; 0 means 1.
    std::uint32_t threads = 0;
    /// DF11_OPEN_ANY_VERSION, DF11_VERIFY_INCOMPLETE and DF11_VERIFY_ALLOW_PLAIN joined by |, or 0
    std::uint32_t flags = 0;
    /// NULL, or the text of a config.json that replaces the model's own.
    const char *config_json = nullptr;
    /// Empty, or the path of a folder or file that has the shapes which the model's files do not say.
    std::string shapes_from;
    /// NULL, or the same as a JSON text.
    const char *shapes_json = nullptr;
    /// NULL, or a progress that counts the call's work and can cancel it.
    const Progress *progress = nullptr;
    /// Empty, or a function that is called with the progress.
    ProgressFunction on_progress;
    /// Empty, or a function that is called with each finding: DF11_FINDING_*, the name of a group or tensor, and a
    /// sentence about it. The texts are valid during the call only; escape them before you print them. It is called on
    /// the thread that called verify_model().
    std::function<void(std::uint32_t kind, std::string_view name, std::string_view text)> on_finding;
};

/// The result of verify_model().
struct Verification {
    /// DF11_OK, or DF11_CORRUPT if something is wrong.
    df11_status status = DF11_OK;
    /// The first finding's message, if something is wrong.
    std::string message;
    /// The counts; all zeros if the model could not be opened.
    df11_verify_report report = detail::sized<df11_verify_report>();

    /// Returns whether nothing is wrong.
    bool good() const noexcept { return status == DF11_OK; }
};

/// Options for compress_model() and merge_model().
struct CompressOptions {
    /// Threads to use, including the calling one; 0 means 1.
    std::uint32_t threads = 0;
    /// DF11_COMPRESS_* joined by |
    std::uint32_t flags = 0;
    /// The upper limit of working memory in bytes; 0 means 512 MiB.
    std::uint64_t memory_bytes = 0;
    /// NULL, or the name of a preset.
    const char *preset = nullptr;
    /// NULL, or the groups as JSON: a pattern_dict, or a config.json that contains one. Not together with `preset`.
    const char *pattern_json = nullptr;
    /// The part of the groups to write, 1 to `part_count`; 0 and 0 mean the whole model.
    std::uint32_t part = 0;
    /// The number of parts.
    std::uint32_t part_count = 0;
    /// NULL, or a progress that counts the call's work and can cancel it.
    const Progress *progress = nullptr;
    /// Empty, or a function that is called with the progress.
    ProgressFunction on_progress;
    /// Empty, or a function that is called with each tensor that stays plain although the patterns ask for it: its
    /// name, its group's name, and the reason. The texts are valid during the call only; escape them before you print
    /// them. It is called on the calling thread after the work: if it throws, the model is written nevertheless.
    std::function<void(std::string_view tensor, std::string_view group, std::string_view reason)> on_left;
};

namespace detail {
/// Passes a long call's callbacks to C and carries their exceptions back. The first exception is kept, cancels the
/// call, and is rethrown when the call has returned.
class Callbacks {
  public:
    explicit Callbacks(const ProgressFunction &on_progress) : on_progress_(on_progress) {}

    template <typename Call> void guard(Call call) noexcept {
        try {
            call();
        } catch (...) {
            if (!thrown_.exchange(true)) exception_ = std::current_exception();
        }
    }
    bool thrown() const noexcept { return thrown_.load(); }
    /// Rethrows the exception of a callback. The C call has returned, so no other thread is in a callback.
    void rethrow() const {
        if (exception_ != nullptr) std::rethrow_exception(exception_);
    }
    static std::int32_t progress(void *self, std::uint64_t done, std::uint64_t total) noexcept {
        auto &callbacks = *static_cast<Callbacks *>(self);
        bool on = !callbacks.thrown();
        if (on && callbacks.on_progress_) {
            on = false;
            callbacks.guard([&] { on = callbacks.on_progress_(done, total); });
        }
        return on ? 0 : 1;
    }

  private:
    const ProgressFunction &on_progress_;
    std::atomic<bool> thrown_{false};
    std::exception_ptr exception_;
};

/// The callbacks of verify_model(). Findings come on the calling thread.
struct VerifyCallbacks : Callbacks {
    const VerifyOptions &options;
    explicit VerifyCallbacks(const VerifyOptions &all) : Callbacks(all.on_progress), options(all) {}
    static void finding(void *self, std::uint32_t kind, const char *name, const char *text) noexcept {
        auto &callbacks = *static_cast<VerifyCallbacks *>(self);
        if (!callbacks.thrown()) callbacks.guard([&] { callbacks.options.on_finding(kind, name, text); });
    }
};

/// The callbacks of compress_model() and merge_model().
struct CompressCallbacks : Callbacks {
    const CompressOptions &options;
    explicit CompressCallbacks(const CompressOptions &all) : Callbacks(all.on_progress), options(all) {}
    static void left(void *self, const char *tensor, const char *group, const char *reason) noexcept {
        auto &callbacks = *static_cast<CompressCallbacks *>(self);
        if (!callbacks.thrown()) callbacks.guard([&] { callbacks.options.on_left(tensor, group, reason); });
    }
};

inline df11_compress_report write(decltype(df11_compress_model) *call, Text src, Text dst,
                                  const CompressOptions &options) {
    df11_error error;
    auto report = sized<df11_compress_report>();
    CompressCallbacks callbacks(options);
    auto c = sized<df11_compress_options>();
    c.threads = options.threads;
    c.flags = options.flags;
    c.memory_bytes = options.memory_bytes;
    c.preset = options.preset;
    c.pattern_json = options.pattern_json;
    c.part = options.part;
    c.part_count = options.part_count;
    c.progress = options.progress != nullptr ? options.progress->get() : nullptr;
    c.callback = Callbacks::progress;
    c.callback_user = static_cast<Callbacks *>(&callbacks);
    c.left = options.on_left ? CompressCallbacks::left : nullptr;
    c.left_user = &callbacks;
    c.report = &report;
    const df11_status status = call(src.c_str(), dst.c_str(), &c, &error);
    callbacks.rethrow();
    check(status, error);
    return report;
}
}  // namespace detail

/// Opens a model, checks all of it and, if `original` is given, compares every bit with it: df11_verify_model(). A
/// damaged model is a result and not an exception: see Verification::good(). Error is thrown if the model could not be
/// verified.
[[nodiscard]] inline Verification verify_model(Text model, Text original = nullptr, const VerifyOptions &options = {}) {
    df11_error error;
    Verification result;
    detail::VerifyCallbacks callbacks(options);
    auto c = detail::sized<df11_verify_options>();
    c.threads = options.threads;
    c.flags = options.flags;
    c.config_json = options.config_json;
    c.shapes_from = options.shapes_from.empty() ? nullptr : options.shapes_from.c_str();
    c.shapes_json = options.shapes_json;
    c.progress = options.progress != nullptr ? options.progress->get() : nullptr;
    c.callback = detail::Callbacks::progress;
    c.callback_user = static_cast<detail::Callbacks *>(&callbacks);
    c.finding = options.on_finding ? detail::VerifyCallbacks::finding : nullptr;
    c.finding_user = &callbacks;
    c.report = &result.report;
    result.status = df11_verify_model(model.c_str(), original.c_str(), &c, &error);
    callbacks.rethrow();
    if (result.status != DF11_CORRUPT) check(result.status, error);
    if (!result.good()) result.message = error.message;
    return result;
}

/// A preset: the groups of a published model. Both texts are static.
struct Preset {
    /// Its name, for CompressOptions::preset.
    const char *name;
    /// Its pattern_dict as JSON, which can be changed and given as CompressOptions::pattern_json.
    const char *pattern_json;
};

/// Returns all presets, in the order in which they are tried: df11_preset_get_info().
inline std::vector<Preset> presets() {
    std::vector<Preset> all;
    for (std::uint64_t i = 0; i < df11_preset_count(); ++i) {
        df11_error error;
        auto info = detail::sized<df11_preset_info>();
        check(df11_preset_get_info(i, &info, &error), error);
        all.push_back({info.name, info.pattern_json});
    }
    return all;
}

/// Compresses a folder or a file, or one part of it: df11_compress_model().
inline df11_compress_report compress_model(Text src, Text dst, const CompressOptions &options = {}) {
    return detail::write(df11_compress_model, src, dst, options);
}

/// Completes a folder whose parts are all finished: df11_merge_model().
inline df11_compress_report merge_model(Text src, Text dst, const CompressOptions &options = {}) {
    return detail::write(df11_merge_model, src, dst, options);
}

/// Options for decompress_model().
struct DecompressOptions {
    /// Threads to use, including the calling one; 0 means 1.
    std::uint32_t threads = 0;
    /// DF11_DECOMPRESS_* joined by |
    std::uint32_t flags = 0;
    /// The upper limit of the tensors of one file in a folder, in bytes; 0 means 5 GB.
    std::uint64_t shard_bytes = 0;
    /// NULL, or the text of a config.json for the model.
    const char *config_json = nullptr;
    /// Empty, or the path of a folder or file that has the shapes which the model's files do not say.
    std::string shapes_from;
    /// NULL, or the same as a JSON text.
    const char *shapes_json = nullptr;
    /// The names of the tensors that are written, and of groups whose tensors are. Without either, all are.
    std::vector<std::string> tensors, groups;
    /// NULL, or a progress that counts the call's work and can cancel it.
    const Progress *progress = nullptr;
    /// Empty, or a function that is called with the progress.
    ProgressFunction on_progress;
};

/// Options for repack_model().
struct RepackOptions {
    /// Threads to use, including the calling one; 0 means 1.
    std::uint32_t threads = 0;
    /// DF11_REPACK_* joined by |
    std::uint32_t flags = 0;
    /// NULL, or the text of a config.json for the model, which is written for it too.
    const char *config_json = nullptr;
    /// Empty, or the path of a folder or file that has the shapes which the model's files do not say.
    std::string shapes_from;
    /// NULL, or the same as a JSON text.
    const char *shapes_json = nullptr;
    /// NULL, or a progress that counts the call's work and can cancel it.
    const Progress *progress = nullptr;
    /// Empty, or a function that is called with the progress.
    ProgressFunction on_progress;
};

/// Turns a model back into plain safetensors, a folder as models are published or one file: df11_decompress_model().
inline df11_decompress_report decompress_model(Text src, Text dst, const DecompressOptions &options = {}) {
    df11_error error;
    auto report = detail::sized<df11_decompress_report>();
    detail::Callbacks callbacks(options.on_progress);
    std::vector<const char *> tensors, groups;
    for (const auto &name : options.tensors) tensors.push_back(name.c_str());
    for (const auto &name : options.groups) groups.push_back(name.c_str());
    auto c = detail::sized<df11_decompress_options>();
    c.threads = options.threads;
    c.flags = options.flags;
    c.shard_bytes = options.shard_bytes;
    c.config_json = options.config_json;
    c.shapes_from = options.shapes_from.empty() ? nullptr : options.shapes_from.c_str();
    c.shapes_json = options.shapes_json;
    c.tensors = tensors.data();
    c.tensor_count = tensors.size();
    c.groups = groups.data();
    c.group_count = groups.size();
    c.progress = options.progress != nullptr ? options.progress->get() : nullptr;
    c.callback = detail::Callbacks::progress;
    c.callback_user = &callbacks;
    c.report = &report;
    const df11_status status = df11_decompress_model(src.c_str(), dst.c_str(), &c, &error);
    callbacks.rethrow();
    check(status, error);
    return report;
}

/// Writes a compressed model in other files, a folder as one file and back: df11_repack_model().
inline df11_repack_report repack_model(Text src, Text dst, const RepackOptions &options = {}) {
    df11_error error;
    auto report = detail::sized<df11_repack_report>();
    detail::Callbacks callbacks(options.on_progress);
    auto c = detail::sized<df11_repack_options>();
    c.threads = options.threads;
    c.flags = options.flags;
    c.config_json = options.config_json;
    c.shapes_from = options.shapes_from.empty() ? nullptr : options.shapes_from.c_str();
    c.shapes_json = options.shapes_json;
    c.progress = options.progress != nullptr ? options.progress->get() : nullptr;
    c.callback = detail::Callbacks::progress;
    c.callback_user = &callbacks;
    c.report = &report;
    const df11_status status = df11_repack_model(src.c_str(), dst.c_str(), &c, &error);
    callbacks.rethrow();
    check(status, error);
    return report;
}

/// Sends the library's log to a function for its lifetime. There is one log for the process: the newest Log receives
/// it, and the destructor of any Log ends it. The function is called on any thread, also on several at once, with a
/// level (DF11_LOG_ERROR to DF11_LOG_TRACE) and a line that is valid during the call only. It must not call the
/// library, and its exceptions are dropped. After the destructor has returned, no thread is in the function.
class Log {
  public:
    using Function = std::function<void(std::int32_t level, std::string_view line)>;

    /// Sends lines of `max_level` and of more important levels.
    DF11_HPP_KEPT Log(std::int32_t max_level, Function function)
        : function_(std::make_unique<Function>(std::move(function))) {
        df11_log_set(forward, max_level, function_.get());
    }
    Log(Log &&) noexcept = default;
    Log &operator=(Log &&) = delete;
    ~Log() {
        if (function_ != nullptr) df11_log_set(nullptr, DF11_LOG_OFF, nullptr);
    }

  private:
    static void forward(void *user, std::int32_t level, const char *message, std::size_t length) noexcept {
        try {
            (*static_cast<const Function *>(user))(level, std::string_view(message, length));
        } catch (...) {
            // There is nobody to report it to.
        }
    }
    // On the heap, so that its address stays the same when the Log is moved.
    std::unique_ptr<Function> function_;
};
#endif

}  // namespace v0_1

}  // namespace df11

#if __cplusplus >= 202002L
// Both refer to memory that others own, so their iterators may outlive them.
template <typename T> inline constexpr bool std::ranges::enable_borrowed_range<df11::Span<T>> = true;
template <typename T> inline constexpr bool std::ranges::enable_borrowed_range<df11::detail::Numbered<T>> = true;
template <typename T> inline constexpr bool std::ranges::enable_view<df11::Span<T>> = true;
template <typename T> inline constexpr bool std::ranges::enable_view<df11::detail::Numbered<T>> = true;
#endif

#undef DF11_HPP_KEPT
#undef DF11_HPP_EXCEPTIONS

#endif
