// The scheduler of simt.hpp. Under ThreadSanitizer this file is compiled without it (and with SIMT_TSAN), because
// its own bookkeeping is shared between fibers on purpose.
#include "simt.hpp"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <utility>
#include <vector>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef SIMT_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* at);
void __tsan_release(void* at);
}
#endif

namespace simt {
namespace {

constexpr size_t STACK = 128 * 1024;
constexpr unsigned MOST_THREADS = 1024;

enum class State : uint8_t { Ready, AtBlock, AtWarp, Done };

struct Fiber {
  ucontext_t context;
  char* stack;
  State state;
  Operation operation;
  int barrier;
  uint32_t mask, value, argument, result;
  void* asan_stack;     // its fake stack while it sleeps
  void* tsan;
  char warp_tag[2];     // of the warp's lane 0: what a barrier of the warp orders, twice in turn
};

struct Scheduler {
  Launch launch{};
  const std::function<void()>* kernel = nullptr;
  Fiber fibers[MOST_THREADS] = {};
  unsigned order[MOST_THREADS] = {};
  unsigned current = 0, block = 0;
  unsigned char* shared = nullptr;
  ucontext_t home;
  void* home_asan_stack = nullptr;
  const void* home_bottom = nullptr;
  size_t home_size = 0;
  void* home_tsan = nullptr;
  char start_tag = 0, end_tag = 0, block_tag[2] = {};
  unsigned block_turn = 0, warp_turn[MOST_THREADS / 32] = {};
  uint64_t random = 1;
  std::vector<std::unique_ptr<void, void (*)(void*)>> memories;  // shared memory of the launch's blocks
};
Scheduler s;

void acquire([[maybe_unused]] void* tag) {
#ifdef SIMT_TSAN
  __tsan_acquire(tag);
#endif
}
void release([[maybe_unused]] void* tag) {
#ifdef SIMT_TSAN
  __tsan_release(tag);
#endif
}

void go_home(bool for_ever) {
  Fiber& me = s.fibers[s.current];
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &me.asan_stack, s.home_bottom, s.home_size);
#endif
#ifdef SIMT_TSAN
  __tsan_switch_to_fiber(s.home_tsan, 1);
#endif
  (void)for_ever;
  swapcontext(&me.context, &s.home);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(me.asan_stack, nullptr, nullptr);
#endif
}

void entry() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &s.home_bottom, &s.home_size);
#endif
  acquire(&s.start_tag);
  (*s.kernel)();
  release(&s.end_tag);
  s.fibers[s.current].state = State::Done;
  go_home(true);
}

// Runs one fiber until it waits or ends.
void turn(unsigned i) {
  Fiber& f = s.fibers[i];
  s.current = i;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&s.home_asan_stack, f.stack, STACK);
#endif
#ifdef SIMT_TSAN
  __tsan_switch_to_fiber(f.tsan, 1);
#endif
  swapcontext(&s.home, &f.context);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(s.home_asan_stack, nullptr, nullptr);
#endif
}

[[noreturn]] void misuse(const char* what, unsigned thread) {
  throw Misuse(std::string(what) + ", block " + std::to_string(s.block) + ", thread " + std::to_string(thread));
}

// Completes the operation that a warp waits for, if all its lanes have come. Every mask in use names all 32 lanes.
bool complete_warp(unsigned first) {
  Fiber* lanes = s.fibers + first;
  unsigned waiting = 0;
  for (unsigned l = 0; l < 32; l++) waiting += lanes[l].state == State::AtWarp;
  if (waiting == 0) return false;
  for (unsigned l = 0; l < 32; l++) {
    if (lanes[l].state == State::Done) misuse("a lane has ended that others of its warp wait for", first + l);
    if (lanes[l].state == State::AtBlock) misuse("a lane is at another barrier than its warp", first + l);
    if (lanes[l].state != State::AtWarp) return false;
  }
  uint32_t ballot = 0;
  for (unsigned l = 0; l < 32; l++) {
    if (lanes[l].mask != ~0u) misuse("a mask that is not full", first + l);
    bool same = lanes[l].operation == lanes[0].operation;
    if (lanes[l].operation == Operation::Sync) same &= lanes[l].argument == lanes[0].argument;
    if (!same) misuse("lanes of a warp are at different operations", first + l);
    ballot |= (uint32_t)(lanes[l].value != 0) << l;
  }
  for (unsigned l = 0; l < 32; l++) {
    uint32_t argument = lanes[l].argument;
    switch (lanes[l].operation) {
      case Operation::Sync: break;
      case Operation::Shuffle: lanes[l].result = lanes[argument & 31].value; break;
      case Operation::ShuffleUp: lanes[l].result = lanes[l >= argument ? l - argument : l].value; break;
      case Operation::Ballot: lanes[l].result = ballot; break;
    }
    lanes[l].state = State::Ready;
  }
  s.warp_turn[first / 32]++;
  return true;
}

