# The targets a newcomer needs. Each is one script or one cargo call: read those for details.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help run test test-all bench build kernels models example-models lint fmt docs lock clean distclean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

run: ## Prepare everything, build, and serve on 127.0.0.1:8080
	@exec scripts/run.sh

test: ## Lint, then every test: Rust, Python and Node clients
	@exec scripts/test.sh

test-all: ## make test, and what takes hours: every fault in every form, more kills
	@exec scripts/test-all.sh

bench: ## Measure embeddings, generation, gateway overhead and taking back
	@exec scripts/bench.sh

build: ## Build target/release/sluice
	@cargo build --release --locked --bin sluice

kernels: ## Compile the CUDA kernels for every architecture; needs no GPU
	@scripts/kernels.sh

models: ## Fetch ONNX Runtime and prepare the models, without building
	@scripts/setup.sh

example-models: ## Rebuild the example's three versions and compare them with the shipped ones
	@scripts/example-models.sh

lint: ## Formatting, clippy, shellcheck, dependency policy
	@scripts/lint.sh

fmt: ## Format the Rust code
	@cargo fmt --all

docs: ## Write the generated pages of docs/ anew from the code
	@SLUICE_WRITE_DOCS=1 cargo test --release --locked -q -p sluice-control --lib the_page_of

lock: ## Resolve the Python lock files anew (needs uv)
	@scripts/lock.sh

clean: ## Remove build output
	@cargo clean

distclean: clean ## Remove build output, models and test environments
	@scripts/distclean.sh
