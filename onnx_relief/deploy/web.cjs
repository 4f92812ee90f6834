// Drives onnxruntime-web under Node: the same request and answer as child.py.
"use strict";
const fs = require("fs");
const path = require("path");
const ort = require("onnxruntime-web");
const { runModel, reasonOf } = require("./web_run.js");

function filesOf(folder, request) {
  const home = path.dirname(request.model);
  return {
    model: request.model,
    externalData: fs.readdirSync(home)
      .filter((name) => !name.endsWith(".onnx"))
      .map((name) => ({ path: name, data: path.join(home, name) })),
    read: (file) => {
      const bytes = fs.readFileSync(path.join(folder, file));
      return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
    },
    write: (file, bytes) => fs.writeFileSync(path.join(folder, file), bytes),
    now: request.processor_time ? processorTime : undefined,
  };
}

function processorTime() {
  const spent = process.cpuUsage();
  return (spent.user + spent.system) / 1000;
}

async function main(folder) {
  const request = JSON.parse(fs.readFileSync(path.join(folder, "request.json"), "utf8"));
  const before = process.memoryUsage().rss;
  let answer;
  try {
    answer = await runModel(ort, request, filesOf(folder, request));
    answer.memory_before = before;
    answer.peak_memory = process.resourceUsage().maxRSS * 1024;
  } catch (error) {
    answer = { error: reasonOf(error) };
  }
  fs.writeFileSync(path.join(folder, "answer.json"), JSON.stringify(answer));
  process.exit(0);
}

if (process.argv[2] === "--version") {
  console.log(ort.env.versions.web || ort.env.versions.common);
  process.exit(0);
}
main(process.argv[2]);
