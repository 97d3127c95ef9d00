# Everything a developer or CI does. `make demo` and `make test` need Python 3.11 or later, make and git, nothing else.
# Each verify-x that can be mended by a machine has a fix-x.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed
PROTO_BIN := .venv-proto/bin
PROTO_INSTALLED := .venv-proto/installed
PROTOS := $(shell find proto -name '*.proto')
PROTOC = PATH="$(CURDIR)/$(PROTO_BIN):$$PATH" $(PROTO_BIN)/python -m grpc_tools.protoc -Iproto \
	-I$$($(PROTO_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
BASE ?= main
SOAK_MINUTES ?= 30
FUZZ_INPUTS ?= 100000
CHAOS_SEED ?= 1
N ?= 10
TESTS ?=
SHARED_OUT = -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test bench profile flake soak fuzz proto verify fix clean \
	verify-style fix-style verify-types verify-imports verify-proto verify-generated fix-generated

## What a newcomer types

demo: $(INSTALLED)  ## Start a daemon, run the remote calculator, stop the daemon.
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(INSTALLED)  ## Run all tests, those of a file one after the other.
	$(BIN)/python -m pytest $(SHARED_OUT)

## What a developer types

bench: $(INSTALLED)  ## Print the figures, beside the peers and the limit.
	$(BIN)/python benchmarks/run.py

profile: $(INSTALLED)  ## Show where the time of a piped remote message goes.
	$(BIN)/python benchmarks/profile_piped.py

flake: $(INSTALLED)  ## Run all tests, or TESTS, N times on a busy machine, and tell which failed and how often.
	$(BIN)/python -m tests.flake --runs $(N) -- $(SHARED_OUT) $(TESTS)

soak: $(INSTALLED)  ## 200,000 requests, then SOAK_MINUTES of them, over bad connections: nothing lost, doubled or leaked.
	$(BIN)/python -m tests.chaos.soak --seed $(CHAOS_SEED) --requests 200000
	$(BIN)/python -m tests.chaos.soak --seed $(CHAOS_SEED) --minutes $(SOAK_MINUTES)

fuzz: $(INSTALLED)  ## FUZZ_INPUTS pieces of wrong input: each gets a status, and nobody else notices.
	$(BIN)/python -m tests.chaos.fuzzing --seed $(CHAOS_SEED) --inputs $(FUZZ_INPUTS)

verify: verify-style verify-types verify-imports verify-proto verify-generated  ## All checks but the tests.

fix: fix-style fix-generated  ## Mend what can be mended.

proto: fix-generated  ## Generate pydotcompute/v1 from proto/.

verify-style: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

fix-style: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

verify-types: $(INSTALLED)
	$(BIN)/mypy

verify-imports: $(INSTALLED)
	$(BIN)/lint-imports

# buf reads images, so that google/rpc comes from the googleapis package and not from a registry of modules.
verify-proto: $(INSTALLED) $(PROTO_INSTALLED)
	@mkdir -p .tools
	$(PROTOC) --include_imports --include_source_info --descriptor_set_out=.tools/now.binpb $(PROTOS:proto/%=%)
	$(BIN)/buf lint .tools/now.binpb --config proto/buf.yaml --path pydotcompute
	@sh proto/breaking.sh "$(BASE)" "$(BIN)/buf" "$(PROTO_BIN)/python"

verify-generated: $(PROTO_INSTALLED)
	@rm -rf .tools/generated && mkdir -p .tools/generated
	@$(MAKE) --no-print-directory generate INTO=.tools/generated
	diff -r -x __init__.py -x __pycache__ .tools/generated/pydotcompute/v1 pydotcompute/v1

fix-generated: $(PROTO_INSTALLED)
	@$(MAKE) --no-print-directory generate INTO=.

.PHONY: generate
generate:
	$(PROTOC) --python_out=$(INTO) --pyi_out=$(INTO) $(PROTOS:proto/%=%)
	$(PROTOC) --grpc_python_out=$(INTO) --mypy_grpc_out=quiet:$(INTO) $(patsubst proto/%,%,$(filter %_service.proto,$(PROTOS)))

clean:
	rm -rf .venv .venv-proto .venv-peer .venv-ray .venv-xoscar .tools dist

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(PROTO_INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv-proto
	$(PROTO_BIN)/python -m pip install --quiet --disable-pip-version-check \
		$$($(PYTHON) -c 'import tomllib; print(*(f"\"{r}\"" for r in tomllib.load(open("pyproject.toml","rb"))["project"]["optional-dependencies"]["proto"]))' | tr -d '"')
	@touch $@