bool complete_block() {
  int barrier = 0;
  for (unsigned i = 0; i < s.launch.threads; i++) {
    if (s.fibers[i].state != State::AtBlock) return false;
    if (barrier != 0 && s.fibers[i].barrier != barrier) misuse("threads are at different barriers of the block", i);
    barrier = s.fibers[i].barrier;
  }
  for (unsigned i = 0; i < s.launch.threads; i++) s.fibers[i].state = State::Ready;
  s.block_turn++;
  return true;
}

uint64_t random() {
  s.random ^= s.random << 13;
  s.random ^= s.random >> 7;
  return s.random ^= s.random << 17;
}

void shuffle() {
  for (unsigned i = s.launch.threads; i > 1; i--) std::swap(s.order[i - 1], s.order[random() % i]);
}

void run_block() {
  unsigned n = s.launch.threads;
  for (unsigned i = 0; i < n; i++) {
    Fiber& f = s.fibers[i];
    s.order[i] = s.launch.order == Order::Descending ? n - 1 - i : i;
    f.state = State::Ready;
    if (!f.stack) f.stack = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f.stack == MAP_FAILED) throw std::bad_alloc();
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(f.stack, STACK);
#endif
#ifdef SIMT_TSAN
    f.tsan = __tsan_create_fiber(0);
#endif
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = nullptr;
    makecontext(&f.context, entry, 0);
  }
  // Blocks are not ordered among themselves: each begins after what came before the launch, and no block's end is seen
  // by the next. Each has shared memory of its own until the launch ends, so that one's use of it, or giving it back,
  // is no race with another's.
  void* memory = nullptr;
  if (posix_memalign(&memory, 128, s.launch.shared ? s.launch.shared : 1)) throw std::bad_alloc();
  s.memories.emplace_back(memory, free);
  s.shared = (unsigned char*)memory;
  memset(memory, 0xa5, s.launch.shared);
  release(&s.start_tag);
  for (;;) {
    if (s.launch.order == Order::Random) shuffle();
    bool ran = false, done = true;
    for (unsigned k = 0; k < n; k++) {
      if (s.fibers[s.order[k]].state != State::Ready) continue;
      turn(s.order[k]);
      ran = true;
    }
    bool freed = false;
    for (unsigned first = 0; first < n; first += 32) freed |= complete_warp(first);
    freed |= complete_block();
    for (unsigned i = 0; i < n; i++) done &= s.fibers[i].state == State::Done;
    if (done) break;
    if (!ran && !freed) misuse("some threads wait at a barrier that others never reach", 0);
  }
#ifdef SIMT_TSAN
  for (unsigned i = 0; i < n; i++) __tsan_destroy_fiber(s.fibers[i].tsan);
#endif
}

}  // namespace

Index thread_index() { return {s.current}; }
Index block_index() { return {s.block}; }
Index block_size() { return {s.launch.threads}; }
Index grid_size() { return {s.launch.blocks}; }
unsigned char* shared() { return s.shared; }

int barrier_left_out = 0;

void sync_block(int number) {
  if (number == barrier_left_out) return;
  Fiber& me = s.fibers[s.current];
  char* tag = &s.block_tag[s.block_turn & 1];
  me.barrier = number;
  me.state = State::AtBlock;
  release(tag);
  go_home(false);
  acquire(tag);
}

uint32_t warp_operation(Operation operation, uint32_t mask, uint32_t value, uint32_t argument) {
  Fiber& me = s.fibers[s.current];
  unsigned warp = s.current / 32;
  char* tag = &s.fibers[warp * 32].warp_tag[s.warp_turn[warp] & 1];
  me.operation = operation;
  me.mask = mask;
  me.value = value;
  me.argument = argument;
  me.state = State::AtWarp;
  // Only __syncwarp orders memory; shuffles and votes order nothing.
  if (operation == Operation::Sync) release(tag);
  go_home(false);
  if (operation == Operation::Sync) acquire(tag);
  return me.result;
}

void sync_warp(int number) {
  if (number != barrier_left_out) warp_operation(Operation::Sync, ~0u, 0, (uint32_t)number);
}

void run(const Launch& launch, const std::function<void()>& kernel) {
  if (launch.threads == 0 || launch.threads > MOST_THREADS || launch.threads % 32 != 0)
    throw Misuse("a block of so many threads");
  s.memories.clear();
  s.launch = launch;
  s.kernel = &kernel;
  s.random = launch.seed * 0x9e3779b97f4a7c15ull | 1;
#ifdef SIMT_TSAN
  s.home_tsan = __tsan_get_current_fiber();
#endif
  for (s.block = 0; s.block < launch.blocks; s.block++) run_block();
  acquire(&s.end_tag);
  s.memories.clear();
}

}  // namespace simt
