// Server-sent events of an answer to a POST, which EventSource cannot ask for.

/** Yields {name, data} of each event of a body, as it comes. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let made = { name: "message", data: [] };
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (line) take(made, line);
        else {
          if (made.data.length) yield { name: made.name, data: made.data.join("\n") };
          made = { name: "message", data: [] };
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function take(made, line) {
  const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
  if (field === "event") made.name = value;
  if (field === "data") made.data.push(value);
}
