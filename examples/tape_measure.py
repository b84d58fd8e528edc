#!/usr/bin/env python3
"""An MCP server over stdio with one tool, `measure`: the length of a text. Python's standard library only.

MCP's stdio transport is JSON-RPC 2.0, one message a line (modelcontextprotocol.io, revision 2025-06-18).
"""

import json
import sys

TOOL = {
    "name": "measure",
    "description": "Counts the characters of a text.",
    "inputSchema": {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
    },
}


def initialize(params):
    return {
        "protocolVersion": params.get("protocolVersion", "2025-06-18"),
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "tape-measure", "version": "1.0.0"},
    }


def call(params):
    text = params.get("arguments", {}).get("text")
    if params.get("name") != TOOL["name"] or not isinstance(text, str):
        return {"isError": True, "content": [{"type": "text", "text": "measure takes {text}"}]}
    return {"content": [{"type": "text", "text": f"{len(text)} characters"}]}


METHODS = {
    "initialize": initialize,
    "ping": lambda params: {},
    "tools/list": lambda params: {"tools": [TOOL]},
    "tools/call": call,
}

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message or "method" not in message:
        continue  # A notification, or an answer: neither is answered.
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    method = METHODS.get(message["method"])
    if method:
        answer["result"] = method(message.get("params") or {})
    else:
        answer["error"] = {"code": -32601, "message": f"no method {message['method']}"}
    print(json.dumps(answer), flush=True)
