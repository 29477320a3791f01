#!/usr/bin/env bash
# Prints the interpreter of the Python client's tests, with pyarrow and pandas beside it; fetches them first if need be. Nothing is started.
# Exit: 0 done, 3 something is missing (prepare.sh says what).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

is_prepared python || "$services/prepare.sh" python >&2 || exit 3
echo "$(environment python)/bin/python"
