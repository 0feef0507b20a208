/** Starts the console; each panel is a module of its own. */

import { startAsk } from "./ask.js";
import { startPipeline } from "./pipeline.js";
import { startSession } from "./session.js";

startSession();
startAsk();
startPipeline();
