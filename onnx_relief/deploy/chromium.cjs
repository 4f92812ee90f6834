// Drives onnxruntime-web in a page of headless Chromium: the same request and answer as child.py.
"use strict";
const crypto = require("crypto");
const fs = require("fs");
const http = require("http");
const path = require("path");
const { execFileSync } = require("child_process");
const { chromium } = require("playwright-core");

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const LIBRARY = path.dirname(require.resolve("onnxruntime-web"));
const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm",
  ".html": "text/html" };
const PAGE = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script src="ort/ort.wasm.min.js"></script><script src="own/web_run.js"></script>`;

function browserPath() {
  const folders = (process.env.PATH || "").split(path.delimiter);
  const own = folders.flatMap((folder) => NAMES.map((name) => path.join(folder, name)));
  const found = [...own, chromium.executablePath()].find((file) => file && fs.existsSync(file));
  if (found === undefined) throw new Error("there is no Chromium on the PATH");
  return found;
}

// Gives out the files of three folders, and takes outputs, under an address that nobody can guess.
function serve(secret, folders) {
  const server = http.createServer((request, response) => {
    const parts = new URL(request.url, "http://localhost").pathname.split("/");
    const [, given, where, name, ...rest] = parts.map(decodeURIComponent);
    // With these two headers a page may use threads.
    response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
    response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    const folder = Object.hasOwn(folders, where || "") ? folders[where] : undefined;
    if (given !== secret || rest.length) return response.writeHead(404).end();
    if (where === "") return response.setHeader("Content-Type", TYPES[".html"]).end(PAGE);
    if (folder === undefined || path.basename(name || "") !== name) {
      return response.writeHead(404).end();
    }
    const file = path.join(folder, name);
    if (request.method === "PUT" && where === "child" && /^output_\d+\.bin$/.test(name)) {
      return request.pipe(fs.createWriteStream(file)).on("finish", () => response.end());
    }
    if (!fs.existsSync(file)) return response.writeHead(404).end();
    response.setHeader("Content-Type", TYPES[path.extname(name)] || "application/octet-stream");
    fs.createReadStream(file).pipe(response);
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server)));
}

// Runs in the page.
async function inPage({ request, names }) {
  const files = {
    model: "model/model.onnx",
    externalData: names.map((name) => ({ path: name, data: `model/${encodeURIComponent(name)}` })),
    read: async (file) => (await fetch(`child/${file}`)).arrayBuffer(),
    write: async (file, body) => {
      const answer = await fetch(`child/${file}`, { method: "PUT", body });
      if (!answer.ok) throw new Error(`an output could not be handed over (${answer.status})`);
    },
  };
  ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
  try {
    return await runModel(ort, request, files);
  } catch (error) {
    return { error: reasonOf(error) };
  }
}

async function answerTo(folder, request) {
  const home = path.dirname(request.model);
  const secret = crypto.randomUUID();
  const server = await serve(secret, { ort: LIBRARY, own: __dirname, model: home, child: folder });
  const context = await chromium.launchPersistentContext(
    path.join(folder, "profile"), { executablePath: browserPath(), headless: true });
  try {
    const page = await context.newPage();
    const died = new Promise((_, fail) => {
      page.on("crash", () => fail(new Error("the page crashed")));
      context.on("close", () => fail(new Error("the browser ended")));
    });
    died.catch(() => {});
    await page.goto(`http://127.0.0.1:${server.address().port}/${secret}/`);
    const names = fs.readdirSync(home).filter((name) => !name.endsWith(".onnx"));
    return await Promise.race([page.evaluate(inPage, { request, names }), died]);
  } finally {
    await context.close();
    server.close();
  }
}

async function main(folder) {
  const request = JSON.parse(fs.readFileSync(path.join(folder, "request.json"), "utf8"));
  let answer;
  try {
    answer = await answerTo(folder, request);
  } catch (error) {
    answer = { error: String((error && error.message) || error).split("\n")[0].slice(0, 400) };
  }
  fs.writeFileSync(path.join(folder, "answer.json"), JSON.stringify(answer));
  process.exit(0);
}

if (process.argv[2] === "--version") {
  // The library's own number is in its files only; the browser's is asked for.
  const own = JSON.parse(fs.readFileSync(path.join(LIBRARY, "..", "package.json"), "utf8"));
  const quiet = { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] };
  const said = execFileSync(browserPath(), ["--version"], quiet);
  const browser = (/\d+(\.\d+)*/.exec(said) || ["?"])[0];
  console.log(`${own.version}, Chromium ${browser}`);
  process.exit(0);
}
main(process.argv[2]);
