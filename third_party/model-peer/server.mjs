// Serves one GGUF model with the OpenAI chat API on the loopback interface.
//
// It is a peer for tests and for recording the golden product, not a product: one request at a
// time, ChatML models only, no authentication. Every request starts from an empty context, so
// that the same request gives the same answer as long as it runs on the same kind of processor.
// Token counts are those of the tokens that were evaluated and drawn.
// It ends when its standard input closes, so that it cannot outlive whoever started it.
//
//   node server.mjs --modules DIR/node_modules --model FILE.gguf [--alias NAME] [--port 0]
//
// prints one line `{"port":…,"model":…,"sha256":…}` when it is ready.

import { createHash } from "node:crypto";
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { pathToFileURL } from "node:url";
import { grammarOf } from "./grammar.mjs";

const BODY_BYTES_MAX = 16 * 1024 * 1024;
const QUEUE_MAX = 64;

class Refusal extends Error {
  constructor(status, message, code = "invalid_request_error") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const { values: options } = parseArgs({
  options: {
    modules: { type: "string" },
    model: { type: "string" },
    alias: { type: "string" },
    port: { type: "string", default: "0" },
    context: { type: "string", default: "4096" },
    threads: { type: "string", default: "2" },
  },
});
if (!options.modules || !options.model) {
  process.stderr.write("usage: node server.mjs --modules DIR/node_modules --model FILE.gguf\n");
  process.exit(2);
}
process.stdin.on("end", () => process.exit(0)).on("error", () => process.exit(0)).resume();

const library = join(resolve(options.modules), "node-llama-cpp", "dist", "index.js");
const { getLlama, LlamaGrammarEvaluationState } = await import(pathToFileURL(library));
const llama = await getLlama({ build: "never", gpu: false, logLevel: "error" });
const model = await llama.loadModel({ modelPath: resolve(options.model) });
const template = model.fileInfo.metadata?.tokenizer?.chat_template ?? "";
if (!template.includes("<|im_start|>")) {
  process.stderr.write(`${options.model}: its chat template is not ChatML\n`);
  process.exit(3);
}
const context = await model.createContext({
  contextSize: Number(options.context),
  threads: Number(options.threads),
});
const sequence = context.getSequence();

const identity = {
  sha256: await hashOf(options.model),
  size: statSync(options.model).size,
  file: basename(options.model),
};
const alias = options.alias ?? basename(options.model, ".gguf").toLowerCase();

async function hashOf(path) {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
}

/** The prompt's tokens. Only the frame is read as special tokens, never the text in it. */
function render(messages) {
  if (!Array.isArray(messages) || messages.length === 0) throw new Refusal(400, "`messages` is empty");
  const tokens = [];
  for (const { role, content } of messages) {
    if (!["system", "user", "assistant"].includes(role)) throw new Refusal(400, `unknown role \`${role}\``);
    if (typeof content !== "string") throw new Refusal(400, "`content` is not a text");
    tokens.push(...model.tokenize(`<|im_start|>${role}\n`, true));
    tokens.push(...model.tokenize(content, false));
    tokens.push(...model.tokenize("<|im_end|>\n", true));
  }
  return [...tokens, ...model.tokenize("<|im_start|>assistant\n", true)];
}

async function grammarState(format) {
  if (!format || format.type === "text") return undefined;
  const schema = format.type === "json_schema" ? format.json_schema?.schema : format.schema;
  if (!schema) throw new Refusal(400, "`response_format` has no schema");
  let text;
  try {
    text = grammarOf(schema);
  } catch (error) {
    throw new Refusal(400, `response_format: ${error.message}`);
  }
  const grammar = await llama.createGrammar({ grammar: text });
  return new LlamaGrammarEvaluationState({ model, grammar });
}

/** Draws an answer; `emit` gets its text piece by piece. */
async function complete(request, emit, isGone) {
  if (request.model !== alias) throw new Refusal(404, `no model \`${request.model}\` here, only \`${alias}\``, "model_not_found");
  const prompt = render(request.messages);
  const most = request.max_completion_tokens ?? request.max_tokens ?? 256;
  if (prompt.length + most > context.contextSize) {
    const message = `${prompt.length} tokens of prompt and ${most} of answer exceed the context of ${context.contextSize}`;
    throw new Refusal(400, message, "context_length_exceeded");
  }
  const grammarEvaluationState = await grammarState(request.response_format);
  await sequence.clearHistory();
  const temperature = request.temperature ?? 1;
  const draw = sequence.evaluate(prompt, {
    temperature,
    topP: request.top_p ?? 1,
    seed: request.seed ?? 0,
    grammarEvaluationState,
    yieldEogToken: true,
  });
  const tokens = [];
  let sent = "";
  let finish = "length";
  for await (const token of draw) {
    if (isGone()) break;
    if (model.isEogToken(token)) {
      finish = "stop";
      break;
    }
    tokens.push(token);
    const text = model.detokenize(tokens);
    // A character may be cut between two tokens: wait for the rest of it.
    if (!text.endsWith("\uFFFD") && text.length > sent.length) {
      emit(text.slice(sent.length));
      sent = text;
    }
    if (tokens.length >= most) break;
  }
  const usage = {
    prompt_tokens: prompt.length,
    completion_tokens: tokens.length,
    total_tokens: prompt.length + tokens.length,
  };
  return { text: sent, finish, usage };
}

let busy = Promise.resolve();
let waiting = 0;

/** One request at a time: the model has one context. */
async function inTurn(work) {
  if (waiting >= QUEUE_MAX) throw new Refusal(503, "the queue is full", "overloaded");
  waiting += 1;
  const before = busy;
  let done;
  busy = new Promise((release) => (done = release));
  try {
    await before;
    return await work();
  } finally {
    waiting -= 1;
    done();
  }
}

async function bodyOf(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new Refusal(413, "the request is too long");
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch (error) {
    throw new Refusal(400, `the request is not JSON: ${error.message}`);
  }
}

function json(response, status, value) {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
}

async function chat(request, response) {
  const body = await bodyOf(request);
  const base = { id: `chatcmpl-${Date.now()}`, created: Math.floor(Date.now() / 1000), model: alias };
  const isGone = () => response.destroyed;
  if (!body.stream) {
    const { text, finish, usage } = await inTurn(() => complete(body, () => {}, isGone));
    const message = { role: "assistant", content: text };
    const choices = [{ index: 0, message, finish_reason: finish }];
    return json(response, 200, { ...base, object: "chat.completion", choices, usage });
  }
  const event = (value) => {
    if (!response.headersSent) response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(`data: ${value}\n\n`);
  };
  const chunk = (delta, finish_reason = null) =>
    event(JSON.stringify({ ...base, object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason }] }));
  const { finish, usage } = await inTurn(() => complete(body, (content) => chunk({ content }), isGone));
  chunk({}, finish);
  if (body.stream_options?.include_usage) {
    event(JSON.stringify({ ...base, object: "chat.completion.chunk", choices: [], usage }));
  }
  event("[DONE]");
  response.end();
}

