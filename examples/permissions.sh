#!/bin/sh
# claude asks before it uses a tool, and a script decides: writing is allowed, running commands is not.
set -eu

# Answers what waits until the session has nothing left to do.
decide() {
    while castra show "$1" --json | jq -e '.busy or .queued > 0 or .state == "queued" or .state == "starting"' >/dev/null; do
        castra permissions "$1" --json | jq -r '.items[] | select(.state == "pending") | "\(.request_id) \(.tool)"' |
            while read -r request tool; do
                echo "claude wants to use $tool"
                case $tool in
                    Write) castra approve "$1" "$request" ;;
                    *) castra deny "$1" "$request" --message "$tool is not allowed here" ;;
                esac >/dev/null
            done
        sleep 0.2
    done
}

id=$(castra run "$@" -d --fresh "write a haiku to haiku.txt")
decide "$id"
castra files get "$id" haiku.txt

castra send "$id" "run: touch other.txt" >/dev/null
decide "$id"
castra logs "$id" --json | jq -rs 'map(select(.kind == "result")) | last.data.result'
castra stop "$id" >/dev/null
