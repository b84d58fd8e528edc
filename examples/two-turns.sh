#!/bin/sh
# Two turns of one conversation. Between them claude ends and the daemon is killed: the session outlives both.
set -eu

id=$(castra run "$@" -d "remember that doors have two sides")
castra wait "$id" >/dev/null
castra logs "$id" --json | jq -r 'select(.kind == "result").data.result'

castra stop "$id" >/dev/null
kill -9 "$(castra config --json | jq .daemon.pid)"

castra resume "$id" >/dev/null
castra send "$id" --wait "what did I ask you before?"
castra stop "$id" >/dev/null
