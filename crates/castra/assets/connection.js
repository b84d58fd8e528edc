//! The WebSocket of one terminal: ttyd's messages, and coming back by itself. Refuses to draw.
//!
//! docs/api.md has the messages. A daemon that was killed is waited for; a session that has ended is looked at now
//! and then, since it may be resumed.

import { get, Refused } from "./sign-in.js";

const PROTOCOLS = ["castra.tty", "tty"];
const PIECE = 64 * 1024;
const SHORTEST = 250;
const LONGEST = 5000;
const LOOK = 5000;
/** Bytes that the terminal has not drawn yet: more is not asked for, less is. */
const HIGH = 1024 * 1024;
const LOW = 256 * 1024;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class Connection {
  #base;
  #query;
  #to;
  #socket = null;
  #timer = 0;
  #failures = 0;
  #undrawn = 0;
  #paused = false;

  /**
   * @param base the terminal's path, without a slash at its end
   * @param to `{output(bytes, drawn), title(text), size({columns, rows, writable}), state(name, refused), window()}`
   */
  constructor(base, query, to) {
    this.#base = base;
    this.#query = query;
    this.#to = to;
  }

  /** Connects now, whatever it was waiting for. */
  async open() {
    clearTimeout(this.#timer);
    if (this.#socket) return;
    const socket = (this.#socket = {}); // A place holder: nobody opens a second one meanwhile.
    this.#to.state("connecting");
    try {
      const { token } = await get(`${this.#base}/token`);
      this.#join(token);
    } catch (error) {
      if (this.#socket === socket) this.#socket = null;
      const final = error instanceof Refused && error.status < 500 && error.status !== 429;
      if (final) this.#to.state("refused", error);
      else this.#later();
    }
  }

  #join(token) {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${this.#base}/ws${this.#query}`, PROTOCOLS);
    this.#socket = socket;
    this.#undrawn = 0;
    this.#paused = false;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(encoder.encode(JSON.stringify({ AuthToken: token, ...this.#to.window() })));
    socket.onmessage = ({ data }) => this.#receive(socket, new Uint8Array(data));
    socket.onclose = ({ code }) => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      if (code === 1000) this.#over();
      else this.#later();
    };
  }

  #receive(socket, message) {
    this.#failures = 0;
    const content = message.subarray(1);
    switch (String.fromCharCode(message[0])) {
      case "0":
        this.#undrawn += content.length;
        this.#to.output(content, () => this.#drawn(socket, content.length));
        if (!this.#paused && this.#undrawn > HIGH) this.#pause(socket, true);
        this.#to.state("open");
        break;
      case "1":
        this.#to.title(decoder.decode(content));
        break;
      case "3":
        this.#to.size(JSON.parse(decoder.decode(content)));
        break;
    }
  }

  #drawn(socket, bytes) {
    if (this.#socket !== socket) return;
    this.#undrawn -= bytes;
    if (this.#paused && this.#undrawn < LOW) this.#pause(socket, false);
  }

  #pause(socket, paused) {
    this.#paused = paused;
    if (socket.readyState === WebSocket.OPEN) socket.send(encoder.encode(paused ? "2" : "3"));
  }

  #later() {
    const wait = Math.min(SHORTEST * 2 ** this.#failures++, LONGEST) * (0.75 + Math.random() / 2);
    this.#to.state("away");
    this.#timer = setTimeout(() => this.open(), wait);
  }

  #over() {
    this.#to.state("over");
    const look = async () => {
      const session = document.hidden ? null : await get(this.#base.replace(/\/terminal$/, "")).catch(() => null);
      if (session && session.state !== "ended" && session.state !== "lost") this.open();
      else this.#timer = setTimeout(look, LOOK);
    };
    this.#timer = setTimeout(look, LOOK);
  }

  /** Types text, or bytes. */
  type(keys) {
    const bytes = typeof keys === "string" ? encoder.encode(keys) : keys;
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    for (let from = 0; from < bytes.length; from += PIECE) {
      const piece = bytes.subarray(from, from + PIECE);
      const message = new Uint8Array(piece.length + 1);
      message[0] = 0x30;
      message.set(piece, 1);
      this.#socket.send(message);
    }
  }

  resize(window) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(encoder.encode("1" + JSON.stringify(window)));
  }
}
