# The front door. `make demo` runs the main job, `make test` passes every test; both work in a fresh clone on a machine
# with a Rust toolchain, cc and make. What takes more than a line is a script beside what it serves.

CARGO ?= cargo
CC ?= cc
RELEASE := target/release
SONAME := libdf11.so.$(shell sed -n 's/^version = "\([0-9]*\.[0-9]*\)\..*/\1/p' Cargo.toml | head -n 1)
GOLDEN := tests/data/golden/block

.PHONY: all build demo test test-deep bench header kernels gpu-bundle clean

all: build

# The library (shared and static) and the tool, in target/release.
build:
	$(CARGO) build --release --locked --features cli
	ln -sf libdf11.so $(RELEASE)/$(SONAME)

# From C, on a model that the reference compressor wrote: decode it, say how fast, compare it with the original.
demo:
	$(CARGO) build --release --locked
	ln -sf libdf11.so $(RELEASE)/$(SONAME)
	$(CC) -std=c11 -O2 -Wall -Wextra -Iinclude examples/decompress.c -o $(RELEASE)/decompress \
		-L$(RELEASE) -ldf11 -ldl -Wl,-rpath,'$$ORIGIN'
	$(RELEASE)/decompress $(GOLDEN)/model $(GOLDEN)/original.safetensors

# Everything that CI runs. tests/run.sh installs what is missing and says what it does.
test:
	tests/run.sh

# What takes too long for that, or a nightly toolchain: ThreadSanitizer, Miri, every fault, ten minutes of traffic. Some half
# an hour: tests/deep.md.
test-deep:
	tests/deep.sh

# Decoding, encoding and images beside their peers, and whole models beside cp: some ten minutes. Results go to tests/bench/results
# (cargo runs a benchmark in its own folder).
bench:
	for bench in decode encode image model; do \
		$(CARGO) bench --locked -p df11-bench --bench $$bench -- --out results || exit; done

# include/df11.h from src/capi.
header:
	DF11_BLESS=1 $(CARGO) test --locked --test header

# kernels/prebuilt from the kernels' sources, by the pinned compiler, which is installed into target/. No CUDA toolkit.
kernels:
	python3 kernels/build.py

# What a machine with a GPU needs to test and measure there: see tests/gpu/README.md.
gpu-bundle:
	$(CARGO) build --release --locked
	tests/gpu/bundle.sh $(RELEASE)/libdf11.so target/df11-gpu.tar.gz

clean:
	$(CARGO) clean
