// Drives onnxruntime-web under Node: the same request and answer as child.py.
"use strict";
const fs = require("fs");
const path = require("path");
const ort = require("onnxruntime-web");

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array,
  int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array,
  int64: BigInt64Array, uint64: BigUint64Array, bool: Uint8Array,
};

function tensorOf(folder, told) {
  const bytes = fs.readFileSync(path.join(folder, told.file));
  const Kind = ARRAYS[told.dtype];
  if (Kind === undefined) throw new Error(`inputs of type ${told.dtype} cannot be given`);
  const aligned = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  return new ort.Tensor(told.dtype, new Kind(aligned), told.shape);
}

function written(folder, place, tensor) {
  if (!(tensor.type in ARRAYS)) return null;
  const file = `output_${place}.bin`;
  const data = tensor.data;
  fs.writeFileSync(path.join(folder, file),
    Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  return { file, dtype: tensor.type, shape: Array.from(tensor.dims) };
}

async function answerTo(folder, request) {
  ort.env.logLevel = "fatal";
  ort.env.wasm.numThreads = request.threads || 0;
  const before = process.memoryUsage().rss;
  const home = path.dirname(request.model);
  const externalData = fs.readdirSync(home)
    .filter((name) => !/\.(onnx|mnn)$/.test(name))
    .map((name) => ({ path: name, data: path.join(home, name) }));
  const session = await ort.InferenceSession.create(
    request.model, { executionProviders: ["wasm"], externalData });
  const feed = Object.create(null);
  for (const told of request.inputs) feed[told.name] = tensorOf(folder, told);
  const results = await session.run(feed, request.outputs);
  const outputs = request.outputs.map((name, place) => written(folder, place, results[name]));
  // Node runs a program that it has compiled in haste, until a better one is ready.
  const warm = performance.now();
  for (let n = 0; n < 100 && performance.now() - warm < request.seconds * 10000; n++) {
    await session.run(feed, request.outputs);
  }
  const times = [];
  const started = performance.now();
  while (times.length < request.fewest || (times.length < request.most &&
         performance.now() - started < request.seconds * 1000)) {
    const start = performance.now();
    await session.run(feed, request.outputs);
    times.push(performance.now() - start);
  }
  return { outputs, times, memory_before: before,
    peak_memory: process.resourceUsage().maxRSS * 1024 };
}

async function main(folder) {
  const request = JSON.parse(fs.readFileSync(path.join(folder, "request.json"), "utf8"));
  let answer;
  try {
    answer = await answerTo(folder, request);
  } catch (error) {
    answer = { error: String((error && error.message) || error).slice(0, 400) };
  }
  fs.writeFileSync(path.join(folder, "answer.json"), JSON.stringify(answer));
  process.exit(0);
}

if (process.argv[2] === "--version") {
  console.log(ort.env.versions.web || ort.env.versions.common);
  process.exit(0);
}
main(process.argv[2]);
