#!/usr/bin/env python3
"""Records terminal sessions: the real CLI in a PTY, against `castra model serve` on loopback.

    record_tui.py CLAUDE CASTRA OUT_DIR [SCENARIO ...]

CLAUDE is a Claude Code executable, CASTRA the castra binary whose scripted model answers (tui.toml). OUT_DIR gets
<scenario>.jsonl, the timeline of the run as a shim would log it, one object a line, with "at" in seconds:

    {"file": NAME, "offset": N, "text": ...}   bytes appended to a transcript
    {"state": {...}}                           a new content of sessions/<pid>.json
    {"title": ...}, {"notify": ...}            OSC 0 and OSC 9
    {"typed": ...}                             what was written to the terminal, and why
    {"screen": NAME}                           the moment of <scenario>.NAME.txt
    {"run": ARGS}                              claude was ended, and started again over the same files

and <scenario>.<name>.txt, screens as text with trailing blanks cut off, after a first line with the window's title.
Needs pyte. The CLI runs with an empty environment, a HOME of its own and a made-up key; nothing leaves 127.0.0.1.
"""
import codecs, fcntl, glob, json, os, pty, re, select, shutil, signal, struct, subprocess, sys, termios, threading, time, uuid
import pyte

HERE = os.path.dirname(os.path.abspath(__file__))
NAMESPACE = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
RUN = "01928f6e-7b5a-7000-8000-000000000001"
KEY = "sk-ant-made-up-0000000000000000"
OSC = re.compile(rb"\x1b\](\d+);(.*?)(?:\x07|\x1b\\)", re.S)


def uid(name):
    return str(uuid.uuid5(NAMESPACE, name))


