#!/bin/sh
# The task files of tasks/, one after the other: results and deliverables on stdout, progress on stderr.
set -eu

here=$(cd "$(dirname "$0")" && pwd)/tasks
castra task run "$here/report.yaml" "$@"
castra task get report report.md -o - | head -n 1
castra task run "$here/progress.toml" "$@"
castra task run "$here/failing.yaml" "$@" || echo "exit code $?"
castra task run "$here/answer.json" "$@"

# The second waits for the first, by its name.
castra task new "$here/first.yaml" "$@" >/dev/null
castra task run "$here/second.toml" "$@"
castra task get first lengths.md -o - | head -n 1
