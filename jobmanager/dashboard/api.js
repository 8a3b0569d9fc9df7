// What the page asks of the job manager it came from, which asks the leader if it does not lead itself. Errors carry the server's words,
// which name cause and cure.

/** The server has refused: its own words. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Nobody answers, or nobody leads. */
export class Unreachable extends Error {}

/** What stands at `path`, as JSON. */
export const get = (path, signal) => ask("GET", path, undefined, signal);

/** Asks for something to be done, however long that takes; the answer as JSON, or nothing. */
export const send = (method, path, body) => ask(method, path, body, undefined);

async function ask(method, path, body, signal) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  const content = body === undefined ? undefined : JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, { method, headers, body: content, signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable("the job manager does not answer");
  }
  const text = await response.text();
  if (!response.ok) throw refusal(response.status, text);
  return text === "" ? null : JSON.parse(text);
}

/** What the body of a refusal says. */
export function refusal(status, text) {
  let words = text.trim();
  try {
    const body = JSON.parse(text);
    words = (body.errors ?? [body.message ?? text]).join("\n");
  } catch {
    // Not JSON: the text itself.
  }
  if (status === 503) return new Unreachable(words || "no job manager leads at the moment");
  return new Refused(status, words || `the job manager answered with status ${status}`);
}

/** Uploads a file as a form does, and tells how far it is, from 0 to 1. */
export function upload(path, file, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.upload.onprogress = (event) => progress(event.lengthComputable ? event.loaded / event.total : 0);
    request.onerror = () => reject(new Unreachable("the connection broke during the upload; choose the file again"));
    request.onload = () => {
      if (request.status >= 300) reject(refusal(request.status, request.responseText));
      else resolve(JSON.parse(request.responseText));
    };
    const form = new FormData();
    form.append("jarfile", file, file.name);
    request.send(form);
  });
}
