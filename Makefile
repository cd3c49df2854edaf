# `make serve` and `make test` need Python 3.11 or newer and nothing else.
#
# Settings are environment variables: LOGPOST_HOST, LOGPOST_PORT, LOGPOST_WORKERS, LOGPOST_DATA_DIR and the others
# of `logpost serve --help`; `LOGPOST_PORT=9000 make serve` and `make serve LOGPOST_PORT=9000` are the same.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help serve test lint audit format bench bench-full faults failover openapi clean
# A line that fails must not leave a half-made target that looks finished.
.DELETE_ON_ERROR:

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

serve: $(STAMP) ## run the server, on an embedded Postgres unless LOGPOST_DATABASE_URL is set
	@exec $(BIN)/logpost serve

test: lint ## everything that has to hold: style, types, contracts, the API document, every test
	$(BIN)/python -m app.api.openapi --check
	$(BIN)/python -m pytest

lint: $(STAMP) ## style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit -q -r -c pyproject.toml app
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(STAMP) ## known vulnerabilities of the dependencies, where that can be asked
	@$(BIN)/python .ci/audit

format: $(STAMP) ## put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## the benchmarks of bench/, with their ratios; some minutes
	$(BIN)/python -m bench

bench-full: $(STAMP) ## the same with longer rounds, and beside every peer that is installed; an hour
	@if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python -r requirements-bench.txt; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt; fi
	$(BIN)/python -m bench --full

faults: $(STAMP) ## break two replicas and their Postgres for MINUTES= with SEED=, and check that nothing is lost
	$(BIN)/python -m bench.faults $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),2) \
		$(if $(RATE),--rate $(RATE)) $(if $(OUT),--out $(OUT)) $(if $(REPORT),--report $(REPORT))

failover: $(STAMP) ## kill a primary under load and promote its synchronous standby, and check that nothing is lost
	$(BIN)/python -m bench.faults.failover $(if $(SEED),--seed $(SEED))

openapi: $(STAMP) ## write openapi/openapi.json anew
	$(BIN)/python -m app.api.openapi

clean: ## remove what was built; never data
	rm -rf .venv .venv-audit build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find app bench migrations tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# Everything comes from requirements.txt, the project's own build backend included, so that installing the project
# itself asks no index for anything. uv is used where it is, because it takes a few seconds instead of a minute.
$(STAMP): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Logpost needs Python 3.11 or newer: install it, or say where it is with PYTHON=" >&2; exit 1; }
	@rm -f $@
	@if command -v uv >/dev/null; then \
		set -ex; \
		test -x $(BIN)/python || uv venv --quiet --python "$$(command -v $(PYTHON))" .venv; \
		uv pip install --quiet --python $(BIN)/python -r requirements.txt; \
		uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
		set -ex; \
		test -x $(BIN)/python || $(PYTHON) -m venv .venv; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	@touch $@
