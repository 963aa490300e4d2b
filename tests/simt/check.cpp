// Runs the kernels on the shim over images that tests/cuda/simt.rs has written, and compares every bit.
//
//   check all CASE...          whole groups, ranges, many jobs, the index; every alignment; several grids and orders
//   check brief CASE...        one of each, for the slow sanitizers
//   check fuzz ROUNDS CASE...  images with wrong bytes: nothing to compare, but no access outside and an end
//   check without BARRIER CASE...  as brief, but the kernels lack the barrier of that number
//
// A case of a linear image has no gaps and no positions. Its tensors are decoded, whole and in ranges, and made again of
// their weights.
//
// A case is a file of little-endian u64 {bytes of image, of gaps, number of positions}, then the image, the gaps, the
// positions and the weights. Every section of the image becomes an allocation of its own, just large enough, so that
// AddressSanitizer sees where one is left.
#define DF11_SIMT
#include "simt.hpp"
#include "decode.cu"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace {

using Bytes = std::vector<u8>;

// Memory of exactly that many bytes, at a multiple of 256.
struct Block {
  std::unique_ptr<u8, void (*)(void*)> memory{nullptr, free};
  size_t size = 0;
  explicit Block(const Bytes& bytes) : Block(bytes.size()) { if (size) memcpy(memory.get(), bytes.data(), size); }
  explicit Block(size_t size) : size(size) {
    void* p = nullptr;
    if (posix_memalign(&p, 256, size ? size : 1)) abort();
    memory.reset((u8*)p);
    memset(p, 0xcc, size);
  }
  u64 at() const { return (u64)memory.get(); }
};