async function tokenize(request, response) {
  const body = await bodyOf(request);
  const tokens = body.messages ? render(body.messages) : model.tokenize(String(body.content ?? ""), false);
  json(response, 200, { tokens, count: tokens.length });
}

async function route(request, response) {
  const { pathname } = new URL(request.url, "http://127.0.0.1");
  switch (`${request.method} ${pathname}`) {
    case "GET /v1/models":
      return json(response, 200, { object: "list", data: [{ id: alias, object: "model", owned_by: "local", meta: identity }] });
    case "POST /v1/chat/completions":
      return chat(request, response);
    case "POST /tokenize":
      return tokenize(request, response);
    default:
      throw new Refusal(404, `no route ${request.method} ${pathname}`, "not_found");
  }
}

const server = createServer((request, response) => {
  route(request, response).catch((error) => {
    const body = { error: { message: error.message, type: error.code ?? "server_error", code: error.code ?? "server_error" } };
    if (response.headersSent) {
      response.write(`data: ${JSON.stringify(body)}\n\n`);
      response.end();
    } else {
      json(response, error.status ?? 500, body);
    }
  });
});
server.listen(Number(options.port), "127.0.0.1", () => {
  const { port } = server.address();
  process.stdout.write(`${JSON.stringify({ port, model: alias, ...identity })}\n`);
});
