/** The life of a question, as pure values: what is known after each thing that happens. */

export const IDLE = Object.freeze({
  phase: "idle", // asking → sources → answering → done | stopped | failed
  retry: null, // {seconds, problem} while the connection is down
  resumed: 0, // how often the answer went on after a cut
  hits: null, // of the newest `sources` or `provisional`
  provisional: false,
  notes: [],
  timings: null,
  finish: null,
  problem: null,
  at: {}, // milliseconds after the question, by phase
});

/**
 * Return the state after `action`.
 *
 * @param {typeof IDLE} state
 * @param {{type: string, ms?: number}} action `ask`, `event` (with `event` and `data`), `retry` (with `seconds` and
 *   `problem`), `stop`, or `fail` (with `problem`); `ms` is the time since the question
 */
export function after(state, action) {
  switch (action.type) {
    case "ask":
      return { ...IDLE, phase: "asking" };
    case "retry":
      return { ...state, retry: { seconds: action.seconds, problem: action.problem } };
    case "stop":
      return { ...state, phase: "stopped", retry: null };
    case "fail":
      return { ...state, phase: "failed", retry: null, problem: action.problem };
    default:
      return afterEvent(connected(state), action);
  }
}

/** An event has come, so the connection is there again. */
function connected(state) {
  if (!state.retry) return state;
  return { ...state, retry: null, resumed: state.resumed + (state.phase === "asking" ? 0 : 1) };
}

function afterEvent(state, { event, data, ms }) {
  const at = (phase) => ({ ...state.at, [phase]: state.at[phase] ?? ms });
  switch (event) {
    case "provisional":
      return { ...state, hits: data.hits, provisional: true, at: at("provisional") };
    case "sources":
      return { ...state, phase: "sources", hits: data.hits, provisional: false, notes: data.notes ?? [], at: at("sources") };
    case "token":
      return { ...state, phase: "answering", at: at("answering") };
    case "done":
      return { ...state, phase: "done", finish: data.finish_reason, timings: data.timings, notes: [...state.notes, ...(data.notes ?? [])], at: at("done") };
    default:
      return state;
  }
}

export const running = ({ phase }) => phase === "asking" || phase === "sources" || phase === "answering";
