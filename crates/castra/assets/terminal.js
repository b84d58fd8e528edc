//! The page of one terminal: puts its parts together. Refuses rules: who may type, the server says.

import { FitAddon } from "./addon-fit.mjs";
import { Terminal } from "./xterm.mjs";
import { Connection } from "./connection.js";
import { Fit } from "./fit.js";
import { buildKeys } from "./keys.js";
import { onSignIn, redeemTicket, Refused } from "./sign-in.js";

const at = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 600px)").matches;

const terminal = new Terminal({
  fontSize: narrow ? 11 : 14,
  fontFamily: 'ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
  theme: { background: "#16181d", foreground: "#d7dae0", cursor: "#e8a15d" },
  scrollback: 5000,
  disableStdin: true,
  macOptionIsMeta: true,
  linkHandler: { activate: (_, address) => follow(address) },
});
const addon = new FitAddon();
terminal.loadAddon(addon);
terminal.open(at("terminal"));
const fit = new Fit(terminal, addon);

// --- What the server says -------------------------------------------------------------------------------------

const WORDS = { connecting: "connecting …", open: "", away: "the daemon is away; waiting for it", over: "ended", refused: "" };
let name = "castra";
let spoken = "";

function showTitle() {
  const title = spoken ? `${spoken} | ${name}` : name;
  document.title = title;
  at("title").textContent = title;
}

function showState(state, refused) {
  if (document.body.dataset.state === state) return;
  document.body.dataset.state = state;
  at("state").textContent = WORDS[state];
  at("notice").hidden = state !== "over" && state !== "refused";
  if (state === "over") notice("The session has ended.", "It is joined again when somebody resumes it.");
  if (state === "refused" && refused.status === 401) {
    notice("This browser is not signed in.", "`castra open ID` prints a link that signs it in.");
  } else if (state === "refused") notice(refused.message, refused.hint);
}

function notice(what, hint) {
  at("what").textContent = what;
  at("hint").textContent = hint;
}

const connection = new Connection(location.pathname.replace(/\/+$/, ""), location.search, {
  output: (bytes, drawn) => terminal.write(bytes, drawn),
  title: (text) => {
    name = text;
    showTitle();
  },
  size: (size) => {
    terminal.options.disableStdin = !size.writable;
    at("badge").hidden = size.writable;
    at("keys").hidden = !size.writable || !(narrow || matchMedia("(pointer: coarse)").matches);
    fit.share(size);
  },
  state: showState,
  window: () => fit.window(),
});

// --- What the person does -------------------------------------------------------------------------------------

terminal.onData((keys) => connection.type(keys));
terminal.onBinary((keys) => connection.type(Uint8Array.from(keys, (key) => key.charCodeAt(0))));
terminal.onTitleChange((text) => {
  spoken = text;
  showTitle();
});
buildKeys(at("keys"), (keys) => terminal.input(keys), () => terminal.modes.applicationCursorKeysMode);

// An agent chose the address: the person sees it before going there, and it learns nothing of this page.
function follow(address) {
  const url = URL.canParse(address) && new URL(address);
  if (url && (url.protocol === "http:" || url.protocol === "https:") && confirm(`Open ${url.href}?`)) {
    open(url.href, "_blank", "noopener,noreferrer");
  }
}

// Pasted text is text: control characters would be keys, and lines without bracketed paste would each be entered.
at("terminal").addEventListener(
  "paste",
  (event) => {
    event.preventDefault();
    event.stopPropagation();
    const text = (event.clipboardData?.getData("text") ?? "").replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g, "");
    const plain = terminal.modes.bracketedPasteMode || !/[\r\n]/.test(text);
    if (text && !terminal.options.disableStdin && (plain || confirm("Paste several lines? Each is entered by itself."))) {
      terminal.paste(text);
    }
  },
  true,
);

// With a selection Ctrl-C copies, as in other terminals; without one it is the key.
terminal.attachCustomKeyEventHandler((event) => {
  const copies = event.type === "keydown" && event.ctrlKey && event.code === "KeyC" && terminal.hasSelection();
  if (!copies || !navigator.clipboard) return true;
  event.preventDefault();
  navigator.clipboard.writeText(terminal.getSelection()).then(() => terminal.clearSelection());
  return false;
});

let settling = 0;
new ResizeObserver(() => {
  clearTimeout(settling);
  settling = setTimeout(() => connection.resize(fit.window()), 100);
}).observe(at("window"));
// Where a soft keyboard covers the page instead of shrinking it.
visualViewport?.addEventListener("resize", () => {
  document.body.style.setProperty("--height", `${visualViewport.height}px`);
  scrollTo(0, 0);
});

// --- The start --------------------------------------------------------------------------------------------------

at("again").addEventListener("click", () => connection.open());
addEventListener("online", () => connection.open());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && document.body.dataset.state === "away") connection.open();
});
onSignIn(() => connection.open());

// A server that is not there is waited for by the connection.
const refused = await redeemTicket().then(() => null, (error) => error);
if (refused instanceof Refused) showState("refused", refused);
else connection.open();
terminal.focus();
