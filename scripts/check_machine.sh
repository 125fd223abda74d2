#!/bin/sh
# Fails with one line that names the first missing requirement and how to install it, before any download starts.
# Usage: check_machine.sh PYTHON
set -u
python=$1

missing() {
    echo "error: $1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    missing "no $python: Python >= 3.11 is needed (python.org, or your system's packages); make PYTHON=... names another"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    missing "$("$python" --version) is too old, >= 3.11 is needed; make PYTHON=/path/to/python3.12 names another"
"$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
    missing "$python has no venv module: apt install python3-venv, or a Python from python.org"
"$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    missing "$python has no headers, which DeepSpeed compiles against: apt install python3-dev"
command -v cargo >/dev/null 2>&1 || missing "no cargo: Rust >= 1.89 is needed, see https://rustup.rs"
command -v cc >/dev/null 2>&1 || missing "no C compiler: apt install build-essential, or xcode-select --install"
command -v c++ >/dev/null 2>&1 || missing "no C++ compiler: apt install build-essential, or xcode-select --install"
free_kb=$(df -Pk . | awk 'NR == 2 { print $4 }')
[ "$free_kb" -ge 6000000 ] || missing "$((free_kb / 1000000)) GB of free disk here, 6 GB are needed"
