# `make` alone lists what there is. Each target makes the environments that it needs, once.

PYTHON ?= python3
VENV ?= .venv
STUDIO_VENV ?= .venv-label-studio
CHECK_VENV ?= .venv-check
ARGS ?=

STUDIO := label-studio==1.23.2
CURRENT_WEB := flask werkzeug jinja2 itsdangerous
TOOLS = PATH="$(abspath $(CHECK_VENV))/bin:$(abspath $(VENV))/bin:$$PATH"

.DEFAULT_GOAL := help
.PHONY: help demo test check docs bench picture browser postgres

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.made $(STUDIO_VENV)/.made ## Label Studio and the backend on drawn scenes (ARGS=--once: check and exit)
	$(VENV)/bin/clearclip-backend demo --label-studio $(STUDIO_VENV)/bin/label-studio $(ARGS)

test: $(VENV)/.made $(STUDIO_VENV)/.made browser postgres ## all tests, the real Label Studio and Chromium included (ARGS: pytest's)
	LABEL_STUDIO_COMMAND=$(abspath $(STUDIO_VENV))/bin/label-studio $(VENV)/bin/python -m pytest $(ARGS)

check: $(CHECK_VENV)/.made ## format, lint and types of the code; lint and schema of the container files and the workflow
	$(TOOLS) ruff format --check .
	$(TOOLS) ruff check .
	$(CHECK_VENV)/bin/python -m mypy
	$(TOOLS) hadolint backend/Dockerfile
	$(TOOLS) check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(TOOLS) check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	$(TOOLS) shellcheck .ci/run

docs: $(CHECK_VENV)/.made ## the pages of docs/, into site/; warnings are errors
	PYTHONPATH=. $(CHECK_VENV)/bin/python -m sphinx -W --keep-going -n -q docs site

bench: $(VENV)/.made $(STUDIO_VENV)/.made ## benchmarks and the longer studies, into docs/explanation/measurements.md (ARGS: a part, only printed)
	LABEL_STUDIO_COMMAND=$(abspath $(STUDIO_VENV))/bin/label-studio OMP_WAIT_POLICY=PASSIVE \
	$(VENV)/bin/python -m pytest -q -s --timeout 0 $(or $(ARGS),tests/bench --results docs/explanation/measurements.md)

picture: $(VENV)/.made $(STUDIO_VENV)/.made browser ## take the pictures of the pages anew, into docs/images
	LABEL_STUDIO_COMMAND=$(abspath $(STUDIO_VENV))/bin/label-studio TAKE_PICTURE=1 \
	$(VENV)/bin/python -m pytest tests/e2e -k 'picture or click_beside' $(ARGS)

$(VENV)/.made: pyproject.toml
	@echo "Installing the packages and their test tools into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --upgrade pip
	@$(VENV)/bin/python -m pip install --quiet --quiet --editable '.[test]'
	@touch $@

$(STUDIO_VENV)/.made: Makefile
	@echo "Installing $(STUDIO) into $(STUDIO_VENV)"
	@$(PYTHON) -m venv $(STUDIO_VENV)
	@$(STUDIO_VENV)/bin/python -m pip install --quiet --upgrade pip
	@$(STUDIO_VENV)/bin/python -m pip install --quiet '$(STUDIO)'
	@touch $@

# What label-studio-ml 1.0.9 pins has no types. So this environment sees all of $(VENV) (the .pth
# file), and a current Flask lies in front of it.
$(CHECK_VENV)/.made: $(VENV)/.made
	@echo "Installing the check tools and a current Flask into $(CHECK_VENV), on top of $(VENV)"
	@$(PYTHON) -m venv $(CHECK_VENV)
	@below=$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	here=$$($(CHECK_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	echo "import site; site.addsitedir('$$below')" > "$$here/below.pth"
	@$(CHECK_VENV)/bin/python -m pip install --quiet --quiet --editable '.[test,check,docs]'
	@$(CHECK_VENV)/bin/python -m pip install --quiet --upgrade --no-warn-conflicts $(CURRENT_WEB)
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
