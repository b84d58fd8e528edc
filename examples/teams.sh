#!/bin/sh
# The teams of teams/: one that is asked until it is stopped, and one whose flow is run. Answers on stdout.
set -eu

here=$(cd "$(dirname "$0")" && pwd)/teams
castra team up "$here/review.yaml" "$@" >/dev/null

# Each key is a conversation of its own.
castra team ask writer "remember the number 7" --key ann
castra team ask writer "what did I ask you before?" --key ann | tail -n 1
castra team ask writer "what did I ask you before?" --key ben | tail -n 1

# Side by side: one fails, the others answer.
castra team fanout "fail with 400" --agents critic 2>/dev/null || echo "exit code $?"
castra team fanout "Think about doors" --agents critic,sceptic

# What the writer says is the critic's message; other braces stay.
castra team route "remember that doors have hinges" --from writer --to critic --wrap 'Remember {this}: {message}'
castra team stop --all >/dev/null
castra team status --json | jq -r '.agents[].conversations[] | "\(.key // "-") \(.state)"' | sort -u
castra team rm review >/dev/null

castra team run "$here/flow.toml" "doors" "$@"
