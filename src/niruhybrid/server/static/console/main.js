/** Starts the console; each panel is a module of its own. */

import { startAdd } from "./add.js";
import { startAsk } from "./ask.js";
import { startPipeline } from "./pipeline.js";
import { startSession } from "./session.js";
import { startWatch } from "./watch.js";

startSession();
startAsk();
startPipeline();
startAdd();
startWatch();
