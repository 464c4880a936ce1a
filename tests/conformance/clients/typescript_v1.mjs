// The TypeScript SDK, version 1: knows the handshake only.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const asked = JSON.parse(process.argv[2]);
const from = createRequire(asked.modules + "/");
const load = (name) => import(pathToFileURL(from.resolve(name)));
const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = await load("@modelcontextprotocol/sdk/client/stdio.js");
const { StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");

const transport = asked.url
  ? new StreamableHTTPClientTransport(new URL(asked.url))
  : new StdioClientTransport({ command: asked.command, args: asked.args, env: asked.env, stderr: "ignore" });
let protocol = null;
const keep = transport.setProtocolVersion?.bind(transport);
transport.setProtocolVersion = (version) => {
  protocol = version;
  keep?.(version);
};
const client = new Client({ name: "typescript-v1", version: "1" });
await client.connect(transport);

const tools = (await client.listTools()).tools.map((tool) => tool.name);
const progress = [];
const stop = new AbortController();
const onprogress = (note) => {
  progress.push(note.message);
  stop.abort();
};
const cancelled = await client
  .callTool({ name: "count_traces", arguments: {} }, undefined, { onprogress, signal: stop.signal })
  .then(() => false, () => true);
const call = (name, args) => client.callTool({ name, arguments: args });
const plain = await call("count_traces", {});
const wrong = await call("count_traces", { filter: {} });
const json = await call("count_traces", { response_format: "json" });
await client.close();
console.log(JSON.stringify({
  protocol,
  server: client.getServerVersion()?.name,
  tools,
  progress,
  cancelled,
  text: plain.content[0].text,
  wrong: wrong.isError ? wrong.content[0].text : null,
  total: json.structuredContent?.total,
}));
