//! Sizes: how much fits into this window, and how the size that all viewers share is shown in it.
//!
//! What the session draws is drawn for one size, the least of its drivers' windows. A smaller one stands in the
//! corner; a larger one is drawn in smaller letters, down to what can be read, and panned from there.

const SMALLEST = 7;

export class Fit {
  #terminal;
  #addon;
  #letters;
  #shared = null;

  constructor(terminal, addon) {
    this.#terminal = terminal;
    this.#addon = addon;
    this.#letters = terminal.options.fontSize;
  }

  /** What fits into the window in letters of the usual size. */
  window() {
    this.#terminal.options.fontSize = this.#letters;
    const fits = this.#addon.proposeDimensions();
    const window = fits && fits.cols > 0 ? { columns: fits.cols, rows: fits.rows } : { columns: 0, rows: 0 };
    this.#show(window);
    return window;
  }

  /** The size that all share is this one from here on. */
  share({ columns, rows }) {
    this.#shared = { columns, rows };
    this.window();
  }

  #show(window) {
    const { columns, rows } = this.#shared ?? window;
    if (columns === 0) return;
    const part = Math.min(window.columns / columns, window.rows / rows);
    if (part > 0 && part < 1) {
      this.#terminal.options.fontSize = Math.max(SMALLEST, Math.floor(this.#letters * part * 2) / 2);
    }
    this.#terminal.resize(columns, rows);
  }
}
