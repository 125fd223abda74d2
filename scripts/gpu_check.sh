#!/bin/sh
# Trains, resumes, compares and measures on a machine with one GPU, Python 3.12 and PyTorch: under eight minutes.
# Usage: gpu_check.sh [--cpu] [FOLDER]
#   --cpu    every step at a tiny size on a CPU, to try the script itself
#   FOLDER   of the data, the run and results.json; by default a temporary one
# Packages that the machine lacks come from .gpu-wheels, which `make gpu-wheels` prepares; nothing is downloaded.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
wheels=${GPU_WHEELS:-$root/.gpu-wheels}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT

"$python" - "$wheels" "$site" <<'END'
import importlib.metadata
import sys
import zipfile
from pathlib import Path

wheels, site = map(Path, sys.argv[1:])
for wheel in sorted(wheels.glob("*.whl")):
    name = wheel.name.split("-")[0].replace("_", "-")
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # A wheel is a zip file of what is to be importable. No program of these packages is run.
        zipfile.ZipFile(wheel).extractall(site)
        print(f"from a wheel: {wheel.name}", flush=True)
END

export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
"$python" "$root/scripts/gpu_check.py" "$@"
