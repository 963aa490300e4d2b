// Tests everything in df11.hpp that needs no device, and compares it with the C calls.
//
//     api GOLDEN HOSTILE SCRATCH      the folders tests/data/golden and tests/data/hostile, and one to write to
#include "df11.hpp"

#include "check.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#if __cplusplus >= 202002L
#include <ranges>
#include <span>
#endif

namespace {

namespace fs = std::filesystem;
fs::path golden, hostile, scratch;

/// Makes a call that must fail, and returns its error.
template <typename Call> df11::Error failure(Call call) {
    try {
        call();
    } catch (const df11::Error &error) {
        return error;
    }
    std::fprintf(stderr, "nothing was thrown\n");
    std::exit(1);
}

/// The exception that a test's callback throws.
struct Thrown : std::logic_error {
    using std::logic_error::logic_error;
};
template <typename Call> bool throws_on(Call call) {
    try {
        call();
    } catch (const Thrown &) {
        return true;
    }
    return false;
}

// ---------------------------------------------------------------------------------------------------------------------

template <typename T> constexpr bool is_owner =
    sizeof(T) == sizeof(void *) && !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T> &&
    std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T> &&
    std::is_nothrow_default_constructible_v<T>;
static_assert(is_owner<df11::Model> && is_owner<df11::Device> && is_owner<df11::Resident> && is_owner<df11::Progress>);
static_assert(std::is_base_of_v<std::runtime_error, df11::Error> && std::is_nothrow_copy_constructible_v<df11::Error>);

// Borrowed memory: what converts, and what must not convert.
static_assert(std::is_convertible_v<std::vector<std::uint16_t> &, df11::Bytes>);
static_assert(!std::is_convertible_v<const std::vector<std::uint16_t> &, df11::Bytes>);
static_assert(!std::is_convertible_v<std::vector<std::string> &, df11::Bytes>);
static_assert(std::is_convertible_v<const std::vector<std::uint16_t> &, df11::ConstBytes>);
static_assert(std::is_convertible_v<std::vector<df11_devptr> &, df11::Span<const df11_devptr>>);
static_assert(!std::is_convertible_v<std::vector<int> &, df11::Span<const df11_devptr>>);
static_assert(!std::is_convertible_v<const std::vector<df11_devptr> &, df11::Span<df11_devptr>>);
static_assert(std::is_convertible_v<std::string, df11::Text> && std::is_convertible_v<fs::path, df11::Text>);
static_assert(!std::is_convertible_v<int, df11::Text>);

// A range cannot be made from a temporary model.
template <typename M, typename = void> constexpr bool has_groups = false;
template <typename M> constexpr bool has_groups<M, std::void_t<decltype(std::declval<M>().groups())>> = true;
static_assert(has_groups<df11::Model &> && has_groups<const df11::Model &> && !has_groups<df11::Model>);

void ownership() {
    df11::Model empty;
    CHECK(!empty && empty.get() == nullptr && empty.groups().empty() && empty.tensors().empty());
    CHECK(!empty.find_group("x") && !empty.find_tensor("x"));
    CHECK(failure([&] { empty.decompress(0, df11::Bytes(nullptr, 0)); }).status() == DF11_INVALID_ARGUMENT);

    {
        df11::Model a = df11::Model::open(golden / "tiny/model");
        const df11_model *handle = a.get();
        const df11::Group group = a.groups()[0];
        df11::Model b = std::move(a);
        CHECK(!a && b.get() == handle);
        // Objects that point into the model stay valid.
        CHECK(group.name() == b.groups()[0].name() && group.tensors().size() == b.groups()[0].tensors().size());
        a = df11::Model::open(golden / "edge/model");
        CHECK(a && a.get() != handle);
        a = std::move(b);
        CHECK(a.get() == handle);
        df11_model *mine = a.release();
        CHECK(!a && mine == handle);
        df11::Model back(mine);
        std::swap(a, back);
        CHECK(a.get() == handle && !back);
    }
}

void errors() {
    const df11::Error missing = failure([] { (void)df11::Model::open("/nowhere/model"); });
    CHECK(missing.status() == DF11_IO && missing.native_code() == ENOENT && std::strcmp(missing.name(), "IO") == 0);
    CHECK(std::strstr(missing.what(), "/nowhere/model") != nullptr);
    const df11::Error bad = failure([] { (void)df11::Model::open(hostile / "version_0_1_0"); });
    CHECK(bad.status() == DF11_UNSUPPORTED_FORMAT && bad.native_code() == 0);
    // The try_ variant gives the same error without an exception, and empties its output.
    df11_error error;
    df11::Model model = df11::Model::open(golden / "tiny/model");
    CHECK(df11::Model::try_open(model, hostile / "version_0_1_0", {}, &error) == DF11_UNSUPPORTED_FORMAT && !model);
    CHECK(std::string(error.message) == bad.what());
    // A copy outlives the caught exception.
    df11::Error copy = missing;
    copy = bad;
    CHECK(std::string(copy.what()) == bad.what() && copy.status() == bad.status());
    df11::check(DF11_OK, error);
    CHECK(failure([&] { df11::check(error.status, error); }).status() == DF11_UNSUPPORTED_FORMAT);
    CHECK(df11::version() == df11_version_string());
    df11::OpenOptions options;
    options.flags = 1u << 31;
    CHECK(failure([&] { (void)df11::Model::open(golden / "tiny/model", options); }).status() ==
          DF11_UNSUPPORTED_OPTION);
}

// Tensors and groups of the extension: every run is where both sides say.
void runs() {
    const df11::Model model = df11::Model::open(golden / "../extension/model");
    std::size_t extended = 0, several = 0;
    for (const df11::Group &group : model.groups()) {
        std::uint64_t weights = 0;
        for (std::uint64_t i = 0; i < group.run_count(); i++) {
            const df11_run_info run = group.run(i);
            CHECK(run.group == group.index() && run.group_offset == weights);
            if (!group.tensors().empty()) CHECK(group.tensors()[i].index() == run.tensor);
            weights += run.element_count;
        }
        CHECK(weights == group.element_count());
        extended += group.extended();
    }
    for (const df11::Tensor &tensor : model.tensors()) {
        std::uint64_t elements = 0;
        for (std::uint64_t i = 0; i < tensor.run_count(); i++) {
            const df11_run_info run = tensor.run(i);
            CHECK(run.tensor == tensor.index() && run.tensor_offset == elements);
            if (i == 0) CHECK(tensor.group() == run.group && tensor.group_offset() == run.group_offset);
            elements += run.element_count;
        }
        CHECK(tensor.group() ? 2 * elements == tensor.data_bytes() : tensor.run_count() == 0);
        several += tensor.run_count() > 1;
    }
    CHECK(extended == 5 && several == 2);
    CHECK(model.groups()[99].run_count() == 0 && model.groups()[99].run(0).element_count == 0);
}

void ranges() {
    for (const char *name : {"tiny", "block", "sharded", "edge"}) {
        const df11::Model model = df11::Model::open(golden / name / "model");
        const df11::Groups groups = model.groups();
        CHECK(groups.size() == df11_model_group_count(model.get()) &&
              model.tensors().size() == df11_model_tensor_count(model.get()));
        std::uint64_t number = 0, tensors = 0;
        for (const df11::Group &group : groups) {
            df11_group_info want = DF11_GROUP_INFO_INIT;
            CHECK(df11_model_get_group_info(model.get(), number, &want, nullptr) == DF11_OK);
            CHECK(std::memcmp(&want, &group.info(), sizeof want) == 0 && group.index() == number);
            CHECK(group.name().data() == want.name && group.data_bytes() == 2 * want.element_count);
            CHECK(group.packed_bytes() == want.packed_bytes && group.image_bytes() == want.image_bytes);
            std::uint64_t offset = 0;
            for (const df11::Tensor &tensor : group.tensors()) {
                CHECK(tensor.index() == tensors++ && tensor.group() == number && tensor.group_offset() == offset);
                CHECK(tensor.dtype() == DF11_DTYPE_BF16 && tensor.data().empty());
                offset += tensor.data_bytes() / 2;
            }
            CHECK(offset == group.element_count());
            const auto found = model.find_group(std::string(group.name()));
            CHECK(found && found->index() == number && found->name() == group.name());
            number++;
        }
        for (const df11::Tensor &tensor : model.tensors()) {
            df11_tensor_info want = DF11_TENSOR_INFO_INIT;
            CHECK(df11_model_get_tensor_info(model.get(), tensor.index(), &want, nullptr) == DF11_OK);
            CHECK(std::memcmp(&want, &tensor.info(), sizeof want) == 0 && tensor.name() == want.name);
            CHECK(tensor.shape().size() == want.rank && tensor.shape().data() == want.shape);
            CHECK(tensor.shape_source() == want.shape_known && tensor.shape_known() == (want.shape_known != 0));
            CHECK(df11::dtype_name(tensor.dtype()) == df11_dtype_name(want.dtype));
            CHECK(df11::dtype_bytes(tensor.dtype()) > 0);
            const auto found = model.find_tensor(want.name);
            CHECK(found && found->index() == tensor.index());
            if (!tensor.group()) CHECK(tensor.data().data() == want.data && tensor.data().size() == want.data_bytes);
        }
        CHECK(!model.find_group("no such group") && !model.find_tensor(nullptr));

        std::uint64_t config_bytes = 0;
        const char *config = df11_model_config_text(model.get(), &config_bytes);
        CHECK(model.config_text().data() == config && model.config_text().size() == config_bytes);

        // Iterators work with the standard's algorithms.
        auto begin = groups.begin();
        CHECK(std::distance(begin, groups.end()) == static_cast<std::ptrdiff_t>(groups.size()));
        CHECK(groups.end() - begin == static_cast<std::ptrdiff_t>(groups.size()) && begin->index() == 0 &&
              begin[0].index() == 0);
        auto last = groups.end();
        --last;
        CHECK((*last).index() == groups.size() - 1 && last >= begin && (last == begin) == (groups.size() == 1));
        CHECK(begin++->index() == 0 && begin == groups.begin() + 1 && begin-- != groups.begin() &&
              begin == groups.begin());
        const auto weights =
            std::accumulate(groups.begin(), groups.end(), std::uint64_t{0},
                            [](std::uint64_t sum, const df11::Group &g) { return sum + g.element_count(); });
        CHECK(weights > 0);
        CHECK(std::find_if(groups.begin(), groups.end(), [](const df11::Group &g) { return g.index() == 7777; }) ==
              groups.end());
        // An element that does not exist.
        const df11::Group none = groups[groups.size()];
        CHECK(none.name().empty() && none.element_count() == 0 && none.tensors().empty());
        const df11::Tensor nothing = model.tensors()[model.tensors().size()];
        CHECK(nothing.name().empty() && !nothing.group() && nothing.shape().empty() && !nothing.shape_known());
#if __cplusplus >= 202002L
        static_assert(std::random_access_iterator<df11::Groups::iterator> &&
                      std::ranges::random_access_range<df11::Tensors>);
        static_assert(std::ranges::sized_range<df11::Groups> && std::ranges::borrowed_range<df11::Groups>);
        static_assert(std::ranges::view<df11::Groups> && std::ranges::view<df11::Span<const int>>);
        const auto found = std::ranges::find(groups, groups[0].name(), &df11::Group::name);
        CHECK(found == groups.begin());
        auto plain = model.tensors() | std::views::filter([](const df11::Tensor &t) { return !t.group(); }) |
                     std::views::transform([](const df11::Tensor &t) { return t.data_bytes(); });
        std::uint64_t plain_bytes = 0;
        for (std::uint64_t bytes : plain) plain_bytes += bytes;
        std::uint64_t want_bytes = 0;
        for (const df11::Tensor &tensor : model.tensors()) want_bytes += tensor.group() ? 0 : tensor.data_bytes();
        CHECK(plain_bytes == want_bytes);
        CHECK(df11::Model::open(golden / name / "model", {.flags = DF11_OPEN_READ, .threads = 2}));
        const std::span<const std::uint64_t> shape = model.tensors()[0].shape();
        CHECK(shape.data() == model.tensors()[0].info().shape && shape.size() == model.tensors()[0].info().rank);
#endif
    }
}

void decoding() {
    const df11::Model model = df11::Model::open(golden / "block/model");
    const df11::Group group = model.groups()[0];
    std::vector<std::uint16_t> want(group.element_count()), got(group.element_count() + 1);
    CHECK(df11_model_decompress(model.get(), 0, 0, want.size(), want.data(), 2 * want.size(), 1, nullptr) == DF11_OK);
    got.back() = 0x5555;
    model.decompress(0, got, 2);
    CHECK(std::equal(want.begin(), want.end(), got.begin()) && got.back() == 0x5555);
    std::array<std::uint16_t, 100> some{};
    model.decompress(0, 7, some.size(), some);
    CHECK(std::equal(some.begin(), some.end(), want.begin() + 7));
    std::uint16_t few[5] = {};
    CHECK(model.try_decompress(0, 11, 5, few) == DF11_OK && std::equal(few, few + 5, want.begin() + 11));
    std::vector<unsigned char> raw(2 * want.size());
    model.decompress(0, 0, want.size(), {raw.data(), raw.size()});
    CHECK(std::memcmp(raw.data(), want.data(), raw.size()) == 0);
    // From the group and from the tensor themselves.
    std::fill(got.begin(), got.end(), std::uint16_t{0x5555});
    group.decompress(got, 2);
    CHECK(std::equal(want.begin(), want.end(), got.begin()) && got.back() == 0x5555);
    const df11::Tensor second = model.groups()[2].tensors()[1];
    std::vector<std::uint16_t> weights(second.data_bytes() / 2 + 1, 0x5555), same(second.data_bytes() / 2);
    second.read(weights);
    model.read_tensor(second.index(), 0, same);
    CHECK(second.group_offset() > 0 && std::equal(same.begin(), same.end(), weights.begin()));
    CHECK(weights.back() == 0x5555);
    CHECK(failure([&] { group.decompress(some); }).status() == DF11_BUFFER_TOO_SMALL);
    CHECK(failure([&] { second.read({weights.data(), 2}); }).status() == DF11_INVALID_ARGUMENT);
    CHECK(group.try_decompress(got) == DF11_OK && second.try_read(weights) == DF11_OK);
    CHECK(df11::Group(nullptr, 0).try_decompress(got) == DF11_INVALID_ARGUMENT);
#if __cplusplus >= 202002L
    model.decompress(0, 3, 10, std::span(got).first(10));
    CHECK(std::equal(got.begin(), got.begin() + 10, want.begin() + 3));
    model.decompress(0, 4, 10, std::as_writable_bytes(std::span(got).first(10)));
    CHECK(std::equal(got.begin(), got.begin() + 10, want.begin() + 4));
#endif
    for (const df11::Tensor &tensor : model.tensors()) {
        std::vector<unsigned char> bytes(tensor.data_bytes());
        model.read_tensor(tensor.index(), 0, bytes, 2);
        if (tensor.group() == std::uint64_t{0})
            CHECK(std::memcmp(bytes.data(), want.data() + tensor.group_offset(), bytes.size()) == 0);
        else if (!tensor.group())
            CHECK(std::equal(bytes.begin(), bytes.end(), tensor.data().begin()));
    }
    CHECK(failure([&] { model.decompress(0, some); }).status() == DF11_BUFFER_TOO_SMALL);
    CHECK(failure([&] { model.decompress(99, got); }).status() == DF11_NOT_FOUND);
    CHECK(failure([&] { model.decompress(0, want.size(), 1, some); }).status() == DF11_INVALID_ARGUMENT);
    CHECK(failure([&] { model.decompress(0, 0, 4, {raw.data() + 1, 8}); }).status() == DF11_MISALIGNED);
    CHECK(failure([&] { model.read_tensor(0, 1, some); }).status() == DF11_INVALID_ARGUMENT);
    CHECK(model.try_read_tensor(9999, 0, some) == DF11_NOT_FOUND);

    // Where parts are stored.
    const df11_part_info luts = model.get_group_part(0, DF11_PART_LUTS);
    CHECK(luts.data_bytes % 256 == 0 && luts.data != nullptr && luts.file != nullptr);
    CHECK(failure([&] { (void)model.get_group_part(0, 6); }).status() == DF11_NOT_FOUND);
    const df11::Model original = df11::Model::open(golden / "block/original.safetensors");
    CHECK(original.groups().empty() && !original.tensors().empty());

    // Many threads, one model.
    std::vector<std::thread> threads;
    std::vector<int> right(4);
    for (std::size_t t = 0; t < right.size(); t++)
        threads.emplace_back([&, t] {
            std::vector<std::uint16_t> mine(want.size());
            right[t] = model.try_decompress(0, 0, mine.size(), mine) == DF11_OK && mine == want;
        });
    for (std::thread &thread : threads) thread.join();
    CHECK(std::count(right.begin(), right.end(), 1) == 4);
}

void images() {
    const df11::Model model = df11::Model::open(golden / "tiny/model");
    for (const df11::Group &group : model.groups()) {
        std::vector<unsigned char> want(group.image_bytes()), got(group.image_bytes());
        CHECK(df11_model_write_image(model.get(), group.index(), want.data(), want.size(), nullptr) == DF11_OK);
        model.write_image(group.index(), got);
        CHECK(got == want);
        std::fill(got.begin(), got.end(), static_cast<unsigned char>(0xaa));
        for (std::uint32_t part = 3; part-- > 0;) model.write_image_part(group.index(), got, part, 3);
        CHECK(got == want);
        const df11_image_info info = df11::image_get_info(got);
        CHECK(info.image_bytes == got.size() && info.element_count == group.element_count());
        got[20] = static_cast<unsigned char>(~got[20]);
        CHECK(failure([&] { (void)df11::image_get_info(got); }).status() == DF11_CORRUPT);
        CHECK(failure([&] { model.write_image(group.index(), {got.data(), 256}); }).status() == DF11_BUFFER_TOO_SMALL);
    }
}

/// Ranges and shards of every tensor, for two ranks: what the oracle of images in Rust says of them is tested there.
void parts_of_groups() {
    const df11::Model model = df11::Model::open(golden / "tiny/model");
    for (const df11::Group &group : model.groups()) {
        const std::uint64_t g = group.index(), n = group.element_count();
        const df11_image_info said = model.get_image_range_info(g, 3, n - 5);
        std::vector<unsigned char> image(said.image_bytes);
        model.write_image_range(g, 3, n - 5, image, 2);
        const df11_image_info info = df11::image_get_info(image);
        CHECK(info.first_element == 3 && info.element_count == n - 5 && info.group_element_count == n);
        CHECK(failure([&] { model.write_image_range(g, 3, n, image); }).status() == DF11_INVALID_ARGUMENT);

        const df11_slice even = {0, 0, 1, 2, 8}, odd = {0, 1, 1, 2, 8};
        const std::vector<df11_slice> slices = {odd, even};
        const df11::Shard shard = df11::Shard::make(model, g, slices, 2);
        std::vector<unsigned char> other(shard.get_image_info().image_bytes);
        shard.write_image(other);
        CHECK(df11::image_get_info(other).slice_count == 2 && df11::image_get_info(other).element_count == 16);
        df11_slice found;
        CHECK(df11::try_image_get_slice(found, other, 0) == DF11_OK && found.first == 1 && found.run_count == 8);
        CHECK(df11::try_image_get_slice(found, other, 2) == DF11_NOT_FOUND && found.run_count == 0);
        CHECK(failure([&] { (void)df11::Shard::make(model, g, {}); }).status() == DF11_INVALID_ARGUMENT);
        CHECK(df11::Shard().get_image_info().image_bytes == 0);
    }
    std::uint64_t first = 0, count = 0;
    CHECK(df11::try_split_segment(first, count, {1024, 128, DF11_SPLIT_REPLICATE, 0}, 5, 16) == DF11_OK);
    CHECK(first == 256 && count == 128);
    const df11_segment segment = {1, 1, DF11_SPLIT_EVEN, 0};
    std::vector<df11_slice> two(2);
    CHECK(model.try_get_slices(two, 0, 0, 0, {&segment, 1}, 0, 1) == DF11_INVALID_ARGUMENT);
}

void verifying() {
    df11::VerifyOptions options;
    df11::Progress progress = df11::Progress::create();
    std::uint64_t calls = 0, total = 0, findings = 0;
    options.threads = 2;
    options.progress = &progress;
    options.on_progress = [&](std::uint64_t done, std::uint64_t all) {
        calls++;
        total = std::max(total, all);
        return done <= all;
    };
    options.on_finding = [&](std::uint32_t kind, std::string_view name, std::string_view text) {
        findings += kind != DF11_FINDING_GOOD;
        CHECK(!name.empty() && !text.empty() && name.data()[name.size()] == 0);
    };
    df11::Verification result = df11::verify_model(golden / "block/model", golden / "block/original.safetensors", options);
    CHECK(result.good() && result.message.empty() && result.report.groups_good == 4 &&
          result.report.tensors_equal == 21);
    CHECK(calls >= 2 && findings == 0 && progress.amount().done == total && progress.amount().total == total &&
          total > 0);
    // A damaged model is a result.
    result = df11::verify_model(hostile / "bits_that_are_no_code.safetensors", nullptr, options);
    CHECK(!result.good() && result.status == DF11_CORRUPT && result.report.groups_bad == 1 && findings == 1);
    CHECK(result.message.find("encoded_exponent") != std::string::npos);
    CHECK(!df11::verify_model(golden / "block/model", golden / "tiny/original.safetensors").good());
    CHECK(failure([] { (void)df11::verify_model("/nowhere"); }).status() == DF11_IO);

    // Opening verifies as well if asked to, and can be cancelled.
    df11::Progress opening = df11::Progress::create();
    df11::OpenOptions walk;
    walk.flags = DF11_OPEN_VERIFY;
    walk.threads = 2;
    walk.progress = &opening;
    std::uint64_t weights = 0;
    const df11::Model walked = df11::Model::open(golden / "block/model", walk);
    for (const df11::Group &group : walked.groups()) weights += group.element_count();
    CHECK(weights > 0 && opening.amount().done == 2 * weights && opening.amount().total == 2 * weights);
    opening.cancel();
    CHECK(failure([&] { (void)df11::Model::open(golden / "block/model", walk); }).status() == DF11_CANCELLED);

    // Cancelled by the callback, by the handle, and by an exception of either callback.
    df11::VerifyOptions no;
    no.on_progress = [](std::uint64_t, std::uint64_t) { return false; };
    CHECK(failure([&] { (void)df11::verify_model(golden / "block/model", nullptr, no); }).status() == DF11_CANCELLED);
    progress.cancel();
    no.on_progress = nullptr;
    no.progress = &progress;
    CHECK(failure([&] { (void)df11::verify_model(golden / "block/model", nullptr, no); }).status() == DF11_CANCELLED);
    no.progress = nullptr;
    no.on_progress = [](std::uint64_t, std::uint64_t) -> bool { throw Thrown("progress"); };
    CHECK(throws_on([&] { (void)df11::verify_model(golden / "block/model", nullptr, no); }));
    unsigned told = 0;
    no.on_progress = nullptr;
    no.on_finding = [&](std::uint32_t, std::string_view, std::string_view) {
        told++;
        throw Thrown("finding");
    };
    CHECK(throws_on([&] { (void)df11::verify_model(golden / "block/model", nullptr, no); }) && told == 1);
}

void planning() {
    const df11::Plan plan = df11::Plan::model(golden / "sharded/model");
    const df11::Model model = df11::Model::open(golden / "sharded/model");
    const df11_plan_info info = plan.get_info();
    CHECK(info.exact == 1 && info.group_count == model.groups().size() && info.cache_unknown == nullptr);
    for (const df11::Group &group : model.groups()) {
        const df11_plan_group_info planned = plan.get_group_info(group.index());
        CHECK(planned.name == group.name() && planned.image_bytes == group.image_bytes());
    }
    const df11_plan_share_info share = plan.get_share_info(DF11_SPLIT_LAYERS, 1, 0);
    CHECK(share.image_bytes == info.image_bytes && share.bf16_bytes == info.original_bytes);
    df11::Plan::Tokens tokens = plan.count_tokens(DF11_SPLIT_LAYERS, 1, info.image_bytes);
    CHECK(!tokens.compressed && !tokens.bf16);
    tokens = plan.count_tokens(DF11_SPLIT_ROWS, 2, share.total_bytes);
    CHECK(tokens.compressed && tokens.bf16 && *tokens.compressed > 0);
    CHECK(failure([&] { (void)plan.get_group_info(99); }).status() == DF11_NOT_FOUND);
    CHECK(failure([&] { (void)plan.get_share_info(DF11_SPLIT_ROWS, 0, 0); }).status() == DF11_INVALID_ARGUMENT);
    CHECK(failure([&] { (void)plan.count_tokens(9, 1, 1); }).status() == DF11_UNSUPPORTED_OPTION);

    df11::PlanOptions options;
    options.flags = DF11_PLAN_SAMPLE;
    options.slots = 3;
    options.preset = "llama";
    df11::Plan near;
    CHECK(df11::Plan::try_model(near, golden / "sharded/original.safetensors", options) == DF11_OK);
    CHECK(near.get_info().exact == 0 && near.get_info().scratch_bytes == 6 * info.largest_group_element_count);
    CHECK(near.get_info().cache_bytes_per_token == DF11_PLAN_NONE && near.get_info().cache_unknown != nullptr);
    CHECK(df11::Plan::try_model(near, golden / "nothing", options) == DF11_IO && near.get() == nullptr);
    CHECK(failure([&] { (void)df11::Plan::model(golden / "nothing"); }).status() == DF11_IO);

    // What a group needs, and what is given of a compressed model.
    const df11::Plan wide = df11::Plan::model(golden / "../extension/model");
    std::uint64_t extended = 0;
    for (std::uint64_t i = 0; i < wide.get_info().group_count; ++i) extended += wide.get_group_info(i).extended;
    CHECK(extended == 5 && plan.get_group_info(0).extended == 0);
    options = df11::PlanOptions();
    options.config_json = "{}";
    CHECK(df11::Plan::model(golden / "edge/model", options).get_info().exact == 1);
    CHECK(df11::Plan::try_model(near, golden / "edge/original.safetensors", options) == DF11_INVALID_ARGUMENT);
    options.config_json = R"({"dfloat11_config": {"version": "9.5.0", "pattern_dict": {}}})";
    CHECK(df11::Plan::try_model(near, golden / "edge/model", options) == DF11_UNSUPPORTED_FORMAT);
    options.flags = DF11_PLAN_ANY_VERSION;
    CHECK(df11::Plan::try_model(near, golden / "edge/model", options) == DF11_OK);
    const std::string original = (golden / "sharded/original.safetensors").string();
    options = df11::PlanOptions();
    options.shapes_from = original.c_str();
    CHECK(df11::Plan::try_model(near, golden / "sharded/model", options) == DF11_OK);
    options.shapes_json = R"({"lm_head.weight": [1, 1]})";
    CHECK(df11::Plan::try_model(near, golden / "sharded/model", options) == DF11_INVALID_ARGUMENT);
}

void writing() {
    const fs::path source = golden / "block/original.safetensors";
    df11::CompressOptions options;
    std::uint64_t left = 0, calls = 0;
    options.threads = 2;
    options.flags = DF11_COMPRESS_HASHES;
    options.on_left = [&](std::string_view tensor, std::string_view group, std::string_view reason) {
        left += !tensor.empty() && !group.empty() && !reason.empty();
    };
    options.on_progress = [&](std::uint64_t, std::uint64_t) { return ++calls > 0; };
    const df11_compress_report report = df11::compress_model(source, scratch / "whole", options);
    CHECK(report.complete == 1 && report.groups == 4 && report.preset != nullptr && left == report.left_count &&
          calls >= 2);
    CHECK(df11::verify_model(scratch / "whole", source).good());
    // The preset that was chosen is one of the list, and its patterns give the same groups.
    const std::vector<df11::Preset> presets = df11::presets();
    CHECK(presets.size() == df11_preset_count());
    const auto chosen = std::find_if(presets.begin(), presets.end(), [&](const df11::Preset &preset) {
        return std::strcmp(preset.name, report.preset) == 0;
    });
    CHECK(chosen != presets.end());
    df11::CompressOptions by_hand;
    by_hand.pattern_json = chosen->pattern_json;
    CHECK(df11::compress_model(source, scratch / "by_hand", by_hand).groups == report.groups);
    // In parts, and merged.
    df11::CompressOptions part = options;
    part.part_count = 2;
    for (part.part = 1; part.part <= 2; part.part++)
        CHECK(df11::compress_model(source, scratch / "parts", part).complete == 0);
    const df11_compress_report merged = df11::merge_model(source, scratch / "parts", options);
    CHECK(merged.complete == 1 && merged.groups == 4);
    CHECK(df11::verify_model(scratch / "parts", source).good());

    CHECK(failure([&] { (void)df11::compress_model(source, scratch / "whole", options); }).status() == DF11_EXISTS);
    options.preset = "no such preset";
    CHECK(failure([&] { (void)df11::compress_model(source, scratch / "other", options); }).status() == DF11_NOT_FOUND);
    options.preset = nullptr;
    options.on_progress = [](std::uint64_t, std::uint64_t) -> bool { throw Thrown("progress"); };
    CHECK(throws_on([&] { (void)df11::compress_model(source, scratch / "thrown", options); }));
    options.on_progress = [](std::uint64_t, std::uint64_t) { return false; };
    CHECK(failure([&] { (void)df11::compress_model(source, scratch / "cancelled", options); }).status() == DF11_CANCELLED);
    // And back, to a folder in several files; then as one file, and as a folder again.
    df11::DecompressOptions back;
    back.threads = 2;
    back.shard_bytes = 1000000;
    back.flags = DF11_DECOMPRESS_FLAT;
    back.on_progress = [&](std::uint64_t, std::uint64_t) { return ++calls > 0; };
    const df11_decompress_report plain = df11::decompress_model(scratch / "whole", scratch / "plain", back);
    CHECK(plain.tensor_count == 21 && plain.file_count > 1);
    CHECK(df11::verify_model(scratch / "whole", scratch / "plain").report.tensors_equal == 21);
    back.tensors = {"model.norm.weight"};
    back.groups = {"lm_head"};
    CHECK(df11::decompress_model(scratch / "whole", scratch / "some.safetensors", back).tensor_count == 2);
    back.on_progress = [](std::uint64_t, std::uint64_t) -> bool { throw Thrown("progress"); };
    CHECK(throws_on([&] { (void)df11::decompress_model(scratch / "whole", scratch / "thrown", back); }));
    df11::RepackOptions pack;
    pack.threads = 2;
    CHECK(df11::repack_model(scratch / "whole", scratch / "one.safetensors", pack).file_count == 1);
    pack.flags = DF11_REPACK_FOLDER;
    CHECK(df11::repack_model(scratch / "one.safetensors", scratch / "folder", pack).group_count == 4);
    CHECK(df11::verify_model(scratch / "folder", source).good());
    // Shapes that are given are compared, and written.
    df11::VerifyOptions check;
    check.shapes_from = source.string();
    CHECK(df11::verify_model(golden / "block/model", source, check).good());
    check.shapes_json = R"({"lm_head.weight": [1, 1]})";
    CHECK(failure([&] { (void)df11::verify_model(golden / "block/model", source, check); }).status() ==
          DF11_INVALID_ARGUMENT);
    pack = df11::RepackOptions();
    pack.shapes_from = source.string();
    CHECK(df11::repack_model(golden / "block/model", scratch / "shaped.safetensors", pack).file_count == 1);
    df11::OpenOptions stored;
    stored.flags = DF11_OPEN_NO_DERIVED_SHAPES;
    const df11::Model shaped = df11::Model::open(scratch / "shaped.safetensors", stored);
    for (const df11::Tensor &tensor : shaped.tensors()) CHECK(tensor.shape_source() == DF11_SHAPE_STORED);
    pack.shapes_json = check.shapes_json;
    CHECK(failure([&] { (void)df11::repack_model(golden / "block/model", scratch / "none", pack); }).status() ==
          DF11_INVALID_ARGUMENT);
    CHECK(failure([&] { (void)df11::repack_model(source, scratch / "none"); }).status() == DF11_INVALID_ARGUMENT);
    // A float32 tensor cannot be compressed: the callback is called, and its exception arrives.
    std::string header = R"({"w.weight":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})";
    std::string file(8, 0);
    for (std::size_t i = 0; i < 8; i++) file[i] = static_cast<char>(header.size() >> 8 * i & 0xff);
    file += header + std::string(16, 0);
    std::FILE *out = std::fopen((scratch / "f32.safetensors").c_str(), "wb");
    CHECK(out != nullptr && std::fwrite(file.data(), 1, file.size(), out) == file.size() && std::fclose(out) == 0);
    df11::CompressOptions strange;
    strange.pattern_json = R"({"w": []})";
    strange.flags = DF11_COMPRESS_ALLOW_PLAIN;
    unsigned told = 0;
    strange.on_left = [&](std::string_view tensor, std::string_view, std::string_view) {
        told += tensor == "w.weight";
        throw Thrown("left");
    };
    const bool thrown = throws_on([&] { (void)df11::compress_model(scratch / "f32.safetensors", scratch / "f32", strange); });
    CHECK(thrown && told == 1);

    // A C function without a wrapper.
    const std::uint64_t count = 1000;
    df11_error error;
    df11_packed_group bound = DF11_PACKED_GROUP_INIT;
    df11::check(df11_compress_bound(&count, 1, &bound, &error), error);
    CHECK(bound.sign_mantissa_bytes == 1000);
    CHECK(failure([&] { df11::check(df11_compress_bound(&count, 0, &bound, &error), error); }).status() ==
          DF11_INVALID_ARGUMENT);

    // From memory.
    const df11::Model model = df11::Model::open(source);
    std::vector<char> bytes(fs::file_size(source));
    std::FILE *in = std::fopen(source.c_str(), "rb");
    CHECK(in != nullptr && std::fread(bytes.data(), 1, bytes.size(), in) == bytes.size() && std::fclose(in) == 0);
    const df11::Model memory = df11::Model::open_memory(bytes);
    CHECK(memory.tensors().size() == model.tensors().size());
    CHECK(failure([&] { (void)df11::Model::open_memory({bytes.data(), 4}); }).status() == DF11_INVALID_FORMAT);
    df11::OpenOptions unknown;
    unknown.flags = 1u << 31;
    CHECK(failure([&] { (void)df11::Model::open_memory(bytes, unknown); }).status() == DF11_UNSUPPORTED_OPTION);
    unknown.flags = 0;
    unknown.config_json = "no JSON";
    df11::Model before = df11::Model::open_memory(bytes);
    CHECK(df11::Model::try_open_memory(before, bytes, unknown) == DF11_INVALID_FORMAT && !before);
}

void logging() {
    unsigned lines = 0;
    {
        df11::Log log(DF11_LOG_TRACE, [&](std::int32_t level, std::string_view line) {
            CHECK(level >= DF11_LOG_ERROR && level <= DF11_LOG_TRACE && line.data()[line.size()] == 0);
            lines++;
            throw Thrown("a log callback's");
        });
        df11::Log moved = std::move(log);
        (void)df11::Model::open(golden / "tiny/model");
        CHECK(lines > 0);
    }
    const unsigned before = lines;
    (void)df11::Model::open(golden / "tiny/model");
    CHECK(lines == before);
}

/// A matrix of a tensor and of its weights, decoded and multiplied.
void matrices() {
    const df11::Model model = df11::Model::open(golden / "block/model");
    const df11::Tensor tensor = *model.find_tensor("model.layers.0.mlp.down_proj.weight");
    const std::uint64_t rows = tensor.shape()[0], columns = tensor.shape()[1];
    std::vector<std::uint16_t> weights(rows * columns), back(weights.size());
    tensor.read(weights);
    const std::uint64_t most = df11::Matrix::bound(rows, columns);
    struct Free {
        void operator()(void *memory) const { std::free(memory); }
    };
    const std::unique_ptr<void, Free> one(std::aligned_alloc(DF11_MATRIX_ALIGNMENT, most)),
        other(std::aligned_alloc(DF11_MATRIX_ALIGNMENT, most));
    const std::uint64_t used = model.write_matrix(tensor.index(), columns, 0, rows, {one.get(), most}, 2);
    CHECK(df11::Matrix::write(weights, columns, {other.get(), most}) == used);
    CHECK(std::memcmp(one.get(), other.get(), used) == 0);
    const df11::Matrix matrix = df11::Matrix::bind({other.get(), used});
    CHECK(matrix.get_info().row_count == rows && matrix.get_info().matrix_bytes == used);
    matrix.decompress(0, back.size(), back);
    CHECK(back == weights);
    std::vector<float> x(columns, 1.0F), y(rows), z(3);
    matrix.multiply(0, x, y);
    matrix.multiply(5, x, z);
    CHECK(std::equal(z.begin(), z.end(), y.begin() + 5));
    std::vector<std::uint16_t> x_bf16(columns, 0x3f80);
    matrix.multiply(5, x_bf16, DF11_ORDER_LANES, z);
    CHECK(std::equal(z.begin(), z.end(), y.begin() + 5));
    x.pop_back();
    CHECK(failure([&] { matrix.multiply(0, x, y); }).status() == DF11_INVALID_ARGUMENT);
    CHECK(failure([&] { (void)df11::Matrix::write(x_bf16, 7, {other.get(), most}); }).status() == DF11_INVALID_ARGUMENT);
    CHECK(failure([&] { (void)df11::Matrix::bind({one.get(), 100}); }).status() == DF11_INVALID_FORMAT);
    CHECK(failure([&] { df11::Matrix().decompress(0, 1, back); }).status() == DF11_INVALID_ARGUMENT);
}

}  // namespace

int main(int argc, char **argv) {
    CHECK(argc == 4);
    golden = argv[1];
    hostile = argv[2];
    scratch = argv[3];
    ownership();
    errors();
    runs();
    ranges();
    decoding();
    matrices();
    images();
    parts_of_groups();
    verifying();
    planning();
    writing();
    logging();
    std::printf("%u checks passed\n", checks_passed);
}
