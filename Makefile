# The front door. `make demo` runs the main job, `make test` passes every test; both work in a fresh clone on a machine
# with a Rust toolchain, cc and make. What takes more than a line is a script beside what it serves.

CARGO ?= cargo
CC ?= cc
# Where cargo builds: its own variable says, if it is set in the environment.
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release
SONAME := libdf11.so.$(shell sed -n 's/^version = "\([0-9]*\.[0-9]*\)\..*/\1/p' Cargo.toml | head -n 1)
GOLDEN := tests/data/golden/block
PREFIX ?= /usr/local
# The library alone is sooner built than with the tool; but where the tool is built, another set of features would have the
# library built anew each time.
FEATURES = $(if $(wildcard $(RELEASE)/df11),--features cli)

.PHONY: all build install dist wheel sbom deb demo test test-deep test-ggml bench header kernels gpu-bundle clean

all: build

# The library (shared and static) and the tool, in target/release.
build:
	$(CARGO) build --release --locked --features cli
	ln -sf libdf11.so $(RELEASE)/$(SONAME)

# Headers, libraries, pkg-config and CMake packages and the tool, in PREFIX. LIBDIR, DESTDIR and the rest: see the script.
install: build
	BUILD='$(RELEASE)' PREFIX='$(PREFIX)' LIBDIR='$(LIBDIR)' DESTDIR='$(DESTDIR)' bindings/packages/install.sh

# What is released: target/dist/*.tar.gz, for every x86-64 Linux with glibc 2.17 or later.
dist:
	bindings/packages/dist.sh

# The Python package, in target/wheel: a wheel for every Python from 3.9 on, on the same systems, and a source distribution.
wheel:
	bindings/python/wheel.sh

# What is linked into the library and the tool, as a CycloneDX bill of materials.
sbom:
	mkdir -p target
	tests/supply/sbom.py --out target/libdf11.cdx.json

# Debian packages of what `make build` has built, in target/deb.
deb: build
	BUILD='$(RELEASE)' bindings/packages/deb.sh

# From C, on a model that the reference compressor wrote: decode it, say how fast, compare it with the original; then
# multiply with one of its matrices, beside plain bf16.
demo:
	$(CARGO) build --release --locked $(FEATURES)
	ln -sf libdf11.so $(RELEASE)/$(SONAME)
	$(CC) -std=c11 -O2 -Wall -Wextra -Iinclude examples/decompress.c -o $(RELEASE)/decompress \
		-L$(RELEASE) -ldf11 -ldl -Wl,-rpath,'$$ORIGIN'
	$(CC) -std=c11 -O2 -Wall -Wextra -Iinclude examples/multiply.c -o $(RELEASE)/multiply \
		-L$(RELEASE) -ldf11 -Wl,-rpath,'$$ORIGIN'
	$(RELEASE)/decompress $(GOLDEN)/model $(GOLDEN)/original.safetensors
	$(RELEASE)/multiply $(GOLDEN)/model

# Everything that CI runs. tests/run.sh installs what is missing and says what it does.
test:
	tests/run.sh

# The examples for ggml and llama.cpp, on their unmodified sources; the first run builds those. Part of `make test`.
test-ggml:
	[ -n "$$DF11_PREFIX" ] || $(MAKE) install PREFIX=$(CURDIR)/target/stage
	examples/ggml/test.sh

# What takes too long for that, or a nightly toolchain: ThreadSanitizer, Miri, every fault, ten minutes of traffic. About
# an hour: tests/README.md.
test-deep:
	tests/deep.sh

# Decoding, encoding and images beside their peers, and whole models beside cp: some ten minutes. Results go to tests/bench/results
# (cargo runs a benchmark in its own folder).
bench:
	for bench in decode encode image matrix model; do \
		$(CARGO) bench --locked -p df11-bench --bench $$bench -- --out results || exit; done

# include/df11.h from src/capi, and what Python calls from the header.
header:
	DF11_BLESS=1 $(CARGO) test --locked --test sources the_committed_header_is_the_generated_one
	python3 bindings/python/generate.py

# kernels/prebuilt from the kernels' sources, by the pinned compiler, which is installed into target/. No CUDA toolkit. And
# those of the example engine.
kernels:
	python3 kernels/build.py
	python3 examples/engine/build.py

# What a machine with a GPU needs to test and measure there: see tests/gpu/README.md. SWEEP="NAME=LIBRARY ..." adds other builds
# of the library, to be measured beside this one.
gpu-bundle:
	$(CARGO) build --release --locked $(FEATURES)
	mkdir -p target
	tests/gpu/bundle.sh $(RELEASE)/libdf11.so target/df11-gpu.tar.gz $(SWEEP)

clean:
	$(CARGO) clean
