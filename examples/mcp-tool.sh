#!/bin/sh
# A tool of one's own: an MCP server over stdio, and a model whose script calls it. A tool that is named in
# --allowed-tools is not asked about.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
# In the folder that claude works in, because a sandbox hides most others.
cp "$here/tape_measure.py" "$folder"

castra model serve --script "$here/mcp-tool.toml" >"$folder/model.url" 2>/dev/null &
model=$!
trap 'kill "$model"; rm -rf "$folder"' EXIT
until grep -q http "$folder/model.url"; do sleep 0.1; done

castra run --workdir "$folder" \
    --mcp-config '{"mcpServers": {"tape": {"command": "python3", "args": ["tape_measure.py"]}}}' \
    --allowed-tools mcp__tape__measure \
    --env ANTHROPIC_BASE_URL="$(cat "$folder/model.url")" --env ANTHROPIC_API_KEY=made-up \
    'how long is "nothing said is lost"?'
