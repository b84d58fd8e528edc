//! The keys that soft keyboards lack, as a row of buttons. Refuses to know where they go.

const arrow = (letter) => (application) => (application ? "\x1bO" : "\x1b[") + letter;

/** Label, name for those who cannot see it, and what is typed. */
const KEYS = [
  ["Esc", "Escape", () => "\x1b"],
  ["Tab", "Tab", () => "\t"],
  ["⇧Tab", "Shift and Tab", () => "\x1b[Z"],
  ["^C", "Control C", () => "\x03"],
  ["←", "Left", arrow("D")],
  ["↑", "Up", arrow("A")],
  ["↓", "Down", arrow("B")],
  ["→", "Right", arrow("C")],
  ["⏎", "Enter", () => "\r"],
];

/**
 * @param type is given what a key types
 * @param application whether the program asked for the other arrow keys (DECCKM)
 */
export function buildKeys(row, type, application) {
  for (const [label, name, keys] of KEYS) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.setAttribute("aria-label", name);
    // The terminal keeps the focus, and so the soft keyboard stays as it is.
    button.addEventListener("pointerdown", (event) => event.preventDefault());
    button.addEventListener("click", () => type(keys(application())));
    row.append(button);
  }
}
