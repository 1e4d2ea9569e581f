# `make` alone lists what there is. Each target makes the environments that it needs, once.

PYTHON ?= python3
VENV ?= .venv
STUDIO_VENV ?= .venv-label-studio
ARGS ?=

SETTINGS_PAGE := docs/reference/settings.md
STUDIO := label-studio==1.23.2
# 2.0.1.dev0 of label-studio-ml: 2.x is not on the index.
STUDIO_ML := https://github.com/HumanSignal/label-studio-ml-backend/archive/d02cedf35d0e5d21f2f437c120174c62f66bf57a.tar.gz
# The same release as the image's.
UV := $(shell sed -nE 's/.*pip install .*(uv==[0-9.]+).*/\1/p' backend/Dockerfile)
PYTEST = LABEL_STUDIO_COMMAND=$(abspath $(STUDIO_VENV))/bin/label-studio OMP_NUM_THREADS=1 \
	$(VENV)/bin/python -m pytest --numprocesses auto --no-loadscope-reorder
LOWEST = $(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest/bin/python
TOOLS = PATH="$(abspath $(VENV))/bin:$$PATH"

NEEDS = @$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 to 3.13 is needed, \
	and $(PYTHON) is " + sys.version.split()[0] + ": give another one, as in make PYTHON=python3.12 demo")'

# What the tests need that ARGS names: those of the core nothing, those of the backend PostgreSQL.
PARTS := $(filter tests/% backend% clearclip_core%,$(ARGS))
NEEDED := $(if $(PARTS),,$(STUDIO_VENV)/.made browser postgres) \
	$(if $(filter tests/e2e%,$(PARTS)),$(STUDIO_VENV)/.made browser) $(if $(filter tests/backend%,$(PARTS)),postgres)
QUICK := clearclip_core backend tests/test_conventions.py tests/test_readability.py tests/core/images tests/backend/test_settings.py \
	$(addprefix tests/backend/,annotations feedback label_studio network telemetry)

.DEFAULT_GOAL := help
.PHONY: help demo test quick test-all lowest newest rehearse test-compose check docs settings lock bench picture browser postgres

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.made $(STUDIO_VENV)/.made ## Label Studio and the backend on drawn scenes (ARGS=--once: check and exit)
	$(VENV)/bin/clearclip-backend demo --label-studio $(STUDIO_VENV)/bin/label-studio $(ARGS)

test: $(VENV)/.made $(NEEDED) ## the tests, the real Label Studio and Chromium included (ARGS: pytest's)
	$(PYTEST) -m 'not thorough' $(ARGS)

quick: $(VENV)/.made ## tests that need no server, in a minute: of the parts that change most, and all doctests
	$(VENV)/bin/python -m pytest --numprocesses auto -m 'not thorough' $(QUICK) $(ARGS)

test-all: $(VENV)/.made $(NEEDED) ## the tests with those that take longer: PostgreSQL's doubles, the long fuzz, kills of servers
	$(PYTEST) $(ARGS)

lowest: postgres ## the tests without servers, with the oldest releases of all direct requirements
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet '$(UV)'
	$(LOWEST) --resolution lowest-direct --editable .
	$(LOWEST) '.[test,label-studio-ml]'
	$(LOWEST) --no-deps label-studio-ml==1.0.9
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python -m pytest --numprocesses auto -m 'not thorough' tests/core tests/backend $(ARGS)

rehearse: $(VENV)/.made ## build the packages, and live a first day on Python 3.10 to 3.13 (ARGS: --address URL --tag v0.3.0)
	$(VENV)/bin/python -m pip install --quiet '$(UV)'
	$(TOOLS) PYTHONPATH=. $(VENV)/bin/python -m tests.deploy.rehearse $(ARGS)

newest: $(VENV)/.made postgres ## the tests without servers, with the newest releases, also of what label-studio-sdk holds back (ARGS: a part)
	$(VENV)/bin/python -m pip install --quiet '$(UV)'
	mkdir -p $(VENV)-newest && echo torch > $(VENV)-newest/without.txt
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --target $(VENV)-newest --no-deps --upgrade \
	--excludes $(VENV)-newest/without.txt --requirement pyproject.toml
	PYTHONPATH=$(abspath $(VENV)-newest) OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto \
	-m 'not thorough' $(or $(ARGS),tests/core tests/backend)

test-compose: ## build the image and walk through Docker Compose with a real engine (ARGS: --file more.yml)
	$(PYTHON) -m tests.deploy.walk $(ARGS)

# promtool is a package of Debian's; without it the tests parse what the alerts ask.
check: $(VENV)/.made ## format, lint, types and readability of the code; lint and schema of the container files and of GitHub's
	$(TOOLS) ruff format --check .
	$(TOOLS) ruff check .
	$(VENV)/bin/python -m mypy
	PYTHONPATH=. $(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/python -m tests.readability
	$(TOOLS) hadolint backend/Dockerfile
	$(TOOLS) check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml tests/deploy/closed-network.yml
	$(TOOLS) check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(TOOLS) check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	$(TOOLS) check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(TOOLS) check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(TOOLS) shellcheck .ci/run deploy/create-database.sh
	mkdir -p build && sed -n '/^```yaml/,/^```/p' docs/guides/servers.md | grep -v '^```' > build/kubernetes.yml
	$(TOOLS) kubernetes-validate --strict --quiet build/kubernetes.yml
	if command -v promtool >/dev/null; then promtool check rules deploy/monitoring/alerts.yml; fi

docs: $(VENV)/.made ## the pages of docs/, into site/; warnings are errors
	PYTHONPATH=. $(VENV)/bin/python -m sphinx -W --keep-going -n -q docs site

settings: $(VENV)/.made ## write the settings into .env.example and the page of the docs
	PYTHONPATH=. $(VENV)/bin/python -m docs.settings .env.example $(wildcard $(SETTINGS_PAGE))

lock: $(VENV)/.made ## choose the releases in the images again, into deploy/requirements.lock
	$(VENV)/bin/python -m pip install --quiet '$(UV)'
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --no-annotate \
	--custom-compile-command 'make lock' --constraints deploy/torch.txt --excludes deploy/unlocked.txt \
	--no-emit-package torch --no-emit-package torchvision --output-file deploy/requirements.lock \
	--extra postgres --extra dataset --extra sam --extra hf pyproject.toml deploy/requirements.in

bench: $(VENV)/.made $(STUDIO_VENV)/.made ## benchmarks and the longer studies, into docs/results/measurements.md (ARGS: a part, printed, or with --results PAGE written)
	LABEL_STUDIO_COMMAND=$(abspath $(STUDIO_VENV))/bin/label-studio OMP_WAIT_POLICY=PASSIVE \
	$(VENV)/bin/python -m pytest -q -s --timeout 0 $(or $(ARGS),tests/bench --results docs/results/measurements.md)

picture: $(VENV)/.made $(STUDIO_VENV)/.made browser ## take the pictures of the pages again, into docs/images
	LABEL_STUDIO_COMMAND=$(abspath $(STUDIO_VENV))/bin/label-studio TAKE_PICTURE=1 \
	$(VENV)/bin/python -m pytest tests/e2e -k 'picture or click_beside or walk or judged' $(ARGS)

# label-studio-ml goes in without its requirements, beside the current Flask: 2.x from GitHub, or where
# that cannot be reached, 1.0.9 from PyPI, which pins Flask 1.1.2.
$(VENV)/.made: pyproject.toml
	$(NEEDS)
	@echo "Installing the packages with their test and check tools into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --upgrade pip
	@$(VENV)/bin/python -m pip install --quiet --quiet --editable '.[test,check,docs,label-studio-ml]'
	@$(VENV)/bin/python -m pip install --quiet --no-deps --retries 0 --timeout 5 '$(STUDIO_ML)' >/dev/null 2>&1 \
	|| $(VENV)/bin/python -m pip install --quiet --no-deps label-studio-ml==1.0.9
	@touch $@

$(STUDIO_VENV)/.made: Makefile
	$(NEEDS)
	@echo "Installing $(STUDIO) into $(STUDIO_VENV)"
	@$(PYTHON) -m venv $(STUDIO_VENV)
	@$(STUDIO_VENV)/bin/python -m pip install --quiet --upgrade pip
	@$(STUDIO_VENV)/bin/python -m pip install --quiet '$(STUDIO)'
	@touch $@

# The system's Chromium; else Debian's package; else Playwright's own.
browser: $(VENV)/.made
	@if command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Debian's chromium"; \
		apt-get update --quiet=2 && apt-get install --quiet=2 --yes --no-install-recommends chromium >/dev/null; \
	else \
		echo "Installing Playwright's chromium"; \
		$(VENV)/bin/playwright install chromium; \
	fi

# The system's PostgreSQL, which tests start by themselves, or Debian's package without a server.
postgres:
	@if command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Debian's postgresql"; \
		apt-get update --quiet=2; \
		apt-get install --quiet=2 --yes --no-install-recommends postgresql-common >/dev/null && \
		sed -i 's/^#* *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf && \
		apt-get install --quiet=2 --yes --no-install-recommends postgresql >/dev/null; \
	else \
		echo "Install PostgreSQL (initdb and pg_ctl): tests start one by themselves"; exit 1; \
	fi
