/*
 * df11.hpp: libdf11 for C++17 and later. Owners, exceptions and ranges over df11.h, and nothing else: every call is the
 * C call of the same name, no memory is copied, and what the C text says about sizes, alignment, threads, streams and
 * errors holds here word for word. df11.h is the manual; this file says what is different. Licence: Apache-2.0 OR MIT.
 *
 *     df11::Model model = df11::Model::open("Qwen3-8B-DF11");
 *     for (const df11::Group &group : model.groups()) {
 *         std::vector<std::uint16_t> weights(group.element_count());            // bf16
 *         model.decompress(group.index(), weights, 8);
 *     }
 *
 *     df11::Device device = df11::Device::open(0);                              // at start: loads every kernel
 *     df11::Resident layer = device.upload(model, 0, d_image, image_bytes, stream);
 *     layer.decompress(d_weights, bytes, d_status, stream);                     // before each use
 *
 * OWNERSHIP
 *   Model, Device, Resident and Progress each own one C handle, are as large as a pointer, and can be moved, not
 *   copied. A default-constructed or moved-from one is empty: calls on it fail with DF11_INVALID_ARGUMENT. get() lends
 *   the C handle to calls of df11.h, release() gives it away, and Model(handle) and so on take one over. Group, Tensor
 *   and everything that they return (names, shapes, data) point into the model and live as long; moving the Model
 *   object changes nothing for them. No object here owns weights or device memory, which stay the caller's.
 *
 * ARGUMENTS
 *   Bytes, ConstBytes and Span are pointer and length, made from arrays, vectors, std::span and everything else with
 *   data() and size(); Text is a zero-terminated string, made from literals, std::string and std::filesystem::path.
 *   All four borrow, for the call. A Span is also a borrowed range in C++20 and becomes a std::span where one is
 *   wanted. It is the same type in every standard, so that files compiled as C++17 and as C++20 may be one program.
 *
 * ERRORS
 *   A call that fails throws df11::Error, which has the status, the number of the system below, and the library's
 *   sentence. Each such call that an engine makes while it runs, and each that opens something, has a twin with the
 *   prefix try_: it is noexcept, returns the df11_status, and takes an optional df11_error * last. A try_ call that
 *   gives a handle replaces `out`: by the handle, or by an empty one after an error.
 *
 *   Statuses are the C ones (DF11_CORRUPT and so on): there is no second list of them.
 *
 *   Compiled with -fno-exceptions the header has no throwing call, and neither verify(), compress(), merge() nor Log,
 *   whose callbacks may throw: the try_ calls, the ranges and the C functions are there and serve. Such a file may be
 *   linked with others that have exceptions, but df11::Model and so on are then different types in the two: pass the C
 *   handle between them.
 *
 * CALLBACKS
 *   What a callback of verify(), compress() or merge() throws does not cross the C code: the call is cancelled, and
 *   the exception leaves it when it returns. What a log callback throws is dropped.
 *
 * THREADS
 *   As in C: const calls on one object may be made from any number of threads at once. Moving, assigning and
 *   destroying need the object to oneself. A destructor waits for nothing and touches no device memory, with the
 *   exceptions that df11_device_free() has.
 *
 * NOT HERE
 *   df11_compress_group(), df11_compress_bound() and the presets work on plain structs of the caller's, as they do in
 *   C. For them, and for functions of a newer df11.h: `df11_error e; df11::check(df11_compress_bound(counts, n,
 *   &group, &e), e);`
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
#endif

// For constructors of what ends at once if nobody keeps it. C++17 allows it on functions and classes alone.
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

// Names in object files say which version of the header a file was compiled with, and whether it had exceptions: inline
// functions of different ones are never taken for each other.
#ifdef DF11_HPP_EXCEPTIONS
inline namespace v0_1 {
#else
inline namespace v0_1_noexcept {
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Errors
// ---------------------------------------------------------------------------------------------------------------------

#ifdef DF11_HPP_EXCEPTIONS
/// A call that failed. what() is the library's sentence, which names the file, the tensor and the byte where they are
/// known.
///
/// It is a std::runtime_error and no std::system_error, because most statuses are no error numbers of a system, and
/// because the message is complete: nothing is to be appended to it.
class Error : public std::runtime_error {
  public:
    /// From what a C call wrote.
    explicit Error(const df11_error &error)
        : std::runtime_error(error.message), status_(error.status), native_code_(error.native_code) {}

    /// DF11_*; never DF11_OK. Treat one that you do not know by its range: see df11_status.
    df11_status status() const noexcept { return status_; }
    /// The number that the system below gave: an errno, a CUresult, or 0.
    std::int32_t native_code() const noexcept { return native_code_; }
    /// The status' name without its prefix, such as "CORRUPT"; "UNKNOWN" for one of a newer library. The text is
    /// static.
    const char *name() const noexcept { return df11_status_name(status_); }

  private:
    df11_status status_;
    std::int32_t native_code_;
};

namespace detail {
// Out of line, so that a call that succeeds carries no more than a comparison.
#if defined(__GNUC__)
[[gnu::noinline, gnu::cold]]
#endif
[[noreturn]] inline void
raise(const df11_error &error) {
    throw Error(error);
}
}  // namespace detail

/// Throws Error unless `status` is DF11_OK. `error` is what the call wrote that returned it.
inline void check(df11_status status, const df11_error &error) {
    if (status != DF11_OK) detail::raise(error);
}
#endif

/// The library that is running, such as "0.1.0".
inline std::string_view version() noexcept { return df11_version_string(); }

// ---------------------------------------------------------------------------------------------------------------------
// Arguments
// ---------------------------------------------------------------------------------------------------------------------

namespace detail {
// The type of the elements that lie one behind the other in a C: `const` where they cannot be written.
template <typename C> using Element = std::remove_pointer_t<decltype(std::data(std::declval<C &>()))>;

template <typename C, typename Self> constexpr bool is_other =
    !std::is_same_v<std::remove_cv_t<std::remove_reference_t<C>>, Self>;

// A struct of the C ABI with its size set and all else zero.
template <typename T> T sized() noexcept {
    T value{};
    value.struct_size = sizeof(T);
    return value;
}

// Writes an error as the library would; for the mistakes that are found here.
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

/// Elements that lie one behind the other, borrowed. As std::span, in every standard from C++17 on.
template <typename T> class Span {
  public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    using iterator = T *;

    constexpr Span() noexcept = default;
    /// `count` elements at `data`.
    constexpr Span(T *data, std::size_t count) noexcept : data_(data), size_(count) {}
    /// All of an array, a vector, a std::span or the like.
    template <typename C, typename E = detail::Element<C>,
              typename = std::enable_if_t<detail::is_other<C, Span> && std::is_convertible_v<E (*)[], T (*)[]>>>
    constexpr Span(C &&elements) noexcept : data_(std::data(elements)), size_(std::size(elements)) {}

    constexpr T *data() const noexcept { return data_; }
    /// How many elements.
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    /// `i` is below size().
    constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/// Memory of the caller's to be written: an address and a number of bytes.
class Bytes {
  public:
    /// `bytes` bytes at `data`.
    constexpr Bytes(void *data, std::size_t bytes) noexcept : data_(data), size_(bytes) {}
    /// All of an array, a vector, a std::span or the like, of elements that are plain bits.
    template <typename C, typename E = detail::Element<C>,
              typename = std::enable_if_t<detail::is_other<C, Bytes> && std::is_trivially_copyable_v<E> &&
                                          !std::is_const_v<E>>>
    constexpr Bytes(C &&elements) noexcept : data_(std::data(elements)), size_(std::size(elements) * sizeof(E)) {}

    constexpr void *address() const noexcept { return data_; }
    /// How many bytes.
    constexpr std::size_t bytes() const noexcept { return size_; }

  private:
    void *data_;
    std::size_t size_;
};

/// Memory of the caller's to be read: an address and a number of bytes.
class ConstBytes {
  public:
    /// `bytes` bytes at `data`.
    constexpr ConstBytes(const void *data, std::size_t bytes) noexcept : data_(data), size_(bytes) {}
    constexpr ConstBytes(Bytes bytes) noexcept : data_(bytes.address()), size_(bytes.bytes()) {}
    /// All of an array, a vector, a std::span or the like, of elements that are plain bits.
    template <typename C, typename E = detail::Element<C>,
              typename = std::enable_if_t<detail::is_other<C, ConstBytes> && std::is_trivially_copyable_v<E>>>
    constexpr ConstBytes(C &&elements) noexcept : data_(std::data(elements)), size_(std::size(elements) * sizeof(E)) {}

    constexpr const void *address() const noexcept { return data_; }
    /// How many bytes.
    constexpr std::size_t bytes() const noexcept { return size_; }

  private:
    const void *data_;
    std::size_t size_;
};

/// A zero-terminated string of the caller's; nullptr where a call allows NULL.
class Text {
  public:
    constexpr Text(const char *text) noexcept : text_(text) {}
    /// A std::string, a std::filesystem::path, or whatever else has c_str().
    template <typename S, typename = std::enable_if_t<
                              std::is_convertible_v<decltype(std::declval<const S &>().c_str()), const char *>>>
    Text(const S &text) noexcept : text_(text.c_str()) {}

    constexpr const char *c_str() const noexcept { return text_; }

  private:
    const char *text_;
};

/// The number of an address in device memory that the CUDA runtime gave as a pointer.
inline df11_devptr device_address(const void *pointer) noexcept { return reinterpret_cast<std::uintptr_t>(pointer); }

// ---------------------------------------------------------------------------------------------------------------------
// What is in a model
// ---------------------------------------------------------------------------------------------------------------------

/// A tensor, described: a copy of its df11_tensor_info. Texts, shape and data belong to the model.
class Tensor {
  public:
    /// The tensor of that number. One that the model has not is described by zeros and an empty name.
    Tensor(const df11_model *model, std::uint64_t index) noexcept
        : index_(index), info_(detail::sized<df11_tensor_info>()) {
        if (df11_model_get_tensor_info(model, index, &info_, nullptr) != DF11_OK) info_.group = DF11_NO_GROUP;
    }

    /// Its number in the model.
    std::uint64_t index() const noexcept { return index_; }
    /// Its full name: UTF-8 with a zero byte behind it, otherwise anything. Escape it before you print it.
    std::string_view name() const noexcept { return info_.name != nullptr ? info_.name : ""; }
    /// The type of its elements: DF11_DTYPE_*.
    std::uint32_t dtype() const noexcept { return info_.dtype; }
    /// Its dimensions in elements, the last one contiguous. One dimension for a compressed tensor whose file does not
    /// tell.
    Span<const std::uint64_t> shape() const noexcept { return {info_.shape, info_.rank}; }
    /// Bytes of its values, decoded.
    std::uint64_t bytes() const noexcept { return info_.bytes; }
    /// The number of its group; none for a plain tensor.
    std::optional<std::uint64_t> group() const noexcept {
        return info_.group != DF11_NO_GROUP ? std::optional<std::uint64_t>(info_.group) : std::nullopt;
    }
    /// Its first weight in its group, in elements; 0 for a plain tensor.
    std::uint64_t group_offset() const noexcept { return info_.group_offset; }
    /// The values of a plain tensor where they lie in the file's memory, with no alignment; none for a tensor in a
    /// group, and with DF11_OPEN_READ.
    Span<const unsigned char> data() const noexcept {
        const auto *data = static_cast<const unsigned char *>(info_.data);
        return {data, data != nullptr ? static_cast<std::size_t>(info_.bytes) : 0};
    }
    /// All that C says, also the file of a plain tensor.
    const df11_tensor_info &info() const noexcept { return info_; }

  private:
    std::uint64_t index_;
    df11_tensor_info info_;
};

namespace detail {
/// Things with consecutive numbers in a model, described one by one as they are asked for: a random access range.
template <typename T> class Numbered {
  public:
    class iterator {
      public:
        using value_type = T;
        using difference_type = std::ptrdiff_t;
        using reference = T;
        /// What `->` needs of a value that is made on the way.
        struct pointer {
            T value;
            const T *operator->() const noexcept { return &value; }
        };
        // Elements are values, which C++17 allows input iterators only; C++20 asks for what they can do.
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

    /// How many.
    std::size_t size() const noexcept { return static_cast<std::size_t>(count_); }
    bool empty() const noexcept { return count_ == 0; }
    /// The one of that place in this range, which is below size().
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

/// A group, described: a copy of its df11_group_info. Its name belongs to the model.
class Group {
  public:
    /// The group of that number. One that the model has not is described by zeros and an empty name.
    Group(const df11_model *model, std::uint64_t index) noexcept
        : model_(model), index_(index), info_(detail::sized<df11_group_info>()) {
        (void)df11_model_get_group_info(model, index, &info_, nullptr);
    }

    /// Its number in the model.
    std::uint64_t index() const noexcept { return index_; }
    /// The module's full name, such as "model.layers.0": UTF-8 with a zero byte behind it, otherwise anything.
    std::string_view name() const noexcept { return info_.name != nullptr ? info_.name : ""; }
    /// Weights in all its tensors.
    std::uint64_t element_count() const noexcept { return info_.element_count; }
    /// Bytes that its weights take when decoded: two for each.
    std::uint64_t bytes() const noexcept { return 2 * info_.element_count; }
    /// Bytes of its six parts in the files.
    std::uint64_t packed_bytes() const noexcept { return info_.packed_bytes; }
    /// Bytes of its image; 0 if it can have none.
    std::uint64_t image_bytes() const noexcept { return info_.image_bytes; }
    /// Its tensors, in the order of their weights.
    Tensors tensors() const noexcept { return {model_, info_.first_tensor, info_.tensor_count}; }
    /// All that C says.
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
/// What all owners share: a std::unique_ptr whose deleter is the C function, and which takes no room.
template <typename C, void (*Free)(C *)> class Owner {
  public:
    /// The C handle, for calls of df11.h; nullptr if this is empty. It stays this object's.
    C *get() const noexcept { return handle_.get(); }
    /// Gives the C handle away, which the caller then frees; this is empty afterwards.
    [[nodiscard]] C *release() noexcept { return handle_.release(); }
    /// Whether this has a handle.
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

/// The progress of a long call, which any thread may read, and cancel. It outlives the call that it was given to.
class Progress : public detail::Owner<df11_progress, df11_progress_free> {
  public:
    /// How far a call is, in bytes of its work. A total of 0: not known yet.
    struct Amount {
        std::uint64_t done = 0;
        std::uint64_t total = 0;
    };

    /// An empty one: nobody counts in it.
    Progress() noexcept = default;
    /// Takes a handle over from C.
    explicit Progress(df11_progress *handle) noexcept : Owner(handle) {}

    /// df11_progress_new(): one at 0 of 0 bytes.
    [[nodiscard]] static df11_status try_create(Progress &out, df11_error *error = nullptr) noexcept {
        df11_progress *handle = nullptr;
        const df11_status status = df11_progress_new(&handle, error);
        out = Progress(handle);
        return status;
    }
    /// How far the call is.
    Amount amount() const noexcept {
        Amount amount;
        df11_progress_get(get(), &amount.done, &amount.total);
        return amount;
    }
    /// Cancels the call that this was given to, and every later one: it fails with DF11_CANCELLED.
    void cancel() const noexcept { df11_progress_cancel(get()); }

#ifdef DF11_HPP_EXCEPTIONS
    /// One at 0 of 0 bytes.
    [[nodiscard]] static Progress create() {
        df11_error error;
        Progress progress;
        check(try_create(progress, &error), error);
        return progress;
    }
#endif
};

/// How to open a model. In C++20: `{.flags = DF11_OPEN_VERIFY, .threads = 8}`.
struct OpenOptions {
    /// DF11_OPEN_* joined by |
    std::uint32_t flags = 0;
    /// Threads for DF11_OPEN_VERIFY, the calling one among them; 0 means 1.
    std::uint32_t threads = 0;
    /// NULL, or the text of a config.json to use instead of the model's own. It is read during the call only.
    const char *config_json = nullptr;
    /// NULL, or where to count the bytes of DF11_OPEN_VERIFY, two for each weight, and to look whether somebody
    /// cancels.
    const Progress *progress = nullptr;

    /// The same for C.
    df11_open_options c() const noexcept {
        auto out = detail::sized<df11_open_options>();
        out.flags = flags;
        out.threads = threads;
        out.config_json = config_json;
        out.progress = progress != nullptr ? progress->get() : nullptr;
        return out;
    }
};

/// An open model. It never changes: any number of threads may use it at once.
class Model : public detail::Owner<df11_model, df11_model_free> {
  public:
    /// An empty one.
    Model() noexcept = default;
    /// Takes a handle over from C.
    explicit Model(df11_model *handle) noexcept : Owner(handle) {}

    /// df11_model_open(): a folder or one .safetensors file.
    [[nodiscard]] static df11_status try_open(Model &out, Text path, const OpenOptions &options = {},
                                              df11_error *error = nullptr) noexcept {
        const df11_open_options c = options.c();
        df11_model *handle = nullptr;
        const df11_status status = df11_model_open(path.c_str(), &c, &handle, error);
        out = Model(handle);
        return status;
    }
    /// df11_model_open_memory(): the bytes of one .safetensors file, which must stay, unchanged, as long as the model.
    [[nodiscard]] static df11_status try_open_memory(Model &out, ConstBytes data, const OpenOptions &options = {},
                                                     df11_error *error = nullptr) noexcept {
        const df11_open_options c = options.c();
        df11_model *handle = nullptr;
        const df11_status status = df11_model_open_memory(data.address(), data.bytes(), &c, &handle, error);
        out = Model(handle);
        return status;
    }

    /// All groups, numbered from 0.
    Groups groups() const & noexcept { return {get(), 0, df11_model_group_count(get())}; }
    /// All tensors, numbered from 0: those of group 0 in the order of their weights, of group 1, and so on; then the
    /// plain ones.
    Tensors tensors() const & noexcept { return {get(), 0, df11_model_tensor_count(get())}; }
    /// The group of that full name, if there is one. (If there is none, the statistics count it as a caller's error.)
    [[nodiscard]] std::optional<Group> find_group(Text name) const & noexcept {
        std::uint64_t index = 0;
        if (df11_model_find_group(get(), name.c_str(), &index, nullptr) != DF11_OK) return std::nullopt;
        return Group(get(), index);
    }
    /// The tensor of that full name, if there is one: see find_group().
    [[nodiscard]] std::optional<Tensor> find_tensor(Text name) const & noexcept {
        std::uint64_t index = 0;
        if (df11_model_find_tensor(get(), name.c_str(), &index, nullptr) != DF11_OK) return std::nullopt;
        return Tensor(get(), index);
    }
    // They would outlive a model that ends with the expression: `for (auto group : Model::open(path).groups())`.
    Groups groups() const && = delete;
    Tensors tensors() const && = delete;
    std::optional<Group> find_group(Text name) const && = delete;
    std::optional<Tensor> find_tensor(Text name) const && = delete;

    /// Where a part of a group lies (DF11_PART_*). Texts and data belong to the model. `out` is cleared after an error.
    [[nodiscard]] df11_status try_part(df11_part_info &out, std::uint64_t group, std::uint32_t part,
                                       df11_error *error = nullptr) const noexcept {
        out = detail::sized<df11_part_info>();
        return df11_model_get_group_part(get(), group, part, &out, error);
    }

    /// df11_model_decompress(): `count` weights of a group from its weight `first` on, both in elements, to at least 2 *
    /// count bytes at a multiple of 2, on `threads` threads (0 means 1).
    [[nodiscard]] df11_status try_decompress(std::uint64_t group, std::uint64_t first, std::uint64_t count, Bytes dst,
                                             std::uint32_t threads = 1, df11_error *error = nullptr) const noexcept {
        return df11_model_decompress(get(), group, first, count, dst.address(), dst.bytes(), threads, error);
    }
    /// df11_model_read_tensor(): as many bytes of a tensor as `dst` has, from its byte `offset` on.
    [[nodiscard]] df11_status try_read(std::uint64_t tensor, std::uint64_t offset, Bytes dst, std::uint32_t threads = 1,
                                       df11_error *error = nullptr) const noexcept {
        return df11_model_read_tensor(get(), tensor, offset, dst.address(), dst.bytes(), threads, error);
    }
    /// df11_model_write_image(): a group's image to at least Group::image_bytes() bytes.
    [[nodiscard]] df11_status try_write_image(std::uint64_t group, Bytes dst,
                                              df11_error *error = nullptr) const noexcept {
        return df11_model_write_image(get(), group, dst.address(), dst.bytes(), error);
    }
    /// df11_model_write_image_part(): one of `parts` parts of it. All go to the same memory, from any threads, at once
    /// or not; if any fails, there is no image.
    [[nodiscard]] df11_status try_write_image_part(std::uint64_t group, Bytes dst, std::uint32_t part,
                                                   std::uint32_t parts, df11_error *error = nullptr) const noexcept {
        return df11_model_write_image_part(get(), group, dst.address(), dst.bytes(), part, parts, error);
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
    /// Where a part of a group lies: see try_part().
    [[nodiscard]] df11_part_info part(std::uint64_t group, std::uint32_t part) const {
        df11_error error;
        df11_part_info out;
        check(try_part(out, group, part, &error), error);
        return out;
    }
    /// Decodes any range of a group: see try_decompress().
    void decompress(std::uint64_t group, std::uint64_t first, std::uint64_t count, Bytes dst,
                    std::uint32_t threads = 1) const {
        df11_error error;
        check(try_decompress(group, first, count, dst, threads, &error), error);
    }
    /// Decodes a whole group, to at least Group::bytes() bytes.
    void decompress(std::uint64_t group, Bytes dst, std::uint32_t threads = 1) const {
        df11_error error;
        auto info = detail::sized<df11_group_info>();
        check(df11_model_get_group_info(get(), group, &info, &error), error);
        check(try_decompress(group, 0, info.element_count, dst, threads, &error), error);
    }
    /// Copies or decodes bytes of any tensor: see try_read().
    void read(std::uint64_t tensor, std::uint64_t offset, Bytes dst, std::uint32_t threads = 1) const {
        df11_error error;
        check(try_read(tensor, offset, dst, threads, &error), error);
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
#endif
};

/// An image on a device, ready to be decoded. Immutable, and owner of no device memory: its image is the caller's, and
/// stays until the resident is gone and its decodes are done. In every decode `status` is 0, or the address of a
/// uint32_t in device memory, set to 0 by the caller, that is raised if the image contradicts itself; `bytes` is the
/// room at the destination.
///
/// Decodes are put into `stream` and nothing else: no allocation, no wait, no lock, and a capture may be under way.
class Resident : public detail::Owner<df11_resident, df11_resident_free> {
  public:
    /// An empty one.
    Resident() noexcept = default;
    /// Takes a handle over from C.
    explicit Resident(df11_resident *handle) noexcept : Owner(handle) {}

    /// What it is; all zeros if this is empty. `tensor_ends` belongs to the resident.
    df11_resident_info info() const noexcept {
        auto out = detail::sized<df11_resident_info>();
        (void)df11_resident_get_info(get(), &out, nullptr);
        return out;
    }

    /// df11_resident_decompress(): the whole group, to at least two bytes for each weight at a multiple of 2 (16 is fastest).
    [[nodiscard]] df11_status try_decompress(df11_devptr dst, std::size_t bytes, df11_devptr status, df11_stream stream,
                                             df11_error *error = nullptr) const noexcept {
        return df11_resident_decompress(get(), dst, bytes, status, stream, error);
    }
    /// df11_resident_decompress_range(): `count` weights from weight `first` on, both in elements: 2 * count bytes are written.
    [[nodiscard]] df11_status try_decompress_range(std::uint64_t first, std::uint64_t count, df11_devptr dst,
                                                   std::size_t bytes, df11_devptr status, df11_stream stream,
                                                   df11_error *error = nullptr) const noexcept {
        return df11_resident_decompress_range(get(), first, count, dst, bytes, status, stream, error);
    }
    /// df11_resident_decompress_tensors(): each tensor to a destination of its own, in the order of their weights; 0 leaves one
    /// out. Both lists have as many entries as the group has tensors, and are read during the call only.
    [[nodiscard]] df11_status try_decompress_tensors(Span<const df11_devptr> dsts, Span<const std::size_t> bytes,
                                                     df11_devptr status, df11_stream stream,
                                                     df11_error *error = nullptr) const noexcept {
        if (dsts.size() != bytes.size()) return detail::refuse(error, "dsts and bytes are lists of different lengths");
        return df11_resident_decompress_tensors(get(), dsts.data(), bytes.data(), dsts.size(), status, stream, error);
    }

#ifdef DF11_HPP_EXCEPTIONS
    /// Decodes the whole group: see try_decompress().
    void decompress(df11_devptr dst, std::size_t bytes, df11_devptr status, df11_stream stream) const {
        df11_error error;
        check(try_decompress(dst, bytes, status, stream, &error), error);
    }
    /// Decodes any range of the group: see try_decompress_range().
    void decompress_range(std::uint64_t first, std::uint64_t count, df11_devptr dst, std::size_t bytes,
                          df11_devptr status, df11_stream stream) const {
        df11_error error;
        check(try_decompress_range(first, count, dst, bytes, status, stream, &error), error);
    }
    /// Decodes each tensor to a destination of its own: see try_decompress_tensors().
    void decompress_tensors(Span<const df11_devptr> dsts, Span<const std::size_t> bytes, df11_devptr status,
                            df11_stream stream) const {
        df11_error error;
        check(try_decompress_tensors(dsts, bytes, status, stream, &error), error);
    }
#endif
};

/// df11_resident_decompress_batch(): whole groups, resident i to dsts[i], which holds bytes[i] bytes. The three lists are of one
/// length and are read during the call only; the first has what Resident::get() gives, which an engine keeps in such a
/// list, for a list of Resident would have to be copied. `statuses` is 0, or the address of one uint32_t for each
/// group.
[[nodiscard]] inline df11_status try_decompress_batch(Span<const df11_resident *const> residents,
                                                      Span<const df11_devptr> dsts, Span<const std::size_t> bytes,
                                                      df11_devptr statuses, df11_stream stream,
                                                      df11_error *error = nullptr) noexcept {
    if (dsts.size() != residents.size() || bytes.size() != residents.size())
        return detail::refuse(error, "residents, dsts and bytes are lists of different lengths");
    return df11_resident_decompress_batch(residents.data(), dsts.data(), bytes.data(), residents.size(), statuses, stream,
                                 error);
}

#ifdef DF11_HPP_EXCEPTIONS
/// Decodes whole groups in few launches: see try_decompress_batch().
inline void decompress_batch(Span<const df11_resident *const> residents, Span<const df11_devptr> dsts,
                             Span<const std::size_t> bytes, df11_devptr statuses, df11_stream stream) {
    df11_error error;
    check(try_decompress_batch(residents, dsts, bytes, statuses, stream, &error), error);
}
#endif

/// How to open a device.
struct DeviceOptions {
    /// DF11_DEVICE_ALLOW_DEFAULT_STREAM and DF11_DEVICE_* joined by |
    std::uint32_t flags = 0;
    /// NULL, or the path or name of the CUDA driver's library. It is read during the call only.
    const char *libcuda = nullptr;

    /// The same for C.
    df11_device_options c() const noexcept {
        auto out = detail::sized<df11_device_options>();
        out.flags = flags;
        out.libcuda = libcuda;
        return out;
    }
};

/// What Device::upload_alloc() gives: a resident, and its image's device memory, which is the caller's to free (by
/// Device::mem_free(), cuMemFree() or cudaFree()) when the resident is gone and its decodes are done.
struct Uploaded {
    df11_devptr image = 0;
    Resident resident;
};

/// An open CUDA device, with all kernels loaded. Immutable: any number of threads may use it at once. Residents may
/// outlive it.
class Device : public detail::Owner<df11_device, df11_device_free> {
  public:
    /// An empty one.
    Device() noexcept = default;
    /// Takes a handle over from C.
    explicit Device(df11_device *handle) noexcept : Owner(handle) {}

    /// df11_device_open(): a device by its number, in its primary context. The last call that may take long.
    [[nodiscard]] static df11_status try_open(Device &out, std::int32_t ordinal, const DeviceOptions &options = {},
                                              df11_error *error = nullptr) noexcept {
        const df11_device_options c = options.c();
        df11_device *handle = nullptr;
        const df11_status status = df11_device_open(ordinal, &c, &handle, error);
        out = Device(handle);
        return status;
    }
    /// df11_device_open_current(): the device of the context that is current on this thread, in that context.
    [[nodiscard]] static df11_status try_open_current(Device &out, const DeviceOptions &options = {},
                                                      df11_error *error = nullptr) noexcept {
        const df11_device_options c = options.c();
        df11_device *handle = nullptr;
        const df11_status status = df11_device_open_current(&c, &handle, error);
        out = Device(handle);
        return status;
    }

    /// What it is; all zeros if this is empty. Texts belong to the device.
    df11_device_info info() const noexcept {
        auto out = detail::sized<df11_device_info>();
        (void)df11_device_get_info(get(), &out, nullptr);
        return out;
    }

    /// df11_device_upload(): makes a group's image in `bytes` bytes of device memory at `image`, a multiple of 256. Copies and
    /// kernels are put into `stream`. They read the model's memory, so it and the resident stay until the stream has
    /// passed them.
    [[nodiscard]] df11_status try_upload(Resident &out, const Model &model, std::uint64_t group, df11_devptr image,
                                         std::size_t bytes, df11_stream stream,
                                         df11_error *error = nullptr) const noexcept {
        df11_resident *handle = nullptr;
        const df11_status status = df11_device_upload(get(), model.get(), group, image, bytes, stream, &handle, error);
        out = Resident(handle);
        return status;
    }
    /// df11_device_upload_staged(): the same through `staging`, memory of the caller's that should be pinned and stays, with
    /// the resident, until the stream has passed the upload. The call waits for the stream whenever it is full.
    [[nodiscard]] df11_status try_upload_staged(Resident &out, const Model &model, std::uint64_t group,
                                                df11_devptr image, std::size_t bytes, df11_stream stream, Bytes staging,
                                                df11_error *error = nullptr) const noexcept {
        df11_resident *handle = nullptr;
        const df11_status status = df11_device_upload_staged(get(), model.get(), group, image, bytes, stream,
                                                      staging.address(), staging.bytes(), &handle, error);
        out = Resident(handle);
        return status;
    }
    /// df11_upload_alloc(): the same into memory that this allocates, which may wait for the device. After an error
    /// nothing is allocated.
    [[nodiscard]] df11_status try_upload_alloc(Uploaded &out, const Model &model, std::uint64_t group,
                                               df11_stream stream, df11_error *error = nullptr) const noexcept {
        df11_resident *handle = nullptr;
        const df11_status status = df11_upload_alloc(get(), model.get(), group, stream, &out.image, &handle, error);
        out.resident = Resident(handle);
        return status;
    }
    /// df11_device_bind(): takes an image that lies on the device, or will when the streams of its decodes get there. No CUDA
    /// call is made, and the model may go.
    [[nodiscard]] df11_status try_bind(Resident &out, const Model &model, std::uint64_t group, df11_devptr image,
                                       std::size_t bytes, df11_error *error = nullptr) const noexcept {
        df11_resident *handle = nullptr;
        const df11_status status = df11_device_bind(get(), model.get(), group, image, bytes, &handle, error);
        out = Resident(handle);
        return status;
    }
    /// df11_device_bind_image(): the same without a model. `head` are the image's first bytes in host memory, which are
    /// checked as hostile and read during the call only; a whole image will do.
    [[nodiscard]] df11_status try_bind_image(Resident &out, ConstBytes head, df11_devptr image, std::size_t bytes,
                                             df11_error *error = nullptr) const noexcept {
        df11_resident *handle = nullptr;
        const df11_status status = df11_device_bind_image(get(), head.address(), head.bytes(), image, bytes, &handle, error);
        out = Resident(handle);
        return status;
    }
    /// df11_device_mem_free(): frees what upload_alloc() allocated; 0 is nothing. It waits for the device.
    [[nodiscard]] df11_status try_mem_free(df11_devptr memory, df11_error *error = nullptr) const noexcept {
        return df11_device_mem_free(get(), memory, error);
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
    /// Makes a group's image in device memory of the caller's: see try_upload().
    [[nodiscard]] Resident upload(const Model &model, std::uint64_t group, df11_devptr image, std::size_t bytes,
                                  df11_stream stream) const {
        df11_error error;
        Resident out;
        check(try_upload(out, model, group, image, bytes, stream, &error), error);
        return out;
    }
    /// The same through memory of the caller's: see try_upload_staged().
    [[nodiscard]] Resident upload_staged(const Model &model, std::uint64_t group, df11_devptr image, std::size_t bytes,
                                         df11_stream stream, Bytes staging) const {
        df11_error error;
        Resident out;
        check(try_upload_staged(out, model, group, image, bytes, stream, staging, &error), error);
        return out;
    }
    /// The same into memory that this allocates: see try_upload_alloc() and Uploaded.
    [[nodiscard]] Uploaded upload_alloc(const Model &model, std::uint64_t group, df11_stream stream) const {
        df11_error error;
        Uploaded out;
        check(try_upload_alloc(out, model, group, stream, &error), error);
        return out;
    }
    /// Takes an image that is, or will be, on the device: see try_bind().
    [[nodiscard]] Resident bind(const Model &model, std::uint64_t group, df11_devptr image, std::size_t bytes) const {
        df11_error error;
        Resident out;
        check(try_bind(out, model, group, image, bytes, &error), error);
        return out;
    }
    /// The same without a model: see try_bind_image().
    [[nodiscard]] Resident bind_image(ConstBytes head, df11_devptr image, std::size_t bytes) const {
        df11_error error;
        Resident out;
        check(try_bind_image(out, head, image, bytes, &error), error);
        return out;
    }
    /// Frees what upload_alloc() allocated: see try_mem_free().
    void mem_free(df11_devptr memory) const {
        df11_error error;
        check(try_mem_free(memory, &error), error);
    }
#endif
};

/// df11_image_get_info(): what an image is, by its first bytes in host memory. `out` is cleared after an error.
[[nodiscard]] inline df11_status try_image_info(df11_image_info &out, ConstBytes head,
                                                df11_error *error = nullptr) noexcept {
    out = detail::sized<df11_image_info>();
    return df11_image_get_info(head.address(), head.bytes(), &out, error);
}

#ifdef DF11_HPP_EXCEPTIONS
/// What an image is: see try_image_info().
[[nodiscard]] inline df11_image_info image_info(ConstBytes head) {
    df11_error error;
    df11_image_info out;
    check(try_image_info(out, head, &error), error);
    return out;
}
#endif

// A handle in C++ is a handle in C: the deleter takes no room.
static_assert(sizeof(Model) == sizeof(void *) && sizeof(Device) == sizeof(void *));
static_assert(sizeof(Resident) == sizeof(void *) && sizeof(Progress) == sizeof(void *));
static_assert(!std::is_copy_constructible_v<Model> && std::is_nothrow_move_constructible_v<Model>);
static_assert(!std::is_copy_constructible_v<Device> && std::is_nothrow_move_constructible_v<Device>);
static_assert(!std::is_copy_constructible_v<Resident> && std::is_nothrow_move_constructible_v<Resident>);
static_assert(!std::is_copy_constructible_v<Progress> && std::is_nothrow_move_constructible_v<Progress>);

/// df11_stats_get(): what the process has done through the library, in numbers.
[[nodiscard]] inline df11_stats stats() noexcept {
    auto out = detail::sized<df11_stats>();
    (void)df11_stats_get(&out, nullptr);
    return out;
}

#ifdef DF11_HPP_EXCEPTIONS
// ---------------------------------------------------------------------------------------------------------------------
// Long calls, with callbacks
// ---------------------------------------------------------------------------------------------------------------------

/// Told of the progress of a long call: bytes of its work that are done and that there are (0: not known yet). False
/// cancels the call, which then throws DF11_CANCELLED. It is called on any thread of the call, never two at a time, at
/// most 20 times a second but at the beginning and the end; the stacks of such threads have 256 KiB.
using ProgressFunction = std::function<bool(std::uint64_t done, std::uint64_t total)>;

/// How to verify.
struct VerifyOptions {
    /// Threads to use, the calling one among them; 0 means 1.
    std::uint32_t threads = 0;
    /// DF11_OPEN_ANY_VERSION or 0
    std::uint32_t flags = 0;
    /// NULL, or the text of a config.json for the model.
    const char *config_json = nullptr;
    /// NULL, or where to count and to look whether somebody cancels.
    const Progress *progress = nullptr;
    /// Empty, or what to tell of the progress.
    ProgressFunction on_progress;
    /// Empty, or what to tell of findings: DF11_FINDING_*, the name of a group or tensor, and a sentence about it,
    /// valid during the call only and not to be printed unescaped. It is called on the thread that called verify().
    std::function<void(std::uint32_t kind, std::string_view name, std::string_view text)> on_finding;
};

/// What came of a verification.
struct Verification {
    /// DF11_OK, or DF11_CORRUPT if something is wrong.
    df11_status status = DF11_OK;
    /// The first finding's sentence, if something is wrong.
    std::string message;
    /// The numbers; zeros if the model could not even be opened.
    df11_verify_report report = detail::sized<df11_verify_report>();

    /// Whether nothing is wrong.
    bool good() const noexcept { return status == DF11_OK; }
};

/// How to compress.
struct CompressOptions {
    /// Threads to work with, the calling one among them; 0 means 1.
    std::uint32_t threads = 0;
    /// DF11_COMPRESS_* joined by |
    std::uint32_t flags = 0;
    /// Bytes of memory to work in at most; 0 means 512 MiB.
    std::uint64_t memory_bytes = 0;
    /// NULL, or the name of a preset.
    const char *preset = nullptr;
    /// NULL, or the groups as JSON: a pattern_dict, or a config.json with one. Not together with `preset`.
    const char *pattern_json = nullptr;
    /// Which part of the groups to write, 1 to `part_count`; 0 and 0 are the whole model.
    std::uint32_t part = 0;
    /// How many parts there are.
    std::uint32_t part_count = 0;
    /// NULL, or where to count and to look whether somebody cancels.
    const Progress *progress = nullptr;
    /// Empty, or what to tell of the progress.
    ProgressFunction on_progress;
    /// Empty, or what to tell of each tensor that stays plain although the patterns ask for it: its name, its group's,
    /// and why; valid during the call only and not to be printed unescaped. It is called on the calling thread, after
    /// the work: what it throws leaves a model that is written.
    std::function<void(std::string_view tensor, std::string_view group, std::string_view reason)> on_left;
};

namespace detail {
/// Brings a long call's callbacks to C and their exceptions back: the first one is kept, cancels the call, and is
/// thrown again when the call has returned.
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
    /// Throws what a callback threw. The C call has returned, so no other thread is in a callback.
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

/// One for verify(): findings come on the calling thread.
struct VerifyCallbacks : Callbacks {
    const VerifyOptions &options;
    explicit VerifyCallbacks(const VerifyOptions &all) : Callbacks(all.on_progress), options(all) {}
    static void finding(void *self, std::uint32_t kind, const char *name, const char *text) noexcept {
        auto &callbacks = *static_cast<VerifyCallbacks *>(self);
        if (!callbacks.thrown()) callbacks.guard([&] { callbacks.options.on_finding(kind, name, text); });
    }
};

/// One for compress() and merge().
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

/// df11_verify_model(): opens a model, looks at everything, and with an `original` compares every bit. What is wrong
/// with the model is a result, not an exception: see Verification::good(). Error is thrown where nothing can be said
/// about it.
[[nodiscard]] inline Verification verify(Text model, Text original = nullptr, const VerifyOptions &options = {}) {
    df11_error error;
    Verification result;
    detail::VerifyCallbacks callbacks(options);
    auto c = detail::sized<df11_verify_options>();
    c.threads = options.threads;
    c.flags = options.flags;
    c.config_json = options.config_json;
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

/// df11_compress_model(): compresses a folder or a file, or one part of it.
inline df11_compress_report compress(Text src, Text dst, const CompressOptions &options = {}) {
    return detail::write(df11_compress_model, src, dst, options);
}

/// df11_merge_model(): completes a folder whose parts are all finished.
inline df11_compress_report merge(Text src, Text dst, const CompressOptions &options = {}) {
    return detail::write(df11_merge_model, src, dst, options);
}

/// The library's log, sent to a function for as long as this lives. It is one for the process: the last Log that was
/// made has it, and the end of any ends it. The function is called on whatever thread has something to say, several at
/// once, with a level (DF11_LOG_ERROR to DF11_LOG_TRACE) and a line that is valid during the call only; it must not
/// call the library, and what it throws is dropped. When the destructor returns, it is running in no thread.
class Log {
  public:
    using Function = std::function<void(std::int32_t level, std::string_view line)>;

    /// Sends lines of `max_level` and what is more important.
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
            // Nobody is there to hear of it.
        }
    }
    // At an address that stays when the Log is moved.
    std::unique_ptr<Function> function_;
};
#endif

}  // namespace v0_1

}  // namespace df11

#if __cplusplus >= 202002L
// Both are pointers into what somebody else owns: their iterators outlive them.
template <typename T> inline constexpr bool std::ranges::enable_borrowed_range<df11::Span<T>> = true;
template <typename T> inline constexpr bool std::ranges::enable_borrowed_range<df11::detail::Numbered<T>> = true;
template <typename T> inline constexpr bool std::ranges::enable_view<df11::Span<T>> = true;
template <typename T> inline constexpr bool std::ranges::enable_view<df11::detail::Numbered<T>> = true;
#endif

#undef DF11_HPP_KEPT
#undef DF11_HPP_EXCEPTIONS

#endif
