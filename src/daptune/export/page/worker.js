// The model, away from the page's own thread: picture files in, probabilities out.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { crop, decode, normalize } from "./image.js";

const MOST_PIXELS = 100e6;

ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url).href };
// threads need a page that the server isolates (Cross-Origin-Opener-Policy and -Embedder-Policy)
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
const ready = ort.InferenceSession.create(new URL("model.onnx", import.meta.url).href);
let last = ready;

async function classify(file, preprocess) {
  const session = await ready, size = preprocess.size;
  let image;
  try {
    image = await decode(file, MOST_PIXELS);
  } catch (error) {
    return { error: error instanceof RangeError ? `Too large: ${error.message}.` : "This browser cannot read the picture." };
  }
  const images = new ort.Tensor("float32", normalize(crop(image, preprocess), preprocess), [1, 3, size, size]);
  const { probabilities, similarity } = await session.run({ images });
  return { probabilities: [...probabilities.data], similarity: similarity?.data[0] };
}

onmessage = ({ data: { number, file, preprocess } }) => {
  const answer = (found) => postMessage({ number, ...found });
  last = last.catch(() => {}).then(() => classify(file, preprocess)).then(answer, (error) => answer({ failed: String(error.message || error) }));
};
