#!/usr/bin/env bash
# Snakemake runs this at the top of the project, in the environment that us3l.yaml describes.
set -euo pipefail
if [ -f requirements.lock ]; then # a clone
    pip install --requirement requirements.lock
    pip install --no-deps --editable .
else
    pip install 'us3l[train]'
fi
