# Needs Linux or macOS, Python 3.11 to 3.14, make and git. Everything else goes into .venv.
# PocketSphinx must be compiled for 3.14, so an older Python is preferred.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell pwd -P | cksum | cut -d ' ' -f 1)
# Set if Python is missing from .venv, or was replaced by another one.
BROKEN := $(shell test ! -e $(STAMP) || $(BIN)/python -c 'import pip' 2>/dev/null || echo broken)
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$python && exit; done; command -v python3.14)

MANIFESTS := $(wildcard pyproject.toml core/pyproject.toml plugins/*/pyproject.toml \
	providers/*/pyproject.toml stt/*/pyproject.toml tts/*/pyproject.toml realtime/*/pyproject.toml)
MEMBERS := $(patsubst %/,%,$(dir $(filter-out pyproject.toml,$(MANIFESTS))))
SOURCES := $(addsuffix /src,$(MEMBERS))

# The tests start many processes; without cached bytecode, each would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup broken demo test check lint bench soak docs constraints version dist

help:
	@echo "make setup        .venv with every package, editable"
	@echo "make demo         two calls between a caller and a gateway, and a recording"
	@echo "make test         the test suite"
	@echo "make check        ruff, mypy, import-linter, generated pages, tests"
	@echo "make bench        start-up, store, webhooks, media, turns and speech against their floors"
	@echo "make soak         full counts of what make test samples; an hour on two cores"
	@echo "make docs         write the generated pages of docs/reference anew"
	@echo "make constraints  resolve every dependency anew into constraints.txt"
	@echo "make version      give every package the version NEW=..."
	@echo "make dist         wheels and source archives of every package, in dist"

setup: $(STAMP)

# A .venv works only in the folder that it was made in: the commands and editable packages of a copy
# would run the original's code. It is remade if it was copied, not completed, or is broken.
# uv installs workspace members as editable only if each of them is named.
$(STAMP): Makefile .ci/editable.py constraints.txt $(MANIFESTS) $(BROKEN)
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12, 3.13 or 3.14 is needed; name it: make PYTHON=..."; exit 1; }
	@set -- $(VENV)/.installed*; \
	if { test -e "$$1" && test ! -e $@; } || ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
		$(PYTHON) -m venv --clear $(VENV); \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python -c constraints.txt -b constraints.txt \
		--group dev $$($(BIN)/python .ci/editable.py $(MANIFESTS))
	@touch $@

demo: setup
	@$(BIN)/voicecall demo

test: setup
	@TMPDIR=$$(sh .ci/scratch) $(BIN)/pytest -n 5 --dist worksteal -m "not soak and not bench and not live"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES) tests docs
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

check: lint test

bench: setup
	@$(BIN)/python tests/bench/run.py

soak: setup
	$(BIN)/pytest -s -m soak

docs: setup
	$(BIN)/python docs/generate.py

# uv.lock is not kept: constraints.txt has the same versions without hashes and addresses, and also
# pins uv and the build tools. Releases of the last days are skipped: if one of them is withdrawn,
# every new clone would break.
constraints: setup
	$(BIN)/uv lock --quiet --system-certs --upgrade --exclude-newer "7 days"
	$(BIN)/uv export --quiet --frozen --no-hashes --no-header --no-annotate \
		--no-emit-workspace --all-packages --all-extras --all-groups > $(VENV)/locked.txt
	printf '%s\n' uv hatchling editables | $(BIN)/uv pip compile --quiet --system-certs --universal \
		--exclude-newer "7 days" --python-version 3.11 --no-header --no-annotate -c $(VENV)/locked.txt - > $(VENV)/tools.txt
	LC_ALL=C sort -u $(VENV)/locked.txt $(VENV)/tools.txt > constraints.txt

# All packages are released together, and each requires the others in exactly its own version.
version:
	@test -n "$(NEW)" || { echo "Say which: make version NEW=..."; exit 1; }
	sed -i.bak -E -e 's/^version = ".*"/version = "$(NEW)"/' \
		-e 's/"(voicecall-[^"=]+)==[^"]+"/"\1==$(NEW)"/g' $(MANIFESTS)
	rm $(addsuffix .bak,$(MANIFESTS))

dist: setup
	rm -rf dist
	$(BIN)/uv build --quiet --system-certs --all-packages --build-constraints constraints.txt
