// The TypeScript SDK, version 2: knows both eras.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const asked = JSON.parse(process.argv[2]);
const from = createRequire(asked.modules + "/");
const load = (name) => import(pathToFileURL(from.resolve(name)));
const { Client, StreamableHTTPClientTransport } = await load("@modelcontextprotocol/client");
const { StdioClientTransport } = await load("@modelcontextprotocol/client/stdio");

const transport = asked.url
  ? new StreamableHTTPClientTransport(new URL(asked.url))
  : new StdioClientTransport({ command: asked.command, args: asked.args, env: asked.env, stderr: "ignore" });
const mode = asked.era === "modern" ? { versionNegotiation: { mode: "auto" } } : {};
const client = new Client({ name: "typescript-v2", version: "1" }, mode);
await client.connect(transport);

const tools = (await client.listTools()).tools.map((tool) => tool.name);
const progress = [];
const stop = new AbortController();
const onprogress = (note) => {
  progress.push(note.message);
  stop.abort();
};
const cancelled = await client
  .callTool({ name: "count_traces", arguments: {} }, { onprogress, signal: stop.signal })
  .then(() => false, () => true);
const call = (name, args) => client.callTool({ name, arguments: args });
const plain = await call("count_traces", {});
const wrong = await call("count_traces", { filter: {} });
const json = await call("count_traces", { response_format: "json" });
const protocol = client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion ?? null;
const server = client.getServerVersion()?.name;
await client.close();
console.log(JSON.stringify({
  protocol,
  server,
  tools,
  progress,
  cancelled,
  text: plain.content[0].text,
  wrong: wrong.isError ? wrong.content[0].text : null,
  total: json.structuredContent?.total,
}));
