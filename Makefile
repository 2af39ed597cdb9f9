PYTHON ?= python3
EXTRAS ?= dev
PIP_FLAGS ?=
KIND ?= cpu
DOCKER ?= docker
BASE_gpu := --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 --build-arg PIP_EXTRA_INDEX_URL=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= $(HOME)/.understudy/demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install run test check format bench image clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

run: install
	$(BIN)/python -m engine --workspace $(DEMO) demo
	@if [ -t 0 ] && [ -t 1 ]; then \
		place="--config $(DEMO)/config.toml --workspace $(DEMO)"; \
		$(BIN)/python -m engine $$place serve all >>$(DEMO)/logs/serve.log 2>&1 </dev/null & server=$$!; \
		$(BIN)/python -m console $$place; \
		kill $$server; wait $$server; fi

test: install
	$(BIN)/python -m pytest -n auto --dist worksteal

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m benchmarks

image:
	$(DOCKER) build -f containers/Dockerfile $(BASE_$(KIND)) -t understudy:$(KIND) .

clean:
	rm -rf $(VENV)
