// Includes df11.hpp alone, before anything else, and twice. again.cc includes it too, and may be compiled in another
// standard.
#include "df11.hpp"
#include "df11.hpp"

#include "check.h"

#include <cstring>

std::uint64_t weights_again(const df11::Model &model);
df11::Span<const std::uint64_t> shape_again(const df11::Model &model);
bool raises_again(const char *path);

int main(int argc, char **argv) {
    CHECK(argc == 2);
    df11::Model model = df11::Model::open(argv[1]);
    std::uint64_t weights = 0;
    for (const df11::Group &group : model.groups()) weights += group.element_count();
    // One file takes objects of the other, and catches its exceptions.
    CHECK(weights > 0 && weights_again(model) == weights);
    CHECK(shape_again(model).data() == model.tensors()[0].shape().data());
    CHECK(raises_again("/nowhere"));
    std::printf("%u checks passed\n", checks_passed);
}
