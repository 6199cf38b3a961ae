// The ring as it works, state by state, for as long as the page is open.

import { Refused, ask, events } from "./server.js";

const SILENCE = 25_000; // the server says something every 10 seconds
const PAUSES = [500, 1000, 2000, 4000];

/**
 * Calls `told` with {status}, or with {why, key} while there is none to show. `key` is true where
 * the server wants another one; then it is not asked again by itself. Returns what begins anew at
 * once.
 */
export function watch(told) {
  let controller = new AbortController();
  let wake = () => {};
  let failures = 0;
  let anew = false; // it was ended here, to begin again

  const tell = (what) => {
    try {
      told(what);
    } catch (error) {
      reportError(error); // a fault of the page, and none of the feed
    }
  };

  async function read() {
    controller = new AbortController();
    const response = await ask("/ring/events", { signal: controller.signal });
    let timer;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => controller.abort(), SILENCE);
    };
    try {
      alive();
      for await (const { event, data } of events(heard(response, alive))) {
        failures = 0;
        const said = JSON.parse(data);
        if (event === "status") tell({ status: said });
        else if (event === "down") tell({ why: said.why });
      }
    } finally {
      clearTimeout(timer);
    }
    throw new Refused("The server has ended the feed; it is asked again.");
  }

  async function run() {
    for (;;) {
      anew = false;
      const key = await read().catch((error) => {
        if (anew) return false;
        const why = error instanceof Refused ? error.message : "The server is silent.";
        const key = error.status === 401;
        tell({ why, key });
        return key;
      });
      if (!anew) await pause(key ? Infinity : PAUSES[Math.min(failures++, PAUSES.length - 1)]);
    }
  }

  function pause(milliseconds) {
    return new Promise((resolve) => {
      wake = resolve;
      if (milliseconds < Infinity) setTimeout(resolve, milliseconds);
    });
  }

  run();
  return () => {
    failures = 0;
    anew = true;
    controller.abort();
    wake();
  };
}

/** The response, which says with everything that comes, comments too, that it is alive. */
function heard(response, alive) {
  const through = new TransformStream({
    transform(part, out) {
      alive();
      out.enqueue(part);
    },
  });
  return { body: response.body.pipeThrough(through) };
}