struct Random {
  u64 state;
  u64 next() {
    state += 0x9e3779b97f4a7c15;
    u64 z = (state ^ state >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  u64 below(u64 n) { return next() % n; }
};

struct Case {
  std::string name;
  Bytes linear;  // the whole image, if it is a linear one; then nothing else but `want` and `weights` is set
  Bytes table, starts, lanes, code, signs, gaps, positions;
  std::vector<u16> want;
  u64 weights, code_bytes, tiles;
};

Case read_case(const char* path) {
  FILE* file = fopen(path, "rb");
  u64 sizes[3];
  if (!file || fread(sizes, 8, 3, file) != 3) { perror(path); exit(2); }
  auto take = [&](u64 n) {
    Bytes bytes(n);
    if (n && fread(bytes.data(), 1, n, file) != n) { perror(path); exit(2); }
    return bytes;
  };
  Case c;
  c.name = path;
  Bytes image = take(sizes[0]);
  c.gaps = take(sizes[1]);
  c.positions = take(sizes[2] * 4);
  auto field = [&](size_t at) { u64 v; memcpy(&v, &image[at], 8); return v; };
  auto part = [&](u64 from, u64 n) { return Bytes(image.begin() + from, image.begin() + from + n); };
  c.weights = field(24);
  auto take_want = [&] {
    c.want.resize(c.weights);
    Bytes want = take(2 * c.weights);
    if (c.weights) memcpy(c.want.data(), want.data(), want.size());
    fclose(file);
  };
  if (!memcmp(image.data(), "DF11LIN", 8)) {
    c.linear = image;
    take_want();
    return c;
  }
  c.code_bytes = field(32);
  c.tiles = field(120);
  c.table = part(field(72), (u32)field(56));
  c.starts = part(field(80), 4 * (c.tiles + 1));
  c.lanes = part(field(88), 64 * c.tiles);
  c.code = part(field(96), field(104));
  c.signs = part(field(112), (c.weights + 7) / 8 * 8);
  take_want();
  return c;
}

// An image in memory of its own, and its state.
struct Image {
  const Case& c;
  Block table, starts, lanes, code, signs, gaps, positions;
  u32 state = 0;
  explicit Image(const Case& c)
      : c(c), table(c.table), starts(c.starts), lanes(c.lanes), code(c.code), signs(c.signs), gaps(c.gaps),
        positions(c.positions) {}

  df11_job job(u64 first, u64 count, u64 dst, u32* status) {
    df11_job j = {};
    j.dst = dst;
    j.status = (u64)status;
    j.first = first;
    j.count = count;
    j.state = (u64)&state;
    j.table = table.at();
    j.starts = starts.at();
    j.lanes = lanes.at();
    j.code = code.at();
    j.signs = signs.at();
    j.code_units = (u32)(code.size / 16);
    j.tiles = (u32)c.tiles;
    j.last_weights = (u32)(c.weights - (c.tiles - 1) * df11::TILE);
    j.end_tile = (u32)((first + count - 1) / df11::TILE) + 1;
    j.whole_tile = (u32)((first + df11::TILE - 1) / df11::TILE);
    j.whole_end = (u32)((first + count) / df11::TILE);
    j.table_bytes = (u32)table.size;
    j.blocks = 1;
    return j;
  }
  size_t table_shared() const { return df11::table_shared((u32)table.size); }
  size_t shared(u32 warps) const { return table_shared() + warps * df11::WARP_SHARED; }

  // False where the kernel reported the image as corrupted.
  bool index(u32 blocks, simt::Order order, u64 seed) {
    df11_index_job j = {};
    j.image_state = (u64)&state;
    j.table = table.at();
    j.starts = starts.at();
    j.lanes = lanes.at();
    j.code = code.at();
    j.gaps = gaps.at();
    j.positions = positions.at();
    j.weights = c.weights;
    j.code_bytes = c.code_bytes;
    j.code_units = code.size / 16;
    j.tiles = c.tiles;
    j.blocks = (c.code_bytes + 4095) / 4096;
    j.position_count = positions.size / 4;
    j.table_bytes = (u32)table.size;
    if (j.blocks == 0) return true;
    if (starts.size) memset((void*)starts.at(), 0, starts.size);
    if (lanes.size) memset((void*)lanes.at(), 0, lanes.size);
    simt::run({blocks, DF11_INDEX_THREADS, table_shared() + DF11_INDEX_SHARED, order, seed}, [&] { df11_index(j); });
    return state == 0;
  }
};

// A destination that begins a given number of weights after a multiple of 16 bytes, and the bytes before it.
struct Target {
  Block block;
  u32 lead;
  u64 count;
  Target(u64 count, u32 shift) : block((8 + shift + count) * 2), lead(8 + shift), count(count) {}
  u64 at() const { return block.at() + 2 * lead; }
  const u16* weights() const { return (const u16*)at(); }
  bool touched_before() const {
    for (u32 i = 0; i < 2 * lead; i++) if (((const u8*)block.at())[i] != 0xcc) return true;
    return false;
  }
};

int failures = 0;

void fail(const Case& c, const char* what, u64 first, u64 count, u64 detail) {
  if (failures++ < 20) printf("%s: %s, weights %llu + %llu, %llu\n", c.name.c_str(), what, first, count, detail);
}

void compare(const Case& c, const Target& target, u64 first) {
  for (u64 i = 0; i < target.count; i++)
    if (target.weights()[i] != c.want[first + i]) return fail(c, "a weight differs", first, target.count, i);
  if (target.touched_before()) fail(c, "wrote before the destination", first, target.count, 0);
}

void decode(Image& image, u64 first, u64 count, u32 shift, u32 warps, u32 blocks, simt::Order order, u64 seed) {
  Target target(count, shift);
  u32 status = 0;
  df11_job j = image.job(first, count, target.at(), &status);
  j.blocks = blocks;
  simt::run({blocks, 32 * warps, image.shared(warps), order, seed}, [&] { df11_decode(j); });
  compare(image.c, target, first);
  if (status != 0) fail(image.c, "reported", first, count, status);
}

// The group cut into pieces, each with a destination of its own, in one launch.
void decode_many(Image& image, u32 pieces, u32 warps, Random& random) {
  const Case& c = image.c;
  std::vector<u64> cuts = {0, c.weights};
  while (cuts.size() < pieces + 1 && cuts.size() < c.weights + 1) {
    u64 cut = random.below(c.weights);
    size_t at = 0;
    while (cuts[at] < cut) at++;
    if (cuts[at] != cut) cuts.insert(cuts.begin() + at, cut);
  }
  std::vector<Target> targets;
  df11_jobs jobs = {};
  u32 blocks = 0, status = 0;
  for (size_t i = 0; i + 1 < cuts.size(); i++) {
    targets.emplace_back(cuts[i + 1] - cuts[i], (u32)random.below(8));
    df11_job& j = jobs.job[jobs.count++] = image.job(cuts[i], cuts[i + 1] - cuts[i], targets.back().at(), &status);
    j.first_block = blocks;
    j.blocks = 1 + (u32)random.below(3);
    blocks += j.blocks;
  }
  simt::Launch launch = {blocks, 32 * warps, image.shared(warps), simt::Order::Random, random.next()};
  simt::run(launch, [&] { df11_decode_many(jobs); });
  for (size_t i = 0; i < targets.size(); i++) compare(c, targets[i], cuts[i]);
  if (status != 0) fail(c, "many jobs: reported", 0, c.weights, status);
}

void check_index(const Case& c, u32 blocks, simt::Order order, u64 seed) {
  Image image(c);
  if (!image.index(blocks, order, seed)) fail(c, "the index kernel reports", 0, c.weights, image.state);
  if (image.starts.size && memcmp((void*)image.starts.at(), c.starts.data(), c.starts.size()))
    fail(c, "other starts than the host's", 0, c.weights, 0);
  if (image.lanes.size && memcmp((void*)image.lanes.at(), c.lanes.data(), c.lanes.size()))
    fail(c, "other lanes than the host's", 0, c.weights, 0);
}

// Faults that the kernels must notice: a lane's start that is far off, gaps and positions that contradict the codes.
void check_lies(const Case& c) {
  Random random{c.weights * 5 + c.code_bytes};
  u64 lanes = (c.weights + 103) / 104, blocks = (c.code_bytes + 4095) / 4096;
  for (u32 i = 0; i < 6 && lanes > 1; i++) {
    Image image(c);
    u64 lane = 1 + random.below(lanes - 1), bit = 4 + random.below(12);
    ((u16*)image.lanes.at())[lane] ^= (u16)(1 << bit);
    Target target(c.weights, 0);
    u32 status = 0;
    df11_job j = image.job(0, c.weights, target.at(), &status);
    simt::run({1, 128, image.shared(4)}, [&] { df11_decode(j); });
    if (status != DF11_CORRUPT) fail(c, "a lane's start is off, and nobody says so", lane, 1, bit);
  }
  for (u32 i = 0; i < 4; i++) {
    // Chunks that begin in the last 64 bits may have no weight, and then a gap that means nothing.
    u64 chunks = c.code_bytes / 8;
    if (chunks < 2) break;
    Image image(c);
    u64 chunk = random.below(chunks - 1), bit = chunk * 5 + random.below(5);
    ((u8*)image.gaps.at())[bit / 8] ^= (u8)(0x80 >> bit % 8);
    if (image.index(1, simt::Order::Ascending, 1)) fail(c, "a gap is off, and the index is made", chunk, 1, 0);
  }
  for (u64 i = 0; i < 4 && i <= blocks && i < c.positions.size() / 4; i++) {
    Image image(c);
    u64 at = i < 2 ? i : random.below(c.positions.size() / 4 < blocks + 1 ? c.positions.size() / 4 : blocks + 1);
    ((u32*)image.positions.at())[at] += 1 + (u32)random.below(5);
    if (image.index(2, simt::Order::Ascending, 1)) fail(c, "a position is off, and the index is made", at, 1, 0);
  }
}

void check(const Case& c, bool brief) {
  Random random{c.weights * 77 + c.code_bytes};
  if (c.weights == 0) return;
  Image image(c);
  auto order = [&] { return (simt::Order)random.below(3); };
  decode(image, 0, c.weights, 0, 4, 1, simt::Order::Random, 1);
  check_index(c, 1, simt::Order::Random, 1);
  bool large = c.weights > 300000;
  for (u32 shift = 1; shift < (brief ? 2 : large ? 3 : 8); shift++)
    decode(image, 0, c.weights, shift, 1 + (u32)random.below(6), 1 + (u32)random.below(3), order(), random.next());
  for (u32 i = 0; i < (brief ? 2 : large ? 8 : 24); i++) {
    u64 first = random.below(c.weights), count = 1 + random.below(c.weights - first);
    if (i & 1) count = 1 + random.below(count < 300 ? count : 300);
    if (i % 8 == 2) first = first / 104 * 104;
    if (i % 8 == 4) count = c.weights - first;
    if (first + count > c.weights) count = c.weights - first;
    u32 shift = (u32)random.below(8), warps = 1 + (u32)random.below(4), blocks = 1 + (u32)random.below(2);
    decode(image, first, count, shift, warps, blocks, order(), random.next());
  }
  if (brief) return;
  check_index(c, 2, simt::Order::Descending, 1);
  check_lies(c);
  decode_many(image, DF11_MOST_JOBS, 2, random);
  decode_many(image, 1 + (u32)random.below(5), 3, random);

  // An image that says of itself that it is corrupted is still decoded, and reported, to a status that has room for it.
  image.state = 7;
  Target target(c.weights, 0);
  for (u32 before : {0u, 103u, 900u}) {
    u32 status = before, most = before > 103 ? before : 103;
    df11_job j = image.job(0, c.weights, target.at(), &status);
    simt::run({1, 32, image.shared(1)}, [&] { df11_decode(j); });
    if (status != most) fail(c, "the state is not passed on", 0, c.weights, status);
    if (large) break;
  }
  compare(c, target, 0);
  df11_job j = image.job(0, c.weights, target.at(), nullptr);
  if (!large) simt::run({1, 32, image.shared(1)}, [&] { df11_decode(j); });
}

// Spoils a run of bytes in one of several ways.
void spoil(Block& block, Random& random) {
  if (block.size == 0) return;
  u8* bytes = (u8*)block.at();
  u64 at = random.below(block.size), n = 1 + random.below(random.below(4) ? 8 : block.size);
  if (n > block.size - at) n = block.size - at;
  u64 kind = random.below(5), step = 1 + random.below(64);
  for (u64 i = 0; i < n; i++) {
    if (kind == 0) bytes[at + i] = 0;
    if (kind == 1) bytes[at + i] = 0xff;
    if (kind == 2) bytes[at + i] = (u8)random.next();
    if (kind == 3) bytes[at + i] ^= (u8)(1 << random.below(8));
    if (kind == 4) bytes[at + i] = bytes[(at + i + step) % block.size];
  }
}

void fuzz(const Case& c, u64 rounds) {
  Random random{c.weights * 31 + c.code_bytes + rounds};
  u64 reported = 0, wrong = 0, told = 0;
  for (u64 round = 0; round < rounds; round++) {
    Image image(c);
    Block* parts[] = {&image.table, &image.starts, &image.lanes, &image.code, &image.signs, &image.gaps,
                      &image.positions};
    for (u64 i = 0, n = 1 + random.below(3); i < n; i++) spoil(*parts[random.below(7)], random);
    if (random.below(3) == 0) image.index(1 + (u32)random.below(2), simt::Order::Ascending, 1);
    u64 first = random.below(3) ? 0 : random.below(c.weights), count = c.weights - first;
    if (random.below(3) == 0) count = 1 + random.below(count);
    Target target(count, (u32)random.below(8));
    u32 status = 0;
    df11_job j = image.job(first, count, target.at(), &status);
    simt::run({1, 64, image.shared(2)}, [&] { df11_decode(j); });
    if (target.touched_before()) fail(c, "wrote before the destination", first, count, round);
    bool differs = false;
    for (u64 i = 0; i < count; i++) differs |= ((target.weights()[i] ^ c.want[first + i]) & 0x7f80) != 0;
    reported += status != 0;
    wrong += differs;
    told += differs && status != 0;
    if (status != 0 && status != DF11_CORRUPT) fail(c, "a status that no kernel has", first, count, status);
  }
  printf("%s: %llu rounds, %llu reported, %llu with wrong exponents, of these %llu reported\n", c.name.c_str(), rounds,
         reported, wrong, told);
}

// A tensor of a linear image, its sections in memory of their own.
struct Tensor {
  const Case& c;
  df11_linear_tensor t;
  u64 weights, tile_count;
  Block tiles, starts, escapes;
  u32 state = 0;

  Tensor(const Case& c, df11_linear_tensor t, u64 end)
      : c(c), t(t), weights(end - t.first), tile_count((t.rows + 15) / 16 * t.ktiles),
        tiles(part(t.tiles, tile_count * DF11_LINEAR_TILE_BYTES)), starts(part(t.starts, 4 * (tile_count + 1))),
        escapes(part(t.escapes, 4 * (u64)t.escape_count)) {}

  Bytes part(u64 from, u64 n) const { return Bytes(c.linear.begin() + from, c.linear.begin() + from + n); }
  u64 table() const { u64 v; memcpy(&v, t.table, 8); return v; }

  void run(u64 first, u64 count, const Target& target, u32* status, u32 warps, u32 blocks, Random& random) {
    df11_linear_decode_jobs jobs = {};
    df11_linear_decode_job& j = jobs.job[0];
    jobs.count = 1;
    j.dst = target.at();
    j.status = (u64)status;
    j.state = (u64)&state;
    j.tiles = tiles.at();
    j.starts = starts.at();
    j.escapes = escapes.at();
    j.table = table();
    j.first = (u32)first;
    j.end = (u32)(first + count);
    j.columns = (u32)t.columns;
    j.ktiles = t.ktiles;
    j.escape_count = t.escape_count;
    j.from_tile = (u32)(first / t.columns / 16 * t.ktiles);
    j.end_tile = (u32)(((first + count - 1) / t.columns / 16 + 1) * t.ktiles);
    j.blocks = blocks;
    simt::run({blocks, 32 * warps, 0, (simt::Order)random.below(3), random.next()}, [&] { df11_linear_decode(jobs); });
  }

  void decode(u64 first, u64 count, u32 shift, Random& random) {
    Target target(count, shift);
    u32 status = 0;
    run(first, count, target, &status, 1 + (u32)random.below(4), 1 + (u32)random.below(3), random);
    compare(c, target, t.first + first);
    if (status != 0) fail(c, "reported", t.first + first, count, status);
  }

  // Makes the tiles and escapes again, of the weights.
  void make(Random& random) {
    Block source(2 * weights), made(tiles.size), listed(escapes.size);
    memcpy((void*)source.at(), &c.want[t.first], source.size);
    df11_linear_make_job j = {};
    j.source = source.at();
    j.state = (u64)&state;
    j.tiles = made.at();
    j.starts = starts.at();
    j.escapes = listed.at();
    j.table = table();
    j.count = weights;
    j.columns = (u32)t.columns;
    j.ktiles = t.ktiles;
    j.escape_count = t.escape_count;
    j.tile_count = (u32)tile_count;
    simt::Launch launch = {1 + (u32)random.below(2), 64 + 32 * (u32)random.below(3), DF11_LINEAR_SHARED,
                           (simt::Order)random.below(3), random.next()};
    simt::run(launch, [&] { df11_linear_make(j); });
    if (memcmp((void*)made.at(), (void*)tiles.at(), made.size)) fail(c, "other tiles than the host's", t.first, weights, 0);
    if (listed.size && memcmp((void*)listed.at(), (void*)escapes.at(), listed.size))
      fail(c, "other escapes than the host's", t.first, weights, 0);
    if (state != 0) fail(c, "the make kernel reports", t.first, weights, state);
  }
};

void check_linear(const Case& c, bool brief, u64 fuzz_rounds) {
  df11_linear_header header;
  memcpy(&header, c.linear.data(), sizeof header);
  std::vector<df11_linear_tensor> tensors(header.tensors);
  memcpy(tensors.data(), &c.linear[header.records], header.tensors * sizeof tensors[0]);
  Random random{c.weights + fuzz_rounds};
  for (u32 i = 0; i < header.tensors; i++) {
    u64 end = i + 1 < header.tensors ? tensors[i + 1].first : header.weights;
    if (tensors[i].first == end) continue;
    for (u64 round = 0; round < fuzz_rounds; round++) {
      Tensor tensor(c, tensors[i], end);
      Block* parts[] = {&tensor.tiles, &tensor.starts, &tensor.starts, &tensor.escapes};
      for (u64 k = 0, n = 1 + random.below(3); k < n; k++) spoil(*parts[random.below(4)], random);
      u64 first = random.below(3) ? 0 : random.below(tensor.weights), count = 1 + random.below(tensor.weights - first);
      Target target(count, (u32)random.below(8));
      u32 status = 0;
      tensor.run(first, count, target, &status, 2, 1, random);
      if (target.touched_before()) fail(c, "wrote before the destination", first, count, round);
      if (status != 0 && status != DF11_CORRUPT) fail(c, "a status that no kernel has", first, count, status);
    }
    if (fuzz_rounds) continue;
    Tensor tensor(c, tensors[i], end);
    for (u32 shift = 0; shift < (brief ? 2 : 8); shift++) tensor.decode(0, tensor.weights, shift, random);
    for (u32 k = 0; k < (brief ? 2 : 16); k++) {
      u64 first = random.below(tensor.weights), count = 1 + random.below(tensor.weights - first);
      if (k & 1) count = 1 + random.below(count < 100 ? count : 100);
      tensor.decode(first, count, (u32)random.below(8), random);
    }
    tensor.make(random);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string mode = argc > 1 ? argv[1] : "";
  int first = mode == "fuzz" || mode == "without" ? 3 : 2;
  if (argc <= first) {
    fprintf(stderr, "check all|brief CASE...   check fuzz ROUNDS CASE...   check without BARRIER CASE...\n");
    return 2;
  }
  if (mode == "without") simt::barrier_left_out = atoi(argv[2]);
  u64 weights = 0;
  for (int i = first; i < argc; i++) {
    Case c = read_case(argv[i]);
    try {
      if (!c.linear.empty()) check_linear(c, mode != "all", mode == "fuzz" ? strtoull(argv[2], nullptr, 10) : 0);
      else if (mode == "fuzz") { if (c.weights) fuzz(c, strtoull(argv[2], nullptr, 10)); }
      else check(c, mode != "all");
    } catch (const simt::Misuse& misuse) {
      fail(c, misuse.what(), 0, c.weights, 0);
    }
    weights += c.weights;
  }
  printf("%d cases, %llu weights, %d failures\n", argc - first, weights, failures);
  return failures != 0;
}
