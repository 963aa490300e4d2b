// Tests a program without exceptions and without type information (-fno-exceptions -fno-rtti).
//
//     noexcept MODEL
#include "df11.hpp"

#include "check.h"

#include <cstring>
#include <vector>

// Throwing calls are not declared.
template <typename T, typename = void> constexpr bool throws = false;
template <typename T> constexpr bool throws<T, std::void_t<decltype(&T::open)>> = true;
static_assert(!throws<df11::Model> && !throws<df11::Device>);

int main(int argc, char **argv) {
    CHECK(argc == 2);
    df11_error error;
    df11::Model model, other;
    CHECK(df11::Model::try_open(model, "/nowhere", {}, &error) == DF11_IO && !model);
    CHECK(error.status == DF11_IO && std::strstr(error.message, "/nowhere") != nullptr);
    CHECK(df11::Model::try_open(model, argv[1]) == DF11_OK && model);
    other = std::move(model);
    CHECK(!model && other && model.groups().empty());
    for (const df11::Group &group : other.groups()) {
        std::vector<std::uint16_t> got(group.element_count()), want(group.element_count());
        CHECK(other.try_decompress(group.index(), 0, got.size(), got) == DF11_OK);
        CHECK(df11_model_decompress(other.get(), group.index(), 0, want.size(), want.data(), 2 * want.size(), 1,
                                   nullptr) == 0);
        CHECK(got == want);
        CHECK(group.try_decompress(got) == DF11_OK && got == want);
        CHECK(other.try_decompress(group.index(), 1, got.size(), got, 2, &error) == DF11_INVALID_ARGUMENT);
    }
    df11::Device device;
    df11::DeviceOptions options;
    options.libcuda = "/nowhere/libcuda.so.1";
    CHECK(df11::Device::try_open(device, 0, options, &error) == DF11_NO_DRIVER && !device);
    df11::Progress progress;
    CHECK(df11::Progress::try_create(progress) == DF11_OK && progress.amount().total == 0);
    std::printf("%u checks passed\n", checks_passed);
}
