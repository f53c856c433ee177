// Everything that needs a browser. One bundle and one Chromium serve all of it.

import { after, before } from "node:test";

import { checkTests } from "./check.mjs";
import { decodeTests } from "./decode.mjs";
import { embedTests } from "./embed.mjs";
import { start } from "./harness.mjs";
import { openTests } from "./open.mjs";
import { overlapTests } from "./overlap.mjs";
import { processorTests } from "./processor.mjs";
import { refusalTests } from "./refuse.mjs";
import { webgpuTests } from "./webgpu.mjs";

let place;
before(async () => {
  place = await start();
});
after(() => place?.stop());

const at = () => place;
decodeTests(at);
embedTests(at);
openTests(at);
overlapTests(at);
processorTests(at);
refusalTests(at);
checkTests(at);
webgpuTests(at);
