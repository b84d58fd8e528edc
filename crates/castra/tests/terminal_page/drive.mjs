// Drives one Chromium for a test: each line of stdin is a function body over `page` and `context`, each line of stdout
// what it returned, or its error. Ends with its stdin.
//
// PLAYWRIGHT: the folder that has playwright-core; CHROMIUM: the browser; VIEW: playwright's options of a context.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { chromium } = createRequire(`${process.env.PLAYWRIGHT}/`)("playwright-core");
const Body = Object.getPrototypeOf(async () => {}).constructor;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const context = await browser.newContext(JSON.parse(process.env.VIEW));
const page = await context.newPage();
page.setDefaultTimeout(60_000);

// What went wrong in the page, for `seen`. That a server is away is no fault of the page's.
const seen = { faults: [], dialogs: [] };
const away = /ERR_CONNECTION_|WebSocket connection to|Failed to load resource/;
page.on("pageerror", (error) => seen.faults.push(String(error)));
page.on("console", (message) => {
  if (message.type() === "error" && !away.test(message.text())) seen.faults.push(message.text());
});
page.on("dialog", (dialog) => {
  seen.dialogs.push(dialog.message());
  dialog.dismiss();
});

// What the page last said of its window's size, in ttyd's words.
page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => {
  const text = String(payload);
  const window = /^1?\{/.test(text) && JSON.parse(text.replace(/^1/, ""));
  if (window?.columns) seen.window = { columns: window.columns, rows: window.rows };
}));

/** The rows of the terminal as they are drawn. */
const screen = () => page.locator(".xterm-rows").innerText();
const shows = (text) => page.waitForFunction(
  (text) => document.querySelector(".xterm-rows")?.innerText.replaceAll("\u00a0", " ").includes(text), text);
const state = (name) => page.waitForFunction((name) => document.body.dataset.state === name, name);

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const body = new Body("page", "context", "seen", "screen", "shows", "state", JSON.parse(line));
    answer = { value: (await body(page, context, seen, screen, shows, state)) ?? null };
  } catch (error) {
    answer = { error: `${error.stack ?? error}\n${JSON.stringify(seen)}\n${await screen().catch(String)}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
