#!/bin/sh
# What castra and claude said to each other in one turn: the exact bytes in both directions, as the shim recorded
# them, shortened to type and subtype. `castra logs ID --raw` prints them whole.
set -eu

id=$(castra run "$@" -d hello)
castra wait "$id" >/dev/null
castra stop "$id" >/dev/null

shorten='[.type, .subtype // .request.subtype // .response.subtype // .event.type // empty] | join(" ")'
echo "castra to claude:"
castra logs "$id" --raw --in | jq -r "$shorten"
echo "claude to castra:"
castra logs "$id" --raw --out | jq -r "$shorten" | sort -u
