#!/bin/sh
# One prompt to its answer. The answer is on stdout, and the exit code is 0 only if the turn really succeeded.
set -eu

castra run "$@" "remember that doors have two sides"
