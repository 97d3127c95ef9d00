# Everything a developer or CI does. `make demo` and `make test` need Python 3.11 or later, make and git, nothing else.
# Each verify-x that can be mended by a machine has a fix-x.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed
PROTO_BIN := .venv-proto/bin
PROTO_INSTALLED := .venv-proto/installed
RELEASE_BIN := .venv-release/bin
RELEASE_INSTALLED := .venv-release/installed
PROTOS := $(shell find proto -name '*.proto')
PROTOC = PATH="$(CURDIR)/$(PROTO_BIN):$$PATH" $(PROTO_BIN)/python -m grpc_tools.protoc -Iproto \
	-I$$($(PROTO_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
BASE ?= main
SOAK_MINUTES ?= 30
FUZZ_INPUTS ?= 100000
CHAOS_SEED ?= 1
N ?= 10
TESTS ?=
# More than there are cores, for tests wait a lot.
PARALLEL := -n 4 --dist loadfile
# The tests that a Python's version can make a difference to.
ON_EVERY_PYTHON := tests/contract tests/device tests/messages tests/protobuf tests/runtime tests/schema tests/wire

UPGRADE ?=

# The tests start hundreds of processes: none is to compile again what it imports.
unexport PYTHONDONTWRITEBYTECODE

# $(call environment,FOLDER,NAME): a virtual environment of what requirements/NAME.txt says. pip checks the hashes.
environment = $(PYTHON) -m venv $(1) \
	&& $(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/$(2).txt
# $(call itself,FOLDER): this tree in it, by the build backend that is there already.
itself = $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

.PHONY: demo test test-pythons bench profile flake interop soak fuzz proto verify fix clean lock dist sbom audit test-oldest test-newest \
	verify-style fix-style verify-types verify-imports verify-lock verify-changelog verify-workflows \
	verify-proto verify-generated fix-generated

## What a newcomer types

demo: $(INSTALLED)  ## Start a daemon, run the remote calculator, stop the daemon.
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(INSTALLED)  ## Run the tests but the costly ones, which are left to CI (CONTRIBUTING.md).
	$(BIN)/python -m pytest $(PARALLEL)

test-pythons: $(INSTALLED)  ## Run ON_EVERY_PYTHON with each Python that is here.
	$(BIN)/python -m tests.pythons $(PARALLEL) $(ON_EVERY_PYTHON)

## What a developer types

bench: $(INSTALLED)  ## Print the figures, beside the peers and the limit.
	$(BIN)/python benchmarks/run.py

profile: $(INSTALLED)  ## Show where the time of a piped remote message goes.
	$(BIN)/python benchmarks/profile_piped.py

flake: $(INSTALLED)  ## Run all tests, or TESTS, N times on a busy machine, and tell which failed and how often.
	$(BIN)/python -m tests.flake --runs $(N) -- $(PARALLEL) $(TESTS)

interop: $(INSTALLED)  ## Run the clients in other languages, Rust and Java too, with what this installs for them.
	.ci/install-tools rust java
	$(BIN)/python -m pytest tests/interop tests/docs/test_clients.py

soak: $(INSTALLED)  ## 200,000 requests, then SOAK_MINUTES, over bad connections, and while workers are killed: nothing lost or leaked.
	$(BIN)/python -m tests.chaos.soak --seed $(CHAOS_SEED) --requests 200000
	$(BIN)/python -m tests.chaos.soak --seed $(CHAOS_SEED) --minutes $(SOAK_MINUTES)
	$(BIN)/python -m tests.chaos.workers --seed $(CHAOS_SEED) --requests 200000
	$(BIN)/python -m tests.chaos.workers --seed $(CHAOS_SEED) --requests 200000 --redeliver
	$(BIN)/python -m tests.chaos.workers --seed $(CHAOS_SEED) --minutes $(SOAK_MINUTES)

fuzz: $(INSTALLED)  ## FUZZ_INPUTS pieces of wrong input, then each attack: all get a status, and nobody else notices.
	$(BIN)/python -m tests.chaos.fuzzing --seed $(CHAOS_SEED) --inputs $(FUZZ_INPUTS)
	$(BIN)/python -m tests.chaos.under_attack --attempts 3

# The lock is what developers have. Users have what pyproject.toml allows, of which these are the ends.
test-oldest: $(INSTALLED)  ## Run all tests with the oldest versions that users can have.
	$(PYTHON) -m venv --without-pip .venv-oldest
	$(BIN)/uv pip compile pyproject.toml --extra client --extra server --extra tls --no-emit-package pydotcompute-grpc --quiet --upgrade \
		--python .venv-oldest/bin/python --resolution lowest-direct --output-file .venv-oldest/oldest.txt
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python --constraint .venv-oldest/oldest.txt --editable '.[dev]'
	.venv-oldest/bin/python -m pytest $(PARALLEL) $(OLDEST_LACK)

# Rich before 15 shows the table of --watch without colours.
OLDEST_LACK := --deselect tests/cli/test_telemetry.py::test_a_terminal_gets_colours_and_a_table_in_its_place

test-newest: $(INSTALLED)  ## Run all tests with the newest versions that users can have.
	$(PYTHON) -m venv --without-pip .venv-newest
	$(BIN)/uv pip install --quiet --python .venv-newest/bin/python --upgrade --editable '.[dev]'
	.venv-newest/bin/python -m pytest $(PARALLEL)

verify: verify-style verify-types verify-imports verify-lock verify-changelog verify-workflows verify-proto verify-generated  ## All checks but the tests.

fix: fix-style fix-generated  ## Mend what can be mended.

proto: fix-generated  ## Generate pydotcompute/v1 from proto/.

lock: $(INSTALLED)  ## Write requirements/ from pyproject.toml; UPGRADE=1 takes the newest versions.
	for extra in dev generate release image image-cuda image-build; do \
		$(BIN)/uv pip compile pyproject.toml --extra $$extra --output-file requirements/$$extra.txt $(if $(UPGRADE),--upgrade) \
			--universal --python-version 3.11 --generate-hashes --no-emit-package pydotcompute-grpc \
			--custom-compile-command 'make lock' --quiet || exit 1; \
	done

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

verify-lock: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/project/test_lock.py

verify-changelog: $(INSTALLED)
	$(BIN)/towncrier build --draft >/dev/null

# zizmor looks for what is dangerous in a workflow, actionlint for what is wrong. Go brings that one, so it may be missing.
verify-workflows: $(INSTALLED)
	$(BIN)/zizmor --offline --no-progress --quiet .github
	@actionlint=$$(PATH="$(CURDIR)/.tools/bin:$$PATH" command -v actionlint); \
	if [ -n "$$actionlint" ]; then \
		echo "$$actionlint"; "$$actionlint" -shellcheck= -pyflakes=; \
	else \
		echo 'left out: actionlint is not installed; `.ci/install-tools` brings it, if Go is here' >&2; [ "$$CI" != true ]; \
	fi

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
	@for proto in $(PROTOS:proto/%.proto=%); do \
		$(PROTOC) --include_source_info --descriptor_set_out=$(INTO)/$$proto.binpb $$proto.proto || exit 1; \
	done

dist: $(RELEASE_INSTALLED)  ## Build the sdist, and the wheel from it, into dist/.
	rm -rf dist
	$(RELEASE_BIN)/python -m build --no-isolation --outdir dist .

sbom: dist  ## List what the wheel is installed with, and what is in the images, as CycloneDX, in build/.
	rm -rf build && mkdir build
	$(PYTHON) -m venv --without-pip build/venv
	$(RELEASE_BIN)/python -m pip --python build/venv install --quiet --disable-pip-version-check "$$(echo dist/*.whl)[server,client,tls]"
	sed "s/^dynamic = .*/version = \"$$($(RELEASE_BIN)/hatchling version)\"/" pyproject.toml >build/pyproject.toml
	$(RELEASE_BIN)/cyclonedx-py environment --pyproject build/pyproject.toml --output-reproducible \
		--output-file build/wheel.cdx.json build/venv
	for image in image image-cuda; do \
		$(RELEASE_BIN)/cyclonedx-py requirements --pyproject build/pyproject.toml --output-reproducible \
			--output-file build/$$image.cdx.json requirements/$$image.txt || exit 1; \
	done

audit: $(RELEASE_INSTALLED)  ## Ask the database of Python packages for known faults in what requirements/ has.
	for lock in $(sort $(wildcard requirements/*.txt)); do \
		$(RELEASE_BIN)/pip-audit --requirement $$lock --require-hashes --disable-pip --strict --progress-spinner off || failed=1; \
	done; [ -z "$$failed" ]

clean:
	rm -rf .venv .venv-proto .venv-release .venv-oldest .venv-newest .venv-peer .venv-ray .venv-xoscar .venv-3.* .tools build dist

$(INSTALLED): pyproject.toml requirements/dev.txt
	$(call environment,.venv,dev)
	$(call itself,.venv)
	@touch $@

$(PROTO_INSTALLED): requirements/generate.txt
	$(call environment,.venv-proto,generate)
	@touch $@

$(RELEASE_INSTALLED): requirements/release.txt
	$(call environment,.venv-release,release)
	@touch $@
