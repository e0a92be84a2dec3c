#!/usr/bin/env bash
# Make the environment of kd_det: a virtual environment with torch, mmcv with compiled ops, mmdet, mmrazor and kd_det.
#   [VENV=.venv] [PYTHON=python3.11] [TORCH=torch==2.13.0] tools/make_env.sh
# Safe to run again: what is there stays. Called by `make env`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${VENV:-.venv}
fail() { echo "make env: $*" >&2; exit 1; }
say() { echo "[$(date +%H:%M:%S)] $*"; }

suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }
if [ ! -x "$venv/bin/python" ]; then
    python=
    for candidate in ${PYTHON:-python3.11 python3.12 python3 python}; do
        if suits "$candidate"; then python=$candidate; break; fi
    done
    [ -n "$python" ] || fail "no Python 3.11 or 3.12 found; name one with PYTHON=/path/to/python3.11."
    say "Making $venv with $("$python" --version)"
    "$python" -m venv "$venv" || fail "$python cannot make a virtual environment; install its venv package (python3-venv)."
fi
suits "$venv/bin/python" || fail "$venv has $("$venv/bin/python" --version); Python 3.11 or 3.12 is needed. Remove $venv."
command -v c++ >/dev/null || command -v g++ >/dev/null || fail "no C++ compiler found; install one (g++), mmcv needs it."

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
pins=requirements/constraints.txt
torch=${TORCH:-$(grep -E '^torch==' "$pins")}
say "Installing $torch and what builds mmcv"
pip install --quiet "$torch" -r requirements/build.txt -c <(grep -v '^torch==' "$pins")

# Without the CUDA toolkit mmcv's set-up must not see a GPU: it would ask for the toolkit and fail.
if [ -z "${FORCE_CUDA:-}" ] && [ ! -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; then export CUDA_VISIBLE_DEVICES=; fi
has_ops() {  # on the GPU, too, where that is asked for
    "$venv/bin/python" -c 'import os, torch; from mmcv.ops import nms
d = "cuda" if os.environ.get("FORCE_CUDA") == "1" else "cpu"
nms(torch.ones(1, 4, device=d), torch.ones(1, device=d), 0.5)' 2>/dev/null
}
mmcv=$(grep -E '^mmcv==' "$pins")
if ! has_ops; then
    say "Installing $mmcv; without a wheel in pip's cache its ops are compiled, 10 to 20 minutes on two cores"
    pip install --quiet --no-build-isolation "$mmcv" -c <(grep -v '^torch==' "$pins")
fi
if ! has_ops; then
    say "That $mmcv has no ops for this torch; compiling it from source"
    MMCV_WITH_OPS=1 pip install --quiet --no-build-isolation --no-cache-dir --force-reinstall --no-deps \
        --no-binary mmcv "$mmcv"
fi
say "Installing kd_det and the rest"
pip install --quiet -r requirements/tests.txt -c <(grep -v '^torch==' "$pins")
pip install --quiet --no-build-isolation -e . -c <(grep -v '^torch==' "$pins")
say "Checking"
unset CUDA_VISIBLE_DEVICES
"$venv/bin/python" tools/check_env.py