class Model:
    def __init__(self, castra, root):
        env = {"PATH": "/usr/bin:/bin", "HOME": root + "/model", "CASTRA_HOME": root + "/model"}
        os.makedirs(root + "/model", exist_ok=True)
        self.process = subprocess.Popen([castra, "model", "serve", "--json", "--no-daemon-start", "--script", HERE + "/tui.toml"],
                                        env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        line = self.process.stdout.readline().decode()
        self.url = re.search(r"http://[\d.:]+", line).group(0)

    def close(self):
        self.process.terminate()
        self.process.wait()


class Tui:
    """One claude in a terminal of 100 x 30."""

    def __init__(self, cli, root, url, args=(), env=None, settled=True, mode="default", size=(100, 30), keep=False, scratch=True):
        self.root, self.home, self.work = root, root + "/home", root + "/work"
        if not keep:
            for part in ("home", "work"):
                shutil.rmtree(root + "/" + part, ignore_errors=True)
        self.config = self.home + "/.claude"
        os.makedirs(self.config, exist_ok=True)
        os.makedirs(self.work, exist_ok=True)
        if settled and not keep:
            self.settle()
        environ = {"PATH": "/usr/bin:/bin", "HOME": self.home, "CLAUDE_CONFIG_DIR": self.config, "LANG": "C.UTF-8",
                   "TERM": "xterm-256color", "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY, "IS_SANDBOX": "1",
                   "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CASTRA_RUN": RUN,
                   "CLAUDE_CODE_MAX_RETRIES": "1"}
        environ.update(env or {})
        self.log, self.lock, self.epoch = [], threading.Lock(), time.monotonic()
        self.offsets, self.states, self.busy = {}, {}, 0
        self.cli, self.mode, self.environ, self.size = cli, mode, environ, size
        self.spawn(args)

    def spawn(self, args):
        size = self.size
        self.raw = bytearray()
        self.screen = pyte.HistoryScreen(*size, history=1000)
        self.stream = pyte.Stream(self.screen)
        self.decoder = codecs.getincrementaldecoder("utf8")("replace")
        self.title, self.seen_osc = "", 0
        self.last_output = time.monotonic()
        argv = [self.cli] + ([] if self.mode is None else ["--permission-mode=" + self.mode]) + list(args)
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
            os.chdir(self.work)
            os.execve(self.cli, argv, self.environ)
        self.started = time.monotonic()
        self.over = threading.Event()
        self.exit = None
        for target in (self.read, self.tail):
            threading.Thread(target=target, daemon=True).start()

    def settle(self):
        work = os.path.realpath(self.work)
        with open(self.config + "/.claude.json", "w") as file:
            json.dump({"hasCompletedOnboarding": True, "bypassPermissionsModeAccepted": True,
                       "projects": {work: {"hasTrustDialogAccepted": True}},
                       "customApiKeyResponses": {"approved": [KEY[-20:]]}}, file)
        with open(self.config + "/settings.json", "w") as file:
            json.dump({"skipDangerousModePermissionPrompt": True}, file)

    # --- what it says ---

    def note(self, **entry):
        with self.lock:
            self.log.append(dict(at=round(time.monotonic() - self.epoch, 3), **entry))

    def read(self):
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                data = b""
            if not data:
                break
            with self.lock:
                self.raw += data
                self.last_output = time.monotonic()
                self.stream.feed(self.decoder.decode(data))
            for match in OSC.finditer(self.raw, self.seen_osc):
                self.seen_osc = match.end()
                kind, text = match.group(1), match.group(2).decode("utf8", "replace")
                if kind == b"0" and text != self.title:
                    self.title = text
                    self.note(title=text)
                elif kind == b"9":
                    self.note(notify=text)
        _, self.exit = os.waitpid(self.pid, 0)
        self.over.set()

    def tail(self):
        last = False
        while True:
            last = self.over.is_set()
            self.look()
            if last:
                return
            time.sleep(0.002)

    def look(self):
        for path in sorted(glob.glob(self.config + "/projects/*/**/*.jsonl", recursive=True)):
            name = path.split("/projects/", 1)[1].split("/", 1)[1]
            at = self.offsets.get(name, 0)
            if os.path.getsize(path) > at:
                with open(path, "rb") as file:
                    file.seek(at)
                    data = file.read()
                self.offsets[name] = at + len(data)
                self.note(file=name, offset=at, text=data.decode("utf8", "surrogateescape"))
        for path in glob.glob(self.config + "/sessions/*.json"):
            try:
                with open(path) as file:
                    state = json.load(file)
            except (OSError, ValueError):
                continue
            if self.states.get(path) != state:
                self.states[path] = state
                self.note(state=state)

    def rows(self):
        with self.lock:
            return [line.rstrip() for line in self.screen.display]

    def text(self):
        return "\n".join(self.rows()).strip("\n")

    def status(self):
        return next((state.get("status") for path, state in self.states.items() if path.endswith("/%d.json" % self.pid)), None)

    def records(self, main=True):
        """All records written so far, main file(s) only by default."""
        texts = {}
        with self.lock:
            for entry in self.log:
                if "file" in entry and ("/" not in entry["file"] or not main):
                    texts[entry["file"]] = texts.get(entry["file"], "") + entry["text"]
        return [json.loads(line) for text in texts.values() for line in text.split("\n") if line]

    def turns(self):
        return sum(record.get("subtype") == "turn_duration" for record in self.records())

    def users(self):
        return [record for record in self.records() if record["type"] == "user"]

    # --- waiting ---

    def until(self, predicate, what, seconds=30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if predicate():
                return True
            if self.over.is_set():
                raise RuntimeError("%s: exited (%s) while waiting for %s:\n%s" % (self.root, self.exit, what, self.text()))
            time.sleep(0.005)
        raise RuntimeError("%s: waited for %s; the screen:\n%s\n%s" % (self.root, what, self.text(), self.log[-5:]))

    def shows(self, text, seconds=30):
        return self.until(lambda: text in "\n".join(self.rows()), text, seconds)

    def quiet(self, seconds=0.4, limit=20):
        return self.until(lambda: time.monotonic() - self.last_output >= seconds, "silence", limit)

    def ready(self):
        self.until(lambda: self.status() == "idle", "idle in the state file")
        self.quiet()

    # --- what it is told ---

    def write(self, data, why):
        self.last_output = time.monotonic()
        self.note(typed=data.decode("utf8", "replace") if len(data) < 400 else "%d bytes" % len(data), why=why)
        while data:
            _, ready, _ = select.select([], [self.master], [], 10)
            data = data[os.write(self.master, data[:4096]):]

    def paste(self, text):
        self.write(b"\x1b[200~" + text.encode() + b"\x1b[201~", "paste")

    def enter(self):
        self.write(b"\r", "enter")

    def key(self, data, why):
        self.write(data, why)

    def submit(self):
        """Enter; again only where the composer still holds the text after a while: an Enter that was merely slow would
        answer the dialog that came of the first."""
        before = len(self.users()), self.busy
        for attempt in range(4):
            self.enter()
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:
                if (len(self.users()), self.busy) != before:
                    return attempt
                time.sleep(0.02)
            rows = [row for row in self.rows() if row.startswith("\u276f")]
            if not rows or len(rows[-1].strip()) < 3 or self.status() == "waiting":
                return attempt
        raise RuntimeError("%s: nothing took Enter:\n%s" % (self.root, self.text()))

    def say(self, text, wait=True):
        self.paste(text)
        self.quiet(0.15)
        self.submit()
        if wait:
            self.rest()

    def rest(self, seconds=60):
        """The turn is over and all of it is on disk."""
        self.until(lambda: self.status() == "idle", "idle", seconds)
        self.quiet(0.6)
        self.until(lambda: self.status() == "idle", "idle", seconds)

    def capture(self, name):
        self.quiet(0.3)
        self.note(screen=name)
        if os.environ.get("RAW"):
            open("%s/%s.%s.raw" % (os.environ["RAW"], os.path.basename(self.root), name), "wb").write(self.raw)
        return self.title + "\n" + self.text() + "\n"

    def capture_now(self, name):
        """While it is busy it is never quiet."""
        self.note(screen=name)
        return self.title + "\n" + self.text() + "\n"

    def again(self, *args, kill=False):
        """Another process over the same files; the timeline goes on."""
        self.close(kill)
        self.note(run=list(args), killed=kill)
        self.spawn(args)
        self.ready()

    def resize(self, columns, rows):
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self, kill=False):
        if not self.over.is_set():
            os.kill(self.pid, signal.SIGKILL if kill else signal.SIGTERM)
        if not self.over.wait(10):
            os.kill(self.pid, signal.SIGKILL)
            self.over.wait(5)
        time.sleep(0.02)
        self.look()
        try:
            os.close(self.master)
        except OSError:
            pass


# claude's own bookkeeping of requests and prompts: nine tenths of the bytes, and none of ours.
SLIM = {"api-request", "api-request-blob", "api-request-shape"}
KEPT = {"type", "uuid", "parentUuid", "isSidechain", "agentId", "sessionId", "timestamp", "version"}


def slim(log):
    """The timeline without the bodies that nothing here reads; offsets follow."""
    offsets = {}
    for entry in log:
        if "state" in entry:
            for name in ("pidDomain", "messagingSocketPath", "procStart", "peerFeatures"):
                entry["state"].pop(name, None)
        if "file" not in entry:
            continue
        lines = entry["text"].split("\n")
        for index, line in enumerate(lines[:-1]):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            kind = (record.get("attachment") or {}).get("type")
            if record.get("type") in SLIM or (kind and kind != "queued_command"):
                small = {name: value for name, value in record.items() if name in KEPT}
                lines[index] = json.dumps(dict(small, **({"attachment": {"type": kind}} if kind else {})), separators=(",", ":"))
        entry["text"] = "\n".join(lines)
        entry["offset"] = offsets.get(entry["file"], 0)
        offsets[entry["file"]] = entry["offset"] + len(entry["text"].encode("utf8", "surrogateescape"))
    return log


SCENARIOS = {}


def scenario(args=(), env=None, mode="default", **options):
    def register(body):
        SCENARIOS[body.__name__] = (body, list(args), env, mode, options)
        return body
    return register


DOWN, ESC, SHIFT_TAB = b"\x1b[B", b"\x1b", b"\x1b[Z"


def waits(t):
    t.until(lambda: t.status() == "waiting", "a dialog")
    t.quiet(0.4)


def idle(t):
    t.until(lambda: t.status() == "idle", "idle")
    t.quiet(0.5)


@scenario()
def plain(t):
    t.screens["prompt"] = t.capture("prompt")
    t.say("tell a story")
    t.screens["answered"] = t.capture("answered")
    t.say("another prompt")


@scenario()
def tool_allow(t):
    t.say("make the file a.txt", wait=False)
    waits(t)
    t.screens["dialog"] = t.capture("dialog")
    t.key(b"1", "allow once")
    t.rest()


@scenario()
def tool_deny(t):
    t.say("make the file a.txt", wait=False)
    waits(t)
    t.key(ESC, "deny")
    idle(t)
    t.screens["denied"] = t.capture("denied")
    t.say("go on")


@scenario()
def tool_deny_message(t):
    t.say("make the file a.txt", wait=False)
    waits(t)
    rows = t.rows()
    number = next(re.search(r"(\d)\. No", row).group(1) for row in rows if re.search(r"\d\. No", row))
    for _ in range(int(number) - 1):
        t.key(DOWN, "down")
        t.quiet(0.15)
    t.key(b"\t", "amend")
    t.quiet(0.3)
    t.screens["amend"] = t.capture("amend")
    t.paste("use another name")
    t.quiet(0.3)
    t.screens["amended"] = t.capture("amended")
    t.enter()
    t.rest()


@scenario()
def tool_write(t):
    t.say("write the file a.txt", wait=False)
    waits(t)
    t.screens["dialog"] = t.capture("dialog")
    t.enter()
    t.rest()


@scenario()
def two_tools(t):
    t.say("make both files", wait=False)
    waits(t)
    time.sleep(1)
    t.key(b"1", "allow a")
    t.until(lambda: any(re.match(r"\s+(touch b.txt|Make b)$", row) for row in t.rows()), "the dialog of b")
    waits(t)
    t.screens["dialog"] = t.capture("dialog")
    t.key(b"1", "allow b")
    t.rest()


@scenario()
def esc_stream(t):
    t.say("count slowly", wait=False)
    t.shows("three")
    t.screens["busy"] = t.capture_now("busy")
    t.key(ESC, "interrupt")
    idle(t)
    t.screens["interrupted"] = t.capture("interrupted")
    t.say("tell a story")


@scenario()
def esc_early(t):
    t.say("take a moment", wait=False)
    t.until(lambda: t.status() == "busy", "busy")
    time.sleep(1)
    t.screens["busy"] = t.capture_now("busy")
    t.key(ESC, "interrupt")
    idle(t)
    t.screens["interrupted"] = t.capture("interrupted")
    t.key(b"\x15", "clear the composer")
    t.quiet(0.3)
    t.say("tell a story")


@scenario()
def esc_tool(t):
    t.say("sleep for 20", wait=False)
    t.until(lambda: any(b.get("type") == "tool_use" for r in t.records() if r["type"] == "assistant" for b in r["message"]["content"]), "the call")
    time.sleep(1.5)
    t.screens["busy"] = t.capture_now("busy")
    t.key(ESC, "interrupt")
    idle(t)
    t.screens["interrupted"] = t.capture("interrupted")
    t.say("tell a story")


@scenario()
def error_400(t):
    t.say("fail with 400")
    t.screens["error"] = t.capture("error")
    t.say("tell a story")


@scenario()
def error_529(t):
    t.say("fail with 529")
    t.say("tell a story")


@scenario()
def error_401(t):
    t.say("fail with 401")
    t.say("tell a story")


@scenario()
def refusal(t):
    t.say("refuse this")
    t.say("tell a story")


@scenario()
def max_tokens(t):
    t.say("run out of tokens")
    t.say("tell a story")


@scenario()
def thinking(t):
    t.say("think first")
    t.say("tell a story")


@scenario()
def queued(t):
    t.say("count slowly", wait=False)
    t.shows("two")
    for text in ("tell a story", "the third"):
        t.paste(text)
        time.sleep(0.4)
        t.enter()
        time.sleep(0.4)
    t.screens["queued"] = t.capture_now("queued")
    t.until(lambda: t.turns() >= 2, "the end", 60)
    t.rest()
    t.say("the last")


@scenario()
def joined(t):
    t.say("sleep for 4", wait=False)
    t.until(lambda: any(b.get("type") == "tool_use" for r in t.records() if r["type"] == "assistant" for b in r["message"]["content"]), "the call")
    time.sleep(1)
    t.paste("a note for the turn")
    time.sleep(0.4)
    t.enter()
    t.rest()
    t.say("the last")


@scenario()
def subagent(t):
    t.say("use an agent")
    t.say("tell a story")


@scenario()
def background(t):
    t.say("start it in the background")
    t.until(lambda: t.turns() == 2, "its own turn")
    t.rest()
    t.say("tell a story")


@scenario()
def clear(t):
    t.say("tell a story")
    t.paste("/clear")
    t.quiet(0.3)
    t.enter()
    t.quiet(0.8)
    t.screens["cleared"] = t.capture("cleared")
    t.say("another prompt")


@scenario()
def compact(t):
    for number in ("one", "two", "three"):
        t.say("story " + number)
    t.paste("/compact")
    t.quiet(0.3)
    t.enter()
    t.until(lambda: any(r.get("subtype") == "compact_boundary" for r in t.records()), "the boundary", 60)
    idle(t)
    t.say("tell a story")


@scenario()
def slash(t):
    for text in ("/cost", "/nosuch", "/model sonnet", "/context"):
        t.paste(text)
        t.quiet(0.3)
        t.enter()
        t.quiet(0.8)
        t.screens[text[1:].replace(" ", "_")] = t.capture(text[1:].replace(" ", "_"))
        t.key(ESC, "leave")
        t.quiet(0.8)
    t.say("tell a story")


@scenario()
def switch_model(t):
    t.say("tell a story")
    t.paste("/model haiku ")
    t.quiet(0.4)
    t.enter()
    t.until(lambda: t.status() == "waiting", "the question")
    t.screens["dialog"] = t.capture("dialog")
    time.sleep(1)
    row = next(row for row in t.rows() if row.strip().startswith("\u276f"))
    if "No" in row:
        t.key(b"\x1b[A", "up")
        time.sleep(0.5)
    t.enter()
    idle(t)
    t.screens["switched"] = t.capture("switched")
    t.say("another prompt")


@scenario()
def modes(t):
    for number in range(4):
        t.key(SHIFT_TAB, "shift+tab")
        t.quiet(0.5)
        t.screens["mode%d" % number] = t.capture("mode%d" % number)
    t.say("tell a story")


@scenario()
def shell(t):
    t.key(b"!", "shell mode")
    t.shows("! for shell mode")
    t.screens["mode"] = t.capture("mode")
    t.key(b"echo by hand", "command")
    t.quiet(0.3)
    t.enter()
    t.quiet(1)
    t.say("tell a story")


@scenario()
def question(t):
    t.say("ask me", wait=False)
    waits(t)
    t.screens["dialog"] = t.capture("dialog")
    t.key(b"2", "B")
    t.rest()


@scenario(mode="plan")
def plan(t):
    t.screens["prompt"] = t.capture("prompt")
    t.say("plan it", wait=False)
    waits(t)
    t.screens["dialog"] = t.capture("dialog")
    t.key(ESC, "no")
    idle(t)
    t.say("tell a story")


@scenario(mode="bypassPermissions")
def bypass(t):
    t.screens["prompt"] = t.capture("prompt")
    t.say("make the file a.txt")


@scenario()
def resume(t):
    t.say("tell a story")
    t.say("another prompt")
    t.again("--resume=" + uid("resume"))
    t.screens["resumed"] = t.capture("resumed")
    t.say("after the resume")
    t.again("--resume=" + uid("resume"), "--session-id=" + uid("resumed fork"), "--fork-session")
    t.say("after the fork")


@scenario()
def killed(t):
    t.say("tell a story")
    t.say("sleep for 20", wait=False)
    t.until(lambda: any(b.get("type") == "tool_use" for r in t.records() if r["type"] == "assistant" for b in r["message"]["content"]), "the call")
    time.sleep(0.5)
    t.again("--resume=" + uid("killed"), kill=True)
    t.say("after the kill")


@scenario()
def fifty(t):
    for number in range(50):
        t.say("prompt number %d" % number)


HAZARDS = ["!echo shell", "/clear", "/nosuch thing", "exit", "quit", "ends in \\", "a \x1b[201~ b", "tab\there", "  edges  ",
           "# remember this", "@nofile.txt and @a.txt", "wide 你好 emoji 👩‍👩‍👧 é", "one\ntwo\n\nthree",
           "\n".join("line %d" % n for n in range(200)), "x" * 200_000, "?", "&", ":q", "//", "crlf\r\nline"]


def main():
    cli, castra, out = sys.argv[1:4]
    names = sys.argv[4:] or list(SCENARIOS)
    version = subprocess.run([cli, "--version"], env={"HOME": "/nonexistent"}, capture_output=True, text=True).stdout.split()[0]
    os.makedirs(out, exist_ok=True)
    for name in names:
        body, args, env, mode, options = SCENARIOS[name]
        root = "/tmp/castra-corpus/tui/%s/%s" % (version, name)
        os.makedirs(root, exist_ok=True)
        model = Model(castra, root)
        t = Tui(cli, root, model.url, ["--session-id=" + uid(name)] + args, env, mode=mode, **options)
        t.screens = {}
        try:
            t.ready()
            body(t)
            t.quiet(0.3)
        except Exception as error:
            print(version, name, "FAILED", error)
        else:
            print(version, name, "ok", flush=True)
        t.close()
        model.close()
        with open(out + "/" + name + ".jsonl", "w", encoding="utf8", errors="surrogateescape") as file:
            for entry in slim(t.log):
                file.write(json.dumps(entry, ensure_ascii=True) + "\n")
        for screen, text in t.screens.items():
            with open("%s/%s.%s.txt" % (out, name, screen), "w") as file:
                file.write(text)


if __name__ == "__main__":
    main()
