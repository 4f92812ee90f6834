// One model in onnxruntime-web, under Node and in a page alike: a request in, an answer out, as in
// child.py. `files` brings what differs: where the model lies, how bytes come and go, and perhaps
// `now`, a clock in milliseconds.
"use strict";

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array,
  int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array,
  int64: BigInt64Array, uint64: BigUint64Array, bool: Uint8Array,
};

async function tensorOf(ort, files, told) {
  const Kind = ARRAYS[told.dtype];
  if (Kind === undefined) throw new Error(`inputs of type ${told.dtype} cannot be given`);
  return new ort.Tensor(told.dtype, new Kind(await files.read(told.file)), told.shape);
}

async function written(files, place, tensor) {
  if (!(tensor.type in ARRAYS)) return null;
  const file = `output_${place}.bin`;
  const data = tensor.data;
  await files.write(file, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return { file, dtype: tensor.type, shape: Array.from(tensor.dims) };
}

async function timesOf(run, request, now = () => performance.now()) {
  // A program that was compiled in haste runs until a better one is ready.
  const warm = now();
  for (let n = 0; n < 100 && now() - warm < request.seconds * 10000; n++) await run();
  const times = [];
  const started = now();
  while (times.length < request.fewest || (times.length < request.most &&
         now() - started < request.seconds * 1000)) {
    const start = now();
    await run();
    times.push(now() - start);
  }
  return times;
}

async function runModel(ort, request, files) {
  ort.env.logLevel = "fatal";
  ort.env.wasm.numThreads = request.threads || 0;
  const session = await ort.InferenceSession.create(
    files.model, { executionProviders: ["wasm"], externalData: files.externalData });
  const feed = Object.create(null);
  for (const told of request.inputs) feed[told.name] = await tensorOf(ort, files, told);
  const run = () => session.run(feed, request.outputs);
  const results = await run();
  const outputs = [];
  for (const [place, name] of request.outputs.entries()) {
    outputs.push(await written(files, place, results[name]));
  }
  const times = await timesOf(run, request, files.now);
  return { outputs, times, memory_before: null, peak_memory: null };
}

function reasonOf(error) {
  return String((error && error.message) || error).slice(0, 400);
}

if (typeof module !== "undefined") module.exports = { runModel, reasonOf };
