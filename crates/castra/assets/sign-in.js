//! Who this browser is: exchanges a ticket for a cookie and keeps the page's half of the token. Refuses to show.
//!
//! The ticket comes in the fragment, which is sent nowhere, and leaves the address at once. The key is kept per
//! origin, port included, so that other tabs are signed in too; the cookie alone is worth nothing.

const KEY = "castra-key";

/** An answer that is no success, with what it says. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `the server answered ${status}`);
    this.status = status;
    this.hint = problem.hint ?? "";
  }
}

async function answer(response) {
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

/** Uses the ticket in the address, if there is one. */
export async function redeemTicket() {
  const ticket = new URLSearchParams(location.hash.slice(1)).get("ticket");
  if (!ticket) return;
  history.replaceState(null, "", location.pathname + location.search);
  const response = await fetch("/api/v1/sign-in", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ticket }),
  });
  localStorage.setItem(KEY, (await answer(response)).key);
}

/** A GET as this browser. Rejects with Refused, or as fetch does when there is no server. */
export async function get(path) {
  const key = localStorage.getItem(KEY);
  return answer(await fetch(path, { headers: key ? { [KEY]: key } : {}, cache: "no-store" }));
}

/** Calls back when another tab has signed in. */
export function onSignIn(callback) {
  addEventListener("storage", (event) => {
    if (event.key === KEY && event.newValue) callback();
  });
}
