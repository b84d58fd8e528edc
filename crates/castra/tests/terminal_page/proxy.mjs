// ttyd's own page in front of castra, as a proxy puts it there: the page is ttyd's, everything else castra's, with a
// token that the browser never sees. Prints its port; ends with its stdin.
//
// PAGE: ttyd's index.html; DAEMON: HOST:PORT; TOKEN.

import { readFileSync } from "node:fs";
import http from "node:http";

const page = readFileSync(process.env.PAGE);
const daemon = process.env.DAEMON;
const [host, port] = daemon.split(":");

/** A request as the proxy passes it on: in its own name. Whose page it came from is for the proxy to check. */
const passed = (request) => ({
  host,
  port,
  method: request.method,
  path: request.url,
  headers: {
    ...request.headers,
    host: daemon,
    origin: `http://${daemon}`,
    authorization: `Bearer ${process.env.TOKEN}`,
  },
});

const server = http.createServer((request, response) => {
  if (/\/terminal\/(\?|$)/.test(request.url)) {
    response.writeHead(200, { "content-type": "text/html" }).end(page);
    return;
  }
  const out = http.request(passed(request), (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  out.on("error", () => response.writeHead(502).end());
  request.pipe(out);
});

server.on("upgrade", (request, socket) => {
  const out = http.request(passed(request));
  out.on("upgrade", (answer, other) => {
    const headers = Object.entries(answer.headers).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.write(`HTTP/1.1 101 Switching Protocols\r\n${headers.join("")}\r\n`);
    socket.pipe(other).pipe(socket);
    for (const end of [socket, other]) end.on("error", () => (socket.destroy(), other.destroy()));
  });
  out.on("response", () => socket.destroy());
  out.on("error", () => socket.destroy());
  out.end();
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.resume().on("end", () => process.exit());
