// A client of AG-UI: HttpAgent, with the connect that CopilotKit's has and this one lacks.
import { HttpAgent, runHttpRequest, transformHttpEventStream } from "@ag-ui/client";
import { serve } from "./commands.mjs";

const warnings = [];
console.warn = (...told) => warnings.push(told.map(String).join(" "));
console.error = () => {};

class Agent extends HttpAgent {
  connect(input) {
    this.abortController = new AbortController();
    const url = this.url.replace(/\/run$/, "/connect");
    return transformHttpEventStream(runHttpRequest(() => fetch(url, this.requestInit(input))));
  }
}

let agent;
let end;

const shown = () => ({
  messages: agent.messages,
  state: agent.state,
  interrupts: agent.pendingInterrupts,
  warnings,
  ...end,
});

async function read(reading) {
  end = {};
  try {
    await reading();
  } catch (error) {
    end.error = String(error.message);
  }
  return shown();
}

const noting = {
  onRunFinishedEvent: ({ outcome, pendingToolCallIds }) => {
    end.outcome = outcome;
    end.pending = pendingToolCallIds;
  },
  onRunErrorEvent: ({ event }) => {
    end.error = event.message;
  },
};

serve({
  async open({ url, id, headers }) {
    agent = new Agent({ url, threadId: id, headers });
    agent.subscribe(noting);
    return shown();
  },
  async send({ message, ...options }) {
    agent.addMessage({ role: "user", ...message });
    return read(() => agent.runAgent(options));
  },
  async run(options) {
    return read(() => agent.runAgent(options));
  },
  async connect() {
    return read(() => agent.connectAgent());
  },
  async answer({ message }) {
    agent.addMessage({ role: "tool", ...message });
    return shown();
  },
  async abort() {
    agent.abortRun();
    return shown();
  },
  async shown() {
    return shown();
  },
  async pretend({ messages, state }) {
    agent.setMessages(messages);
    agent.setState(state ?? agent.state);
    return shown();
  },
});
