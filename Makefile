# PYTHON names the interpreter that builds .venv; by default, the first suitable one on the PATH.
PYTHON ?= python3 python3.13 python3.12 python3.11 python3.14

in_venv = PATH="$(CURDIR)/.venv/bin:$$PATH"

.PHONY: help env demo test lint notebook docs

help: ## Show this help
	@sed -n 's/^\([a-z]*\):[^#]*## */  make \1|/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

env: .venv/.complete ## Build the environment in .venv from requirements.lock

demo: env ## Train on the digits and print the table (about 4 minutes on 2 cores)
	@$(in_venv) snakemake --cores all
	@echo
	@cat results/digits/tables/main.md
	@echo
	@echo "This table is results/digits/tables/main.md, its figure results/digits/figures/accuracy-main.png;"
	@echo "snakemake --report report.zip packs tables and figures into a report (docs/report.md)"

test: env ## Run all tests, up to four at a time
	@$(in_venv) pytest -n auto --dist worksteal

lint: env ## Check style, imports, types and workflow (ruff, import-linter, mypy, snakefmt, snakemake --lint)
	@$(in_venv) ruff check
	@$(in_venv) ruff format --check
	@$(in_venv) lint-imports
	@$(in_venv) mypy
	@$(in_venv) snakefmt --check Snakefile workflow/Snakefile workflow/rules/*.smk
	@$(in_venv) snakemake --lint

notebook: env ## Run the notebook of the docs on what the demo trained (about 10 seconds)
	@$(in_venv) jupyter execute docs/notebooks/accuracy-against-macs.ipynb

docs: env ## Build the docs in site/, and check every link and anchor in them and in README
	@$(in_venv) NO_MKDOCS_2_WARNING=1 mkdocs build --strict
	@echo "The docs stand in site/index.html"

.venv/.complete: requirements.lock pyproject.toml
	@found=; for python in $(PYTHON); do \
	  if "$$python" -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then \
	    found="$$python"; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "us3l needs Python 3.11 to 3.14 with venv and finds none in '$(PYTHON)': name one, as in make env PYTHON=/path/to/python3.11" >&2; \
	  exit 2; \
	fi; \
	echo "Building .venv with $$("$$found" --version): several GB and some minutes when nothing is cached."; \
	"$$found" -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "The environment stands in .venv"
