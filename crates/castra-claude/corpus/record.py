#!/usr/bin/env python3
"""Records the corpus: the real CLI, over plain pipes, against a scripted model on loopback.

    record.py CLAUDE OUT_DIR [SCENARIO ...]

CLAUDE is a Claude Code executable; OUT_DIR gets <scenario>.in.jsonl and <scenario>.out.jsonl (every line written to
and read from it, byte for byte), <scenario>.err.txt where it said something, and transcripts/<scenario>.jsonl.
The CLI runs with an empty environment, a HOME of its own and a made-up key; nothing leaves 127.0.0.1.
"""
import http.server, json, os, queue, shutil, subprocess, sys, threading, time, uuid

NAMESPACE = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
RUN = "01928f6e-7b5a-7000-8000-000000000001"


def uid(name):
    return str(uuid.uuid5(NAMESPACE, name))


# --- the model: replies are taken in order by calls of the main loop (those that offer tools) ---

class Model:
    def __init__(self):
        self.replies, self.calls, self.lock = [], [], threading.Lock()
        model = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body, headers=()):
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                for key, value in headers:
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data)

            def do_HEAD(self):
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def do_GET(self):
                self.answer(200, {"data": []})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
                if "count_tokens" in self.path:
                    return self.answer(200, {"input_tokens": 10})
                with model.lock:
                    model.calls.append(body)
                    main = bool(body.get("tools"))
                    reply = model.replies.pop(0) if main and model.replies else {"blocks": [{"text": "Summary: nothing of note."}]}
                    number = len(model.calls)
                try:
                    model.reply(self, body, reply, number)
                except (BrokenPipeError, ConnectionResetError):
                    pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]

    def reply(self, handler, body, reply, number):
        if "status" in reply:
            kind = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
                    429: "rate_limit_error", 529: "overloaded_error"}.get(reply["status"], "api_error")
            headers = [("retry-after", "1")] if reply["status"] == 429 else []
            return handler.answer(reply["status"], {"type": "error", "error": {"type": kind, "message": "scripted"}}, headers)
        blocks, events = [], []
        for index, block in enumerate(reply["blocks"]):
            if "text" in block:
                words = block["text"].split(" ")
                deltas = [("text_delta", "text", w + (" " if i + 1 < len(words) else "")) for i, w in enumerate(words)]
                start = {"type": "text", "text": ""}
                full = {"type": "text", "text": block["text"]}
            elif "thinking" in block:
                deltas = [("thinking_delta", "thinking", block["thinking"]), ("signature_delta", "signature", "c2lnbmF0dXJl")]
                start = {"type": "thinking", "thinking": "", "signature": ""}
                full = {"type": "thinking", "thinking": block["thinking"], "signature": "c2lnbmF0dXJl"}
            else:
                tool = {"type": "tool_use", "id": "toolu_%02d_%02d" % (number, index), "name": block["tool"]}
                text = json.dumps(block["input"])
                deltas = [("input_json_delta", "partial_json", text[:5]), ("input_json_delta", "partial_json", text[5:])]
                start, full = dict(tool, input={}), dict(tool, input=block["input"])
            blocks.append(full)
            events.append(("content_block_start", {"index": index, "content_block": start}))
            for kind, field, text in deltas:
                events.append(("content_block_delta", {"index": index, "delta": {"type": kind, field: text}}))
            events.append(("content_block_stop", {"index": index}))
        stop = "tool_use" if any("tool" in b for b in reply["blocks"]) else "end_turn"
        usage = {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        message = {"id": "msg_%02d" % number, "type": "message", "role": "assistant", "model": body["model"],
                   "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        if not body.get("stream"):
            return handler.answer(200, dict(message, content=blocks, stop_reason=stop))
        events = ([("message_start", {"message": message})] + events +
                  [("message_delta", {"delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": 5}}),
                   ("message_stop", {})])
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("connection", "close")
        handler.end_headers()
        for name, fields in events:
            handler.wfile.write(("event: %s\ndata: %s\n\n" % (name, json.dumps(dict(fields, type=name)))).encode())
            handler.wfile.flush()
            if name == "content_block_delta" and reply.get("pace"):
                time.sleep(reply["pace"])
        handler.close_connection = True


# --- the driver ---

class Claude:
    def __init__(self, cli, root, model, args=(), env=None, prompt_tool=True, keep=False):
        self.root, self.home, self.work = root, root + "/home", root + "/work"
        if not keep:
            shutil.rmtree(root, ignore_errors=True)
        os.makedirs(self.home, exist_ok=True)
        os.makedirs(self.work, exist_ok=True)
        argv = [cli, "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose",
                "--replay-user-messages"] + (["--permission-prompt-tool", "stdio"] if prompt_tool else []) + list(args)
        environ = {"PATH": "/usr/bin:/bin", "HOME": self.home, "CLAUDE_CONFIG_DIR": self.home + "/.claude", "LANG": "C.UTF-8",
                   "ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "sk-ant-made-up-0000000000000000", "IS_SANDBOX": "1",
                   "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CASTRA_RUN": RUN,
                   "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1", "CLAUDE_CODE_MAX_RETRIES": "2"}
        environ.update(env or {})
        self.process = subprocess.Popen(argv, cwd=self.work, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.sent, self.seen, self.errors = [], [], b""
        self.lines = queue.Queue()
        self.policy = lambda request: {"behavior": "allow", "updatedInput": request.get("input", {})}
        self.readers = [threading.Thread(target=self.read, daemon=True), threading.Thread(target=self.read_errors, daemon=True)]
        for reader in self.readers:
            reader.start()

    def read_errors(self):
        self.errors = self.process.stderr.read()

    def read(self):
        for line in self.process.stdout:
            self.seen.append(line)
            message = json.loads(line)
            if message["type"] == "control_request":
                answer = self.policy(message["request"])
                if answer is not None:
                    kind = "error" if isinstance(answer, str) else "success"
                    self.send({"type": "control_response", "response": {
                        "subtype": kind, "request_id": message["request_id"],
                        **({"error": answer} if isinstance(answer, str) else {"response": answer})}})
            self.lines.put(message)
        self.lines.put(None)

    def send(self, message):
        line = (json.dumps(message) + "\n").encode()
        self.sent.append(line)
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass

    def user(self, name, text, **more):
        self.send(dict({"type": "user", "message": {"role": "user", "content": text}, "parent_tool_use_id": None,
                        "session_id": "", "uuid": uid(name)}, **more))

    def control(self, subtype, wait=True, **fields):
        name = "r-%d-%s" % (len(self.sent), subtype)
        self.send({"type": "control_request", "request_id": name, "request": dict(fields, subtype=subtype)})
        if wait:
            return self.until(lambda m: m["type"] == "control_response" and m["response"]["request_id"] == name, name)

    def until(self, predicate, what, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            try:
                message = self.lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise SystemExit("%s: waited for %s; last lines:\n%s" % (self.root, what, b"".join(self.seen[-5:]).decode()[:3000]))
            if message is None:
                if what == "exit":
                    return None
                raise SystemExit("%s: exited while waiting for %s: %s" % (self.root, what, self.errors.decode()))
            if predicate(message):
                return message

    def result(self):
        self.until(lambda m: m["type"] == "result", "result")
        return self.until(lambda m: m.get("subtype") == "session_state_changed" and m["state"] == "idle", "idle")

    def initialize(self, **fields):
        self.send({"type": "control_request", "request_id": "castra-init-" + RUN, "request": dict(fields, subtype="initialize")})
        return self.until(lambda m: m["type"] == "control_response", "initialize")

    def close(self, kill=False):
        if kill:
            self.process.kill()
        else:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for reader in self.readers:
            reader.join(timeout=10)


SCENARIOS = {}


def scenario(replies, args=("--include-partial-messages",), env=None, initialize=None, kill=False, **options):
    def register(body):
        SCENARIOS[body.__name__] = (body, replies, list(args), env, initialize, kill, options)
        return body
    return register


def say(text, **more):
    return dict({"blocks": [{"text": text}]}, **more)


def call(tool, **arguments):
    return {"blocks": [{"text": "I will use a tool."}, {"tool": tool, "input": arguments}]}


def calls_tool(message):
    """Commands such as `sleep` run without a question."""
    return message["type"] == "assistant" and any(b["type"] == "tool_use" for b in message["message"]["content"])


def touch(name):
    return call("Bash", command="touch " + name, description="make a file")


@scenario([say("Hello there. How are you?")])
def hello(c):
    c.user("hello", "hello")
    c.result()


@scenario([touch("a.txt"), say("Done.")])
def tool_allow(c):
    c.user("tool_allow", "touch a.txt")
    c.result()


@scenario([touch("a.txt"), say("Then not.")])
def tool_deny(c):
    c.policy = lambda r: {"behavior": "deny", "message": "no way"}
    c.user("tool_deny", "touch a.txt")
    c.result()


@scenario([touch("a.txt")])
def tool_deny_interrupt(c):
    c.policy = lambda r: {"behavior": "deny", "message": "stop it", "interrupt": True}
    c.user("tool_deny_interrupt", "touch a.txt")
    c.result()


@scenario([touch("a.txt"), touch("a.txt"), say("Done.")])
def tool_remember(c):
    c.policy = lambda r: {"behavior": "allow", "updatedInput": r["input"], "updatedPermissions": [
        s for s in r["permission_suggestions"] if s["type"] == "setMode"]}
    c.user("tool_remember", "touch a.txt twice")
    c.result()


QUESTION = {"question": "Which?", "header": "Choice", "multiSelect": False,
            "options": [{"label": "A", "description": "the first"}, {"label": "B", "description": "the second"}]}


@scenario([call("AskUserQuestion", questions=[QUESTION]), say("B it is.")])
def question(c):
    c.policy = lambda r: {"behavior": "allow", "updatedInput": dict(r["input"], answers={"Which?": "B"})}
    c.user("question", "ask me")
    c.result()


@scenario([call("ExitPlanMode", plan="1. Do it."), say("On it.")], args=["--permission-mode=plan"])
def plan(c):
    c.user("plan", "plan it")
    c.result()


@scenario([{"blocks": [{"text": "Both."}, {"tool": "Bash", "input": {"command": "touch a.txt"}},
                       {"tool": "Bash", "input": {"command": "touch b.txt"}}]}, say("Both done.")])
def parallel(c):
    c.user("parallel", "touch two")
    c.result()


@scenario([say(" ".join("word%d" % i for i in range(200)), pace=0.05), say("Still here.")])
def interrupt_stream(c):
    c.user("interrupt_stream", "count")
    for _ in range(10):
        c.until(lambda m: m["type"] == "stream_event", "a delta")
    c.control("interrupt")
    c.result()
    c.user("interrupt_stream_2", "still there?")
    c.result()


@scenario([call("Bash", command="tail -f /dev/null")])
def interrupt_tool(c):
    c.user("interrupt_tool", "sleep")
    c.until(calls_tool, "tool")
    time.sleep(1)
    c.control("interrupt")
    c.result()


@scenario([touch("a.txt")])
def interrupt_ask(c):
    c.policy = lambda r: None
    c.user("interrupt_ask", "touch a.txt")
    c.until(lambda m: m["type"] == "control_request", "ask")
    c.control("interrupt", wait=False)
    c.result()


@scenario([say("one two three four five six", pace=0.2), say("Both answered.")])
def queued(c):
    c.user("queued_1", "first")
    c.until(lambda m: m["type"] == "stream_event", "a delta")
    c.user("queued_2", "second")
    c.user("queued_3", "third")
    c.user("queued_4", "withdrawn")
    c.control("cancel_async_message", message_uuid=uid("queued_4"))
    c.until(lambda m: m["type"] == "result", "the first result")
    c.result()


@scenario([call("Bash", command="sleep 2"), say("Seen your note.")])
def joined(c):
    c.user("joined_1", "sleep a little")
    c.until(calls_tool, "tool")
    time.sleep(0.7)
    c.user("joined_2", "a note for the turn")
    c.result()


@scenario([say("Before."), say("After.")], args=[])
def clear(c):
    c.user("clear_1", "hello")
    c.result()
    c.user("clear_2", "/clear")
    c.result()
    c.user("clear_3", "hello again")
    c.result()


@scenario([say("A long story."), say("Another story."), say("A third one.")], args=[])
def compact(c):
    for name in ("compact_1", "compact_1b", "compact_1c"):
        c.user(name, "tell me a story")
        c.result()
    c.user("compact_2", "/compact")
    c.result()


@scenario([], args=[])
def slash(c):
    c.user("slash_1", "/nosuch")
    c.result()
    c.user("slash_2", "/cost")
    c.result()


@scenario([{"status": 400}] * 40, args=[])
def error_400(c):
    c.user("error_400", "hello")
    c.result()


@scenario([{"status": 401}] * 4, args=[], env={"CLAUDE_CODE_MAX_RETRIES": "1"})
def error_401(c):
    c.user("error_401", "hello")
    c.result()


@scenario([{"status": 429}, say("After the limit.")], args=[])
def error_429(c):
    c.user("error_429", "hello")
    c.result()


@scenario([{"status": 529}] * 8, args=[], env={"CLAUDE_CODE_MAX_RETRIES": "1"})
def error_529(c):
    c.user("error_529", "hello")
    c.result()


@scenario([{"blocks": [{"thinking": "Let me think."}, {"text": "I thought."}]}])
def thinking(c):
    c.user("thinking", "think")
    c.result()


HOOK = '{"hooks":{"PreToolUse":[{"matcher":"Bash","hooks":[{"type":"command","command":"echo seen"}]}]}}'


@scenario([touch("a.txt"), say("Done.")], args=["--include-hook-events", "--settings=" + HOOK],
          initialize={"hooks": {"PreToolUse": [{"matcher": "Bash", "hookCallbackIds": ["h0"], "timeout": 5}],
                                "Stop": [{"hookCallbackIds": ["h1"], "timeout": 5}]}})
def hooks(c):
    def policy(r):
        if r["subtype"] == "hook_callback":
            return {} if r["callback_id"] == "h1" else {"hookSpecificOutput": {
                "hookEventName": "PreToolUse", "permissionDecision": "allow"}}
        return {"behavior": "allow", "updatedInput": r.get("input", {})}
    c.policy = policy
    c.user("hooks", "touch a.txt")
    c.result()


@scenario([call("mcp__x__echo", text="hi"), say("Echoed.")],
          args=['--mcp-config={"mcpServers":{"x":{"type":"sdk","name":"x"}}}'], initialize={"sdkMcpServers": ["x"]})
def sdk_mcp(c):
    def policy(r):
        if r["subtype"] == "elicitation":
            return {"action": "accept", "content": {"name": "Ada"}}
        if r["subtype"] != "mcp_message":
            return {"behavior": "allow", "updatedInput": r.get("input", {})}
        message = r["message"]
        if "id" not in message:
            return {"mcp_response": {"jsonrpc": "2.0", "result": {}}}
        if message.get("method") == "tools/call":
            c.control("mcp_message", wait=False, server_name="x", message={
                "jsonrpc": "2.0", "id": 77, "method": "elicitation/create", "params": {
                    "message": "Your name?", "requestedSchema": {
                        "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}}})
        result = {"initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                                 "serverInfo": {"name": "x", "version": "1"}},
                  "tools/list": {"tools": [{"name": "echo", "description": "echoes", "inputSchema": {
                      "type": "object", "properties": {"text": {"type": "string"}}}}]},
                  "tools/call": {"content": [{"type": "text", "text": "hi"}]}}.get(message.get("method"), {})
        return {"mcp_response": {"jsonrpc": "2.0", "id": message["id"], "result": result}}
    c.policy = policy
    c.user("sdk_mcp", "echo hi")
    c.result()


@scenario([call("Bash", command="sleep 1; echo over", run_in_background=True), say("Started."), say("It is over.")], args=[])
def background(c):
    c.user("background", "in the background")
    c.result()
    c.until(lambda m: m.get("subtype") == "task_notification", "task_notification")
    c.result()


@scenario([call("Agent", description="look", prompt="look around", subagent_type="general-purpose"),
           call("Bash", command="echo inside"), say("Looked around."), say("The agent looked around.")])
def subagent(c):
    c.user("subagent", "use an agent")
    c.result()


@scenario([say("A title."), say("Hi.")], args=["--allow-dangerously-skip-permissions"])
def controls(c):
    c.user("controls", "hello")
    c.result()
    for subtype, fields in [
        ("set_model", {"model": "sonnet"}), ("set_permission_mode", {"mode": "acceptEdits"}),
        ("set_permission_mode", {"mode": "bypassPermissions"}), ("set_permission_mode", {"mode": "default"}),
        ("set_max_thinking_tokens", {"max_thinking_tokens": 2000}),
        ("apply_flag_settings", {"settings": {"effortLevel": "low"}}), ("get_settings", {}), ("get_context_usage", {}),
        ("get_session_cost", {}), ("get_usage", {}), ("get_binary_version", {}), ("mcp_status", {}),
        ("mcp_set_servers", {"servers": {}}), ("mcp_reconnect", {"serverName": "none"}),
        ("mcp_toggle", {"serverName": "none", "enabled": False}), ("mcp_call", {"tool": "mcp__none__x", "arguments": {}}),
        ("rewind_files", {"user_message_id": uid("controls"), "dry_run": True}),
        ("cancel_async_message", {"message_uuid": uid("nothing")}), ("stop_task", {"task_id": "none"}),
        ("background_tasks", {}), ("generate_session_title", {"description": "hello", "persist": False}),
        ("rename_session", {"title": "renamed"}), ("reload_plugins", {}), ("reload_skills", {}),
        ("file_suggestions", {"query": "a"}), ("read_file", {"path": "none.txt"}), ("message_rated", {"message_uuid": uid("x"), "sentiment": "positive"}),
        ("side_question", {"question": "what?"}), ("set_color", {"color": "red"}), ("bogus_subtype", {}), ("interrupt", {}),
    ]:
        c.control(subtype, **fields)
    c.send({"type": "update_environment_variables", "variables": {"CLAUDE_CODE_OAUTH_TOKEN": "made-up"}, "request_id": "u1"})
    c.initialize()


@scenario([call("StructuredOutput", colour="red"), say("Red.")], args=[], initialize={"jsonSchema": {
    "type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}})
def schema(c):
    c.user("schema", "which colour")
    c.result()


@scenario([touch("a.txt"), touch("b.txt"), touch("c.txt")], args=["--max-turns=1"])
def max_turns(c):
    c.user("max_turns", "touch")
    c.result()


@scenario([touch("a.txt"), say("I may not.")], args=["--permission-mode=dontAsk"])
def dont_ask(c):
    c.user("dont_ask", "touch")
    c.result()


@scenario([say(" ".join("word%d" % i for i in range(200)), pace=0.05)])
def end_session(c):
    c.user("end_session", "count")
    for _ in range(10):
        c.until(lambda m: m["type"] == "stream_event", "a delta")
    c.control("end_session", wait=False, reason="stopped")
    c.until(lambda m: False, "exit")


@scenario([], args=["--resume=00000000-0000-4000-8000-000000000000"], env={"ANTHROPIC_API_KEY": ""}, initialize=False)
def no_such_session(c):
    c.until(lambda m: False, "exit")


@scenario([], args=[], env={"ANTHROPIC_API_KEY": ""})
def not_logged_in(c):
    c.user("not_logged_in", "hello")
    c.result()


@scenario([say("Error: that is what the log said.")], args=[])
def text_error(c):
    c.user("text_error", "what did the log say")
    c.result()


@scenario([call("Bash", command="tail -f /dev/null")], kill=True)
def killed_in_tool(c):
    c.user("killed_in_tool", "sleep")
    c.until(calls_tool, "tool")
    time.sleep(1.5)


@scenario([say(" ".join("word%d" % i for i in range(200)), pace=0.05)], kill=True)
def killed_in_stream(c):
    c.user("killed_in_stream", "count")
    for _ in range(20):
        c.until(lambda m: m["type"] == "stream_event", "a delta")
    time.sleep(0.5)


@scenario([say("Spoken as told.")], args=[], initialize={
    "systemPrompt": ["You are a corpus."], "appendSystemPrompt": "Append me.", "title": "a title",
    "agents": {"finder": {"description": "finds", "prompt": "find"}}, "forwardSubagentText": True, "skills": []})
def initialized(c):
    c.user("initialized", "hello")
    c.result()


def main():
    cli, out, names = sys.argv[1], sys.argv[2], sys.argv[3:] or list(SCENARIOS)
    version = subprocess.run([cli, "--version"], env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}, capture_output=True,
                             text=True).stdout.split()[0]
    os.makedirs(out + "/transcripts", exist_ok=True)
    for name in names:
        body, replies, args, env, initialize, kill, options = SCENARIOS[name]
        model = Model()
        model.replies = [json.loads(json.dumps(r)) for r in replies]
        root = "/tmp/castra-corpus/%s/%s" % (version, name)
        session = ["--session-id=" + uid(version + name)] if not any(a.startswith("--resume") for a in args) else []
        claude = Claude(cli, root, model, args + session, env, **options)
        try:
            if initialize is not False:
                claude.initialize(**(initialize or {}))
            body(claude)
            claude.close(kill)
        except SystemExit as error:
            print("FAILED", name, error, file=sys.stderr)
            claude.close(kill=True)
        base = "%s/%s" % (out, name)
        open(base + ".in.jsonl", "wb").writelines(claude.sent)
        open(base + ".out.jsonl", "wb").writelines(claude.seen)
        if claude.errors:
            open(base + ".err.txt", "wb").write(claude.errors)
        projects = claude.home + "/.claude/projects"
        for folder, _, files in os.walk(projects):
            for file in files:
                if file == uid(version + name) + ".jsonl":
                    shutil.copyfile(folder + "/" + file, "%s/transcripts/%s.jsonl" % (out, name))
        with open(root + "/requests.jsonl", "w") as requests:
            requests.writelines(json.dumps(body) + "\n" for body in model.calls)
        model.server.shutdown()
        print(version, name, len(claude.seen), "lines", claude.process.returncode, flush=True)


if __name__ == "__main__":
    main()
